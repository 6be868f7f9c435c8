import type { Cluster } from '../discovery/clusters.ts';
import type { Found } from '../discovery/find.ts';
import { contextNames, shortName } from '../discovery/naming.ts';
import { isBareWord, type Origin, type Trust } from '../discovery/trust.ts';
import { TkaError, UsageError } from '../errors.ts';
import type { KubeconfigView, OurContext } from '../kubeconfig/index.ts';
import { didYouMean } from '../suggest.ts';
import { Refused } from '../tka/errors.ts';
import { cleanText } from '../tka/text.ts';
import type { Context } from './context.ts';
import {
  clusterByName,
  configuredServer,
  entryServers,
  listClusters,
  NoCluster,
  namedServer,
  noCluster,
  placed,
  trustOf,
  Unplaced,
} from './directory.ts';

/** What a NAME on the command line stands for. */
export interface Target {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The member of the mesh that was named so; undefined for a server named by address, or none. */
  readonly cluster: Cluster | undefined;
  /** Where the server comes from. */
  readonly origin: Origin;
  /** True, or why, for a name that was looked for among the clusters in vain, and is taken for a host's. */
  readonly unlisted?: boolean | TkaError;
}

/** A cluster as a target. Throws Unplaced. */
export function targetOf(cluster: Cluster): Target {
  return { server: placed(cluster).server, cluster, origin: cluster.word };
}

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
  if (isUrl(name)) return { server: await namedServer(context, name), cluster: undefined, origin: 'named' };
  const bare = isBareWord(name);
  let list: Found | undefined;
  let failure: TkaError | undefined;
  try {
    list = await listClusters(context, view);
    const cluster = clusterByName(list.clusters, name, view);
    if (cluster?.server != null) return targetOf(cluster);
    // A host of that name may be meant; what cannot be placed is told below otherwise.
    if (cluster !== undefined && cluster.name === name) return targetOf(cluster);
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
  if (!bare) return { server, cluster: undefined, origin: 'named', unlisted };
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
 * The configured server, or the tailnet's only tagged one, or without either the only one that contexts and the last
 * list know; of several, the one that is chosen. Never the first.
 */
async function onlyServer(context: Context, view: KubeconfigView, command: string): Promise<Target> {
  const { servers, origin } = await entryServers(context).then(
    // One that is not online counts: the other of two would be a guess.
    ({ all, named }) => ({ servers: all, origin: named ? ('named' as const) : ('tailnet' as const) }),
    async (error: unknown) => {
      if (!(error instanceof TkaError) || error.exitCode !== 1) throw error;
      const { clusters } = await listClusters(context, view);
      const known = await usableServers(clusters, trustOf(context, view));
      if (known.length === 0) throw error;
      return { servers: known, origin: 'known' as const };
    },
  );
  const target = (server: string): Target => ({ server, cluster: undefined, origin });
  const [server] = servers;
  if (server !== undefined && servers.length === 1) return target(server);
  const { canPick, pick } = await import('./picker.ts');
  if (canPick(context.env)) {
    const items = servers.map((each) => ({
      name: shortName(each, context.settings.tailnet),
      state: '',
      labels: each,
      current: false,
    }));
    const chosen = servers[await pick(items, context.env)];
    if (chosen !== undefined) return target(chosen);
  }
  const where = origin === 'tailnet' ? 'the tailnet has' : 'there are';
  throw new UsageError(`${where} ${servers.length} TKA servers: which one is meant?`, {
    hints: servers.slice(0, 20).map((each) => `kubectl tka ${command} ${each}`),
  });
}

async function usableServers(clusters: readonly Cluster[], trust: Trust): Promise<string[]> {
  const usable: string[] = [];
  for (const { server, word } of clusters) {
    if (server !== null && !usable.includes(server) && (await trust.allows(server, word))) usable.push(server);
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
  const listHere = () => {
    const held = [...sessions.store.list(), ...sessions.store.listSignedOut()].map(({ server }) => server);
    return new Set([...held, ...view.ours.map(({ server }) => server)]);
  };
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
  const local = ours(name) ?? (byName.length === 1 ? byName[0] : undefined);
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
  const exact = clusters.filter((cluster) => cluster.name === name);
  const cluster = exact.length > 0 ? clusterByName(exact, name, view) : undefined;
  if (cluster !== undefined) return found(placed(cluster).server);
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

/**
 * The name of the context for a server: the one that it has; else the first of its names that is free. A name that
 * somebody else's entry has is returned too: writing it is what fails then, with a hint.
 * Throws TkaError where the wanted name is that of a context of ours for another server.
 */
export function contextFor(
  view: KubeconfigView,
  target: { server: string; memberName: string | null },
  options: { tailnet: string; wanted?: string | undefined; taken?: ReadonlySet<string> },
): string {
  const { server } = target;
  const ours = new Map(view.ours.map((c) => [c.name, c]));
  const { wanted } = options;
  if (wanted !== undefined) {
    const other = ours.get(wanted);
    if (other === undefined || other.server === server) return wanted;
    throw new TkaError(`context ${JSON.stringify(wanted)} is that of ${other.server}`, {
      hints: ['choose another name: --context NAME', `or give it up first: kubectl tka forget ${wanted}`],
    });
  }
  const existing = contextOf(view, server);
  if (existing !== undefined) return existing.name;
  const names = contextNames(server, options.tailnet, target.memberName);
  const free = names.find((name) => !ours.has(name) && options.taken?.has(name) !== true);
  return free ?? names.at(-1) ?? server;
}

/** Our context for a server: the current one if it is, else the first. */
export function contextOf(view: KubeconfigView, server: string): OurContext | undefined {
  const all = view.ours.filter((c) => c.server === server);
  return all.find((c) => c.name === view.currentContext) ?? all[0];
}
