import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, exists } from '../credential/entry.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../util/files.ts';

/** Notes about servers, one small file per server: `~/.local/state/kubectl-tka/away/https+tka.example.ts.net`. */
class ServerMarks {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined, name: string) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, name);
  }

  protected file(server: string): string | undefined {
    const name = entryName(server);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, name);
  }

  /** Creates the folders and returns the file's path; undefined without a state folder. Throws the system's error. */
  protected fileToWrite(server: string): string | undefined {
    const file = this.file(server);
    if (file === undefined) return undefined;
    ensurePrivateFolder(path.dirname(path.dirname(file)));
    ensurePrivateFolder(path.dirname(file));
    return file;
  }
}

/** Servers without the tag that the user has signed in to by URL. */
export class AcceptedServers extends ServerMarks {
  constructor(stateFolder: string | undefined) {
    super(stateFolder, 'accepted');
  }

  has(server: string): boolean {
    const file = this.file(server);
    return file !== undefined && readOwn(file, 4096) !== undefined;
  }

  /** Records a server. Throws the system's error. */
  add(server: string): void {
    const file = this.has(server) ? undefined : this.fileToWrite(server);
    if (file !== undefined) writeFileAtomic(file, `${JSON.stringify({ server })}\n`);
  }

  /** Removes the record of a server. Throws the system's error. */
  remove(server: string): void {
    const file = this.file(server);
    if (file !== undefined) fs.rmSync(file, { force: true });
  }
}

/** How long a server that did not answer is asked after the others, in milliseconds. */
const askedLast = 60_000;

export type Away = 'failed' | 'silent';

/** Servers that did not answer this or another process a moment ago. */
export class AwayServers extends ServerMarks {
  constructor(stateFolder: string | undefined) {
    super(stateFolder, 'away');
  }

  /**
   * Returns how a server behaved within the last minute: `failed` if it could not be reached, `silent` if another
   * server was much faster, undefined otherwise.
   */
  has(server: string): Away | undefined {
    const file = this.file(server);
    try {
      if (file === undefined) return undefined;
      const { mtimeMs, size } = fs.lstatSync(file);
      const age = Date.now() - mtimeMs;
      // Ignore future times (the clock was set back): they would never expire. Allow 1 s, since file times have
      // fractions of a millisecond and Date.now() does not.
      if (age <= -1000 || age >= askedLast) return undefined;
      return size > 0 ? 'failed' : 'silent';
    } catch {
      return undefined;
    }
  }

  /** Records that a server did not answer. Never throws: without the note, the next command waits for it again. */
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

  /** Records that a server answers again. Never throws. */
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
