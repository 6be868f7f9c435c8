import { Unavailable } from '../network/failure.ts';
import type { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';
import type { Provenance } from './clusters.ts';
import { entryTimeout, type FindOptions } from './find-options.ts';
import { isAnswer, type ListedMember, type Listing } from './listing.ts';
import type { RememberedList } from './memory.ts';
import { describeServers } from './own-description.ts';
import { peerAt } from './peers.ts';
import { askInTurn, hedgeAfter, type MemberListing, type TurnOutcome } from './turns.ts';

/** A list may name thousands of servers, which are asked at once. */
const mostAsked = 64;

/** What is wrong with a list that a server gave; undefined where it gave none. */
export function refusedList(error: TkaError | undefined): string | undefined {
  return error instanceof Unavailable && error.answered ? error.message : undefined;
}

/** A list to go by, and on whose word the servers in it are what they are said to be. */
export interface GoodListing extends Listing {
  readonly members: readonly ListedMember[];
  /** On whose word we asked a server. */
  readonly provenanceOf: (server: string) => Provenance;
  /** No server keeps a memberlist: each has told of itself. */
  readonly alone: boolean;
}

export async function currentListing(
  first: string,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<{ listing?: GoodListing; error?: TkaError }> {
  const html = (server: string) => server === first && memory?.html === true;
  const ask = { client: options.client, timeout: entryTimeout, html };
  // A server that we only inferred is among the peers while it carries the tag.
  const remembered = new Map(
    memory?.members.flatMap(({ server, provenance }) =>
      server === null || provenance === 'tailnet' ? [] : [[server, provenance] as const],
    ),
  );
  const provenanceOf = (server: string): Provenance =>
    options.named && server === first ? 'known' : (remembered.get(server) ?? 'tailnet');
  const good = ({ members, ...listing }: Listing): GoodListing | undefined =>
    members && { ...listing, members, provenanceOf, alone: false };
  const isAway = (server: string) => options.away.has(server) !== undefined;
  // A list from a server that is not trusted could move every other cluster.
  const listed = async () => {
    const servers = new Set(options.seeds);
    for (const [server, provenance] of remembered) if (await options.allows(server, provenance)) servers.add(server);
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
  return { listing: { server: first, members, html: false, cut: 0, unread: 0, provenanceOf, alone: true } };
}

/**
 * Returns whether a list may be of the mesh of a server: it has the server, or the cluster that the server's host is named
 * after, or no servers at all, as those of the Go server.
 */
async function mayBeListOf(server: string, { members }: MemberListing, options: FindOptions): Promise<boolean> {
  if (members.every((member) => member.server === null)) return true;
  const host = hostOf(server);
  const { peers } = await options.tagged();
  const node = peerAt(host, peers);
  const hosts = new Set([host, ...(node ? [node.dnsName, ...node.addresses] : [])]);
  const names = new Set([host, host.split('.', 1)[0]]);
  return members.some(
    (member) =>
      (member.server !== null && hosts.has(hostOf(member.server))) ||
      (member.cluster !== null && names.has(member.cluster)),
  );
}

/** Notes who did not answer, so that others are asked first for a while. */
function rememberAway({ listing, failed, silent }: TurnOutcome, { away }: FindOptions): void {
  for (const server of silent) away.note(server, 'silent');
  for (const [server, error] of failed) if (error instanceof Unavailable && error.away) away.note(server, 'failed');
  if (listing !== undefined) away.clear(listing.server);
}
