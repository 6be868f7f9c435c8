/** In milliseconds. */
export const firstPause = 10;
/** The longest pause if the server names none, in milliseconds. */
export const longestPause = 1000;

/** Pauses of 10, 20, 40 … ms. */
export class Pauses {
  #next = firstPause;

  /** Returns the next pause, at most `limit` milliseconds. */
  next(limit = longestPause): number {
    const pause = Math.min(this.#next, limit);
    this.#next = pause * 2;
    return pause;
  }
}
