import { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';
import { ageOf, minuteOf } from './age.ts';
import type { Cluster } from './clusters.ts';
import { currentListing, type GoodListing, refusedList } from './current-list.ts';
import type { FindOptions } from './find-options.ts';
import { groupServers } from './grouping.ts';
import { isAnswer } from './listing.ts';
import { placingFor } from './member-servers.ts';
import type { RememberedList, RememberedMember } from './memory.ts';
import { otherLists } from './other-meshes.ts';
import { keepMissing, missingOf, rememberedClusters, rowOf, untrustedOf } from './remembered.ts';

export interface ClusterList {
  readonly clusters: Cluster[];
  /** False: nobody answered, and this is the last list known. */
  readonly current: boolean;
  /**
   * Servers that carry the tag, are online, and whose cluster may be missing: they are not in the list of the server
   * that the user named, or they are in no list and do not answer.
   */
  readonly unlisted?: readonly string[];
}

/** The same for one server of a cluster that has others: it may be gone for good after a change of scale. */
const keepMissingServer = 86_400_000;

const listLimit = 10_000;

/**
 * All clusters there are: the seed's memberlist, or, where it does not answer, that of another known server,
 * or the last one known; with members that the list no longer names for seven days (`missing`). Each is placed as far
 * as possible. Throws Refused, NotSignedIn or Unavailable where there is no list at all.
 */
export async function findClusters(options: FindOptions): Promise<ClusterList> {
  const [first] = options.seeds;
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

async function merge(
  first: string,
  listing: GoodListing,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<Omit<ClusterList, 'current'>> {
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
