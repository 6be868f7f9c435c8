import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { systemCode, TkaError } from '../util/errors.ts';
import { removeLeftovers, renameOver, writeFileAtomic } from '../util/files.ts';
import { damage, maxBytes, shellWord, shown } from './damage.ts';
import { attempt, cannotWrite, type KubeconfigLock } from './lock.ts';

/** A file as it was read; `bytes` is undefined if the file does not exist. */
export interface Snapshot {
  readonly file: string;
  readonly bytes: Buffer | undefined;
  /** `device:inode`; undefined if the file does not exist. */
  readonly id: string | undefined;
}

/**
 * Reads a file, and never blocks on a pipe. Throws TkaError if it cannot be read, is larger than 16 MiB, or is neither
 * a regular file nor a character device.
 */
export function snapshot(file: string): Snapshot {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return { file, bytes: undefined, id: undefined };
    throw cannotRead(file, error);
  }
  try {
    const stat = fstatSync(fd, { bigint: true });
    // Character devices are allowed: KUBECONFIG=/dev/null means "no kubeconfig".
    if (!stat.isFile() && !stat.isCharacterDevice()) {
      const what = stat.isDirectory() ? 'a folder' : stat.isFIFO() ? 'a pipe' : 'not a file';
      throw new TkaError(`${shown(file)} is ${what}, not a kubeconfig`, {
        hints: ['use another file: --kubeconfig FILE'],
      });
    }
    return { file, bytes: readAll(file, fd), id: `${stat.dev}:${stat.ino}` };
  } catch (error) {
    throw error instanceof TkaError ? error : cannotRead(file, error);
  } finally {
    closeSync(fd);
  }
}

function readAll(file: string, fd: number): Buffer {
  const chunks: Buffer[] = [];
  for (let size = 0; ; ) {
    const chunk = Buffer.allocUnsafe(64 * 1024);
    const count = readSync(fd, chunk);
    if (count === 0) return Buffer.concat(chunks);
    size += count;
    if (size > maxBytes) throw damage({ file, lines: '' }, 0, 'larger than 16 MiB: not a kubeconfig');
    chunks.push(chunk.subarray(0, count));
  }
}

function cannotRead(file: string, cause: unknown): TkaError {
  const code = systemCode(cause);
  const why = code === 'EACCES' || code === 'EPERM' ? 'permission denied' : (code ?? 'unknown error');
  return new TkaError(`cannot read ${shown(file)}: ${why}`, { hints: [`ls -l ${shellWord(file)}`], cause });
}

/** Returns a path with the symbolic links among its folders resolved. Lock names are made from it. Never throws. */
export function place(file: string): string {
  return join(attempt(() => realpathSync(dirname(file))) ?? dirname(file), basename(file));
}

/**
 * Returns the file that a path leads to through symbolic links; the file need not exist. Throws TkaError if it is not a
 * regular file, is not writable, or if the links form a loop.
 */
export function target(file: string): string {
  let path = place(file);
  for (let hop = 0; hop < 40; hop++) {
    const link = attempt(() => readlinkSync(path));
    if (link === undefined) {
      const found = stat(path, file);
      // A rename would replace even a read-only file. kubectl does not change one, so refuse it too.
      if (found?.isFile()) attemptWrite(path, file);
      if (!found || found.isFile()) return path;
      throw cannotWrite(file, Object.assign(new Error('not a file'), { code: 'ENOTFILE' }));
    }
    path = place(resolve(dirname(path), link));
  }
  throw cannotWrite(file, Object.assign(new Error('too many links'), { code: 'ELOOP' }));
}

function stat(path: string, file: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (cause) {
    throw cannotWrite(file, cause);
  }
}

function attemptWrite(path: string, file: string): void {
  try {
    accessSync(path, constants.W_OK);
  } catch (cause) {
    throw cannotWrite(file, cause);
  }
}

/**
 * Throws TkaError if a file is not writable, if its links lead nowhere, or if the folders for the locks (kubectl's and
 * ours) are not writable.
 */
export function checkWritable(file: string): void {
  for (const path of [place(file), target(file)]) {
    let folder = dirname(path);
    while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
    attemptWrite(folder, file);
  }
}

/**
 * Writes a file's new text into the token of its lock, with the mode and owner of the old file. Throws TkaError, or an
 * error for which isLost() is true.
 */
export function stage(lock: KubeconfigLock, file: string, text: string): void {
  try {
    const old = statSync(file, { throwIfNoEntry: false });
    const fd = openSync(lock.token, constants.O_WRONLY);
    try {
      writeFileSync(fd, text);
      const own = fstatSync(fd);
      if (old && (old.uid !== own.uid || old.gid !== own.gid)) giveTo(fd, old.uid, old.gid);
      if (old && process.platform !== 'win32') fchmodSync(fd, old.mode & 0o7777);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw isLost(cause) ? cause : cannotWrite(file, cause);
  }
}

function giveTo(fd: number, uid: number, gid: number): void {
  try {
    fchownSync(fd, uid, gid);
  } catch {
    // Only root can change the owner. Otherwise the file belongs to the user that runs this program.
  }
}

/** Renames a staged text into place. Throws TkaError, or an error for which isLost() is true. */
export function commit(lock: KubeconfigLock, file: string): void {
  try {
    try {
      renameOver(lock.token, file);
    } catch (cause) {
      // EBUSY: the file itself is a mount point, as in dev containers, so it cannot be replaced.
      if (systemCode(cause) !== 'EBUSY') throw cause;
      writeInPlace(file, readFileSync(lock.token));
    }
  } catch (cause) {
    throw isLost(cause) ? cause : cannotWrite(file, cause);
  }
}

/**
 * Overwrites a file that cannot be replaced, as kubectl does. Meanwhile `config.tka-backup` beside it holds the old
 * text in case the process is killed, if the folder allows it. If the write fails, restores the old text if possible
 * and throws the system's error.
 */
function writeInPlace(file: string, text: Buffer): void {
  const before = readFileSync(file);
  const backup = `${file}.tka-backup`;
  attempt(() => {
    removeLeftovers(backup);
    writeFileAtomic(backup, before);
  });
  const fd = openSync(file, 'r+');
  try {
    overwrite(fd, text);
  } catch (cause) {
    overwrite(fd, before);
    throw cause;
  } finally {
    closeSync(fd);
  }
  attempt(() => unlinkSync(backup));
}

function overwrite(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at);
  ftruncateSync(fd, bytes.length);
  fsyncSync(fd);
}

/** Returns whether an error means that another program removed our lock, with the token in it, as stale. */
export function isLost(error: unknown): boolean {
  return !(error instanceof TkaError) && systemCode(error) === 'ENOENT';
}
