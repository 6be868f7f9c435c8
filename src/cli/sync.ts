import { isatty } from 'node:tty';
import type { Cluster } from '../discovery/clusters.ts';
import { parseSelector } from '../discovery/selector.ts';
import { TkaError } from '../errors.ts';
import { usableCommand } from '../kubeconfig/command.ts';
import { readKubeconfig } from '../kubeconfig/index.ts';
import { Unavailable } from '../tka/answers.ts';
import type { Context } from './context.ts';
import { allClusters, chooseClusters, confirmed, Unplaced } from './directory.ts';
import { specOf } from './login.ts';
import { parseTemplate } from './sync-names.ts';
import { type Answer, type Problem, planSync, type SyncInput } from './sync-plan.ts';
import { SyncRecord } from './sync-record.ts';
import { reportSync } from './sync-report.ts';
import { type Written, writeSync } from './sync-write.ts';

export interface SyncFlags {
  readonly selector?: string;
  readonly prune?: boolean;
  readonly dryRun?: boolean;
  readonly contextTemplate?: string;
  readonly acceptChanges?: boolean;
  readonly insecureSkipTlsVerify?: boolean;
}

const parallel = 32;
/** Milliseconds for an answer; of members that the list calls dead, suspected or missing, less is expected. */
const patience = { listed: 5000, gone: 2000 };
const gone: ReadonlySet<string> = new Set(['dead', 'suspected', 'missing']);

/** `sync`: a context for every cluster, in one edit of the kubeconfig. Throws TkaError where not all was done. */
export async function sync(context: Context, _: readonly string[], flags: SyncFlags): Promise<void> {
  const { error } = await syncContexts(context, flags);
  if (error !== undefined) throw error;
}

/** What is left to say after a sync. */
export interface SyncOutcome {
  readonly currentContext: string | undefined;
  /** Which clusters are not in the kubeconfig as they should be; undefined if all are. */
  readonly error: TkaError | undefined;
}

/**
 * Asks the TKA server of each chosen cluster how its API server is reached, and brings the kubeconfig up to date in one
 * edit; without a sign-in. Says what it did. Throws TkaError where nothing could be done at all.
 */
export async function syncContexts(context: Context, flags: SyncFlags): Promise<SyncOutcome> {
  const { settings, sessions, terminal, paths, kubeconfig } = context;
  parseSelector(flags.selector ?? '');
  const template = flags.contextTemplate === undefined ? undefined : parseTemplate(flags.contextTemplate);
  const view = await readKubeconfig(kubeconfig);
  const all = await allClusters(context, view);
  const chosen = stillThere(all, flags.selector === undefined ? all : chooseClusters(all, [], flags.selector));
  if (all.length === 0) terminal.notice('no clusters found');
  const { answers, problems } = await askAll(context, chosen);

  const record = new SyncRecord(paths.state, settings.entryServer, all);
  // A list that nobody stands behind now may be an old one.
  const prune = flags.prune === true && answers.length > 0;
  if (flags.prune === true && !prune) terminal.warn('no server answered: nothing is pruned');
  const { store } = sessions;
  const input: Omit<SyncInput, 'blocked'> = {
    all,
    answers,
    tailnet: settings.tailnet,
    template,
    acceptChanges: flags.acceptChanges === true,
    mayBeInsecure: ({ cluster, info }) =>
      flags.insecureSkipTlsVerify === true || store.insecureConsent(cluster.server) === info.apiServer,
    runs: ({ command, file }) => command === context.command || usableCommand(command ?? '', file, context.env.PATH),
    prunes: prune ? ({ server }) => record.wasListed(server) : undefined,
    specOf: (name, { cluster, info }) => specOf(context, name, cluster.server, info),
  };
  const dryRun = flags.dryRun === true;
  const written = await writeSync(kubeconfig, (v, blocked) => planSync(v, { ...input, blocked }), dryRun);
  const { plan } = written;
  if (!dryRun) keep(context, record, written, answers);
  const error = reportSync(context, {
    written,
    chosen,
    problems: [...problems, ...plan.problems],
    before: view.ours,
    dryRun,
  });
  return { currentContext: written.currentContext, error };
}

// A cluster whose API endpoint has changed is listed a second time, as missing under its old one.
function stillThere(all: readonly Cluster[], chosen: readonly Cluster[]): Cluster[] {
  const there = new Set(all.filter(({ state }) => state !== 'missing').map(({ server }) => server));
  return chosen.filter(({ state, server }) => state !== 'missing' || server === null || !there.has(server));
}

/** What outlives the run beside the kubeconfig: consents, and which servers were listed. */
function keep(context: Context, record: SyncRecord, { plan }: Written, answers: readonly Answer[]): void {
  const { terminal, sessions } = context;
  const servers = new Set(plan.change.upsert.map(({ server }) => server));
  for (const { cluster, info } of answers) {
    if (info.insecureSkipTlsVerify && servers.has(cluster.server))
      sessions.store.giveInsecureConsent(cluster.server, info.apiServer);
  }
  try {
    record.write(new Set(plan.pruned.map(({ server }) => server)));
  } catch (error) {
    terminal.log(`what was listed cannot be kept: ${error}`);
  }
}

/** Asks the servers of clusters, 32 at a time; whoever does not answer as it should is a problem, and no more. */
async function askAll(context: Context, clusters: readonly Cluster[]) {
  const answers: Answer[] = [];
  const problems: Problem[] = [];
  const progress = progressOf(context, clusters.length);
  const ask = async (cluster: Cluster): Promise<Answer | Problem> => {
    const isGone = gone.has(cluster.state);
    const askTimeout = Math.min(context.askTimeout, isGone ? patience.gone : patience.listed);
    try {
      const { server, ...info } = await confirmed({ ...context, askTimeout }, cluster);
      return { cluster: { ...cluster, server }, info };
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      return { cluster, error, expected: isGone && (error instanceof Unavailable || error instanceof Unplaced) };
    }
  };
  const found: (Answer | Problem)[] = [];
  let [next, done] = [0, 0];
  const worker = async () => {
    for (let at = next++; at < clusters.length; at = next++) {
      found[at] = await ask(clusters[at] as Cluster);
      progress(++done);
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, clusters.length) }, worker));
  for (const one of found) {
    if ('info' in one) answers.push(one);
    else problems.push(one);
  }
  return { answers, problems };
}

// A line a second, and only for a person who waits.
function progressOf({ terminal, settings }: Context, total: number): (done: number) => void {
  if (settings.quiet || !isatty(2)) return () => {};
  let last = performance.now();
  return (done) => {
    const now = performance.now();
    if (now - last < 1000 || done === total) return;
    last = now;
    terminal.notice(`asked ${done} of ${total} clusters …`);
  };
}
