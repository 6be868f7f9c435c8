import { type Cluster, confirmCluster } from '../discovery/clusters.ts';
import { TkaError } from '../errors.ts';
import type { ContextSpec, KubeconfigView } from '../kubeconfig/index.ts';
import type { Context } from './context.ts';
import { listOptions } from './target.ts';

/** A cluster whose TKA server is known. */
export type PlacedCluster = Cluster & { readonly server: string };

/** The cluster, if its TKA server is known. Throws TkaError with the reason why it is not. */
export function placedCluster(cluster: Cluster): PlacedCluster {
  if (cluster.server !== null) return { ...cluster, server: cluster.server };
  throw new TkaError(cluster.reason ?? 'its TKA server is not known', {
    hints: ['if you know its host, name that: kubectl tka login HOST'],
  });
}

/**
 * What a context for a cluster needs, without signing in: its server is asked whether it is that cluster's, and how the
 * API server is reached. Throws TkaError where it is not, as confirmCluster does, and for an insecure API server that
 * nobody agreed to.
 */
export async function contextSpec(
  context: Context,
  view: KubeconfigView,
  cluster: PlacedCluster,
): Promise<Omit<ContextSpec, 'name'>> {
  const { server } = cluster;
  const info = await confirmCluster(cluster, listOptions(context, view));
  if (info.insecureSkipTlsVerify && context.sessions.store.insecureConsent(server) !== info.apiServer) {
    throw new TkaError('its TKA server asks to reach the API server without a look at its certificate', {
      hints: [`if you accept that, type: kubectl tka login ${server} --insecure-skip-tls-verify`],
    });
  }
  return {
    server,
    apiServer: info.apiServer,
    caData: info.caData,
    insecureSkipTlsVerify: info.insecureSkipTlsVerify,
    command: context.command,
    installHint:
      'kubectl-tka gets the tokens for this cluster, and is not installed here.\nInstall it with: kubectl krew install tka',
  };
}
