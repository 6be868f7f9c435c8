import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import { TkaError } from '../util/errors.ts';
import { askListing, type ListedMember, type Listing, type ListingOptions } from './listing.ts';

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
