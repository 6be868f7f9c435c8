// What a sign-in is made of in the cluster, as the Go operator names and writes it; and how to read it back.
import { createHash } from 'node:crypto';
import { formatGoDuration, goDuration } from '../../tka/duration.ts';
import type { Caller } from '../http/contract.ts';
import { segment } from './kube.ts';

const group = 'tka.specht-labs.de';
const apiVersion = `${group}/v1alpha1`;

/** The parts of an object's metadata that are used here. */
export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly { readonly apiVersion: string; readonly kind: string; readonly uid: string }[];
}

export interface TkaSignin {
  readonly metadata: Metadata;
  readonly spec: { readonly username: string; readonly role: string; readonly validity_period: string };
  readonly status?: { readonly provisioned: boolean; readonly valid_until: string; readonly signed_in: string };
}

export interface ServiceAccount {
  readonly metadata: Metadata;
}

export interface ClusterRoleBinding {
  readonly metadata: Metadata;
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly kind: string; readonly name: string; readonly namespace?: string }[];
}

const attempted = `${group}/last-attempted-sign-in`;
const validUntil = `${group}/sign-in-valid-until`;
// These are ours; the Go operator does not know them.
const login = `${group}/login`;
const problem = `${group}/problem`;
const ownerName = `${group}/sign-in`;
const ownerUid = `${group}/sign-in-uid`;
const ownerNamespace = `${group}/namespace`;

/** The paths of the API, one function per collection; with a name, of one object in it. */
export const paths = {
  signIns: (namespace: string, name?: string) =>
    `/apis/${apiVersion}/namespaces/${segment(namespace)}/tkasignins${part(name)}`,
  accounts: (namespace: string, name?: string) =>
    `/api/v1/namespaces/${segment(namespace)}/serviceaccounts${part(name)}`,
  bindings: (name?: string) => `/apis/rbac.authorization.k8s.io/v1/clusterrolebindings${part(name)}`,
  roles: (name: string) => `/apis/rbac.authorization.k8s.io/v1/clusterroles${part(name)}`,
  leases: (namespace: string, name?: string) =>
    `/apis/coordination.k8s.io/v1/namespaces/${segment(namespace)}/leases${part(name)}`,
  configMaps: (namespace: string, name: string) => `/api/v1/namespaces/${segment(namespace)}/configmaps${part(name)}`,
} as const;

function part(name: string | undefined): string {
  return name === undefined ? '' : `/${segment(name)}`;
}

/** Milliseconds of the epoch as RFC 3339, cut to seconds, as Go prints it. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

function time(text: string | undefined): number | undefined {
  const ms = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/**
 * The names that a caller's sign-in may have: the Go server's, which the first of several domains' users gets, and one
 * that no other login can have, for the others.
 */
export function namesOf({ username, login }: Pick<Caller, 'username' | 'login'>): readonly [string, string] {
  const hash = createHash('sha256').update(login).digest('hex').slice(0, 12);
  return [`tka-user-${username}`, `tka-login-${username}-${hash}`];
}

export const bindingName = (name: string): string => `${name}-binding`;

/** Whether a sign-in was made by this login. One without a login (the Go server's) is nobody's that we know. */
export const isOf = (signIn: TkaSignin, caller: Caller): boolean =>
  signIn.metadata.annotations?.[login] === caller.login;

const annotationsOf = (caller: Caller, at: number): Record<string, string> => ({
  [attempted]: rfc3339(at),
  [validUntil]: rfc3339(at + caller.periodMs),
  [login]: caller.login,
});

const specOf = ({ username, role, periodMs }: Caller): TkaSignin['spec'] => ({
  username,
  role,
  validity_period: formatGoDuration(periodMs),
});

/** The sign-in to create for a caller who signs in at this time (milliseconds of the epoch). */
export const newSignIn = (name: string, caller: Caller, at: number): object => ({
  apiVersion,
  kind: 'TkaSignin',
  metadata: { name, annotations: annotationsOf(caller, at) },
  spec: specOf(caller),
});

/** Returns the sign-in to create in another namespace: the same person's, with the same role and end. */
export function copyOf(signIn: TkaSignin): object {
  const { name, annotations = {} } = signIn.metadata;
  const start = attemptOf(signIn) ?? time(signIn.status?.signed_in);
  const end = endOf(signIn);
  const isDated = start !== undefined && end !== undefined && end > start;
  const own = Object.entries(annotations).filter(([key]) => key.startsWith(`${group}/`) && key !== problem);
  return {
    apiVersion,
    kind: 'TkaSignin',
    metadata: {
      name,
      annotations: {
        ...Object.fromEntries(own),
        ...(isDated && { [attempted]: rfc3339(start), [validUntil]: rfc3339(end) }),
      },
    },
    // An end that was set sooner by hand stays.
    spec: { ...signIn.spec, ...(isDated && { validity_period: formatGoDuration(end - start) }) },
  };
}

/** The merge patch that extends a sign-in, provided that nobody has changed it meanwhile. */
export const extension = ({ metadata: { uid, resourceVersion } }: TkaSignin, caller: Caller, at: number): object => ({
  metadata: { uid, resourceVersion, annotations: { ...annotationsOf(caller, at), [problem]: null } },
  spec: specOf(caller),
});

/** Whether a sign-in asks for what its caller is granted now. */
export const asksFor = ({ spec }: TkaSignin, { role, periodMs }: Caller): boolean =>
  spec.role === role && goDuration(spec.validity_period) === periodMs;

/** When it was asked for last; undefined where nothing says so (one made by hand). */
export const attemptOf = ({ metadata }: TkaSignin): number | undefined => time(metadata.annotations?.[attempted]);

/** Why it cannot be provisioned, where that is known. */
export const problemOf = ({ metadata }: TkaSignin): string | undefined => metadata.annotations?.[problem];

/** The merge patch that says why it cannot be provisioned, or that it can. */
export const problemPatch = ({ metadata }: TkaSignin, text: string | null): object => ({
  metadata: { resourceVersion: metadata.resourceVersion, annotations: { [problem]: text } },
});

/** Whether what was asked for last is in force: the status answers that very attempt. */
export function isSettled(signIn: TkaSignin): boolean {
  const { status } = signIn;
  if (status?.provisioned !== true || time(status.valid_until) === undefined) return false;
  const attempt = attemptOf(signIn);
  return attempt === undefined || attempt === time(status.signed_in);
}

/** When it ends; undefined where nothing says so yet. A status may end it sooner than its period, never later. */
export function endOf(signIn: TkaSignin): number | undefined {
  const period = goDuration(signIn.spec.validity_period);
  const start = attemptOf(signIn) ?? time(signIn.status?.signed_in);
  const granted = period === undefined || start === undefined ? undefined : start + period;
  if (!isSettled(signIn)) return granted;
  const said = time(signIn.status?.valid_until);
  return said === undefined || granted === undefined ? (said ?? granted) : Math.min(said, granted);
}

/** Whether it has ended at this time, in milliseconds of the epoch. */
export const isOver = (signIn: TkaSignin, now: number): boolean => (endOf(signIn) ?? Infinity) <= now;

/** The status of a sign-in that is provisioned now; undefined when its period is none. */
export function statusOf(signIn: TkaSignin, now: number): TkaSignin['status'] | undefined {
  const period = goDuration(signIn.spec.validity_period);
  if (period === undefined) return undefined;
  const start = attemptOf(signIn) ?? time(signIn.status?.signed_in) ?? now;
  return { provisioned: true, signed_in: rfc3339(start), valid_until: rfc3339(start + period) };
}

/**
 * The merge patch of a sign-in's status, provided that nobody has changed the sign-in since it was read: the API server
 * does not look at the UID here, but no other object ever has the same version.
 */
export const statusPatch = ({ metadata }: TkaSignin, status: Partial<TkaSignin['status']>): object => ({
  metadata: { resourceVersion: metadata.resourceVersion },
  status,
});

const labelsOf = ({ metadata }: TkaSignin): Record<string, string> => ({
  'app.kubernetes.io/managed-by': 'tka-server',
  // A label's value has 63 characters at most; the UID is what counts.
  ...(metadata.name.length <= 63 ? { [ownerName]: metadata.name } : {}),
  [ownerUid]: metadata.uid,
});

/** The ServiceAccount of a sign-in, which owns it. */
export const accountFor = (signIn: TkaSignin): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: {
    name: signIn.metadata.name,
    labels: labelsOf(signIn),
    ownerReferences: [
      { apiVersion, kind: 'TkaSignin', name: signIn.metadata.name, uid: signIn.metadata.uid, controller: true },
    ],
  },
});

/** The ClusterRoleBinding of a sign-in. A namespaced object cannot own it, so labels say whose it is. */
export const bindingFor = (signIn: TkaSignin, namespace: string): object => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'ClusterRoleBinding',
  metadata: {
    name: bindingName(signIn.metadata.name),
    labels: { ...labelsOf(signIn), [ownerNamespace]: namespace },
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
  if (labels[ownerUid] !== undefined) return labels[ownerNamespace];
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
  return binding.metadata.labels?.[ownerUid] ?? 'unlabelled';
}

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

/** The merge patch that puts our labels on a binding of the Go operator's. */
export const labelPatch = (binding: ClusterRoleBinding, signIn: TkaSignin, namespace: string): object => ({
  metadata: {
    resourceVersion: binding.metadata.resourceVersion,
    labels: { ...labelsOf(signIn), [ownerNamespace]: namespace },
  },
});
