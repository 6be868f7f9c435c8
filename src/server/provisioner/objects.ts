// The objects of a sign-in in the cluster, in the form of the Go operator: types, names and API paths.
import { createHash } from 'node:crypto';
import type { Caller } from '../http/contract.ts';
import { segment } from '../kubernetes/kube.ts';

export const group = 'tka.specht-labs.de';

export const apiVersion = `${group}/v1alpha1`;

/** The metadata fields that are used here. */
export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** Increases with every change of the spec. */
  readonly generation?: number;
  /** Set when the object is being deleted; a finalizer can keep it for a while. */
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
    /** ID of the attempt that this status answers. The Go operator does not write it, and its CRD drops it. */
    readonly attempt?: string;
    readonly conditions?: readonly Condition[];
  };
}

/** Like metav1.Condition. */
export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
  /** RFC 3339: when `status` last changed. */
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/**
 * Returns a sign-in from the API server, with an empty spec if it has none. The CustomResourceDefinition of version
 * 0.1.0 does not require a spec, so a sign-in made by hand may lack one. An empty period is invalid.
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

/**
 * Annotations of a sign-in. The Go operator knows only the first two. `node` and `tags` are those of a tagged device.
 * `loginServer` is the name of the login server's cluster, for a caller that comes through a login server.
 */
export const annotation = {
  attempted: `${group}/last-attempted-sign-in`,
  validUntil: `${group}/sign-in-valid-until`,
  login: `${group}/login`,
  node: `${group}/node`,
  tags: `${group}/tags`,
  loginServer: `${group}/login-server`,
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

/** API paths, one function for each resource: of the collection, or of one object if a name is given. */
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

/**
 * Returns the name `tka-user-USERNAME`. The Go server uses it for every sign-in, we only for users of the tailnet's own
 * domain.
 */
export const plainName = (username: string): string => `tka-user-${username}`;

const isName = (name: string): boolean =>
  name.length <= 240 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name);

/**
 * Returns the possible names of a caller's sign-in for a role, the preferred one first. A plain name identifies a user
 * only in the tailnet's own domain, and not through a login server: its tailnet may be another one. Other names carry a
 * hash of login, role and login server, `tka-login-jurgen-0f3a…`. The hash has 80 bits, so that nobody can find a login
 * with the same hash as another one.
 */
export function namesOf({ username, login, ownDomain, role, through }: Caller): readonly string[] {
  const hashed = through === undefined ? `${login}\0${role}` : `${login}\0${role}\0${through}`;
  const hash = createHash('sha256').update(hashed).digest('hex').slice(0, 20);
  const readable = username
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, (other) => (/^\p{M}+$/u.test(other) ? '' : '-'))
    .slice(0, 30)
    .replace(/^-+|-+$/g, '');
  const unique = `tka-login-${readable === '' ? '' : `${readable}-`}${hash}`;
  const isPlain = ownDomain === true && through === undefined && isName(plainName(username));
  return isPlain ? [plainName(username), unique] : [unique];
}

export const bindingName = (name: string): string => `${name}-binding`;

/** Returns the name of the sign-in that has this binding, or undefined if no sign-in can have it. */
export const signInOfBinding = (binding: string): string | undefined => /^(.+)-binding$/s.exec(binding)?.[1];
