// What callers are told where a sign-in cannot be made, read or ended.

import { type Caller, Refusal } from '../http/contract.ts';
import { KubeError } from '../kubernetes/errors.ts';
import { namesOf } from './names.ts';

export const createAdvice = 'check Kubernetes connectivity and that the operator has create permissions';

export const readAdvice = 'check Kubernetes connectivity and that the operator has read permissions';

export const tokenAdvice = 'check that the service account exists and Kubernetes has token generation enabled';

export function noSuchRole(role: string): Refusal {
  return new Refusal(422, {
    message: `the role "${role}" does not exist in this cluster`,
    advice: [`ask the administrator to create the ClusterRole "${role}", or to name another one in the policy's grant`],
    cause: { message: `clusterroles.rbac.authorization.k8s.io "${role}" not found` },
  });
}

export function stillThere(caller: Caller): Refusal {
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
export async function telling<T>(message: string, advice: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new Refusal(500, { message, advice: [advice], cause: { message: error.message } });
  }
}
