// Limits how much of the server one caller can use, so that no login waits for another user's program.
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type Asking, type Caller, type Identity, type Origin, Refusal, type RequestLimits } from './contract.ts';

/** The limits of one login. */
export interface CallerLimitOptions {
  /** Requests per second, in the long run. */
  readonly perSecond?: number;
  /** Number of requests after a pause that are not slowed down to that rate. */
  readonly burst?: number;
  /**
   * Milliseconds that a request may wait until it is within the rate. A request that would have to wait longer is
   * refused.
   */
  readonly patienceMs?: number;
  /** Number of requests that are processed at the same time. The others wait. */
  readonly atOnce?: number;
  /** Milliseconds after which a request gives up its turn, because it waits for something other than this machine. */
  readonly turnMs?: number;
  /** Maximum number of open connections. */
  readonly connections?: number;
  /** Milliseconds by which a refusal is delayed. */
  readonly holdMs?: number;
}

// When forty kubectl on forty machines need a new token in the same second, they send about a hundred requests. All are
// answered within 3 s.
const usual = { perSecond: 20, burst: 40, patienceMs: 3_000, atOnce: 1, turnMs: 100, connections: 128, holdMs: 1_000 };
// tailscaled answers in a millisecond or two.
const whoisAtOnce = 8;
const whoisWaitMs = 1_000;

/**
 * Token buckets, one for each key. A bucket is stored as the time when it will be full again, so a full bucket needs no
 * memory (the generic cell rate algorithm, ITU-T I.371).
 */
export class Buckets {
  readonly #intervalMs: number;
  readonly #burst: number;
  readonly #most: number;
  readonly #fullAt = new Map<string, number>();

  /**
   * Remembers at most `most` keys. Beyond that it forgets the key that was used least recently, which then has a full
   * bucket.
   */
  constructor(perSecond: number, burst: number, most = 10_000) {
    this.#intervalMs = 1_000 / perSecond;
    this.#burst = burst;
    this.#most = most;
  }

  get size(): number {
    return this.#fullAt.size;
  }

  /**
   * Takes a token that is available within `patienceMs`. Returns how many milliseconds that takes, or how many too many
   * it would take.
   */
  take(key: string, patienceMs: number): { readonly inMs: number } | { readonly overMs: number } {
    const now = performance.now();
    const fullAt = Math.max(this.#fullAt.get(key) ?? now, now) + this.#intervalMs;
    const inMs = Math.max(0, fullAt - now - this.#burst * this.#intervalMs);
    if (inMs > patienceMs) return { overMs: inMs - patienceMs };
    // Keep the keys in the order of their last use.
    this.#fullAt.delete(key);
    this.#fullAt.set(key, fullAt);
    for (const [oldest, at] of this.#fullAt) {
      if (at > now && this.#fullAt.size <= this.#most) break;
      this.#fullAt.delete(oldest);
    }
    return { inMs };
  }
}

/** Lets at most `atOnce` tasks run at the same time for each key. The others wait in line. */
export class Turns {
  readonly #atOnce: number;
  readonly #lines = new Map<string, { running: number; readonly waiting: Set<() => void> }>();

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /** Returns whether others wait for a turn with this key. */
  isAwaited(key: string): boolean {
    return (this.#lines.get(key)?.waiting.size ?? 0) > 0;
  }

  /**
   * Resolves when it is the caller's turn, with a function that ends the turn. Rejects if the signal is aborted first.
   */
  async take(key: string, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    const line = this.#lines.get(key) ?? { running: 0, waiting: new Set() };
    this.#lines.set(key, line);
    if (line.running >= this.#atOnce) {
      await new Promise<void>((resolve, reject) => {
        const leave = (): void => {
          line.waiting.delete(go);
          reject(signal.reason);
        };
        const go = (): void => {
          line.waiting.delete(go);
          signal.removeEventListener('abort', leave);
          resolve();
        };
        line.waiting.add(go);
        signal.addEventListener('abort', leave, { once: true });
      });
    } else line.running++;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      // Pass the turn to the next in line, or free it.
      const [next] = line.waiting;
      if (next !== undefined) return next();
      line.running--;
      if (line.running === 0) this.#lines.delete(key);
    };
  }
}

/** The limits of all callers of one server. */
export class CallerLimits implements RequestLimits {
  readonly #options: Required<CallerLimitOptions>;
  readonly #buckets: Buckets;
  readonly #work: Turns;
  readonly #whois = new Turns(whoisAtOnce);
  readonly #callers = new WeakMap<Socket, string>();
  readonly #origins = new WeakMap<Socket, Origin>();
  readonly #connections = new Map<string, number>();

  constructor(options: CallerLimitOptions = {}) {
    this.#options = { ...usual, ...options };
    this.#buckets = new Buckets(this.#options.perSecond, this.#options.burst);
    this.#work = new Turns(this.#options.atOnce);
  }

  async whoIs(identity: Identity, request: IncomingMessage, asking: Omit<Asking, 'admit'>): Promise<Caller> {
    const { socket } = request;
    const { signal } = asking;
    const named = (origin: Origin): void => {
      this.#origins.set(socket, origin);
      asking.named(origin);
    };
    // A connection always belongs to the same caller. A known caller that is over its rate waits before we ask
    // tailscaled.
    const before = this.#callers.get(socket);
    const earlier = this.#origins.get(socket);
    if (earlier !== undefined) asking.named(earlier);
    if (before !== undefined) await this.#admit(before, signal);
    const end = await this.#whoisTurn(socket.remoteAddress ?? '', signal);
    const admit = async (who: string): Promise<void> => {
      end();
      if (who === before) return;
      this.#count(socket, who);
      await this.#admit(who, signal);
    };
    try {
      return await identity.whoIs(request, { ...asking, admit, named });
    } finally {
      end();
    }
  }

  knows(socket: Socket): boolean {
    return this.#callers.has(socket);
  }

  async anonymous(signal: AbortSignal): Promise<void> {
    // All anonymous requests share one bucket, because nobody needs many.
    await this.#admit('', signal);
  }

  async turn(login: string, signal: AbortSignal): Promise<() => void> {
    const end = await this.#work.take(login, signal);
    const { turnMs } = this.#options;
    const began = performance.now();
    const late = setTimeout(end, turnMs);
    return () => {
      clearTimeout(late);
      // If more requests of this login wait, it pauses for as long as it worked. So half of the time is left for
      // others.
      if (this.#work.isAwaited(login)) setTimeout(end, Math.min(performance.now() - began, turnMs));
      else end();
    };
  }

  async #admit(who: string, signal: AbortSignal): Promise<void> {
    const taken = this.#buckets.take(who, this.#options.patienceMs);
    // Less than a microsecond is a rounding error.
    if ('inMs' in taken && taken.inMs < 1e-3) return;
    if ('inMs' in taken) return await delay(taken.inMs, undefined, { signal });
    // Slow down a program that does not wait by itself. Holding its connections costs nothing, and it cannot have many.
    await delay(this.#options.holdMs, undefined, { signal });
    throw tooMany('too many requests', taken.overMs);
  }

  #count(socket: Socket, who: string): void {
    // Another request on this connection was faster and counted it.
    if (this.#callers.get(socket) === who) return;
    const count = (this.#connections.get(who) ?? 0) + 1;
    if (count > this.#options.connections) throw tooMany('too many connections', 1_000);
    this.#callers.set(socket, who);
    this.#connections.set(who, count);
    socket.once('close', () => {
      const left = (this.#connections.get(who) ?? 1) - 1;
      if (left === 0) this.#connections.delete(who);
      else this.#connections.set(who, left);
    });
  }

  async #whoisTurn(address: string, signal: AbortSignal): Promise<() => void> {
    const late = AbortSignal.timeout(whoisWaitMs);
    try {
      return await this.#whois.take(address, AbortSignal.any([signal, late]));
    } catch (error) {
      if (!late.aborted || signal.aborted) throw error;
      throw new Refusal(
        503,
        { message: 'the TKA server is busy', advice: ['try again in a moment'] },
        { retryAfterSeconds: 1 },
      );
    }
  }
}

function tooMany(message: string, waitMs: number): Refusal {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  const advice = [`wait ${seconds} s, then try again`];
  return new Refusal(429, { message, advice }, { retryAfterSeconds: seconds, reason: 'rate_limited' });
}
