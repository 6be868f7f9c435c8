import { TkaError } from '../errors.ts';
import type { ClusterDescription } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import type { MemberState } from '../tka/types.ts';

export type ClusterState = MemberState | 'missing' | 'unresolved' | 'unknown';

/** A cluster that can be signed in to, or is at least known of. */
export interface Cluster {
  readonly name: string;
  /** Its TKA server, canonical URL; null where it could not be placed. */
  readonly server: string | null;
  /** Canonical URL of its API server. */
  readonly apiEndpoint: string;
  readonly state: ClusterState;
  /** Why it is in that state, where that needs saying. */
  readonly reason: string | null;
  /** RFC 3339. */
  readonly lastSeen: string | null;
  /** Of its TKA server, as the list states it. */
  readonly version: string | null;
  readonly labels: ReadonlyMap<string, string>;
}

/** A TKA server and the API server that it gives tokens for, as known from elsewhere (the kubeconfig). */
export interface KnownPair {
  readonly server: string;
  readonly apiServer: string | undefined;
}

/** How a cluster's server is asked. */
export interface ConfirmOptions {
  readonly client: (server: string) => TkaClient;
  /** Milliseconds for the question. */
  readonly timeout: number;
}

/**
 * Asks the server of a cluster whether it is that cluster's, and how its API server is reached. Throws TkaError where
 * it names another API endpoint, or as TkaClient does.
 */
export async function confirmCluster(
  cluster: Cluster & { server: string },
  options: ConfirmOptions,
): Promise<ClusterDescription> {
  const client = options.client(cluster.server);
  try {
    const info = await client.clusterInfo({ timeout: options.timeout });
    if (info.apiServer === cluster.apiEndpoint) return info;
    throw new TkaError(
      `${cluster.server} is not the TKA server of ${cluster.name}: it speaks for ${info.apiServer}, not for ${cluster.apiEndpoint}`,
      { hints: [`if you trust it, name it by its address: kubectl tka login ${cluster.server}`] },
    );
  } finally {
    await client.close();
  }
}
