import type { Peer } from '../tailscale/localapi.ts';
import { TkaError } from '../util/errors.ts';
import { type FindOptions, seedTimeout } from './find-options.ts';
import type { ListedMember } from './listing.ts';

/** Returns servers without a memberlist as members, each as its own /cluster-info describes it. */
export async function describeServers(
  servers: readonly string[],
  peers: readonly Peer[],
  options: FindOptions,
): Promise<ListedMember[]> {
  const names = new Map(peers.map((peer) => [options.serverOf(peer), peer.hostName]));
  const describe = async (server: string): Promise<ListedMember[]> => {
    const client = options.client(server);
    try {
      const { apiServer, labels, cluster } = await client.clusterInfo({ timeout: seedTimeout });
      const about = { name: names.get(server) ?? null, server, cluster, apiEndpoint: apiServer, labels };
      const unknown = { id: null, address: null, gossipPort: null, state: null, lastSeen: null, version: null };
      return [{ ...about, ...unknown, isLocal: false }];
    } catch (error) {
      options.warn(`${error instanceof TkaError ? error.message : error}`);
      return [];
    } finally {
      await client.close();
    }
  };
  return (await Promise.all(servers.map(describe))).flat();
}
