import * as path from 'node:path';
import { entryName, signedOutFile } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, removeLeftovers, writeFileAtomic } from '../util/files.ts';
import { explained, noHome, remove, serversIn } from './files.ts';

type Kind = 'signed-out' | 'insecure' | 'siblings';

/**
 * The files of one kind in the state folder, one per server. They outlive a cleaned cache.
 * `~/.local/state/kubectl-tka/insecure/https+tka.example.ts.net`
 */
export abstract class StateFiles {
  readonly #state: string | undefined;
  readonly #kind: Kind;

  constructor(kind: Kind, state: string | undefined) {
    this.#kind = kind;
    this.#state = state;
  }

  /** Removes a server's file. Throws TkaError if it is still there afterwards. */
  remove(server: string): void {
    const file = this.file(server);
    if (file !== undefined) explained(file, () => remove(file));
  }

  /** The path of a server's file; undefined if there is no state folder. */
  protected file(server: string): string | undefined {
    const name = entryName(server);
    if (this.#state === undefined || name === undefined) return undefined;
    return this.#kind === 'signed-out' ? signedOutFile(this.#state, name) : path.join(this.#state, this.#kind, name);
  }

  protected servers(): string[] {
    return this.#state === undefined ? [] : serversIn(path.join(this.#state, this.#kind));
  }

  /** Writes a server's file as JSON. Throws TkaError if it cannot be kept. */
  protected put(server: string, value: object): void {
    const file = this.file(server);
    const folder = this.#state;
    if (folder === undefined || file === undefined) throw new TkaError(noHome);
    explained(folder, () => {
      ensurePrivateFolder(folder);
      ensurePrivateFolder(path.dirname(file));
      removeLeftovers(file);
      writeFileAtomic(file, `${JSON.stringify(value)}\n`);
    });
  }
}
