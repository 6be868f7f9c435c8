import { Refused } from '../tka/errors.ts';
import { type EntryLock, type LockedWalk, LostLock, withLock } from './lock.ts';
import type { Grant } from './obtain.ts';
import { formerRoleOf, rfc3339, type Session } from './session.ts';
import type { SessionStore } from './store.ts';

/** Keeps tokens in the cache. A token that cannot be kept is good all the same: that is a warning, once. */
export class Keeper {
  readonly #store: SessionStore;
  readonly #say: (line: string) => void;
  readonly #log: (line: string) => void;
  #warned = false;

  constructor(store: SessionStore, say: (line: string) => void, log: (line: string) => void) {
    this.#store = store;
    this.#say = say;
    this.#log = log;
  }

  /** Takes a walk through the lock of a server's entry; see lock.ts. */
  withLock<T>(server: string, walk: LockedWalk<T>): Promise<T> {
    return withLock(this.#store.entryFile(server), walk, (why) => this.#unwritable(why));
  }

  /** Keeps what a sign-in gave. `before` is the session that it takes the place of. */
  keep(server: string, grant: Grant, before: Session | undefined, lock: EntryLock | undefined): Session {
    const { signIn, access, expires, clockOffset } = grant;
    // client-go compares with the caller's clock.
    const ends = expires - clockOffset;
    const freshUntil = ends - Math.max(60_000, (ends - Date.now()) / 10);
    const session: Session = {
      server,
      apiServer: access.apiServer,
      expirationTimestamp: rfc3339(ends),
      token: access.token,
      freshUntil: Math.max(0, Math.floor(freshUntil / 1000)),
      username: signIn.username,
      role: signIn.role,
      formerRole: signIn.roleApplied ? undefined : formerRoleOf(before, signIn),
      until: rfc3339(signIn.until),
      clockOffset,
      caData: access.caData,
      insecureSkipTlsVerify: access.insecureSkipTlsVerify,
    };
    this.write(session, lock);
    this.#store.failures.remove(server, lock);
    return session;
  }

  /** Writes a session's entry, if that is possible. */
  write(session: Session, lock: EntryLock | undefined): void {
    this.#attempt(() => this.#store.write(session, lock));
  }

  /** Removes a server's entry, if that is possible. */
  remove(server: string, lock: EntryLock | undefined): void {
    this.#attempt(() => this.#store.remove(server, lock));
  }

  /** Removes the entry of a server that has refused the sign-in: its word counts, but for an error in its set-up. */
  removeIfRefused(server: string, error: unknown, lock: EntryLock | undefined): boolean {
    const refused = error instanceof Refused && !error.isSetUp;
    if (refused) this.remove(server, lock);
    return refused;
  }

  /** Says the first line, and logs the others: one thing that is wrong with the cache is enough. */
  warn(line: string): void {
    if (this.#warned) this.#log(line);
    else this.#say(line);
    this.#warned = true;
  }

  #unwritable(why: string): void {
    this.warn(`the token cache cannot be written, so every call signs in: ${why}`);
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      // What is in the cache is another process's by now.
      if (error instanceof LostLock) this.#log(`nothing is kept: ${error.message}`);
      else this.#unwritable(error instanceof Error ? error.message : String(error));
    }
  }
}
