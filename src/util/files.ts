import * as fs from 'node:fs';
import * as path from 'node:path';
import { systemCode, TkaError } from './errors.ts';
import { isObject, type Json, parseJson } from './json.ts';
import { fateOf, thisProcess } from './processes.ts';

/**
 * Makes a folder (0700) and those above it. Throws the system's error where it cannot be. (Node's own recursive mkdir
 * never returns where a folder exists but lets nothing be made in it, as /proc.)
 */
export function makeFolder(folder: string, again = true): void {
  try {
    fs.mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    const code = systemCode(error);
    if (code === 'EEXIST' || fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) return;
    const parent = path.dirname(folder);
    if (code !== 'ENOENT' || parent === folder || !again) throw error;
    // Others may be making the same folders at this moment: what has appeared meanwhile is as good as made.
    if (!fs.existsSync(parent)) makeFolder(parent);
    makeFolder(folder, false);
  }
}

/**
 * Makes sure that a folder exists, is ours, and is closed to others (0700). Throws TkaError or a system error where
 * it cannot be so; a folder that is shared by its nature (sticky, or another user's) is left as it is.
 */
export function ensurePrivateFolder(folder: string): void {
  makeFolder(folder);
  const stat = fs.statSync(folder);
  if (!stat.isDirectory()) throw new TkaError(`${folder} is not a folder`);
  if (process.getuid === undefined) return;
  if (stat.uid !== process.getuid() || (stat.mode & 0o1000) !== 0) {
    throw new TkaError(`${folder} is shared with other users`);
  }
  if ((stat.mode & 0o077) !== 0) fs.chmodSync(folder, 0o700);
}

/**
 * The text of a file of ours; undefined for an absent one, one that is no regular file, another user's, or one over
 * `limit` bytes. Never throws, never hangs.
 */
export function readOwn(file: string, limit: number): string | undefined {
  return fromOwn(file, limit, (fd) => fs.readFileSync(fd, 'utf8'));
}

/** Returns the object in a JSON file of this user; undefined for anything else, and for a file over `limit` bytes. */
export function readObject(file: string | undefined, limit = 64 * 1024): Json | undefined {
  const value = file === undefined ? undefined : parseJson(readOwn(file, limit) ?? '');
  return isObject(value) ? value : undefined;
}

/** The same as readOwn() for the first line alone, without its line feed. */
export function readOwnLine(file: string, limit: number): string | undefined {
  return fromOwn(file, limit, (fd) => {
    const chunks: Buffer[] = [];
    for (;;) {
      const chunk = Buffer.allocUnsafe(256 * 1024);
      const read = chunk.subarray(0, fs.readSync(fd, chunk));
      const end = read.indexOf('\n');
      chunks.push(end < 0 ? read : read.subarray(0, end));
      if (end >= 0 || read.length === 0) return Buffer.concat(chunks).toString('utf8');
    }
  });
}

function fromOwn(file: string, limit: number, read: (fd: number) => string): string | undefined {
  let fd: number | undefined;
  try {
    // Windows has no O_NOFOLLOW.
    if (!fs.lstatSync(file).isFile()) return undefined;
    fd = fs.openSync(file, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0) | (fs.constants.O_NOFOLLOW ?? 0));
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.size > limit || (process.getuid !== undefined && stat.uid !== process.getuid()))
      return undefined;
    return read(fd);
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}

/**
 * The name under which a file is written before it gets its own: it says which process wrote it, so that leftovers can
 * be told from what is about to be renamed.
 */
export function temporaryName(file: string): string {
  const { pid, space } = thisProcess();
  return `${file}+${pid}.${space || '00000000'}.${uniqueName()}+tmp`;
}

/** Twelve hexadecimal digits that are different each time. (node:crypto takes 5 ms to load.) */
export function uniqueName(): string {
  return Math.floor(Math.random() * 2 ** 48)
    .toString(16)
    .padStart(12, '0');
}

/** True for what is older than a day: no process takes so long over a file. */
export function isAbandoned(file: string): boolean {
  return Math.abs(Date.now() - fs.lstatSync(file).mtimeMs) > 24 * 3_600_000;
}

/** Removes what killed writers of a file have left behind; never what another process is about to rename. */
export function removeLeftovers(file: string): void {
  // 0.1.0 named no space of process IDs.
  const shape = /^\+([0-9]{1,10})\.(?:([0-9a-f]{8})\.)?[0-9a-f]{12}\+tmp$/;
  const folder = path.dirname(file);
  const start = path.basename(file);
  try {
    for (const name of fs.readdirSync(folder)) {
      const [, pid, space = thisProcess().space] =
        (name.startsWith(start) && shape.exec(name.slice(start.length))) || [];
      if (pid === undefined) continue;
      const leftover = path.join(folder, name);
      const fate = fateOf({ space, pid: Number(pid), start: undefined });
      if (fate === 'gone' || isAbandoned(leftover)) fs.rmSync(leftover, { recursive: true, force: true });
    }
  } catch {
    // A folder that cannot be listed keeps them until it can.
  }
}

/**
 * Writes a file (0600) whole or not at all: temporary file, fsync, rename. Takes the place of whatever has its name.
 * `mtime` is in seconds of the epoch; `within` is the folder for the temporary file, the file's own if absent. Throws
 * the system's error, and leaves nothing behind then.
 */
export function writeFileAtomic(
  file: string,
  text: string | Uint8Array,
  options: { mtime?: number; mode?: number; within?: string | undefined } = {},
): void {
  const { within } = options;
  const temporary = temporaryName(within === undefined ? file : path.join(within, path.basename(file)));
  const mode = options.mode ?? 0o600;
  const fd = fs.openSync(temporary, 'wx', mode);
  try {
    try {
      fs.writeFileSync(fd, text);
      if (mode !== 0o600) fs.fchmodSync(fd, mode);
      if (options.mtime !== undefined) fs.futimesSync(fd, options.mtime, options.mtime);
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    if (fs.lstatSync(file, { throwIfNoEntry: false })?.isDirectory()) fs.rmSync(file, { recursive: true, force: true });
    renameOver(temporary, file);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}

/** Renames a file over another. Throws the system's error; on Windows, only after trying for a second. */
export function renameOver(from: string, to: string): void {
  for (let tries = 1; ; tries++) {
    try {
      fs.renameSync(from, to);
      return;
    } catch (error) {
      // Windows: somebody is reading the old file at this moment.
      const passing = process.platform === 'win32' && /^(?:EPERM|EACCES|EBUSY)$/.test(systemCode(error) ?? '');
      if (!passing || tries === 50) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}
