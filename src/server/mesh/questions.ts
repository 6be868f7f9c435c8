// The addresses that one member asks, and in which order. Each source of addresses has room of its own, so that a member
// that reports addresses of nobody delays neither the known members nor what others report.
import type { Place } from './roster.ts';

/** A question to one address. It is answered or not, once. */
export interface Ask {
  readonly address: string;
  readonly body: Buffer;
  /** When it was sent. */
  readonly at: number;
  readonly source: string;
  readonly place: Place;
  isDone: boolean;
}

/** The sources that are not a member's name: this member's own choice, and callers that introduce themselves. */
export const ourselves = ' us';
export const callers = ' callers';

// Questions on the way: for each of these, for each other source, for all but our own, and to one address.
const sourceLimits: Readonly<Record<string, number>> = { [ourselves]: 128, [callers]: 32 };
const memberLimit = 16;
const hintedLimit = 64;
const placeLimit = 4;
// Addresses that wait to be asked, for each source.
const waitingLimit = 2000;

export class Questions {
  readonly #places = new Map<string, Place>();
  /** What is to be asked as soon as there is room, by source. */
  readonly #waiting = new Map<string, Set<Place>>();
  /** Questions on the way, by source. */
  readonly #open = new Map<string, number>();
  #hinted = 0;
  readonly #most: number;
  /** Those to look after each round: with a question on the way, without an answer, or not of a known member. */
  readonly watched = new Set<Place>();

  /** `most`: how many addresses are kept because others report them. */
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

  /** Has an address asked as soon as there is room for what its source wants. */
  want(place: Place, source = ourselves): void {
    const places = this.#waiting.get(source) ?? new Set();
    if (place.waiting !== undefined) {
      // A source must not hide an address by naming it behind many others: the shorter queue has it.
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

  /** Returns what is to be asked now, and by which source. Sources that still have something waiting come last the next time. */
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

  /** Returns false for a question that was settled before. */
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
