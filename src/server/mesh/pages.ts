// The pages of joined clusters: this member's own, and those that it has read from others. They are not part of the
// gossip: a member's record contains the ETag of its page, and a member that has another one fetches the page.
import {
  type JoinedRow,
  type PageAnswer,
  type PageQuestion,
  type WrittenPage,
  writePage,
  writePageAnswer,
  writePageQuestion,
} from './joined.ts';
import type { Entry } from './roster.ts';
import type { Message } from './wire.ts';

/** Number of rounds between two questions for the page of one member. */
export const pageRounds = 10;

// Maximum number of open questions for pages.
const openLimit = 4;

// Maximum number of rows of all pages together. With 10,000 members a memberlist has at most 16,000 rows, without
// labels less than the 16 MiB that a client reads.
const rowsLimit = 5_000;

/** A question for the page of a member. It ends once, with or without an answer. */
export interface PageAsk {
  readonly entry: Entry;
  readonly address: string;
  readonly body: Buffer;
}

interface Page {
  /** ETag of the rows; empty while there are none. */
  etag: string;
  rows: readonly JoinedRow[];
  /** Monotonic time of the last question. */
  askedAt: number;
  open: PageAsk | undefined;
}

export class Pages {
  readonly #intervalMs: number;
  readonly #pages = new Map<Entry, Page>();
  #open = 0;
  #rows = 0;
  #own: WrittenPage | undefined;
  /** The last answer with the own page, and what it depends on. To compress a page takes some milliseconds. */
  #answer: { readonly page: WrittenPage; readonly version: string; readonly bytes: Buffer } | undefined;
  /** The rows of the own page as they were given. */
  #given = '[]';

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** Sets this member's own page. Returns its ETag, or undefined if it has no rows. */
  setOwn(rows: readonly JoinedRow[]): string | undefined {
    const given = JSON.stringify(rows);
    // Usually nothing has changed. To check 1,000 rows takes 20 ms.
    if (given !== this.#given) this.#own = writePage(rows);
    this.#given = given;
    return this.#own?.etag;
  }

  /** Returns the answer to a question for this member's page. */
  answer(self: Message, { have }: PageQuestion): Buffer {
    const page = this.#own;
    if (page === undefined || page.etag === have) return writePageAnswer(self, page, have);
    const { version } = self;
    if (this.#answer?.page !== page || this.#answer.version !== version) {
      this.#answer = { page, version, bytes: writePageAnswer(self, page, have) };
    }
    return this.#answer.bytes;
  }

  /** Follows the record of a member that was just read. */
  follow(entry: Entry): void {
    const { joined, cluster } = entry.record;
    // A row states the name of the login server's cluster.
    if (joined === undefined || cluster === undefined) this.forget(entry);
    else if (!this.#pages.has(entry)) {
      this.#pages.set(entry, { etag: '', rows: [], askedAt: Number.NEGATIVE_INFINITY, open: undefined });
    }
  }

  forget(entry: Entry): void {
    const page = this.#pages.get(entry);
    if (page === undefined) return;
    this.#pages.delete(entry);
    this.#rows -= page.rows.length;
    if (page.open !== undefined) this.#open--;
  }

  /** Returns the questions to ask now. Each must end with a call of `settle` or `failed`. */
  asks(self: Message, now: number): PageAsk[] {
    const asks: PageAsk[] = [];
    for (const [entry, page] of this.#pages) {
      if (this.#open >= openLimit) break;
      const isDue = now - page.askedAt >= pageRounds * this.#intervalMs && page.open === undefined;
      if (!isDue || entry.state === 'dead' || page.etag === entry.record.joined) continue;
      const ask = { entry, address: entry.place.address, body: writePageQuestion({ ...self, have: page.etag }) };
      Object.assign(page, { askedAt: now, open: ask });
      this.#open++;
      asks.push(ask);
    }
    return asks;
  }

  /**
   * Processes the answer to a question. `node` is the name of the tailnet node that gave it, if it is known. Returns
   * the reason if the page does not count.
   */
  settle(ask: PageAsk, answer: PageAnswer, node: string | undefined): string | undefined {
    const page = this.#done(ask);
    const { name, place } = ask.entry;
    if (page === undefined || place.address !== ask.address) return undefined;
    if (answer.name !== name || (node !== undefined && node !== name)) return 'its page is answered by another member';
    const { etag, rows, skipped } = answer;
    if (rows === undefined) return page.etag === etag ? undefined : 'it does not return its page of joined clusters';
    const isFull = this.#rows - page.rows.length + rows.length > rowsLimit;
    // A page that does not fit is not fetched again until it changes.
    const kept = isFull ? [] : rows;
    this.#rows += kept.length - page.rows.length;
    Object.assign(page, { etag, rows: kept });
    if (isFull) return `the limit of ${rowsLimit} joined clusters in all is reached`;
    return skipped > 0 ? `${skipped} invalid rows in its page of joined clusters` : undefined;
  }

  /** Records that a question got no answer, or an unusable one. */
  failed(ask: PageAsk): void {
    this.#done(ask);
  }

  #done(ask: PageAsk): Page | undefined {
    const page = this.#pages.get(ask.entry);
    if (page?.open !== ask) return undefined;
    page.open = undefined;
    this.#open--;
    return page;
  }

  /** Returns the joined clusters of a member, as it stated them last. */
  of(entry: Entry): readonly JoinedRow[] {
    return this.#pages.get(entry)?.rows ?? [];
  }

  /** Returns the members that have stated joined clusters. */
  owners(): Iterable<Entry> {
    return this.#pages.keys();
  }
}
