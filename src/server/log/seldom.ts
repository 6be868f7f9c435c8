// What happens again and again is logged once a minute.

const windowMs = 60_000;

/** Counts what happens, minute by minute. Remembers so many things and no more. */
export class Seldom {
  readonly #most: number;
  #counts = new Map<string, number>();
  #since = performance.now();

  constructor(most = 1_000) {
    this.#most = most;
  }

  /** Returns true if this happens for the `times`-th time in this minute. */
  is(what: string, times = 1): boolean {
    const now = performance.now();
    if (now - this.#since > windowMs) {
      this.#counts = new Map();
      this.#since = now;
    }
    const count = (this.#counts.get(what) ?? 0) + 1;
    if (count === 1 && this.#counts.size >= this.#most) return false;
    this.#counts.set(what, count);
    return count === times;
  }
}
