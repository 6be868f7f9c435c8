// What members of a mesh claim, without a mesh.
import type { MeshClaims } from '../../../src/server/federation/conflicts.ts';
import { Claims } from '../../../src/server/mesh/claims.ts';
import type { MemberRecord } from '../../../src/server/mesh/member.ts';

export type Member = Pick<MemberRecord, 'apiEndpoint'> & Partial<MemberRecord>;

/** Returns the claims of members as they are at each call. Undefined: they are not known. */
export const claimsOf =
  (members: () => readonly Member[] | undefined): MeshClaims =>
  (cluster, apiEndpoint) => {
    const known = members()?.map((member, i) => ({
      name: `member-${i}`,
      record: {
        server: `https://member-${i}.example.com`,
        gossipPort: 1,
        labels: {},
        version: '',
        left: false,
        ...member,
      },
      state: 'healthy' as const,
      lastSeen: 0,
    }));
    return known && new Claims(known, 'member-0').of(cluster, apiEndpoint);
  };
