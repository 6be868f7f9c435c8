// What keeps a sign-in from being provisioned until a person acts, in words for its caller: which object is in the way,
// who made it, and what to type. It is kept in an annotation of the sign-in, since any replica may be asked. And what
// callers are told where a sign-in cannot be made, read or ended.
import { cleanText } from '../../util/text.ts';
import { type Caller, Refusal } from '../http/contract.ts';
import { KubeError } from '../kubernetes/errors.ts';
import { podOf } from './lease.ts';
import { bindingName, type ClusterRoleBinding, namesOf } from './objects.ts';
import { homeOf } from './parts.ts';

/** An error that no retry can mend. */
export class Blocked extends Error {
  override readonly name = 'Blocked';
  /** What to do, a line each. */
  readonly advice: readonly string[];
  /** The reason of the sign-in's condition, in CamelCase. */
  readonly reason: string;

  constructor(message: string, advice: readonly string[], reason = 'Blocked') {
    super(message);
    this.advice = advice;
    this.reason = reason;
  }

  /** For the annotation: the message, then the advice, a line each. At most 2048 characters. */
  get text(): string {
    return [this.message, ...this.advice]
      .map((line) => cleanText(line, 1000))
      .join('\n')
      .slice(0, 2048);
  }
}

/** Wraps what the API server refused. */
export const refusedBy = (error: Error): Blocked =>
  new Blocked(
    error.message,
    ["ask the cluster's administrator: the cluster refuses what the TKA server has to do"],
    'RefusedByCluster',
  );

// The name of an account or binding is taken.
const taken = 'NameTaken';

/** Says that the binding of the sign-in of this name is somebody else's. */
export function foreignBinding(name: string, binding: ClusterRoleBinding): Blocked {
  const object = `ClusterRoleBinding "${bindingName(name)}"`;
  const removal = `kubectl delete clusterrolebinding ${bindingName(name)}`;
  const home = homeOf(binding);
  if (home === undefined) {
    const advice = `ask the cluster's administrator to remove it, if nothing needs it: ${removal}`;
    return new Blocked(`${object} was not made by a TKA server`, [advice], taken);
  }
  const advice = [
    `ask the cluster's administrator to move that server's sign-ins here: tka-server adopt --from-namespace ${home}`,
    `or to remove this one: ${removal}`,
  ];
  return new Blocked(`${object} belongs to the TKA server in namespace "${home}"`, advice, taken);
}

/** Says that the ServiceAccount of the sign-in of this name is somebody else's. */
export const foreignAccount = (name: string, namespace: string): Blocked =>
  new Blocked(
    `ServiceAccount "${name}" in namespace "${namespace}" was not made by a TKA server`,
    [
      `ask the cluster's administrator to remove it, if nothing needs it: kubectl delete serviceaccount ${name} -n ${namespace}`,
    ],
    taken,
  );

/** Says that a sign-in of a username may be this caller's or somebody else's: the Go server does not write the login. */
export const nameless = (name: string, namespace: string): Blocked =>
  new Blocked(`the sign-in "${name}" of another TKA server does not say of which domain its user is`, [
    `ask the cluster's administrator to remove it: kubectl delete tkasignin ${name} -n ${namespace}`,
  ]);

/**
 * Says why a sign-in cannot be while a Go operator leads: that would name its account and binding after the username alone,
 * and end those of the plain sign-in with it. `holder` is its identity in the lease; `isChange` says that the plain name had
 * another role a moment ago.
 */
export function beyondGo(holder: string, name: string, isChange: boolean): Blocked {
  const operator = `the operator of a Go server (pod "${podOf(holder)}") leads here`;
  const stop = `ask the cluster's administrator to stop the Go server: deploy/README.md, "Coming from the Go server"`;
  if (!isChange) return new Blocked(`${operator}, and cannot tell "${name}" from another sign-in`, [stop]);
  // See IndexByLogin.hadOtherRole: until then, an old token would get the new role.
  return new Blocked(`${operator}, and a role cannot change at once`, [
    'sign in again in 15 s: kubectl tka login',
    `or ${stop}`,
  ]);
}

/** Answers the caller with a sign-in's problem. 422: the client does not try again. */
export function blockedRefusal(username: string, text: string): Refusal {
  const [message = '', ...advice] = text.split('\n');
  return new Refusal(
    422,
    { message: `Error provisioning access for user ${username}`, advice, cause: { message } },
    { reason: 'blocked' },
  );
}

export const createAdvice = 'check Kubernetes connectivity and that the operator has create permissions';

export const readAdvice = 'check Kubernetes connectivity and that the operator has read permissions';

export const tokenAdvice = 'check that the service account exists and Kubernetes has token generation enabled';

export function noSuchRole(role: string): Refusal {
  const advice = [
    `ask the administrator to create the ClusterRole "${role}", or to name another one in the policy's grant`,
  ];
  const cause = { message: `clusterroles.rbac.authorization.k8s.io "${role}" not found` };
  const message = `the role "${role}" does not exist in this cluster`;
  return new Refusal(422, { message, advice, cause }, { reason: 'missing_role' });
}

export function stillThere(caller: Caller): Refusal {
  return new Refusal(
    503,
    {
      message: `your last sign-in is still being deleted (${namesOf(caller).join(', ')})`,
      advice: ["try again in a moment; if it stays so, ask the cluster's administrator: a finalizer keeps it"],
    },
    { retryAfterSeconds: 1, reason: 'blocked' },
  );
}

/** Runs it, and words what the cluster refuses as the Go server does. */
export async function telling<T>(message: string, advice: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new Refusal(500, { message, advice: [advice], cause: { message: error.message } });
  }
}
