import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { SignIn, TokenAccess } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn } from '../tka/errors.ts';
import { retryAfter } from '../tka/raw-answer.ts';
import { placeOf } from '../util/url.ts';
import { MovedOn } from './failover.ts';

type GrantedSignIn = Awaited<ReturnType<TkaClient['login']>>;

/** A sign-in and its token. Times are in milliseconds since the epoch, by the server's clock. */
export interface SignInGrant {
  readonly signIn: GrantedSignIn;
  readonly access: TokenAccess;
  /** When the token or the sign-in ends, whichever is earlier. */
  readonly expires: number;
  /** The server's clock minus the local clock, in milliseconds. */
  readonly clockOffset: number;
}

/** The requests of obtain(), to one server or to several with failover. */
export type SignInClient = Pick<TkaClient, 'server' | 'clockOffset' | 'login' | 'kubeconfig'>;

export interface ObtainOptions {
  /** When to give up, on the clock of performance.now(). */
  readonly deadline: number;
  /** How long to retry after failures, in milliseconds. */
  readonly patience?: number;
  /** Until then, the clean-up after a logout may still delete a sign-in. In milliseconds since the epoch. */
  readonly settled?: number;
  /** Called before every POST /login. Throws if no further one is allowed. */
  readonly mayLogin?: () => void;
  /** Throws if the answer must not be used. */
  readonly accept?: (access: TokenAccess) => void;
  readonly log: (line: string) => void;
}

/** In milliseconds. A good token ends one or two seconds before its sign-in: its lifetime is cut to whole seconds. */
const endTolerance = 5000;
const extensionTries = 2;

/**
 * Signs in and waits for the token: POST /login, then GET /kubeconfig after 10, 20, 40 … ms up to the server's
 * Retry-After. Handles the races of the protocol: if a late clean-up deletes the sign-in (401 while polling), signs in
 * again; if the token is the one from before an extension, asks again, up to two times. Starts again after a move to
 * another server (see failover.ts). Throws Refused at once, Unavailable after the deadline or when the patience is used
 * up, and TkaError if retrying cannot help.
 */
export async function obtain(client: SignInClient, options: ObtainOptions): Promise<SignInGrant> {
  const walk = new Obtaining(client, options);
  for (const pauses = new Pauses(); ; ) {
    const signIn = await walk.signIn();
    const access = await walk.token(signIn);
    if (access === 'moved') continue;
    if (access !== 'forgotten') return walk.grant(signIn, access);
    options.log('the server has forgotten the sign-in: signing in again');
    await walk.rest(pauses.next());
  }
}

/** The steps of obtain() and their shared state: the time limits and the failures since the last answer. */
class Obtaining {
  readonly #client: SignInClient;
  readonly #options: ObtainOptions;
  /** Failures in a row. `since` is on the clock of performance.now(). */
  #failures: { since: number; pauses: Pauses; last: Unavailable } | undefined;
  /** When the last GET /kubeconfig was sent, in milliseconds since the epoch. */
  #askedAt = 0;
  /** The error message for a timeout after the server has answered a login. */
  #waitingFor: string | undefined;

  constructor(client: SignInClient, options: ObtainOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** Repeats POST /login until the server answers it. */
  async signIn(): Promise<GrantedSignIn> {
    for (;;) {
      const left = this.#timeLeft();
      this.#options.mayLogin?.();
      this.#options.log('asking for a sign-in');
      try {
        const signIn = await this.#client.login({ timeout: left });
        this.#failures = undefined;
        const { username, role, until } = signIn;
        this.#options.log(`signed in as ${username}, role ${role}, until ${new Date(until).toISOString()}`);
        this.#waitingFor = `${placeOf(this.#client.server)} has not provisioned the sign-in of ${username}`;
        return signIn;
      } catch (error) {
        if (error instanceof MovedOn) continue;
        const failure =
          error instanceof NotSignedIn ? new Unavailable(error.message, 1000, { hints: error.hints }) : error;
        await this.#afterFailure(failure, left);
      }
    }
  }

  /**
   * Repeats GET /kubeconfig until the token lasts as long as the sign-in. After two more tries, returns the token that
   * lasts longest. Returns 'forgotten' if the clean-up after a logout deleted this sign-in by mistake, 'moved' after a
   * move to another server.
   */
  async token(signIn: SignIn): Promise<TokenAccess | 'forgotten' | 'moved'> {
    const pauses = new Pauses();
    const pause = pauses.next();
    this.#options.log(`asking for the token in ${pause} ms`);
    await this.rest(pause);
    const first = await this.#firstToken(pauses);
    return first === 'forgotten' || first === 'moved' ? first : this.#lastingToken(signIn, first, pauses);
  }

  /** Checks the token's end by the server's clock. Throws Unavailable if it has already ended. */
  grant(signIn: GrantedSignIn, access: TokenAccess): SignInGrant {
    const expires = Math.min(access.claims.expires, signIn.until);
    const { clockOffset, server } = this.#client;
    if (expires <= Date.now() + clockOffset)
      throw new Unavailable(`${placeOf(server)} returned a sign-in that has already ended`, 0);
    this.#options.log(`got a token, good until ${new Date(expires).toISOString()} by the server's clock`);
    return { signIn, access, expires, clockOffset };
  }

  /** Waits `ms` milliseconds, but leaves time for one last request before the deadline. */
  async rest(ms: number): Promise<void> {
    await delay(Math.min(ms, Math.max(this.#left() - 100, firstPause)));
  }

  async #firstToken(pauses: Pauses): Promise<TokenAccess | 'forgotten' | 'moved'> {
    for (;;) {
      const left = this.#timeLeft();
      try {
        const access = await this.#poll(left, pauses);
        if (access !== undefined) return access;
      } catch (error) {
        if (error instanceof NotSignedIn) return this.#forgotten();
        if (error instanceof MovedOn) return 'moved';
        await this.#afterFailure(error, left);
      }
    }
  }

  /** Asks again for a token that lasts longer. Returns the best one so far if the server no longer answers. */
  async #lastingToken(signIn: SignIn, first: TokenAccess, pauses: Pauses): Promise<TokenAccess | 'forgotten'> {
    let best = first;
    try {
      for (let tries = 1; tries <= extensionTries; tries++) {
        const short = signIn.until - best.claims.expires;
        if (short <= endTolerance) break;
        this.#options.log(`the token ends ${Math.round(short / 1000)} s before the sign-in: asking again`);
        await this.rest(50 * tries);
        best = later(best, await this.#nextToken(pauses));
      }
      const { settled = 0 } = this.#options;
      // The clean-up may have deleted the sign-in while this answer was on its way.
      if (this.#askedAt < settled) {
        const unsettled = Math.max(0, settled - Date.now());
        this.#options.log(`just logged out: looking again in ${unsettled} ms`);
        await this.rest(unsettled);
        best = later(best, await this.#nextToken(pauses));
      }
      return best;
    } catch (error) {
      if (error instanceof NotSignedIn) return this.#forgotten();
      if (error instanceof Unavailable || error instanceof MovedOn) return best;
      throw error;
    }
  }

  async #nextToken(pauses: Pauses): Promise<TokenAccess> {
    for (;;) {
      const access = await this.#poll(this.#timeLeft(), pauses);
      if (access !== undefined) return access;
    }
  }

  /** Sends GET /kubeconfig once. If the token is not ready yet, waits and returns undefined. */
  async #poll(left: number, pauses: Pauses): Promise<TokenAccess | undefined> {
    this.#askedAt = Date.now();
    const { access, answer } = await this.#client.kubeconfig({ timeout: left });
    this.#failures = undefined;
    if (access === 'pending') {
      // Wait even if the server asks for no pause.
      const pause = pauses.next(retryAfter(answer) || longestPause);
      this.#options.log(`the token is not ready: asking again in ${pause} ms`);
      await this.rest(pause);
      return undefined;
    }
    this.#options.accept?.(access);
    return access;
  }

  #forgotten(): 'forgotten' {
    this.#waitingFor = `${placeOf(this.#client.server)} accepts the sign-in, then does not know it (HTTP 401)`;
    return 'forgotten';
  }

  #left(): number {
    return this.#options.deadline - performance.now();
  }

  /** Returns the milliseconds until the deadline. Throws Unavailable after it. */
  #timeLeft(): number {
    const left = this.#left();
    if (left <= 0) throw this.#outOfTime();
    return left;
  }

  #outOfTime(): Unavailable {
    return (
      this.#failures?.last ??
      new Unavailable(`${this.#waitingFor ?? `${placeOf(this.#client.server)} did not answer`} in time`, 0, {
        hints: ['try again, or allow more time with TKA_TIMEOUT=60s'],
      })
    );
  }

  /** Waits before the next try. Throws if there is no next try. `left` is the timeout of the failed one. */
  async #afterFailure(error: unknown, left: number): Promise<void> {
    if (!(error instanceof Unavailable)) throw error;
    const before = this.#failures;
    if (error.patience === 0) {
      // A request cut off by the deadline tells less about the server than its earlier answers. Report those.
      const told = before !== undefined || (this.#waitingFor !== undefined && this.#left() <= 0);
      throw left < 1000 && told ? this.#outOfTime() : error;
    }
    const { since, pauses } = before ?? { since: performance.now(), pauses: new Pauses() };
    this.#failures = { since, pauses, last: error };
    const failingFor = performance.now() - since;
    const patience = Math.min(error.patience, this.#options.patience ?? Number.POSITIVE_INFINITY);
    // A second conflict in a row means that many processes try at once. They must not all retry at the same moment.
    const pause = error.pause === 0 && before !== undefined ? undefined : error.pause;
    const tooLong = pause !== undefined && pause > Math.min(patience - failingFor, this.#left() - 100);
    if (failingFor >= patience || tooLong || this.#left() < 100) throw error;
    const rest = pause ?? pauses.next();
    this.#options.log(`trying again in ${rest} ms${pause ? ', as the server asks' : ''}: ${error.message}`);
    if (rest !== 0) await this.rest(rest);
  }
}

function later(one: TokenAccess, other: TokenAccess): TokenAccess {
  return other.claims.expires > one.claims.expires ? other : one;
}

/** The first pause, in milliseconds. */
export const firstPause = 10;

/** The longest pause if the server does not set one, in milliseconds. */
export const longestPause = 1000;

/** Generates pauses of 10, 20, 40 … ms. */
export class Pauses {
  #next = firstPause;

  /** Returns the next pause, at most `limit` milliseconds. */
  next(limit = longestPause): number {
    const pause = Math.min(this.#next, limit);
    this.#next = pause * 2;
    return pause;
  }
}
