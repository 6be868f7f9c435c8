import * as fs from 'node:fs';
import * as path from 'node:path';
import { systemCode, TkaError } from './errors.ts';
import { isObject, type Json, parseJson } from './json.ts';
import { fateOf, thisProcess } from './processes.ts';

/**
 * Creates a folder (0700) and its parents. Throws the system's error if it cannot. (Node's recursive mkdir never
 * returns for a folder in which nothing can be created, such as /proc.)
 */
export function makeFolder(folder: string, again = true): void {
  try {
    fs.mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    const code = systemCode(error);
    if (code === 'EEXIST' || fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) return;
    const parent = path.dirname(folder);
    if (code !== 'ENOENT' || parent === folder || !again) throw error;
    // Another process may create the same folders at this moment. That is fine too.
    if (!fs.existsSync(parent)) makeFolder(parent);
    makeFolder(folder, false);
  }
}

/**
 * Makes sure that a folder exists, belongs to this user, and is closed to others (0700). Throws TkaError or a system
 * error if it cannot, and for a shared folder (sticky, or another user's), which it leaves unchanged.
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
 * Returns the text of a file of this user; undefined if it is missing, not a regular file, another user's, or larger
 * than `limit` bytes. Never throws, never blocks.
 */
export function readOwn(file: string, limit: number): string | undefined {
  return fromOwn(file, limit, (fd) => fs.readFileSync(fd, 'utf8'));
}

/**
 * Returns the object in a JSON file of this user; undefined for anything else, and for a file larger than `limit`
 * bytes.
 */
export function readObject(file: string | undefined, limit = 64 * 1024): Json | undefined {
  const value = file === undefined ? undefined : parseJson(readOwn(file, limit) ?? '');
  return isObject(value) ? value : undefined;
}

/** Returns the first line of a file without its line feed, under the same conditions as readOwn(). */
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
 * Returns the temporary name under which to write a file before the rename. It names the process, so that a leftover
 * can be told from a file that is about to be renamed.
 */
export function temporaryName(file: string): string {
  const { pid, space } = thisProcess();
  return `${file}+${pid}.${space || '00000000'}.${uniqueName()}+tmp`;
}

/** Returns twelve random hexadecimal digits, as a unique name. (node:crypto takes 5 ms to load.) */
export function uniqueName(): string {
  return Math.floor(Math.random() * 2 ** 48)
    .toString(16)
    .padStart(12, '0');
}

/** Returns whether a file is older than a day: no process takes that long to write one. */
export function isAbandoned(file: string): boolean {
  return Math.abs(Date.now() - fs.lstatSync(file).mtimeMs) > 24 * 3_600_000;
}

/**
 * Removes temporary files that killed writers of a file left behind, but none that another process is about to rename.
 */
export function removeLeftovers(file: string): void {
  // Version 0.1.0 did not write the space of process IDs.
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
    // A folder that cannot be listed keeps its leftovers until it can.
  }
}

/**
 * Writes a file (0600) whole or not at all: temporary file, fsync, rename. Replaces anything of the same name. `mtime`
 * is in seconds since the epoch; `within` is the folder of the temporary file, by default the file's own. On failure
 * throws the system's error and leaves nothing behind.
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

/** Renames a file over another. Throws the system's error; on Windows only after retrying for a second. */
export function renameOver(from: string, to: string): void {
  for (let tries = 1; ; tries++) {
    try {
      fs.renameSync(from, to);
      return;
    } catch (error) {
      // Windows: another process has the old file open at this moment.
      const passing = process.platform === 'win32' && /^(?:EPERM|EACCES|EBUSY)$/.test(systemCode(error) ?? '');
      if (!passing || tries === 50) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}
