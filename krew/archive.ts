// Reproducible archives: the same files always give the same bytes.
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

// List each folder before its content: some programs that read a .zip do not create missing folders.
function withFolders(entries: readonly Entry[]): (Entry & { readonly folder?: true })[] {
  const seen = new Set(['./']);
  return entries.flatMap((entry) => {
    const name = `${path.posix.dirname(entry.name)}/`;
    if (seen.has(name)) return [entry];
    seen.add(name);
    return [{ name, data: new Uint8Array(), mode: 0o755, folder: true }, entry];
  });
}

/** Returns a .tar.gz of files in the given order. All have the same time, and root as owner. */
export async function tarGz(entries: readonly Entry[], time: Date): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for (const { name, data, mode, folder } of withFolders(entries)) {
    const type = folder ? 'Directory' : 'File';
    const header = new Header({ path: name, mode, uid: 0, gid: 0, size: data.length, mtime: time, type });
    if (header.encode()) throw new Error(`${name} does not fit into a plain header`);
    parts.push(header.block ?? Buffer.alloc(0), data, Buffer.alloc(-data.length & 511));
  }
  const packed = await promisify(zlib.gzip)(Buffer.concat([...parts, Buffer.alloc(1024)]));
  // Operating system: unknown.
  packed[9] = 255;
  return packed;
}

/** Returns a .zip of files in the given order, all with the same time. */
export function zip(entries: readonly Entry[], time: Date): Buffer {
  // A zip stores local time; always use UTC.
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
