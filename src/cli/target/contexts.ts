import { type Cluster, contextNames, shortName } from '../../discovery/clusters.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';

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
    throw new TkaError(`context ${JSON.stringify(wanted)} belongs to ${other.server}`, {
      hints: ['use another name: --context NAME', `or remove it first: kubectl tka forget ${wanted}`],
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

/** Our contexts by the cluster that they are for. */
export type ContextsByCluster = ReadonlyMap<Cluster, readonly OurContext[]>;

/**
 * Our contexts, by cluster: those for one of its servers, and those for the same API server where that is no other's. (The
 * TKA server of such a context has another name, an address, or is gone.) In each, the one for the server to use comes
 * first, and of several such the current one.
 */
export function contextsByCluster(
  view: Pick<KubeconfigView, 'ours'> & { readonly currentContext?: string | undefined },
  clusters: readonly Cluster[],
): ContextsByCluster {
  const byServer = new Map<string, Cluster>();
  for (const cluster of [...clusters].reverse())
    for (const { server } of [...cluster.servers, cluster]) if (server !== null) byServer.set(server, cluster);
  const byEndpoint = Map.groupBy(clusters, ({ apiEndpoint }) => apiEndpoint);
  const found = new Map<Cluster, OurContext[]>();
  for (const ours of view.ours) {
    const alike = byEndpoint.get(ours.apiServer ?? '') ?? [];
    const cluster = byServer.get(ours.server) ?? (alike.length === 1 ? alike[0] : undefined);
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
