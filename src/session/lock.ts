import * as fs from 'node:fs';
import * as path from 'node:path';
import lockfile from 'proper-lockfile';
import { systemCode } from '../errors.ts';
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
