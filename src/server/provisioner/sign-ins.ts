// The TKA API's sign-ins over TkaSignin objects. Any replica serves them, and provisions itself what it is asked for before
// it answers: nobody waits for the leader, which repairs and cleans up.
//
// There is one sign-in for each login and role. It knows which devices signed in under it, when and for how long. Whenever
// a device asks anything (a token, its sign-in, a new sign-in), each sign-in of its login that it uses is compared with
// what the policy grants this device now. If the role differs, or this device's end is later than now and the period of
// today, or nothing is granted, the sign-in and its account are deleted, so that all of its tokens end. Other devices that
// used it sign in again at their next question, each by its own grant. So:
//
// - Two devices of one person with different grants have different sign-ins, or different ends in one. Neither touches
//   what only the other one uses.
// - A sign-in that does not say which devices use it (of 0.1.0, of the Go server) is taken for one that every device uses.
// - A device that asks nothing keeps the token that it has until that ends: at most the period of the old grant.
// - A device gets tokens only under a sign-in that it made or joined by POST /login.
// - Logging out ends all sign-ins of the login, on all devices.
//
// A token and a login are answered from what the watch told last, which may be old by milliseconds, and by 30 s at most where
// the watch has stalled. That gives nobody more: a token is that of the account of the very sign-in, a change is refused if
// the sign-in has changed, and what is not found, or is to be ended, is read first.
import type { ClusterInfo, LoginAnswer } from '../../tka/types.ts';
import { quoted } from '../../util/text.ts';
import { type Caller, Refusal, type SignIns } from '../http/contract.ts';
import { Turns } from '../http/limits.ts';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import {
  Blocked,
  beyondGo,
  blockedRefusal,
  createAdvice,
  foreignBinding,
  nameless,
  noSuchRole,
  readAdvice,
  stillThere,
  telling,
  tokenAdvice,
} from './blocked.ts';
import type { IndexByLogin } from './index-by-login.ts';
import {
  bindingName,
  type ClusterRoleBinding,
  namesOf,
  paths,
  plainName,
  type TkaSignin,
  withSpec,
} from './objects.ts';
import { ownerOfBinding } from './parts.ts';
import {
  asksFor,
  endFor,
  endOf,
  exceeds,
  extension,
  isAhead,
  isLeaving,
  isOf,
  isOurWork,
  isOver,
  isSettled,
  loginOf,
  newSignIn,
  problemOf,
  rfc3339,
  sharing,
} from './sign-in.ts';
import { type KubeconfigNames, kubeconfigOf, type Minted, minimumMs, mintToken, type TokenOptions } from './tokens.ts';
import type { Watched } from './watch.ts';

/** What the sign-ins are given. */
export interface SignInsOptions extends TokenOptions, KubeconfigNames {
  readonly watch: Watched<TkaSignin>;
  /** The same sign-ins, by login. */
  readonly index: IndexByLogin;
  /**
   * Provisions a sign-in that was just written. Answers it as it then is; undefined: it is gone. Throws Blocked where a
   * person must act first.
   */
  readonly provide: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
  /** Removes what a deleted sign-in had. */
  readonly release: (signIn: TkaSignin) => Promise<void>;
  /** Told of each sign-in that was ended because the policy grants less, and why. */
  readonly onRevoked: (signIn: TkaSignin, reason: string) => void;
  /** The holder of the lease while that is a Go operator. */
  readonly goLeader: () => string | undefined;
  readonly log: Log;
  readonly clusterInfo: () => ClusterInfo | Promise<ClusterInfo>;
}

const attempts = 10;

// Logins are not given up while they wait for their turn.
const never = new AbortController().signal;

/** The sign-ins of one cluster. */
export function createSignIns(options: SignInsOptions): SignIns {
  const { kube, watch, index, namespace, release, onRevoked, goLeader, log, clusterInfo } = options;
  const roles = new KnownRoles(kube);
  const turns = new Turns(1);

  /** Runs one login's sign-ins one after the other: they change one object. */
  async function inTurn<T>(login: string, work: () => Promise<T>): Promise<T> {
    const end = await turns.take(login, never);
    return work().finally(end);
  }

  async function read(name: string): Promise<TkaSignin | undefined> {
    const found = await kube.get<TkaSignin>(paths.signIns(namespace, name));
    if (found === undefined) return undefined;
    watch.put(found);
    return withSpec(found);
  }

  /** The names to look at: a hashed one says which role. */
  const namesFor = (caller: Caller): readonly string[] =>
    caller.role === '' ? namesOf(caller).slice(0, -1) : namesOf(caller);

  /** Sign-ins of a login under other names than these: for other roles, or named by 0.1.0. */
  const othersOf = (login: string, names: readonly string[]): TkaSignin[] =>
    index.of(login).filter((signIn) => !names.includes(signIn.metadata.name));

  /**
   * Deletes a sign-in and what it has. Answers whether all of that is gone, and nothing will touch a new one. `onGone` is
   * called if it was this call that deleted the sign-in.
   */
  async function end(signIn: TkaSignin, onGone?: () => void): Promise<boolean> {
    const { name, uid } = signIn.metadata;
    if (await kube.remove(paths.signIns(namespace, name), { uid })) onGone?.();
    index.ended(signIn);
    watch.drop(signIn);
    try {
      // Now, and not only when the leader hears of it. It does the rest where this fails.
      await release(signIn);
      return isOurWork(signIn);
    } catch (error) {
      log.warn({ err: error, name, login: loginOf(signIn) }, 'access is still there');
      return false;
    }
  }

  /**
   * Ends what exceeds the caller's grant of today. Answers the sign-in of today's role, be it over or not, the name that a
   * new one may have (each undefined where there is none), and whether any was ended. Unless it is to be `fresh`, what the
   * watch told last is good enough to use a sign-in, or to make one: the cluster refuses what follows if that is old.
   */
  async function look(
    caller: Caller,
    fresh: boolean,
  ): Promise<{ readonly found?: TkaSignin; readonly free?: string; readonly ended: boolean }> {
    const { login, role, device } = caller;
    const names = namesFor(caller);
    const isRead = fresh || watch.problem() !== undefined;
    const see = async (name: string): Promise<TkaSignin | undefined> => (isRead ? await read(name) : watch.get(name));
    let found: TkaSignin | undefined;
    let free: string | undefined;
    let ended = false;
    const leave = (name: string): void => {
      if (names.includes(name) && !index.hadOtherRole(name, role)) free ??= name;
    };

    let isOld = false;
    async function judge(name: string): Promise<void> {
      const signIn = await see(name);
      if (signIn === undefined) return leave(name);
      if (!isOf(signIn, caller) || isLeaving(signIn)) return;
      if (!exceeds(signIn, caller, Date.now())) {
        if (signIn.spec.role === role) found ??= signIn;
        return;
      }
      isOld = !isRead;
      if (isOld) return;
      log.info({ name, login, device, role: signIn.spec.role, granted: role }, 'access ends: the policy grants less');
      await end(signIn, () => onRevoked(signIn, lessGranted(signIn, caller)));
      ended = true;
      leave(name);
    }

    const seen: string[] = [];
    for (const name of names) {
      seen.push(name);
      await judge(name);
      if (found !== undefined || isOld) break;
    }
    for (const { metadata } of othersOf(login, seen)) if (!isOld) await judge(metadata.name);
    // None is ended on the watch's word.
    if (isOld) return look(caller, true);
    return { ...(found !== undefined && { found }), ...(free !== undefined && { free }), ended };
  }

  /** The sign-in under which the caller's device has access now. Throws for a caller without a grant who had none. */
  async function findLive(caller: Caller, fresh: boolean): Promise<TkaSignin | undefined> {
    const { found, ended } = await look(caller, fresh);
    const isLive = found !== undefined && (endFor(found, caller, Date.now()) ?? 0) > Date.now();
    if (isLive) return found;
    // It may have been made, or extended, by another replica a moment ago.
    if (!fresh && !ended) return findLive(caller, true);
    if (caller.problem !== undefined && !ended) throw caller.problem;
    return undefined;
  }

  /** Throws for a caller who may have signed in at the Go server: its sign-ins do not say of which domain their user is. */
  function refuseNameless({ username, ownDomain }: Caller): void {
    const name = plainName(username);
    const signIn = watch.get(name);
    if (ownDomain === true || signIn === undefined || loginOf(signIn) !== undefined) return;
    if (isLeaving(signIn) || isOver(signIn, Date.now())) return;
    throw blockedRefusal(username, nameless(name, namespace).text);
  }

  /** Throws for a sign-in that a Go operator, while it leads, would mix up with what is not this sign-in's. */
  async function mustSuitLeader({ username, role, ownDomain }: Caller, name: string): Promise<void> {
    const leader = goLeader();
    if (leader === undefined) return;
    if (name !== plainName(username)) {
      const isChange = ownDomain === true && index.hadOtherRole(plainName(username), role);
      throw blockedRefusal(username, beyondGo(leader, name, isChange).text);
    }
    // It takes a binding of this name for the sign-in's, whoever made it, and ends it with the sign-in.
    const binding = await kube.get<ClusterRoleBinding>(paths.bindings(bindingName(name)));
    if (binding !== undefined && ownerOfBinding(binding, namespace) === undefined)
      throw blockedRefusal(username, foreignBinding(name, binding).text);
  }

  /** Creates or extends; answers the sign-in as it then is. */
  async function write(caller: Caller): Promise<TkaSignin> {
    for (let left = attempts; ; left--) {
      const { found, free } = await look(caller, left < attempts);
      const now = Date.now();
      const at = Math.floor(now / 1000) * 1000;
      try {
        if (found === undefined) {
          if (free === undefined && left === attempts) continue;
          if (free === undefined) throw stillThere(caller);
          await mustSuitLeader(caller, free);
          return heard(await kube.create<TkaSignin>(paths.signIns(namespace), newSignIn(free, caller, at)));
        }
        const path = paths.signIns(namespace, found.metadata.name);
        const isGood = problemOf(found) === undefined && !isOver(found, now);
        if (isGood && asksFor(found, caller, at)) {
          // Nothing else says whether it is still there.
          if (left === attempts) continue;
          return found;
        }
        await mustSuitLeader(caller, found.metadata.name);
        // Another device was granted more: that stays, and this one gets what it is granted.
        const isEnough =
          isGood &&
          !isAhead(found, now) &&
          loginOf(found) !== undefined &&
          (endOf(found, now) ?? 0) >= at + caller.periodMs;
        const patch = isEnough ? sharing(found, caller, at) : extension(found, caller, at);
        return heard(await kube.patch<TkaSignin>(path, patch));
      } catch (error) {
        // Somebody else created, changed or deleted it meanwhile.
        const isRace = isStatus(error, 409) || (found !== undefined && isStatus(error, 404));
        if (left === 1 || !isRace) throw error;
      }
    }
  }

  function heard(signIn: TkaSignin): TkaSignin {
    watch.put(signIn);
    return signIn;
  }

  /**
   * Provisions a sign-in that is not, in this way; the leader does what fails here. Answers it as it then is; undefined: it
   * is gone.
   */
  async function settle(
    signIn: TkaSignin,
    provide: (signIn: TkaSignin) => Promise<TkaSignin | undefined>,
  ): Promise<TkaSignin | undefined> {
    refuseBlocked(signIn);
    if (isSettled(signIn)) return signIn;
    try {
      const now = await provide(signIn);
      // Not another one that has its name by now: nothing says that this one is for the same caller.
      return now?.metadata.uid === signIn.metadata.uid ? now : undefined;
    } catch (error) {
      if (error instanceof Blocked) throw blockedRefusal(signIn.spec.username, error.text);
      return signIn;
    }
  }

  /** Why the policy's grant cannot be followed here. */
  async function refusalOf({ username, role, periodMs }: Caller): Promise<Refusal | undefined> {
    if (periodMs < minimumMs) {
      const advice = [`Specify a period greater than 10 minutes in your api ACL for user ${username}`];
      const message = '`period` may not specify a duration less than 10 minutes';
      return new Refusal(422, { message, advice }, { reason: 'invalid_policy' });
    }
    return (await roles.has(role)) ? undefined : noSuchRole(role);
  }

  const answerOf = (signIn: TkaSignin, caller: Caller): LoginAnswer => ({
    username: signIn.spec.username,
    role: signIn.spec.role,
    until: rfc3339(endFor(signIn, caller, Date.now()) ?? endOf(signIn, Date.now()) ?? Date.now()),
  });

  function refuseBlocked(signIn: TkaSignin): void {
    const problem = problemOf(signIn);
    if (problem === undefined || isSettled(signIn)) return;
    throw blockedRefusal(signIn.spec.username, problem);
  }

  return {
    appliesRoles: true,
    async signIn(caller) {
      return await telling('Error signing in user', createAdvice, async () => {
        const refusal = await refusalOf(caller);
        if (refusal !== undefined) {
          // What the device has beyond today's grant ends all the same.
          await look(caller, true);
          throw refusal;
        }
        refuseNameless(caller);
        return await inTurn(caller.login, async () => {
          const signIn = await write(caller);
          const answer = answerOf((await settle(signIn, options.provide)) ?? signIn, caller);
          return { ...answer, account: signIn.metadata.name };
        });
      });
    },

    async get(caller) {
      const found = await telling('Failed to load sign-in request', readAdvice, () => findLive(caller, true));
      // The replica that took it may have been killed before it was done.
      const signIn = found && (await settle(found, options.repair));
      return signIn && { answer: answerOf(signIn, caller), provisioned: isSettled(signIn) };
    },

    kubeconfig: (caller, signal) =>
      telling('Failed to generate token', tokenAdvice, async () => {
        for (const fresh of [false, true]) {
          const answer = await tokenFor(caller, fresh, signal);
          if (typeof answer !== 'object') return answer;
          if (answer.token !== undefined) return kubeconfigOf(options, caller, answer.token, await clusterInfo());
          // What this replica knew is old: the account is gone.
        }
        return 'pending';
      }),

    signOut: (caller) =>
      telling('Error signing out user', createAdvice, async () => {
        const names = namesFor(caller);
        const named = (await Promise.all(names.map(read))).filter((signIn) => signIn !== undefined);
        const mine = [...named, ...othersOf(caller.login, names)].filter((signIn) => isOf(signIn, caller));
        if (mine.length === 0) refuseNameless(caller);
        const ends = await Promise.all(mine.map((signIn) => end(signIn)));
        const live = mine.find((signIn) => !isOver(signIn, Date.now()));
        const accounts = mine.map(({ metadata: { name } }) => name);
        return live && { answer: answerOf(live, caller), complete: ends.every((complete) => complete), accounts };
      }),
  };

  /** Mints a token under the caller's sign-in; undefined where there is none, `pending` while it is not provisioned. */
  async function tokenFor(
    caller: Caller,
    fresh: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Minted | undefined> {
    const found = await findLive(caller, fresh);
    const signIn = found && (await settle(found, options.repair));
    if (signIn === undefined) return undefined;
    return isSettled(signIn) ? await mintToken(options, signIn, caller, fresh, signal) : 'pending';
  }
}

/** Says why a sign-in ends that exceeds its caller's grant of today. */
function lessGranted({ spec }: TkaSignin, { role }: Caller): string {
  if (role === '') return 'the policy grants nothing';
  return role === spec.role ? 'the policy grants less time' : `the policy grants the role ${quoted(role, 253)}`;
}

// How long a ClusterRole that was there counts as there.
const keepMs = 30_000;

/** Remembers the roles that were there a moment ago, which most sign-ins ask for. */
class KnownRoles {
  readonly #kube: Kube;
  readonly #seenAt = new Map<string, number>();

  constructor(kube: Kube) {
    this.#kube = kube;
  }

  /** Returns whether there is a ClusterRole of this name; true where the server may not read it. Throws a KubeError. */
  async has(role: string): Promise<boolean> {
    const now = performance.now();
    for (const [known, at] of this.#seenAt) if (now - at > keepMs) this.#seenAt.delete(known);
    if (this.#seenAt.has(role)) return true;
    try {
      if ((await this.#kube.get(paths.roles(role))) === undefined) return false;
      this.#seenAt.set(role, now);
      return true;
    } catch (error) {
      if (isStatus(error, 404)) return false;
      // Whether it is there, the server learns when it binds the role.
      if (isStatus(error, 403)) return true;
      throw error;
    }
  }
}
