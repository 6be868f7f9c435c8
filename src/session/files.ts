// How this room reads, lists and removes its files.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, serverOfEntry, signedOutFile } from '../credential/entry.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, readOwn, removeLeftovers, writeFileAtomic } from '../util/files.ts';
import { LostLock } from './held-lock.ts';

export const noHome = 'the environment names no home folder (HOME is unset)';

/** The object in a JSON file of ours; undefined for anything else, and for a file over `limit` bytes. */
export function readObject(file: string, limit = 64 * 1024): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(readOwn(file, limit) ?? '');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** The servers whose files are in a folder, sorted. */
export function serversIn(folder: string): string[] {
  try {
    return fs
      .readdirSync(folder)
      .sort()
      .flatMap((name) => serverOfEntry(name) ?? []);
  } catch {
    return [];
  }
}

/** Removes whatever is at a path. Throws the system's error. */
export function remove(file: string): void {
  fs.rmSync(file, { recursive: true, force: true });
}

/** Runs `act`; throws its system errors as a TkaError about `what`. */
export function explained(what: string, act: () => void): void {
  try {
    act();
  } catch (cause) {
    if (cause instanceof TkaError || cause instanceof LostLock) throw cause;
    throw new TkaError(`${what}: ${systemCode(cause) ?? 'cannot be written'}`, { cause });
  }
}

/**
 * The files of one kind in the state folder, one per server. They outlive a cleaned cache.
 * `~/.local/state/kubectl-tka/insecure/https+tka.example.ts.net`
 */
export class StateFiles {
  readonly #state: string | undefined;
  readonly #kind: 'signed-out' | 'insecure' | 'siblings';

  constructor(state: string | undefined, kind: 'signed-out' | 'insecure' | 'siblings') {
    this.#state = state;
    this.#kind = kind;
  }

  /** The path of a server's file; undefined if there is no state folder. */
  path(server: string): string | undefined {
    const name = entryName(server);
    if (this.#state === undefined || name === undefined) return undefined;
    return this.#kind === 'signed-out' ? signedOutFile(this.#state, name) : path.join(this.#state, this.#kind, name);
  }

  servers(): string[] {
    return this.#state === undefined ? [] : serversIn(path.join(this.#state, this.#kind));
  }

  /** Writes a server's file. Throws TkaError if it cannot be kept. */
  write(server: string, text: string): void {
    const file = this.path(server);
    const folder = this.#state;
    if (folder === undefined || file === undefined) throw new TkaError(noHome);
    explained(folder, () => {
      ensurePrivateFolder(folder);
      ensurePrivateFolder(path.dirname(file));
      removeLeftovers(file);
      writeFileAtomic(file, text);
    });
  }

  /** Removes a server's file. Throws TkaError if it is still there afterwards. */
  remove(server: string): void {
    const file = this.path(server);
    if (file !== undefined) explained(file, () => remove(file));
  }
}
