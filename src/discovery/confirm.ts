// What a list says of a cluster's TKA server is not believed: the server has to confirm it.
import { Unavailable } from '../network/failure.ts';
import type { ClusterDescription } from '../tka/answers.ts';
import { describeCluster, type TkaClient } from '../tka/client.ts';
import { TkaError } from '../util/errors.ts';
import { type Cluster, type ResolvedCluster, resolved } from './clusters.ts';
import type { TrustPolicy } from './trust.ts';

/** What a cluster's server states of it, and which server that was. */
export type Confirmation = ClusterDescription & { readonly server: string };

export interface ConfirmOptions {
  readonly trust: Pick<TrustPolicy, 'allows' | 'require'>;
  readonly client: (server: string) => Pick<TkaClient, 'clusterInfo' | 'close'>;
  /** Milliseconds for each server. */
  readonly timeout: number;
  /** Whether a server did not answer a moment ago. */
  readonly isAway: (server: string) => boolean;
  /** Whether another server of the cluster may confirm it where the first one is away. */
  readonly failover: boolean;
  /** Forgets that a server was thought to be that of an API endpoint. */
  readonly forget: (apiEndpoint: string, server: string) => void;
  readonly log: (line: string) => void;
}

/** A server speaks for another cluster than the one that it was thought to be of. */
class OtherCluster extends TkaError {}

/** Limit on the other servers that are asked: anyone can claim to be a server of the cluster. */
const mostOthers = 8;

/** Milliseconds for a server that did not answer a moment ago, if the cluster has other servers. */
const awayTimeout = 2000;

/**
 * Asks the server of a cluster whether it is that cluster's, and how its API server is reached. If it serves another
 * cluster, or with `failover` is away, the cluster's other trusted servers are asked in turn. Throws UnresolvedCluster,
 * Untrusted, OtherCluster, or as TkaClient does; the error is that of the first server.
 */
export async function confirmCluster(cluster: Cluster, options: ConfirmOptions): Promise<Confirmation> {
  const first = resolved(cluster);
  const others = cluster.servers.filter(({ server }) => server !== first.server).slice(0, mostOthers);
  const isAway = others.length > 0 && options.isAway(first.server);
  const timeout = isAway ? Math.min(options.timeout, awayTimeout) : options.timeout;
  try {
    return await confirmServer(first, { ...options, timeout });
  } catch (error) {
    const isAnotherNeeded =
      error instanceof OtherCluster || (options.failover && error instanceof Unavailable && error.away);
    if (!isAnotherNeeded) throw error;
    options.log(error.message);
    const confirmation = await confirmByAnother(cluster, others, options);
    if (confirmation === undefined) throw error;
    return confirmation;
  }
}

/** Returns what the first of other servers confirms that is trusted and answers; undefined for none. */
async function confirmByAnother(
  cluster: Cluster,
  others: Cluster['servers'],
  options: ConfirmOptions,
): Promise<Confirmation | undefined> {
  for (const { server, provenance } of others) {
    if (server === null || !(await options.trust.allows(server, provenance))) continue;
    options.log(`asking ${server}, another server of ${cluster.name}`);
    try {
      return await confirmServer({ ...cluster, server, provenance }, options);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      options.log(error.message);
    }
  }
  return undefined;
}

/** Asks one server, which must be trusted. If it serves another cluster, it is forgotten as this cluster's. */
async function confirmServer(
  cluster: ResolvedCluster,
  { trust, client, timeout, forget }: ConfirmOptions,
): Promise<Confirmation> {
  await trust.require(cluster);
  const { name, server, apiEndpoint } = cluster;
  const info = await describeCluster(client(server), timeout);
  if (info.apiServer === apiEndpoint) return { ...info, server };
  forget(apiEndpoint, server);
  throw new OtherCluster(
    `${server} is not the TKA server of ${name}: it serves ${info.apiServer}, not ${apiEndpoint}`,
    { hints: [`if you trust it, use its URL: kubectl tka login ${server}`] },
  );
}
