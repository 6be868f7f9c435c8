import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, formatEntry, readEntry } from '../credential/entry.ts';
import type { Paths } from '../settings/paths.ts';
import { TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, removeLeftovers, uniqueName, writeFileAtomic } from '../util/files.ts';
import { InsecureConsents } from './consents.ts';
import { FailureNotes } from './failure-notes.ts';
import { explained, noHome, remove, serversIn } from './files.ts';
import { type EntryLock, LostLock } from './held-lock.ts';
import { entryOf, type Session, sessionOf } from './session.ts';
import { SiblingNotes } from './siblings.ts';
import { SignedOutMarks } from './signed-out.ts';

/** Everything that this machine keeps about sessions: the cache's entries, and what lies beside and behind them. */
export class SessionStore {
  /** The folder of the entries; undefined if there is none. */
  readonly folder: string | undefined;
  readonly failures: FailureNotes;
  readonly signedOut: SignedOutMarks;
  readonly consents: InsecureConsents;
  readonly siblings: SiblingNotes;

  constructor({ cache, state }: Pick<Paths, 'cache' | 'state'>) {
    this.folder = cache;
    this.failures = new FailureNotes((server) => this.entryFile(server));
    this.signedOut = new SignedOutMarks('signed-out', state);
    this.consents = new InsecureConsents('insecure', state);
    this.siblings = new SiblingNotes('siblings', state);
  }

  /** The path of a server's entry; what lies beside it has this path and a `+suffix`. */
  entryFile(server: string): string | undefined {
    const name = entryName(server);
    return this.folder === undefined || name === undefined ? undefined : path.join(this.folder, name);
  }

  /** The session of a server, fresh or not; undefined if there is none that is whole. Mends the modes of its file. */
  read(server: string): Session | undefined {
    const file = this.entryFile(server);
    if (this.folder === undefined || file === undefined) return undefined;
    const entry = readEntry(this.folder, server);
    if (entry === undefined) return undefined;
    mendMode(file, 0o600);
    mendMode(this.folder, 0o700);
    return sessionOf(entry);
  }

  /** All whole sessions, by server. */
  list(): Session[] {
    return this.folder === undefined ? [] : serversIn(this.folder).flatMap((server) => this.read(server) ?? []);
  }

  /**
   * Keeps a session, under the server's lock; without one only where none can be kept. Throws TkaError that says why it
   * cannot be kept, LostLock if another process has taken the lock over.
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
      // These notes are about the token before.
      if (isNew) for (const suffix of ['+served', '+checked']) remove(`${file}${suffix}`);
    });
  }

  /**
   * Removes a server's token, under the server's lock; without one where none can be kept, or for a logout that cannot
   * wait for it. Throws TkaError if it is still there afterwards, LostLock if another process has taken the lock over.
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

  /** Removes everything about a server, and keeps only that it is signed out. Throws TkaError if that fails. */
  forget(server: string): void {
    this.remove(server);
    this.siblings.remove(server);
    this.signedOut.forget(server);
    this.consents.remove(server);
  }
}

/** Tells a lock that was lost from a file that cannot be written. */
function underLock(lock: EntryLock | undefined, act: () => void): void {
  try {
    act();
  } catch (error) {
    throw lock?.held() === false ? new LostLock() : error;
  }
}

/** Removes a file by moving it into the holder's folder, which goes with the lock: so not if the lock is lost. */
function moveAway(file: string, lock: EntryLock): void {
  try {
    fs.renameSync(file, path.join(lock.folder, uniqueName()));
  } catch (error) {
    if (!lock.held()) throw error;
    // It does not exist; or on Windows, another process is reading it.
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
    // A read-only file system cannot be mended.
  }
}
