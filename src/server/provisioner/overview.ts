// What an administrator sees of a sign-in.
import type { ServiceAccount, TkaSignin } from './objects.ts';
import { ownerOfAccount } from './parts.ts';
import { endOf, isLeaving, isOver, isSettled, loginOf, problemOf, rfc3339 } from './sign-in.ts';

/** One sign-in of the cluster. */
export interface SignInOverview {
  /** Of the TkaSignin. */
  readonly name: string;
  /** Absent where nothing says it, as in sign-ins of the Go server. */
  readonly login?: string;
  readonly username: string;
  readonly role: string;
  /** `pending`: not provisioned yet; `blocked`: a problem keeps it from that; `ending`: it is being deleted, or is over. */
  readonly state: 'active' | 'pending' | 'blocked' | 'ending';
  /** RFC 3339; absent where nothing says it yet. */
  readonly until?: string;
  /** The name of its ServiceAccount; absent while there is none. */
  readonly account?: string;
  readonly problem?: string;
  /** What to do about the problem, a line each. */
  readonly advice?: readonly string[];
}

/** Returns what there is to say of a sign-in at this time, in milliseconds of the epoch. */
export function overviewOf(signIn: TkaSignin, account: ServiceAccount | undefined, now: number): SignInOverview {
  const { metadata, spec } = signIn;
  const login = loginOf(signIn);
  const end = endOf(signIn, now);
  const [problem, ...advice] = problemOf(signIn)?.split('\n') ?? [];
  const isEnding = isLeaving(signIn) || isOver(signIn, now);
  const state = isEnding ? 'ending' : problem !== undefined ? 'blocked' : isSettled(signIn) ? 'active' : 'pending';
  const isOwn = account !== undefined && ownerOfAccount(account) === metadata.uid;
  return {
    name: metadata.name,
    ...(login !== undefined && { login }),
    username: spec.username,
    role: spec.role,
    state,
    ...(end !== undefined && { until: rfc3339(end) }),
    ...(isOwn && { account: account.metadata.name }),
    ...(problem !== undefined && { problem, advice }),
  };
}
