// The walk of a logout: mark the server as signed out → lock the entry → remove it → tell the server → mark again.
import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn, Refused } from '../tka/errors.ts';
import { TkaError } from '../util/errors.ts';
import { MovedOn } from './failover.ts';
import { withLock } from './lock.ts';
import type { Tools } from './tools.ts';

/** How long a logout waits for the lock, in milliseconds; then it goes on without. */
const lockBudget = 5000;
/** How long a server is asked to revoke, in milliseconds. */
const revokeBudget = 10_000;
/** How often a server that does not answer is asked to. */
const revokeTries = 3;

/**
 * Signs out: marks the server as signed out on this machine, removes the token, and revokes on the server, or while that
 * is away on another server of its cluster. False if the server knew of no sign-in. Throws TkaError if the server could
 * not be told; the rest is done even then.
 */
export function logout(tools: Tools, server: string): Promise<boolean> {
  const apiServer = tools.store.read(server)?.apiServer;
  return signOut(tools, server, false, () => {
    const deadline = performance.now() + Math.min(tools.timeout, revokeBudget);
    return tools.ask(server, apiServer, (client) => revoke(client, deadline));
  });
}

/**
 * Signs out on this machine only, if another server of the same cluster is told. `forgotten`: the mark is not shown. Throws
 * TkaError if that cannot be kept.
 */
export async function logoutHere(tools: Tools, server: string, forgotten: boolean): Promise<void> {
  await signOut(tools, server, forgotten, async () => ({ known: true, complete: false }));
}

/** Tries every step, whatever became of the ones before; throws the first problem at the end. */
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
    // Without the lock, since being signed out counts even if another process has taken it over.
    attempt(() => store.remove(server));
    const { known, complete } = await tell().catch((error) => {
      problems.push(error);
      return { known: false, complete: false };
    });
    // Again, for its time: what the server cleans up late, it does from now on.
    mark(complete);
    if (problems.length > 0) throw problems[0];
    return known;
  };
  // The mark comes first: a sign-in that is under way sees it before it keeps its token.
  mark(false);
  const deadline = performance.now() + Math.min(timeout, lockBudget);
  return withLock(store.entryFile(server), { deadline: () => deadline, act, late: act }, (why) =>
    log(`signing out without a lock: ${why}`),
  );
}

/** What a server answered to a logout. */
interface Revoked {
  /** The server had a sign-in of ours. */
  readonly known: boolean;
  /** Nothing is left that a late clean-up could take a new sign-in for. */
  readonly complete: boolean;
}

/** Revokes our sign-in on a server, by `deadline` (as performance.now() counts). Throws TkaError if it could not be told. */
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
      // The previous server may have ended it before its answer was lost.
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
