import type { Cluster } from '../../discovery/clusters.ts';
import { editKubeconfig, type KubeconfigView, type OurContext, readKubeconfig } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { previousContext, rememberSwitch } from '../contexts/previous.ts';
import { contextSpec } from '../contexts/spec.ts';
import { noCluster } from '../target/by-name.ts';
import { allClusters } from '../target/clusters.ts';
import { type ContextName, contextFor, contextsByCluster } from '../target/contexts.ts';
import { byList } from '../target/named-by.ts';
import { trustOf } from '../target/trust.ts';

/** An item to switch to: a cluster, a managed context, or both. */
interface Choice {
  readonly name: string;
  readonly cluster: Cluster | undefined;
  readonly ours: OurContext | undefined;
}

const listed = 50;

/** Runs `use [NAME]`: makes the context of a cluster the current one. */
export async function use(context: Context, [name]: readonly string[]): Promise<void> {
  if (name === '') throw new UsageError('empty name', { hints: ['kubectl tka clusters shows the names'] });
  const view = await readKubeconfig(context.kubeconfig);
  if (name === '-') return switchTo(context, view, contextBefore(context, view));
  // A managed context needs no list of clusters, and so no network.
  const known = view.ours.find((ours) => ours.name === name);
  const choice = known === undefined ? await choose(context, view, name) : undefined;
  if (choice === undefined) return known && switchTo(context, view, known.name);
  if (choice.ours !== undefined) return switchTo(context, view, choice.ours.name);
  if (choice.cluster !== undefined) return addAndSwitch(context, view, choice.cluster);
}

function contextBefore(context: Context, view: KubeconfigView): string {
  const before = previousContext(context);
  const hints = ['kubectl tka use NAME'];
  if (before === undefined) throw new TkaError('no previous context', { hints });
  if (!view.contexts.has(before)) throw new TkaError(`previous context ${quoted(before)} no longer exists`, { hints });
  return before;
}

async function choose(context: Context, view: KubeconfigView, name: string | undefined): Promise<Choice> {
  let clusters: readonly Cluster[] = [];
  let failed: TkaError | undefined;
  try {
    clusters = await allClusters(context, view);
  } catch (error) {
    if (!(error instanceof TkaError) || error.exitCode !== 1 || view.ours.length === 0) throw error;
    failed = error;
  }
  const choices = choicesOf(clusters, view);
  const found = name === undefined ? undefined : choiceNamed(choices, name);
  // The contexts in the kubeconfig may be enough.
  if (failed !== undefined && (name === undefined || found !== undefined))
    context.terminal.warn(`showing only clusters that have a context: ${failed.message}`);
  if (name === undefined) return pickOne(context, view, choices);
  if (found !== undefined) return found;
  throw failed ?? notFound(clusters, view, name);
}

/** Returns every cluster, and every managed context whose server belongs to no cluster. */
function choicesOf(clusters: readonly Cluster[], view: KubeconfigView): Choice[] {
  const contexts = contextsByCluster(view, clusters);
  const covered = new Set([...contexts.values()].flat());
  const listed = clusters.map((cluster): Choice => {
    return { name: cluster.name, cluster, ours: contexts.get(cluster)?.[0] };
  });
  const others = view.ours.filter((ours) => !covered.has(ours));
  return [...listed, ...others.map((ours): Choice => ({ name: ours.name, cluster: undefined, ours }))];
}

function choiceNamed(choices: readonly Choice[], name: string): Choice | undefined {
  const called = choices.filter((choice) => choice.name === name);
  const isServer = ({ cluster }: Choice) => cluster?.servers.some((server) => server.name === name) === true;
  const exact = called.length > 0 ? called : choices.filter(isServer);
  const begins = ({ name: own, ours }: Choice) => own.startsWith(name) || ours?.name.startsWith(name) === true;
  const found = exact.length > 0 ? exact : choices.filter(begins);
  if (found.length < 2) return found[0];
  const what = exact.length > 0 ? 'are named' : 'have names that start with';
  throw new UsageError(`${found.length} clusters ${what} ${quoted(name)}`, { hints: list(found, 10) });
}

function list(choices: readonly Choice[], limit: number): string[] {
  const lines = choices.slice(0, limit).map(({ name, cluster, ours }) => {
    const alike = choices.filter((other) => other.name === name).length > 1;
    const where = alike ? `, ${cluster?.server ?? cluster?.apiEndpoint ?? ours?.server}` : '';
    const context = ours === undefined || ours.name === name ? '' : `, context ${cleanText(ours.name)}`;
    return `${cleanText(name)} (${cluster?.state ?? 'not listed'}${context}${where})`;
  });
  return choices.length > limit ? [...lines, `and ${choices.length - limit} more: kubectl tka clusters`] : lines;
}

function notFound(clusters: readonly Cluster[], view: KubeconfigView, name: string): TkaError {
  if (view.contexts.has(name)) {
    return new TkaError(`context ${quoted(name)} is not managed by kubectl-tka`, {
      hints: [`kubectl config use-context ${cleanText(name)}`],
    });
  }
  return noCluster(name, clusters, view);
}

async function pickOne(context: Context, view: KubeconfigView, choices: readonly Choice[]): Promise<Choice> {
  if (choices.length === 0) throw new TkaError('no clusters found', { hints: ['kubectl tka clusters'] });
  const { canPick, pick } = await import('../../terminal/picker.ts');
  if (!canPick(context.env)) {
    const why =
      context.env.TERM === 'dumb' ? 'the list needs more than TERM=dumb' : 'there is no terminal to choose one on';
    throw new UsageError(`a cluster name is required: ${why}`, { hints: list(choices, listed) });
  }
  const items = choices.map(({ name, cluster, ours }) => ({
    name,
    state: cluster?.state ?? 'not listed',
    labels: [...(cluster?.labels ?? [])].map(([key, value]) => `${key}=${value}`).join(','),
    current: ours !== undefined && ours.name === view.currentContext,
  }));
  const chosen = choices[await pick(items, context.env)];
  if (chosen === undefined) throw new TkaError('cancelled');
  return chosen;
}

async function switchTo(context: Context, view: KubeconfigView, name: string): Promise<void> {
  rememberSwitch(context, await editKubeconfig(context.kubeconfig, () => ({ currentContext: name })));
  say(context, name);
  const server = view.ours.find((ours) => ours.name === name)?.server;
  if (server === undefined || context.sessions.store.signedOut.read(server) === undefined) return;
  context.terminal.notice('you are signed out of this cluster');
  if (!context.settings.quiet) context.terminal.hint(`kubectl tka login ${server}`);
}

// Writes the context like `login --all-contexts` does, without signing in.
async function addAndSwitch(context: Context, view: KubeconfigView, cluster: Cluster): Promise<void> {
  const spec = await contextSpec(context, '', cluster, trustOf(context, view)).catch((error) => {
    if (!(error instanceof TkaError) || error.message.includes(cluster.name)) throw error;
    throw new TkaError(`${cluster.name}: ${error.message}`, { hints: error.hints, cause: error });
  });
  const { server } = spec;
  const namedBy = await byList(context);
  let named: ContextName = { name: '' };
  const edit = await editKubeconfig(context.kubeconfig, (v) => {
    named = contextFor(v, { server, clusterName: cluster.name }, { tailnet: context.settings.tailnet });
    const { name } = named;
    return { upsert: [{ ...spec, name, namedBy }], currentContext: name };
  });
  rememberSwitch(context, edit);
  if (named.notice !== undefined) context.terminal.notice(named.notice);
  say(context, named.name);
}

function say(context: Context, name: string): void {
  if (!context.settings.quiet) context.terminal.out(`Switched to context ${quoted(name)}.\n`);
}
