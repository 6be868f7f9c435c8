// A sign-in's ServiceAccount and ClusterRoleBinding: how they are made, and whose they are.
import {
  annotation,
  apiVersion,
  bindingName,
  type ClusterRoleBinding,
  group,
  ownerLabel,
  type ServiceAccount,
  type TkaSignin,
} from './objects.ts';
import { loginOf } from './sign-in.ts';

const labelsOf = ({ metadata }: TkaSignin): Record<string, string> => ({
  'app.kubernetes.io/managed-by': 'tka-server',
  // A label's value has 63 characters at most; the UID is what counts.
  ...(metadata.name.length <= 63 ? { [ownerLabel.name]: metadata.name } : {}),
  [ownerLabel.uid]: metadata.uid,
});

// Whose it is, for people: a name may have a hash, and says it only up to the @.
const loginAnnotation = (signIn: TkaSignin) => {
  const stated = loginOf(signIn);
  return stated === undefined ? {} : { annotations: { [annotation.login]: stated } };
};

/** The ServiceAccount of a sign-in, which owns it. */
export const accountFor = (signIn: TkaSignin): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: {
    name: signIn.metadata.name,
    labels: labelsOf(signIn),
    ...loginAnnotation(signIn),
    ownerReferences: [
      { apiVersion, kind: 'TkaSignin', name: signIn.metadata.name, uid: signIn.metadata.uid, controller: true },
    ],
  },
});

/** The merge patch that says on a ServiceAccount of the Go operator's, or of 0.1.0's, whose it is; undefined where it does. */
export const loginPatch = (account: ServiceAccount, signIn: TkaSignin): object | undefined =>
  loginOf(signIn) === undefined || loginOf(account) === loginOf(signIn)
    ? undefined
    : { metadata: { uid: account.metadata.uid, ...loginAnnotation(signIn) } };

/** The ClusterRoleBinding of a sign-in. A namespaced object cannot own it, so labels say whose it is. */
export const bindingFor = (signIn: TkaSignin, namespace: string): object => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'ClusterRoleBinding',
  metadata: {
    name: bindingName(signIn.metadata.name),
    labels: { ...labelsOf(signIn), [ownerLabel.namespace]: namespace },
    ...loginAnnotation(signIn),
  },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: signIn.spec.role },
  subjects: [{ kind: 'ServiceAccount', name: signIn.metadata.name, namespace }],
});

/** The UID of the sign-in that a ServiceAccount belongs to; undefined when it belongs to none, and is not ours. */
export const ownerOfAccount = ({ metadata }: ServiceAccount): string | undefined =>
  metadata.ownerReferences?.find((owner) => owner.kind === 'TkaSignin' && owner.apiVersion.startsWith(`${group}/`))
    ?.uid;

/**
 * The namespace of the TKA server that made a binding: by our labels, or by the Go operator's form. undefined where no TKA
 * server made it.
 */
export function homeOf({ metadata: { labels = {}, name }, subjects = [] }: ClusterRoleBinding): string | undefined {
  const [subject, ...others] = subjects;
  if (labels[ownerLabel.uid] !== undefined) return labels[ownerLabel.namespace];
  const isOfGo =
    others.length === 0 &&
    subject?.kind === 'ServiceAccount' &&
    // The API server takes any text here.
    /^[a-z0-9-]{1,63}$/.test(subject.namespace ?? '') &&
    subject.name.startsWith('tka-user-') &&
    bindingName(subject.name) === name;
  return isOfGo ? subject.namespace : undefined;
}

/**
 * The UID of the sign-in that a binding belongs to; `unlabelled` where it has the Go operator's form, which does not say;
 * undefined when it is not this namespace's.
 */
export function ownerOfBinding(binding: ClusterRoleBinding, namespace: string): string | 'unlabelled' | undefined {
  if (homeOf(binding) !== namespace) return undefined;
  return binding.metadata.labels?.[ownerLabel.uid] ?? 'unlabelled';
}

/** What a sign-in has in the cluster, or what is in the way of it there. */
export interface Parts {
  readonly account: ServiceAccount | undefined;
  readonly binding: ClusterRoleBinding | undefined;
}

/** Says whether these are a sign-in's own, and give it its role. */
export const isWhole = ({ account, binding }: Parts, signIn: TkaSignin, namespace: string): boolean =>
  account !== undefined &&
  ownerOfAccount(account) === signIn.metadata.uid &&
  binding !== undefined &&
  [signIn.metadata.uid, 'unlabelled'].includes(ownerOfBinding(binding, namespace) ?? '') &&
  binds(binding, signIn, namespace);

/** Whether a binding gives exactly the sign-in's role to exactly its ServiceAccount. */
export function binds(binding: ClusterRoleBinding, signIn: TkaSignin, namespace: string): boolean {
  const { roleRef, subjects = [] } = binding;
  const [subject] = subjects;
  return (
    roleRef.kind === 'ClusterRole' &&
    roleRef.name === signIn.spec.role &&
    subjects.length === 1 &&
    subject?.kind === 'ServiceAccount' &&
    subject.name === signIn.metadata.name &&
    subject.namespace === namespace
  );
}

/** The merge patch that puts our labels and the login on a binding of the Go operator's, or of 0.1.0's. */
export const labelPatch = (binding: ClusterRoleBinding, signIn: TkaSignin, namespace: string): object => ({
  metadata: {
    resourceVersion: binding.metadata.resourceVersion,
    labels: { ...labelsOf(signIn), [ownerLabel.namespace]: namespace },
    ...loginAnnotation(signIn),
  },
});
