// What is kept of a cluster's TKA servers, for when the one that a context names is away; see src/session/failover.ts.

import type { ClusterServer } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { ContextSiblings, ContextSpec } from '../../kubeconfig/index.ts';
import { disagreement, knownClusterOf, type Siblings } from '../../session/siblings.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { describeCluster } from '../../tka/client.ts';
import type { Context } from '../context/context.ts';

/** So many of a cluster's servers are kept. */
const mostKept = 8;

/**
 * Milliseconds for one of them to describe its cluster. A new connection with TLS takes four round trips, 300 ms each between
 * continents. Servers that are not listed as healthy get less.
 */
const confirmTimeout = 1500;
const unhealthyTimeout = 500;

/**
 * Returns what is to be kept of a cluster: what `server` stated of it, and those of its other servers that are trusted and
 * state the same themselves in time. Undefined if the server does not state enough (Go). Never throws.
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

/** The same for another server of the cluster; undefined if it is not one of those that have confirmed it. */
export function siblingsOf(server: string, asked: string, siblings: Siblings | undefined): Siblings | undefined {
  const all = [asked, ...(siblings?.servers ?? [])];
  if (siblings === undefined || !all.includes(server)) return undefined;
  return { ...siblings, servers: all.filter((each) => each !== server).sort() };
}

/** The same as a context keeps it; undefined for a cluster with one server. */
export function inContext(siblings: Siblings | undefined): ContextSiblings | undefined {
  if (siblings === undefined || siblings.servers.length === 0) return undefined;
  const { cluster, signInStore } = siblings.known;
  return { cluster, signInStore, servers: siblings.servers };
}

/** Keeps it on this machine, for contexts that are not in the usual kubeconfig. Only warns where it cannot. */
export function keepSiblings({ sessions, terminal }: Context, server: string, siblings: Siblings | undefined): void {
  if (siblings === undefined) return;
  try {
    sessions.store.siblings.write(server, siblings);
  } catch (error) {
    terminal.log(`what is known of the cluster of ${server} cannot be kept: ${error}`);
  }
}

/**
 * The same for contexts that were written. Those in the usual kubeconfig keep it themselves, so this is for others, and where
 * this machine keeps something older.
 */
export function keepAllSiblings(context: Context, specs: readonly ContextSpec[]): void {
  for (const { server, apiServer, caData = '', insecureSkipTlsVerify = false, siblings } of specs) {
    if (siblings === undefined) continue;
    if (!context.kubeconfig.explicit && context.sessions.store.siblings.read(server) === undefined) continue;
    const { servers, ...named } = siblings;
    keepSiblings(context, server, { known: { ...named, apiServer, caData, insecureSkipTlsVerify }, servers });
  }
}
