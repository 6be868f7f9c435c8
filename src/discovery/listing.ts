import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn, Refused } from '../tka/errors.ts';
import type { Member, Memberlist } from '../tka/memberlist.ts';

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
    const members = parsed.rows.map((row): ListedMember => {
      const seen = row.lastSeenSeconds === undefined ? null : new Date(now - row.lastSeenSeconds * 1000).toISOString();
      const { id, apiEndpoint, labels, state, isLocal } = row;
      return {
        id,
        apiEndpoint,
        labels,
        state,
        isLocal,
        address: row.address ?? null,
        gossipPort: row.gossipPort ?? null,
        name: null,
        cluster: null,
        server: null,
        lastSeen: seen,
        version: null,
      };
    });
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
    return listingOf(server, list);
  } finally {
    await client.close();
  }
}

function listingOf(server: string, list: Memberlist): Listing {
  const members = list.members.map((member) => ({
    ...member,
    id: null,
    address: null,
    gossipPort: null,
    isLocal: member.server === server,
  }));
  return { server, members, html: false, cut: list.cut, unread: list.unread };
}

/** True for an error that is an answer: the server is there, and says no. */
export function isAnswer(error: unknown): error is Refused | NotSignedIn {
  return error instanceof Refused || error instanceof NotSignedIn;
}
