import { type Cluster, contextNames, shortName } from '../../discovery/clusters.ts';
import { isJoined, isOnlyJoined } from '../../discovery/joined.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { isThroughAnother } from '../../tka/sign-in-store.ts';
import { TkaError } from '../../util/errors.ts';
import { composed, quoted } from '../../util/text.ts';
import { joinedNameOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';

/** Returns the name to show for a server: its cluster's name, else its context's, else its host name. */
export function nameOfServer(context: Context, view: KubeconfigView | undefined, server: string): string {
  const ours = view && contextOf(view, server);
  const endpoint = ours?.apiServer ?? context.sessions.store.read(server)?.apiServer;
  return context.remembered.nameOf(server, endpoint) ?? ours?.name ?? shortName(server, context.settings.tailnet);
}

/** The cluster that a context is for. */
export interface ContextTarget {
  readonly server: string;
  /** The name of its cluster; null if unknown. */
  readonly clusterName: string | null;
  /** The name of the login server's cluster, if the user signs in through it. */
  readonly through?: string | null;
  /** The cluster's other servers. */
  readonly servers?: readonly (string | null)[];
  /** The name of the cluster's existing context, if it is known to have one. */
  readonly known?: string | undefined;
}

/** The name of a context to write. */
export interface ContextName {
  readonly name: string;
  /** Why a new context does not have the name of its cluster; undefined if it has. */
  readonly notice?: string;
}

/**
 * Returns the context name for a cluster: that of its context, else the first of its names that no other managed
 * context has. If an unmanaged entry has that name, returns ownName() of it. Returns the wanted name in any case, but
 * writing it fails if it is not managed. Throws TkaError if it belongs to a managed context of another server.
 */
export function contextFor(
  view: KubeconfigView,
  { server, clusterName, through = null, servers = [], known }: ContextTarget,
  options: { tailnet: string; wanted?: string | undefined },
): ContextName {
  const ours = new Map(view.ours.map((c) => [c.name, c]));
  const { wanted } = options;
  if (wanted !== undefined) {
    const other = ours.get(wanted);
    if (other === undefined || other.server === server || servers.includes(other.server) || wanted === known)
      return { name: wanted };
    throw new TkaError(`context ${JSON.stringify(wanted)} belongs to ${other.server}`, {
      hints: ['use another name: --context NAME', `or remove it first: kubectl tka forget ${wanted}`],
    });
  }
  const existing = contextOf(view, server) ?? (known === undefined ? undefined : ours.get(known));
  if (existing !== undefined) return { name: existing.name };
  const names = contextNames(server, options.tailnet, clusterName, through);
  const own = names.map((name) => ownName(view, name));
  return own.find(({ name }) => !ours.has(name)) ?? own.at(-1) ?? { name: server };
}

/**
 * Returns the name for a managed context: the given one, or `tka-NAME`, `tka-NAME-2` and so on if the kubeconfig has an
 * unmanaged context, cluster or user with that name.
 */
export function ownName({ foreign }: Pick<KubeconfigView, 'foreign'>, wanted: string): ContextName {
  const kind = foreign.get(composed(wanted));
  if (kind === undefined) return { name: wanted };
  let name = `tka-${wanted}`;
  for (let n = 2; foreign.has(composed(name)); n++) name = `tka-${wanted}-${n}`;
  const notice = `${kind} ${quoted(wanted)} already exists and is not managed by kubectl-tka; using ${quoted(name)}`;
  return { name, notice };
}

/** Returns the managed context for a server. Prefers the current context, else takes the first. */
export function contextOf(view: KubeconfigView, server: string): OurContext | undefined {
  const all = view.ours.filter((c) => c.server === server);
  return all.find((c) => c.name === view.currentContext) ?? all[0];
}

/** The managed contexts of each cluster. */
export type ContextsByCluster = ReadonlyMap<Cluster, readonly OurContext[]>;

/**
 * Groups the managed contexts by cluster. A context belongs to the cluster that has its server, else to the only
 * cluster with its API server. (In the second case its TKA server has another name, an address, or is gone.) A joined
 * cluster can state any API server, so it gets only contexts with one of its servers, with a replica that confirmed one
 * of them, or with its name as well as its API server, if no other cluster has both and the context is not known to be
 * for another login server. (In the last case its login server has another URL.) Contexts for the cluster's preferred
 * server come first; among those, the current context.
 */
export function contextsByCluster(
  view: Pick<KubeconfigView, 'ours'> & { readonly currentContext?: string | undefined },
  clusters: readonly Cluster[],
): ContextsByCluster {
  const byServer = new Map<string, Cluster>();
  for (const cluster of [...clusters].reverse())
    for (const { server } of [...cluster.servers, cluster]) if (server !== null) byServer.set(server, cluster);
  const byEndpoint = Map.groupBy(
    clusters.filter((cluster) => !isOnlyJoined(cluster)),
    ({ apiEndpoint }) => apiEndpoint,
  );
  const byJoined = Map.groupBy(clusters.filter(isOnlyJoined), ({ server, apiEndpoint }) =>
    joinedKey(server, apiEndpoint),
  );
  const found = new Map<Cluster, OurContext[]>();
  for (const ours of view.ours) {
    const replicas = isJoined(ours) ? (ours.siblings?.servers ?? []) : [];
    const [known] = [ours.server, ...replicas].flatMap((server) => byServer.get(server) ?? []);
    const { server, apiServer = '' } = ours;
    const alike = isJoined(ours) ? byJoined.get(joinedKey(server, apiServer)) : byEndpoint.get(apiServer);
    const only = alike?.length === 1 ? alike[0] : undefined;
    const isOther = isThroughAnother(ours.siblings?.signInStore, only?.through ?? null);
    const cluster = known ?? (isOther ? undefined : only);
    if (cluster === undefined) continue;
    const others = found.get(cluster);
    if (others === undefined) found.set(cluster, [ours]);
    else others.push(ours);
  }
  for (const [{ server }, contexts] of found) {
    const rank = (each: OurContext) => (each.server === server ? 0 : 2) + (each.name === view.currentContext ? 0 : 1);
    contexts.sort((a, b) => rank(a) - rank(b));
  }
  return found;
}

const joinedKey = (server: string | null, apiServer: string): string =>
  `${joinedNameOf(server ?? '') ?? ''} ${apiServer}`;
