// The walk of a logout: mark the server as signed out → lock the entry → remove it → tell the server → mark again.
import { withLock } from './lock.ts';
import { type Revoked, revoke } from './revoke.ts';
import type { Tools } from './tools.ts';

/** How long a logout waits for the lock, in milliseconds; then it goes on without. */
const lockBudget = 5000;
/** How long a server is asked to revoke, in milliseconds. */
const revokeBudget = 10_000;

/**
 * Signs out: marks the server as signed out on this machine, removes the token, and revokes on the server, or while that
 * is away on another server of its cluster. False if the server knew of no sign-in. Throws TkaError if the server could
 * not be told; the rest is done even then.
 */
export function logout(tools: Tools, server: string): Promise<boolean> {
  const apiServer = tools.store.read(server)?.apiServer;
  return signOut(tools, server, false, () => {
    const deadline = performance.now() + Math.min(tools.timeout, revokeBudget);
    return tools.servers.ask(server, apiServer, (client) => revoke(client, deadline));
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
