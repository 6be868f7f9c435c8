// The devices that use a sign-in, each with the time and period of its own grant.
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import type { Caller } from '../http/contract.ts';
import { annotation, type TkaSignin } from './objects.ts';
import { attemptOf, endOf, rfc3339, timeOf } from './sign-in.ts';

// What a device was granted when it last signed in: from when (milliseconds of the epoch), for how long.
interface Use {
  readonly at: number;
  readonly periodMs: number;
}

// Stands for devices that nothing names.
export const anyDevice = '*';

// More of them, and the first to end are told apart no longer.
const mostDevices = 16;

const useEnd = ({ at, periodMs }: Use, now: number): number => Math.min(at, now) + periodMs;

/** Which devices use a sign-in: `{"nBLYv…": "2026-11-21T08:00:00Z 8h0m0s"}`. Undefined where nothing readable says so. */
export function usesOf({ metadata }: TkaSignin): ReadonlyMap<string, Use> | undefined {
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
export function devicesWith(
  signIn: TkaSignin | undefined,
  { device = anyDevice, periodMs }: Caller,
  now: number,
): string {
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
