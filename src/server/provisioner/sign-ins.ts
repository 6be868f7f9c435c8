// The TKA API's sign-ins over TkaSignin objects. Any replica serves them; the one that leads provisions what they ask for.
import type { ClusterInfo, KubeconfigAnswer, LoginAnswer } from '../../tka/types.ts';
import { type Caller, Refusal, type SignIns } from '../http/contract.ts';
import type { Log } from '../log.ts';
import { blockedRefusal, foreignAccount, foreignBinding } from './blocked.ts';
import { isStatus, type Kube, KubeError } from './kube.ts';
import {
  asksFor,
  attemptOf,
  bindingName,
  binds,
  type ClusterRoleBinding,
  endOf,
  extension,
  isOf,
  isOver,
  isSettled,
  namesOf,
  newSignIn,
  ownerOfAccount,
  ownerOfBinding,
  paths,
  problemOf,
  rfc3339,
  type ServiceAccount,
  statusPatch,
  type TkaSignin,
} from './objects.ts';
import type { SignInWatch } from './watch.ts';

/** What the sign-ins are given. */
export interface SignInsOptions {
  readonly kube: Kube;
  readonly watch: SignInWatch;
  readonly namespace: string;
  /** Removes what a deleted sign-in had. */
  readonly release: (signIn: TkaSignin) => Promise<void>;
  readonly log: Log;
  readonly clusterInfo: () => ClusterInfo | Promise<ClusterInfo>;
  readonly clusterName: string;
  readonly contextPrefix: string;
  readonly userPrefix: string;
}

const minimumMs = 10 * 60_000;
// How long a login waits for its access, so that the first question after it is answered with it.
const settleMs = 2_000;
const attempts = 10;

/** The sign-ins of one cluster. */
export function createSignIns(options: SignInsOptions): SignIns {
  const { kube, watch, namespace, release, log, clusterInfo } = options;
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

  const read = (name: string): Promise<TkaSignin | undefined> => kube.get<TkaSignin>(paths.signIns(namespace, name));

  /** The caller's sign-in, be it over or not; else the name that a new one may have. */
  async function find(caller: Caller): Promise<TkaSignin | string> {
    const [first, other] = namesOf(caller);
    const found = await read(first);
    if (found !== undefined && isOf(found, caller)) return found;
    const second = await read(other);
    if (second === undefined) return found === undefined ? first : other;
    if (!isOf(second, caller)) throw new Refusal(500, { message: `the name ${other} is taken by another login` });
    return second;
  }

  async function findLive(caller: Caller): Promise<TkaSignin | undefined> {
    const found = await find(caller);
    return typeof found === 'string' || isOver(found, Date.now()) ? undefined : found;
  }

  /** Creates or extends; answers the sign-in as it then is. */
  async function write(caller: Caller): Promise<TkaSignin> {
    for (let left = attempts; ; left--) {
      const found = await find(caller);
      const now = Math.floor(Date.now() / 1000) * 1000;
      try {
        if (typeof found === 'string') {
          return await kube.create<TkaSignin>(paths.signIns(namespace), newSignIn(found, caller, now));
        }
        // An attempt is known by its second: two that ask for different things never share it.
        const last = attemptOf(found) ?? 0;
        const isSame = asksFor(found, caller) && problemOf(found) === undefined && !isOver(found, Date.now());
        const at = Math.max(now, isSame ? last : last + 1000);
        if (at === last) return found;
        return await kube.patch<TkaSignin>(paths.signIns(namespace, found.metadata.name), extension(found, caller, at));
      } catch (error) {
        // Somebody else created, changed or deleted it meanwhile.
        const isRace = isStatus(error, 409) || (typeof found !== 'string' && isStatus(error, 404));
        if (left === 1 || !isRace) throw error;
      }
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

  const answerOf = (signIn: TkaSignin): LoginAnswer => ({
    username: signIn.spec.username,
    role: signIn.spec.role,
    until: rfc3339(endOf(signIn) ?? Date.now()),
  });

  function refuseBlocked(signIn: TkaSignin): void {
    const problem = problemOf(signIn);
    if (problem === undefined || isSettled(signIn)) return;
    throw blockedRefusal(signIn.spec.username, problem);
  }

  return {
    async signIn(caller) {
      const { username, role, periodMs } = caller;
      if (periodMs < minimumMs) {
        throw new Refusal(422, {
          message: '`period` may not specify a duration less than 10 minutes',
          advice: [`Specify a period greater than 10 minutes in your api ACL for user ${username}`],
        });
      }
      const signIn = await telling('Error signing in user', createAdvice, async () => {
        if (!(await roleExists(role))) throw noSuchRole(role);
        return inTurn(caller.login, () => write(caller));
      });
      const { name, uid } = signIn.metadata;
      const attempt = attemptOf(signIn);
      const isAnswer = (seen: TkaSignin | undefined): seen is TkaSignin =>
        seen?.metadata.uid === uid && attemptOf(seen) === attempt && (isSettled(seen) || problemOf(seen) !== undefined);
      if (await watch.wait(name, isAnswer, settleMs)) {
        const seen = watch.get(name);
        if (isAnswer(seen)) refuseBlocked(seen);
      }
      return answerOf(signIn);
    },

    async get(caller) {
      const signIn = await telling('Failed to load sign-in request', readAdvice, () => findLive(caller));
      if (signIn === undefined) return undefined;
      refuseBlocked(signIn);
      return { answer: answerOf(signIn), provisioned: isSettled(signIn) };
    },

    kubeconfig: (caller) =>
      telling('Failed to generate token', tokenAdvice, async () => {
        const signIn = await findLive(caller);
        if (signIn === undefined) return undefined;
        refuseBlocked(signIn);
        if (!isSettled(signIn)) return 'pending';
        const { name, uid } = signIn.metadata;
        const [account, binding] = await Promise.all([
          kube.get<ServiceAccount>(paths.accounts(namespace, name)),
          kube.get<ClusterRoleBinding>(paths.bindings(bindingName(name))),
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
          // Somebody took a part of it away: whoever leads is to make it anew.
          await kube
            .patch(`${paths.signIns(namespace, name)}/status`, statusPatch(signIn, { provisioned: false }))
            .catch(forgive(404, 409));
          return 'pending';
        }
        const left = Math.floor(((endOf(signIn) ?? 0) - Date.now()) / 1000);
        const { status } = await kube.create<{ readonly status: { readonly token: string } }>(
          `${paths.accounts(namespace, name)}/token`,
          {
            apiVersion: 'authentication.k8s.io/v1',
            kind: 'TokenRequest',
            spec: { expirationSeconds: Math.max(minimumMs / 1000, left) },
          },
        );
        // Minted by name: not for whom it was meant, if that name has changed hands meanwhile.
        if (accountUidIn(status.token) !== account.metadata.uid) return 'pending';
        return kubeconfigOf(caller, status.token, await clusterInfo());
      }),

    signOut: (caller) =>
      telling('Error signing out user', createAdvice, async () => {
        const found = await Promise.all(namesOf(caller).map(read));
        const mine = found.filter((signIn) => signIn !== undefined).filter((signIn) => isOf(signIn, caller));
        for (const signIn of mine) {
          const { name, uid } = signIn.metadata;
          await kube.remove(paths.signIns(namespace, name), { uid });
          // Now, and not only when the leader hears of it. It does the rest where this fails.
          await release(signIn).catch((error: unknown) => log.warn({ err: error, name }, 'access is still there'));
        }
        const live = mine.find((signIn) => !isOver(signIn, Date.now()));
        return live && { answer: answerOf(live), complete: false };
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

/** Runs it, and words what the cluster refuses as the Go server does. */
async function telling<T>(message: string, advice: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new Refusal(500, { message, advice: [advice], cause: { message: error.message } });
  }
}

/** A handler for what may be refused with one of these statuses. */
const forgive =
  (...statuses: readonly number[]) =>
  (error: unknown): void => {
    if (!isStatus(error, ...statuses)) throw error;
  };

/** The UID of the ServiceAccount that a token names; undefined where it names none. */
function accountUidIn(token: string): string | undefined {
  try {
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return claims['kubernetes.io'].serviceaccount.uid;
  } catch {
    return undefined;
  }
}
