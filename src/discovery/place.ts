import type { Peer } from '../tailscale/localapi.ts';
import type { TkaClient } from '../tka/client.ts';
import type { ListedMember } from './ask.ts';
import { memberId } from './fnv.ts';

/** How a member's TKA server is known. Those that we infer are asked before they are believed. */
export type Placement = 'stated' | 'remembered' | 'configured' | 'inferred' | 'confirmed';

export interface Placed {
  readonly server: string;
  readonly how: Placement;
}

export interface PlaceOptions {
  /** The server whose list it is. */
  readonly from: string;
  /** Servers and API endpoints that were matched before: by us (remembered), or in the kubeconfig. */
  readonly remembered: ReadonlyMap<string, string>;
  readonly configured: ReadonlyMap<string, string>;
  /** Peers with the tag of TKA servers; asked for only when it comes to them. */
  readonly tagged: () => Promise<readonly Peer[]>;
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

/**
 * The ladder from members to their TKA servers: what the list states; what is known from before; the server that was
 * asked; a tagged peer whose hashed name is the member's ID; tagged peers that are asked for their cluster; a tagged
 * peer at the member's address. A member that stands on no rung is left out. `asked` tells whose candidates were asked.
 */
export async function placeMembers(
  members: readonly ListedMember[],
  options: PlaceOptions,
): Promise<{ placed: ReadonlyMap<ListedMember, Placed>; asked: ReadonlySet<ListedMember> }> {
  const placed = new Map<ListedMember, Placed>();
  const place = (member: ListedMember, server: string | undefined, how: Placement) => {
    if (server !== undefined && !placed.has(member)) placed.set(member, { server, how });
  };
  const rest = () => members.filter((member) => !placed.has(member));

  for (const member of members) {
    place(member, member.server ?? undefined, 'stated');
    if (member.isLocal) place(member, options.from, 'stated');
    place(member, options.remembered.get(member.apiEndpoint), 'remembered');
    place(member, options.configured.get(member.apiEndpoint), 'configured');
  }
  if (rest().some(options.mayAsk) && !members.some((member) => member.isLocal)) {
    const own = await endpointOf(options.from, options);
    for (const member of rest()) if (member.apiEndpoint === own) place(member, options.from, 'confirmed');
  }
  if (rest().length === 0) return { placed, asked: new Set() };

  const peers = await options.tagged();
  const ports = new Set([defaultGossipPort, ...members.flatMap((member) => member.gossipPort ?? [])]);
  const byId = new Map(
    peers.flatMap((peer) => [...ports].map((port) => [memberId(peer.hostName, port), peer] as const)),
  );
  for (const member of rest()) {
    const peer = member.id === null ? undefined : byId.get(member.id);
    if (peer !== undefined) place(member, options.serverOf(peer), 'inferred');
  }
  const asked = new Set(rest().filter(options.mayAsk));
  if (asked.size > 0) {
    const taken = new Set([...placed.values()].map(({ server }) => server));
    const candidates = peers
      .filter((peer) => peer.online)
      .map(options.serverOf)
      .filter((server) => !taken.has(server));
    const byEndpoint = await endpointsOf(candidates, options);
    for (const member of rest()) place(member, byEndpoint.get(member.apiEndpoint), 'confirmed');
  }
  for (const member of rest()) {
    const peer = peers.find(({ addresses }) => member.address !== null && addresses.includes(member.address));
    if (peer !== undefined) place(member, options.serverOf(peer), 'inferred');
  }
  return { placed, asked };
}

/** The API endpoints that servers state, 32 at a time; servers that do not answer are left out. */
async function endpointsOf(servers: readonly string[], options: PlaceOptions): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const queue = [...servers];
  const worker = async () => {
    for (let server = queue.shift(); server !== undefined; server = queue.shift()) {
      const endpoint = await endpointOf(server, options);
      // Two that say the same: not the quicker one, but always the same one.
      if (endpoint !== undefined && server < (found.get(endpoint) ?? '\uffff')) found.set(endpoint, server);
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, queue.length) }, worker));
  return found;
}

async function endpointOf(server: string, options: PlaceOptions): Promise<string | undefined> {
  const client = options.client(server);
  try {
    return (await client.clusterInfo({ timeout: options.timeout })).apiServer;
  } catch {
    return undefined;
  } finally {
    await client.close();
  }
}
