// What happens again and again is logged once a minute.
import type { Log } from './log.ts';

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

/** Returns a log that writes the same warning or error once a minute. Same: the message, the error, and `name`. */
export function seldom(log: Log): Log {
  const written = new Seldom();
  const once =
    (level: 'warn' | 'error'): Log['warn'] =>
    (fields, message) => {
      const why = fields.err instanceof Error ? fields.err.message : '';
      if (written.is(JSON.stringify([message, why, fields.name]))) log[level](fields, message);
    };
  return {
    debug: (fields, message) => log.debug(fields, message),
    info: (fields, message) => log.info(fields, message),
    warn: once('warn'),
    error: once('error'),
  };
}
