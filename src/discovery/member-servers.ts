import type { Member } from '../tka/memberlist.ts';
import type { GoodListing } from './current-list.ts';
import { entryTimeout, type FindOptions } from './find-options.ts';
import type { RememberedList, RememberedMember } from './memory.ts';
import { type Resolved, resolveServers } from './resolution.ts';

const askAgainAfter = 60_000;

// What one endpoint's members may cost.
const alikeLimit = 16;

export type Placing = (listing: GoodListing) => Promise<RememberedMember[]>;

/** Places the members of lists, with what the last list knows of them. */
export function placingFor(memory: RememberedList | undefined, options: FindOptions, now: number): Placing {
  const before = new Map(memory?.members.map((member) => [keyOf(member), member]));
  const triedAt = (member: Member) => before.get(keyOf(member))?.tried ?? 0;
  const firstSeen = new Map(memory?.members.map((member) => [placeOf(member), member.since]));
  const remembered = placesOf(memory);
  const configured = new Map(
    options.known.flatMap(({ apiServer, server }) => (apiServer ? [[apiServer, server] as const] : [])),
  );
  return async ({ members, server: from, provenanceOf, alone, cut, unread }) => {
    if (cut > 0) options.warn(`${from} lists ${members.length + cut} members: the first ${members.length} are shown`);
    if (unread > 0) options.warn(`${from} lists ${unread} members without a usable API endpoint: they are left out`);
    const { placed, asked } = await resolveServers(members, {
      from: { server: from, provenance: provenanceOf(from) },
      remembered,
      configured,
      tagged: options.tagged,
      serverOf: options.serverOf,
      mayAsk: (member) => now - triedAt(member) > askAgainAfter,
      client: options.client,
      timeout: entryTimeout,
    });
    return members.map((member): RememberedMember => {
      const { server, provenance } = placed.get(member) ?? { server: null, provenance: 'tailnet' as const };
      const { name, cluster, apiEndpoint, state, lastSeen, version, labels } = member;
      const tried = asked.has(member) ? now : triedAt(member);
      const ofServer = { server, provenance: alone && server !== null ? provenanceOf(server) : provenance };
      const since = firstSeen.get(placeOf({ server, apiEndpoint })) ?? now;
      return { name, cluster, ...ofServer, apiEndpoint, state, lastSeen, version, labels, listed: now, tried, since };
    });
  };
}

/** Where the members of each API endpoint were, as the last list has it. */
function placesOf(memory: RememberedList | undefined): Map<string, Resolved[]> {
  const places = new Map<string, Resolved[]>();
  for (const { apiEndpoint, server, provenance } of memory?.members ?? []) {
    const alike = places.get(apiEndpoint) ?? [];
    if (server !== null && alike.length < alikeLimit) places.set(apiEndpoint, [...alike, { server, provenance }]);
  }
  return places;
}

// A server without names says no more of a member than its endpoint.
function keyOf(member: Pick<Member, 'name' | 'apiEndpoint'>): string {
  return `${member.name ?? ''} ${member.apiEndpoint}`;
}

function placeOf({ server, apiEndpoint }: Pick<Member, 'server' | 'apiEndpoint'>): string {
  return `${server ?? ''} ${apiEndpoint}`;
}
