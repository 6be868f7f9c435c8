// The addresses that a member asks, and their order. Each source of addresses has its own queue. So a member that
// reports useless addresses delays neither the known members nor the reports of others.
import type { Place } from './roster.ts';

/** A question to one address. It ends once, with or without an answer. */
export interface Ask {
  readonly address: string;
  readonly body: Buffer;
  /** Monotonic time in milliseconds when it was sent. */
  readonly at: number;
  readonly source: string;
  readonly place: Place;
  isDone: boolean;
}

/**
 * The sources that are not a member's name: this member's own choice, and callers that introduce themselves. They start
 * with a space, which a member's name cannot contain.
 */
export const ourselves = ' us';
export const callers = ' callers';

// Maximum numbers of open questions: for each of these two sources, for each other source, for all sources except our
// own, and to one address.
const sourceLimits: Readonly<Record<string, number>> = { [ourselves]: 128, [callers]: 32 };
const memberLimit = 16;
const hintedLimit = 64;
const placeLimit = 4;
// Maximum number of addresses that wait to be asked, for each source.
const waitingLimit = 2000;

export class Questions {
  readonly #places = new Map<string, Place>();
  /** Addresses to ask as soon as there is room, by source. */
  readonly #waiting = new Map<string, Set<Place>>();
  /** Number of open questions, by source. */
  readonly #open = new Map<string, number>();
  #hinted = 0;
  readonly #most: number;
  /** Addresses to check in each round: they have an open question, did not answer, or belong to no known member. */
  readonly watched = new Set<Place>();

  /** `most`: with this many addresses, reports and callers add no more. */
  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#places.size;
  }

  get isFull(): boolean {
    return this.#places.size >= this.#most;
  }

  get(address: string): Place | undefined {
    return this.#places.get(address);
  }

  place(address: string): Place {
    const known = this.#places.get(address);
    if (known !== undefined) return known;
    const place: Place = {
      address,
      member: undefined,
      isSelf: false,
      isSeed: false,
      open: 0,
      askedAt: Number.NEGATIVE_INFINITY,
      failures: 0,
      failingSince: undefined,
      waiting: undefined,
      source: ourselves,
    };
    this.#places.set(address, place);
    this.watched.add(place);
    return place;
  }

  forget(place: Place): void {
    this.#places.delete(place.address);
    this.watched.delete(place);
  }

  /** Queues an address, to be asked as soon as there is room for its source. */
  want(place: Place, source = ourselves): void {
    const places = this.#waiting.get(source) ?? new Set();
    if (place.waiting !== undefined) {
      // The shorter queue keeps the address. Otherwise a source could hide an address by naming it behind many others.
      const earlier = this.#waiting.get(place.waiting);
      if (source !== ourselves && places.size >= (earlier?.size ?? 0)) return;
      earlier?.delete(place);
      place.waiting = undefined;
    }
    if (source !== ourselves && places.size >= waitingLimit) return;
    this.#waiting.set(source, places);
    places.add(place);
    place.waiting = source;
    place.source = source;
  }

  /** Returns the questions to ask now. A source with more waiting addresses goes to the end of the order. */
  due(send: (place: Place, source: string) => Ask): Ask[] {
    const asks: Ask[] = [];
    for (const [source, places] of [...this.#waiting]) {
      this.#waiting.delete(source);
      for (const place of places) {
        if ((this.#open.get(source) ?? 0) >= (sourceLimits[source] ?? memberLimit)) break;
        if (source !== ourselves && this.#hinted >= hintedLimit) break;
        if (place.open >= placeLimit) continue;
        places.delete(place);
        asks.push(send(place, source));
      }
      if (places.size > 0) this.#waiting.set(source, places);
    }
    return asks;
  }

  sent(ask: Ask): void {
    const { place } = ask;
    place.open++;
    place.askedAt = ask.at;
    place.waiting = undefined;
    this.watched.add(place);
    this.#count(ask.source, 1);
  }

  /** Ends a question. Returns false if it had ended before. */
  done(ask: Ask): boolean {
    if (ask.isDone) return false;
    ask.isDone = true;
    ask.place.open--;
    this.#count(ask.source, -1);
    return true;
  }

  #count(source: string, by: 1 | -1): void {
    const count = (this.#open.get(source) ?? 0) + by;
    if (count > 0) this.#open.set(source, count);
    else this.#open.delete(source);
    if (source !== ourselves) this.#hinted += by;
  }
}
