import type { Peer } from '../tailscale/localapi.ts';
import { describeCluster } from '../tka/client.ts';
import type { Member } from '../tka/memberlist.ts';
import type { Provenance } from './clusters.ts';
import type { GoodListing } from './current-list.ts';
import { isJoined } from './joined.ts';
import { type FindOptions, type ListedMember, seedTimeout } from './listing.ts';
import type { RememberedList, RememberedMember } from './memory.ts';

export interface Resolved {
  readonly server: string;
  readonly provenance: Provenance;
}

export interface ResolveOptions extends Pick<FindOptions, 'tagged' | 'serverOf' | 'client'> {
  /** The server that returned the list. */
  readonly from: Resolved;
  /** Servers found earlier, by API endpoint. */
  readonly remembered: ReadonlyMap<string, readonly Resolved[]>;
  /** Servers by API endpoint, from the user's kubeconfig. */
  readonly configured: ReadonlyMap<string, string>;
  /** Returns true if the tailnet's peers may be asked for a member again. */
  readonly mayAsk: (member: ListedMember) => boolean;
}

const parallel = 32;

const defaultGossipPort = 7946;

// The list is untrusted, and each port costs one more hash per peer. So limit the ports.
const portLimit = 16;

/**
 * Finds the TKA servers of members. Tries in this order: the server in the list; a tagged peer whose hashed name is the
 * member's ID; the server found earlier; tagged peers that are asked for their cluster; a tagged peer at the member's
 * address; the kubeconfig. `placed` has only the members with a server. `asked` has the members for which peers were
 * asked.
 */
export async function resolveServers(
  members: readonly ListedMember[],
  options: ResolveOptions,
): Promise<{ placed: ReadonlyMap<ListedMember, Resolved>; asked: ReadonlySet<ListedMember> }> {
  const { from, serverOf } = options;
  const placed = new Map<ListedMember, Resolved>();
  const taken = new Set<string>();
  const place = (member: ListedMember, server: string | undefined, provenance: Provenance) => {
    if (server === undefined || placed.has(member)) return;
    placed.set(member, { server, provenance });
    taken.add(server);
  };
  const rest = () => members.filter((member) => !placed.has(member));

  for (const member of members) {
    place(member, member.server ?? undefined, 'stated');
    if (member.isLocal) place(member, from.server, from.provenance);
  }
  const asked = new Set<ListedMember>();
  if (rest().length === 0) return { placed, asked };

  const { peers, problem } = await options.tagged();
  const online = new Set(peers.filter((peer) => peer.online).map(serverOf));
  const byId = hashedNames(peers, members);
  const placeById = (isUsable: (server: string) => boolean) => {
    for (const member of rest()) {
      const peer = member.id === null ? undefined : byId.get(member.id);
      if (peer !== undefined && isUsable(serverOf(peer))) place(member, serverOf(peer), 'tailnet');
    }
  };
  // Without tailscaled, inferred servers are still shown, but trust.ts prevents their use.
  const placeByMemory = (holds: (server: string) => boolean) => {
    for (const member of rest()) {
      const before = options.remembered.get(member.apiEndpoint) ?? [];
      const found = before.find(
        ({ server, provenance }) => !taken.has(server) && (provenance !== 'tailnet' || holds(server)),
      );
      if (found === undefined) continue;
      // A remembered server is not more trusted. Only the user's own context makes it `known`.
      const isConfigured =
        found.provenance !== 'tailnet' && options.configured.get(member.apiEndpoint) === found.server;
      place(member, found.server, isConfigured ? 'known' : found.provenance);
    }
  };
  placeById((server) => online.has(server));
  placeByMemory((server) => problem !== undefined || online.has(server));

  if (rest().some(options.mayAsk)) {
    for (const member of rest()) if (options.mayAsk(member)) asked.add(member);
    const isPlaced = members.some((member) => member.isLocal) || taken.has(from.server);
    const candidates = [...(isPlaced ? [] : [from.server]), ...online].filter((server) => !taken.has(server));
    const byEndpoint = await endpointsOf(new Set(candidates), options);
    for (const member of rest()) {
      const server = byEndpoint.get(member.apiEndpoint)?.find((each) => !taken.has(each));
      place(member, server, server === from.server ? from.provenance : 'tailnet');
    }
  }
  const byAddress = new Map(peers.flatMap((peer) => peer.addresses.map((address) => [address, peer] as const)));
  for (const member of rest()) {
    const peer = byAddress.get(member.address ?? '');
    if (peer !== undefined) place(member, serverOf(peer), 'tailnet');
  }
  // Offline peers come last, because they may be old devices.
  placeById(() => true);
  const all = new Set(peers.map(serverOf));
  placeByMemory((server) => all.has(server));
  for (const member of rest()) {
    const server = options.configured.get(member.apiEndpoint);
    if (server !== undefined && !taken.has(server)) place(member, server, 'known');
  }
  return { placed, asked };
}

/** Returns peers by the IDs that the Go server would give them. */
function hashedNames(peers: readonly Peer[], members: readonly ListedMember[]): Map<string, Peer> {
  if (members.every((member) => member.id === null)) return new Map();
  const ports = [...new Set([defaultGossipPort, ...members.flatMap((member) => member.gossipPort ?? [])])];
  return new Map(
    peers.flatMap((peer) => ports.slice(0, portLimit).map((port) => [memberId(peer.hostName, port), peer] as const)),
  );
}

/**
 * Asks servers for their API endpoints, 32 at a time. Returns the servers by endpoint, sorted, without those that do
 * not answer.
 */
async function endpointsOf(servers: ReadonlySet<string>, { client }: ResolveOptions): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const queue = [...servers];
  const worker = async () => {
    for (let server = queue.shift(); server !== undefined; server = queue.shift()) {
      const endpoint = await describeCluster(client(server), seedTimeout).then(
        ({ apiServer }) => apiServer,
        () => undefined,
      );
      if (endpoint !== undefined) found.set(endpoint, [...(found.get(endpoint) ?? []), server].sort());
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, queue.length) }, worker));
  return found;
}

// 128-bit FNV-1 (multiply, then xor), as in Go's hash/fnv. Its prime is 2^88 + 2^8 + 0x3b.
const offset = 0x6c62272e07bb014262b821756295c58dn;

const prime = (1n << 88n) + 0x13bn;

const mask = (1n << 128n) - 1n;

/** Returns the ID that the Go server gives a member: the hash of its host name and gossip port, in base64. */
export function memberId(hostname: string, gossipPort: number): string {
  let hash = offset;
  for (const byte of Buffer.from(`${hostname}:${gossipPort}`)) hash = ((hash * prime) & mask) ^ BigInt(byte);
  return Buffer.from(hash.toString(16).padStart(32, '0'), 'hex').toString('base64');
}

/** How long to wait before asking the tailnet's peers again for a member that none of them serves, in milliseconds. */
const askAgainAfter = 60_000;

/** Limit on the remembered servers per API endpoint. */
const alikeLimit = 16;

export type MemberResolver = (listing: GoodListing) => Promise<RememberedMember[]>;

/** Returns a function that finds the servers of a list's members, with the help of the last list. */
export function memberResolver(memory: RememberedList | undefined, options: FindOptions, now: number): MemberResolver {
  const before = new Map(memory?.members.map((member) => [keyOf(member), member]));
  const triedAt = (member: Member) => before.get(keyOf(member))?.tried ?? 0;
  const firstSeen = new Map(memory?.members.map((member) => [identityAt(member), member.since]));
  const remembered = serversByEndpoint(memory);
  const configured = new Map(
    options.known.flatMap((pair) =>
      pair.apiServer && !isJoined(pair) ? [[pair.apiServer, pair.server] as const] : [],
    ),
  );
  return async ({ members, server: from, provenanceOf, alone, cut, unread }) => {
    if (cut > 0) options.warn(`${from} lists ${members.length + cut} members; showing the first ${members.length}`);
    if (unread > 0)
      options.warn(`${from} lists ${unread} members without a valid API endpoint or server, which are skipped`);
    const { placed, asked } = await resolveServers(members, {
      ...options,
      from: { server: from, provenance: provenanceOf(from) },
      remembered,
      configured,
      mayAsk: (member) => now - triedAt(member) > askAgainAfter,
    });
    return members.map((member): RememberedMember => {
      const { server, provenance } = placed.get(member) ?? { server: null, provenance: 'tailnet' as const };
      const { name, cluster, apiEndpoint, state, lastSeen, version, labels, through, direct } = member;
      const joined = { ...(through !== undefined && { through }), ...(direct !== undefined && { direct }) };
      const tried = asked.has(member) ? now : triedAt(member);
      const ofServer = { server, provenance: alone && server !== null ? provenanceOf(server) : provenance };
      const since = firstSeen.get(identityAt({ server, apiEndpoint })) ?? now;
      const stated = { name, cluster, apiEndpoint, state, lastSeen, version, labels, ...joined };
      return { ...stated, ...ofServer, listed: now, tried, since };
    });
  };
}

/** Returns the servers of each API endpoint in the last list, without the ways through login servers. */
function serversByEndpoint(memory: RememberedList | undefined): Map<string, Resolved[]> {
  const servers = new Map<string, Resolved[]>();
  for (const member of memory?.members ?? []) {
    const { apiEndpoint, server, provenance } = member;
    const alike = servers.get(apiEndpoint) ?? [];
    if (server !== null && !isJoined(member) && alike.length < alikeLimit)
      servers.set(apiEndpoint, [...alike, { server, provenance }]);
  }
  return servers;
}

// Without a name, a member has only its endpoint.
function keyOf(member: Pick<Member, 'name' | 'apiEndpoint'>): string {
  return `${member.name ?? ''} ${member.apiEndpoint}`;
}

function identityAt({ server, apiEndpoint }: Pick<Member, 'server' | 'apiEndpoint'>): string {
  return `${server ?? ''} ${apiEndpoint}`;
}
