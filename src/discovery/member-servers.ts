import type { Member } from '../tka/memberlist.ts';
import type { GoodListing } from './current-list.ts';
import { type FindOptions, seedTimeout } from './find-options.ts';
import type { RememberedList, RememberedMember } from './memory.ts';
import { type Resolved, resolveServers } from './resolution.ts';

/** Milliseconds before the tailnet's peers are asked again for a member that none of them is. */
const askAgainAfter = 60_000;

/** Limit on the servers that are remembered of one endpoint. */
const alikeLimit = 16;

export type MemberResolver = (listing: GoodListing) => Promise<RememberedMember[]>;

/** Returns a function that finds the servers of the members of lists, with what the last list knows of them. */
export function memberResolver(memory: RememberedList | undefined, options: FindOptions, now: number): MemberResolver {
  const before = new Map(memory?.members.map((member) => [keyOf(member), member]));
  const triedAt = (member: Member) => before.get(keyOf(member))?.tried ?? 0;
  const firstSeen = new Map(memory?.members.map((member) => [identityAt(member), member.since]));
  const remembered = serversByEndpoint(memory);
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
      timeout: seedTimeout,
    });
    return members.map((member): RememberedMember => {
      const { server, provenance } = placed.get(member) ?? { server: null, provenance: 'tailnet' as const };
      const { name, cluster, apiEndpoint, state, lastSeen, version, labels } = member;
      const tried = asked.has(member) ? now : triedAt(member);
      const ofServer = { server, provenance: alone && server !== null ? provenanceOf(server) : provenance };
      const since = firstSeen.get(identityAt({ server, apiEndpoint })) ?? now;
      return { name, cluster, ...ofServer, apiEndpoint, state, lastSeen, version, labels, listed: now, tried, since };
    });
  };
}

/** Returns the servers of each API endpoint, as the last list has them. */
function serversByEndpoint(memory: RememberedList | undefined): Map<string, Resolved[]> {
  const servers = new Map<string, Resolved[]>();
  for (const { apiEndpoint, server, provenance } of memory?.members ?? []) {
    const alike = servers.get(apiEndpoint) ?? [];
    if (server !== null && alike.length < alikeLimit) servers.set(apiEndpoint, [...alike, { server, provenance }]);
  }
  return servers;
}

// A server without names says no more of a member than its endpoint.
function keyOf(member: Pick<Member, 'name' | 'apiEndpoint'>): string {
  return `${member.name ?? ''} ${member.apiEndpoint}`;
}

function identityAt({ server, apiEndpoint }: Pick<Member, 'server' | 'apiEndpoint'>): string {
  return `${server ?? ''} ${apiEndpoint}`;
}
