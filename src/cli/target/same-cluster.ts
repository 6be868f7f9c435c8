import { isJoined } from '../../discovery/joined.ts';
import { knownClusters } from '../../discovery/siblings.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import type { Context } from '../context/context.ts';

/** A TKA server that this machine has data about: a session, a context or a signed-out mark. */
interface HeldServer {
  readonly server: string;
  /** Canonical URL of its API server; undefined if unknown. */
  readonly apiServer: string | undefined;
  /** The name of its cluster, if known. */
  readonly cluster: string | undefined;
  /** The ID of the store that holds its sign-ins, if known. Servers with the same store share their sign-ins. */
  readonly store: string | undefined;
  /** The way to its cluster: empty for a server of the cluster itself; see knownClusters(). */
  readonly way?: string;
}

/** What a sign-out is for: a whole cluster, or one way to it. */
export type SignOutScope = 'cluster' | 'way';

/** The servers of a cluster, as a logout treats them. */
export interface SignOutGroup {
  /** One server per sign-in store: the logout calls these. The first is the server that the user named. */
  readonly told: readonly string[];
  /** Other servers that this machine has data about. */
  readonly held: readonly string[];
  /** Other servers of the cluster that this machine only knows of. */
  readonly known: readonly string[];
}

/**
 * Groups servers by cluster, in the given order, and adds the other known servers of each cluster, because a logout
 * applies to a whole cluster. Servers belong to one cluster if they have the same API server and do not state different
 * cluster names. A way through a login server belongs to it only if it is known to lead to the same cluster. Data from
 * the server itself takes precedence over what a list or a context says about it. With the scope `way`, the cluster's
 * own servers and the ways through each login server are groups of their own, as their accounts are.
 */
export function signOutGroups(
  context: Context,
  view: KubeconfigView,
  servers: readonly string[],
  scope: SignOutScope = 'cluster',
): SignOutGroup[] {
  const held = heldServers(context, view);
  const rows = knownClusters(context.memory.all());
  const byServer = Map.groupBy(rows, ({ server }) => server);
  const byCluster = Map.groupBy(rows, keyOf);
  const about = (server: string): HeldServer => {
    const here = held.get(server);
    const listed = byServer.get(server) ?? [];
    const row = listed.find((each) => (here?.apiServer ?? each.apiServer) === each.apiServer);
    const { apiServer = row?.apiServer, cluster = row?.cluster, store } = here ?? {};
    // A token stays with the API server that it is for. The way to the cluster is the same if the list states a new one.
    const way = (row ?? listed[0])?.way ?? (isJoined({ server }) ? server : '');
    return { server, apiServer, cluster, store, way };
  };
  const heldByApi = Map.groupBy([...held.keys()].map(about), ({ apiServer }) => apiServer);
  const groups: SignOutGroup[] = [];
  const done = new Set<string>();
  for (const server of servers) {
    if (done.has(server)) continue;
    const named = about(server);
    const { apiServer, cluster, store, way } = named;
    const isInScope = (other: HeldServer) => {
      if (scope === 'cluster') return true;
      if (!isJoined(named)) return !isJoined(other);
      // Each login server has a store of its own.
      if (other.way !== '' && other.way === way) return true;
      return isJoined(other) && (other.store === undefined || store === undefined || other.store === store);
    };
    const others = (apiServer === undefined ? [] : (heldByApi.get(apiServer) ?? [])).filter(
      (other) =>
        other.server !== server &&
        isInScope(other) &&
        (other.cluster === undefined || cluster === undefined || other.cluster === cluster) &&
        (other.way === way || (other.store !== undefined && other.store === store)),
    );
    const siblings = [
      ...(cluster === undefined ? [] : (byCluster.get(keyOf(named)) ?? []).map((row) => row.server)),
      ...(context.sessions.store.siblings.read(server)?.servers ?? []),
      ...view.ours.flatMap((each) => (each.server === server ? (each.siblings?.servers ?? []) : [])),
    ];
    const isListedElsewhere = (each: string) =>
      byServer.get(each)?.some((row) => row.isCurrent && keyOf(row) !== keyOf(named));
    const known = siblings.filter(
      (each) => !held.has(each) && each !== server && isInScope(about(each)) && !isListedElsewhere(each),
    );
    const stores = new Set([named.store]);
    const told = [server];
    for (const other of others) {
      const isOwn = other.store === undefined || !stores.has(other.store);
      // Without a session here there is nothing to revoke on that server.
      if (isOwn && context.sessions.store.read(other.server) !== undefined) told.push(other.server);
      if (other.store !== undefined) stores.add(other.store);
    }
    const rest = others.map((other) => other.server).filter((other) => !told.includes(other));
    groups.push({ told, held: rest, known: [...new Set(known)].slice(0, mostKnown) });
    for (const each of [...told, ...rest]) done.add(each);
  }
  return groups;
}

/** Limits an untrusted list, which can claim thousands of servers for one cluster. */
const mostKnown = 16;

const keyOf = ({ apiServer, cluster, way }: Pick<HeldServer, 'apiServer' | 'cluster' | 'way'>): string =>
  `${apiServer} ${cluster} ${way}`;

/**
 * Removes the signed-out marks of all servers of a cluster after a login. The accounts of another way to it stay signed
 * out. Throws TkaError if a mark cannot be removed.
 */
export function liftSignedOut(context: Context, view: KubeconfigView, server: string): void {
  const { store } = context.sessions;
  for (const { told, held, known } of signOutGroups(context, view, [server], 'way'))
    for (const each of [...told, ...held, ...known])
      if (store.signedOut.read(each) !== undefined) store.signedOut.remove(each);
}

function heldServers({ sessions: { store } }: Context, view: KubeconfigView): Map<string, HeldServer> {
  const held = new Map<string, HeldServer>();
  const add = (server: string, apiServer: string | undefined) => {
    const before = held.get(server);
    const kept = store.siblings.read(server)?.known;
    const ours = view.ours.find((each) => each.server === server && each.siblings !== undefined)?.siblings;
    held.set(server, {
      server,
      apiServer: before?.apiServer ?? apiServer ?? kept?.apiServer,
      cluster: kept?.cluster ?? ours?.cluster,
      store: kept?.signInStore ?? ours?.signInStore,
    });
  };
  for (const session of store.list()) add(session.server, session.apiServer);
  for (const each of view.ours) add(each.server, each.apiServer);
  for (const { server } of store.signedOut.list()) add(server, undefined);
  return held;
}
