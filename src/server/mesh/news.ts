// The members that recently came, went or fell silent, as this member found out itself. Its answers report them.
import { type Entry, pick } from './roster.ts';

// Number of rounds for which to report a change.
const newsRounds = 10;
// Maximum number of changes to remember. Members find the others when they compare digests.
const newsLimit = 256;

export class News {
  /** Time of the last change by member, latest last. */
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

  /** Starts a round: drops old changes. */
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
