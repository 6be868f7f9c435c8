import type { Cluster } from '../../discovery/clusters.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';

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
