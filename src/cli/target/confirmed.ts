import type { Cluster } from '../../discovery/clusters.ts';
import { type Confirmation, type ConfirmOptions, confirmCluster } from '../../discovery/confirm.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { Context } from '../context/context.ts';

/**
 * Confirms a cluster with what this machine knows of its servers; see confirmCluster(). A client for a sign-in goes on at
 * another server of the cluster if one is away, so another server may confirm the cluster then.
 */
export function confirmed(
  context: Context,
  cluster: Cluster,
  trust: TrustPolicy,
  signInClient?: ConfirmOptions['client'],
): Promise<Confirmation> {
  const { log } = context.terminal;
  return confirmCluster(cluster, {
    trust,
    client: signInClient ?? context.client,
    timeout: context.askTimeout,
    isAway: (server) => context.away.has(server) !== undefined,
    failover: signInClient !== undefined,
    forget: (apiEndpoint, server) => {
      try {
        context.memory.forget(apiEndpoint, server);
      } catch (error) {
        log(`the last list cannot be changed: ${error}`);
      }
    },
    log,
  });
}
