import { type Cluster, resolved, shortName } from '../../discovery/clusters.ts';
import { isBareWord } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { chooseClusters, clusterByName, isNamed, isUrl, NoCluster } from './by-name.ts';
import { allClusters, listClusters } from './clusters.ts';
import { onlyServer } from './only-server.ts';
import { expandNames, isGlob } from './patterns.ts';
import { configuredServer, namedServer } from './seeds.ts';

/** The server that `logout` or `forget` acts on. */
export interface Held {
  readonly server: string;
  /** False for a server that this machine has no data about. */
  readonly known: boolean;
}

/**
 * Returns the server that a NAME of `logout` or `forget` means: a managed context, a session's short name, a cluster, a
 * URL or a host. Avoids the network if possible. Only exact names count. Without a NAME, returns the current context's
 * server, else the configured one. Throws TkaError with the nearest names if nothing has the name. The hints use
 * `command`.
 */
export async function heldTarget(
  context: Context,
  name: string | undefined,
  view: KubeconfigView,
  command: 'logout' | 'forget' | 'doctor',
): Promise<Held> {
  if (name === undefined) return unnamedTarget(context, view, command);
  if (name.trim() === '') throw new UsageError('empty name', { hints: ['kubectl tka status shows the names'] });
  const here = knownHere(context, view);
  const local = localServer(context, name, view, here);
  if (local !== undefined) return { server: local, known: true };
  const server = await namedServer(context, name);
  if (here.has(server) || isSignedOut(context, server) || server === (await configuredServer(context)))
    return { server, known: true };
  if (isUrl(name)) return { server, known: false };
  const clusters = await clustersIfListed(context, name, view);
  const isIt = isNamed(name);
  const exact = clusters.filter((each) => isIt(each) || each.servers.some(isIt));
  const cluster = exact.length > 0 ? clusterByName(exact, name, view, command) : undefined;
  if (cluster !== undefined) return heldOf(cluster, here);
  if (!isBareWord(name)) return { server, known: false };
  const shortNames = [...here].map((each) => shortName(each, context.settings.tailnet));
  const names = [...view.ours.map((c) => c.name), ...shortNames, ...clusters.map((c) => c.name)].map((c) =>
    cleanText(c),
  );
  const meant = didYouMean(cleanText(name), names);
  throw new NoCluster(`no cluster or context named ${quoted(name)}${meant}`, { hints: ['kubectl tka status'] });
}

/** What `logout` and `forget` act on. */
export interface HeldSelection {
  readonly words: readonly string[];
  readonly selector?: string | undefined;
  readonly all?: boolean | undefined;
}

/**
 * Returns the servers that the arguments of `logout` or `forget` mean: all that this machine has data about, those of
 * the selected clusters, or those of the NAMEs, also lists and globs. Without any argument, returns that of
 * heldTarget(). A glob matches only names of what this machine has a session, a sign-out or a context for. Throws
 * TkaError or UsageError.
 */
export async function heldTargets(
  context: Context,
  { words, selector, all: isAll = false }: HeldSelection,
  view: KubeconfigView,
  command: 'logout' | 'forget',
): Promise<Held[]> {
  if (isAll && (words.length > 0 || selector !== undefined))
    throw new UsageError(`${command} takes a name or --all, not both`);
  if (words.length > 0 && selector !== undefined) throw new UsageError('names and a selector cannot be combined');
  if (isAll) return [...knownHere(context, view)].sort().map((server) => ({ server, known: true }));
  if (selector !== undefined) {
    const chosen = chooseClusters(await allClusters(context, view), [], selector, view);
    const held = knownHere(context, view);
    // Without a known server, the user cannot have signed in to the cluster.
    return chosen.flatMap((cluster) => (cluster.server === null ? [] : heldOf(cluster, held)));
  }
  if (words.length === 0) return [await heldTarget(context, undefined, view, command)];
  const here = knownHere(context, view);
  const isName = (word: string) => localServer(context, word, view, here) !== undefined;
  const all = words.some(isGlob) ? heldNames(context, view, here) : [];
  const targets: Held[] = [];
  for (const { name, match } of expandNames(words, { all, isName, what: 'session or context' })) {
    const target =
      match === undefined ? await heldTarget(context, name, view, command) : { server: match, known: true };
    targets.push(target);
  }
  return targets;
}

/** Returns all names of the servers that this machine has data about, sorted. */
function heldNames(
  context: Context,
  view: KubeconfigView,
  here: ReadonlySet<string>,
): [name: string, server: string][] {
  const names = [...here].flatMap((server): [string, string][] => {
    const cluster = context.remembered.of(server);
    const contexts = view.ours.filter((ours) => ours.server === server).map((ours) => ours.name);
    const own = cluster?.servers.find((each) => each.server === server)?.name;
    const all = [...contexts, cluster?.name, own, shortName(server, context.settings.tailnet)];
    return [...new Set(all)].flatMap((name) => (name == null ? [] : [[name, server]]));
  });
  return names.sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Returns the server of --server, else that of the current context, else the only one there is. */
async function unnamedTarget(
  context: Context,
  view: KubeconfigView,
  command: 'logout' | 'forget' | 'doctor',
): Promise<Held> {
  const isFlag = context.settings.values.get('tailscale.hostname')?.source === '--server';
  const flagged = isFlag ? await configuredServer(context) : undefined;
  if (flagged !== undefined) {
    // Listing the cache repairs its file modes, but doctor must not change anything.
    const isKnown = () => knownHere(context, view).has(flagged) || isSignedOut(context, flagged);
    return { server: flagged, known: command === 'doctor' || isKnown() };
  }
  const current = view.ours.find((each) => each.name === view.currentContext)?.server;
  return { server: current ?? (await onlyServer(context, view, command)).server, known: true };
}

/**
 * Returns the server with this name on this machine: the name of a context or of a cluster, or the server's short name.
 */
function localServer(
  context: Context,
  name: string,
  view: KubeconfigView,
  here: ReadonlySet<string>,
): string | undefined {
  const ours = view.ours.find(isNamed(name))?.server;
  const called = [...here].filter((server) => shortName(server, context.settings.tailnet) === name);
  return ours ?? heldByName(context.remembered.all, name, here) ?? (called.length === 1 ? called[0] : undefined);
}

/** Returns the clusters to search for a name; none if there is no list. Throws UsageError for an invalid setting. */
async function clustersIfListed(context: Context, name: string, view: KubeconfigView): Promise<readonly Cluster[]> {
  try {
    return (await listClusters(context, view)).clusters;
  } catch (error) {
    if (!(error instanceof TkaError) || error.exitCode !== 1) throw error;
    context.terminal.log(`cannot look for ${cleanText(name)} among the clusters: ${error.message}`);
    return [];
  }
}

function isSignedOut({ sessions }: Context, server: string): boolean {
  return sessions.store.signedOut.read(server) !== undefined;
}

/** Returns the servers that this machine has a session, a sign-out or a context for. */
export function knownHere({ sessions: { store } }: Context, { ours }: Pick<KubeconfigView, 'ours'>): Set<string> {
  return new Set([...store.list(), ...store.signedOut.list(), ...ours].map(({ server }) => server));
}

/** Returns the cluster's server that this machine knows, else the preferred one. Throws UnresolvedCluster. */
function heldOf(cluster: Cluster, here: ReadonlySet<string>): Held {
  const held = cluster.servers.find(({ server }) => server !== null && here.has(server))?.server;
  return { server: held ?? resolved(cluster).server, known: held != null };
}

function heldByName(clusters: readonly Cluster[], name: string, here: ReadonlySet<string>): string | undefined {
  const isIt = isNamed(name);
  const called = clusters.filter(isIt);
  const found = called.length > 0 ? called : clusters.filter(({ servers }) => servers.some(isIt));
  // The last lists can contain one cluster several times.
  const held = new Map(
    found.map(({ apiEndpoint, through, servers }) => [`${apiEndpoint} ${through ?? ''}`, servers] as const),
  );
  const [servers = []] = held.size === 1 ? held.values() : [];
  return servers.find(({ server }) => server !== null && here.has(server))?.server ?? undefined;
}
