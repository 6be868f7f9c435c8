import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, exists, serverOfEntry, signedOutFile } from '../credential/entry.ts';
import type { TokenAccess } from '../tka/answers.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, readObject, readOwn, removeLeftovers, writeFileAtomic } from '../util/files.ts';
import type { Json } from '../util/json.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer, canonicalServer, placeOf } from '../util/url.ts';
import { LostLock, noHome } from './lock.ts';
import { isTimestamp } from './session.ts';
import type { Siblings } from './siblings.ts';

type Kind = 'signed-out' | 'insecure' | 'siblings';

/**
 * The files of one kind in the state folder, one per server:
 * `~/.local/state/kubectl-tka/insecure/https+tka.example.ts.net`. They survive a cleaned cache.
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

  /** Returns the path of a server's file, or undefined if there is no state folder. */
  protected file(server: string): string | undefined {
    const name = entryName(server);
    if (this.#state === undefined || name === undefined) return undefined;
    return this.#kind === 'signed-out' ? signedOutFile(this.#state, name) : path.join(this.#state, this.#kind, name);
  }

  protected servers(): string[] {
    return this.#state === undefined ? [] : serversIn(path.join(this.#state, this.#kind));
  }

  /** Writes a server's file as JSON. Throws TkaError if it cannot be written. */
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

/** Returns the servers whose files are in a folder, sorted by file name. */
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

/** Removes the file or folder at a path. Throws the system's error. */
export function remove(file: string): void {
  fs.rmSync(file, { recursive: true, force: true });
}

/** Runs `act`. Turns its system errors into a TkaError about `what`. */
export function explained(what: string, act: () => void): void {
  try {
    act();
  } catch (cause) {
    if (cause instanceof TkaError || cause instanceof LostLock) throw cause;
    throw new TkaError(`${what}: ${systemCode(cause) ?? 'cannot be written'}`, { cause });
  }
}

/** Limit on the file's size in bytes. A CA is at most 64 KiB, and base64 makes it a third longer. */
const sizeLimit = 256 * 1024;

/**
 * What servers reported about their clusters at the last sign-in:
 * `~/.local/state/kubectl-tka/siblings/https+tka.example.ts.net`.
 */
export class SiblingNotes extends StateFiles {
  /**
   * Reads what a server reported about its cluster, and the cluster's other servers; undefined if missing or damaged.
   */
  read(server: string): Siblings | undefined {
    return parseSiblings(readObject(this.file(server), sizeLimit));
  }

  /** Writes it, if it has changed. Throws TkaError if it cannot be written. */
  write(server: string, siblings: Siblings): void {
    const value = { server, ...siblings.known, servers: siblings.servers };
    const file = this.file(server);
    if (file === undefined || readOwn(file, sizeLimit) !== `${JSON.stringify(value)}\n`) this.put(server, value);
  }
}

function parseSiblings(value: Json | undefined): Siblings | undefined {
  const { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore, servers } = value ?? {};
  if (typeof apiServer !== 'string' || typeof caData !== 'string' || typeof insecureSkipTlsVerify !== 'boolean')
    return undefined;
  if (typeof cluster !== 'string' || typeof signInStore !== 'string' || !Array.isArray(servers)) return undefined;
  try {
    const known = { apiServer: canonicalApiServer(apiServer), caData, insecureSkipTlsVerify, cluster, signInStore };
    return { known, servers: servers.map((server) => canonicalServer(String(server))) };
  } catch {
    return undefined;
  }
}

/** The mark that a logout leaves until the next login. */
export interface SignedOutMark {
  readonly server: string;
  readonly username: string | null;
  readonly role: string | null;
  readonly until: string | null;
  /** When the user signed out, in milliseconds since the epoch. */
  readonly at: number;
  /** True if the server's clean-up was over when it answered. A login then need not wait for it. */
  readonly complete: boolean;
  /** Set by `forget`: hides the mark in the output. kubectl still gets no token until the next login. */
  readonly forgotten: boolean;
}

/** The marks of logouts: `~/.local/state/kubectl-tka/signed-out/https+tka.example.ts.net`. */
export class SignedOutMarks extends StateFiles {
  /** Reads the mark of a server. Anything at its path counts as a mark, readable or not. */
  read(server: string): SignedOutMark | undefined {
    const file = this.file(server);
    if (file === undefined || !exists(file)) return undefined;
    const at = fs.lstatSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    const value = readObject(file) ?? {};
    const text = (key: string) => (typeof value[key] === 'string' ? cleanText(value[key]) : null);
    return {
      server,
      username: text('username'),
      role: text('role'),
      until: isTimestamp(value.until) ? value.until : null,
      at,
      complete: value.complete === true,
      forgotten: value.forgotten === true,
    };
  }

  /** Returns all marks except the forgotten ones, sorted by server. */
  list(): SignedOutMark[] {
    return this.servers()
      .flatMap((server) => this.read(server) ?? [])
      .filter(({ forgotten }) => !forgotten);
  }

  /** Writes a mark. Throws TkaError if it cannot be written. */
  write(mark: Omit<SignedOutMark, 'at'>): void {
    try {
      this.put(mark.server, mark);
    } catch (cause) {
      if (!(cause instanceof TkaError)) throw cause;
      throw new TkaError(`cannot record on this machine that you are signed out of ${mark.server}: ${cause.message}`, {
        hints: ['kubectl signs in again unless you remove the context: kubectl config delete-context NAME'],
        cause,
      });
    }
  }

  /** Removes a mark that `forget` left, because the user wants the context again. Throws TkaError if that fails. */
  recall(server: string): void {
    if (this.read(server)?.forgotten === true) this.remove(server);
  }

  /**
   * Marks a server as forgotten and keeps the user's details of its mark. Throws TkaError if that cannot be written.
   */
  forget(server: string): void {
    const { username = null, role = null, until = null, complete = false } = this.read(server) ?? {};
    this.write({ server, username, role, until, complete, forgotten: true });
  }
}

/**
 * The API servers that the user agreed to reach without TLS verification, one per TKA server:
 * `~/.local/state/kubectl-tka/insecure/https+tka.example.ts.net`.
 */
export class InsecureConsents extends StateFiles {
  /** Returns the API server that the user agreed to for a TKA server; undefined without consent. */
  read(server: string): string | undefined {
    const apiServer = readObject(this.file(server))?.apiServer;
    return typeof apiServer === 'string' ? apiServer : undefined;
  }

  /** Writes a consent. Throws TkaError if it cannot be written. */
  write(server: string, apiServer: string): void {
    this.put(server, { server, apiServer });
  }

  /**
   * Checks the access that a server gives. Throws TkaError if it is for another API server than `apiServer`, or if it
   * skips TLS verification without the user's consent. `agreed` gives that consent and stores it.
   */
  check(server: string, access: TokenAccess, apiServer: string | undefined, agreed: boolean): void {
    if (apiServer !== undefined && access.apiServer !== apiServer) {
      throw new TkaError(`${placeOf(server)} gives tokens for ${access.apiServer}, not ${apiServer}`, {
        hints: [`if the cluster has moved, update the context: kubectl tka login ${server}`],
      });
    }
    if (!access.insecureSkipTlsVerify || this.read(server) === access.apiServer) return;
    if (!agreed) {
      throw new TkaError(`${placeOf(server)} asks clients to skip TLS verification of ${access.apiServer}`, {
        hints: [`if you accept that: kubectl tka login ${server} --insecure-skip-tls-verify`],
      });
    }
    this.write(server, access.apiServer);
  }
}
