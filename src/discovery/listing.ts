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

/** A member as a server lists it, with what only the Go server's HTML view tells. */
export interface ListedMember extends Member {
  /** Base64 of the hash of its host name and gossip port. */
  readonly id: string | null;
  /** The IP address that it claims. */
  readonly address: string | null;
  readonly gossipPort: number | null;
  /** It is the server that was asked. */
  readonly isLocal: boolean;
}

/** What a server answered. */
export interface Listing {
  readonly server: string;
  /** undefined: it keeps no memberlist. */
  readonly members: readonly ListedMember[] | undefined;
  /** The answer was the Go server's HTML page. */
  readonly html: boolean;
  readonly cut: number;
  readonly unread: number;
}

export interface ListingOptions {
  readonly client: (server: string) => TkaClient;
  /** Milliseconds for each question. */
  readonly timeout: number;
  /** Whom to ask for the HTML page first. */
  readonly html: (server: string) => boolean;
  readonly signal?: AbortSignal;
}

/**
 * The memberlist of one server: as JSON, and where that has neither names nor servers nor states (the Go server's), from
 * its HTML page, which says more. Throws Refused, NotSignedIn or Unavailable.
 */
export async function askListing(server: string, options: ListingOptions): Promise<Listing> {
  const client = options.client(server);
  const ask = { timeout: options.timeout, ...(options.signal !== undefined && { signal: options.signal }) };
  const page = async (): Promise<Listing | undefined> => {
    const answer = await client.memberlistPage(ask);
    if (answer.status !== 200) return undefined;
    // Nobody else pays for loading an HTML parser.
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
      // The page is a view of the same list: without it, the list still stands.
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

/** True for an error that is an answer: the server is there, and says no. */
export function isAnswer(error: unknown): error is Refused | NotSignedIn {
  return error instanceof Refused || error instanceof NotSignedIn;
}

/** Returns servers without a memberlist as members, each as its own /cluster-info describes it. */
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
  /** Servers that may be asked for the list; the first is the one whose list it is. Not empty. */
  readonly seeds: readonly string[];
  /** Servers of which any may have been the first before: the newest of their lists is the last one known. */
  readonly lists: readonly string[];
  /** True where a person named the seed: its refusal is the answer then. */
  readonly named: boolean;
  /** Servers and their API endpoints, from the kubeconfig. */
  readonly known: readonly KnownPair[];
  readonly memory: ListMemory;
  readonly away: Pick<AwayServers, 'has' | 'note' | 'clear'>;
  readonly tagged: () => Promise<TaggedPeers>;
  readonly serverOf: (peer: Peer) => string;
  readonly client: (server: string) => TkaClient;
  /** Whether a server may be used; see trust.ts. */
  readonly allows: (server: string, provenance: Provenance) => Promise<boolean>;
  /** Why a server that may not be used is not. */
  readonly whyNot: () => Promise<string>;
  readonly log: (line: string) => void;
  readonly warn: (line: string) => void;
  readonly notice: (line: string) => void;
}

/** Milliseconds to wait for the answer of a seed. */
export const seedTimeout = 2000;

/** Servers that are asked at once. */
export interface Batch {
  /** Called when it is their turn; those that have been asked already are left out. */
  readonly servers: () => Promise<readonly string[]>;
  /** How many milliseconds later the next batch is asked as well, unless there is a list; absent: when all have failed. */
  readonly headStart?: number;
}

/** The outcome of asking several servers. */
export interface TurnOutcome {
  /** The first good memberlist. */
  readonly listing: Listing | undefined;
  /** Servers that answered that they keep none. */
  readonly without: readonly string[];
  readonly failed: ReadonlyMap<string, TkaError>;
  /** Servers that had not answered after 300 ms when another one did. */
  readonly silent: readonly string[];
}

/** A server that has said nothing for so long is given up as soon as another one answers, in milliseconds. */
export const hedgeAfter = 300;

/** A server's memberlist. */
export type MemberListing = Listing & { readonly members: readonly ListedMember[] };

interface AskInTurnOptions extends ListingOptions {
  readonly isFinal?: (server: string, error: TkaError) => boolean;
  /** Whether a list may be the one that is wanted; default: any. One that may not is the answer where all else fails. */
  readonly isWanted?: (listing: MemberListing) => Promise<boolean>;
}

/**
 * Asks servers for their memberlist, batch after batch: a list is only read, so it may be asked for twice. The first list
 * that `isWanted` wins, and the others are let go. Throws an error of a server that `isFinal`.
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
