// What a sign-in says of itself: whose it is, whether it is in force, and when it ends.
import { goDuration } from '../../util/duration.ts';
import type { Caller } from '../http/contract.ts';
import { plainName } from './names.ts';
import { annotation, type Metadata, type TkaSignin } from './objects.ts';

/** Milliseconds of the epoch as RFC 3339, cut to seconds, as Go prints it. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

export function timeOf(text: string | undefined): number | undefined {
  const ms = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** Returns the login that signed in; undefined where nothing says it: the Go server writes none, and drops it. */
export const loginOf = ({ metadata }: { readonly metadata: Metadata }): string | undefined =>
  metadata.annotations?.[annotation.login];

/** Says whether a sign-in is this caller's: it states the login, or it has the caller's plain name and states none. */
export function isOf(signIn: TkaSignin, { username, login, ownDomain }: Caller): boolean {
  const stated = loginOf(signIn);
  if (stated !== undefined) return stated === login;
  return ownDomain === true && signIn.metadata.name === plainName(username);
}

/** Says whether a sign-in is being deleted. Nothing may bring it back. */
export const isLeaving = ({ metadata }: TkaSignin): boolean => metadata.deletionTimestamp !== undefined;

/** When it was asked for last; undefined where nothing says so (one made by hand). A replica's clock may be ahead of ours. */
export const attemptOf = ({ metadata }: TkaSignin): number | undefined =>
  timeOf(metadata.annotations?.[annotation.attempted]);

/** Says whether a sign-in was asked for at a time that has not come: by a replica whose clock is ahead. */
export const isAhead = (signIn: TkaSignin, now: number): boolean => (attemptOf(signIn) ?? now) > now;

/** Returns whether one of our replicas took a sign-in, by its own note. It then provisions it, too. */
export const hasAttempt = ({ metadata }: TkaSignin): boolean =>
  metadata.annotations?.[annotation.attemptId] !== undefined;

/** Why it cannot be provisioned, where that is known. */
export const problemOf = ({ metadata }: TkaSignin): string | undefined => metadata.annotations?.[annotation.problem];

/** Says whether our operator provisioned it: the Go operator drops what it does not know. */
export const isOurWork = ({ status }: TkaSignin): boolean => status?.attempt !== undefined;

/** Whether what was asked for last is in force: the status answers that very attempt. */
export function isSettled(signIn: TkaSignin): boolean {
  const { status, metadata } = signIn;
  if (isLeaving(signIn) || status?.provisioned !== true || timeOf(status.valid_until) === undefined) return false;
  const [attempt, id] = [attemptOf(signIn), metadata.annotations?.[annotation.attemptId]];
  // By the time as well: 0.1.0 and the Go server leave the ID as it is, and only a CRD of ours keeps the status' one.
  if (id !== undefined && status.attempt !== undefined && status.attempt !== id) return false;
  return attempt === undefined || attempt === timeOf(status.signed_in);
}

/** When an attempt counts from: one that lies in the future was made by a replica whose clock is ahead. */
function startOf(signIn: TkaSignin, now: number): number | undefined {
  const start = attemptOf(signIn) ?? timeOf(signIn.status?.signed_in);
  return start && Math.min(start, now);
}

/** When it ends; undefined where nothing says so yet. A status may end it sooner than its period, never later. */
export function endOf(signIn: TkaSignin, now: number): number | undefined {
  const period = goDuration(signIn.spec.validity_period);
  const start = startOf(signIn, now);
  const granted = period === undefined || start === undefined ? undefined : start + period;
  if (!isSettled(signIn)) return granted;
  const said = timeOf(signIn.status?.valid_until);
  return said === undefined || granted === undefined ? (said ?? granted) : Math.min(said, granted);
}

/** Whether it has ended at this time, in milliseconds of the epoch. */
export const isOver = (signIn: TkaSignin, now: number): boolean => (endOf(signIn, now) ?? Infinity) <= now;

/** The status of a sign-in that is provisioned now; undefined when its period is none. */
export function statusOf(signIn: TkaSignin, now: number): TkaSignin['status'] | undefined {
  const period = goDuration(signIn.spec.validity_period);
  if (period === undefined) return undefined;
  const id = signIn.metadata.annotations?.[annotation.attemptId];
  return {
    provisioned: true,
    signed_in: rfc3339(attemptOf(signIn) ?? timeOf(signIn.status?.signed_in) ?? now),
    valid_until: rfc3339((startOf(signIn, now) ?? now) + period),
    ...(id !== undefined && { attempt: id }),
  };
}
