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

/** Limit on the servers to ask at once, because a list may contain thousands. */
const mostAsked = 64;

/** A usable list, with the provenance of the servers that were asked. */
export interface GoodListing extends MemberListing {
  /** Returns the provenance of a server that was asked. */
  readonly provenanceOf: (server: string) => Provenance;
  /** True if no server has a memberlist. Each server has then described itself. */
  readonly alone: boolean;
}

/** Returns why a server's list is unusable, or undefined if the server returned no list. */
export function refusedList(error: TkaError | undefined): string | undefined {
  return error instanceof Unavailable && error.answered ? error.message : undefined;
}

/**
 * Finds the list of a seed. Asks the seed first, then other trusted servers while the seed does not answer. If no
 * server has a list, asks each server to describe itself. Without any answer, returns the seed's error instead of a
 * `listing`. Throws the refusal of a seed that the user named.
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
  // Online servers that failed may be missing from the others' descriptions, so warn about them.
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

/** The servers that may have the list of a seed. */
class ListSources {
  readonly #seed: string;
  readonly #options: FindOptions;
  /** Servers of the last list. Excludes inferred servers: while they have the tag, they are among the peers anyway. */
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

  /** Returns the servers to ask, in turn: the seed, another server of its list, all of its list, all tagged peers. */
  batches(isSeedAway: boolean): Batch[] {
    const { named } = this.#options;
    return [
      { servers: async () => (isSeedAway ? [] : [this.#seed]), headStart: hedgeAfter },
      { servers: async () => (await this.#listed()).slice(0, 1), headStart: hedgeAfter },
      { servers: async () => [...(await this.#listed()), ...(named ? [] : await this.online()), this.#seed] },
      // These peers may belong to other meshes than the server that the user named.
      { servers: async () => (await this.online()).slice(0, mostAsked) },
    ];
  }

  /** Returns the other seeds and the trusted servers of the last list. */
  async #listed(): Promise<string[]> {
    const { seeds, away, allows } = this.#options;
    const servers = new Set(seeds);
    // A list from an untrusted server could redirect every other cluster.
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

  /** Returns true if a list can replace the seed's. If the user named the seed, the list must be from the same mesh. */
  async mayGive(list: MemberListing): Promise<boolean> {
    if (!this.#options.named || list.server === this.#seed || this.#remembered.has(list.server)) return true;
    return mayBeListOf(this.#seed, list, this.#options);
  }
}

/** Tells the user that the list is from another server, and why. If the seed was only slower, logs it instead. */
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
 * Returns true if a list may be from the mesh of a server: it contains the server, or a cluster with the name of the
 * server's host, or no servers at all, like the lists of the Go server.
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

/** Records the servers that did not answer, so that others are asked first for a while. */
function rememberAway({ listing, failed, silent }: TurnOutcome, { away }: FindOptions): void {
  for (const server of silent) away.note(server, 'silent');
  for (const [server, error] of failed) if (error instanceof Unavailable && error.away) away.note(server, 'failed');
  if (listing !== undefined) away.clear(listing.server);
}
