import { randomBytes } from 'node:crypto';
import { closeSync, lstatSync, mkdirSync, openSync, readdirSync, rmdirSync, type Stats, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCode, TkaError } from '../util/errors.ts';
import { makeFolder } from '../util/files.ts';
import { shellWord, shown } from './damage.ts';

// kubectl creates `<file>.lock` as a file; a folder of that name excludes kubectl too. Our folder contains one file,
// the token. The new text is written to the token, which is then renamed into place. A program that finds our lock
// stale removes the token; our rename then fails, so it cannot overwrite another program's change. (With
// proper-lockfile, two waiters may remove the same stale lock: the second one removes the first one's new lock, and
// both hold it.)

/** Milliseconds. No run holds a lock this long, so a killed process left an older one behind. */
const staleAfter = 2000;
/** Milliseconds to wait for a lock that does not change hands. */
const waitAtMost = 5000;
/** Milliseconds to wait while other programs hold the lock in turn. */
const waitInLine = 60_000;

const tokenName = /^tka-[0-9a-f]{16}\.tmp$/;

export interface KubeconfigLock {
  readonly path: string;
  /** Path of an empty file (0600) to write the new text to and then rename. */
  readonly token: string;
}

// Locks to remove at exit: a signal may end the process while it waits for the next lock.
const incomplete = new Set<ReadonlyMap<string, KubeconfigLock>>();
let atExit = false;

/**
 * Locks `<file>.lock` for each path, in sorted order, runs `work`, and releases the locks. Throws TkaError if another
 * program holds one for 5 s, or if other programs take turns for 60 s.
 */
export async function withLocks<T>(
  files: readonly string[],
  work: (locks: ReadonlyMap<string, KubeconfigLock>) => T,
): Promise<T> {
  const held = new Map<string, KubeconfigLock>();
  if (!atExit) process.on('exit', () => incomplete.forEach(unlockAll));
  atExit = true;
  incomplete.add(held);
  try {
    for (const file of [...new Set(files)].sort()) held.set(file, await lock(file));
    return work(held);
  } finally {
    incomplete.delete(held);
    unlockAll(held);
  }
}

/** Removes the locks that killed runs of ours left on these files, without waiting. Never throws. */
export function clearStale(files: readonly string[]): void {
  for (const file of new Set(files)) {
    attempt(() => {
      const found = lstatSync(`${file}.lock`, { throwIfNoEntry: false });
      if (found?.isDirectory() && Date.now() - found.mtimeMs > staleAfter) clear(`${file}.lock`);
    });
  }
}

/** Releases locks. Never throws. */
function unlockAll(held: ReadonlyMap<string, KubeconfigLock>): void {
  for (const { path, token } of held.values()) {
    attempt(() => unlinkSync(token));
    attempt(() => rmdirSync(path));
  }
}

async function lock(file: string): Promise<KubeconfigLock> {
  const path = `${file}.lock`;
  const deadline = Date.now() + waitInLine;
  let seen = { id: '', since: 0 };
  for (;;) {
    const token = take(path, file);
    if (token) return { path, token };
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found) {
      const id = `${found.ino} ${found.mtimeMs}`;
      if (id !== seen.id) seen = { id, since: Date.now() };
      // A file server's clock may differ from ours, so also count how long we have watched the lock.
      const age = Math.max(Date.now() - found.mtimeMs, Date.now() - seen.since);
      if (found.isDirectory() && age > staleAfter) {
        clear(path);
        // Take the lock at once: on a busy machine the next turn of the loop may come seconds later, when the wait is
        // over.
        const cleared = take(path, file);
        if (cleared) return { path, token: cleared };
      }
      if (Date.now() - seen.since > waitAtMost || Date.now() > deadline) throw busy(file, path, found);
    }
    await sleep(5 + Math.random() * 20);
  }
}

/** Returns the lock's token; undefined if another program has the lock. */
function take(path: string, file: string): string | undefined {
  try {
    makeFolder(dirname(path));
    mkdirSync(path, { mode: 0o700 });
  } catch (cause) {
    const code = systemCode(cause);
    // On Windows, mkdir fails with EPERM for a moment while a folder of that name is being removed.
    if (code === 'EEXIST' && lstatSync(path, { throwIfNoEntry: false })) return undefined;
    if (code === 'EEXIST' || (code === 'EPERM' && process.platform === 'win32')) return undefined;
    throw cannotWrite(file, cause);
  }
  const token = join(path, `tka-${randomBytes(8).toString('hex')}.tmp`);
  try {
    closeSync(openSync(token, 'wx', 0o600));
    // Another program may have removed our folder as stale and created its own. If there are two tokens, each program
    // removes its own and tries again.
    if (readdirSync(path).length === 1) return token;
    attempt(() => unlinkSync(token));
    attempt(() => rmdirSync(path));
    return undefined;
  } catch (cause) {
    attempt(() => unlinkSync(token));
    if (systemCode(cause) === 'ENOENT') return undefined;
    attempt(() => rmdirSync(path));
    throw cannotWrite(file, cause);
  }
}

// Removes what a killed run of ours left. A folder that contains anything else stays.
function clear(path: string): void {
  attempt(() => {
    for (const name of readdirSync(path)) if (tokenName.test(name)) attempt(() => unlinkSync(join(path, name)));
  });
  attempt(() => rmdirSync(path));
}

function busy(file: string, path: string, found: Stats): TkaError {
  const age = Math.max(0, Math.round((Date.now() - found.mtimeMs) / 1000));
  const remove = found.isDirectory() ? 'rm -r' : 'rm';
  return new TkaError(`${shown(file)} is locked by another program: ${shown(path)} is ${age} s old`, {
    hints: [`if no kubectl is running, remove it: ${remove} ${shellWord(path)}`],
  });
}

/** Returns the error for a kubeconfig that cannot be written. */
export function cannotWrite(file: string, cause: unknown): TkaError {
  const code = systemCode(cause) ?? 'unknown error';
  const why: Record<string, string> = {
    EACCES: 'permission denied',
    EPERM: 'not permitted',
    EROFS: 'the file system is read-only',
    ENOSPC: 'no space left on the disk',
    EDQUOT: 'the disk quota is used up',
    EFBIG: 'the file would become too large',
    ENOTDIR: 'part of its path is not a directory',
    ELOOP: 'its symbolic links form a loop',
    ENAMETOOLONG: 'its name is too long',
    EBUSY: 'it is in use (a mount point?)',
    ENOTFILE: 'it is not a regular file',
  };
  return new TkaError(`cannot write ${shown(file)}: ${why[code] ?? code}`, {
    hints: ['nothing was changed there; use another file: --kubeconfig FILE'],
    cause,
  });
}

/**
 * Returns the result of an action, or undefined if it fails. Use it where a failure that matters shows at the next
 * step.
 */
export function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
