import { type Cluster, OtherCluster } from '../../discovery/clusters.ts';
import { type ConfirmOptions, type TrustPolicy, Untrusted } from '../../discovery/trust.ts';
import { Unavailable } from '../../network/failure.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';

/** A cluster whose TKA server nobody knows. */
export class UnresolvedCluster extends TkaError {
  /** The message where the cluster's name stands before it anyway. */
  readonly unnamed: string;
  constructor({ name, reason }: Cluster) {
    const unnamed = `no known TKA server: ${reason ?? 'unresolved'}`;
    super(`${name} has ${unnamed}`, { hints: ['if you know its host, name that: kubectl tka login HOST'] });
    this.unnamed = unnamed;
  }
}

/** What an error says after the name of the cluster that it is about. */
export function afterName(error: TkaError): string {
  return error instanceof UnresolvedCluster || error instanceof Untrusted ? error.unnamed : error.message;
}

/** A cluster whose TKA server is known. Throws UnresolvedCluster. */
export function placed(cluster: Cluster): Cluster & { readonly server: string } {
  const { server } = cluster;
  if (server !== null) return { ...cluster, server };
  throw new UnresolvedCluster(cluster);
}

/** So many of a cluster's servers are asked to confirm it: anyone can claim to be one of them. */
const mostConfirmed = 8;

/** One that did not answer a moment ago is given so long while the cluster has others, in milliseconds. */
const awayTimeout = 2000;

/**
 * Confirms a cluster with its server, as TrustPolicy.confirm() does; if that speaks for another cluster, with the next of its
 * servers. The answer has the server that confirmed it. With a client for a sign-in, which goes on at another server where
 * something is kept of the cluster, the next one is asked where it is away, too: without, no context would get another server
 * while its own is away. Throws TkaError, also where the cluster is not placed.
 */
export async function confirmed(
  context: Context,
  cluster: Cluster,
  trust: TrustPolicy,
  signInClient?: ConfirmOptions['client'],
) {
  const options = {
    client: signInClient ?? context.client,
    timeout: context.askTimeout,
    forget: (apiEndpoint: string, server: string) => {
      try {
        context.memory.forget(apiEndpoint, server);
      } catch (error) {
        context.terminal.log(`the last list cannot be changed: ${error}`);
      }
    },
  };
  const first = placed(cluster);
  const others = cluster.servers.filter(({ server }) => server !== first.server).slice(0, mostConfirmed);
  const isAway = others.length > 0 && context.away.has(first.server) !== undefined;
  try {
    const timeout = isAway ? Math.min(options.timeout, awayTimeout) : options.timeout;
    return await trust.confirm(first, { ...options, timeout });
  } catch (cause) {
    const isOfUse = cause instanceof OtherCluster || (signInClient && cause instanceof Unavailable && cause.away);
    if (!isOfUse) throw cause;
    for (const { server, provenance } of others) {
      if (server === null || !(await trust.allows(server, provenance))) continue;
      context.terminal.log(`${cause.message}: asking ${server}`);
      try {
        return await trust.confirm({ ...cluster, server, provenance }, options);
      } catch (error) {
        if (!(error instanceof TkaError)) throw error;
        context.terminal.log(error.message);
      }
    }
    throw cause;
  }
}
