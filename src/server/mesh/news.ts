// The members that came, went or fell silent lately, as this member found out itself. It tells them to those that ask.
import { type Entry, pick } from './roster.ts';

// Rounds for which a change is told.
const newsRounds = 10;
// More changes at a time are found by comparing.
const newsLimit = 256;

export class News {
  /** When each of them changed, the latest last. */
  readonly #changed = new Map<Entry, number>();
  readonly #intervalMs: number;
  /** Rounds since the last change. */
  quiet = 0;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  add(entry: Entry, now: number): void {
    this.#changed.delete(entry);
    this.#changed.set(entry, now);
    this.quiet = 0;
  }

  delete(entry: Entry): void {
    this.#changed.delete(entry);
  }

  /** Another round has passed. */
  tick(now: number): void {
    this.quiet++;
    for (const [entry, at] of this.#changed) {
      if (now - at <= newsRounds * this.#intervalMs && this.#changed.size <= newsLimit) break;
      this.#changed.delete(entry);
    }
  }

  some(count: number, random: () => number): Entry[] {
    return pick([...this.#changed.keys()], count, random);
  }
}
