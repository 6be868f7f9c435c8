import { Unavailable } from '../network/failure.ts';
import type { Peer } from '../tailscale/localapi.ts';
import type { Member } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';
import {
  type Asked,
  askInTurn,
  askListing,
  hedgeAfter,
  isAnswer,
  type ListedMember,
  type Listing,
  type MemberListing,
} from './ask.ts';
import type { AwayServers } from './away.ts';
import type { Cluster, ClusterState, KnownPair } from './clusters.ts';
import { type GroupOptions, groupServers, type ServerRow } from './grouping.ts';
import type { ListMemory, RememberedList, RememberedMember } from './memory.ts';
import { type Placed, placeMembers, type Tagged, type Word } from './place.ts';

export interface FindOptions {
  /** Servers that may be asked for the list; the first is the one whose list it is. Not empty. */
  readonly entries: readonly string[];
  /** Servers of which any may have been the first before: the newest of their lists is the last one known. */
  readonly lists: readonly string[];
  /** True where a person named the entry server: its refusal is the answer then. */
  readonly named: boolean;
  /** Servers and their API endpoints, from the kubeconfig. */
  readonly known: readonly KnownPair[];
  readonly memory: ListMemory;
  readonly away: Pick<AwayServers, 'has' | 'note' | 'clear'>;
  readonly tagged: () => Promise<Tagged>;
  readonly serverOf: (peer: Peer) => string;
  readonly client: (server: string) => TkaClient;
  /** Whether a server may be used; see trust.ts. */
  readonly allows: (server: string, word: Word) => Promise<boolean>;
  /** Why a server that may not be used is not. */
  readonly whyNot: () => Promise<string>;
  readonly log: (line: string) => void;
  readonly warn: (line: string) => void;
  readonly notice: (line: string) => void;
}

export interface Found {
  readonly clusters: Cluster[];
  /** False: nobody answered, and this is the last list known. */
  readonly current: boolean;
  /**
   * Servers that carry the tag, are online, and whose cluster may be missing: they are not in the list of the server
   * that the user named, or they are in no list and do not answer.
   */
  readonly unlisted?: readonly string[];
}

/** An entry server that does not answer for so long is not waited for, in milliseconds. */
const entryTimeout = 2000;
const keepMissing = 7 * 86_400_000;
/** The same for one server of a cluster that has others: it may be gone for good after a change of scale. */
const keepMissingServer = 86_400_000;
const askAgainAfter = 60_000;
const listLimit = 10_000;
/** A list may name thousands of servers, which are asked at once. */
const mostAsked = 64;
/** For the servers of other meshes, in milliseconds: for an answer of one, and for all of them. */
const otherTimeout = 1000;
const othersBudget = 3000;
const othersAtOnce = 16;
// What one endpoint's members may cost.
const alikeLimit = 16;

/**
 * All clusters there are: the entry server's memberlist, or, where it does not answer, that of another known server,
 * or the last one known; with members that the list no longer names for seven days (`missing`). Each is placed as far
 * as possible. Throws Refused, NotSignedIn or Unavailable where there is no list at all.
 */
export async function findClusters(options: FindOptions): Promise<Found> {
  const [first] = options.entries;
  if (first === undefined) throw new TkaError('there is no TKA server to ask');
  const [memory] = [...new Set([first, ...options.lists])]
    .flatMap((server) => options.memory.read(server) ?? [])
    .sort((a, b) => b.at - a.at);
  const { listing, error } = await currentListing(first, memory, options);
  if (listing !== undefined) return { ...(await merge(first, listing, memory, options)), current: true };
  if (memory === undefined) throw error ?? new TkaError(`${first} gave no list`);
  const why = refusedList(error) ?? (isAnswer(error) ? error.message : 'no TKA server answered');
  options.warn(`${why}: this is the list of ${minuteOf(memory.at)} (${ageOf(memory.at)} ago)`);
  const untrusted = await untrustedOf(memory.members, options);
  return { clusters: rememberedClusters(memory, { known: options.known, untrusted }), current: false };
}

/** What is wrong with a list that a server gave; undefined where it gave none. */
function refusedList(error: TkaError | undefined): string | undefined {
  return error instanceof Unavailable && error.answered ? error.message : undefined;
}

/** The clusters of a list that was kept, without asking anybody. */
export function rememberedClusters(
  list: RememberedList,
  { untrusted, ...options }: GroupOptions & { readonly untrusted?: ReadonlyMap<RememberedMember, string> } = {},
): Cluster[] {
  const [there, gone] = [list.members.filter(isListed), list.members.filter((member) => !isListed(member))];
  const rows = there.map((member) => rowOf(member, 'its TKA server is not known', untrusted));
  return groupServers([...rows, ...missingOf(gone)], options).clusters;

  function isListed(member: RememberedMember): boolean {
    return member.listed >= list.at;
  }
}

function rowOf(
  member: RememberedMember,
  unresolved: string,
  untrusted?: ReadonlyMap<RememberedMember, string>,
): ServerRow {
  const why = untrusted?.get(member);
  const reason = member.server === null ? unresolved : (why ?? null);
  return { ...member, state: stateOf(member, member.server), reason, usable: member.server !== null && !why };
}

/** The members whose server is stated by the list but may not be used, with the reason. */
async function untrustedOf(
  members: readonly RememberedMember[],
  options: FindOptions,
): Promise<Map<RememberedMember, string>> {
  const untrusted = new Map<RememberedMember, string>();
  for (const member of members) {
    const { server, word } = member;
    if (server === null || word !== 'stated' || (await options.allows(server, word))) continue;
    untrusted.set(member, await options.whyNot());
  }
  return untrusted;
}

function missingOf(members: readonly RememberedMember[]): ServerRow[] {
  return members
    .filter((member) => Date.now() - member.listed < keepMissing)
    .map((member) => ({
      ...member,
      state: 'missing',
      reason: `no longer listed, since ${minuteOf(member.listed)}`,
      usable: member.server !== null,
    }));
}

/** Returns a time as `2026-11-21 09:30 UTC`. */
export function minuteOf(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

/** Returns how long ago a time was: `5 min`, `3 h`, `4 days`. */
export function ageOf(time: number): string {
  const minutes = Math.max(0, Math.round((Date.now() - time) / 60_000));
  return minutes < 120
    ? `${minutes} min`
    : minutes < 2880
      ? `${Math.round(minutes / 60)} h`
      : `${Math.round(minutes / 1440)} days`;
}

/** A list to go by, and on whose word the servers in it are what they are said to be. */
interface GoodListing extends Listing {
  readonly members: readonly ListedMember[];
  /** On whose word we asked a server. */
  readonly wordOf: (server: string) => Word;
  /** No server keeps a memberlist: each has told of itself. */
  readonly alone: boolean;
}

async function currentListing(
  first: string,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<{ listing?: GoodListing; error?: TkaError }> {
  const html = (server: string) => server === first && memory?.html === true;
  const ask = { client: options.client, timeout: entryTimeout, html };
  // A server that we only inferred is among the peers while it carries the tag.
  const remembered = new Map(
    memory?.members.flatMap(({ server, word }) =>
      server === null || word === 'tailnet' ? [] : [[server, word] as const],
    ),
  );
  const wordOf = (server: string): Word =>
    options.named && server === first ? 'known' : (remembered.get(server) ?? 'tailnet');
  const good = ({ members, ...listing }: Listing): GoodListing | undefined =>
    members && { ...listing, members, wordOf, alone: false };
  const isAway = (server: string) => options.away.has(server) !== undefined;
  // A list from a server that is not trusted could move every other cluster.
  const listed = async () => {
    const servers = new Set(options.entries);
    for (const [server, word] of remembered) if (await options.allows(server, word)) servers.add(server);
    servers.delete(first);
    return [...servers].sort((a, b) => Number(isAway(a)) - Number(isAway(b))).slice(0, mostAsked);
  };
  const online = async () => (await options.tagged()).peers.filter((peer) => peer.online).map(options.serverOf);
  const wasAway = options.away.has(first);
  const asked = await askInTurn(
    [
      { servers: async () => (wasAway === undefined ? [first] : []), headStart: hedgeAfter },
      { servers: async () => (await listed()).slice(0, 1), headStart: hedgeAfter },
      { servers: async () => [...(await listed()), ...(options.named ? [] : await online()), first] },
      // They may be of other meshes than the server that the user named.
      { servers: async () => (await online()).slice(0, mostAsked) },
    ],
    {
      ...ask,
      isFinal: (server, failure) => options.named && server === first && isAnswer(failure),
      isWanted: async (list) =>
        !options.named ||
        list.server === first ||
        remembered.has(list.server) ||
        (await mayBeListOf(first, list, options)),
    },
  );
  rememberAway(asked, options);
  const error = asked.failed.get(first);
  const listing = asked.listing && good(asked.listing);
  if (listing !== undefined) {
    if (listing.server === first) return { listing };
    const why = asked.without.includes(first)
      ? 'keeps no memberlist'
      : isAnswer(error)
        ? 'gives us no list'
        : 'did not answer';
    const line = `${refusedList(error) ?? `${first} ${why}`}: this is the list of ${listing.server}`;
    // One that was only slower than another is not worth a word.
    if (why === 'did not answer' && error === undefined && wasAway !== 'failed') options.log(line);
    else options.notice(line);
    return { listing };
  }
  const { peers } = await options.tagged();
  const { without } = asked;
  for (const server of await online()) {
    const failure = asked.failed.get(server);
    if (failure !== undefined && without.length > 0) options.warn(failure.message);
  }
  const members = await describeServers(without, peers, options);
  if (members.length === 0) {
    const told = [error, ...asked.failed.values()].find(refusedList) ?? error;
    return told === undefined ? {} : { error: told };
  }
  options.notice('no server keeps a memberlist (gossip is off): these are the servers that answer');
  return { listing: { server: first, members, html: false, cut: 0, unread: 0, wordOf, alone: true } };
}

/**
 * Returns whether a list may be of the mesh of a server: it has the server, or the cluster that the server's host is named
 * after, or no servers at all, as those of the Go server.
 */
async function mayBeListOf(server: string, { members }: MemberListing, options: FindOptions): Promise<boolean> {
  if (members.every((member) => member.server === null)) return true;
  const host = hostOf(server);
  const { peers } = await options.tagged();
  const node = peers.find(({ dnsName, addresses }) => dnsName === host || addresses.includes(host));
  const hosts = new Set([host, ...(node ? [node.dnsName, ...node.addresses] : [])]);
  const names = new Set([host, host.split('.', 1)[0]]);
  return members.some(
    (member) =>
      (member.server !== null && hosts.has(hostOf(member.server))) ||
      (member.cluster !== null && names.has(member.cluster)),
  );
}

/** Notes who did not answer, so that others are asked first for a while. */
function rememberAway({ listing, failed, silent }: Asked, { away }: FindOptions): void {
  for (const server of silent) away.note(server, 'silent');
  for (const [server, error] of failed) if (error instanceof Unavailable && error.away) away.note(server, 'failed');
  if (listing !== undefined) away.clear(listing.server);
}

/** Servers without a memberlist as members, each as its own /cluster-info describes it. */
async function describeServers(
  servers: readonly string[],
  peers: readonly Peer[],
  options: FindOptions,
): Promise<ListedMember[]> {
  const names = new Map(peers.map((peer) => [options.serverOf(peer), peer.hostName]));
  const describe = async (server: string): Promise<ListedMember[]> => {
    const client = options.client(server);
    try {
      const { apiServer, labels, cluster } = await client.clusterInfo({ timeout: entryTimeout });
      const about = { name: names.get(server) ?? null, server, cluster, apiEndpoint: apiServer, labels };
      const unknown = { id: null, address: null, gossipPort: null, state: null, lastSeen: null, version: null };
      return [{ ...about, ...unknown, isLocal: false }];
    } catch (error) {
      options.warn(`${error instanceof TkaError ? error.message : error}`);
      return [];
    } finally {
      await client.close();
    }
  };
  return (await Promise.all(servers.map(describe))).flat();
}

async function merge(
  first: string,
  listing: GoodListing,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<Omit<Found, 'current'>> {
  const now = Date.now();
  const placing = placingFor(memory, options, now);
  const own = await placing(listing);
  const others = await otherLists(own, listing, placing, options);
  const listed = [...own, ...others.listed].slice(0, listLimit);
  const there = new Set(listed.map((member) => member.apiEndpoint));
  // A server that is listed with another endpoint is the same cluster, rebuilt.
  const present = new Set(listed.map(({ server }) => server).filter((server) => server !== null));
  const names = new Set(listed.map(({ name }) => name));
  const isMissing = ({ name, server, apiEndpoint, listed: at }: RememberedMember) => {
    if (server !== null && present.has(server)) return false;
    if (!there.has(apiEndpoint)) return now - at < keepMissing;
    // Without a name, it may be there and only be placed elsewhere.
    return server !== null && name !== null && !names.has(name) && now - at < keepMissingServer;
  };
  const missing = (memory?.members ?? []).filter(isMissing);
  const kept = [...listed, ...missing].slice(0, listLimit);
  const rows = sayingSomething(listed);
  const reason = rows.some(({ server }) => server === null) ? await unresolvedReason(options) : '';
  const untrusted = await untrustedOf(rows, options);
  const all = [...rows.map((member) => rowOf(member, reason, untrusted)), ...missingOf(missing)];
  const nameOf = await namesByAddress(rows, options);
  const { clusters, warnings } = groupServers(all, { known: options.known, nameOf });
  for (const warning of warnings) options.warn(warning);
  try {
    options.memory.write(first, { at: now, html: listing.html, members: kept }, clusters);
  } catch (error) {
    options.log(`the list cannot be kept: ${error}`);
  }
  return { clusters, unlisted: others.unlisted };
}

type Placing = (listing: GoodListing) => Promise<RememberedMember[]>;

/** Places the members of lists, with what the last list knows of them. */
function placingFor(memory: RememberedList | undefined, options: FindOptions, now: number): Placing {
  const before = new Map(memory?.members.map((member) => [keyOf(member), member]));
  const triedAt = (member: Member) => before.get(keyOf(member))?.tried ?? 0;
  const firstSeen = new Map(memory?.members.map((member) => [placeOf(member), member.since]));
  const remembered = placesOf(memory);
  const configured = new Map(
    options.known.flatMap(({ apiServer, server }) => (apiServer ? [[apiServer, server] as const] : [])),
  );
  return async ({ members, server: from, wordOf, alone, cut, unread }) => {
    if (cut > 0) options.warn(`${from} lists ${members.length + cut} members: the first ${members.length} are shown`);
    if (unread > 0) options.warn(`${from} lists ${unread} members without a usable API endpoint: they are left out`);
    const { placed, asked } = await placeMembers(members, {
      from: { server: from, word: wordOf(from) },
      remembered,
      configured,
      tagged: options.tagged,
      serverOf: options.serverOf,
      mayAsk: (member) => now - triedAt(member) > askAgainAfter,
      client: options.client,
      timeout: entryTimeout,
    });
    return members.map((member): RememberedMember => {
      const { server, word } = placed.get(member) ?? { server: null, word: 'tailnet' as const };
      const { name, cluster, apiEndpoint, state, lastSeen, version, labels } = member;
      const tried = asked.has(member) ? now : triedAt(member);
      const ofServer = { server, word: alone && server !== null ? wordOf(server) : word };
      const since = firstSeen.get(placeOf({ server, apiEndpoint })) ?? now;
      return { name, cluster, ...ofServer, apiEndpoint, state, lastSeen, version, labels, listed: now, tried, since };
    });
  };
}

/**
 * What the other meshes of the tailnet list: tagged peers that are online and in no list so far are asked, several at
 * once, until each is in one. One that keeps no list, or is not in its own, is asked for its cluster; one that was away a
 * moment ago is not asked. Nobody is asked where the user has named the server whose list counts.
 */
async function otherLists(
  own: readonly RememberedMember[],
  { wordOf, alone }: GoodListing,
  placing: Placing,
  options: FindOptions,
): Promise<{ listed: RememberedMember[]; unlisted: string[] }> {
  const { peers } = await options.tagged();
  const hosts = new Set<string>();
  const listed: RememberedMember[] = [];
  const cover = (members: readonly RememberedMember[]) => {
    for (const { server } of members) if (server !== null) hosts.add(hostOf(server));
  };
  const isIn = ({ dnsName, addresses }: Peer) => hosts.has(dnsName) || addresses.some((each) => hosts.has(each));
  cover(own);
  const rest = peers.filter((peer) => peer.online && !isIn(peer));
  if (options.named || alone) return { listed, unlisted: rest.map(options.serverOf) };
  const known = new Set(own.map(identityOf));
  const add = (members: readonly RememberedMember[]) => {
    cover(members);
    listed.push(...members.filter((member) => !known.has(identityOf(member)) && known.add(identityOf(member))));
  };
  const ask = { client: options.client, timeout: otherTimeout, html: () => false };
  const one = async (peer: Peer) => {
    const server = options.serverOf(peer);
    const { members, ...listing } = await askListing(server, ask);
    if (members !== undefined) add(await placing({ ...listing, members, wordOf, alone: false }));
    if (isIn(peer)) return;
    const itself = await describeServers([server], peers, { ...options, warn: options.log });
    add(await placing({ ...listing, members: itself, wordOf, alone: true }));
  };
  const deadline = performance.now() + othersBudget;
  const queue = rest.values();
  const worker = async () => {
    for (const peer of queue) {
      if (isIn(peer)) continue;
      if (performance.now() > deadline) return;
      const server = options.serverOf(peer);
      if (options.away.has(server) !== undefined) continue;
      await one(peer).catch((error: unknown) => {
        if (!(error instanceof TkaError)) throw error;
        options.log(`${server} is in no list: ${error.message}`);
        if (error instanceof Unavailable && error.away) options.away.note(server, 'failed');
      });
    }
  };
  await Promise.all(Array.from({ length: Math.min(othersAtOnce, rest.length) }, worker));
  return { listed, unlisted: rest.filter((peer) => !isIn(peer)).map(options.serverOf) };
}

function identityOf({ server, name, apiEndpoint }: Member): string {
  return server ?? `${name ?? ''} ${apiEndpoint}`;
}

/** What the tailnet calls servers that have no name of their own and an address for a host. */
async function namesByAddress(
  rows: readonly RememberedMember[],
  options: FindOptions,
): Promise<(server: string) => string | undefined> {
  if (rows.every(({ name, server }) => name !== null || server === null)) return () => undefined;
  const { peers } = await options.tagged();
  const names = new Map(peers.flatMap(({ hostName, addresses }) => addresses.map((address) => [address, hostName])));
  return (server) => names.get(hostOf(server));
}

/** Where the members of each API endpoint were, as the last list has it. */
function placesOf(memory: RememberedList | undefined): Map<string, Placed[]> {
  const places = new Map<string, Placed[]>();
  for (const { apiEndpoint, server, word } of memory?.members ?? []) {
    const alike = places.get(apiEndpoint) ?? [];
    if (server !== null && alike.length < alikeLimit) places.set(apiEndpoint, [...alike, { server, word }]);
  }
  return places;
}

// A nameless member without a server, beside another of the same endpoint that has one, is nobody that could be used:
// any member may claim to be of any cluster.
function sayingSomething(members: readonly RememberedMember[]): RememberedMember[] {
  const placed = new Set(members.flatMap(({ server, apiEndpoint }) => (server === null ? [] : [apiEndpoint])));
  return members.filter(
    ({ name, server, apiEndpoint }) => name !== null || server !== null || !placed.has(apiEndpoint),
  );
}

async function unresolvedReason(options: FindOptions): Promise<string> {
  const { problem } = await options.tagged();
  if (problem === undefined) return 'no server with the right tag says that it is this cluster’s';
  return `where its TKA server is cannot be found out: ${problem}`;
}

// A server without names says no more of a member than its endpoint.
function keyOf(member: Pick<Member, 'name' | 'apiEndpoint'>): string {
  return `${member.name ?? ''} ${member.apiEndpoint}`;
}

function placeOf({ server, apiEndpoint }: Pick<Member, 'server' | 'apiEndpoint'>): string {
  return `${server ?? ''} ${apiEndpoint}`;
}

function stateOf(member: Member, server: string | null): ClusterState {
  if (member.state === 'dead' || member.state === 'suspected') return member.state;
  if (server === null) return 'unresolved';
  return member.state ?? 'unknown';
}
