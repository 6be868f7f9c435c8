import type { Peer } from '../tailscale/localapi.ts';
import type { TkaClient } from '../tka/client.ts';
import type { Provenance } from './clusters.ts';
import { memberId } from './fnv.ts';
import type { ListedMember } from './listing.ts';
import type { TaggedPeers } from './peers.ts';

/** A member's TKA server. */
export interface Resolved {
  readonly server: string;
  readonly provenance: Provenance;
}

export interface ResolveOptions {
  /** The server whose list it is. */
  readonly from: Resolved;
  /** Where members of an API endpoint were placed before. */
  readonly remembered: ReadonlyMap<string, readonly Resolved[]>;
  /** Servers by API endpoint, from the user's kubeconfig. */
  readonly configured: ReadonlyMap<string, string>;
  /** Asked for only when it comes to them. */
  readonly tagged: () => Promise<TaggedPeers>;
  /** The URL of a peer's TKA server. */
  readonly serverOf: (peer: Peer) => string;
  /** Whether the candidates may be asked for a member again. */
  readonly mayAsk: (member: ListedMember) => boolean;
  readonly client: (server: string) => TkaClient;
  /** Milliseconds for each question. */
  readonly timeout: number;
}

const parallel = 32;

const defaultGossipPort = 7946;

// Each port is a hash more for each peer, and members say what they like.
const portLimit = 16;

/**
 * The ladder from members to their TKA servers: what the list states; a tagged peer whose hashed name is the member's
 * ID; where it was before; tagged peers that are asked for their cluster; a tagged peer at the member's address; the
 * kubeconfig. A member that stands on no rung is left out. `asked` tells whose candidates were asked.
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
  // Without tailscaled, what we inferred is still shown; trust.ts keeps anyone from using it.
  const placeByMemory = (holds: (server: string) => boolean) => {
    for (const member of rest()) {
      const before = options.remembered.get(member.apiEndpoint) ?? [];
      const found = before.find(
        ({ server, provenance }) => !taken.has(server) && (provenance !== 'tailnet' || holds(server)),
      );
      if (found === undefined) continue;
      // To be remembered makes no server more trusted: only the user's own context does.
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
  // Peers that are off at the moment may be names of the past.
  placeById(() => true);
  const all = new Set(peers.map(serverOf));
  placeByMemory((server) => all.has(server));
  for (const member of rest()) {
    const server = options.configured.get(member.apiEndpoint);
    if (server !== undefined && !taken.has(server)) place(member, server, 'known');
  }
  return { placed, asked };
}

/** Peers by the IDs that the Go server would give them. */
function hashedNames(peers: readonly Peer[], members: readonly ListedMember[]): Map<string, Peer> {
  if (members.every((member) => member.id === null)) return new Map();
  const ports = [...new Set([defaultGossipPort, ...members.flatMap((member) => member.gossipPort ?? [])])];
  return new Map(
    peers.flatMap((peer) => ports.slice(0, portLimit).map((port) => [memberId(peer.hostName, port), peer] as const)),
  );
}

/** Servers by the API endpoint that they state, 32 asked at a time, in the same order each time; who is silent is left out. */
async function endpointsOf(servers: ReadonlySet<string>, options: ResolveOptions): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const queue = [...servers];
  const worker = async () => {
    for (let server = queue.shift(); server !== undefined; server = queue.shift()) {
      const endpoint = await endpointOf(server, options);
      if (endpoint !== undefined) found.set(endpoint, [...(found.get(endpoint) ?? []), server].sort());
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, queue.length) }, worker));
  return found;
}

async function endpointOf(server: string, options: ResolveOptions): Promise<string | undefined> {
  const client = options.client(server);
  try {
    return (await client.clusterInfo({ timeout: options.timeout })).apiServer;
  } catch {
    return undefined;
  } finally {
    await client.close();
  }
}
