// What is known of a server that the user named, without a look at the list of clusters.
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import type { Context } from '../context/context.ts';
import { type ContextTarget, contextOf } from '../target/context-name.ts';
import { clusterOfServer } from '../target/listed-server.ts';

/** Milliseconds for a server to describe its cluster, beside the sign-in. */
const describeTimeout = 2000;

/** What the context of a named server is for. */
interface NamedServer {
  readonly contextTarget: ContextTarget;
  /** What the server states of its cluster; undefined if it does not. */
  readonly info: Promise<ClusterDescription | undefined>;
}

/**
 * Finds the cluster of a server that the user named: as the last lists have it, else as it says itself. A context that
 * leads to the same API server with the same CA is that cluster's. A server that is known to have no tag is believed
 * neither: it gets a context of its own.
 */
export async function describeNamed(
  context: Context,
  view: KubeconfigView,
  server: string,
  trust: TrustPolicy,
): Promise<NamedServer> {
  const asked = describe(context, server);
  const remembered = await clusterOfServer(context, server, context.remembered.all);
  const byList = { contextTarget: { server, clusterName: remembered?.name ?? null }, info: asked };
  if (contextOf(view, server) !== undefined || (await trust.isTagged(server)) === false) return byList;
  const info = await asked;
  if (info === undefined) return byList;
  const clusterName = info.cluster ?? (remembered?.apiEndpoint === info.apiServer ? remembered.name : null);
  const isSame = (ours: OurContext) => {
    if (ours.apiServer !== info.apiServer || (ours.caData ?? '') !== info.caData) return false;
    const other = context.remembered.of(ours.server)?.name ?? clusterName;
    return clusterName === null || other === clusterName;
  };
  return { contextTarget: { server, clusterName, known: view.ours.find(isSame)?.name }, info: asked };
}

/** Returns what a server states of its cluster; undefined if it does not. Never throws. */
async function describe(context: Context, server: string): Promise<ClusterDescription | undefined> {
  const client = context.client(server);
  try {
    return await client.clusterInfo({ timeout: Math.min(context.askTimeout, describeTimeout) });
  } catch (error) {
    context.terminal.log(`${server} does not describe its cluster: ${error}`);
    return undefined;
  } finally {
    await client.close();
  }
}
