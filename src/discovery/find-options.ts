import type { Peer } from '../tailscale/localapi.ts';
import type { TkaClient } from '../tka/client.ts';
import type { AwayServers } from './away.ts';
import type { KnownPair, Provenance } from './clusters.ts';
import type { ListMemory } from './memory.ts';
import type { TaggedPeers } from './peers.ts';

export interface FindOptions {
  /** Servers that may be asked for the list; the first is the one whose list it is. Not empty. */
  readonly seeds: readonly string[];
  /** Servers of which any may have been the first before: the newest of their lists is the last one known. */
  readonly lists: readonly string[];
  /** True where a person named the seed: its refusal is the answer then. */
  readonly named: boolean;
  /** Servers and their API endpoints, from the kubeconfig. */
  readonly known: readonly KnownPair[];
  readonly memory: ListMemory;
  readonly away: Pick<AwayServers, 'has' | 'note' | 'clear'>;
  readonly tagged: () => Promise<TaggedPeers>;
  readonly serverOf: (peer: Peer) => string;
  readonly client: (server: string) => TkaClient;
  /** Whether a server may be used; see trust.ts. */
  readonly allows: (server: string, provenance: Provenance) => Promise<boolean>;
  /** Why a server that may not be used is not. */
  readonly whyNot: () => Promise<string>;
  readonly log: (line: string) => void;
  readonly warn: (line: string) => void;
  readonly notice: (line: string) => void;
}

/** Milliseconds to wait for the answer of a seed. */
export const seedTimeout = 2000;
