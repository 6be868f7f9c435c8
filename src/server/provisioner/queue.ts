export interface QueueOptions {
  /** Processes one key. If it fails, the queue retries with growing delays. */
  readonly work: (key: string) => Promise<void>;
  readonly onError: (key: string, error: unknown) => void;
  /** How many keys are processed at the same time. */
  readonly concurrency: number;
}

export interface QueueCounts {
  readonly waiting: number;
  readonly failing: number;
}

const firstRetryMs = 50;
const lastRetryMs = 30_000;

/**
 * A queue of keys. Each key is processed at most once at a time, and once more if it was added meanwhile. Works like
 * client-go's workqueue with its per-key rate limiter.
 */
export class WorkQueue {
  readonly #options: QueueOptions;
  readonly #waiting = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #failures = new Map<string, number>();
  readonly #retries = new Map<string, NodeJS.Timeout>();
  #stopped = false;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  add(key: string): void {
    if (this.#stopped) return;
    this.#waiting.add(key);
    this.#next();
  }

  /** Returns how many keys wait, and for how many the last attempt failed. */
  counts(): QueueCounts {
    return { waiting: this.#waiting.size, failing: this.#failures.size };
  }

  /** Starts nothing new. Resolves when running work has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#waiting.clear();
    for (const timer of this.#retries.values()) clearTimeout(timer);
    this.#retries.clear();
    await Promise.all(this.#running.values());
  }

  #next(): void {
    for (const key of this.#waiting) {
      if (this.#running.size >= this.#options.concurrency) return;
      if (this.#running.has(key)) continue;
      this.#waiting.delete(key);
      this.#running.set(key, this.#run(key));
    }
  }

  async #run(key: string): Promise<void> {
    clearTimeout(this.#retries.get(key));
    this.#retries.delete(key);
    try {
      await this.#options.work(key);
      this.#failures.delete(key);
    } catch (error) {
      this.#options.onError(key, error);
      if (!this.#stopped) this.#retryLater(key);
    } finally {
      this.#running.delete(key);
      this.#next();
    }
  }

  #retryLater(key: string): void {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    const ms = Math.min(firstRetryMs * 2 ** failures, lastRetryMs);
    clearTimeout(this.#retries.get(key));
    this.#retries.set(
      key,
      setTimeout(() => {
        this.#retries.delete(key);
        this.add(key);
      }, ms),
    );
  }
}
