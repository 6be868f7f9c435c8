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
import type { ClusterInfo, KubeconfigAnswer, LoginAnswer } from '../../tka/types.ts';
import { type Caller, Refusal, type SignIns } from '../http/contract.ts';
import { isStatus, KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { Blocked, beyondGo, blockedRefusal, foreignAccount, foreignBinding, nameless } from './blocked.ts';
import { asksFor, extension, newSignIn, sharing } from './changes.ts';
import { endFor, exceeds } from './devices.ts';
import type { IndexByLogin } from './index-by-login.ts';
import { bindingName, namesOf, plainName } from './names.ts';
import { type ClusterRoleBinding, paths, type TkaSignin, withSpec } from './objects.ts';
import { isWhole, ownerOfAccount, ownerOfBinding, type Parts } from './parts.ts';
import {
  endOf,
  isAhead,
  isLeaving,
  isOf,
  isOurWork,
  isOver,
  isSettled,
  loginOf,
  problemOf,
  rfc3339,
} from './sign-in.ts';
import type { Watched } from './watch.ts';

/** What the sign-ins are given. */
export interface SignInsOptions {
  readonly kube: Kube;
  readonly watch: Watched<TkaSignin>;
  /** The same sign-ins, by login. */
  readonly index: IndexByLogin;
  readonly namespace: string;
  /**
   * Provisions a sign-in that was just written. Answers it as it then is; undefined: it is gone. Throws Blocked where a
   * person must act first.
   */
  readonly provide: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
  /** Provisions a sign-in of which something is missing. */
  readonly repair: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
  /** What a sign-in has, as this replica last heard; undefined where that may be old. */
  readonly knownParts: (name: string) => Parts | undefined;
  readonly readParts: (name: string, signal?: AbortSignal) => Promise<Parts>;
  /** Removes what a deleted sign-in had. */
  readonly release: (signIn: TkaSignin) => Promise<void>;
  /** The holder of the lease while that is a Go operator. */
  readonly goLeader: () => string | undefined;
  readonly log: Log;
  readonly clusterInfo: () => ClusterInfo | Promise<ClusterInfo>;
  readonly clusterName: string;
  readonly contextPrefix: string;
  readonly userPrefix: string;
}

const minimumMs = 10 * 60_000;
const attempts = 10;
// How long a ClusterRole that was there counts as there.
const roleMs = 30_000;

/** The sign-ins of one cluster. */
export function createSignIns(options: SignInsOptions): SignIns {
  const { kube, watch, index, namespace, release, goLeader, log, clusterInfo } = options;
  const roles = new Map<string, number>();
  const turns = new Map<string, Promise<unknown>>();

  /** One caller's logins one after the other: they change one object. */
  function inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const turn = (turns.get(key) ?? Promise.resolve()).then(work, work);
    turns.set(key, turn);
    const leave = (): void => {
      if (turns.get(key) === turn) turns.delete(key);
    };
    turn.then(leave, leave);
    return turn;
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

  /** Deletes a sign-in and what it has. Answers whether all of that is gone, and nothing will touch a new one. */
  async function end(signIn: TkaSignin): Promise<boolean> {
    const { name, uid } = signIn.metadata;
    await kube.remove(paths.signIns(namespace, name), { uid });
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
      await end(signIn);
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

  async function roleExists(role: string): Promise<boolean> {
    const now = performance.now();
    for (const [known, at] of roles) if (now - at > roleMs) roles.delete(known);
    if (roles.has(role)) return true;
    try {
      if ((await kube.get(paths.roles(role))) === undefined) return false;
      roles.set(role, now);
      return true;
    } catch (error) {
      if (isStatus(error, 404)) return false;
      // A server that may not look finds out when it binds the role.
      if (isStatus(error, 403)) return true;
      throw error;
    }
  }

  /** Why the policy's grant cannot be followed here. */
  async function refusalOf({ username, role, periodMs }: Caller): Promise<Refusal | undefined> {
    if (periodMs < minimumMs) {
      return new Refusal(422, {
        message: '`period` may not specify a duration less than 10 minutes',
        advice: [`Specify a period greater than 10 minutes in your api ACL for user ${username}`],
      });
    }
    return (await roleExists(role)) ? undefined : noSuchRole(role);
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
          return answerOf((await settle(signIn, options.provide)) ?? signIn, caller);
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
          if (answer.token !== undefined) return kubeconfigOf(caller, answer.token, await clusterInfo());
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
        const ends = await Promise.all(mine.map(end));
        const live = mine.find((signIn) => !isOver(signIn, Date.now()));
        return live && { answer: answerOf(live, caller), complete: ends.every((complete) => complete) };
      }),
  };

  /**
   * Mints a token under the caller's sign-in, as `kubeconfig` of SignIns; undefined as the token: there is no account.
   */
  async function tokenFor(
    caller: Caller,
    fresh: boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly token: string | undefined } | 'pending' | undefined> {
    const found = await findLive(caller, fresh);
    const signIn = found && (await settle(found, options.repair));
    if (signIn === undefined) return undefined;
    if (!isSettled(signIn)) return 'pending';
    const { name } = signIn.metadata;
    const known = fresh ? undefined : options.knownParts(name);
    const isKnown = known !== undefined && isWhole(known, signIn, namespace);
    const parts = isKnown ? known : await options.readParts(name, signal);
    const { account, binding } = parts;
    // A Go operator that leads takes what is in the way for its own, and says that all is well.
    if (binding !== undefined && ownerOfBinding(binding, namespace) === undefined)
      throw blockedRefusal(signIn.spec.username, foreignBinding(name, binding).text);
    if (account !== undefined && ownerOfAccount(account) === undefined)
      throw blockedRefusal(signIn.spec.username, foreignAccount(name, namespace).text);
    if (account === undefined || !isWhole(parts, signIn, namespace)) {
      // Somebody took a part of it away.
      await options.repair(signIn).catch(() => undefined);
      return 'pending';
    }
    const now = Date.now();
    const left = Math.floor(((endFor(signIn, caller, now) ?? 0) - now) / 1000);
    const request = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: Math.max(minimumMs / 1000, left) },
    };
    const minted = await kube
      .create<{ readonly status: { readonly token: string } }>(
        `${paths.accounts(namespace, name)}/token`,
        request,
        signal,
      )
      .catch((error: unknown) => {
        if (!isStatus(error, 404)) throw error;
      });
    if (!minted) return { token: undefined };
    const { token } = minted.status;
    // Minted by name: not for whom it was meant, if that name has changed hands meanwhile.
    return accountUidIn(token) === account.metadata.uid ? { token } : 'pending';
  }

  function kubeconfigOf({ username }: Caller, token: string, info: ClusterInfo): KubeconfigAnswer {
    const user = `${options.userPrefix}${username}`;
    const context = `${options.contextPrefix}${username}`;
    const cluster = {
      server: info.server_url,
      ...(info.insecure_skip_tls_verify ? { 'insecure-skip-tls-verify': true } : {}),
      ...(info.ca_data === '' ? {} : { 'certificate-authority-data': info.ca_data }),
    };
    return {
      kind: 'Config',
      apiVersion: 'v1',
      clusters: { [options.clusterName]: cluster },
      users: { [user]: { token } },
      contexts: { [context]: { cluster: options.clusterName, user } },
      'current-context': context,
    };
  }
}

const createAdvice = 'check Kubernetes connectivity and that the operator has create permissions';
const readAdvice = 'check Kubernetes connectivity and that the operator has read permissions';
const tokenAdvice = 'check that the service account exists and Kubernetes has token generation enabled';

function noSuchRole(role: string): Refusal {
  return new Refusal(422, {
    message: `the role "${role}" does not exist in this cluster`,
    advice: [`ask the administrator to create the ClusterRole "${role}", or to name another one in the policy's grant`],
    cause: { message: `clusterroles.rbac.authorization.k8s.io "${role}" not found` },
  });
}

function stillThere(caller: Caller): Refusal {
  return new Refusal(
    503,
    {
      message: `your last sign-in is still being deleted (${namesOf(caller).join(', ')})`,
      advice: ["try again in a moment; if it stays so, ask the cluster's administrator: a finalizer keeps it"],
    },
    1,
  );
}

/** Runs it, and words what the cluster refuses as the Go server does. */
async function telling<T>(message: string, advice: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new Refusal(500, { message, advice: [advice], cause: { message: error.message } });
  }
}

/** The UID of the ServiceAccount that a token names; undefined where it names none. */
function accountUidIn(token: string): string | undefined {
  try {
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return claims['kubernetes.io'].serviceaccount.uid;
  } catch {
    return undefined;
  }
}
