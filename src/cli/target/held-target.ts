import { type Cluster, resolved, shortName } from '../../discovery/clusters.ts';
import { isBareWord } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { clusterByName, isUrl, NoCluster } from './by-name.ts';
import { listClusters } from './clusters.ts';
import { onlyServer } from './only-server.ts';
import { configuredServer, namedServer } from './seeds.ts';

/** A server that `logout` or `forget` is about. */
export interface Held {
  readonly server: string;
  /** False for a URL that this machine knows nothing about. */
  readonly known: boolean;
}

/**
 * Returns the server that a NAME of `logout` or `forget` means, found without the network if possible: a context of ours,
 * a session's short name, a cluster, a URL or host. Only exact names count. Without a NAME it is the current context's,
 * else the configured server. Throws TkaError, with the nearest names, for a name that nothing has. `command` is for its
 * hints.
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
  const exact = clusters.filter((each) => each.name === name || each.servers.some((one) => one.name === name));
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

/** Returns the server on the command line, else that of the current context, else the only one there is. */
async function unnamedTarget(
  context: Context,
  view: KubeconfigView,
  command: 'logout' | 'forget' | 'doctor',
): Promise<Held> {
  const isFlag = context.settings.values.get('tailscale.hostname')?.source === '--server';
  const flagged = isFlag ? await configuredServer(context) : undefined;
  if (flagged !== undefined) {
    // A look at the cache mends its modes, and the doctor changes nothing.
    const isKnown = () => knownHere(context, view).has(flagged) || isSignedOut(context, flagged);
    return { server: flagged, known: command === 'doctor' || isKnown() };
  }
  const current = view.ours.find((each) => each.name === view.currentContext)?.server;
  return { server: current ?? (await onlyServer(context, view, command)).server, known: true };
}

/** Returns the server that this machine knows by a name: of a context, of a cluster, or its own short one. */
function localServer(
  context: Context,
  name: string,
  view: KubeconfigView,
  here: ReadonlySet<string>,
): string | undefined {
  const ours = view.ours.find((each) => each.name === name)?.server;
  const called = [...here].filter((server) => shortName(server, context.settings.tailnet) === name);
  return ours ?? heldByName(context.remembered.all, name, here) ?? (called.length === 1 ? called[0] : undefined);
}

/** Returns the clusters to look for a name among; none if there is no list. Throws UsageError for a wrong setting. */
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

/** Returns the servers that `--all` means: all that knownHere() has, sorted. Throws UsageError if there is a name, too. */
export function allHeld(context: Context, view: KubeconfigView, name: string | undefined, command: string): string[] {
  if (name !== undefined) throw new UsageError(`${command} takes a name or --all, not both`);
  return [...knownHere(context, view)].sort();
}

/** Returns the server of a cluster that this machine knows, else the one to use. Throws UnresolvedCluster. */
export function heldOf(cluster: Cluster, here: ReadonlySet<string>): Held {
  const held = cluster.servers.find(({ server }) => server !== null && here.has(server))?.server;
  return { server: held ?? resolved(cluster).server, known: held != null };
}

function heldByName(clusters: readonly Cluster[], name: string, here: ReadonlySet<string>): string | undefined {
  const called = clusters.filter((cluster) => cluster.name === name);
  const found =
    called.length > 0 ? called : clusters.filter(({ servers }) => servers.some((server) => server.name === name));
  // The last lists may have one cluster several times.
  const held = new Map(found.map((cluster) => [cluster.apiEndpoint, cluster.servers]));
  const [servers = []] = held.size === 1 ? held.values() : [];
  return servers.find(({ server }) => server !== null && here.has(server))?.server ?? undefined;
}
