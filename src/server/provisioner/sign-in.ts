// Reads and writes a sign-in's own data: its login, the devices that use it, whether it is in force, and when it ends.
import { randomUUID } from 'node:crypto';
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import type { Caller, TaggedDevice } from '../http/contract.ts';
import { annotation, apiVersion, type Condition, group, type Metadata, plainName, type TkaSignin } from './objects.ts';

/** Formats milliseconds of the epoch as RFC 3339 in whole seconds, like Go. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

function timeOf(text: string | undefined): number | undefined {
  const ms = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** Returns the login that signed in, or undefined if unknown: the Go server does not write it, and drops it. */
export const loginOf = ({ metadata }: { readonly metadata: Metadata }): string | undefined =>
  metadata.annotations?.[annotation.login];

/** Returns the name of the login server's cluster that a sign-in came through, or undefined for a direct one. */
export const throughOf = ({ metadata }: { readonly metadata: Metadata }): string | undefined =>
  metadata.annotations?.[annotation.loginServer];

/** Returns the fields of a log line that say who signed in, and through which login server. */
export const toldOf = (object: { readonly metadata: Metadata }) => ({
  login: loginOf(object),
  login_server: throughOf(object),
});

/** Returns the tagged device that signed in, or undefined for a person. */
export function taggedOf({
  metadata: { annotations = {} },
}: {
  readonly metadata: Metadata;
}): TaggedDevice | undefined {
  const { [annotation.tags]: tags, [annotation.node]: node = '' } = annotations;
  return tags === undefined ? undefined : { node, tags: tags.split(',') };
}

/** Returns the annotations that tell who signed in. */
const whoOf = ({ login, tagged, through }: Caller): Record<string, string> => ({
  [annotation.login]: login,
  ...(through !== undefined && { [annotation.loginServer]: through }),
  ...(tagged && { [annotation.node]: tagged.node, [annotation.tags]: tagged.tags.join(',') }),
});

/**
 * Returns whether a sign-in belongs to this caller: it states the caller's login, or states none and has the caller's
 * plain name. Both must have come directly, or through the same login server.
 */
export function isOf(signIn: TkaSignin, { username, login, ownDomain, through }: Caller): boolean {
  if (throughOf(signIn) !== through) return false;
  const stated = loginOf(signIn);
  if (stated !== undefined) return stated === login;
  return ownDomain === true && through === undefined && signIn.metadata.name === plainName(username);
}

/** Returns whether a sign-in is being deleted. Nothing can restore it. */
export const isLeaving = ({ metadata }: TkaSignin): boolean => metadata.deletionTimestamp !== undefined;

/**
 * Returns the time of the last sign-in request, or undefined if unknown (a sign-in made by hand). Another replica's
 * clock may be ahead of ours.
 */
const attemptOf = ({ metadata }: TkaSignin): number | undefined => timeOf(metadata.annotations?.[annotation.attempted]);

/** Returns whether the last request is in the future: it came through a replica whose clock is ahead. */
export const isAhead = (signIn: TkaSignin, now: number): boolean => (attemptOf(signIn) ?? now) > now;

/** Returns whether one of our replicas took the sign-in and wrote an attempt ID. That replica also provisions it. */
export const hasAttempt = ({ metadata }: TkaSignin): boolean =>
  metadata.annotations?.[annotation.attemptId] !== undefined;

/** Returns why the sign-in cannot be provisioned, if known. */
export const problemOf = ({ metadata }: TkaSignin): string | undefined => metadata.annotations?.[annotation.problem];

/** Returns whether our operator provisioned the sign-in: the Go operator drops the attempt ID. */
export const isOurWork = ({ status }: TkaSignin): boolean => status?.attempt !== undefined;

/** Returns whether the last request is in force: the status answers that attempt. */
export function isSettled(signIn: TkaSignin): boolean {
  const { status, metadata } = signIn;
  if (isLeaving(signIn) || status?.provisioned !== true || timeOf(status.valid_until) === undefined) return false;
  const [attempt, id] = [attemptOf(signIn), metadata.annotations?.[annotation.attemptId]];
  // Compare the times too: version 0.1.0 and the Go server do not change the attempt ID, and only our CRD keeps the ID
  // in the status.
  if (id !== undefined && status.attempt !== undefined && status.attempt !== id) return false;
  return attempt === undefined || attempt === timeOf(status.signed_in);
}

/**
 * Returns the start of the period. An attempt in the future came through a replica whose clock is ahead: it counts from
 * now.
 */
function startOf(signIn: TkaSignin, now: number): number | undefined {
  const start = attemptOf(signIn) ?? timeOf(signIn.status?.signed_in);
  return start && Math.min(start, now);
}

/**
 * Returns the end, or undefined while unknown. The status can set an earlier end than the period, but not a later one.
 */
export function endOf(signIn: TkaSignin, now: number): number | undefined {
  const period = goDuration(signIn.spec.validity_period);
  const start = startOf(signIn, now);
  const granted = period === undefined || start === undefined ? undefined : start + period;
  if (!isSettled(signIn)) return granted;
  const said = timeOf(signIn.status?.valid_until);
  return said === undefined || granted === undefined ? (said ?? granted) : Math.min(said, granted);
}

/** Returns whether the sign-in has ended. `now` is in milliseconds of the epoch. */
export const isOver = (signIn: TkaSignin, now: number): boolean => (endOf(signIn, now) ?? Infinity) <= now;

/** Returns the status of a sign-in that is provisioned now, or undefined if its period is invalid. */
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

/**
 * Returns a sign-in's conditions with a new Ready condition; others are kept. `now` is in milliseconds of the epoch.
 */
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

// The grant of a device at its last sign-in: start (milliseconds of the epoch) and period.
interface Use {
  readonly at: number;
  readonly periodMs: number;
}

// Stands for all devices that are not listed by name.
const anyDevice = '*';

// Devices beyond this limit, those that end first, share the entry of `anyDevice`.
const mostDevices = 16;

const useEnd = ({ at, periodMs }: Use, now: number): number => Math.min(at, now) + periodMs;

/**
 * Returns the devices that use a sign-in, from `{"nBLYv…": "2026-11-21T08:00:00Z 8h0m0s"}`. Returns undefined if the
 * annotation is missing or invalid.
 */
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

/** Returns what a device was granted under a sign-in, or undefined if it did not sign in under it. */
function useOf(signIn: TkaSignin, device: string, now: number): Use | undefined {
  const uses = usesOf(signIn);
  if (uses !== undefined) return uses.get(device) ?? uses.get(anyDevice);
  const start = attemptOf(signIn) ?? timeOf(signIn.status?.signed_in) ?? now;
  return { at: start, periodMs: goDuration(signIn.spec.validity_period) ?? 0 };
}

/** Returns the annotation that adds a caller's device to a sign-in. */
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
 * Returns the end of a sign-in for a caller's device, which may have been granted less than another device. Returns
 * undefined if the device has not signed in.
 */
export function endFor(signIn: TkaSignin, { device = anyDevice }: Caller, now: number): number | undefined {
  const use = useOf(signIn, device, now);
  return use && Math.min(endOf(signIn, now) ?? Infinity, useEnd(use, now));
}

/** Returns whether a sign-in gives a caller's device more than today's grant: another role, or a later end. */
export function exceeds(signIn: TkaSignin, caller: Caller, now: number): boolean {
  const end = endFor(signIn, caller, now);
  return end !== undefined && (signIn.spec.role !== caller.role || end > now + caller.periodMs);
}

const annotationsOf = (signIn: TkaSignin | undefined, caller: Caller, at: number): Record<string, string> => ({
  [annotation.attempted]: rfc3339(at),
  [annotation.attemptId]: randomUUID(),
  [annotation.validUntil]: rfc3339(at + caller.periodMs),
  ...whoOf(caller),
  [annotation.devices]: devicesWith(signIn, caller, at),
});

const specOf = ({ username, role, periodMs }: Caller): TkaSignin['spec'] => ({
  username,
  role,
  validity_period: formatGoDuration(periodMs),
});

/** Returns the sign-in to create for a caller. `at` is the time of the request, in milliseconds of the epoch. */
export const newSignIn = (name: string, caller: Caller, at: number): object => ({
  apiVersion,
  kind: 'TkaSignin',
  metadata: { name, annotations: annotationsOf(undefined, caller, at) },
  spec: specOf(caller),
});

/** Returns the sign-in to create in another namespace, for the same person with the same role and end. */
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
    // Keep an earlier end that was set by hand.
    spec: { ...signIn.spec, ...(isDated && { validity_period: formatGoDuration(end - start) }) },
  };
}

/** Returns the merge patch that extends a sign-in from `at`. It fails if the sign-in has changed meanwhile. */
export const extension = (signIn: TkaSignin, caller: Caller, at: number): object => ({
  metadata: { ...asSeen(signIn), annotations: { ...annotationsOf(signIn, caller, at), [annotation.problem]: null } },
  spec: specOf(caller),
});

/** Returns the merge patch that adds a device to a sign-in and does not change its end. */
export const sharing = (signIn: TkaSignin, caller: Caller, at: number): object => ({
  metadata: {
    ...asSeen(signIn),
    annotations: { ...whoOf(caller), [annotation.devices]: devicesWith(signIn, caller, at) },
  },
});

const asSeen = ({ metadata: { uid, resourceVersion } }: TkaSignin) => ({ uid, resourceVersion });

/** Returns whether a sign-in already states the caller's grant from this very second, so that no write is needed. */
export const asksFor = (signIn: TkaSignin, caller: Caller, at: number): boolean =>
  signIn.spec.role === caller.role &&
  goDuration(signIn.spec.validity_period) === caller.periodMs &&
  attemptOf(signIn) === at &&
  usesOf(signIn)?.get(caller.device ?? anyDevice)?.at === at;

/** Returns the merge patch that writes or clears (null) the reason why a sign-in cannot be provisioned. */
export const problemPatch = ({ metadata }: TkaSignin, text: string | null): object => ({
  metadata: { resourceVersion: metadata.resourceVersion, annotations: { [annotation.problem]: text } },
});

/**
 * Returns the merge patch of a sign-in's status. It fails if the sign-in has changed since it was read. The API server
 * does not check the UID here, but no other object ever has the same resource version.
 */
export const statusPatch = ({ metadata }: TkaSignin, status: Partial<TkaSignin['status']>): object => ({
  metadata: { resourceVersion: metadata.resourceVersion },
  status,
});
