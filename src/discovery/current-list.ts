import { Unavailable } from '../network/failure.ts';
import type { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';
import type { Provenance } from './clusters.ts';
import {
  askInTurn,
  type Batch,
  describeServers,
  type FindOptions,
  hedgeAfter,
  isAnswer,
  type MemberListing,
  seedTimeout,
  type TurnOutcome,
} from './listing.ts';
import type { RememberedList } from './memory.ts';
import type { Away } from './server-marks.ts';
import { peerAt } from './trust.ts';

/** A list may name thousands of servers, which are asked at once. */
const mostAsked = 64;

/** A list to go by, and where it is known from that the servers in it are what they are said to be. */
export interface GoodListing extends MemberListing {
  /** How a server that was asked is known. */
  readonly provenanceOf: (server: string) => Provenance;
  /** No server keeps a memberlist: each has told of itself. */
  readonly alone: boolean;
}

/** Returns what is wrong with a list that a server gave; undefined if it gave none. */
export function refusedList(error: TkaError | undefined): string | undefined {
  return error instanceof Unavailable && error.answered ? error.message : undefined;
}

/**
 * Finds the list of a seed: it is asked first, and then, while it does not answer, other servers that are trusted. Where
 * no server keeps a list, each describes itself. Without any answer there is no `listing`, but the seed's error. Throws
 * the refusal of a seed that the user named.
 */
export async function currentListing(
  seed: string,
  memory: RememberedList | undefined,
  options: FindOptions,
): Promise<{ listing?: GoodListing; error?: TkaError }> {
  const sources = new ListSources(seed, memory, options);
  const wasAway = options.away.has(seed);
  const outcome = await askInTurn(sources.batches(wasAway !== undefined), {
    client: options.client,
    timeout: seedTimeout,
    html: (server) => server === seed && memory?.html === true,
    isFinal: (server, failure) => options.named && server === seed && isAnswer(failure),
    isWanted: (list) => sources.mayGive(list),
  });
  rememberAway(outcome, options);
  const { provenanceOf } = sources;
  const { listing } = outcome;
  if (listing?.members !== undefined) {
    if (listing.server !== seed) tellWhoseList(listing.server, seed, outcome, wasAway, options);
    return { listing: { ...listing, members: listing.members, provenanceOf, alone: false } };
  }
  const { without, failed } = outcome;
  // One that is online may be missing from what the others say.
  for (const server of without.length > 0 ? await sources.online() : []) {
    const failure = failed.get(server);
    if (failure !== undefined) options.warn(failure.message);
  }
  const members = await describeServers(without, (await options.tagged()).peers, options);
  if (members.length > 0) {
    options.notice('no server has a memberlist (gossip is off); showing the servers that answer');
    return { listing: { server: seed, members, html: false, cut: 0, unread: 0, provenanceOf, alone: true } };
  }
  const ofSeed = failed.get(seed);
  const error = [ofSeed, ...failed.values()].find(refusedList) ?? ofSeed;
  return error === undefined ? {} : { error };
}

/** The servers that may be asked for the list of a seed. */
class ListSources {
  readonly #seed: string;
  readonly #options: FindOptions;
  /** A server that we only inferred is not here: it is among the peers while it carries the tag. */
  readonly #remembered: ReadonlyMap<string, Provenance>;

  constructor(seed: string, memory: RememberedList | undefined, options: FindOptions) {
    this.#seed = seed;
    this.#options = options;
    this.#remembered = new Map(
      memory?.members.flatMap(({ server, provenance }) =>
        server === null || provenance === 'tailnet' ? [] : [[server, provenance] as const],
      ),
    );
  }

  readonly provenanceOf = (server: string): Provenance => {
    const isNamed = this.#options.named && server === this.#seed;
    return isNamed ? 'known' : (this.#remembered.get(server) ?? 'tailnet');
  };

  /** Returns whom to ask, in turn: the seed, another server of its list, all of them, and last all tagged peers. */
  batches(isSeedAway: boolean): Batch[] {
    const { named } = this.#options;
    return [
      { servers: async () => (isSeedAway ? [] : [this.#seed]), headStart: hedgeAfter },
      { servers: async () => (await this.#listed()).slice(0, 1), headStart: hedgeAfter },
      { servers: async () => [...(await this.#listed()), ...(named ? [] : await this.online()), this.#seed] },
      // They may be of other meshes than the server that the user named.
      { servers: async () => (await this.online()).slice(0, mostAsked) },
    ];
  }

  /** Returns the other seeds and the servers of the last list, without those that are not trusted. */
  async #listed(): Promise<string[]> {
    const { seeds, away, allows } = this.#options;
    const servers = new Set(seeds);
    // A list from a server that is not trusted could move every other cluster.
    for (const [server, provenance] of this.#remembered) if (await allows(server, provenance)) servers.add(server);
    servers.delete(this.#seed);
    const isAway = (server: string) => Number(away.has(server) !== undefined);
    return [...servers].sort((a, b) => isAway(a) - isAway(b)).slice(0, mostAsked);
  }

  /** Returns the servers of the tagged peers that are online. */
  async online(): Promise<string[]> {
    const { tagged, serverOf } = this.#options;
    return (await tagged()).peers.filter((peer) => peer.online).map(serverOf);
  }

  /** Returns whether a list may stand in for the seed's. If the user named the seed, it must be of the same mesh. */
  async mayGive(list: MemberListing): Promise<boolean> {
    if (!this.#options.named || list.server === this.#seed || this.#remembered.has(list.server)) return true;
    return mayBeListOf(this.#seed, list, this.#options);
  }
}

/** Says that the list is another server's, and why. A seed that was only slower is worth a debug line at most. */
function tellWhoseList(
  server: string,
  seed: string,
  { failed, without }: TurnOutcome,
  wasAway: Away | undefined,
  { log, notice }: FindOptions,
): void {
  const error = failed.get(seed);
  const told = (why: string) => `${refusedList(error) ?? `${seed} ${why}`}; showing the list of ${server}`;
  if (without.includes(seed)) notice(told('has no memberlist'));
  else if (isAnswer(error)) notice(told('refused the list'));
  else if (error === undefined && wasAway !== 'failed') log(told('did not answer'));
  else notice(told('did not answer'));
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

/** Notes the servers that did not answer, so that others are asked first for a while. */
function rememberAway({ listing, failed, silent }: TurnOutcome, { away }: FindOptions): void {
  for (const server of silent) away.note(server, 'silent');
  for (const [server, error] of failed) if (error instanceof Unavailable && error.away) away.note(server, 'failed');
  if (listing !== undefined) away.clear(listing.server);
}
