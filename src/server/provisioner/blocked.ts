// Problems that a person must solve before a sign-in can be provisioned. The text tells the caller which object is in
// the way, who made it and what to type. It is stored in an annotation of the sign-in, because any replica may be
// asked. Also the refusals for sign-ins that cannot be created, read or ended.
import { cleanText } from '../../util/text.ts';
import { type Caller, Refusal } from '../http/contract.ts';
import { KubeError } from '../kubernetes/errors.ts';
import { podOf } from './lease.ts';
import { bindingName, type ClusterRoleBinding, namesOf } from './objects.ts';
import { homeOf } from './parts.ts';

/** An error that a retry cannot fix. */
export class Blocked extends Error {
  override readonly name = 'Blocked';
  /** What to do, one line each. */
  readonly advice: readonly string[];
  /** The reason of the sign-in's condition, in CamelCase. */
  readonly reason: string;

  constructor(message: string, advice: readonly string[], reason = 'Blocked') {
    super(message);
    this.advice = advice;
    this.reason = reason;
  }

  /**
   * Returns the text of the annotation: the message, then one line for each piece of advice. At most 2048 characters.
   */
  get text(): string {
    return [this.message, ...this.advice]
      .map((line) => cleanText(line, 1000))
      .join('\n')
      .slice(0, 2048);
  }
}

/** Returns a Blocked for a call that the API server refused. */
export const refusedBy = (error: Error): Blocked =>
  new Blocked(
    error.message,
    ["ask the cluster's administrator: the API server refuses a request of the TKA server"],
    'RefusedByCluster',
  );

// Another object has the name of the account or binding.
const taken = 'NameTaken';

/** Returns the problem that the sign-in's binding already exists and belongs to someone else. */
export function foreignBinding(name: string, binding: ClusterRoleBinding): Blocked {
  const object = `ClusterRoleBinding "${bindingName(name)}"`;
  const removal = `kubectl delete clusterrolebinding ${bindingName(name)}`;
  const home = homeOf(binding);
  if (home === undefined) {
    const advice = `ask the cluster's administrator to remove it, if nothing needs it: ${removal}`;
    return new Blocked(`${object} was not created by a TKA server`, [advice], taken);
  }
  const advice = [
    `ask the cluster's administrator to move that server's sign-ins here: tka-server adopt --from-namespace ${home}`,
    `or to remove this one: ${removal}`,
  ];
  return new Blocked(`${object} belongs to the TKA server in namespace "${home}"`, advice, taken);
}

/** Returns the problem that the sign-in's ServiceAccount already exists and was not created by a TKA server. */
export const foreignAccount = (name: string, namespace: string): Blocked =>
  new Blocked(
    `ServiceAccount "${name}" in namespace "${namespace}" was not created by a TKA server`,
    [
      `ask the cluster's administrator to remove it, if nothing needs it: kubectl delete serviceaccount ${name} -n ${namespace}`,
    ],
    taken,
  );

/**
 * Returns the problem that a sign-in may belong to this caller or to another one: the Go server does not write the
 * login.
 */
export const nameless = (name: string, namespace: string): Blocked =>
  new Blocked(`the sign-in "${name}" of another TKA server does not state the domain of its user`, [
    `ask the cluster's administrator to remove it: kubectl delete tkasignin ${name} -n ${namespace}`,
  ]);

/**
 * Returns the problem that a Go operator leads and cannot handle this sign-in. The Go operator names accounts and
 * bindings after the username alone, so it would end those of the plain sign-in together with this one. `holder` is the
 * operator's identity in the lease. `isChange` is true if the plain name had another role a moment ago.
 */
export function beyondGo(holder: string, name: string, isChange: boolean): Blocked {
  const operator = `the operator of a Go server (pod "${podOf(holder)}") holds the leader lease`;
  const stop = `ask the cluster's administrator to stop the Go server: deploy/README.md, "Coming from the Go server"`;
  if (!isChange) return new Blocked(`${operator} and cannot distinguish "${name}" from another sign-in`, [stop]);
  // See IndexByLogin.hadOtherRole: before that time, an old token would get the new role.
  return new Blocked(`${operator} and cannot change a role immediately`, [
    'sign in again in 15 s: kubectl tka login',
    `or ${stop}`,
  ]);
}

/** Returns the answer for a caller whose sign-in is blocked. The status is 422, so clients do not retry. */
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
    `ask the administrator to create the ClusterRole "${role}", or to change the role in the tailnet policy`,
  ];
  const cause = { message: `clusterroles.rbac.authorization.k8s.io "${role}" not found` };
  const message = `the role "${role}" does not exist in this cluster`;
  return new Refusal(422, { message, advice, cause }, { reason: 'missing_role' });
}

export function stillThere(caller: Caller): Refusal {
  return new Refusal(
    503,
    {
      message: `your previous sign-in is still being deleted (${namesOf(caller).join(', ')})`,
      advice: [
        "try again in a moment; if this persists, ask the cluster's administrator: a finalizer blocks the deletion",
      ],
    },
    { retryAfterSeconds: 1, reason: 'blocked' },
  );
}

/** Runs `work`. Turns a KubeError into the same refusal that the Go server gives. */
export async function telling<T>(message: string, advice: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new Refusal(500, { message, advice: [advice], cause: { message: error.message } });
  }
}
