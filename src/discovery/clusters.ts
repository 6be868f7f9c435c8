import type { ClusterDescription } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import type { MemberState } from '../tka/types.ts';
import { TkaError } from '../util/errors.ts';

export type ClusterState = MemberState | 'missing' | 'unresolved' | 'unknown';

/** One of the TKA servers of a cluster. */
export interface ClusterServer {
  readonly name: string;
  /** Canonical URL; null where it could not be placed. */
  readonly server: string | null;
  /** On whose word it is of this cluster. */
  readonly provenance: Provenance;
  readonly state: ClusterState;
  /** Why it is in that state, where that needs saying. */
  readonly reason: string | null;
  /** RFC 3339. */
  readonly lastSeen: string | null;
  readonly version: string | null;
}

/** A cluster that can be signed in to, or is at least known of. */
export interface Cluster {
  readonly name: string;
  /** The TKA server to use if nothing else is said, canonical URL; null where none could be placed. */
  readonly server: string | null;
  /** On whose word that is its server. */
  readonly provenance: Provenance;
  /** Canonical URL of its API server. */
  readonly apiEndpoint: string;
  /** The best of its servers'. */
  readonly state: ClusterState;
  /** Why it is in that state, where that needs saying. */
  readonly reason: string | null;
  /** When one of its servers was last seen, RFC 3339. */
  readonly lastSeen: string | null;
  /** Of its TKA server, as the list states it. */
  readonly version: string | null;
  readonly labels: ReadonlyMap<string, string>;
  /** All its TKA servers: those in the best state first, then by name. Not empty. */
  readonly servers: readonly ClusterServer[];
}

/** A TKA server and the API server that it gives tokens for, as known from elsewhere (the kubeconfig). */
export interface KnownPair {
  readonly server: string;
  readonly apiServer: string | undefined;
}

/** A server speaks for another cluster than the one that it was thought to be of. */
export class OtherCluster extends TkaError {}

/**
 * Asks the server of a cluster whether it is that cluster's, and how its API server is reached; `timeout` in
 * milliseconds. Throws OtherCluster where it names another API endpoint, or as TkaClient does.
 */
export async function confirmCluster(
  { name, server, apiEndpoint }: { readonly name: string; readonly server: string; readonly apiEndpoint: string },
  client: Pick<TkaClient, 'clusterInfo' | 'close'>,
  timeout: number,
): Promise<ClusterDescription> {
  try {
    const info = await client.clusterInfo({ timeout });
    if (info.apiServer === apiEndpoint) return info;
    throw new OtherCluster(
      `${server} is not the TKA server of ${name}: it speaks for ${info.apiServer}, not for ${apiEndpoint}`,
      { hints: [`if you trust it, name it by its address: kubectl tka login ${server}`] },
    );
  } finally {
    await client.close();
  }
}

/**
 * Who says that a TKA server is a member's: `stated` by a list, this one or an earlier one; `known` to the user, who
 * named it or has a context for it; `tailnet` if we inferred it from the tailnet's peers. trust.ts says which of them
 * need the tag.
 */
export type Provenance = 'stated' | 'known' | 'tailnet';

/** Where a member's TKA server is. */
export interface Resolved {
  readonly server: string;
  readonly provenance: Provenance;
}
