import type { Member } from '../tka/memberlist.ts';
import type { Cluster, ClusterState } from './clusters.ts';
import { type GroupOptions, groupServers, type ServerRow } from './grouping.ts';
import type { FindOptions } from './listing.ts';
import type { RememberedList, RememberedMember } from './memory.ts';

/** How long to show a cluster that is no longer listed, in milliseconds. */
export const keepMissing = 7 * 86_400_000;

/** Returns the clusters of a stored list. Asks no server. */
export function rememberedClusters(
  list: RememberedList,
  { untrusted, ...options }: GroupOptions & { readonly untrusted?: ReadonlyMap<RememberedMember, string> } = {},
): Cluster[] {
  const [there, gone] = [list.members.filter(isListed), list.members.filter((member) => !isListed(member))];
  const rows = there.map((member) => rowOf(member, 'unknown TKA server', untrusted));
  return groupServers([...rows, ...missingOf(gone)], options).clusters;

  function isListed(member: RememberedMember): boolean {
    return member.listed >= list.at;
  }
}

/** Returns a listed member as a row. `unresolved` is the reason for a member without a server. */
export function rowOf(
  member: RememberedMember,
  unresolved: string,
  untrusted?: ReadonlyMap<RememberedMember, string>,
): ServerRow {
  const why = untrusted?.get(member);
  const reason = member.server === null ? unresolved : (why ?? null);
  return { ...member, state: stateOf(member, member.server), reason, usable: member.server !== null && !why };
}

/** Returns the members whose server is from a list but must not be used, with the reason. */
export async function untrustedOf(
  members: readonly RememberedMember[],
  options: FindOptions,
): Promise<Map<RememberedMember, string>> {
  const untrusted = new Map<RememberedMember, string>();
  for (const member of members) {
    const { server, provenance } = member;
    if (server === null || provenance !== 'stated' || (await options.allows(server, provenance))) continue;
    untrusted.set(member, await options.whyNot());
  }
  return untrusted;
}

/** Returns members that are no longer listed as rows, without those older than `keepMissing`. */
export function missingOf(members: readonly RememberedMember[]): ServerRow[] {
  return members
    .filter((member) => Date.now() - member.listed < keepMissing)
    .map((member) => ({
      ...member,
      state: 'missing',
      reason: `not listed since ${minuteOf(member.listed)}`,
      usable: member.server !== null,
    }));
}

function stateOf(member: Member, server: string | null): ClusterState {
  if (member.state === 'dead' || member.state === 'suspected') return member.state;
  if (server === null) return 'unresolved';
  return member.state ?? 'unknown';
}

/** Returns a time as `2026-11-21 09:30 UTC`. */
function minuteOf(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}
