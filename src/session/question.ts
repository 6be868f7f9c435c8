import { isFresh } from '../credential/entry.ts';
import { asksAgain, callerOf, wasChecked, writeChecked, writeServed } from '../credential/served.ts';
import { Unavailable } from '../network/failure.ts';
import { TkaError } from '../util/errors.ts';
import type { EntryLock } from './lock.ts';
import { type Session, timeLeft } from './session.ts';
import type { FailureNote, SessionStore } from './store.ts';

/** Minimum remaining lifetime of a token that is handed out, in milliseconds. */
export const lastUse = 30_000;

/** What kubectl asks for. */
export interface CredentialRequest {
  readonly server: string;
  /** The API server that the token must be for; undefined: any. */
  readonly apiServer: string | undefined;
  /** The process that asks. */
  readonly parent: number;
  /** It is client-go, which may ask again at once after a failure. */
  readonly byClientGo?: boolean;
}

/** A request on its way, and what the cache has for it. */
export class Question {
  readonly request: CredentialRequest;
  /** As performance.now() counts. */
  readonly start = performance.now();
  /** Milliseconds of the epoch. */
  readonly startedAt = Date.now();
  readonly #store: SessionStore;
  /** The cached token, if this caller got it a moment ago and asks again: the API server may have refused it. */
  readonly #doubted: string | undefined;
  /** The same, once the API server has refused it. */
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

  /** The cached session, if it may be served without asking any server. */
  cached(): Session | undefined {
    const session = this.#kept();
    if (session === undefined || !isFresh(session, Date.now())) return undefined;
    const doubted = session.token === this.#doubted;
    return doubted && !this.#wasChecked() ? undefined : session;
  }

  /** The cached session, if its token is good for a while longer, fresh or not. */
  stillGood(): Session | undefined {
    const session = this.#kept();
    return session !== undefined && timeLeft(session) > lastUse ? session : undefined;
  }

  /** The cached session, if it is fresh, but the API server may have refused it. */
  inDoubt(): Session | undefined {
    if (this.#doubted === undefined) return undefined;
    const session = this.#kept();
    // A stale one is replaced anyway. (The shell front notes a caller before it knows that.)
    return session?.token === this.#doubted && isFresh(session, Date.now()) ? session : undefined;
  }

  /** Notes that the API server has just been asked about the token, so that others need not ask. */
  noteChecked(): void {
    const { folder } = this.#store;
    if (folder !== undefined) writeChecked(folder, this.request.server);
  }

  /** Notes that the API server refuses the token. */
  noteRefused(session: Session): void {
    this.#refused = session.token;
  }

  /** Notes that the caller gets this session, if it is in the cache: what was not kept was not served from there. */
  noteServed({ token }: Session): void {
    const { server, parent } = this.request;
    const { folder } = this.#store;
    if (folder !== undefined && this.#store.read(server)?.token === token) writeServed(folder, server, parent);
  }

  /** The session in the cache, fresh or not, if it is for this API server, which has not refused its token. */
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

// What a caller was told a moment ago. client-go asks up to seven times in a row: the same process gets the same answer
// at once, and the person reads it once.

/** How long an answer is repeated, in milliseconds. */
const sameAnswer = 2000;
/** The same for a final answer: so long after each time, and in all. */
const sameFinalAnswer = 3000;
const longestFinalAnswer = 20_000;
/** The same for being signed out, which is looked up each time: a program that goes on asking is told once a minute. */
const sameSignedOut = 60_000;
/** An attempt that fails with less time left than this ran out of it: others who have more time try for themselves. */
const lastMoment = 500;

/** Throws TkaError if a server is signed out of. */
export function throwIfSignedOut(store: SessionStore, server: string): void {
  if (store.signedOut.read(server) !== undefined) throw signedOutOf(server);
}

/** The same at the begin of a request: one kubectl is told once. */
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

/** Throws what this very caller was told a moment ago, unless it has a token that is still good. */
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

/** Throws what another process was told meanwhile, if it asked for the same API server. */
export function throwIfToldMeanwhile(store: SessionStore, { request, startedAt }: Question): void {
  const told = store.failures.read(request.server);
  if (told === undefined || told.apiServer !== request.apiServer || told.outOfTime) return;
  if (told.at >= startedAt) throw again(told);
}

/** Notes for other callers how an attempt failed. `deadline` is its own, as performance.now() counts. */
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
  return new TkaError(`signed out of ${server}`, { hints: [`kubectl tka login ${server}`] });
}

// Processes of several containers can have one ID: without a start time, this may be another one.
function isTellable(caller: string): boolean {
  return process.platform !== 'linux' || caller.includes(':');
}

/** `heard`: the person has read it already. */
function again({ message, hints }: FailureNote, heard = false): TkaError {
  return new TkaError(message, { hints, heard });
}
