// The ServiceAccount and ClusterRoleBinding of a sign-in: how to make them, and to which sign-in they belong.
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
  // Label values have at most 63 characters. The UID is the label that counts.
  ...(metadata.name.length <= 63 ? { [ownerLabel.name]: metadata.name } : {}),
  [ownerLabel.uid]: metadata.uid,
});

// For people: the object's name may have a hash, and has only the part of the login before the @, or a device's ID.
const loginAnnotation = ({ metadata: { annotations = {} } }: TkaSignin) => {
  const told = [annotation.login, annotation.node, annotation.tags, annotation.loginServer].flatMap((key) => {
    const value = annotations[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  return told.length === 0 ? {} : { annotations: Object.fromEntries(told) };
};

/** Returns the ServiceAccount to create for a sign-in. The sign-in is its owner. */
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

/**
 * Returns the merge patch that writes the login on a ServiceAccount of the Go operator or of version 0.1.0, or
 * undefined if it is there already.
 */
export const loginPatch = (account: ServiceAccount, signIn: TkaSignin): object | undefined =>
  loginOf(signIn) === undefined || loginOf(account) === loginOf(signIn)
    ? undefined
    : { metadata: { uid: account.metadata.uid, ...loginAnnotation(signIn) } };

/** Returns the ClusterRoleBinding to create. A namespaced object cannot own it, so labels name its sign-in. */
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

/** Returns the UID of the sign-in that owns a ServiceAccount, or undefined if no sign-in owns it. */
export const ownerOfAccount = ({ metadata }: ServiceAccount): string | undefined =>
  metadata.ownerReferences?.find((owner) => owner.kind === 'TkaSignin' && owner.apiVersion.startsWith(`${group}/`))
    ?.uid;

/**
 * Returns the namespace of the TKA server that made a binding, from our labels or from the Go operator's naming.
 * Returns undefined if no TKA server made it.
 */
export function homeOf({ metadata: { labels = {}, name }, subjects = [] }: ClusterRoleBinding): string | undefined {
  const [subject, ...others] = subjects;
  if (labels[ownerLabel.uid] !== undefined) return labels[ownerLabel.namespace];
  const isOfGo =
    others.length === 0 &&
    subject?.kind === 'ServiceAccount' &&
    // The API server accepts any text as the namespace of a subject.
    /^[a-z0-9-]{1,63}$/.test(subject.namespace ?? '') &&
    subject.name.startsWith('tka-user-') &&
    bindingName(subject.name) === name;
  return isOfGo ? subject.namespace : undefined;
}

/**
 * Returns the UID of the sign-in that a binding belongs to. Returns `unlabelled` for a binding of the Go operator,
 * which has no UID, and undefined for a binding of another namespace.
 */
export function ownerOfBinding(binding: ClusterRoleBinding, namespace: string): string | 'unlabelled' | undefined {
  if (homeOf(binding) !== namespace) return undefined;
  return binding.metadata.labels?.[ownerLabel.uid] ?? 'unlabelled';
}

/** The objects with the names of a sign-in's parts. They may belong to someone else. */
export interface Parts {
  readonly account: ServiceAccount | undefined;
  readonly binding: ClusterRoleBinding | undefined;
}

/** Returns whether both parts exist, belong to the sign-in and give it its role. */
export const isWhole = ({ account, binding }: Parts, signIn: TkaSignin, namespace: string): boolean =>
  account !== undefined &&
  ownerOfAccount(account) === signIn.metadata.uid &&
  binding !== undefined &&
  [signIn.metadata.uid, 'unlabelled'].includes(ownerOfBinding(binding, namespace) ?? '') &&
  binds(binding, signIn, namespace);

/** Returns whether a binding gives exactly the sign-in's role to exactly its ServiceAccount. */
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

/** Returns the merge patch that adds our labels and the login to a binding of the Go operator or of version 0.1.0. */
export const labelPatch = (binding: ClusterRoleBinding, signIn: TkaSignin, namespace: string): object => ({
  metadata: {
    resourceVersion: binding.metadata.resourceVersion,
    labels: { ...labelsOf(signIn), [ownerLabel.namespace]: namespace },
    ...loginAnnotation(signIn),
  },
});
