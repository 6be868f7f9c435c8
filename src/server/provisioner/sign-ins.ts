// The sign-ins of the TKA API, stored as TkaSignin objects. Any replica serves them and provisions what it takes before
// it answers. So requests do not wait for the leader, which repairs and cleans up.
//
// There is one sign-in for each login and role. It lists the devices that signed in under it, with the time and the
// period. A device may ask for a token, its sign-in or a new sign-in. Each time, every sign-in of its login that it
// uses is compared with the device's current grant in the policy. The sign-in and its account are deleted, which ends
// all of its tokens, if the role differs, if the device's end is later than now plus today's period, or if nothing is
// granted. Other devices that used it sign in again at their next request, each with its own grant. This means:
//
// - Two devices of one person with different grants have different sign-ins, or different ends in one. Neither changes
//   what only the other one uses.
// - A sign-in that lists no devices (of version 0.1.0 or the Go server) counts as used by every device.
// - A device that sends no request keeps its token until the token ends: at most the period of the old grant.
// - A device gets tokens only under a sign-in that it created or joined with POST /login.
// - A logout ends all sign-ins of the login, on all devices.
//
// A caller that comes through a login server (Caller.through) has sign-ins of its own: none that came directly or
// through another login server is used, extended or ended for it, nor the other way round (isOf).
//
// Tokens and logins are answered from the watch's copy. It is usually milliseconds old, and at most 30 s if the watch
// has stalled. This never grants more: a token comes from the account of exactly this sign-in, a change is refused if
// the sign-in has changed, and a sign-in that is missing or must end is read first.
import type { ClusterInfo, LoginAnswer } from '../../tka/types.ts';
import { quoted } from '../../util/text.ts';
import { type Caller, deviceLogin, Refusal, type SignIns } from '../http/contract.ts';
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
  throughOf,
  toldOf,
} from './sign-in.ts';
import { type KubeconfigNames, kubeconfigOf, type Minted, minimumMs, mintToken, type TokenOptions } from './tokens.ts';
import type { Watched } from './watch.ts';

export interface SignInsOptions extends TokenOptions, KubeconfigNames {
  readonly watch: Watched<TkaSignin>;
  /** The same sign-ins by login. */
  readonly index: IndexByLogin;
  /**
   * Provisions a sign-in that was just written. Returns its new state, or undefined if it is gone. Throws Blocked if a
   * person must act first.
   */
  readonly provide: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
  /** Removes the parts of a deleted sign-in. */
  readonly release: (signIn: TkaSignin) => Promise<void>;
  /** Called for each sign-in that ended because the policy grants less, with the reason. */
  readonly onRevoked: (signIn: TkaSignin, reason: string) => void;
  /** Returns the holder of the lease if it is a running Go operator. */
  readonly goLeader: () => string | undefined;
  readonly log: Log;
  readonly clusterInfo: () => ClusterInfo | Promise<ClusterInfo>;
}

const attempts = 10;
const endedAtOnce = 16;

// A login does not stop waiting for its turn.
const never = new AbortController().signal;

/** The sign-ins of a cluster that other clusters' login servers may sign people in to. */
export interface FederatedSignIns extends SignIns {
  /** As in Provisioner. */
  endAllThrough(loginServer: string): Promise<number>;
}

export function createSignIns(options: SignInsOptions): FederatedSignIns {
  const { kube, watch, index, namespace, release, onRevoked, goLeader, log, clusterInfo } = options;
  const roles = new KnownRoles(kube);
  const turns = new Turns(1);

  /** Runs the requests of one login one after the other, because they change the same object. */
  async function inTurn<T>({ login, through = '' }: Caller, work: () => Promise<T>): Promise<T> {
    const end = await turns.take(`${login}\0${through}`, never);
    return work().finally(end);
  }

  async function read(name: string): Promise<TkaSignin | undefined> {
    const found = await kube.get<TkaSignin>(paths.signIns(namespace, name));
    if (found === undefined) return undefined;
    watch.put(found);
    return withSpec(found);
  }

  /** Returns the names to look at. Without a role, leaves out the hashed name: its hash includes the role. */
  const namesFor = (caller: Caller): readonly string[] =>
    caller.role === '' ? namesOf(caller).slice(0, -1) : namesOf(caller);

  /** Returns the sign-ins of a caller that have other names than these: for other roles, or named by version 0.1.0. */
  const othersOf = (caller: Caller, names: readonly string[]): TkaSignin[] =>
    index.of(caller.login).filter((signIn) => isOf(signIn, caller) && !names.includes(signIn.metadata.name));

  /**
   * Deletes a sign-in and its parts. Returns whether all of it is gone and nothing will touch a new one. Calls `onGone`
   * if this call deleted the sign-in.
   */
  async function end(signIn: TkaSignin, onGone?: () => void): Promise<boolean> {
    const { name, uid } = signIn.metadata;
    if (await kube.remove(paths.signIns(namespace, name), { uid })) onGone?.();
    index.ended(signIn);
    watch.drop(signIn);
    try {
      // Remove the parts now instead of waiting for the leader. If this fails, the leader removes them.
      await release(signIn);
      return isOurWork(signIn);
    } catch (error) {
      log.warn({ err: error, name, ...toldOf(signIn) }, 'could not remove the access of a sign-in yet');
      return false;
    }
  }

  /**
   * Ends the sign-ins that exceed the caller's grant of today. Returns the sign-in of today's role, even if it has
   * expired, a name for a new one (each undefined if there is none), and whether any sign-in was ended. Without
   * `fresh`, trusts the watch's copy for using or creating a sign-in: the cluster refuses the next call if the copy is
   * old.
   */
  async function look(
    caller: Caller,
    fresh: boolean,
  ): Promise<{ readonly found?: TkaSignin; readonly free?: string; readonly ended: boolean }> {
    const { login, role, device, tagged, through } = caller;
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
      const told = { name, login, login_server: through, device, role: signIn.spec.role, granted: role };
      log.info(told, 'access ends: the policy grants less');
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
    for (const { metadata } of othersOf(caller, seen)) if (!isOld) await judge(metadata.name);
    if (tagged === undefined && device !== undefined) await endUntagged(device, through);
    // Do not end a sign-in because of the copy alone: read it first.
    if (isOld) return look(caller, true);
    return { ...(found !== undefined && { found }), ...(free !== undefined && { free }), ended };
  }

  /** Ends the sign-ins of a device from the time when it was tagged, because it belongs to a person now. */
  async function endUntagged(device: string, through: string | undefined): Promise<void> {
    for (const signIn of index.of(deviceLogin(device))) {
      // Devices of other tailnets may have the same ID.
      if (throughOf(signIn) !== through) continue;
      log.info({ name: signIn.metadata.name, ...toldOf(signIn) }, 'access ends: the device is no longer tagged');
      await end(signIn, () => onRevoked(signIn, 'the device is no longer tagged'));
    }
  }

  /**
   * Returns the sign-in that gives the caller's device access now. Throws `caller.problem` if the policy grants nothing
   * and no sign-in was ended.
   */
  async function findLive(caller: Caller, fresh: boolean): Promise<TkaSignin | undefined> {
    const { found, ended } = await look(caller, fresh);
    const isLive = found !== undefined && (endFor(found, caller, Date.now()) ?? 0) > Date.now();
    if (isLive) return found;
    // Another replica may have created or extended it a moment ago.
    if (!fresh && !ended) return findLive(caller, true);
    if (caller.problem !== undefined && !ended) throw caller.problem;
    return undefined;
  }

  /** Throws if the caller may have signed in at the Go server, whose sign-ins do not state the domain of their user. */
  function refuseNameless({ username, ownDomain, through }: Caller): void {
    const name = plainName(username);
    const signIn = watch.get(name);
    // Nobody gets to the Go server through a login server.
    if (ownDomain === true || through !== undefined) return;
    if (signIn === undefined || loginOf(signIn) !== undefined) return;
    if (isLeaving(signIn) || isOver(signIn, Date.now())) return;
    throw blockedRefusal(username, nameless(name, namespace).text);
  }

  /** Throws if a Go operator leads that would confuse this sign-in with other objects. */
  async function mustSuitLeader({ username, role, ownDomain }: Caller, name: string): Promise<void> {
    const leader = goLeader();
    if (leader === undefined) return;
    if (name !== plainName(username)) {
      const isChange = ownDomain === true && index.hadOtherRole(plainName(username), role);
      throw blockedRefusal(username, beyondGo(leader, name, isChange).text);
    }
    // The Go operator uses any binding of this name, no matter who made it, and deletes it with the sign-in.
    const binding = await kube.get<ClusterRoleBinding>(paths.bindings(bindingName(name)));
    if (binding !== undefined && ownerOfBinding(binding, namespace) === undefined)
      throw blockedRefusal(username, foreignBinding(name, binding).text);
  }

  /** Creates or extends a sign-in. Returns its new state. */
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
          // Without a write, nothing proves that the sign-in still exists: read it first.
          if (left === attempts) continue;
          return found;
        }
        await mustSuitLeader(caller, found.metadata.name);
        // Another device was granted more. Keep that end, and add this device with its own grant.
        const isEnough =
          isGood &&
          !isAhead(found, now) &&
          loginOf(found) !== undefined &&
          (endOf(found, now) ?? 0) >= at + caller.periodMs;
        const patch = isEnough ? sharing(found, caller, at) : extension(found, caller, at);
        return heard(await kube.patch<TkaSignin>(path, patch));
      } catch (error) {
        // Another process created, changed or deleted it meanwhile.
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
   * Provisions a sign-in with `provide`, unless it is provisioned already. Returns its new state, or undefined if it is
   * gone. If `provide` fails, returns the sign-in unchanged: the leader does the rest. Throws a Refusal if it is
   * blocked.
   */
  async function settle(
    signIn: TkaSignin,
    provide: (signIn: TkaSignin) => Promise<TkaSignin | undefined>,
  ): Promise<TkaSignin | undefined> {
    refuseBlocked(signIn);
    if (isSettled(signIn)) return signIn;
    try {
      const now = await provide(signIn);
      // Do not return another sign-in that has the name now: it may belong to another caller.
      return now?.metadata.uid === signIn.metadata.uid ? now : undefined;
    } catch (error) {
      if (error instanceof Blocked) throw blockedRefusal(signIn.spec.username, error.text);
      return signIn;
    }
  }

  /** Returns a refusal if the policy's grant is not possible here. */
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
    ...(caller.tagged && { node: caller.tagged.node }),
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
          // End what exceeds today's grant even though the sign-in is refused.
          await look(caller, true);
          throw refusal;
        }
        refuseNameless(caller);
        return await inTurn(caller, async () => {
          const signIn = await write(caller);
          const answer = answerOf((await settle(signIn, options.provide)) ?? signIn, caller);
          return { ...answer, account: signIn.metadata.name };
        });
      });
    },

    async get(caller) {
      const found = await telling('Failed to load sign-in request', readAdvice, () => findLive(caller, true));
      // The replica that took it may have been killed before it was provisioned.
      const signIn = found && (await settle(found, options.repair));
      return signIn && { answer: answerOf(signIn, caller), provisioned: isSettled(signIn) };
    },

    kubeconfig: (caller, signal) =>
      telling('Failed to generate token', tokenAdvice, async () => {
        for (const fresh of [false, true]) {
          const answer = await tokenFor(caller, fresh, signal);
          if (typeof answer !== 'object') return answer;
          if (answer.token !== undefined) return kubeconfigOf(options, caller, answer.token, await clusterInfo());
          // The account is gone, so the copy was old: read again.
        }
        return 'pending';
      }),

    signOut: (caller) =>
      telling('Error signing out user', createAdvice, async () => {
        const names = namesFor(caller);
        const named = (await Promise.all(names.map(read))).filter((signIn) => signIn !== undefined);
        const mine = [...named, ...othersOf(caller, names)].filter((signIn) => isOf(signIn, caller));
        if (mine.length === 0) refuseNameless(caller);
        const ends = await Promise.all(mine.map((signIn) => end(signIn)));
        const live = mine.find((signIn) => !isOver(signIn, Date.now()));
        const accounts = mine.map(({ metadata: { name } }) => name);
        return live && { answer: answerOf(live, caller), complete: ends.every((complete) => complete), accounts };
      }),

    async endAllThrough(loginServer) {
      const ending: TkaSignin[] = [];
      for await (const listed of kube.list<TkaSignin>(paths.signIns(namespace)))
        if (throughOf(listed) === loginServer && !isLeaving(listed)) ending.push(withSpec(listed));
      const { length } = ending;
      if (length > 0) log.info({ login_server: loginServer, count: length }, 'all access through a login server ends');
      let count = 0;
      const onGone = (signIn: TkaSignin): void => {
        count++;
        onRevoked(signIn, `the login server ${quoted(loginServer, 253)} no longer signs in to this cluster`);
      };
      const problems: unknown[] = [];
      // End all that can be ended, whatever happens to the others.
      for (let next = ending.splice(0, endedAtOnce); next.length > 0; next = ending.splice(0, endedAtOnce)) {
        const ends = await Promise.allSettled(next.map((signIn) => end(signIn, () => onGone(signIn))));
        problems.push(...ends.flatMap((settled) => (settled.status === 'rejected' ? [settled.reason] : [])));
      }
      if (problems.length > 0) throw problems[0];
      return count;
    },
  };

  /**
   * Mints a token under the caller's sign-in. Returns undefined if there is no sign-in, and `pending` while it is not
   * provisioned.
   */
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

/** Returns why a sign-in ends that exceeds the caller's grant of today. */
function lessGranted({ spec }: TkaSignin, { role, problem }: Caller): string {
  if (problem?.reason === 'tagged_device') return 'the device can no longer sign in: its tags do not allow it';
  // A login server asserts a role that this cluster does not allow it to use.
  if (problem?.reason === 'missing_role') return problem.message;
  if (role === '') return 'the policy grants nothing';
  return role === spec.role ? 'the policy grants less time' : `the policy grants the role ${quoted(role, 253)}`;
}

// How long a ClusterRole is known to exist after it was read.
const keepMs = 30_000;

/** Caches the existence of ClusterRoles, because most sign-ins ask for the same few. */
class KnownRoles {
  readonly #kube: Kube;
  readonly #seenAt = new Map<string, number>();

  constructor(kube: Kube) {
    this.#kube = kube;
  }

  /** Returns whether a ClusterRole exists. Returns true if the server may not read it. Throws a KubeError. */
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
      // The server finds out when it binds the role.
      if (isStatus(error, 403)) return true;
      throw error;
    }
  }
}
