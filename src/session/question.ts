import { isFresh } from '../credential/entry.ts';
import { asksAgain, callerOf, wasChecked, writeChecked, writeServed } from '../credential/served.ts';
import { Unavailable } from '../network/failure.ts';
import { TkaError } from '../util/errors.ts';
import { placeOf } from '../util/url.ts';
import type { EntryLock } from './lock.ts';
import { type Session, timeLeft } from './session.ts';
import type { FailureNote, SessionStore } from './store.ts';

/** Minimum remaining lifetime of a token that is handed out, in milliseconds. */
export const lastUse = 30_000;

/** A request from kubectl. */
export interface CredentialRequest {
  readonly server: string;
  /** The API server that the token must be for; undefined for any. */
  readonly apiServer: string | undefined;
  /** ID of the process that asks. */
  readonly parent: number;
  /** True if the caller is client-go, which may ask again at once after a failure. */
  readonly byClientGo?: boolean;
}

/** A request in progress, with what the cache has for it. */
export class Question {
  readonly request: CredentialRequest;
  /** On the clock of performance.now(). */
  readonly start = performance.now();
  /** Milliseconds since the epoch. */
  readonly startedAt = Date.now();
  readonly #store: SessionStore;
  /** The cached token, if this caller got it a moment ago and asks again. The API server may have refused it. */
  readonly #doubted: string | undefined;
  /** The cached token, once the API server is known to refuse it. */
  #refused: string | undefined;

  constructor(request: CredentialRequest, store: SessionStore) {
    this.request = request;
    this.#store = store;
    const { server, parent } = request;
    const { folder } = store;
    const again = folder !== undefined && asksAgain(folder, server, parent, this.startedAt);
    this.#doubted = again && !this.#wasChecked() ? store.read(server)?.token : undefined;
  }

  get doubts(): boolean {
    return this.#doubted !== undefined;
  }

  /** Returns the cached session if it may be served without asking any server. */
  cached(): Session | undefined {
    const session = this.#kept();
    if (session === undefined || !isFresh(session, Date.now())) return undefined;
    const doubted = session.token === this.#doubted;
    return doubted && !this.#wasChecked() ? undefined : session;
  }

  /** Returns the cached session, fresh or not, if its token is valid for more than `lastUse`. */
  stillGood(): Session | undefined {
    const session = this.#kept();
    return session !== undefined && timeLeft(session) > lastUse ? session : undefined;
  }

  /** Returns the cached session if it is fresh but the API server may have refused it. */
  inDoubt(): Session | undefined {
    if (this.#doubted === undefined) return undefined;
    const session = this.#kept();
    // A stale session is replaced anyway. The shell front records a caller before it knows that the entry is stale.
    return session?.token === this.#doubted && isFresh(session, Date.now()) ? session : undefined;
  }

  /** Records that the API server has just been asked about the token, so that other processes need not ask. */
  noteChecked(): void {
    const { folder } = this.#store;
    if (folder !== undefined) writeChecked(folder, this.request.server);
  }

  /** Remembers that the API server refuses the token. */
  noteRefused(session: Session): void {
    this.#refused = session.token;
  }

  /** Records that the caller gets this session, if it is the one in the cache. */
  noteServed({ token }: Session): void {
    const { server, parent } = this.request;
    const { folder } = this.#store;
    if (folder !== undefined && this.#store.read(server)?.token === token) writeServed(folder, server, parent);
  }

  /** Returns the cached session, fresh or not, if it is for the requested API server and its token was not refused. */
  #kept(): Session | undefined {
    const { server, apiServer } = this.request;
    const session = this.#store.read(server);
    if (session === undefined || session.token === this.#refused) return undefined;
    return apiServer === undefined || session.apiServer === apiServer ? session : undefined;
  }

  #wasChecked(): boolean {
    const { folder } = this.#store;
    return folder !== undefined && wasChecked(folder, this.request.server, Date.now());
  }
}

// client-go asks up to seven times in a row. The same process gets the same answer at once, and the user sees it once.

/** How long to repeat an error to the same caller, in milliseconds. */
const sameAnswer = 2000;
/** How long to repeat a final error: after the last time, and in total. In milliseconds. */
const sameFinalAnswer = 3000;
const longestFinalAnswer = 20_000;
/** Minimum time between two "signed out" errors to the same caller, in milliseconds. The mark is read every time. */
const sameSignedOut = 60_000;
/** An attempt that fails with less time left than this counts as a timeout: waiters retry. In milliseconds. */
const lastMoment = 500;

/** Throws TkaError if the user is signed out of the server. */
export function throwIfSignedOut(store: SessionStore, server: string): void {
  if (store.signedOut.read(server) !== undefined) throw signedOutOf(server);
}

/** Does the same at the start of a request. Marks the error as heard if this caller got it within the last minute. */
export function tellIfSignedOut(store: SessionStore, request: CredentialRequest): void {
  const { server, apiServer, parent, byClientGo } = request;
  if (store.signedOut.read(server) === undefined) return;
  const error = signedOutOf(server);
  if (byClientGo !== true) throw error;
  const { message, hints } = error;
  const caller = callerOf(parent);
  const told = store.failures.read(server);
  const at = Date.now();
  const isSame = told?.caller === caller && told.message === message;
  if (isSame && at - told.at < sameSignedOut) throw again(told, isTellable(caller));
  store.failures.write(server, { at, message, hints, apiServer, caller, outOfTime: false, final: true }, undefined);
  throw error;
}

/** Throws the error that this same caller got a moment ago, unless the cache has a token that is still good. */
export function throwIfToldBefore(store: SessionStore, question: Question, log: (line: string) => void): void {
  const { server, apiServer, parent, byClientGo } = question.request;
  if (byClientGo !== true || question.doubts) return;
  const told = store.failures.read(server);
  const caller = callerOf(parent);
  if (told === undefined || told.caller !== caller || told.apiServer !== apiServer) return;
  const age = question.startedAt - told.at;
  const recent = told.final
    ? question.startedAt - told.toldAt < sameFinalAnswer && age < longestFinalAnswer
    : age < sameAnswer;
  if (!recent || question.stillGood() !== undefined) return;
  log('this caller was told so a moment ago');
  store.failures.touch(server);
  throw again(told, told.final && isTellable(caller));
}

/** Throws the error that another process got meanwhile, if it asked for the same API server. */
export function throwIfToldMeanwhile(store: SessionStore, { request, startedAt }: Question): void {
  const told = store.failures.read(request.server);
  if (told === undefined || told.apiServer !== request.apiServer || told.outOfTime) return;
  if (told.at >= startedAt) throw again(told);
}

/** Records for other callers how an attempt failed. `deadline` is the attempt's, on the clock of performance.now(). */
export function noteFailure(
  store: SessionStore,
  request: CredentialRequest,
  error: unknown,
  deadline: number,
  lock: EntryLock | undefined,
): void {
  const { server, apiServer, parent } = request;
  if (!(error instanceof TkaError) || store.signedOut.read(server) !== undefined) return;
  const { message, hints } = error;
  const final = !(error instanceof Unavailable);
  const outOfTime = !final && deadline - performance.now() < lastMoment;
  const caller = callerOf(parent);
  store.failures.write(server, { at: Date.now(), message, hints, apiServer, caller, outOfTime, final }, lock);
}

function signedOutOf(server: string): TkaError {
  return new TkaError(`signed out of ${placeOf(server)}`, { hints: [`kubectl tka login ${server}`] });
}

// Returns true if the caller can be told apart from others. On Linux, processes of several containers can have the same
// ID, so the start time is needed.
function isTellable(caller: string): boolean {
  return process.platform !== 'linux' || caller.includes(':');
}

/** Returns the recorded error again. `heard` means that the user has already seen it. */
function again({ message, hints }: FailureNote, heard = false): TkaError {
  return new TkaError(message, { hints, heard });
}
