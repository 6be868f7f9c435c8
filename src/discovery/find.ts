import { TkaError } from '../errors.ts';
import type { Peer } from '../tailscale/localapi.ts';
import type { Member } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import { type Asked, askFirst, askListing, isAnswer, type ListedMember, type Listing } from './ask.ts';
import type { Cluster, ClusterState, KnownPair } from './clusters.ts';
import type { ListMemory, RememberedList, RememberedMember } from './memory.ts';
import { placeMembers } from './place.ts';

export interface FindOptions {
  /** Servers that may be asked for the list; the first is the one whose list it is. Not empty. */
  readonly entries: readonly string[];
  /** True where a person named the entry server: its refusal is the answer then. */
  readonly named: boolean;
  /** Servers and their API endpoints, from the kubeconfig. */
  readonly known: readonly KnownPair[];
  readonly memory: ListMemory;
  readonly tagged: () => Promise<readonly Peer[]>;
  readonly serverOf: (peer: Peer) => string;
  readonly client: (server: string) => TkaClient;
  readonly log: (line: string) => void;
  readonly warn: (line: string) => void;
  readonly notice: (line: string) => void;
}

export interface Found {
  readonly clusters: Cluster[];
  /** False: nobody answered, and this is the last list known. */
  readonly current: boolean;
}

/** An entry server that does not answer for so long is not waited for, in milliseconds. */
const entryTimeout = 2000;
const keepMissing = 7 * 86_400_000;
const askAgainAfter = 60_000;
const listLimit = 10_000;

/**
 * All clusters there are: the entry server's memberlist, or, where it does not answer, that of another known server,
 * or the last one known; with members that the list no longer names for seven days (`missing`). Each is placed as far
 * as possible. Throws Refused, NotSignedIn or Unavailable where there is no list at all.
 */
export async function findClusters(options: FindOptions): Promise<Found> {
  const [first] = options.entries;
  if (first === undefined) throw new TkaError('there is no TKA server to ask');
  const memory = options.memory.read(first);
  const { listing, error, alone } = await currentListing(first, memory, options);
  if (alone !== undefined) return { clusters: alone, current: true };
  if (listing?.members === undefined) {
    if (memory === undefined) throw error ?? new TkaError(`${first} gave no list`);
    options.warn(
      `no TKA server answered: this is the list of ${new Date(memory.at).toISOString().slice(0, 16).replace('T', ' ')} UTC (${ageOf(memory.at)} ago)`,
    );
    return { clusters: rememberedClusters(memory), current: false };
  }
  if (listing.server !== first) options.notice(`${first} did not answer: this is the list of ${listing.server}`);
  return { clusters: await merge(first, { ...listing, members: listing.members }, memory, options), current: true };
}

/** The clusters of a list that was kept, without asking anybody. */
export function rememberedClusters(list: RememberedList): Cluster[] {
  return clustersOf(
    list.members.map((member) => ({
      member,
      server: member.server,
      state: stateOf(member, member.server),
      reason: null,
    })),
  );
}

function ageOf(time: number): string {
  const minutes = Math.max(0, Math.round((Date.now() - time) / 60_000));
  return minutes < 120
    ? `${minutes} min`
    : minutes < 2880
      ? `${Math.round(minutes / 60)} h`
      : `${Math.round(minutes / 1440)} days`;
}

interface Current {
  readonly listing?: Listing;
  readonly error?: TkaError;
  /** No server keeps a memberlist: the servers themselves are the clusters. */
  readonly alone?: Cluster[];
}

async function currentListing(
  first: string,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<Current> {
  const html = (server: string) => server === first && memory?.html === true;
  const ask = { client: options.client, timeout: entryTimeout, html };
  let error: TkaError | undefined;
  try {
    const listing = await askListing(first, ask);
    if (listing.members !== undefined) return { listing };
  } catch (cause) {
    if (!(cause instanceof TkaError)) throw cause;
    if (options.named && isAnswer(cause)) throw cause;
    error = cause;
  }
  const remembered = memory?.members.flatMap((member) => member.server ?? []) ?? [];
  const others = new Set([...options.entries, ...remembered]);
  const peers = await options.tagged();
  for (const peer of peers) if (peer.online) others.add(options.serverOf(peer));
  others.delete(first);
  const asked: Asked =
    others.size === 0
      ? { listing: undefined, without: [], failed: new Map() }
      : await askFirst([...others].slice(0, 64), ask);
  if (asked.listing !== undefined) return { listing: asked.listing };
  const without = [...(error === undefined ? [first] : []), ...asked.without];
  if (without.length === 0) return error === undefined ? {} : { error };
  options.notice(`no server keeps a memberlist (gossip is off): these are the servers that answer`);
  return { alone: await serversAsClusters(without, peers, options) };
}

/** One cluster for each server without a memberlist, as its own /cluster-info describes it. */
async function serversAsClusters(
  servers: readonly string[],
  peers: readonly Peer[],
  options: FindOptions,
): Promise<Cluster[]> {
  const names = new Map(peers.map((peer) => [options.serverOf(peer), peer.hostName]));
  const describe = async (server: string) => {
    const client = options.client(server);
    try {
      const { apiServer, labels } = await client.clusterInfo({ timeout: entryTimeout });
      const member: Member = {
        name: names.get(server) ?? null,
        server,
        apiEndpoint: apiServer,
        state: null,
        lastSeen: null,
        version: null,
        labels,
      };
      return [{ member, server, state: 'unknown' as const, reason: null }];
    } catch (error) {
      options.warn(`${error instanceof TkaError ? error.message : error}`);
      return [];
    } finally {
      await client.close();
    }
  };
  return clustersOf((await Promise.all(servers.map(describe))).flat());
}

async function merge(
  first: string,
  listing: Listing & { members: readonly ListedMember[] },
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<Cluster[]> {
  const { members, server: from } = listing;
  if (listing.cut > 0)
    options.warn(`${from} lists ${members.length + listing.cut} members: the first ${members.length} are shown`);
  if (listing.unread > 0)
    options.warn(`${from} lists ${listing.unread} members without a usable API endpoint: they are left out`);
  const now = Date.now();
  const before = new Map(memory?.members.map((member) => [keyOf(member), member]));
  const servers = (pairs: readonly (readonly [string, string | null | undefined])[]) =>
    new Map(pairs.flatMap(([endpoint, server]) => (server ? [[endpoint, server] as const] : [])));
  const { placed, asked } = await placeMembers(members, {
    from,
    remembered: servers(memory?.members.map((m) => [m.apiEndpoint, m.server]) ?? []),
    configured: servers(options.known.map((pair) => [pair.apiServer ?? '', pair.server])),
    tagged: options.tagged,
    serverOf: options.serverOf,
    mayAsk: (member) => now - (before.get(keyOf(member))?.tried ?? 0) > askAgainAfter,
    client: options.client,
    timeout: entryTimeout,
  });
  const listed = members.map((member): RememberedMember => {
    const server = placed.get(member)?.server ?? null;
    const { name, apiEndpoint, state, lastSeen, version, labels } = member;
    const tried = server !== null ? 0 : asked.has(member) ? now : (before.get(keyOf(member))?.tried ?? 0);
    return { name, server, apiEndpoint, state, lastSeen, version, labels, listed: now, tried };
  });
  const there = new Set(listed.map((member) => member.apiEndpoint));
  // A server that is listed with another endpoint is the same cluster, rebuilt.
  const present = new Set(listed.map(({ server }) => server).filter((server) => server !== null));
  const missing = [...before.values()].filter(
    (m) => !there.has(m.apiEndpoint) && !present.has(m.server ?? '') && now - m.listed < keepMissing,
  );
  const kept = [...listed, ...missing].slice(0, listLimit);
  try {
    options.memory.write(first, { at: now, html: listing.html, members: kept });
  } catch (error) {
    options.log(`the list cannot be kept: ${error}`);
  }
  const reason = 'no server with the right tag says that it is this cluster’s';
  return clustersOf([
    ...listed.map((member) => ({
      member,
      server: member.server,
      state: stateOf(member, member.server),
      reason: member.server === null ? reason : null,
    })),
    ...missing.map((member) => ({
      member,
      server: member.server,
      state: 'missing' as const,
      reason: `no longer listed, since ${new Date(member.listed).toISOString().slice(0, 16).replace('T', ' ')} UTC`,
    })),
  ]);
}

// A server without names says no more of a member than its endpoint.
function keyOf(member: Pick<Member, 'name' | 'apiEndpoint'>): string {
  return `${member.name ?? ''} ${member.apiEndpoint}`;
}

function stateOf(member: Member, server: string | null): ClusterState {
  if (member.state === 'dead' || member.state === 'suspected') return member.state;
  if (server === null) return 'unresolved';
  return member.state ?? 'unknown';
}

interface Row {
  readonly member: Member;
  readonly server: string | null;
  readonly state: ClusterState;
  readonly reason: string | null;
}

const last: readonly ClusterState[] = ['suspected', 'dead', 'missing'];

/** Rows as clusters: named, in an order that is the same on every machine, what is not there last. */
function clustersOf(rows: readonly Row[]): Cluster[] {
  const hosts = new Map<string, number>();
  for (const { member } of rows) {
    const { hostname } = new URL(member.apiEndpoint);
    if (member.name === null) hosts.set(hostname, (hosts.get(hostname) ?? 0) + 1);
  }
  const clusters = rows.map(({ member, server, state, reason }): Cluster => {
    const { hostname, host } = new URL(member.apiEndpoint);
    const plain = ((hosts.get(hostname) ?? 0) > 1 ? host : hostname).replace(/[[\]]/g, '');
    const { apiEndpoint, lastSeen, version, labels } = member;
    return { name: member.name ?? plain, server, apiEndpoint, state, reason, lastSeen, version, labels };
  });
  const rank = (cluster: Cluster) => last.indexOf(cluster.state);
  return clusters.sort((a, b) => rank(a) - rank(b) || compare(a.name, b.name) || compare(a.apiEndpoint, b.apiEndpoint));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
