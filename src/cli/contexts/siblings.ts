// Stores what is known about a cluster's TKA servers, for when the one in the context is away; see
// src/session/failover.ts.

import type { ClusterServer } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { ContextSiblings, ContextSpec } from '../../kubeconfig/index.ts';
import { disagreement, knownClusterOf, type Siblings } from '../../session/siblings.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { describeCluster } from '../../tka/client.ts';
import { isThrough } from '../../tka/sign-in-store.ts';
import type { Context } from '../context/context.ts';

/** Maximum number of other servers stored per cluster. */
const mostKept = 8;

/**
 * Timeouts for one of these servers to describe its cluster, in milliseconds. A new TLS connection takes four round
 * trips of 300 ms each between continents. Servers that are not listed as healthy get less time.
 */
const confirmTimeout = 1500;
const unhealthyTimeout = 500;

/**
 * Returns what to store about a cluster: what `server` states about it, and those of its other servers that are trusted
 * and confirm this in time. Returns undefined if the server does not state enough, as the Go server does. Never throws.
 */
export async function siblingsToKeep(
  { client, terminal }: Pick<Context, 'client' | 'terminal'>,
  trust: TrustPolicy,
  { server, info }: { readonly server: string; readonly info: ClusterDescription },
  servers: readonly ClusterServer[],
): Promise<Siblings | undefined> {
  const known = knownClusterOf(info);
  if (known === undefined) return undefined;
  const others = new Map(servers.flatMap((each) => (each.server === null ? [] : [[each.server, each] as const])));
  others.delete(server);
  const confirm = async ([other, { provenance, state }]: readonly [string, ClusterServer]): Promise<string[]> => {
    const timeout = state === 'healthy' ? confirmTimeout : unhealthyTimeout;
    if (!(await trust.allows(other, provenance))) return [];
    try {
      const difference = disagreement(known, await describeCluster(client(other), timeout));
      if (difference === undefined) return [other];
      terminal.log(`${other} is not kept as a server of ${known.cluster}: ${difference}`);
    } catch (error) {
      terminal.log(`${other} is not kept as a server of ${known.cluster}: ${error}`);
    }
    return [];
  };
  const confirmed = await Promise.all([...others].slice(0, mostKept).map(confirm));
  return { known, servers: confirmed.flat().sort() };
}

/**
 * Returns the same data from the view of another server of the cluster; undefined if that server has not confirmed it.
 */
export function siblingsOf(server: string, asked: string, siblings: Siblings | undefined): Siblings | undefined {
  const all = [asked, ...(siblings?.servers ?? [])];
  if (siblings === undefined || !all.includes(server)) return undefined;
  return { ...siblings, servers: all.filter((each) => each !== server).sort() };
}

/**
 * Returns the siblings in the form that a context stores; undefined for a cluster with one server. The context of a joined
 * cluster always has them: they tell which login server it is for.
 */
export function inContext(siblings: Siblings | undefined): ContextSiblings | undefined {
  if (siblings === undefined) return undefined;
  const { known, servers } = siblings;
  const { cluster, signInStore } = known;
  return servers.length > 0 || isThrough(signInStore) ? { cluster, signInStore, servers } : undefined;
}

/** Stores the siblings on this machine, for contexts outside the usual kubeconfig. Never throws; logs a failure. */
export function keepSiblings({ sessions, terminal }: Context, server: string, siblings: Siblings | undefined): void {
  if (siblings === undefined) return;
  try {
    sessions.store.siblings.write(server, siblings);
  } catch (error) {
    terminal.log(`what is known of the cluster of ${server} cannot be kept: ${error}`);
  }
}

/**
 * Stores the siblings of written contexts on this machine. Contexts in the usual kubeconfig hold theirs already, so
 * this is only for other kubeconfigs, or if this machine has older data.
 */
export function keepAllSiblings(context: Context, specs: readonly ContextSpec[]): void {
  for (const { server, apiServer, caData = '', insecureSkipTlsVerify = false, siblings } of specs) {
    if (siblings === undefined) continue;
    if (!context.kubeconfig.explicit && context.sessions.store.siblings.read(server) === undefined) continue;
    const { servers, ...named } = siblings;
    keepSiblings(context, server, { known: { ...named, apiServer, caData, insecureSkipTlsVerify }, servers });
  }
}
