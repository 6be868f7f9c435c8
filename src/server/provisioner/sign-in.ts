// What a sign-in says of itself: whose it is, which devices use it, whether it is in force, and when it ends; and what is
// written to it.
import { randomUUID } from 'node:crypto';
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import type { Caller } from '../http/contract.ts';
import { annotation, apiVersion, type Condition, group, type Metadata, plainName, type TkaSignin } from './objects.ts';

/** Milliseconds of the epoch as RFC 3339, cut to seconds, as Go prints it. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

function timeOf(text: string | undefined): number | undefined {
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
const attemptOf = ({ metadata }: TkaSignin): number | undefined => timeOf(metadata.annotations?.[annotation.attempted]);

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

/** Returns a sign-in's conditions with Ready as it is now (milliseconds of the epoch). Others stay as they are. */
export function conditionsOf(
  { metadata, status }: TkaSignin,
  ready: Pick<Condition, 'status' | 'reason' | 'message'>,
  now: number,
): readonly Condition[] {
  const conditions = status?.conditions ?? [];
  const old = conditions.find(({ type }) => type === 'Ready');
  return [
    ...conditions.filter(({ type }) => type !== 'Ready'),
    {
      type: 'Ready',
      ...ready,
      lastTransitionTime: old?.status === ready.status ? old.lastTransitionTime : rfc3339(now),
      ...(metadata.generation !== undefined && { observedGeneration: metadata.generation }),
    },
  ];
}

// What a device was granted when it last signed in: from when (milliseconds of the epoch), for how long.
interface Use {
  readonly at: number;
  readonly periodMs: number;
}

// Stands for devices that nothing names.
const anyDevice = '*';

// More of them, and the first to end are told apart no longer.
const mostDevices = 16;

const useEnd = ({ at, periodMs }: Use, now: number): number => Math.min(at, now) + periodMs;

/** Which devices use a sign-in: `{"nBLYv…": "2026-11-21T08:00:00Z 8h0m0s"}`. Undefined where nothing readable says so. */
function usesOf({ metadata }: TkaSignin): ReadonlyMap<string, Use> | undefined {
  let stated: unknown;
  try {
    stated = JSON.parse(metadata.annotations?.[annotation.devices] ?? 'null');
  } catch {
    return undefined;
  }
  if (typeof stated !== 'object' || stated === null || Array.isArray(stated)) return undefined;
  const uses = new Map<string, Use>();
  for (const [device, text] of Object.entries(stated)) {
    const [at = '', period = ''] = String(text).split(' ', 2);
    const use = { at: Date.parse(at), periodMs: goDuration(period) ?? Number.NaN };
    if (Number.isNaN(use.at + use.periodMs)) return undefined;
    uses.set(device, use);
  }
  return uses;
}

/** What a device was granted under a sign-in; undefined where it did not sign in under it. */
function useOf(signIn: TkaSignin, device: string, now: number): Use | undefined {
  const uses = usesOf(signIn);
  if (uses !== undefined) return uses.get(device) ?? uses.get(anyDevice);
  const start = attemptOf(signIn) ?? timeOf(signIn.status?.signed_in) ?? now;
  return { at: start, periodMs: goDuration(signIn.spec.validity_period) ?? 0 };
}

/** The annotation that adds a caller's device to those that use a sign-in. */
function devicesWith(signIn: TkaSignin | undefined, { device = anyDevice, periodMs }: Caller, now: number): string {
  const old = signIn === undefined ? [] : (usesOf(signIn) ?? [[anyDevice, useOf(signIn, anyDevice, now) as Use]]);
  const uses = new Map([...old].filter(([name, use]) => name !== device && useEnd(use, now) > now));
  uses.set(device, { at: now, periodMs });
  const latest = [...uses].sort(([, a], [, b]) => useEnd(b, now) - useEnd(a, now));
  const [folded] = latest.splice(mostDevices);
  if (folded !== undefined && !latest.some(([name]) => name === anyDevice)) latest.push([anyDevice, folded[1]]);
  return JSON.stringify(
    Object.fromEntries(
      latest.map(([name, { at, periodMs }]) => [name, `${rfc3339(at)} ${formatGoDuration(periodMs)}`]),
    ),
  );
}

/**
 * Returns the end of a sign-in for a caller's device, which may have been granted less than another one; undefined where
 * it has not signed in.
 */
export function endFor(signIn: TkaSignin, { device = anyDevice }: Caller, now: number): number | undefined {
  const use = useOf(signIn, device, now);
  return use && Math.min(endOf(signIn, now) ?? Infinity, useEnd(use, now));
}

/** Says whether a caller's device has more by this sign-in than it is granted today: another role, or a later end. */
export function exceeds(signIn: TkaSignin, caller: Caller, now: number): boolean {
  const end = endFor(signIn, caller, now);
  return end !== undefined && (signIn.spec.role !== caller.role || end > now + caller.periodMs);
}

const annotationsOf = (signIn: TkaSignin | undefined, caller: Caller, at: number): Record<string, string> => ({
  [annotation.attempted]: rfc3339(at),
  [annotation.attemptId]: randomUUID(),
  [annotation.validUntil]: rfc3339(at + caller.periodMs),
  [annotation.login]: caller.login,
  [annotation.devices]: devicesWith(signIn, caller, at),
});

const specOf = ({ username, role, periodMs }: Caller): TkaSignin['spec'] => ({
  username,
  role,
  validity_period: formatGoDuration(periodMs),
});

/** The sign-in to create for a caller who signs in at this time (milliseconds of the epoch). */
export const newSignIn = (name: string, caller: Caller, at: number): object => ({
  apiVersion,
  kind: 'TkaSignin',
  metadata: { name, annotations: annotationsOf(undefined, caller, at) },
  spec: specOf(caller),
});

/** Returns the sign-in to create in another namespace: the same person's, with the same role and end. */
export function copyOf(signIn: TkaSignin): object {
  const { name, annotations = {} } = signIn.metadata;
  const start = attemptOf(signIn) ?? timeOf(signIn.status?.signed_in);
  const end = endOf(signIn, Date.now());
  const isDated = start !== undefined && end !== undefined && end > start;
  const own = Object.entries(annotations).filter(([key]) => key.startsWith(`${group}/`) && key !== annotation.problem);
  return {
    apiVersion,
    kind: 'TkaSignin',
    metadata: {
      name,
      annotations: {
        ...Object.fromEntries(own),
        ...(isDated && { [annotation.attempted]: rfc3339(start), [annotation.validUntil]: rfc3339(end) }),
      },
    },
    // An end that was set sooner by hand stays.
    spec: { ...signIn.spec, ...(isDated && { validity_period: formatGoDuration(end - start) }) },
  };
}

/** The merge patch that extends a sign-in from this time on, provided that nobody has changed it meanwhile. */
export const extension = (signIn: TkaSignin, caller: Caller, at: number): object => ({
  metadata: { ...asSeen(signIn), annotations: { ...annotationsOf(signIn, caller, at), [annotation.problem]: null } },
  spec: specOf(caller),
});

/** The merge patch that lets one more device use a sign-in, whose end stays as it is. */
export const sharing = (signIn: TkaSignin, caller: Caller, at: number): object => ({
  metadata: {
    ...asSeen(signIn),
    annotations: { [annotation.login]: caller.login, [annotation.devices]: devicesWith(signIn, caller, at) },
  },
});

const asSeen = ({ metadata: { uid, resourceVersion } }: TkaSignin) => ({ uid, resourceVersion });

/** Says whether a sign-in asks for what its caller is granted, since this very second: then there is nothing to write. */
export const asksFor = (signIn: TkaSignin, caller: Caller, at: number): boolean =>
  signIn.spec.role === caller.role &&
  goDuration(signIn.spec.validity_period) === caller.periodMs &&
  attemptOf(signIn) === at &&
  usesOf(signIn)?.get(caller.device ?? anyDevice)?.at === at;

/** The merge patch that says why it cannot be provisioned, or that it can. */
export const problemPatch = ({ metadata }: TkaSignin, text: string | null): object => ({
  metadata: { resourceVersion: metadata.resourceVersion, annotations: { [annotation.problem]: text } },
});

/**
 * The merge patch of a sign-in's status, provided that nobody has changed the sign-in since it was read: the API server
 * does not look at the UID here, but no other object ever has the same version.
 */
export const statusPatch = ({ metadata }: TkaSignin, status: Partial<TkaSignin['status']>): object => ({
  metadata: { resourceVersion: metadata.resourceVersion },
  status,
});
