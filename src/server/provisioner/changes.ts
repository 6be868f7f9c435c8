// What is written to a sign-in: new ones, and merge patches.
import { randomUUID } from 'node:crypto';
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import type { Caller } from '../http/contract.ts';
import { anyDevice, devicesWith, usesOf } from './devices.ts';
import { annotation, apiVersion, group, type TkaSignin } from './objects.ts';
import { attemptOf, endOf, rfc3339, timeOf } from './sign-in.ts';

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
