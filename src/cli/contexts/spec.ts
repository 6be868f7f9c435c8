import type { Cluster } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { ContextSpec } from '../../kubeconfig/index.ts';
import type { Session } from '../../session/session.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { confirmed } from '../target/trust.ts';
import { inContext, keepSiblings, siblingsToKeep } from './siblings.ts';

/**
 * What a context for a cluster holds, without signing in: its server is asked whether it is that cluster's, and how the
 * API server is reached. Throws TkaError as `confirmed` does, and for an insecure API server that nobody agreed to.
 */
export async function contextSpec(
  context: Context,
  name: string,
  cluster: Cluster,
  trust: TrustPolicy,
): Promise<ContextSpec> {
  const client = (server: string) => context.sessions.client(server, cluster.apiEndpoint);
  const info = await confirmed(context, cluster, trust, client);
  const { server } = info;
  if (info.insecureSkipTlsVerify && context.sessions.store.consents.read(server) !== info.apiServer) {
    throw new TkaError(
      `the TKA server of ${cluster.name} asks to reach the API server without a look at its certificate`,
      { hints: [`if you accept that, type: kubectl tka login ${server} --insecure-skip-tls-verify`] },
    );
  }
  const siblings = await siblingsToKeep(context, trust, { server, info }, cluster.servers);
  keepSiblings(context, server, siblings);
  return specOf(context, name, server, info, { siblings: inContext(siblings) });
}

/** What a context keeps beside its server. */
export type ContextExtension = Pick<ContextSpec, 'siblings' | 'namedBy'>;

/** What the kubeconfig is to hold for a server. */
export function specOf(
  context: Context,
  name: string,
  server: string,
  { apiServer, caData, insecureSkipTlsVerify }: Pick<Session, 'apiServer' | 'caData' | 'insecureSkipTlsVerify'>,
  more: ContextExtension = {},
): ContextSpec {
  return {
    ...more,
    name,
    server,
    apiServer,
    caData,
    insecureSkipTlsVerify,
    command: context.command,
    installHint:
      'kubectl-tka gets the tokens for this cluster, and is not installed here.\nInstall it with: kubectl krew install tka',
  };
}
