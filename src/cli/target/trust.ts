import type { Cluster } from '../../discovery/clusters.ts';
import { type Confirmation, type ConfirmOptions, confirmCluster } from '../../discovery/confirm.ts';
import { isBareWord, TrustPolicy } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { byUser } from './named-by.ts';
import { taggedPeers } from './seeds.ts';

/** Returns the trust policy of this machine, based on tailscaled, the configuration, sessions and contexts. */
export function trustOf(context: Context, view: Pick<KubeconfigView, 'ours'>): TrustPolicy {
  const { settings, sessions, accepted } = context;
  const { store } = sessions;
  const hostname = settings.values.get('tailscale.hostname');
  const isTyped = hostname?.source === '--server' && isBareWord(String(hostname.value));
  const namedByUser = new Set(view.ours.flatMap(({ server, namedBy }) => (namedBy === byUser ? [server] : [])));
  return new TrustPolicy({
    tag: settings.tag,
    tagged: () => taggedPeers(context),
    accepted: (server) => accepted.has(server),
    used: (server) =>
      namedByUser.has(server) ||
      store.read(server) !== undefined ||
      // Version 0.1.0 wrote a signed-out mark without a username for any server that `logout` was called with.
      (store.signedOut.read(server)?.username ?? null) !== null,
    namedAs: (server) => (server !== settings.seed ? undefined : isTyped ? 'typed' : 'known'),
  });
}

/**
 * Confirms a cluster with what this machine knows about its servers; see confirmCluster(). If a server is away, a
 * sign-in client fails over to another server of the cluster, and then that server may confirm the cluster.
 */
export function confirmed(
  context: Context,
  cluster: Cluster,
  trust: TrustPolicy,
  signInClient?: ConfirmOptions['client'],
): Promise<Confirmation> {
  const { log, waiting } = context.terminal;
  const options: ConfirmOptions = {
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
  };
  return waiting(`asking ${cluster.server ?? 'the TKA servers'} about ${cleanText(cluster.name)}`, () =>
    confirmCluster(cluster, options),
  );
}
