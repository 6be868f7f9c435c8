// A namespace of a real API server, as an administrator prepares it for a TKA server; and functions that wait for a
// state of the cluster.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Watch } from '@kubernetes/client-node';
import { parseAllDocuments } from 'yaml';
import { isStatus } from '../../src/server/kubernetes/errors.ts';
import { connectKube, type Kube } from '../../src/server/kubernetes/kube.ts';
import {
  bindingName,
  type ClusterRoleBinding,
  paths,
  type ServiceAccount,
  type TkaSignin,
} from '../../src/server/provisioner/objects.ts';
import { type Access, kubeConfigFor } from './api-server.ts';
import type { ReplicaOptions } from './replica.ts';

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { name: string; namespace?: string; annotations?: Readonly<Record<string, string>> };
  readonly subjects?: { namespace: string }[];
  readonly roleRef?: { name: string };
  readonly rules?: { verbs: string[]; resourceNames?: string[] }[];
}

const plurals: Readonly<Record<string, string>> = {
  Namespace: 'namespaces',
  CustomResourceDefinition: 'customresourcedefinitions',
  ServiceAccount: 'serviceaccounts',
  Role: 'roles',
  RoleBinding: 'rolebindings',
  ClusterRole: 'clusterroles',
  ClusterRoleBinding: 'clusterrolebindings',
};

const manifests = (file: string): Manifest[] =>
  parseAllDocuments(fs.readFileSync(path.join(import.meta.dirname, '../../deploy', file), 'utf8')).map(
    (document) => document.toJS() as Manifest,
  );

/** Creates the objects in files of the chart, as they are. */
export async function applyManifests(kube: Kube, ...files: readonly string[]): Promise<void> {
  for (const object of files.flatMap((file) => manifests(path.join('chart/files', file)))) {
    await kube.create(collectionOf(object), object);
  }
}

/** Returns the API path of an object's collection. */
function collectionOf({ apiVersion, kind, metadata: { namespace } }: Manifest): string {
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  return `${root}${namespace === undefined ? '' : `/namespaces/${namespace}`}/${plurals[kind]}`;
}

/** A namespace of one API server for a TKA server, with the server's own token and its exact rights. */
export class Fixture {
  readonly access: Access;
  readonly namespace: string;
  readonly kube: Kube;
  readonly token: string;

  private constructor(access: Access, namespace: string, kube: Kube, token: string) {
    this.access = access;
    this.namespace = namespace;
    this.kube = kube;
    this.token = token;
  }

  /** Applies the manifests of deploy/ to a new namespace. */
  static async make(access: Access, namespace = `tka-${randomBytes(4).toString('hex')}`): Promise<Fixture> {
    const kube = connectKube(kubeConfigFor(access));
    await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
    for (const object of ['chart/files/crd.yaml', 'chart/files/rbac.yaml', 'roles.yaml'].flatMap(manifests)) {
      const { kind, metadata, roleRef } = object;
      if (metadata.namespace !== undefined) metadata.namespace = namespace;
      for (const subject of object.subjects ?? []) subject.namespace = namespace;
      // Several namespaces share an API server.
      if (kind.startsWith('ClusterRole')) metadata.name += `-${namespace}`;
      if (roleRef !== undefined && kind === 'ClusterRoleBinding') roleRef.name += `-${namespace}`;
      // Tests create roles as they go.
      for (const rule of object.rules ?? []) if (rule.verbs.includes('bind')) delete rule.resourceNames;
      // All namespaces share these, so they are created as kubectl would: deploy.test.ts applies them to the same
      // server.
      if (kind === 'CustomResourceDefinition') {
        const annotations = { 'kubectl.kubernetes.io/last-applied-configuration': JSON.stringify(object) };
        Object.assign(metadata, { annotations: { ...metadata.annotations, ...annotations } });
      }
      await kube.create(collectionOf(object), object).catch((error: unknown) => {
        if (!isStatus(error, 409)) throw error;
      });
    }
    await established(access);
    return new Fixture(access, namespace, kube, await tokenOf(kube, namespace, 'tka-server'));
  }

  /** Returns the options of a replica in this namespace. */
  replicaOptions(options: Partial<ReplicaOptions> = {}): ReplicaOptions {
    return { access: this.access, token: this.token, namespace: this.namespace, ...options };
  }

  /** Creates a ClusterRole that may read pods and namespaces only. Returns its name. */
  async role(
    verbs: readonly string[] = ['get', 'list', 'watch'],
    resources = ['pods', 'namespaces'],
    name = `test-${randomBytes(4).toString('hex')}`,
  ): Promise<string> {
    await this.kube.create('/apis/rbac.authorization.k8s.io/v1/clusterroles', {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: [{ apiGroups: [''], resources, verbs }],
    });
    return name;
  }

  /** Resolves when the API server knows that the server may not do this any more. */
  async mayNot(verb: string, resource: string): Promise<void> {
    const kube = connectKube(kubeConfigFor(this.access, this.token));
    const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
    const spec = { resourceAttributes: { group: 'rbac.authorization.k8s.io', resource, verb } };
    for (let allowed = true; allowed; ) {
      ({ allowed } = (await kube.create<{ status: { allowed: boolean } }>(path, { spec })).status);
    }
    kube.close();
  }

  signIn = (name: string): Promise<TkaSignin | undefined> => this.kube.get(paths.signIns(this.namespace, name));
  account = (name: string): Promise<ServiceAccount | undefined> => this.kube.get(paths.accounts(this.namespace, name));
  binding = (name: string): Promise<ClusterRoleBinding | undefined> => this.kube.get(paths.bindings(bindingName(name)));

  /** Returns the Events about a sign-in of this name. */
  async events(name: string): Promise<readonly ClusterEvent[]> {
    const found: ClusterEvent[] = [];
    for await (const event of this.kube.list<ClusterEvent>(paths.events(this.namespace)))
      if (event.regarding.name === name) found.push(event);
    return found;
  }

  /** Resolves when nothing of this sign-in exists any more. */
  async gone(name: string): Promise<void> {
    await Promise.all([
      until(this.access, paths.signIns(this.namespace), name, (found) => found === undefined),
      until(this.access, paths.accounts(this.namespace), name, (found) => found === undefined),
      until(this.access, paths.bindings(), bindingName(name), (found) => found === undefined),
    ]);
  }

  /** Ends a sign-in at this time, as an administrator would. */
  async endAt(name: string, ms: number): Promise<void> {
    await this.kube.patch(`${paths.signIns(this.namespace, name)}/status`, {
      status: { valid_until: new Date(ms).toISOString().replace(/\.\d+Z/, 'Z') },
    });
  }
}

/** The fields of an Event that the tests read. */
export interface ClusterEvent {
  readonly type: string;
  readonly reason: string;
  readonly note: string;
  readonly regarding: { readonly kind: string; readonly name: string; readonly uid: string };
  readonly reportingController: string;
}

interface Established {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** Resolves when the API server serves the sign-ins, or another kind. */
export async function established(access: Access, name = 'tkasignins.tka.specht-labs.de'): Promise<void> {
  const crd = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  await until<Established>(access, crd, name, (found) =>
    found?.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True'),
  );
}

/** Returns a token of a ServiceAccount, valid for an hour. */
export async function tokenOf(kube: Kube, namespace: string, account: string): Promise<string> {
  const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3600 } };
  const path = `${paths.accounts(namespace, account)}/token`;
  return (await kube.create<{ status: { token: string } }>(path, request)).status.token;
}

/** Resolves as soon as the object of this name (undefined: none) passes. Uses a watch, not polling. */
export async function until<T>(
  access: Access,
  collection: string,
  name: string,
  passes: (found: T | undefined) => boolean | undefined,
  timeoutMs = 30_000,
): Promise<void> {
  const kube = connectKube(kubeConfigFor(access));
  try {
    const fieldSelector = `metadata.name=${name}`;
    const list = await kube.get<{ readonly items: readonly T[]; readonly metadata: { resourceVersion: string } }>(
      `${collection}?fieldSelector=${encodeURIComponent(fieldSelector)}`,
    );
    if (list === undefined) throw new Error(`there is no ${collection}`);
    let last: T | undefined = list.items[0];
    if (passes(last)) return;
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => end(new Error(`${name} in ${collection}: ${JSON.stringify(last)}`)), timeoutMs);
      let watch: Promise<AbortController> | undefined;
      function end(error?: unknown): void {
        clearTimeout(late);
        if (error === undefined) resolve();
        else reject(error);
        void watch?.then((controller) => controller.abort());
      }
      watch = new Watch(kubeConfigFor(access)).watch(
        collection,
        { fieldSelector, resourceVersion: list.metadata.resourceVersion },
        (phase, object) => {
          last = phase === 'DELETED' ? undefined : object;
          if (passes(last)) end();
        },
        (error) => end(error ?? new Error('the watch ended')),
      );
    });
  } finally {
    kube.close();
  }
}
