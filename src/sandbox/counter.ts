/** Counts the requests to a stand-in, and wakes the tests that wait for them. */
export class Counter<Key extends string> {
  readonly counts: Record<Key, number>;
  readonly #none: Readonly<Record<Key, number>>;
  #waiting: { readonly key: Key; readonly count: number; readonly done: () => void }[] = [];

  constructor(none: Readonly<Record<Key, number>>) {
    this.#none = none;
    this.counts = { ...none };
  }

  count(key: Key): void {
    this.counts[key]++;
    this.#waiting = this.#waiting.filter((waiter) => this.counts[waiter.key] < waiter.count || waiter.done());
  }

  /** Resolves when `key` has been counted `count` times since the start or the last reset. */
  async seen(key: Key, count = 1): Promise<void> {
    if (this.counts[key] < count) await new Promise<void>((done) => this.#waiting.push({ key, count, done }));
  }

  reset(): void {
    Object.assign(this.counts, this.#none);
  }
}
