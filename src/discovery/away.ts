import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, exists } from '../credential/entry.ts';
import { ensurePrivateFolder } from '../util/files.ts';

/** A server that did not answer is asked after the others for so long, in milliseconds. */
const askedLast = 60_000;

export type Away = 'failed' | 'silent';

/** Servers that did not answer a moment ago, to this process or another: `~/.local/state/kubectl-tka/away/…`. */
export class AwayServers {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, 'away');
  }

  #file(server: string): string | undefined {
    const name = entryName(server);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, name);
  }

  /**
   * Returns how a server behaved within the last minute: `failed` where it could not be reached, `silent` where another one
   * was faster by far; undefined where neither is known.
   */
  has(server: string): Away | undefined {
    const file = this.#file(server);
    try {
      if (file === undefined) return undefined;
      const { mtimeMs, size } = fs.lstatSync(file);
      const age = Date.now() - mtimeMs;
      // A time to come (the clock was set back) would count for ever. File times have fractions that Date.now() lacks.
      if (age <= -1000 || age >= askedLast) return undefined;
      return size > 0 ? 'failed' : 'silent';
    } catch {
      return undefined;
    }
  }

  /** Notes that a server did not answer. Never throws: without the note, it costs a moment again. */
  note(server: string, how: Away): void {
    const file = this.#file(server);
    if (file === undefined) return;
    try {
      ensurePrivateFolder(path.dirname(path.dirname(file)));
      ensurePrivateFolder(path.dirname(file));
      fs.rmSync(file, { force: true });
      fs.writeFileSync(file, how === 'failed' ? 'failed\n' : '', { mode: 0o600 });
    } catch {
      // Best effort.
    }
  }

  /** Notes that a server answers again. Never throws. */
  clear(server: string): void {
    const file = this.#file(server);
    if (file === undefined || !exists(file)) return;
    try {
      fs.rmSync(file, { force: true });
    } catch {
      // Best effort.
    }
  }
}
