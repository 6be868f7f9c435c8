import type { Cluster, ClusterServer } from '../../discovery/clusters.ts';
import type { Found } from '../../discovery/find.ts';
import { contextNames, shortName } from '../../discovery/naming.ts';
import { isBareWord, type Origin, type Trust } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { Refused } from '../../tka/errors.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText } from '../../util/text.ts';
import { hostOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { clusterByName, NoCluster, noCluster } from './by-name.ts';
import { listClusters } from './clusters.ts';
import { type ContextsByCluster, contextsByCluster } from './contexts-by-cluster.ts';
import { placed, Unplaced } from './placed.ts';
import { configuredServer, entryServers, namedServer } from './seeds.ts';
import { trustOf } from './trust.ts';

/** What a NAME on the command line stands for. */
export interface Target {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The cluster that was named so, or that the server is one of; undefined where no list has it. */
  readonly cluster: Cluster | undefined;
  /** The managed context of the cluster; undefined for none. */
  readonly ours?: OurContext | undefined;
  /** Where the server comes from. */
  readonly origin: Origin;
  /** True, or why, for a name that was looked for among the clusters in vain, and is taken for a host's. */
  readonly unlisted?: boolean | TkaError;
}

/** A cluster as a target. `contexts` are our contexts by cluster. Throws Unplaced. */
export function targetOf(cluster: Cluster, contexts: ContextsByCluster): Target {
  return { server: placed(cluster).server, cluster, ours: contexts.get(cluster)?.[0], origin: cluster.word };
}

/** A server that the user named. What a list says about it does not count. */
const namedTarget = (server: string): Target => ({ server, cluster: undefined, origin: 'named' });

const isUrl = (name: string) => name.includes('://');

/**
 * The server that a NAME of `login` means: a URL, a cluster (or an unambiguous prefix of its name), a context of ours, or
 * a host. A bare word is a host only if it is a device of the tailnet, or if there is no current list that it could be a
 * mistyped name of. Without a NAME it is the configured server, or the only one that the tailnet has.
 * Throws TkaError or UsageError.
 */
export async function loginTarget(context: Context, name: string | undefined, view: KubeconfigView): Promise<Target> {
  if (name === undefined) return onlyServer(context, view, 'login');
  if (name.trim() === '')
    throw new UsageError('the name is empty', { hints: ['kubectl tka clusters shows the names'] });
  if (isUrl(name)) return namedTarget(await namedServer(context, name));
  const bare = isBareWord(name);
  let list: Found | undefined;
  let failure: TkaError | undefined;
  try {
    list = await listClusters(context, view);
    const cluster = clusterByName(list.clusters, name, view, 'login');
    const contexts = contextsByCluster(view, list.clusters);
    if (cluster?.server != null) return targetOf(cluster, contexts);
    // A host of that name may be meant; what cannot be placed is told below otherwise.
    if (cluster !== undefined && cluster.name === name) return targetOf(cluster, contexts);
  } catch (error) {
    if (!(error instanceof TkaError) || error.exitCode === 2 || error instanceof Unplaced) throw error;
    failure = error;
  }
  const ours = view.ours.find((c) => c.name === name);
  if (ours !== undefined) return { server: ours.server, cluster: undefined, origin: 'known' };
  // A bare word is more likely a cluster's name than a host's: why it was not found there matters more than what DNS says.
  if (failure instanceof Refused && bare) throw failure;
  if (failure !== undefined)
    context.terminal.log(`cannot look for ${cleanText(name)} among the clusters: ${failure.message}`);
  const server = await namedServer(context, name);
  const unlisted = failure ?? (list?.current === false ? noCluster(name, list.clusters, view) : true);
  if (!bare) return { ...namedTarget(server), unlisted };
  if (list?.current === true && !(await isDevice(context, server)))
    throw noCluster(name, list.clusters, view, ['for a server that is not listed, give its URL: https://HOST']);
  return { server, cluster: undefined, origin: 'typed', unlisted };
}

/** Returns whether a server's host is the name of a device of the tailnet; false if tailscaled cannot be asked. */
async function isDevice(context: Context, server: string): Promise<boolean> {
  const { hostname } = new URL(server);
  const peers = await context.tailnet().then(
    (status) => status.peers,
    () => [],
  );
  return peers.some(({ dnsName }) => dnsName === hostname);
}

/**
 * The configured server, or the tailnet's only cluster, or without either the only one that contexts and the last list
 * know; of several, the one that is chosen. Never the first.
 */
async function onlyServer(context: Context, view: KubeconfigView, command: string): Promise<Target> {
  const entry = await entryServers(context).catch((error: unknown) => {
    if (error instanceof TkaError && error.exitCode === 1) return error;
    throw error;
  });
  const isEntry = !(entry instanceof TkaError);
  // The others are about this server, whatever else its cluster has.
  if (isEntry && entry.named && command !== 'login')
    return { server: entry.servers[0] ?? '', cluster: undefined, origin: 'named' };
  const found = await listClusters(context, view).catch((error: unknown) => {
    if (!isEntry || !(error instanceof TkaError)) throw error;
    context.terminal.log(`there is no list of clusters: ${error.message}`);
    return { clusters: [], current: false };
  });
  const contexts = contextsByCluster(view, found.clusters);
  if (isEntry && entry.named) return configuredTarget(context, entry.servers[0] ?? '', found.clusters, contexts);
  const targets = await usableTargets(found.clusters, contexts, trustOf(context, view));
  // One that is not online counts: the other of two would be a guess.
  for (const server of isEntry ? entry.all : []) {
    if ((await clusterOfServer(context, server, found.clusters)) === undefined)
      targets.push({ server, cluster: undefined, origin: 'tailnet' });
  }
  const [only] = targets;
  if (only === undefined)
    throw isEntry ? new TkaError('no cluster can be used', { hints: ['kubectl tka clusters'] }) : entry;
  if (targets.length === 1) return only;
  const nameOf = ({ server, cluster }: Target) => cluster?.name ?? shortName(server, context.settings.tailnet);
  const { canPick, pick } = await import('../../terminal/picker.ts');
  if (canPick(context.env)) {
    const items = targets.map((target) => ({
      name: cleanText(nameOf(target)),
      state: target.cluster?.state ?? '',
      labels: target.server,
      current: target.ours !== undefined && target.ours.name === view.currentContext,
    }));
    const chosen = targets[await pick(items, context.env)];
    if (chosen !== undefined) return chosen;
  }
  const alike = Map.groupBy(targets, nameOf);
  const typed = targets.map((target) =>
    (alike.get(nameOf(target))?.length ?? 0) > 1 ? target.server : nameOf(target),
  );
  const where = isEntry ? 'the tailnet has' : 'there are';
  throw new UsageError(`${where} ${targets.length} clusters: which one is meant?`, {
    hints: typed.slice(0, 20).map((each) => `kubectl tka ${command} ${each}`),
  });
}

/** The configured server with its cluster; where it is away, another of that cluster's servers. */
async function configuredTarget(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
  contexts: ContextsByCluster,
): Promise<Target> {
  const { settings } = context;
  const own = await listedServer(context, server, clusters);
  // A cluster may be called otherwise than its servers.
  const cluster = own?.cluster ?? clusters.find(({ name }) => server === settings.serverNamed(name));
  if (cluster === undefined) return { server, cluster, origin: 'named' };
  const ours = contexts.get(cluster)?.[0];
  const isAway = own === undefined || own.row.state === 'dead' || own.row.state === 'missing';
  const isFlag = settings.values.get('tailscale.hostname')?.source === '--server';
  const other = cluster.server === server || isFlag ? null : cluster.server;
  // A context of the cluster keeps its server.
  if (other !== null && (isAway || ours?.server === other))
    return { server: other, cluster, ours, origin: cluster.word };
  return { server, cluster, ours, origin: 'named' };
}

/** The cluster that a server is one of, by whatever name or address the server is called; undefined for none. */
export async function clusterOfServer(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
): Promise<Cluster | undefined> {
  return (await listedServer(context, server, clusters))?.cluster;
}

/** The same, with what the list says of the server. */
async function listedServer(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
): Promise<{ cluster: Cluster; row: ClusterServer } | undefined> {
  const find = (isIt: (url: string) => boolean) => {
    for (const cluster of clusters) {
      const row = cluster.servers.find((each) => each.server !== null && isIt(each.server));
      if (row !== undefined) return { cluster, row };
    }
    return undefined;
  };
  const found = find((url) => url === server);
  if (found !== undefined || clusters.length === 0) return found;
  const peers = await context.tailnet().then(
    (status) => status.peers,
    () => [],
  );
  const host = hostOf(server);
  const peer = peers.find(({ dnsName, addresses }) => dnsName === host || addresses.includes(host));
  if (peer === undefined) return undefined;
  const { protocol, port } = new URL(server);
  return find((url) => {
    const isThere = hostOf(url) === peer.dnsName || peer.addresses.includes(hostOf(url));
    // One host may have several servers.
    return isThere && new URL(url).protocol === protocol && new URL(url).port === port;
  });
}

/** Clusters that may be signed in to and are still listed, each once. */
async function usableTargets(
  clusters: readonly Cluster[],
  contexts: ContextsByCluster,
  trust: Trust,
): Promise<Target[]> {
  const usable: Target[] = [];
  for (const cluster of clusters) {
    const { server, word, state } = cluster;
    if (server === null || state === 'missing' || usable.some((target) => target.server === server)) continue;
    if (await trust.allows(server, word)) usable.push(targetOf(cluster, contexts));
  }
  return usable;
}

/** A server that `logout` or `forget` is about. */
export interface Held {
  readonly server: string;
  /** False for a URL that this machine knows nothing about. */
  readonly known: boolean;
}

/**
 * The server that a NAME of `logout` or `forget` means, found without the network where possible: a context of ours, a
 * session's short name, a cluster, a URL or host. Only exact names count. Without a NAME it is the current context's, else the
 * configured server. Throws TkaError, with the nearest names, for a name that nothing has. `command` is for its hints.
 */
export async function heldTarget(
  context: Context,
  name: string | undefined,
  view: KubeconfigView,
  command: 'logout' | 'forget' | 'doctor',
): Promise<Held> {
  const { settings, sessions } = context;
  const ours = (wanted: string | undefined) => view.ours.find((c) => c.name === wanted)?.server;
  const found = (server: string): Held => ({ server, known: true });
  // A look at the cache mends its modes, and the doctor changes nothing.
  const listHere = () => knownHere(context, view);
  const isHere = (server: string) => listHere().has(server) || sessions.store.signedOut(server) !== undefined;
  if (name === undefined) {
    // A server on the command line is meant before whatever context happens to be the current one.
    const isFlag = settings.values.get('tailscale.hostname')?.source === '--server';
    const flagged = isFlag ? await configuredServer(context) : undefined;
    if (flagged !== undefined) return { server: flagged, known: command === 'doctor' || isHere(flagged) };
    return found(ours(view.currentContext) ?? (await onlyServer(context, view, command)).server);
  }
  if (name.trim() === '') throw new UsageError('the name is empty', { hints: ['kubectl tka status shows the names'] });
  const here = listHere();
  const shortNames = new Map([...here].map((server) => [server, shortName(server, settings.tailnet)]));
  const byName = [...here].filter((server) => shortNames.get(server) === name);
  const byCluster = heldByName(context.remembered.all, name, here);
  const local = ours(name) ?? byCluster ?? (byName.length === 1 ? byName[0] : undefined);
  if (local !== undefined) return found(local);
  const isAddress = !isBareWord(name);
  const server = await namedServer(context, name);
  if (isHere(server) || server === (await configuredServer(context))) return found(server);
  if (isUrl(name)) return { server, known: false };
  const clusters = await listClusters(context, view).then(
    (list) => list.clusters,
    (error: unknown) => {
      if (!(error instanceof TkaError) || error.exitCode !== 1) throw error;
      context.terminal.log(`cannot look for ${cleanText(name)} among the clusters: ${error.message}`);
      return [];
    },
  );
  const exact = clusters.filter((each) => each.name === name || each.servers.some((one) => one.name === name));
  const cluster = exact.length > 0 ? clusterByName(exact, name, view, command) : undefined;
  if (cluster !== undefined) return heldOf(cluster, here);
  if (isAddress) return { server, known: false };
  const names = [...view.ours.map((c) => c.name), ...shortNames.values(), ...clusters.map((c) => c.name)];
  const wanted = cleanText(name);
  throw new NoCluster(
    `no cluster or context named ${JSON.stringify(wanted)}${didYouMean(
      wanted,
      names.map((each) => cleanText(each)),
    )}`,
    { hints: ['kubectl tka status'] },
  );
}

/** The servers that this machine has a session, a sign-out or a context for. */
export function knownHere({ sessions: { store } }: Context, { ours }: Pick<KubeconfigView, 'ours'>): Set<string> {
  return new Set([...store.list(), ...store.listSignedOut(), ...ours].map(({ server }) => server));
}

/** The server of a cluster that this machine knows, else the one to use. Throws Unplaced. */
export function heldOf(cluster: Cluster, here: ReadonlySet<string>): Held {
  const held = cluster.servers.find(({ server }) => server !== null && here.has(server))?.server;
  return { server: held ?? placed(cluster).server, known: held != null };
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

/** What this machine calls a server: as its cluster, as the context for it, or as its host. */
export function nameOfServer(context: Context, view: KubeconfigView | undefined, server: string): string {
  const ours = view && contextOf(view, server);
  const endpoint = ours?.apiServer ?? context.sessions.store.read(server)?.apiServer;
  return context.remembered.nameOf(server, endpoint) ?? ours?.name ?? shortName(server, context.settings.tailnet);
}

/** What a context is for. */
export interface ContextTarget {
  readonly server: string;
  /** The name of its cluster; null where that is not known. */
  readonly clusterName: string | null;
  /** The cluster's other servers. */
  readonly servers?: readonly (string | null)[];
  /** The context that the cluster is known to have. */
  readonly known?: string | undefined;
}

/**
 * The name of the context for a cluster: the one that it has; else the first of its names that is free. A name that
 * somebody else's entry has is returned too: writing it is what fails then, with a hint.
 * Throws TkaError where the wanted name is that of a context of ours for another server.
 */
export function contextFor(
  view: KubeconfigView,
  { server, clusterName, servers = [], known }: ContextTarget,
  options: { tailnet: string; wanted?: string | undefined; taken?: ReadonlySet<string> },
): string {
  const ours = new Map(view.ours.map((c) => [c.name, c]));
  const { wanted } = options;
  if (wanted !== undefined) {
    const other = ours.get(wanted);
    if (other === undefined || other.server === server || servers.includes(other.server) || wanted === known)
      return wanted;
    throw new TkaError(`context ${JSON.stringify(wanted)} is that of ${other.server}`, {
      hints: ['choose another name: --context NAME', `or give it up first: kubectl tka forget ${wanted}`],
    });
  }
  const existing = contextOf(view, server) ?? (known === undefined ? undefined : ours.get(known));
  if (existing !== undefined) return existing.name;
  const names = contextNames(server, options.tailnet, clusterName);
  const free = names.find((name) => !ours.has(name) && options.taken?.has(name) !== true);
  return free ?? names.at(-1) ?? server;
}

/** Our context for a server: the current one if it is, else the first. */
export function contextOf(view: KubeconfigView, server: string): OurContext | undefined {
  const all = view.ours.filter((c) => c.server === server);
  return all.find((c) => c.name === view.currentContext) ?? all[0];
}
