import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, exists } from '../credential/entry.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../util/files.ts';

/** One small file for each server that something is noted of: `~/.local/state/kubectl-tka/away/https+tka.example.ts.net`. */
class ServerMarks {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined, name: string) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, name);
  }

  protected file(server: string): string | undefined {
    const name = entryName(server);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, name);
  }

  /** Returns the file to write, its folders made; undefined without a state folder. Throws the system's error. */
  protected fileToWrite(server: string): string | undefined {
    const file = this.file(server);
    if (file === undefined) return undefined;
    ensurePrivateFolder(path.dirname(path.dirname(file)));
    ensurePrivateFolder(path.dirname(file));
    return file;
  }
}

/** The servers without a tag that the user has signed in to by their URL. */
export class AcceptedServers extends ServerMarks {
  constructor(stateFolder: string | undefined) {
    super(stateFolder, 'accepted');
  }

  has(server: string): boolean {
    const file = this.file(server);
    return file !== undefined && readOwn(file, 4096) !== undefined;
  }

  /** Throws the system's error where it cannot be kept. */
  add(server: string): void {
    const file = this.has(server) ? undefined : this.fileToWrite(server);
    if (file !== undefined) writeFileAtomic(file, `${JSON.stringify({ server })}\n`);
  }

  /** Throws the system's error where it cannot be removed. */
  remove(server: string): void {
    const file = this.file(server);
    if (file !== undefined) fs.rmSync(file, { force: true });
  }
}

/** Milliseconds for which a server that did not answer is asked after the others. */
const askedLast = 60_000;

export type Away = 'failed' | 'silent';

/** Servers that did not answer a moment ago, to this process or another. */
export class AwayServers extends ServerMarks {
  constructor(stateFolder: string | undefined) {
    super(stateFolder, 'away');
  }

  /**
   * Returns how a server behaved within the last minute: `failed` where it could not be reached, `silent` where another one
   * was faster by far; undefined where neither is known.
   */
  has(server: string): Away | undefined {
    const file = this.file(server);
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
    try {
      const file = this.fileToWrite(server);
      if (file === undefined) return;
      fs.rmSync(file, { force: true });
      fs.writeFileSync(file, how === 'failed' ? 'failed\n' : '', { mode: 0o600 });
    } catch {
      // Best effort.
    }
  }

  /** Notes that a server answers again. Never throws. */
  clear(server: string): void {
    const file = this.file(server);
    if (file === undefined || !exists(file)) return;
    try {
      fs.rmSync(file, { force: true });
    } catch {
      // Best effort.
    }
  }
}
