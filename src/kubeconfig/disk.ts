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

/** A file's bytes; none where it does not exist. */
export interface Snapshot {
  readonly file: string;
  readonly bytes: Buffer | undefined;
  /** Device and inode. */
  readonly id: string | undefined;
}

/** Reads a file without ever waiting for one that is no file. Throws TkaError for what cannot be a kubeconfig. */
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
    // /dev/null is how people say "no kubeconfig".
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

/** A path with the links among its folders resolved: the name under which it is locked. Never throws. */
export function place(file: string): string {
  return join(attempt(() => realpathSync(dirname(file))) ?? dirname(file), basename(file));
}

/**
 * The file that a path leads to through symbolic links, whether it exists or not. Throws TkaError where that is no
 * regular file, one that we may not write, or a circle.
 */
export function target(file: string): string {
  let path = place(file);
  for (let hop = 0; hop < 40; hop++) {
    const link = attempt(() => readlinkSync(path));
    if (link === undefined) {
      const found = stat(path, file);
      // A rename would get round it; kubectl respects that.
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

/** Throws TkaError where a file may not be written, leads nowhere, or cannot be locked, as kubectl and we do. */
export function checkWritable(file: string): void {
  for (const path of [place(file), target(file)]) {
    let folder = dirname(path);
    while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
    attemptWrite(folder, file);
  }
}

/** Writes a file's new text into its lock's token, with the old file's mode and owner. Throws TkaError. */
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
    // Only root may do so; otherwise the file belongs to the user who writes it.
  }
}

/** Puts a staged text in its place. Throws TkaError, or the ENOENT that isLost knows. */
export function commit(lock: KubeconfigLock, file: string): void {
  try {
    try {
      renameOver(lock.token, file);
    } catch (cause) {
      // A file that is a mount point of its own, as dev containers have it.
      if (systemCode(cause) !== 'EBUSY') throw cause;
      writeInPlace(file, readFileSync(lock.token));
    }
  } catch (cause) {
    throw isLost(cause) ? cause : cannotWrite(file, cause);
  }
}

/**
 * Writes over a file that cannot be replaced, as kubectl does. What a kill halfway would lose is beside it until then,
 * as `config.tka-backup`, where the folder allows. Throws the system's error, the file being as it was if it can be.
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

/** Whether an error means that our lock, and the token in it, was taken from us as stale. */
export function isLost(error: unknown): boolean {
  return !(error instanceof TkaError) && systemCode(error) === 'ENOENT';
}
