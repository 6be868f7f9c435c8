import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { Peer } from '../tailscale/localapi.ts';
import { describeCluster, type TkaClient } from '../tka/client.ts';
import { NotSignedIn, Refused } from '../tka/errors.ts';
import type { Member } from '../tka/memberlist.ts';
import { TkaError } from '../util/errors.ts';
import type { KnownPair, Provenance } from './clusters.ts';
import type { ListMemory } from './memory.ts';
import type { AwayServers } from './server-marks.ts';
import type { TaggedPeers } from './trust.ts';

/** A member in a server's list, with the fields that only the Go server's HTML page has. */
export interface ListedMember extends Member {
  /** Hash of the member's host name and gossip port, in base64. */
  readonly id: string | null;
  /** The IP address that the member claims. */
  readonly address: string | null;
  readonly gossipPort: number | null;
  /** True for the server that returned the list. */
  readonly isLocal: boolean;
}

/** A server's answer to a request for its memberlist. */
export interface Listing {
  readonly server: string;
  /** Undefined if the server has no memberlist. */
  readonly members: readonly ListedMember[] | undefined;
  /** True if the answer was the Go server's HTML page. */
  readonly html: boolean;
  readonly cut: number;
  readonly unread: number;
}

export interface ListingOptions {
  readonly client: (server: string) => TkaClient;
  /** Timeout for each request, in milliseconds. */
  readonly timeout: number;
  /** Returns true for a server to ask for the HTML page first. */
  readonly html: (server: string) => boolean;
  readonly signal?: AbortSignal;
}

/**
 * Returns the memberlist of one server. Reads its JSON; if that has no names, servers and states (the Go server), reads
 * the HTML page, which contains more. Throws Refused, NotSignedIn or Unavailable.
 */
export async function askListing(server: string, options: ListingOptions): Promise<Listing> {
  const client = options.client(server);
  const ask = { timeout: options.timeout, ...(options.signal !== undefined && { signal: options.signal }) };
  const page = async (): Promise<Listing | undefined> => {
    const answer = await client.memberlistPage(ask);
    if (answer.status !== 200) return undefined;
    // Load the HTML parser only if it is needed.
    const { parseMemberlistHtml } = await import('./html.ts');
    const parsed = parseMemberlistHtml(answer.body);
    if (parsed === undefined) return undefined;
    const now = Date.now();
    const members = parsed.rows.map(
      ({ lastSeenSeconds: ago, address = null, gossipPort = null, ...row }): ListedMember => {
        const lastSeen = ago === undefined ? null : new Date(now - ago * 1000).toISOString();
        return { ...row, address, gossipPort, name: null, cluster: null, server: null, lastSeen, version: null };
      },
    );
    return { server, members, html: true, cut: parsed.cut, unread: parsed.unread };
  };
  try {
    if (options.html(server)) {
      const listing = await page();
      if (listing !== undefined) return listing;
    }
    const list = await client.memberlist(ask);
    if (list === undefined) return { server, members: undefined, html: false, cut: 0, unread: 0 };
    const bare =
      list.members.length > 0 && list.members.every((m) => m.server === null && m.name === null && m.state === null);
    if (bare && !options.html(server)) {
      // The page shows the same list. If it fails, use the JSON list.
      const listing = await page().catch(() => undefined);
      if (listing !== undefined) return listing;
    }
    const unknown = { id: null, address: null, gossipPort: null };
    const members = list.members.map((member) => ({ ...member, ...unknown, isLocal: member.server === server }));
    return { server, members, html: false, cut: list.cut, unread: list.unread };
  } finally {
    await client.close();
  }
}

/** Returns true for an error that is an answer: the server is up and refuses. */
export function isAnswer(error: unknown): error is Refused | NotSignedIn {
  return error instanceof Refused || error instanceof NotSignedIn;
}

/** Returns servers without a memberlist as members, from the /cluster-info of each. */
export async function describeServers(
  servers: readonly string[],
  peers: readonly Peer[],
  options: FindOptions,
): Promise<ListedMember[]> {
  const names = new Map(peers.map((peer) => [options.serverOf(peer), peer.hostName]));
  const describe = async (server: string): Promise<ListedMember[]> => {
    try {
      const { apiServer, labels, cluster } = await describeCluster(options.client(server), seedTimeout);
      const about = { name: names.get(server) ?? null, server, cluster, apiEndpoint: apiServer, labels };
      const unknown = { id: null, address: null, gossipPort: null, state: null, lastSeen: null, version: null };
      return [{ ...about, ...unknown, isLocal: false }];
    } catch (error) {
      options.warn(`${error instanceof TkaError ? error.message : error}`);
      return [];
    }
  };
  return (await Promise.all(servers.map(describe))).flat();
}

export interface FindOptions {
  /** Servers to ask for the list. The list is stored under the first one. Not empty. */
  readonly seeds: readonly string[];
  /** Servers that may have been the first seed before. The newest of their stored lists is the last known list. */
  readonly lists: readonly string[];
  /** True if the user named the seed. Its refusal is then final. */
  readonly named: boolean;
  /** Servers and their API servers, from the kubeconfig. */
  readonly known: readonly KnownPair[];
  readonly memory: ListMemory;
  readonly away: Pick<AwayServers, 'has' | 'note' | 'clear'>;
  readonly tagged: () => Promise<TaggedPeers>;
  readonly serverOf: (peer: Peer) => string;
  readonly client: (server: string) => TkaClient;
  /** Returns true if a server may be used; see trust.ts. */
  readonly allows: (server: string, provenance: Provenance) => Promise<boolean>;
  /** Returns why a server must not be used. */
  readonly whyNot: () => Promise<string>;
  readonly log: (line: string) => void;
  readonly warn: (line: string) => void;
  readonly notice: (line: string) => void;
}

/** Timeout for a seed, in milliseconds. */
export const seedTimeout = 2000;

/** Servers to ask at once. */
export interface Batch {
  /** Called when it is their turn. Servers that were already asked are skipped. */
  readonly servers: () => Promise<readonly string[]>;
  /** When to ask the next batch too if there is no list yet, in milliseconds; absent to wait until all have failed. */
  readonly headStart?: number;
}

/** The outcome of asking several servers. */
export interface TurnOutcome {
  /** The first usable memberlist. */
  readonly listing: Listing | undefined;
  /** Servers that answered that they have no memberlist. */
  readonly without: readonly string[];
  readonly failed: ReadonlyMap<string, TkaError>;
  /** Servers that had not answered after 300 ms when another server did. */
  readonly silent: readonly string[];
}

/** After this time without an answer, the next server is asked too, and a server counts as silent. In milliseconds. */
export const hedgeAfter = 300;

/** A server's memberlist. */
export type MemberListing = Listing & { readonly members: readonly ListedMember[] };

interface AskInTurnOptions extends ListingOptions {
  readonly isFinal?: (server: string, error: TkaError) => boolean;
  /** Returns true if a list is wanted; default: all are. An unwanted list is used only if there is no other. */
  readonly isWanted?: (listing: MemberListing) => Promise<boolean>;
}

/**
 * Asks servers for their memberlist, batch after batch; several requests are safe, because they only read. Returns the
 * first list that `isWanted` accepts and aborts the other requests. Throws a server's error if `isFinal` accepts it.
 */
export async function askInTurn(batches: readonly Batch[], options: AskInTurnOptions): Promise<TurnOutcome> {
  const unwanted: Listing[] = [];
  const without: string[] = [];
  const failed = new Map<string, TkaError>();
  const since = new Map<string, number>();
  const over = new AbortController();
  const final = Promise.withResolvers<never>();
  final.promise.catch(() => {});
  const one = async (server: string): Promise<Listing> => {
    since.set(server, performance.now());
    try {
      const listing = await askListing(server, { ...options, signal: over.signal });
      const { members } = listing;
      if (members === undefined) without.push(server);
      else if ((await options.isWanted?.({ ...listing, members })) !== false) return listing;
      else unwanted.push(listing);
    } catch (error) {
      if (over.signal.aborted || !(error instanceof TkaError)) throw error;
      failed.set(server, error);
      if (options.isFinal?.(server, error)) final.reject(error);
    }
    throw new TkaError(`${server} has no memberlist that is wanted`);
  };
  const asked: Promise<Listing>[] = [];
  try {
    let listing: Listing | undefined;
    for (const { servers, headStart } of batches) {
      const next = (await servers()).filter((server) => !since.has(server));
      for (const server of new Set(next)) asked.push(one(server));
      const first = Promise.any(asked).catch(() => undefined);
      const pause = headStart === undefined ? [] : [delay(headStart, undefined, { signal: over.signal })];
      listing = await Promise.race([first, final.promise, ...pause]);
      if (listing !== undefined) break;
    }
    listing ??= unwanted[0];
    const latest = performance.now() - hedgeAfter;
    const answered = new Set([...failed.keys(), ...without, ...[...unwanted, listing].map((each) => each?.server)]);
    const isSilent = (server: string) => !answered.has(server);
    const silent = [...since].flatMap(([server, at]) => (isSilent(server) && at <= latest ? [server] : []));
    return { listing, without, failed, silent };
  } finally {
    over.abort(new Unavailable('another server answered first', 0));
  }
}
