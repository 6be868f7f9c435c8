import { Unavailable } from '../network/failure.ts';
import type { Peer } from '../tailscale/localapi.ts';
import type { Member } from '../tka/memberlist.ts';
import { TkaError } from '../util/errors.ts';
import { localTime } from '../util/time.ts';
import { hostOf, joinedNameOf } from '../util/url.ts';
import type { Cluster } from './clusters.ts';
import { currentListing, type GoodListing, refusedList } from './current-list.ts';
import { groupServers } from './grouping.ts';
import { isJoined } from './joined.ts';
import { askListing, describeServers, type FindOptions, isAnswer } from './listing.ts';
import type { RememberedList, RememberedMember } from './memory.ts';
import { keepMissing, missingOf, rememberedClusters, rowOf, untrustedOf } from './remembered.ts';
import { type MemberResolver, memberResolver } from './resolution.ts';

export interface ClusterList {
  readonly clusters: Cluster[];
  /** False if no server answered, so that this is the last known list. */
  readonly current: boolean;
  /** When that last known list was current, in milliseconds since the epoch; undefined if there is none. */
  readonly at?: number | undefined;
  /**
   * Online servers with the tag whose cluster may be missing here: they are not in the list of the server that the user
   * named, or they are in no list and do not answer.
   */
  readonly unlisted?: readonly string[];
}

/**
 * How long to show a server that is no longer listed if its cluster has other servers, in milliseconds. The time is
 * short, because the server may be gone for good after scaling down.
 */
const keepMissingServer = 86_400_000;

const listLimit = 10_000;

/**
 * Returns all clusters from the seed's memberlist, and finds the TKA server of each. If the seed does not answer, uses
 * the list of another known server, or else the last known list. Members that are no longer listed stay for seven days
 * as `missing`. Throws Refused, NotSignedIn or Unavailable if there is no list at all.
 */
export async function findClusters(options: FindOptions): Promise<ClusterList> {
  const [first] = options.seeds;
  if (first === undefined) throw new TkaError('no TKA server to ask');
  const [memory] = [...new Set([first, ...options.lists])]
    .flatMap((server) => options.memory.read(server) ?? [])
    .sort((a, b) => b.at - a.at);
  const { listing, error } = await currentListing(first, memory, options);
  if (listing !== undefined) return { ...(await merge(first, listing, memory, options)), current: true };
  if (memory === undefined) throw error ?? new TkaError(`${first} returned no list`);
  const why = refusedList(error) ?? (isAnswer(error) ? error.message : 'no TKA server answered');
  options.warn(`${why}; showing the list from ${localTime(memory.at)}`);
  const untrusted = await untrustedOf(memory.members, options);
  const { at } = memory;
  return { clusters: rememberedClusters(memory, { known: options.known, untrusted }), current: false, at };
}

/**
 * Makes clusters from a list, the lists of other meshes and the last known list. Stores the result as the last list.
 */
async function merge(
  seed: string,
  listing: GoodListing,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<Omit<ClusterList, 'current'>> {
  const now = Date.now();
  const resolve = memberResolver(memory, options, now);
  const own = await resolve(listing);
  const others = await otherLists(own, listing, resolve, options);
  const listed = [...own, ...others.listed].slice(0, listLimit);
  const missing = missingFrom(listed, memory?.members ?? [], now);
  const { clusters, warnings } = await groupMembers(listed, missing, options);
  for (const warning of warnings) options.warn(warning);
  try {
    const members = [...listed, ...missing].slice(0, listLimit);
    options.memory.write(seed, { at: now, html: listing.html, members }, clusters);
  } catch (error) {
    options.log(`the list cannot be kept: ${error}`);
  }
  return { clusters, unlisted: others.unlisted };
}

async function groupMembers(
  listed: readonly RememberedMember[],
  missing: readonly RememberedMember[],
  options: FindOptions,
): Promise<ReturnType<typeof groupServers>> {
  const members = sayingSomething(listed);
  const reason = members.some(({ server }) => server === null) ? await unresolvedReason(options) : '';
  const untrusted = await untrustedOf(members, options);
  const rows = [...members.map((member) => rowOf(member, reason, untrusted)), ...missingOf(missing)];
  return groupServers(rows, { known: options.known, nameOf: await namesByAddress(members, options) });
}

/** Returns the members of the last list that this one does not contain and that are still to be shown. */
function missingFrom(
  listed: readonly RememberedMember[],
  last: readonly RememberedMember[],
  now: number,
): RememberedMember[] {
  // Several joined clusters can state one endpoint.
  const wayTo = ({ server, apiEndpoint }: RememberedMember) => `${joinedNameOf(server ?? '') ?? ''} ${apiEndpoint}`;
  const endpoints = new Set(listed.map(wayTo));
  // A server that is listed with another endpoint is the same cluster, rebuilt.
  const servers = new Set(listed.flatMap(({ server }) => server ?? []));
  const names = new Set(listed.map(({ name }) => name));
  return last.filter((member) => {
    const { name, server, listed: at } = member;
    if (server !== null && servers.has(server)) return false;
    if (!endpoints.has(wayTo(member))) return now - at < keepMissing;
    // A member without a name may be listed with another server now.
    return server !== null && name !== null && !names.has(name) && now - at < keepMissingServer;
  });
}

/** Returns a function that finds the tailnet's host name of a server whose URL has an IP address. */
async function namesByAddress(
  rows: readonly RememberedMember[],
  options: FindOptions,
): Promise<(server: string) => string | undefined> {
  if (rows.every(({ name, server }) => name !== null || server === null)) return () => undefined;
  const { peers } = await options.tagged();
  const names = new Map(peers.flatMap(({ hostName, addresses }) => addresses.map((address) => [address, hostName])));
  return (server) => names.get(hostOf(server));
}

/**
 * Leaves out members without a name and a server if another member with the same endpoint has a server. They cannot be
 * used, and any member can claim to belong to any cluster.
 */
function sayingSomething(members: readonly RememberedMember[]): RememberedMember[] {
  const resolved = new Set(members.flatMap(({ server, apiEndpoint }) => (server === null ? [] : [apiEndpoint])));
  return members.filter(
    ({ name, server, apiEndpoint }) => name !== null || server !== null || !resolved.has(apiEndpoint),
  );
}

async function unresolvedReason(options: FindOptions): Promise<string> {
  const { problem } = await options.tagged();
  if (problem === undefined) return 'no tagged server confirms that it belongs to this cluster';
  return `cannot find its TKA server: ${problem}`;
}

/** Timeout for one server of another mesh, in milliseconds. */
const otherTimeout = 1000;

/** Time limit for all servers of other meshes, in milliseconds. */
const othersBudget = 3000;

const othersAtOnce = 16;

/**
 * Returns the members that other meshes of the tailnet list. Asks tagged peers that are online and in no list so far,
 * several at once, until each is in a list. If a peer has no list, or is not in its own, asks it for its cluster. Skips
 * peers that were away a moment ago. Asks no peer if the user named the server whose list counts.
 */
export async function otherLists(
  own: readonly RememberedMember[],
  { provenanceOf, alone }: GoodListing,
  resolve: MemberResolver,
  options: FindOptions,
): Promise<{ listed: RememberedMember[]; unlisted: string[] }> {
  const { peers } = await options.tagged();
  const hosts = new Set<string>();
  const listed: RememberedMember[] = [];
  const cover = (members: readonly RememberedMember[]) => {
    for (const { server } of members) if (server !== null && !isJoined({ server })) hosts.add(hostOf(server));
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
    if (members !== undefined) add(await resolve({ ...listing, members, provenanceOf, alone: false }));
    if (isIn(peer)) return;
    const itself = await describeServers([server], peers, { ...options, warn: options.log });
    add(await resolve({ ...listing, members: itself, provenanceOf, alone: true }));
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
