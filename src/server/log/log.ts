// The server's log: one JSON object per line on stderr.
import { destination, pino, stdSerializers } from 'pino';

/** The log that the parts of the server write to. As in pino, the fields come first. */
export type Log = Readonly<
  Record<'debug' | 'info' | 'warn' | 'error', (fields: Readonly<Record<string, unknown>>, message: string) => void>
>;

// The server logs no tokens, but a message from elsewhere may contain one.
const token = /\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}/g;

/** Returns a text with every token replaced. */
export const withoutTokens = (text: string): string => text.replace(token, '[redacted token]');

/** Returns an error as the log shows it. Includes the stack for our own mistakes, and for all errors with `debug`. */
export function loggedError(error: unknown, debug: boolean): unknown {
  if (!(error instanceof Error)) return error;
  const { hints, status, code } = error as { hints?: unknown; status?: unknown; code?: unknown };
  const isMistake = code === undefined && /^(?:|Type|Range|Reference|Syntax)Error$/.test(error.name);
  if (debug || isMistake) return stdSerializers.err(error);
  const causes: string[] = [];
  for (let e: unknown = error; e instanceof Error && causes.length < 5; e = e.cause) causes.push(e.message);
  return { type: error.name, message: causes.join(': '), hints, status, code };
}

/**
 * Opens the log. Writes each line before the call returns, so that none is lost when the process ends. Writes warnings
 * and errors that repeat only once a minute, or always with `debug`.
 */
export function openLog({ debug, name }: { readonly debug: boolean; readonly name: string }): Log {
  const stderr = destination({ dest: 2, sync: true });
  // The reader of stderr may be gone. The server continues.
  stderr.on('error', () => {});
  const stream = { write: (line: string) => void stderr.write(withoutTokens(line)) };
  const options = {
    level: debug ? 'debug' : 'info',
    base: { server: name },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    serializers: { err: (error: unknown) => loggedError(error, debug) },
    formatters: { level: (level: string) => ({ level }) },
  };
  const log = pino(options, stream);
  return debug ? log : seldom(log);
}

/**
 * Returns a log that writes the same warning or error only once a minute. Two are the same if their message, error and
 * `name` are equal.
 */
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

const minuteMs = 60_000;

/** Counts events in each minute, or in another time window. Remembers at most `most` different events. */
export class Seldom {
  readonly #most: number;
  readonly #windowMs: number;
  #counts = new Map<string, number>();
  #since = performance.now();

  constructor(most = 1_000, windowMs = minuteMs) {
    this.#most = most;
    this.#windowMs = windowMs;
  }

  /**
   * Returns true if this event happens for the `times`-th time in the current window. New events beyond the limit
   * return false.
   */
  is(what: string, times = 1): boolean {
    const now = performance.now();
    if (now - this.#since > this.#windowMs) {
      this.#counts = new Map();
      this.#since = now;
    }
    const count = (this.#counts.get(what) ?? 0) + 1;
    if (count === 1 && this.#counts.size >= this.#most) return false;
    this.#counts.set(what, count);
    return count === times;
  }
}
