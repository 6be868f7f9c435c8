import type { Cluster, ClusterServer } from '../../discovery/clusters.ts';
import { peerAt } from '../../discovery/peers.ts';
import { hostOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';

/** The cluster that a server is one of, by whatever name or address the server is called; undefined for none. */
export async function clusterOfServer(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
): Promise<Cluster | undefined> {
  return (await listedServer(context, server, clusters))?.cluster;
}

/** The same, with what the list says of the server. */
export async function listedServer(
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
  const peer = peerAt(hostOf(server), peers);
  if (peer === undefined) return undefined;
  const { protocol, port } = new URL(server);
  return find((url) => {
    const isThere = hostOf(url) === peer.dnsName || peer.addresses.includes(hostOf(url));
    // One host may have several servers.
    return isThere && new URL(url).protocol === protocol && new URL(url).port === port;
  });
}
