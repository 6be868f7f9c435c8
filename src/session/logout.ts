// The walk of a logout: mark the server as signed out → lock the entry → remove it → tell the server → mark again.
import { type LockedWalk, withLock } from './lock.ts';
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
  return walk(new Logout(tools, server, false, () => tellServer(tools, server, apiServer)), tools, server);
}

/**
 * Signs out on this machine only, if another server of the same cluster is told. `forgotten`: the mark is not shown. Throws
 * TkaError if that cannot be kept.
 */
export async function logoutHere(tools: Tools, server: string, forgotten: boolean): Promise<void> {
  await walk(new Logout(tools, server, forgotten, async () => ({ known: true, complete: false })), tools, server);
}

function walk(logout: Logout, { store }: Tools, server: string): Promise<boolean> {
  // The mark comes first: a sign-in that is under way sees it before it keeps its token.
  logout.mark(false);
  return withLock(store.entryFile(server), logout);
}

function tellServer({ servers, timeout }: Tools, server: string, apiServer: string | undefined): Promise<Revoked> {
  const deadline = performance.now() + Math.min(timeout, revokeBudget);
  return servers.ask(server, apiServer, (client) => revoke(client, deadline));
}

/** Every step is tried, whatever became of the ones before; the first problem is thrown at the end. */
class Logout implements LockedWalk<boolean> {
  readonly #tools: Tools;
  readonly #server: string;
  readonly #forgotten: boolean;
  readonly #tell: () => Promise<Revoked>;
  readonly #deadline: number;
  /** What the mark says of the user. */
  readonly #user: { readonly username: string | null; readonly role: string | null; readonly until: string | null };
  readonly #problems: unknown[] = [];

  constructor(tools: Tools, server: string, forgotten: boolean, tell: () => Promise<Revoked>) {
    this.#tools = tools;
    this.#server = server;
    this.#forgotten = forgotten;
    this.#tell = tell;
    this.#deadline = performance.now() + Math.min(tools.timeout, lockBudget);
    const { store } = tools;
    const { username = null, role = null, until = null } = store.read(server) ?? store.signedOut.read(server) ?? {};
    this.#user = { username, role, until };
  }

  deadline(): number {
    return this.#deadline;
  }

  mark(complete: boolean): void {
    const mark = { server: this.#server, ...this.#user, complete, forgotten: this.#forgotten };
    this.#attempt(() => this.#tools.store.signedOut.write(mark));
  }

  async act(): Promise<boolean> {
    // Without the lock, since being signed out counts even if another process has taken it over.
    this.#attempt(() => this.#tools.store.remove(this.#server));
    const { known, complete } = await this.#tell().catch((error) => {
      this.#problems.push(error);
      return { known: false, complete: false };
    });
    // Again, for its time: what the server cleans up late, it does from now on.
    this.mark(complete);
    if (this.#problems.length > 0) throw this.#problems[0];
    return known;
  }

  late(): Promise<boolean> {
    return this.act();
  }

  unlockable(why: string): void {
    this.#tools.log(`signing out without a lock: ${why}`);
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#problems.push(error);
    }
  }
}
