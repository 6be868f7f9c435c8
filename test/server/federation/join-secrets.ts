// Join Secrets, as kubelet mounts them.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { writeToken } from '../../../src/server/federation/join-tokens.ts';

export interface TokenParts {
  readonly cluster: string;
  /** The keyHash of the login server's key. */
  readonly hash?: string;
}

/** Returns a join token. */
export const tokenFor = ({ cluster, hash = 'h'.repeat(43) }: TokenParts): string =>
  writeToken({ cluster, secret: 'join-1', key: 'k'.repeat(43), hash });

let versions = 0;

/**
 * Mounts a Secret in a folder as kubelet does (AtomicWriter): writes a new folder, makes `..data` point there with one
 * rename, and removes the old folder. No files: the optional Secret does not exist (any more).
 */
export function mountSecret(folder: string, files: Readonly<Record<string, string>>): void {
  const data = path.join(folder, '..data');
  const old = fs.lstatSync(data, { throwIfNoEntry: false }) && fs.readlinkSync(data);
  const fresh = `..2026_11_22.${++versions}`;
  fs.mkdirSync(path.join(folder, fresh));
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, fresh, name), text);
  fs.symlinkSync(fresh, `${data}_tmp`);
  fs.renameSync(`${data}_tmp`, data);
  for (const name of fs.readdirSync(folder)) {
    if (!name.startsWith('..') && files[name] === undefined) fs.rmSync(path.join(folder, name));
  }
  for (const name of Object.keys(files)) {
    const link = path.join(folder, name);
    if (fs.lstatSync(link, { throwIfNoEntry: false }) === undefined) fs.symlinkSync(path.join('..data', name), link);
  }
  if (old !== undefined) fs.rmSync(path.join(folder, old), { recursive: true });
}
