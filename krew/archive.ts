// Archives that are the same bytes whenever and wherever they are made from the same files.
import * as path from 'node:path';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { type Zippable, zipSync } from 'fflate';
import { Header } from 'tar';

export interface Entry {
  /** A relative path with slashes. */
  readonly name: string;
  readonly data: Uint8Array;
  readonly mode: 0o644 | 0o755;
}

// Each folder before what is in it: not all that reads a .zip makes those that are missing.
function withFolders(entries: readonly Entry[]): (Entry & { readonly folder?: true })[] {
  const seen = new Set(['./']);
  return entries.flatMap((entry) => {
    const name = `${path.posix.dirname(entry.name)}/`;
    if (seen.has(name)) return [entry];
    seen.add(name);
    return [{ name, data: new Uint8Array(), mode: 0o755, folder: true }, entry];
  });
}

/** A .tar.gz of files in the given order: all of one time, and root's. */
export async function tarGz(entries: readonly Entry[], time: Date): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for (const { name, data, mode, folder } of withFolders(entries)) {
    const type = folder ? 'Directory' : 'File';
    const header = new Header({ path: name, mode, uid: 0, gid: 0, size: data.length, mtime: time, type });
    if (header.encode()) throw new Error(`${name} does not fit into a plain header`);
    parts.push(header.block ?? Buffer.alloc(0), data, Buffer.alloc(-data.length & 511));
  }
  const packed = await promisify(zlib.gzip)(Buffer.concat([...parts, Buffer.alloc(1024)]));
  // The system that it was made on: unknown.
  packed[9] = 255;
  return packed;
}

/** A .zip of files in the given order, all of one time. */
export function zip(entries: readonly Entry[], time: Date): Buffer {
  // A zip has the time of a wall clock; that of UTC is the same in every zone.
  const mtime = new Date(
    Math.max(time.getUTCFullYear(), 1980),
    time.getUTCMonth(),
    time.getUTCDate(),
    time.getUTCHours(),
    time.getUTCMinutes(),
    time.getUTCSeconds(),
  );
  const unix = 3;
  const files: Zippable = {};
  for (const { name, data, mode, folder } of withFolders(entries)) {
    const type = folder ? 0o040000 : 0o100000;
    files[name] = [data, { mtime, os: unix, attrs: ((type | mode) << 16) >>> 0 }];
  }
  return Buffer.from(zipSync(files));
}
