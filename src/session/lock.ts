// The lock of a server's entry is a folder beside it. The holder has its own folder in it:
//
//   ~/.cache/kubectl-tka/https+tka.example.ts.net+lock/0123456789ab/owner
//
// A process creates the lock under a temporary name and renames it, which succeeds for one process only. A waiter moves
// the lock of a dead holder aside, also with a rename, to `…+lock+0123456789ab`. `owner` names the holder's process;
// its mtime is the holder's heartbeat. The holder writes all files in its own folder and renames them from there. If it
// was suspended and has lost the lock, its folder is gone, so it cannot change anything.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemCode, TkaError } from '../util/errors.ts';
import {
  ensurePrivateFolder,
  isAbandoned,
  readObject,
  removeLeftovers,
  temporaryName,
  uniqueName,
} from '../util/files.ts';
import { type Fate, fateOf, type Owner, thisProcess } from '../util/processes.ts';
import { placeOf } from '../util/url.ts';

export const noHome = 'no home directory: HOME is not set';

/** The steps of a command that needs the lock of an entry. withLock() throws what they throw. */
export interface LockedWalk<T> {
  /** Returns when to stop waiting for the lock, on the clock of performance.now(). */
  deadline(): number;
  /** Returns a result that makes `act` unnecessary. Called before `act`, and while another process has the lock. */
  look?(waited: boolean): T | undefined;
  /** Runs under the lock. `lock` is undefined if the lock cannot be created. */
  act(lock: EntryLock | undefined): Promise<T>;
  /** Runs if another process still has the lock at the deadline. */
  late(): T | Promise<T>;
}

/**
 * Runs the steps under the lock of an entry and throws what they throw. Tells `unlockable` why there can be no lock.
 */
export async function withLock<T>(
  entryFile: string | undefined,
  walk: LockedWalk<T>,
  unlockable: (why: string) => void,
): Promise<T> {
  if (entryFile === undefined) {
    unlockable(noHome);
    return await underLock(undefined, walk, false);
  }
  const waiter = new LockWaiter(entryFile);
  try {
    let waited = false;
    for (let pause = 10; ; pause = Math.min(pause * 1.5, 100)) {
      const lock = waiter.attempt(unlockable);
      if (lock !== 'held') return await underLock(lock, walk, waited);
      waited = true;
      const found = walk.look?.(waited);
      if (found !== undefined) return found;
      if (performance.now() >= walk.deadline()) return await walk.late();
      await delay(pause * (0.5 + Math.random()));
    }
  } finally {
    waiter.end();
  }
}

async function underLock<T>(lock: EntryLock | undefined, walk: LockedWalk<T>, waited: boolean): Promise<T> {
  try {
    return walk.look?.(waited) ?? (await walk.act(lock));
  } finally {
    lock?.release();
  }
}

/** Returns the error for a lock that another process has held for too long. `timeout` is in milliseconds. */
export function waitedTooLong(server: string, timeout: number, hint: string): TkaError {
  const seconds = Math.round(timeout / 1000);
  return new TkaError(`timed out after ${seconds} s waiting for another process to sign in to ${placeOf(server)}`, {
    hints: [hint],
  });
}

/** In milliseconds. */
const heartbeat = 500;

/** Thrown by writes and removals under a lock that another process has taken over. */
export class LostLock extends Error {
  override readonly name = 'LostLock';
  override readonly message = 'another process has taken over';
}

/**
 * The locks of this process. They are released on exit, even after a signal, so that no other process waits for them.
 */
const heldLocks = new Set<EntryLock>();

function releaseAll(): void {
  for (const lock of heldLocks) lock.release();
}

/** The lock of an entry while this process holds it. Updates its heartbeat until it is released. */
export class EntryLock {
  /** The holder's own folder. It disappears when the lock is lost. */
  readonly folder: string;
  readonly #place: string;
  readonly #owner: string;
  readonly #beat: NodeJS.Timeout;

  /** `place` is the lock's folder, `name` the name of the holder's folder in it. */
  constructor(place: string, name: string) {
    this.#place = place;
    this.folder = path.join(place, name);
    this.#owner = path.join(this.folder, 'owner');
    this.#beat = setInterval(() => this.#touch(), heartbeat).unref();
    if (heldLocks.size === 0) process.on('exit', releaseAll);
    heldLocks.add(this);
  }

  /** False once another process has taken over. */
  held(): boolean {
    return fs.existsSync(this.#owner);
  }

  /** Releases the lock. Never throws. */
  release(): void {
    clearInterval(this.#beat);
    heldLocks.delete(this);
    if (heldLocks.size === 0) process.off('exit', releaseAll);
    try {
      fs.rmSync(this.folder, { recursive: true, force: true });
      // Fails if another process has taken over, because the folder is then not empty.
      fs.rmdirSync(this.#place);
    } catch {
      // Best effort: an empty lock has no holder.
    }
  }

  #touch(): void {
    try {
      const now = Date.now() / 1000;
      fs.utimesSync(this.#owner, now, now);
    } catch {
      // The lock is lost. The next write detects that.
    }
  }
}

/**
 * How long a waiter watches a holder without a heartbeat before the holder counts as dead, in milliseconds. The limit
 * for a running process is longer, because it may get no CPU time on a busy machine.
 */
const silence: Readonly<Record<Fate, number>> = { gone: 0, stopped: 3000, unknown: 3000, alive: 10_000 };
/** The same limits for the heartbeat's age by the clock, which may be wrong or another machine's. */
const silenceByClock: Readonly<Record<Fate, number>> = { gone: 0, stopped: 3000, unknown: 60_000, alive: 30_000 };
/** Maximum time that counts between two looks, in milliseconds. A suspended or starved waiter has not watched. */
const lookWorth = 250;

/** What a waiter finds at the path of a lock. */
interface LockState {
  /** The holder's folder. Undefined if the lock is damaged or from version 0.1.0, which has no such folder. */
  readonly name: string | undefined;
  readonly owner: Owner | undefined;
  /** The last heartbeat, in milliseconds since the epoch. */
  readonly at: number;
  readonly empty: boolean;
}

const nameShape = /^[0-9a-f]{12}$/;

/** Takes the lock of one entry when no other process has it. Watches the holder between attempts. */
export class LockWaiter {
  readonly #entry: string;
  readonly #path: string;
  #watched: { name: string | undefined; at: number; silent: number; looked: number } | undefined;
  /** Locks of dead holders that were moved aside. They stay until end(), so that each is moved aside only once. */
  readonly #taken: string[] = [];

  constructor(entryFile: string) {
    this.#entry = entryFile;
    this.#path = `${entryFile}+lock`;
  }

  /**
   * Takes the lock, or returns 'held' while another process has it. Throws the system's error if the lock cannot be
   * created (a read-only folder, a full disk).
   */
  try(): EntryLock | 'held' {
    ensurePrivateFolder(path.dirname(this.#entry));
    const found = this.#look();
    if (found !== undefined) {
      if (!this.#isDead(found)) return 'held';
      this.#takeAway(found);
    }
    return this.#make();
  }

  /** Does the same, but returns undefined and tells `unlockable` the reason if the lock cannot be created. */
  attempt(unlockable: (why: string) => void): EntryLock | 'held' | undefined {
    try {
      return this.try();
    } catch (error) {
      unlockable(error instanceof TkaError ? error.message : `${this.#entry}: ${systemCode(error)}`);
      return undefined;
    }
  }

  /** Removes the locks that this waiter has moved aside. */
  end(): void {
    for (const taken of this.#taken.splice(0)) fs.rmSync(taken, { recursive: true, force: true });
  }

  #look(): LockState | undefined {
    try {
      const stat = fs.lstatSync(this.#path, { throwIfNoEntry: false });
      if (stat === undefined) return undefined;
      // unlink does not remove a folder, so a new lock at this path is safe.
      if (!stat.isDirectory()) {
        fs.unlinkSync(this.#path);
        return undefined;
      }
      const names = fs.readdirSync(this.#path);
      const name = names.find((one) => nameShape.test(one));
      if (name === undefined) return { name, owner: undefined, at: stat.mtimeMs, empty: names.length === 0 };
      const file = path.join(this.#path, name, 'owner');
      const at = fs.lstatSync(file, { throwIfNoEntry: false })?.mtimeMs ?? stat.mtimeMs;
      return { name, owner: readOwner(file), at, empty: false };
    } catch (error) {
      // Another process released or took the lock at this moment.
      if (/^(?:ENOENT|ENOTDIR|EISDIR|EPERM)$/.test(systemCode(error) ?? '')) return undefined;
      throw error;
    }
  }

  #isDead({ name, owner, at, empty }: LockState): boolean {
    const watched = this.#watch(name, at);
    const fate = owner === undefined ? 'unknown' : fateOf(owner);
    const age = Date.now() - at;
    // Without an owner, the lock is damaged or from version 0.1.0, whose locks were stale after three seconds.
    if (owner === undefined && (empty || name === undefined) && Math.abs(age) > silence.unknown) return true;
    return watched >= silence[fate] || age >= silenceByClock[fate];
  }

  /** Returns how long this waiter has watched the holder without a heartbeat, in milliseconds. */
  #watch(name: string | undefined, at: number): number {
    const now = performance.now();
    const before = this.#watched;
    const isSame = before?.name === name && before?.at === at;
    const silent = isSame ? before.silent + Math.min(now - before.looked, lookWorth) : 0;
    this.#watched = { name, at, silent, looked: now };
    return silent;
  }

  /** Moves a dead holder's lock aside, if it is still there. */
  #takeAway({ name }: LockState): void {
    const aside = `${this.#path}+${name ?? uniqueName()}`;
    try {
      if (name === undefined) {
        try {
          // Fails if the folder is not empty: another process may have taken the lock.
          fs.rmdirSync(this.#path);
          return;
        } catch (error) {
          if (!/^(?:ENOTEMPTY|EEXIST)$/.test(systemCode(error) ?? '')) throw error;
        }
      }
      // Fails if another waiter has already moved this holder's lock aside.
      fs.renameSync(this.#path, aside);
    } catch (error) {
      if (/^(?:ENOENT|ENOTEMPTY|EEXIST|EPERM|EACCES|EBUSY)$/.test(systemCode(error) ?? '')) return;
      throw error;
    }
    try {
      // Another waiter was faster and already has the lock. Put it back.
      if (!this.#isWhatWasMeant(aside, name)) {
        fs.renameSync(aside, this.#path);
        return;
      }
    } catch {
      // A third waiter has taken the lock meanwhile. The second one will notice that its lock is lost.
    }
    this.#taken.push(aside);
  }

  #isWhatWasMeant(aside: string, name: string | undefined): boolean {
    try {
      const names = fs.readdirSync(aside);
      return name === undefined ? !names.some((one) => nameShape.test(one)) : names.includes(name);
    } catch {
      // Another waiter has already removed the dead holder's lock.
      return true;
    }
  }

  #make(): EntryLock | 'held' {
    const name = uniqueName();
    const made = temporaryName(this.#path);
    try {
      fs.mkdirSync(made, { mode: 0o700 });
      fs.mkdirSync(path.join(made, name), { mode: 0o700 });
      fs.writeFileSync(path.join(made, name, 'owner'), JSON.stringify(thisProcess()), { mode: 0o600, flag: 'wx' });
      fs.renameSync(made, this.#path);
    } catch (error) {
      fs.rmSync(made, { recursive: true, force: true });
      const code = systemCode(error) ?? '';
      const windows = process.platform === 'win32' && /^(?:EPERM|EACCES|EBUSY)$/.test(code);
      // ENOENT: a cleaner removed the cache folder. The next attempt creates it again.
      if (/^(?:ENOTEMPTY|EEXIST|ENOTDIR|ENOENT)$/.test(code) || (windows && fs.existsSync(this.#path))) return 'held';
      throw error;
    }
    removeLeftovers(this.#entry);
    removeLeftovers(this.#path);
    removeTakenLocks(this.#path, this.#taken);
    return new EntryLock(this.#path, name);
  }
}

function readOwner(file: string): Owner | undefined {
  const { space, pid, start } = readObject(file, 1024) ?? {};
  if (typeof space !== 'string' || typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid <= 0) return undefined;
  return { space, pid, start: typeof start === 'string' ? start : undefined };
}

/** Removes locks that a waiter moved aside before it was killed, except those in `but`. */
function removeTakenLocks(place: string, but: readonly string[]): void {
  const start = `${path.basename(place)}+`;
  try {
    for (const name of fs.readdirSync(path.dirname(place))) {
      const unique = name.slice(start.length);
      const folder = path.join(path.dirname(place), name);
      if (!name.startsWith(start) || !nameShape.test(unique) || but.includes(folder)) continue;
      const owner = readOwner(path.join(folder, unique, 'owner'));
      if (owner === undefined || fateOf(owner) === 'gone' || isAbandoned(folder))
        fs.rmSync(folder, { recursive: true, force: true });
    }
  } catch {
    // Best effort: if the folder cannot be listed, they stay.
  }
}
