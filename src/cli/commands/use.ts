import type { Cluster } from '../../discovery/clusters.ts';
import { editKubeconfig, type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, composed, quoted } from '../../util/text.ts';
import { stateText } from '../clusters/rows.ts';
import type { Context } from '../context/context.ts';
import { sayInShell } from '../contexts/in-shell.ts';
import { previousContext, rememberSwitch } from '../contexts/previous.ts';
import { checkNamespace, contextSpec } from '../contexts/spec.ts';
import { isNamed, noCluster } from '../target/by-name.ts';
import { listClusters } from '../target/clusters.ts';
import { type ContextName, contextFor, contextsByCluster } from '../target/contexts.ts';
import { byList } from '../target/named-by.ts';
import { trustOf } from '../target/trust.ts';

/** An item to switch to: a cluster, a context, or a cluster with its context. */
interface Choice {
  readonly name: string;
  readonly cluster: Cluster | undefined;
  /** The name of its context; undefined if it has none yet. */
  readonly context: string | undefined;
  /** The TKA server of its context; undefined for a context that is not managed. */
  readonly server: string | undefined;
}

interface UseFlags {
  readonly namespace?: string;
}

const listed = 50;

/** Runs `use [NAME] [-n NAMESPACE]`: makes the context of a cluster the current one. */
export async function use(context: Context, [name]: readonly string[], { namespace }: UseFlags): Promise<void> {
  if (name === '') throw new UsageError('empty name', { hints: ['kubectl tka clusters shows the names'] });
  checkNamespace(namespace);
  const view = await readKubeconfig(context.kubeconfig);
  const known = knownContext(context, view, name, namespace);
  if (known !== undefined) return switchTo(context, view, known, namespace);
  const choice = await choose(context, view, name);
  if (choice.context !== undefined) return switchTo(context, view, choice.context, namespace);
  if (choice.cluster !== undefined) return addAndSwitch(context, view, choice.cluster, namespace);
}

/** Returns the name of the context to use if no list of clusters is needed for that, and so no network. */
function knownContext(
  context: Context,
  view: KubeconfigView,
  name: string | undefined,
  namespace: string | undefined,
): string | undefined {
  if (name === undefined && namespace !== undefined) return currentContext(view);
  if (name === undefined) return undefined;
  if (name === '-') return contextBefore(context, view);
  const wanted = composed(name);
  const found = view.contexts.has(name) ? name : [...view.contexts.keys()].find((each) => composed(each) === wanted);
  if (found === undefined) return undefined;
  // A cluster goes before a context that is not managed, but it must be in the last list to delay that one.
  const clusters = context.remembered.all;
  const isOther = clusters.length > 0 && !clusters.some(isNamed(name));
  return isOther || view.contexts.get(found)?.ours === true ? found : undefined;
}

function currentContext({ currentContext: name, contexts }: KubeconfigView): string {
  if (name !== undefined && contexts.has(name)) return name;
  throw new TkaError('no current context', { hints: ['name one: kubectl tka use NAME -n NAMESPACE'] });
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
  let stateAt: number | undefined;
  let failed: TkaError | undefined;
  try {
    ({ clusters, at: stateAt } = await listClusters(context, view));
  } catch (error) {
    if (!(error instanceof TkaError) || error.exitCode !== 1 || view.contexts.size === 0) throw error;
    failed = error;
  }
  const choices = choicesOf(clusters, view);
  const found = name === undefined ? undefined : choiceNamed(choices, name);
  // The contexts in the kubeconfig may be enough.
  if (failed !== undefined && (name === undefined || (found !== undefined && found.name !== name)))
    context.terminal.warn(`showing only clusters that have a context: ${failed.message}`);
  if (name === undefined) return pickOne(context, view, choices, stateAt);
  if (found !== undefined) return found;
  throw failed ?? noCluster(name, clusters, { ours: [...view.contexts.keys()].map((each) => ({ name: each })) });
}

/** Returns every cluster, every managed context whose server belongs to no cluster, and the other contexts. */
function choicesOf(clusters: readonly Cluster[], view: KubeconfigView): Choice[] {
  const contexts = contextsByCluster(view, clusters);
  const covered = new Set([...contexts.values()].flat());
  const listed = clusters.map((cluster): Choice => {
    const ours = contexts.get(cluster)?.[0];
    return { name: cluster.name, cluster, context: ours?.name, server: ours?.server };
  });
  const ofContext = (name: string, server?: string): Choice => ({ name, cluster: undefined, context: name, server });
  const unlisted = view.ours.filter((ours) => !covered.has(ours)).map(({ name, server }) => ofContext(name, server));
  const others = [...view.contexts].filter(([, { ours }]) => !ours).map(([name]) => ofContext(name));
  return [...listed, ...unlisted, ...others];
}

const isManaged = ({ cluster, server }: Choice) => cluster !== undefined || server !== undefined;

function stateOf(choice: Choice, stateAt?: number): string {
  if (choice.cluster !== undefined) return stateText(choice.cluster.state, stateAt);
  return isManaged(choice) ? 'not listed' : 'not managed';
}

function choiceNamed(choices: readonly Choice[], name: string): Choice | undefined {
  const isIt = isNamed(name);
  const called = choices.filter(isIt);
  const managed = called.filter(isManaged);
  const isServer = ({ cluster }: Choice) => cluster?.servers.some(isIt) === true;
  const exact = [managed, called, choices.filter(isServer)].find((found) => found.length > 0) ?? [];
  const begins = ({ name: own, context = own }: Choice) =>
    [own, context].some((each) => composed(each).startsWith(composed(name)));
  const found = exact.length > 0 ? exact : choices.filter(begins);
  if (found.length < 2) return found[0];
  const what = found.every(({ cluster }) => cluster !== undefined) ? 'clusters' : 'clusters and contexts';
  const alike = exact.length > 0 ? 'are named' : 'have names that start with';
  throw new UsageError(`${found.length} ${what} ${alike} ${quoted(name)}`, { hints: list(found, 10) });
}

function list(choices: readonly Choice[], limit: number): string[] {
  const lines = choices.slice(0, limit).map((choice) => {
    const { name, cluster, context, server } = choice;
    const alike = choices.filter((other) => other.name === name).length > 1;
    const where = alike && isManaged(choice) ? `, ${cluster?.server ?? cluster?.apiEndpoint ?? server}` : '';
    const called = context === undefined || context === name ? '' : `, context ${cleanText(context)}`;
    return `${cleanText(name)} (${stateOf(choice)}${called}${where})`;
  });
  return choices.length > limit ? [...lines, `and ${choices.length - limit} more: kubectl tka clusters`] : lines;
}

async function pickOne(
  context: Context,
  view: KubeconfigView,
  choices: readonly Choice[],
  stateAt: number | undefined,
): Promise<Choice> {
  if (choices.length === 0) throw new TkaError('no clusters found', { hints: ['kubectl tka clusters'] });
  const { canPick, pick } = await import('../../terminal/picker.ts');
  if (!canPick(context.env)) {
    const why =
      context.env.TERM === 'dumb' ? 'the list needs more than TERM=dumb' : 'there is no terminal to choose one on';
    throw new UsageError(`a cluster name is required: ${why}`, { hints: list(choices, listed) });
  }
  const items = choices.map((choice) => ({
    name: choice.name,
    state: stateOf(choice, stateAt),
    labels: [...(choice.cluster?.labels ?? [])].map(([key, value]) => `${key}=${value}`).join(','),
    current: choice.context !== undefined && choice.context === view.currentContext,
  }));
  const chosen = choices[await pick(items, context.env)];
  if (chosen === undefined) throw new TkaError('cancelled');
  return chosen;
}

async function switchTo(context: Context, view: KubeconfigView, name: string, namespace?: string): Promise<void> {
  const change = {
    currentContext: name,
    namespace: namespace === undefined ? namespace : { context: name, namespace },
  };
  rememberSwitch(context, await editKubeconfig(context.kubeconfig, () => change));
  say(context, name, namespace);
  const server = view.ours.find((ours) => ours.name === name)?.server;
  if (server === undefined || context.sessions.store.signedOut.read(server) === undefined) return;
  context.terminal.notice('you are signed out of this cluster');
  if (!context.settings.quiet) context.terminal.hint(`kubectl tka login ${server}`);
}

// Writes the context like `login --all-contexts` does, without signing in.
async function addAndSwitch(
  context: Context,
  view: KubeconfigView,
  cluster: Cluster,
  namespace?: string,
): Promise<void> {
  const spec = await contextSpec(context, '', cluster, trustOf(context, view)).catch((error) => {
    if (!(error instanceof TkaError) || error.message.includes(cluster.name)) throw error;
    throw new TkaError(`${cluster.name}: ${error.message}`, { hints: error.hints, cause: error });
  });
  const { server } = spec;
  const namedBy = await byList(context);
  let named: ContextName = { name: '' };
  const edit = await editKubeconfig(context.kubeconfig, (v) => {
    named = contextFor(
      v,
      { server, clusterName: cluster.name, through: cluster.through },
      { tailnet: context.settings.tailnet },
    );
    const { name } = named;
    return { upsert: [{ ...spec, name, namedBy, namespace }], currentContext: name };
  });
  rememberSwitch(context, edit);
  if (named.notice !== undefined) context.terminal.notice(named.notice);
  say(context, named.name, namespace);
}

function say(context: Context, name: string, namespace?: string): void {
  const inNamespace = namespace === undefined ? '' : `, namespace ${quoted(namespace)}`;
  if (!context.settings.quiet) context.terminal.out(`Switched to context ${quoted(name)}${inNamespace}.\n`);
  sayInShell(context);
}
