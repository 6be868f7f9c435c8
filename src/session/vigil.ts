/** A server seems to be away without a connection for so long, and then without an answer. In milliseconds. */
const longestConnect = 300;
const longestAnswer = 2000;

/** Watches over one request: whether its server seems to be away. */
export class Vigil {
  isAway = false;
  readonly #ended = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #told = Promise.withResolvers<void>();

  constructor(isConnected: boolean) {
    this.#begin(isConnected ? longestAnswer : longestConnect);
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Resolves when the server seems to be away, at once if it does already. */
  away(): Promise<void> {
    return this.#told.promise;
  }

  /** A connection stands: the server is there, and has its time to answer. */
  opened(): void {
    if (this.ended.aborted) return;
    if (this.isAway) this.#told = Promise.withResolvers();
    this.isAway = false;
    this.#begin(longestAnswer);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#ended.abort();
  }

  #begin(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isAway = true;
      this.#told.resolve();
    }, ms);
  }
}
