import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import lockfile from 'proper-lockfile';
import { systemCode, TkaError } from '../errors.ts';
import { ensurePrivateFolder } from '../files.ts';

// A holder shows every second that it lives; who finds no sign of life for three takes over.
const stale = 3000;
const update = 1000;

export type Release = () => Promise<void>;

/**
 * Takes the lock beside a server's entry: a function that gives it back, or 'held' while another process has it.
 * Throws the system's error where a lock cannot be kept at all (a read-only folder, a full disk).
 */
export async function tryLock(entryFile: string): Promise<Release | 'held'> {
  const lockPath = `${entryFile}+lock`;
  const folder = path.dirname(entryFile);
  ensurePrivateFolder(folder);
  try {
    clearDamage(lockPath);
    const release = await lockfile.lock(entryFile, {
      realpath: false,
      lockfilePath: lockPath,
      stale,
      update,
      retries: 0,
      // Somebody took us for dead. What we write is whole all the same, so the worst is one sign-in too many.
      onCompromised: () => {},
    });
    return () => release().catch(() => {});
  } catch (error) {
    const code = systemCode(error) ?? '';
    // The last three: another waiter clears away what a killed holder left, at this very moment.
    if (['ELOCKED', 'EEXIST', 'ENOENT', 'ENOTEMPTY'].includes(code) && fs.existsSync(folder)) return 'held';
    throw error;
  }
}

// What proper-lockfile cannot clear: no folder, one that is not empty, or one from the future that would never be stale.
function clearDamage(lockPath: string): void {
  const stat = fs.lstatSync(lockPath, { throwIfNoEntry: false });
  if (stat === undefined) return;
  const age = Date.now() - stat.mtimeMs;
  const broken = !stat.isDirectory() || age < -stale || (age > stale && fs.readdirSync(lockPath).length > 0);
  if (broken) fs.rmSync(lockPath, { recursive: true, force: true });
}

/** What is to be done under a lock. */
export interface Work<T> {
  /** Until when the lock is waited for, as performance.now() counts. */
  readonly deadline: () => number;
  /** What ends it early; asked before `act`, and while another process has the lock. */
  readonly look?: (waited: boolean) => T | undefined;
  readonly act: () => Promise<T>;
  /** At the deadline. */
  readonly late: () => T | Promise<T>;
  /** A lock that cannot be kept is not worth a word. */
  readonly quiet?: boolean;
}

/**
 * Runs `act` under an entry's lock, or ends early with what `look` finds, or with `late` at the deadline. Where no lock
 * can be kept, `unlockable` is told why, and `act` runs without. Throws what these throw.
 */
export async function exclusively<T>(
  entryFile: string | undefined,
  work: Work<T>,
  unlockable: (why: string) => void,
): Promise<T> {
  let waited = false;
  for (let pause = 10; ; pause = Math.min(pause * 1.5, 100)) {
    let lock: Release | 'held' | undefined;
    try {
      if (entryFile === undefined) throw new TkaError('the environment names no home folder (HOME is unset)');
      lock = await tryLock(entryFile);
    } catch (error) {
      unlockable(error instanceof TkaError ? error.message : `${entryFile}: ${systemCode(error)}`);
    }
    if (lock !== 'held') {
      try {
        return work.look?.(waited) ?? (await work.act());
      } finally {
        await lock?.();
      }
    }
    waited = true;
    const found = work.look?.(waited);
    if (found !== undefined) return found;
    if (performance.now() >= work.deadline()) return work.late();
    await delay(pause * (0.5 + Math.random()));
  }
}
