import { setTimeout as delay } from 'node:timers/promises';
import { systemCode, TkaError } from '../util/errors.ts';
import { noHome } from './files.ts';
import type { EntryLock } from './held-lock.ts';
import { LockWaiter } from './lock-waiter.ts';

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
  const waiter = entryFile === undefined ? undefined : new LockWaiter(entryFile);
  try {
    let waited = false;
    for (let pause = 10; ; pause = Math.min(pause * 1.5, 100)) {
      const lock = tryLock(entryFile, waiter, unlockable);
      if (lock !== 'held') return await underLock(lock, walk, waited);
      waited = true;
      const found = walk.look?.(waited);
      if (found !== undefined) return found;
      if (performance.now() >= walk.deadline()) return await walk.late();
      await delay(pause * (0.5 + Math.random()));
    }
  } finally {
    waiter?.end();
  }
}

/** Undefined if no lock can be kept. */
function tryLock(
  entryFile: string | undefined,
  waiter: LockWaiter | undefined,
  unlockable: (why: string) => void,
): EntryLock | 'held' | undefined {
  try {
    if (waiter === undefined) throw new TkaError(noHome);
    return waiter.try();
  } catch (error) {
    unlockable(error instanceof TkaError ? error.message : `${entryFile}: ${systemCode(error)}`);
    return undefined;
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
