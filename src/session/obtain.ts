import { setTimeout as delay } from 'node:timers/promises';
import { type Access, retryAfter, type SignIn } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn, Unavailable } from '../tka/errors.ts';

/** A sign-in and the token that came of it. Times in milliseconds of the epoch, by the server's clock. */
export interface Grant {
  readonly signIn: SignIn;
  readonly access: Access;
  /** The earlier of the token's end and the sign-in's. */
  readonly expires: number;
  /** The server's clock minus ours. */
  readonly clockOffset: number;
}

export interface ObtainOptions {
  /** When to give up, as performance.now() counts. */
  readonly deadline: number;
  /** The longest to go on after failures, in milliseconds. */
  readonly patience?: number;
  /** Until then (milliseconds of the epoch) a sign-in may still be deleted by the clean-up after a logout. */
  readonly settled?: number;
  /** Called before every POST /login; throws where none may be made any more. */
  readonly mayLogin?: () => void;
  /** Throws where the answer must not be used. */
  readonly accept?: (access: Access) => void;
  readonly log: (line: string) => void;
}

const firstPause = 10;
const defaultRetryAfter = 1000;
// A good token ends a second or two before its sign-in, since its lifetime is cut to whole seconds.
const endTolerance = 5000;
const extensionTries = 2;

/**
 * Signs in and waits for the token: POST /login, then GET /kubeconfig after 10, 20, 40 … ms up to the server's
 * Retry-After. Lives through the races of the protocol: a sign-in deleted by a late clean-up (401 while polling) is
 * made again; a token of the sign-in that was just extended is asked for again, twice.
 * Throws Refused at once, Unavailable when the deadline or patience is over, TkaError where no try can help.
 */
export async function obtain(client: TkaClient, options: ObtainOptions): Promise<Grant> {
  const { deadline, log } = options;
  let signIn: SignIn | undefined;
  let pause = firstPause;
  let loginPause = firstPause;
  let failingSince: number | undefined;
  // What went wrong before, where the time has run out since: it says more.
  let told: Unavailable | undefined;
  let earlyEnds = 0;
  let best: Access | undefined;
  let waitingFor = `${client.server} gave no answer`;

  const grant = (to: SignIn, access: Access): Grant => {
    const expires = Math.min(access.claims.expires, to.until);
    const clockOffset = client.clockOffset;
    if (expires <= Date.now() + clockOffset)
      throw new Unavailable(`${client.server} gave a sign-in that has ended already`, 0);
    return { signIn: to, access, expires, clockOffset };
  };
  const outOfTime = () =>
    new Unavailable(`${waitingFor} in time`, 0, { hints: ['try again, or give it longer with TKA_TIMEOUT=60s'] });
  const rest = async (ms: number) => {
    const left = deadline - performance.now();
    // One last look just before the end is worth more than a full pause.
    await delay(Math.min(ms, Math.max(left - 100, firstPause)));
  };

  for (;;) {
    const left = deadline - performance.now();
    if (left <= 0) {
      if (best !== undefined && signIn !== undefined) return grant(signIn, best);
      throw told ?? outOfTime();
    }
    try {
      if (signIn === undefined) {
        options.mayLogin?.();
        signIn = await client.login({ timeout: left });
        log(`signed in as ${signIn.username}, role ${signIn.role}, until ${new Date(signIn.until).toISOString()}`);
        waitingFor = `${client.server} has not provisioned the sign-in of ${signIn.username}`;
        failingSince = undefined;
        told = undefined;
        pause = firstPause;
        await rest(pause);
        pause *= 2;
        continue;
      }
      const { access, answer } = await client.kubeconfig({ timeout: left });
      failingSince = undefined;
      told = undefined;
      if (access === 'pending') {
        // A server that asks for no pause at all gets one all the same.
        await rest(Math.min(pause, retryAfter(answer) || defaultRetryAfter));
        pause *= 2;
        continue;
      }
      options.accept?.(access);
      if (best === undefined || access.claims.expires > best.claims.expires) best = access;
      if (best.claims.expires < signIn.until - endTolerance && earlyEnds < extensionTries) {
        earlyEnds++;
        log(
          `the token ends ${Math.round((signIn.until - best.claims.expires) / 1000)} s before the sign-in: asking again`,
        );
        await rest(50 * earlyEnds);
        continue;
      }
      const unsettled = (options.settled ?? 0) - Date.now();
      if (unsettled > 0) {
        log(`just logged out: looking again in ${unsettled} ms`);
        await rest(unsettled);
        continue;
      }
      return grant(signIn, best);
    } catch (error) {
      if (error instanceof NotSignedIn && signIn !== undefined) {
        // A clean-up after a logout took this sign-in for the old one.
        log('the server has forgotten the sign-in: signing in again');
        waitingFor = `${client.server} signs in, forgets it (HTTP 401), and gives no token`;
        signIn = undefined;
        best = undefined;
        await rest(loginPause);
        loginPause = Math.min(loginPause * 2, defaultRetryAfter);
        continue;
      }
      const failure =
        error instanceof NotSignedIn
          ? new Unavailable(error.message, defaultRetryAfter, { hints: error.hints })
          : error;
      if (!(failure instanceof Unavailable)) throw failure;
      if (best !== undefined && signIn !== undefined) return grant(signIn, best);
      failingSince ??= performance.now();
      const patience = Math.min(failure.patience, options.patience ?? Number.POSITIVE_INFINITY);
      if (failure.patience === 0) {
        // The last moment of the budget says less of a server than what it answered before.
        if (left < 1000 && told !== undefined) throw told;
        throw left < 1000 && signIn !== undefined && performance.now() >= deadline ? outOfTime() : failure;
      }
      if (performance.now() - failingSince >= patience || deadline - performance.now() < 100) throw failure;
      told = failure;
      log(`trying again: ${failure.message}`);
      await rest(pause);
      pause = Math.min(pause * 2, defaultRetryAfter);
    }
  }
}
