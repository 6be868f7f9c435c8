// The steps of a logout: mark the server as signed out → lock the entry → remove it → tell the server → mark again.
import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn, Refused } from '../tka/errors.ts';
import { TkaError } from '../util/errors.ts';
import { MovedOn } from './failover.ts';
import { withLock } from './lock.ts';
import type { Tools } from './tools.ts';

/** How long a logout waits for the lock, in milliseconds. After that it continues without the lock. */
const lockBudget = 5000;
/** How long to try to revoke on the server, in milliseconds. */
const revokeBudget = 10_000;
/** How many times to ask a server that does not answer. */
const revokeTries = 3;

/**
 * Signs out: marks the server as signed out on this machine, removes the token and revokes the sign-in on the server.
 * If that server is away, revokes on another server of its cluster. Returns false if the server had no sign-in of this
 * user. Throws TkaError if revoking fails; the local steps are complete even then.
 */
export function logout(tools: Tools, server: string): Promise<boolean> {
  const apiServer = tools.store.read(server)?.apiServer;
  return signOut(tools, server, false, () => {
    const deadline = performance.now() + Math.min(tools.timeout, revokeBudget);
    return tools.ask(server, apiServer, (client) => revoke(client, deadline));
  });
}

/**
 * Signs out on this machine only, for use when another server of the same cluster revokes the sign-in. `forgotten`
 * hides the mark. Throws TkaError if the mark cannot be written.
 */
export async function logoutHere(tools: Tools, server: string, forgotten: boolean): Promise<void> {
  await signOut(tools, server, forgotten, async () => ({ known: true, complete: false }));
}

/** Tries every step, even if earlier ones fail. Throws the first error at the end. */
async function signOut(
  { store, timeout, log }: Tools,
  server: string,
  forgotten: boolean,
  tell: () => Promise<Revoked>,
): Promise<boolean> {
  const { username = null, role = null, until = null } = store.read(server) ?? store.signedOut.read(server) ?? {};
  const problems: unknown[] = [];
  const attempt = (act: () => void) => {
    try {
      act();
    } catch (error) {
      problems.push(error);
    }
  };
  const mark = (complete: boolean) =>
    attempt(() => store.signedOut.write({ server, username, role, until, complete, forgotten }));
  const act = async () => {
    // Not under the lock: the logout counts even if another process has taken the lock over.
    attempt(() => store.remove(server));
    const { known, complete } = await tell().catch((error) => {
      problems.push(error);
      return { known: false, complete: false };
    });
    // Renew the mark's time: the server's late clean-up starts now.
    mark(complete);
    if (problems.length > 0) throw problems[0];
    return known;
  };
  // Write the mark first, so that a sign-in in progress sees it before it stores its token.
  mark(false);
  const deadline = performance.now() + Math.min(timeout, lockBudget);
  return withLock(store.entryFile(server), { deadline: () => deadline, act, late: act }, (why) =>
    log(`signing out without a lock: ${why}`),
  );
}

/** What a server answered to a logout. */
interface Revoked {
  /** True if the server had a sign-in of this user. */
  readonly known: boolean;
  /** True if the server's clean-up is over, so that it cannot delete a new sign-in by mistake. */
  readonly complete: boolean;
}

/**
 * Revokes the sign-in on a server until `deadline` (on the clock of performance.now()). Throws TkaError if that fails.
 */
async function revoke(client: Pick<TkaClient, 'logout'>, deadline: number): Promise<Revoked> {
  let hasMoved = false;
  for (let tried = 1; ; tried++) {
    try {
      const { complete } = await client.logout({ timeout: deadline - performance.now() });
      return { known: true, complete };
    } catch (error) {
      if (error instanceof MovedOn) {
        hasMoved = true;
        continue;
      }
      const unknown = error instanceof NotSignedIn || (error instanceof Refused && error.status === 404);
      // The previous server may have revoked the sign-in before its answer was lost.
      if (unknown) return { known: hasMoved, complete: false };
      const passing = error instanceof Unavailable && error.patience > 500;
      const pause = (passing ? error.pause : undefined) ?? 100 * tried;
      if (passing && tried < revokeTries && deadline - performance.now() > pause + 900) {
        await delay(pause);
        continue;
      }
      if (!(error instanceof TkaError)) throw error;
      throw new TkaError(`signed out on this machine, but not on the server: ${error.message}`, {
        hints: [...error.hints, 'the token is deleted here; log out again to revoke it when the server answers'],
        cause: error,
      });
    }
  }
}
