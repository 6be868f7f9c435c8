// The objects of a sign-in in the cluster, as the Go operator names them, and their paths in the API.
import { segment } from '../kubernetes/kube.ts';

export const group = 'tka.specht-labs.de';

export const apiVersion = `${group}/v1alpha1`;

/** The parts of an object's metadata that are used here. */
export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
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
    readonly provisioned: boolean;
    readonly valid_until: string;
    readonly signed_in: string;
    /** The ID of the attempt that it answers. The Go operator writes none, and its CRD keeps none. */
    readonly attempt?: string;
  };
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
  namespaces: (name: string) => `/api/v1/namespaces${part(name)}`,
  configMaps: (namespace: string, name: string) => `/api/v1/namespaces/${segment(namespace)}/configmaps${part(name)}`,
} as const;

function part(name: string | undefined): string {
  return name === undefined ? '' : `/${segment(name)}`;
}
