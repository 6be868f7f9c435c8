// The objects of a sign-in in the cluster, as the Go operator makes them: their names and their paths in the API.
import { createHash } from 'node:crypto';
import type { Caller } from '../http/contract.ts';
import { segment } from '../kubernetes/kube.ts';

export const group = 'tka.specht-labs.de';

export const apiVersion = `${group}/v1alpha1`;

/** The parts of an object's metadata that are used here. */
export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** How often the spec has changed. */
  readonly generation?: number;
  /** Set as soon as it is being deleted: a finalizer keeps it meanwhile. */
  readonly deletionTimestamp?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly { readonly apiVersion: string; readonly kind: string; readonly uid: string }[];
}

export interface TkaSignin {
  readonly metadata: Metadata;
  readonly spec: { readonly username: string; readonly role: string; readonly validity_period: string };
  readonly status?: {
    readonly provisioned?: boolean;
    readonly valid_until?: string;
    readonly signed_in?: string;
    /** The ID of the attempt that it answers. The Go operator writes none, and its CRD keeps none. */
    readonly attempt?: string;
    readonly conditions?: readonly Condition[];
  };
}

/** As metav1.Condition. */
export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
  /** RFC 3339: when the status changed. */
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/**
 * Returns a sign-in as the API server gave it, with a spec. One made by hand may have none, where the
 * CustomResourceDefinition does not require it (0.1.0's): then its period is none.
 */
export const withSpec = (signIn: TkaSignin): TkaSignin =>
  (signIn as Partial<TkaSignin>).spec === undefined
    ? { ...signIn, spec: { username: '', role: '', validity_period: '' } }
    : signIn;

export interface ServiceAccount {
  readonly metadata: Metadata;
}

export interface ClusterRoleBinding {
  readonly metadata: Metadata;
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly kind: string; readonly name: string; readonly namespace?: string }[];
}

/** Annotations of a sign-in. The Go operator knows the first two only. */
export const annotation = {
  attempted: `${group}/last-attempted-sign-in`,
  validUntil: `${group}/sign-in-valid-until`,
  login: `${group}/login`,
  attemptId: `${group}/attempt`,
  devices: `${group}/devices`,
  problem: `${group}/problem`,
} as const;

/** Labels of a sign-in's ServiceAccount and ClusterRoleBinding. */
export const ownerLabel = {
  name: `${group}/sign-in`,
  uid: `${group}/sign-in-uid`,
  namespace: `${group}/namespace`,
} as const;

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
  events: (namespace: string) => `/apis/events.k8s.io/v1/namespaces/${segment(namespace)}/events`,
  namespaces: (name: string) => `/api/v1/namespaces${part(name)}`,
  configMaps: (namespace: string, name: string) => `/api/v1/namespaces/${segment(namespace)}/configmaps${part(name)}`,
} as const;

function part(name: string | undefined): string {
  return name === undefined ? '' : `/${segment(name)}`;
}

/** The name that the Go server gives every sign-in of a username, and we to those of the tailnet's own domain. */
export const plainName = (username: string): string => `tka-user-${username}`;

const isName = (name: string): boolean =>
  name.length <= 240 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name);

/**
 * Returns the names that a caller's sign-in for a role may have, the first choice first. A plain name says whose it is in
 * the tailnet's own domain only. The others carry a hash of login and role, `tka-login-jurgen-0f3a…`: 80 bits, so that
 * nobody finds a login with the hash of somebody else's.
 */
export function namesOf({ username, login, ownDomain, role }: Caller): readonly string[] {
  const hash = createHash('sha256').update(`${login}\0${role}`).digest('hex').slice(0, 20);
  const readable = username
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, (other) => (/^\p{M}+$/u.test(other) ? '' : '-'))
    .slice(0, 30)
    .replace(/^-+|-+$/g, '');
  const hashed = `tka-login-${readable === '' ? '' : `${readable}-`}${hash}`;
  return ownDomain === true && isName(plainName(username)) ? [plainName(username), hashed] : [hashed];
}

export const bindingName = (name: string): string => `${name}-binding`;

/** Returns the name of the sign-in whose binding has this name; undefined where it can be no sign-in's. */
export const signInOfBinding = (binding: string): string | undefined => /^(.+)-binding$/s.exec(binding)?.[1];
