// What a caller was told a moment ago. client-go asks up to seven times in a row: the same process gets the same answer
// at once, and the person reads it once.
import { callerOf } from '../credential/served.ts';
import { Unavailable } from '../network/failure.ts';
import { TkaError } from '../util/errors.ts';
import type { FailureNote } from './failure-notes.ts';
import type { EntryLock } from './held-lock.ts';
import type { CredentialRequest, Question } from './question.ts';
import type { SessionStore } from './store.ts';

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
  if (store.signedOut.read(request.server) !== undefined) throw toldSignedOut(store, request);
}

function toldSignedOut(store: SessionStore, { server, apiServer, parent, byClientGo }: CredentialRequest): TkaError {
  const error = signedOutOf(server);
  if (byClientGo !== true) return error;
  const { message, hints } = error;
  const caller = callerOf(parent);
  const told = store.failures.read(server);
  const at = Date.now();
  const isSame = told?.caller === caller && told.message === message;
  if (isSame && at - told.at < sameSignedOut) return again(told, isTellable(caller));
  store.failures.write(server, { at, message, hints, apiServer, caller, outOfTime: false, final: true }, undefined);
  return error;
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
