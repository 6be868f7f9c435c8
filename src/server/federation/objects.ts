// The Kubernetes objects of a federation, on both sides: types, names, and API paths. All are in one namespace.
import { isUtf8 } from 'node:buffer';
import type { Labels } from '../../tka/types.ts';
import { canonicalApiServer } from '../../util/url.ts';
import { isStatus } from '../kubernetes/errors.ts';
import { segment } from '../kubernetes/kube.ts';
import { type Condition, type Metadata, apiVersion as tkaApiVersion } from '../provisioner/objects.ts';
import { isPublicKey, keyHash } from './keys.ts';

/** The namespace of the federation's objects. In its own namespace the server reads no Secrets. */
export const federationNamespace = 'tka-federation';

export const apiVersion = tkaApiVersion;

export interface Secret {
  readonly metadata: Metadata & { readonly creationTimestamp?: string };
  readonly type?: string;
  /** Base64. Read it with `textsOf`. */
  readonly data?: Readonly<Record<string, string>>;
}

/** Maximum length of an API endpoint. The CustomResourceDefinition has the same limit. */
export const endpointLimit = 1_024;

/** A joined cluster at its login server. An administrator keeps the labels and `suspended`. */
export interface TkaCluster {
  readonly metadata: Metadata & { readonly creationTimestamp?: string };
  readonly spec: {
    /** The cluster's public key (keys.ts). */
    readonly publicKey: string;
    /** The canonical URL of its Kubernetes API server. */
    readonly apiEndpoint: string;
    /** True stops its sign-ins. */
    readonly suspended?: boolean;
  };
  readonly status?: TkaClusterStatus;
}

export interface TkaClusterStatus {
  /** Whether a replica of the login server has a tunnel to the cluster. */
  readonly connected?: boolean;
  /** RFC 3339. At most a minute old while the cluster is connected. */
  readonly lastSeen?: string;
  /** What the cluster said about itself last. */
  readonly version?: string;
  readonly endpoint?: string;
  /** The replicas of the login server that have had a tunnel to the cluster. */
  readonly replicas?: readonly ReplicaStatus[];
  readonly conditions?: readonly Condition[];
}

export interface ReplicaStatus {
  readonly name: string;
  readonly connected: boolean;
  /** RFC 3339. */
  readonly lastSeen?: string;
}

/** A TkaCluster whose fields have been checked. */
export interface KnownCluster {
  readonly name: string;
  readonly object: TkaCluster;
  readonly publicKey: string;
  readonly keyHash: string;
  readonly apiEndpoint: string;
  readonly labels: Labels;
  readonly suspended: boolean;
  /** `creationTimestamp`: RFC 3339, in whole seconds of UTC. */
  readonly since: string;
}

/** API paths, one function for each resource: of the collection, or of one object if a name is given. */
export const federationPaths = {
  secrets: (name?: string) => `${core}/secrets${part(name)}`,
  clusters: (name?: string) => `/apis/${apiVersion}/namespaces/${federationNamespace}/tkaclusters${part(name)}`,
  leases: (name?: string) => `/apis/coordination.k8s.io/v1/namespaces/${federationNamespace}/leases${part(name)}`,
} as const;

const core = `/api/v1/namespaces/${federationNamespace}`;

const part = (name: string | undefined): string => (name === undefined ? '' : `/${segment(name)}`);

/** Returns whether a text can name a joined cluster: a DNS label (RFC 1123). */
export const isClusterName = (text: string): boolean => /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/.test(text);

/** Returns a TkaCluster in its checked form, or what is wrong with it. */
export function knownCluster(object: TkaCluster): KnownCluster | string {
  const { name, labels = {}, creationTimestamp = '' } = object.metadata;
  if (!isClusterName(name)) return 'its name is not a DNS label';
  const { publicKey, apiEndpoint, suspended } = (object as Partial<TkaCluster>).spec ?? {};
  if (!isPublicKey(publicKey)) return 'its spec.publicKey is not a public key (base64url of 32 bytes)';
  const isLabels = Object.entries(labels).every(([key, value]) => labelKey.test(key) && labelValue.test(value));
  if (!isLabels) return 'it has an invalid label';
  let endpoint: string;
  try {
    endpoint = canonicalApiServer(String(apiEndpoint));
  } catch {
    return 'its spec.apiEndpoint is not an https URL';
  }
  return {
    name,
    object,
    publicKey,
    keyHash: keyHash(publicKey),
    apiEndpoint: endpoint,
    labels,
    suspended: suspended === true,
    since: creationTimestamp,
  };
}

const labelKey = /^[A-Za-z0-9./_-]{1,317}$/;
const labelValue = /^[A-Za-z0-9._-]{0,63}$/;

/** Returns the values of a Secret as texts. Leaves out values that are not base64 of UTF-8. */
export function textsOf({ data = {} }: Pick<Secret, 'data'>): ReadonlyMap<string, string> {
  const texts = new Map<string, string>();
  for (const [key, value] of Object.entries(data)) {
    if (typeof value !== 'string') continue;
    const bytes = Buffer.from(value, 'base64');
    if (isUtf8(bytes)) texts.set(key, bytes.toString());
  }
  return texts;
}

/** Returns texts as the data of a Secret. */
export const dataOf = (texts: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')]));

export const federationHint = `apply the manifests of the federation: they make the namespace ${federationNamespace} and the server's rights in it`;

/** Returns what to do if the API server refuses a call of the federation. */
export const rightsHint = (error: unknown): readonly string[] => (isStatus(error, 403, 404) ? [federationHint] : []);
