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
import type { ClusterInfo, KubeconfigAnswer, LoginAnswer } from '../../tka/types.ts';
import { type Caller, Refusal, type SignIns } from '../http/contract.ts';
import type { Log } from '../log.ts';
import { Blocked, beyondGo, blockedRefusal, foreignAccount, foreignBinding, nameless } from './blocked.ts';
import type { IndexByLogin } from './index-by-login.ts';
import { isStatus, type Kube, KubeError } from './kube.ts';
import {
  asksFor,
  bindingName,
  binds,
  type ClusterRoleBinding,
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
  namesOf,
  newSignIn,
  ownerOfAccount,
  ownerOfBinding,
  paths,
  plainName,
  problemOf,
  rfc3339,
  type ServiceAccount,
  sharing,
  type TkaSignin,
  withSpec,
} from './objects.ts';
import type { SignInWatch } from './watch.ts';

/** What the sign-ins are given. */
export interface SignInsOptions {
  readonly kube: Kube;
  readonly watch: SignInWatch;
  /** The same sign-ins, by login. */
  readonly index: IndexByLogin;
  readonly namespace: string;
  /** Provisions a sign-in now. Answers it as it then is; undefined: it is gone. Throws Blocked where a person must act. */
  readonly provide: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
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

/** The sign-ins of one cluster. */
export function createSignIns(options: SignInsOptions): SignIns {
  const { kube, watch, index, namespace, provide, release, goLeader, log, clusterInfo } = options;
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
    return found && withSpec(found);
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
   * new one may have (each undefined where there is none), and whether any was ended.
   */
  async function look(
    caller: Caller,
  ): Promise<{ readonly found?: TkaSignin; readonly free?: string; readonly ended: boolean }> {
    const { login, role, device } = caller;
    const names = namesFor(caller);
    let free: string | undefined;
    let ended = false;
    const leave = (name: string): void => {
      if (names.includes(name) && !index.hadOtherRole(name, role)) free ??= name;
    };

    /** Whether it is the one. */
    async function judge(signIn: TkaSignin): Promise<boolean> {
      if (!isOf(signIn, caller) || isLeaving(signIn)) return false;
      if (!exceeds(signIn, caller, Date.now())) return signIn.spec.role === role;
      const { name } = signIn.metadata;
      log.info({ name, login, device, role: signIn.spec.role, granted: role }, 'access ends: the policy grants less');
      await end(signIn);
      ended = true;
      leave(name);
      return false;
    }

    let found: TkaSignin | undefined;
    const seen: string[] = [];
    for (const name of names) {
      const signIn = await read(name);
      seen.push(name);
      if (signIn === undefined) leave(name);
      else if (await judge(signIn)) {
        found = signIn;
        break;
      }
    }
    for (const known of othersOf(login, seen)) {
      if (!(await judge(known)) || found !== undefined) continue;
      const signIn = await read(known.metadata.name);
      if (signIn !== undefined && (await judge(signIn))) found = signIn;
    }
    return { ...(found !== undefined && { found }), ...(free !== undefined && { free }), ended };
  }

  /** The sign-in under which the caller's device has access now. Throws for a caller without a grant who had none. */
  async function findLive(caller: Caller): Promise<TkaSignin | undefined> {
    const { found, ended } = await look(caller);
    if (caller.problem !== undefined && !ended) throw caller.problem;
    return found !== undefined && (endFor(found, caller, Date.now()) ?? 0) > Date.now() ? found : undefined;
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
      const { found, free } = await look(caller);
      const now = Date.now();
      const at = Math.floor(now / 1000) * 1000;
      try {
        if (found === undefined) {
          if (free === undefined) throw stillThere(caller);
          await mustSuitLeader(caller, free);
          return await kube.create<TkaSignin>(paths.signIns(namespace), newSignIn(free, caller, at));
        }
        const path = paths.signIns(namespace, found.metadata.name);
        const isGood = problemOf(found) === undefined && !isOver(found, now);
        if (isGood && asksFor(found, caller, at)) return found;
        await mustSuitLeader(caller, found.metadata.name);
        // Another device was granted more: that stays, and this one gets what it is granted.
        const isEnough =
          isGood &&
          !isAhead(found, now) &&
          loginOf(found) !== undefined &&
          (endOf(found, now) ?? 0) >= at + caller.periodMs;
        return await kube.patch<TkaSignin>(path, isEnough ? sharing(found, caller, at) : extension(found, caller, at));
      } catch (error) {
        // Somebody else created, changed or deleted it meanwhile.
        const isRace = isStatus(error, 409) || (found !== undefined && isStatus(error, 404));
        if (left === 1 || !isRace) throw error;
      }
    }
  }

  /** Provisions a sign-in that is not; the leader does what fails here. Answers it as it then is; undefined: it is gone. */
  async function settle(signIn: TkaSignin): Promise<TkaSignin | undefined> {
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
    try {
      return (await kube.get(paths.roles(role))) !== undefined;
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
          await look(caller);
          throw refusal;
        }
        refuseNameless(caller);
        return await inTurn(caller.login, async () => {
          const signIn = await write(caller);
          return answerOf((await settle(signIn)) ?? signIn, caller);
        });
      });
    },

    async get(caller) {
      const found = await telling('Failed to load sign-in request', readAdvice, () => findLive(caller));
      // The replica that took it may have been killed before it was done.
      const signIn = found && (await settle(found));
      return signIn && { answer: answerOf(signIn, caller), provisioned: isSettled(signIn) };
    },

    kubeconfig: (caller, signal) =>
      telling('Failed to generate token', tokenAdvice, async () => {
        const found = await findLive(caller);
        const signIn = found && (await settle(found));
        if (signIn === undefined) return undefined;
        if (!isSettled(signIn)) return 'pending';
        const { name, uid } = signIn.metadata;
        const [account, binding] = await Promise.all([
          kube.get<ServiceAccount>(paths.accounts(namespace, name), signal),
          kube.get<ClusterRoleBinding>(paths.bindings(bindingName(name)), signal),
        ]);
        // A Go operator that leads takes what is in the way for its own, and says that all is well.
        if (binding !== undefined && ownerOfBinding(binding, namespace) === undefined)
          throw blockedRefusal(signIn.spec.username, foreignBinding(name, binding).text);
        if (account !== undefined && ownerOfAccount(account) === undefined)
          throw blockedRefusal(signIn.spec.username, foreignAccount(name, namespace).text);
        const isWhole =
          account !== undefined &&
          ownerOfAccount(account) === uid &&
          binding !== undefined &&
          binds(binding, signIn, namespace);
        if (!isWhole) {
          // Somebody took a part of it away.
          await provide(signIn).catch(() => undefined);
          return 'pending';
        }
        const now = Date.now();
        const left = Math.floor(((endFor(signIn, caller, now) ?? 0) - now) / 1000);
        const { status } = await kube.create<{ readonly status: { readonly token: string } }>(
          `${paths.accounts(namespace, name)}/token`,
          {
            apiVersion: 'authentication.k8s.io/v1',
            kind: 'TokenRequest',
            spec: { expirationSeconds: Math.max(minimumMs / 1000, left) },
          },
          signal,
        );
        // Minted by name: not for whom it was meant, if that name has changed hands meanwhile.
        if (accountUidIn(status.token) !== account.metadata.uid) return 'pending';
        return kubeconfigOf(caller, status.token, await clusterInfo());
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
