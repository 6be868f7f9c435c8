// What named the server of a context: the field `namedBy` of its extension, written with the context. A list that names a
// server is no sign that the user has used it, and only contexts that a list named are pruned.
import type { Cluster, ClusterServer } from '../../discovery/clusters.ts';
import type { Origin } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import type { Context } from '../context/context.ts';
import { configuredServer } from './seeds.ts';

/** The user named the server by its address. */
export const byUser = 'user';

/**
 * Returns the `namedBy` of servers that the list names: the URL of the configured server, whose list it is, else the name of
 * the tailnet, for instance `example.ts.net`. Undefined if neither is known.
 */
export async function byList(context: Context): Promise<string | undefined> {
  const configured = await configuredServer(context);
  if (configured !== undefined) return configured;
  return context.tailnet().then(
    ({ suffix }) => suffix || 'tailnet',
    () => undefined,
  );
}

/** Returns the `namedBy` of a server that is signed in to; undefined if neither the user nor a list named it. */
export async function namedByOf(
  context: Context,
  { server, cluster, origin }: { server: string; cluster: Cluster | undefined; origin: Origin },
): Promise<string | undefined> {
  // The server of a cluster that the user named may have sent us to another one of its servers.
  const isOwn = cluster === undefined || server === context.settings.seed;
  if (isOwn && (origin === 'named' || origin === 'typed')) return byUser;
  return cluster && byList(context);
}

/**
 * Returns a test whether an earlier list of the same mesh named the server of a context, so that its absence from this list
 * means something. False for all contexts if this list does not tell when its members were seen: gossip may be off for the
 * moment. False, too, if nothing connects it with the earlier list: another mesh has taken the place of the first.
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
