// Which members have a cluster name or an API endpoint. A login server asks before a cluster joins it under a name.
import type { MemberState } from '../../tka/types.ts';
import type { KnownMember } from './options.ts';

/** A member whose cluster has a name or an API endpoint. */
export interface ClusterClaim {
  readonly member: string;
  /** The name of its cluster; that of the member if it states no cluster (0.1.0). */
  readonly cluster: string;
  readonly apiEndpoint: string;
  readonly state: MemberState;
  /** True if the member announced that it leaves. */
  readonly left: boolean;
  /** True for this server itself. */
  readonly self: boolean;
  /** Hash of the key with which its cluster has joined a login server, if it has. */
  readonly federationKey: string | undefined;
}

/** An index of the members by cluster name and by API endpoint. */
export class Claims {
  readonly #byName: ReadonlyMap<string, readonly ClusterClaim[]>;
  readonly #byEndpoint: ReadonlyMap<string, readonly ClusterClaim[]>;

  constructor(members: readonly KnownMember[], self: string) {
    const all = members.map(({ name, record, state }): ClusterClaim => {
      const { cluster = name, apiEndpoint, left, federationKey } = record;
      return { member: name, cluster, apiEndpoint, state, left, self: name === self, federationKey };
    });
    this.#byName = Map.groupBy(all, ({ cluster }) => cluster);
    this.#byEndpoint = Map.groupBy(all, ({ apiEndpoint }) => apiEndpoint);
  }

  of(cluster: string, apiEndpoint: string): readonly ClusterClaim[] {
    return [...new Set([...(this.#byName.get(cluster) ?? []), ...(this.#byEndpoint.get(apiEndpoint) ?? [])])];
  }
}
