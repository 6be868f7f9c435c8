// Sign-ins as an administrator sees them.
import type { ServiceAccount, TkaSignin } from './objects.ts';
import { ownerOfAccount } from './parts.ts';
import { endOf, isLeaving, isOver, isSettled, loginOf, problemOf, rfc3339, taggedOf, throughOf } from './sign-in.ts';

export interface SignInOverview {
  /** Name of the TkaSignin. */
  readonly name: string;
  /** Absent if unknown, as in sign-ins of the Go server. */
  readonly login?: string;
  /** The name of the login server's cluster that it came through; absent if it came directly. */
  readonly loginServer?: string;
  readonly username: string;
  /** Name and tags of a tagged device; absent for a person. */
  readonly node?: string;
  readonly tags?: readonly string[];
  readonly role: string;
  /** `pending`: not provisioned yet. `blocked`: a problem prevents it. `ending`: deleted or expired. */
  readonly state: 'active' | 'pending' | 'blocked' | 'ending';
  /** RFC 3339; absent while unknown. */
  readonly until?: string;
  /** Name of its ServiceAccount; absent while there is none. */
  readonly account?: string;
  readonly problem?: string;
  /** What to do about the problem, one line each. */
  readonly advice?: readonly string[];
}

/** Returns the overview of a sign-in. `now` is in milliseconds of the epoch. */
export function overviewOf(signIn: TkaSignin, account: ServiceAccount | undefined, now: number): SignInOverview {
  const { metadata, spec } = signIn;
  const [login, loginServer] = [loginOf(signIn), throughOf(signIn)];
  const end = endOf(signIn, now);
  const [problem, ...advice] = problemOf(signIn)?.split('\n') ?? [];
  const isEnding = isLeaving(signIn) || isOver(signIn, now);
  const state = isEnding ? 'ending' : problem !== undefined ? 'blocked' : isSettled(signIn) ? 'active' : 'pending';
  const isOwn = account !== undefined && ownerOfAccount(account) === metadata.uid;
  return {
    name: metadata.name,
    ...(login !== undefined && { login }),
    ...(loginServer !== undefined && { loginServer }),
    username: spec.username,
    ...taggedOf(signIn),
    role: spec.role,
    state,
    ...(end !== undefined && { until: rfc3339(end) }),
    ...(isOwn && { account: account.metadata.name }),
    ...(problem !== undefined && { problem, advice }),
  };
}
