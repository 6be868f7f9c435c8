// Records what named the server of a context: the field `namedBy` of the context's extension. A server on a list has not
// necessarily been used by the user, and `sync --prune` only removes contexts whose server a list has named.
import type { Cluster, ClusterServer } from '../../discovery/clusters.ts';
import type { Origin } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import type { Context } from '../context/context.ts';
import { configuredServer } from './seeds.ts';

/** The user named the server by its address. */
export const byUser = 'user';

/**
 * Returns the `namedBy` of listed servers: the URL of the configured server, which serves the list, else the name of
 * the tailnet, for instance `example.ts.net`. Returns undefined if neither is known.
 */
export async function byList(context: Context): Promise<string | undefined> {
  const configured = await configuredServer(context);
  if (configured !== undefined) return configured;
  return context.tailnet().then(
    ({ suffix }) => suffix || 'tailnet',
    () => undefined,
  );
}

/** Returns the `namedBy` of a server to sign in to; undefined if neither the user nor a list named it. */
export async function namedByOf(
  context: Context,
  { server, cluster, origin }: { server: string; cluster: Cluster | undefined; origin: Origin },
): Promise<string | undefined> {
  // The server that the user named may have redirected us to another server of its cluster.
  const isOwn = cluster === undefined || server === context.settings.seed;
  if (isOwn && (origin === 'named' || origin === 'typed')) return byUser;
  return cluster && byList(context);
}

/**
 * Returns a test whether an earlier list of the same mesh named the server of a context. Only then does its absence
 * from this list mean something. The test is false for all contexts if this list does not say when its members were
 * seen, as gossip may be off for the moment. It is also false if nothing connects this list with the earlier one, as it
 * may come from another mesh.
 */
export function listedBefore(
  list: string | undefined,
  servers: readonly Pick<ClusterServer, 'server' | 'state' | 'lastSeen'>[],
  { ours }: Pick<KubeconfigView, 'ours'>,
): (context: OurContext) => boolean {
  const now = new Set(servers.flatMap(({ server, state }) => (server === null || state === 'missing' ? [] : [server])));
  const isDated = servers.some(({ lastSeen }) => lastSeen !== null);
  const isListed = ({ namedBy }: OurContext) => list !== undefined && namedBy === list;
  const isSameMesh = now.has(list ?? '') || ours.some((each) => isListed(each) && now.has(each.server));
  return (context) => isDated && isSameMesh && isListed(context);
}
