import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName } from '../credential/entry.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../util/files.ts';

/** The servers without a tag that the user has signed in to by their URL: `~/.local/state/kubectl-tka/accepted/…`. */
export class AcceptedServers {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, 'accepted');
  }

  #file(server: string): string | undefined {
    const name = entryName(server);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, name);
  }

  has(server: string): boolean {
    const file = this.#file(server);
    return file !== undefined && readOwn(file, 4096) !== undefined;
  }

  /** Throws the system's error where it cannot be kept. */
  add(server: string): void {
    const file = this.#file(server);
    if (file === undefined || this.has(server)) return;
    ensurePrivateFolder(path.dirname(path.dirname(file)));
    ensurePrivateFolder(path.dirname(file));
    writeFileAtomic(file, `${JSON.stringify({ server })}\n`);
  }

  /** Throws the system's error where it cannot be removed. */
  remove(server: string): void {
    const file = this.#file(server);
    if (file !== undefined) fs.rmSync(file, { force: true });
  }
}
