// A list is untrusted: a cluster's TKA server must confirm that it serves the cluster.
import { Unavailable } from '../network/failure.ts';
import type { ClusterDescription } from '../tka/answers.ts';
import { describeCluster, type TkaClient } from '../tka/client.ts';
import { TkaError } from '../util/errors.ts';
import { placeOf } from '../util/url.ts';
import { type Cluster, type ResolvedCluster, resolved } from './clusters.ts';
import { isJoined } from './joined.ts';
import type { TrustPolicy } from './trust.ts';

/** A server's description of its cluster, with the server's URL. */
export type Confirmation = ClusterDescription & { readonly server: string };

export interface ConfirmOptions {
  readonly trust: Pick<TrustPolicy, 'allows' | 'require'>;
  readonly client: (server: string) => Pick<TkaClient, 'clusterInfo' | 'close'>;
  /** Timeout for each server, in milliseconds. */
  readonly timeout: number;
  /** Returns true if a server did not answer a moment ago. */
  readonly isAway: (server: string) => boolean;
  /** True if another server of the cluster may confirm it while the first one is away. */
  readonly failover: boolean;
  /** Forgets that a server seemed to belong to an API endpoint. */
  readonly forget: (apiEndpoint: string, server: string) => void;
  readonly log: (line: string) => void;
}

/** A server belongs to another cluster than expected. */
class OtherCluster extends TkaError {}

/** Limit on the other servers to ask, because any server can claim to belong to the cluster. */
const mostOthers = 8;

/** Timeout for a server that did not answer a moment ago, if the cluster has other servers. In milliseconds. */
const awayTimeout = 2000;

/**
 * Asks a cluster's server whether it serves that cluster, and how to reach the API server. If it serves another
 * cluster, or if it is away and `failover` is set, asks the cluster's other trusted servers one after the other. A way
 * through a login server and a server of the cluster itself never replace each other, because the accounts differ.
 * Throws UnresolvedCluster, UntrustedServer, OtherCluster or what TkaClient throws; the error is that of the first
 * server, with a hint if there is a way through a login server instead.
 */
export async function confirmCluster(cluster: Cluster, options: ConfirmOptions): Promise<Confirmation> {
  const first = resolved(cluster);
  const others = cluster.servers
    .filter((each) => each.server !== first.server && isJoined(each) === isJoined(first))
    .slice(0, mostOthers);
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
    if (confirmation === undefined) throw options.failover ? withWayThrough(cluster, error) : error;
    return confirmation;
  }
}

/** Returns the error of a server that is away, with a hint about the way through a login server if there is one. */
function withWayThrough(cluster: Cluster, error: OtherCluster | Unavailable): TkaError {
  const way = cluster.servers.find((each) => isJoined(each) && each.state === 'healthy');
  if (!(error instanceof Unavailable) || isJoined(cluster) || way === undefined) return error;
  const { message, patience, pause, answered, away, cause } = error;
  const hints = [...error.hints, `through its login server, with another account: kubectl tka login ${way.server}`];
  return new Unavailable(message, patience, { hints, cause, answered, away, ...(pause !== undefined && { pause }) });
}

/**
 * Returns the confirmation of the first other server that is trusted and confirms the cluster; undefined if none does.
 */
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

/** Asks one server, which must be trusted. If it serves another cluster, forgets it as a server of this one. */
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
    `${placeOf(server)} is not the TKA server of ${name}: it serves ${info.apiServer}, not ${apiEndpoint}`,
    { hints: [`if you trust it, use its URL: kubectl tka login ${server}`] },
  );
}
