import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, formatEntry, readEntry } from '../credential/entry.ts';
import type { Paths } from '../settings/paths.ts';
import { TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, readObject, removeLeftovers, uniqueName, writeFileAtomic } from '../util/files.ts';
import { cleanText } from '../util/text.ts';
import { type EntryLock, LostLock, noHome } from './lock.ts';
import { entryOf, type Session, sessionOf } from './session.ts';
import { explained, InsecureConsents, remove, SiblingNotes, SignedOutMarks, serversIn } from './state.ts';

/** Everything that this machine stores about sessions: the cache entries, the files beside them and the state files. */
export class SessionStore {
  /** The folder of the entries; undefined if there is none. */
  readonly folder: string | undefined;
  readonly failures: FailureNotes;
  readonly signedOut: SignedOutMarks;
  readonly consents: InsecureConsents;
  readonly siblings: SiblingNotes;

  constructor({ cache, state }: Pick<Paths, 'cache' | 'state'>) {
    this.folder = cache;
    this.failures = new FailureNotes((server) => this.entryFile(server, '+failed'));
    this.signedOut = new SignedOutMarks('signed-out', state);
    this.consents = new InsecureConsents('insecure', state);
    this.siblings = new SiblingNotes('siblings', state);
  }

  /** Returns the path of a server's entry, or with a `+suffix`, of a file beside it. */
  entryFile(server: string, suffix = ''): string | undefined {
    const name = entryName(server);
    return this.folder === undefined || name === undefined ? undefined : path.join(this.folder, name + suffix);
  }

  /** Reads a server's session, fresh or not. Returns undefined if it is missing or damaged. Repairs the file's mode. */
  read(server: string): Session | undefined {
    const file = this.entryFile(server);
    if (this.folder === undefined || file === undefined) return undefined;
    const entry = readEntry(this.folder, server);
    if (entry === undefined) return undefined;
    mendMode(file, 0o600);
    mendMode(this.folder, 0o700);
    return sessionOf(entry);
  }

  /** Returns all undamaged sessions, sorted by server. */
  list(): Session[] {
    return this.folder === undefined ? [] : serversIn(this.folder).flatMap((server) => this.read(server) ?? []);
  }

  /**
   * Writes a session under the server's lock. `lock` is undefined only if the lock cannot be created. Throws TkaError
   * with the reason if the session cannot be written, LostLock if another process has taken the lock over.
   */
  write(session: Session, lock: EntryLock | undefined): void {
    const file = this.entryFile(session.server);
    const { folder } = this;
    if (folder === undefined || file === undefined) throw new TkaError(noHome);
    explained(folder, () => {
      if (lock === undefined) ensurePrivateFolder(folder);
      const isNew = readEntry(folder, session.server)?.token !== session.token;
      const text = formatEntry(entryOf(session));
      underLock(lock, () => writeFileAtomic(file, text, { mtime: session.freshUntil, within: lock?.folder }));
      // These notes are about the previous token.
      if (isNew) for (const suffix of ['+served', '+checked']) remove(`${file}${suffix}`);
    });
  }

  /**
   * Removes a server's token under the server's lock. `lock` is undefined if the lock cannot be created, or for a
   * logout that cannot wait for it. Throws TkaError if the token is still there afterwards, LostLock if another process
   * has taken the lock over.
   */
  remove(server: string, lock?: EntryLock): void {
    const file = this.entryFile(server);
    if (file === undefined) return;
    if (lock === undefined) removeLeftovers(file);
    explained(file, () => {
      if (lock === undefined) remove(file);
      else underLock(lock, () => moveAway(file, lock));
      for (const suffix of ['+served', '+checked', '+failed']) remove(`${file}${suffix}`);
    });
  }

  /** Removes everything about a server except that the user is signed out. Throws TkaError if that fails. */
  forget(server: string): void {
    this.remove(server);
    this.siblings.remove(server);
    this.signedOut.forget(server);
    this.consents.remove(server);
  }
}

/** Runs `act`. Throws LostLock instead of its error if the lock is lost. */
function underLock(lock: EntryLock | undefined, act: () => void): void {
  try {
    act();
  } catch (error) {
    throw lock?.held() === false ? new LostLock() : error;
  }
}

/**
 * Removes a file by moving it into the lock holder's folder. That folder is gone if the lock is lost, so this is safe.
 */
function moveAway(file: string, lock: EntryLock): void {
  try {
    fs.renameSync(file, path.join(lock.folder, uniqueName()));
  } catch (error) {
    if (!lock.held()) throw error;
    // The file does not exist, or on Windows, another process is reading it.
    remove(file);
  }
}

function mendMode(file: string, mode: number): void {
  if (process.getuid === undefined) return;
  try {
    const stat = fs.lstatSync(file);
    const ours = stat.uid === process.getuid() && !stat.isSymbolicLink() && (stat.mode & 0o1000) === 0;
    if (ours && (stat.mode & 0o077) !== 0) fs.chmodSync(file, mode);
  } catch {
    // Best effort: the file system may be read-only.
  }
}

/** How a sign-in failed. Other processes may have waited for it. */
export interface FailureNote {
  /** When it failed, in milliseconds since the epoch. */
  readonly at: number;
  readonly message: string;
  readonly hints: readonly string[];
  /** The API server of the requested token. */
  readonly apiServer: string | undefined;
  /** The process that asked, as callerOf() returns it; undefined if unknown. */
  readonly caller: string | undefined;
  /** True if it failed only because its time ran out. */
  readonly outOfTime: boolean;
  /** True if retrying soon cannot help: the server refused, or its answer must not be used. */
  readonly final: boolean;
  /** When a caller last got this error, in milliseconds since the epoch. */
  readonly toldAt: number;
}

/** The notes about failures beside the entries: `~/.cache/kubectl-tka/https+tka.example.ts.net+failed`. */
export class FailureNotes {
  readonly #file: (server: string) => string | undefined;

  /** `file` returns the path of a server's note, or undefined if there is no cache. */
  constructor(file: (server: string) => string | undefined) {
    this.#file = file;
  }

  /** Returns how the last attempt for a server failed; undefined if it did not fail. */
  read(server: string): FailureNote | undefined {
    const file = this.#file(server);
    const value = readObject(file);
    if (file === undefined || typeof value?.at !== 'number' || typeof value.message !== 'string') return undefined;
    // Ignore a note from the future (the clock was set back). Otherwise waiters would use it until that time.
    if (value.at > Date.now()) return undefined;
    const hints = Array.isArray(value.hints) ? value.hints.filter((hint) => typeof hint === 'string') : [];
    const text = (line: string) => cleanText(line, 2000);
    return {
      at: value.at,
      message: text(value.message),
      hints: hints.map(text),
      apiServer: typeof value.apiServer === 'string' ? value.apiServer : undefined,
      caller: typeof value.caller === 'string' ? value.caller : undefined,
      outOfTime: value.outOfTime === true,
      final: value.final === true,
      toldAt: fs.lstatSync(file, { throwIfNoEntry: false })?.mtimeMs ?? value.at,
    };
  }

  /** Records how an attempt failed, for the processes that wait for it. Never throws, like all changes here. */
  write(server: string, note: Omit<FailureNote, 'toldAt'>, lock: EntryLock | undefined): void {
    this.#change(server, lock, (file) => writeFileAtomic(file, JSON.stringify(note), { within: lock?.folder }));
  }

  remove(server: string, lock: EntryLock | undefined): void {
    this.#change(server, lock, remove);
  }

  /** Records that a caller got the error again. */
  touch(server: string): void {
    const now = Date.now() / 1000;
    this.#change(server, undefined, (file) => fs.utimesSync(file, now, now));
  }

  #change(server: string, lock: EntryLock | undefined, act: (file: string) => void): void {
    const file = this.#file(server);
    if (file === undefined || lock?.held() === false) return;
    try {
      act(file);
    } catch {
      // Best effort: without the note, the server is asked again.
    }
  }
}
