import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { SignIn, TokenAccess } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn } from '../tka/errors.ts';
import { retryAfter } from '../tka/raw-answer.ts';
import { MovedOn } from './failover.ts';

type GrantedSignIn = Awaited<ReturnType<TkaClient['login']>>;

/** A sign-in and its token. Times in milliseconds of the epoch, by the server's clock. */
export interface SignInGrant {
  readonly signIn: GrantedSignIn;
  readonly access: TokenAccess;
  /** The earlier of the token's end and the sign-in's. */
  readonly expires: number;
  /** The server's clock minus ours. */
  readonly clockOffset: number;
}

/** What obtain() asks of a server, or of several that stand in for each other. */
export type SignInClient = Pick<TkaClient, 'server' | 'clockOffset' | 'login' | 'kubeconfig'>;

export interface ObtainOptions {
  /** When to give up, as performance.now() counts. */
  readonly deadline: number;
  /** The longest to go on after failures, in milliseconds. */
  readonly patience?: number;
  /** Until then (milliseconds of the epoch) a sign-in may still be deleted by the clean-up after a logout. */
  readonly settled?: number;
  /** Called before every POST /login; throws if none may be made any more. */
  readonly mayLogin?: () => void;
  /** Throws if the answer must not be used. */
  readonly accept?: (access: TokenAccess) => void;
  readonly log: (line: string) => void;
}

/** A good token ends a second or two before its sign-in, since its lifetime is cut to whole seconds. In milliseconds. */
const endTolerance = 5000;
const extensionTries = 2;

/**
 * Signs in and waits for the token: POST /login, then GET /kubeconfig after 10, 20, 40 … ms up to the server's
 * Retry-After. Lives through the races of the protocol: a sign-in deleted by a late clean-up (401 while polling) is
 * made again; a token of the sign-in that was just extended is asked for again, twice. Begins again if another server has
 * taken over (see failover.ts).
 * Throws Refused at once, Unavailable when the deadline or patience is over, TkaError if no try can help.
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

/** The steps of obtain() and what they share: the budget, and the failures since the last answer. */
class Obtaining {
  readonly #client: SignInClient;
  readonly #options: ObtainOptions;
  /** Failures in a row; `since` as performance.now() counts. */
  #failures: { since: number; pauses: Pauses; last: Unavailable } | undefined;
  /** When the last token was asked for, in milliseconds of the epoch. */
  #askedAt = 0;
  /** What the time runs out on once the server has answered a login. */
  #waitingFor: string | undefined;

  constructor(client: SignInClient, options: ObtainOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** POST /login until it is answered. */
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
        this.#waitingFor = `${this.#client.server} has not provisioned the sign-in of ${username}`;
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
   * GET /kubeconfig until it has a token that lasts as long as the sign-in, or after two more tries the one that lasts
   * longest; 'forgotten' if a clean-up after a logout took this sign-in for the old one, 'moved' if another server has
   * taken over.
   */
  async token(signIn: SignIn): Promise<TokenAccess | 'forgotten' | 'moved'> {
    const pauses = new Pauses();
    const pause = pauses.next();
    this.#options.log(`asking for the token in ${pause} ms`);
    await this.rest(pause);
    const first = await this.#firstToken(pauses);
    return first === 'forgotten' || first === 'moved' ? first : this.#lastingToken(signIn, first, pauses);
  }

  /** Judges the token by the server's clock. Throws Unavailable for one that has ended already. */
  grant(signIn: GrantedSignIn, access: TokenAccess): SignInGrant {
    const expires = Math.min(access.claims.expires, signIn.until);
    const { clockOffset, server } = this.#client;
    if (expires <= Date.now() + clockOffset)
      throw new Unavailable(`${server} returned a sign-in that has already ended`, 0);
    this.#options.log(`got a token, good until ${new Date(expires).toISOString()} by the server's clock`);
    return { signIn, access, expires, clockOffset };
  }

  /** Waits so many milliseconds, or until just before the deadline: one last look is worth more than a full pause. */
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

  /** Asks again for a token that lasts longer; takes the best one so far if the server does not answer any more. */
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
      // The answer may have been under way while the clean-up took its sign-in.
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

  /** GET /kubeconfig once. Undefined, after a pause, if the token is not ready yet. */
  async #poll(left: number, pauses: Pauses): Promise<TokenAccess | undefined> {
    this.#askedAt = Date.now();
    const { access, answer } = await this.#client.kubeconfig({ timeout: left });
    this.#failures = undefined;
    if (access === 'pending') {
      // A server that asks for no pause at all gets one all the same.
      const pause = pauses.next(retryAfter(answer) || longestPause);
      this.#options.log(`the token is not ready: asking again in ${pause} ms`);
      await this.rest(pause);
      return undefined;
    }
    this.#options.accept?.(access);
    return access;
  }

  #forgotten(): 'forgotten' {
    this.#waitingFor = `${this.#client.server} accepts the sign-in, then does not know it (HTTP 401)`;
    return 'forgotten';
  }

  #left(): number {
    return this.#options.deadline - performance.now();
  }

  /** Milliseconds until the deadline; throws Unavailable after it. */
  #timeLeft(): number {
    const left = this.#left();
    if (left <= 0) throw this.#outOfTime();
    return left;
  }

  #outOfTime(): Unavailable {
    return (
      this.#failures?.last ??
      new Unavailable(`${this.#waitingFor ?? `${this.#client.server} did not answer`} in time`, 0, {
        hints: ['try again, or allow more time with TKA_TIMEOUT=60s'],
      })
    );
  }

  /** Waits before the next try; throws if there is to be none. `left` is the time that the failed one had. */
  async #afterFailure(error: unknown, left: number): Promise<void> {
    if (!(error instanceof Unavailable)) throw error;
    const before = this.#failures;
    if (error.patience === 0) {
      // The last moment of the budget says less of a server than what it answered before.
      const told = before !== undefined || (this.#waitingFor !== undefined && this.#left() <= 0);
      throw left < 1000 && told ? this.#outOfTime() : error;
    }
    const { since, pauses } = before ?? { since: performance.now(), pauses: new Pauses() };
    this.#failures = { since, pauses, last: error };
    const failingFor = performance.now() - since;
    const patience = Math.min(error.patience, this.#options.patience ?? Number.POSITIVE_INFINITY);
    // A second conflict in a row means that many processes try at once: they must not all try again at the same moment.
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
