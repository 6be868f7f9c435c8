import * as fs from 'node:fs';
import * as path from 'node:path';
import {
  type Entry,
  entryName,
  exists,
  formatEntry,
  readEntry,
  serverOfEntry,
  signedOutFile,
} from '../credential/entry.ts';
import type { Paths } from '../settings/paths.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, readOwn, removeLeftovers, uniqueName, writeFileAtomic } from '../util/files.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../util/url.ts';
import type { Siblings } from './failover.ts';
import { type Lock, LostLock } from './lock.ts';

/** What the slow path knows of an entry beyond what the fast path needs. Times are RFC 3339. */
export interface SessionDetails {
  readonly username: string;
  readonly role: string;
  /**
   * The role of the sign-in that this one extends, where it was another: some servers (Go's) keep it until a logout.
   * Undefined where the server has applied `role`.
   */
  readonly formerRole?: string | undefined;
  readonly until: string;
  /** The server's clock minus ours, in milliseconds, when the token came. */
  readonly clockOffset: number;
  /** Base64 of PEM; empty: the system's CAs. */
  readonly caData: string;
  readonly insecureSkipTlsVerify: boolean;
}

/** A token in the cache, with who it makes one. */
export interface Session extends Omit<Entry, 'details'>, SessionDetails {}

/** Left by a logout, until the next login. */
export interface SignedOut {
  readonly server: string;
  readonly username: string | null;
  readonly role: string | null;
  readonly until: string | null;
  /** When, in milliseconds of the epoch. */
  readonly at: number;
  /** The server's clean-up was over when it answered: a login need not wait for it. */
  readonly complete: boolean;
  /** By `forget`: nothing to show, but kubectl stays out until the next login all the same. */
  readonly forgotten: boolean;
}

/** How an attempt ended that others were waiting for. */
export interface Failure {
  /** Milliseconds of the epoch. */
  readonly at: number;
  readonly message: string;
  readonly hints: readonly string[];
  /** The API server that a token was asked for. */
  readonly apiServer: string | undefined;
  /** The process that asked, by callerOf(); undefined if that is unknown. */
  readonly caller: string | undefined;
  /** It only ran out of its time. */
  readonly outOfTime: boolean;
  /** No other answer is to be expected soon: the server refused, or what it gives must not be used. */
  readonly final: boolean;
  /** When a caller was last told, in milliseconds of the epoch. */
  readonly toldAt: number;
}

/** Milliseconds for which a session's token is still good. */
export function timeLeft(session: Session, now = Date.now()): number {
  return Date.parse(session.expirationTimestamp) - now;
}

/** What an entry holds, details included; undefined where they are damaged. */
export function sessionOf(entry: Entry): Session | undefined {
  const details = parseDetails(entry.details);
  if (details === undefined) return undefined;
  const { inServersClock, ...rest } = details;
  const session = { ...entry, ...rest };
  if (inServersClock === 0) return session;
  const ends = new Date(Date.parse(entry.expirationTimestamp) - inServersClock);
  if (Number.isNaN(ends.getTime())) return undefined;
  return { ...session, expirationTimestamp: `${ends.toISOString().slice(0, 19)}Z` };
}

/** Everything that this machine keeps about sessions: cache entries, signed-out marks, consents. */
export class SessionStore {
  readonly #cache: string | undefined;
  readonly #state: string | undefined;

  constructor(paths: Pick<Paths, 'cache' | 'state'>) {
    this.#cache = paths.cache;
    this.#state = paths.state;
  }

  /** The folder of the entries; undefined where there is none. */
  get folder(): string | undefined {
    return this.#cache;
  }

  /** The path of a server's entry; what lies beside it has this path and a `+suffix`. */
  entryFile(server: string): string | undefined {
    const name = entryName(server);
    return this.#cache === undefined || name === undefined ? undefined : path.join(this.#cache, name);
  }

  /** The session of a server, fresh or not; undefined if there is none that is whole. Mends the modes of its file. */
  read(server: string): Session | undefined {
    const file = this.entryFile(server);
    if (this.#cache === undefined || file === undefined) return undefined;
    const entry = readEntry(this.#cache, server);
    if (entry === undefined) return undefined;
    mendMode(file, 0o600);
    mendMode(this.#cache, 0o700);
    return sessionOf(entry);
  }

  /** All whole sessions, by server. */
  list(): Session[] {
    if (this.#cache === undefined) return [];
    const servers = listNames(this.#cache).map(serverOfEntry);
    return servers.flatMap((server) => (server === undefined ? [] : (this.read(server) ?? [])));
  }

  /**
   * Keeps a session. Throws TkaError that says why it cannot be kept, LostLock where the lock is lost. Only under the
   * server's lock; without one where none can be kept.
   */
  write(session: Session, lock: Lock | undefined): void {
    const file = this.entryFile(session.server);
    if (this.#cache === undefined || file === undefined) throw new TkaError(noFolder);
    const { username, role, formerRole, until, clockOffset, caData, insecureSkipTlsVerify } = session;
    // 0.1.0 takes the entry's time as by the server's clock, unless `clockOffset` is 0.
    const own = { clockOffset: 0, serverClock: clockOffset };
    const details = { username, role, formerRole, until, ...own, caData, insecureSkipTlsVerify };
    explained(this.#cache, () => {
      if (lock === undefined) ensurePrivateFolder(path.dirname(file));
      const isNew = readEntry(path.dirname(file), session.server)?.token !== session.token;
      const text = formatEntry({ ...session, details: JSON.stringify(details) });
      underLock(lock, () => writeFileAtomic(file, text, { mtime: session.freshUntil, within: lock?.folder }));
      // What is noted is about the token before.
      if (isNew) for (const suffix of ['+served', '+checked']) remove(`${file}${suffix}`);
    });
  }

  /**
   * Forgets a server's token. Throws TkaError if it is still there afterwards, LostLock where the lock is lost. Only under
   * the server's lock; without one where none can be kept, or by a logout that cannot wait for it.
   */
  remove(server: string, lock?: Lock): void {
    const file = this.entryFile(server);
    if (file === undefined) return;
    if (lock === undefined) removeLeftovers(file);
    explained(file, () => {
      if (lock === undefined) remove(file);
      else underLock(lock, () => moveAway(file, lock));
      for (const suffix of ['+served', '+checked', '+failed']) remove(`${file}${suffix}`);
    });
  }

  /** How the last attempt for a server ended, if it failed. */
  readFailure(server: string): Failure | undefined {
    const file = this.entryFile(server);
    const note = `${file}+failed`;
    const value = file === undefined ? undefined : readJson(note);
    if (value === undefined || typeof value.at !== 'number' || typeof value.message !== 'string') return undefined;
    // A note from the future (the clock was set back) would be believed by everyone who waits until then.
    if (value.at > Date.now()) return undefined;
    const hints = Array.isArray(value.hints) ? value.hints.filter((hint) => typeof hint === 'string') : [];
    const text = (line: string) => cleanText(line, 2000);
    const caller = typeof value.caller === 'string' ? value.caller : undefined;
    const apiServer = typeof value.apiServer === 'string' ? value.apiServer : undefined;
    return {
      at: value.at,
      message: text(value.message),
      hints: hints.map(text),
      apiServer,
      caller,
      outOfTime: value.outOfTime === true,
      final: value.final === true,
      toldAt: fs.lstatSync(note, { throwIfNoEntry: false })?.mtimeMs ?? value.at,
    };
  }

  /** Notes how an attempt ended, for those who wait for it; undefined takes the note away. Never throws. */
  writeFailure(server: string, failure: Omit<Failure, 'toldAt'> | undefined, lock: Lock | undefined): void {
    const file = this.entryFile(server);
    if (file === undefined || lock?.held() === false) return;
    try {
      if (failure === undefined) remove(`${file}+failed`);
      else writeFileAtomic(`${file}+failed`, JSON.stringify(failure), { within: lock?.folder });
    } catch {
      // Best effort: waiters ask the server themselves.
    }
  }

  /** Notes that a failure was told once more. Never throws. */
  touchFailure(server: string): void {
    const now = Date.now() / 1000;
    try {
      fs.utimesSync(`${this.entryFile(server)}+failed`, now, now);
    } catch {
      // Best effort: the server is asked again.
    }
  }

  /** The mark of a logout; anything at its place counts as one, readable or not. */
  signedOut(server: string): SignedOut | undefined {
    const file = this.#stateFile('signed-out', server);
    if (file === undefined || !exists(file)) return undefined;
    const at = fs.lstatSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    const value = readJson(file) ?? {};
    const text = (key: string) => (typeof value[key] === 'string' ? cleanText(value[key]) : null);
    const until = isTime(value.until) ? value.until : null;
    return {
      server,
      username: text('username'),
      role: text('role'),
      until,
      at,
      complete: value.complete === true,
      forgotten: value.forgotten === true,
    };
  }

  /** All marks of logouts but the forgotten ones, by server. */
  listSignedOut(): SignedOut[] {
    if (this.#state === undefined) return [];
    const servers = listNames(path.join(this.#state, 'signed-out')).map(serverOfEntry);
    const marks = servers.flatMap((server) => (server === undefined ? [] : (this.signedOut(server) ?? [])));
    return marks.filter(({ forgotten }) => !forgotten);
  }

  /** Sets the mark of a logout. Throws TkaError if it cannot be kept. */
  markSignedOut(mark: Omit<SignedOut, 'at' | 'forgotten'> & { forgotten?: boolean }): void {
    const { server, username, role, until, complete, forgotten = false } = mark;
    try {
      this.#writeState('signed-out', server, JSON.stringify({ server, username, role, until, complete, forgotten }));
    } catch (cause) {
      if (!(cause instanceof TkaError)) throw cause;
      throw new TkaError(`cannot record on this machine that you are signed out of ${server}: ${cause.message}`, {
        hints: ['kubectl signs in again unless you remove the context: kubectl config delete-context NAME'],
        cause,
      });
    }
  }

  /** Takes the mark of a logout away. Throws TkaError if it cannot be. */
  unmarkSignedOut(server: string): void {
    const file = this.#stateFile('signed-out', server);
    if (file !== undefined) explained(file, () => remove(file));
  }

  /** Takes the mark away where `forget` left it, since the context is asked for again. Throws TkaError if it cannot be. */
  recall(server: string): void {
    if (this.signedOut(server)?.forgotten === true) this.unmarkSignedOut(server);
  }

  /** The API server that a person agreed to reach through this TKA server without a look at its certificate. */
  insecureConsent(server: string): string | undefined {
    const file = this.#stateFile('insecure', server);
    const apiServer = file === undefined ? undefined : readJson(file)?.apiServer;
    return typeof apiServer === 'string' ? apiServer : undefined;
  }

  /** Keeps that consent. Throws TkaError if it cannot be kept. */
  giveInsecureConsent(server: string, apiServer: string): void {
    if (this.insecureConsent(server) !== apiServer)
      this.#writeState('insecure', server, JSON.stringify({ server, apiServer }));
  }

  /** What a server stated of its cluster when it was last signed in to, and the cluster's other servers. */
  siblings(server: string): Siblings | undefined {
    const file = this.#stateFile('siblings', server);
    return file === undefined ? undefined : parseSiblings(readJson(file, siblingsLimit));
  }

  /** Keeps that. Throws TkaError if it cannot be kept. */
  keepSiblings(server: string, siblings: Siblings): void {
    const text = JSON.stringify({ server, ...siblings.known, servers: siblings.servers });
    const file = this.#stateFile('siblings', server);
    if (file !== undefined && readOwn(file, siblingsLimit) === `${text}\n`) return;
    this.#writeState('siblings', server, text);
  }

  /** Takes everything away that is kept about a server but that it is signed out. Throws TkaError if it cannot be. */
  forget(server: string): void {
    this.remove(server);
    const siblings = this.#stateFile('siblings', server);
    if (siblings !== undefined) explained(siblings, () => remove(siblings));
    const mark = this.signedOut(server) ?? { server, username: null, role: null, until: null, complete: false };
    this.markSignedOut({ ...mark, forgotten: true });
    const consent = this.#stateFile('insecure', server);
    if (consent !== undefined) explained(consent, () => remove(consent));
  }

  #stateFile(kind: StateKind, server: string): string | undefined {
    const name = entryName(server);
    if (this.#state === undefined || name === undefined) return undefined;
    return kind === 'signed-out' ? signedOutFile(this.#state, name) : path.join(this.#state, kind, name);
  }

  #writeState(kind: StateKind, server: string, text: string): void {
    const file = this.#stateFile(kind, server);
    if (this.#state === undefined || file === undefined) throw new TkaError(noFolder);
    const folder = this.#state;
    explained(folder, () => {
      ensurePrivateFolder(folder);
      ensurePrivateFolder(path.dirname(file));
      removeLeftovers(file);
      writeFileAtomic(file, `${text}\n`);
    });
  }
}

type StateKind = 'signed-out' | 'insecure' | 'siblings';

/** A CA is at most 64 KiB, and base64 of it a third longer. */
const siblingsLimit = 256 * 1024;

const noFolder = 'the environment names no home folder (HOME is unset)';

function explained(what: string, act: () => void): void {
  try {
    act();
  } catch (cause) {
    if (cause instanceof TkaError || cause instanceof LostLock) throw cause;
    throw new TkaError(`${what}: ${systemCode(cause) ?? 'cannot be written'}`, { cause });
  }
}

/** Tells a lock that was lost from a file that cannot be written. */
function underLock(lock: Lock | undefined, act: () => void): void {
  try {
    act();
  } catch (error) {
    throw lock?.held() === false ? new LostLock() : error;
  }
}

/** Removes a file, unless the lock is lost: into the holder's folder, which goes with the lock. */
function moveAway(file: string, lock: Lock): void {
  try {
    fs.renameSync(file, path.join(lock.folder, uniqueName()));
  } catch (error) {
    if (!lock.held()) throw error;
    // Where there is none, that is well; on Windows, another process may be reading it.
    remove(file);
  }
}

function remove(file: string): void {
  fs.rmSync(file, { recursive: true, force: true });
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

function listNames(folder: string): string[] {
  try {
    return fs.readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function readJson(file: string, limit = 64 * 1024): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(readOwn(file, limit) ?? '');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** What is kept of a cluster's servers; undefined for anything else. */
export function parseSiblings(value: Readonly<Record<string, unknown>> | undefined): Siblings | undefined {
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

// As it is written here; Date.parse alone takes much else, comments with escapes in them too.
function isTime(value: unknown): value is string {
  return (
    typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) && !Number.isNaN(Date.parse(value))
  );
}

/** `inServersClock`: the server's clock minus ours, where 0.1.0 wrote the entry's time by the server's clock. */
function parseDetails(text: string): (SessionDetails & { inServersClock: number }) | undefined {
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(text) ?? {};
  } catch {
    return undefined;
  }
  const { username, role, until, clockOffset, serverClock = clockOffset, caData, insecureSkipTlsVerify } = value;
  const formerRole = typeof value.formerRole === 'string' ? cleanText(value.formerRole) : undefined;
  if (typeof username !== 'string' || typeof role !== 'string' || !isTime(until)) return undefined;
  if (!isFiniteNumber(clockOffset) || !isFiniteNumber(serverClock)) return undefined;
  if (typeof caData !== 'string' || typeof insecureSkipTlsVerify !== 'boolean') return undefined;
  const names = { username: cleanText(username), role: cleanText(role), formerRole };
  return { ...names, until, clockOffset: serverClock, inServersClock: clockOffset, caData, insecureSkipTlsVerify };
}

function isFiniteNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}
