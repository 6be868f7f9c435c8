// The lock of a server's entry: a folder beside it, in which the holder has a folder of its own.
//
//   ~/.cache/kubectl-tka/https+tka.example.ts.net+lock/0123456789ab/owner
//
// The whole is made under a temporary name and renamed, which succeeds for one process only. The lock of a dead holder is
// moved aside by a rename, too, to `…+lock+0123456789ab`.
// `owner` names the holder's process; its mtime is the holder's heartbeat. A holder writes everything in its own folder and
// renames from there: a holder that was stopped and has lost its lock has no such folder any more, so it cannot change
// anything.
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

export const noHome = 'no home directory: HOME is not set';

/** A walk that needs the lock of an entry. Its steps throw what withLock() throws. */
export interface LockedWalk<T> {
  /** Until when the lock is waited for, as performance.now() counts. */
  deadline(): number;
  /** What ends the walk early; asked before `act`, and while another process has the lock. */
  look?(waited: boolean): T | undefined;
  /** What is done under the lock; without one if none can be kept. */
  act(lock: EntryLock | undefined): Promise<T>;
  /** What is done if another process still has the lock at the deadline. */
  late(): T | Promise<T>;
}

/** Takes a walk through the lock of an entry. Throws what its steps throw. `unlockable` is told why no lock can be kept. */
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

/** The error of a walk whose entry another process has locked for too long. `timeout` is in milliseconds. */
export function waitedTooLong(server: string, timeout: number, hint: string): TkaError {
  const seconds = Math.round(timeout / 1000);
  return new TkaError(`timed out after ${seconds} s waiting for another process to sign in to ${server}`, {
    hints: [hint],
  });
}

const heartbeat = 500;

/** Thrown instead of a write or a removal under a lock that another process has taken over. */
export class LostLock extends Error {
  override readonly name = 'LostLock';
  override readonly message = 'another process has taken over';
}

/** The locks that this process has: given back when it ends by a signal, too, so that no process waits for them. */
const heldLocks = new Set<EntryLock>();

function releaseAll(): void {
  for (const lock of heldLocks) lock.release();
}

/** The lock of an entry, while this process has it: keeps up its heartbeat until it is released. */
export class EntryLock {
  /** The holder's own folder: gone as soon as the lock is lost. */
  readonly folder: string;
  readonly #place: string;
  readonly #owner: string;
  readonly #beat: NodeJS.Timeout;

  /** `place` is the lock's folder, `name` that of the holder in it. */
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

  /** Gives it back. Never throws. */
  release(): void {
    clearInterval(this.#beat);
    heldLocks.delete(this);
    if (heldLocks.size === 0) process.off('exit', releaseAll);
    try {
      fs.rmSync(this.folder, { recursive: true, force: true });
      // Fails if another process has taken over: then it is not empty.
      fs.rmdirSync(this.#place);
    } catch {
      // Best effort: an empty lock belongs to no process.
    }
  }

  #touch(): void {
    try {
      const now = Date.now() / 1000;
      fs.utimesSync(this.#owner, now, now);
    } catch {
      // Lost: the next write finds that out.
    }
  }
}

/**
 * A holder is taken for dead after so much silence, in milliseconds. A process that is there and not stopped may be
 * starved of its processor on a busy machine.
 */
const silence: Readonly<Record<Fate, number>> = { gone: 0, stopped: 3000, unknown: 3000, alive: 10_000 };
/** The same by the clock, which may have been set, or be another machine's. */
const silenceByClock: Readonly<Record<Fate, number>> = { gone: 0, stopped: 3000, unknown: 60_000, alive: 30_000 };
/** The time between two looks counts as no more: a starved waiter has not watched. */
const lookWorth = 250;

/** What lies in the place of a lock. */
interface LockState {
  /** The holder's folder; undefined for damage, and for a holder of 0.1.0, which has none. */
  readonly name: string | undefined;
  readonly owner: Owner | undefined;
  /** Of the last heartbeat, milliseconds of the epoch. */
  readonly at: number;
  readonly empty: boolean;
}

const nameShape = /^[0-9a-f]{12}$/;

/** Takes the lock of one entry, as soon as no other process has it; watches its holder between its tries. */
export class LockWaiter {
  readonly #entry: string;
  readonly #path: string;
  #watched: { name: string | undefined; at: number; silent: number; looked: number } | undefined;
  /** Locks of dead holders: kept until the end, so that each is taken away from its place once. */
  readonly #taken: string[] = [];

  constructor(entryFile: string) {
    this.#entry = entryFile;
    this.#path = `${entryFile}+lock`;
  }

  /**
   * Takes the lock, or returns 'held' while another process has it. Throws the system's error if no lock can be kept (a
   * read-only folder, a full disk).
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

  /** The same, but undefined if no lock can be kept. */
  attempt(unlockable: (why: string) => void): EntryLock | 'held' | undefined {
    try {
      return this.try();
    } catch (error) {
      unlockable(error instanceof TkaError ? error.message : `${this.#entry}: ${systemCode(error)}`);
      return undefined;
    }
  }

  /** Removes what this waiter has taken away. */
  end(): void {
    for (const taken of this.#taken.splice(0)) fs.rmSync(taken, { recursive: true, force: true });
  }

  #look(): LockState | undefined {
    try {
      const stat = fs.lstatSync(this.#path, { throwIfNoEntry: false });
      if (stat === undefined) return undefined;
      // A folder that took its place meanwhile is not removed by this.
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
      // It was given back, or taken, at this moment.
      if (/^(?:ENOENT|ENOTDIR|EISDIR|EPERM)$/.test(systemCode(error) ?? '')) return undefined;
      throw error;
    }
  }

  #isDead({ name, owner, at, empty }: LockState): boolean {
    const watched = this.#watch(name, at);
    const fate = owner === undefined ? 'unknown' : fateOf(owner);
    const age = Date.now() - at;
    // Without an owner it is damage, or the lock of 0.1.0, which was stale after three seconds.
    if (owner === undefined && (empty || name === undefined) && Math.abs(age) > silence.unknown) return true;
    return watched >= silence[fate] || age >= silenceByClock[fate];
  }

  /** For how many milliseconds this waiter has watched the holder without a heartbeat. */
  #watch(name: string | undefined, at: number): number {
    const now = performance.now();
    const before = this.#watched;
    const isSame = before?.name === name && before?.at === at;
    const silent = isSame ? before.silent + Math.min(now - before.looked, lookWorth) : 0;
    this.#watched = { name, at, silent, looked: now };
    return silent;
  }

  /** Takes a dead holder's lock out of its place, if it still is there. */
  #takeAway({ name }: LockState): void {
    const aside = `${this.#path}+${name ?? uniqueName()}`;
    try {
      if (name === undefined) {
        try {
          // Fails unless it is empty: then another process has it.
          fs.rmdirSync(this.#path);
          return;
        } catch (error) {
          if (!/^(?:ENOTEMPTY|EEXIST)$/.test(systemCode(error) ?? '')) throw error;
        }
      }
      // Fails if another waiter has put the same name aside already.
      fs.renameSync(this.#path, aside);
    } catch (error) {
      if (/^(?:ENOENT|ENOTEMPTY|EEXIST|EPERM|EACCES|EBUSY)$/.test(systemCode(error) ?? '')) return;
      throw error;
    }
    try {
      // Another waiter was faster, and this is its lock: put it back.
      if (!this.#isWhatWasMeant(aside, name)) {
        fs.renameSync(aside, this.#path);
        return;
      }
    } catch {
      // A third waiter has the place; the second one notices that its lock is lost.
    }
    this.#taken.push(aside);
  }

  #isWhatWasMeant(aside: string, name: string | undefined): boolean {
    try {
      const names = fs.readdirSync(aside);
      return name === undefined ? !names.some((one) => nameShape.test(one)) : names.includes(name);
    } catch {
      // Another waiter has removed what was left of the dead holder.
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
      // ENOENT: a cleaner took the cache's folder away; it is made again.
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

/** Removes locks of dead processes that a waiter took out of their place before it was killed itself. */
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
    // A folder that cannot be listed keeps them until it can.
  }
}
