// What the cluster tests stand on: a namespace with the server's own manifests in it, callers, kubectl, and waiting for
// what the cluster says.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Watch } from '@kubernetes/client-node';
import { test as base, inject } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import type { Caller } from '../../src/server/http/contract.ts';
import { connectKube, isStatus, type Kube } from '../../src/server/provisioner/kube.ts';
import {
  bindingName,
  type ClusterRoleBinding,
  paths,
  type ServiceAccount,
  type TkaSignin,
} from '../../src/server/provisioner/objects.ts';
import type { KubeconfigAnswer } from '../../src/tka/types.ts';
import { type Access, kubeConfigFor } from './api-server.ts';
import { makeFolder } from './processes.ts';
import { type Replica, type ReplicaOptions, startReplica } from './replica.ts';

/** Why there are no clusters here; undefined where there are. */
export const absent = typeof inject('assets') === 'string' ? String(inject('assets')) : undefined;

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { name: string; namespace?: string };
  readonly subjects?: { namespace: string }[];
}

const plurals: Readonly<Record<string, string>> = {
  CustomResourceDefinition: 'customresourcedefinitions',
  ServiceAccount: 'serviceaccounts',
  Role: 'roles',
  RoleBinding: 'rolebindings',
  ClusterRole: 'clusterroles',
  ClusterRoleBinding: 'clusterrolebindings',
};

const manifests = (file: string): Manifest[] =>
  parseAllDocuments(fs.readFileSync(path.join(import.meta.dirname, '../../deploy/base', file), 'utf8')).map(
    (document) => document.toJS() as Manifest,
  );

/** A namespace of one API server, in which a TKA server may work: with its own token, which may do that and no more. */
export class Ground {
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
  static async make(access: Access): Promise<Ground> {
    const kube = connectKube(kubeConfigFor(access));
    const namespace = `tka-${randomBytes(4).toString('hex')}`;
    await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
    for (const object of [...manifests('crd.yaml'), ...manifests('rbac.yaml')]) {
      const { apiVersion, kind, metadata } = object;
      if (metadata.namespace !== undefined) metadata.namespace = namespace;
      for (const subject of object.subjects ?? []) subject.namespace = namespace;
      // Several grounds share a server.
      if (kind === 'ClusterRoleBinding') metadata.name += `-${namespace}`;
      const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
      const scope = metadata.namespace === undefined ? '' : `/namespaces/${namespace}`;
      await kube.create(`${root}${scope}/${plurals[kind]}`, object).catch((error: unknown) => {
        if (!isStatus(error, 409)) throw error;
      });
    }
    const crd = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
    await until(access, crd, 'tkasignins.tka.specht-labs.de', (found: Established | undefined) =>
      found?.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True'),
    );
    const { status } = await kube.create<{ status: { token: string } }>(
      `${paths.accounts(namespace, 'tka-server')}/token`,
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3600 } },
    );
    return new Ground(access, namespace, kube, status.token);
  }

  /** What a replica here is given. */
  replicaOptions(options: Partial<ReplicaOptions> = {}): ReplicaOptions {
    return { access: this.access, token: this.token, namespace: this.namespace, ...options };
  }

  /** A ClusterRole that sees pods and namespaces, and changes nothing. Answers its name. */
  async role(verbs: readonly string[] = ['get', 'list', 'watch'], resources = ['pods', 'namespaces']): Promise<string> {
    const name = `test-${randomBytes(4).toString('hex')}`;
    await this.kube.create('/apis/rbac.authorization.k8s.io/v1/clusterroles', {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: [{ apiGroups: [''], resources, verbs }],
    });
    return name;
  }

  /** The server's cluster-wide rights but for the one to bind roles, as a ClusterRole. Answers its name. */
  async unbinding(): Promise<string> {
    const name = `test-${randomBytes(4).toString('hex')}`;
    await this.kube.create('/apis/rbac.authorization.k8s.io/v1/clusterroles', {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: [
        {
          apiGroups: ['rbac.authorization.k8s.io'],
          resources: ['clusterrolebindings'],
          verbs: ['get', 'list', 'create', 'patch', 'delete'],
        },
        { apiGroups: ['rbac.authorization.k8s.io'], resources: ['clusterroles'], verbs: ['get'] },
      ],
    });
    return name;
  }

  /** Resolves when the API server has taken notice that the server may not do this any more. */
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

  /** Resolves when nothing of this sign-in is there any more. */
  async gone(name: string): Promise<void> {
    await Promise.all([
      until(this.access, paths.signIns(this.namespace), name, (found) => found === undefined),
      until(this.access, paths.accounts(this.namespace), name, (found) => found === undefined),
      until(this.access, paths.bindings(), bindingName(name), (found) => found === undefined),
    ]);
  }

  /** Ends a sign-in at this moment, as an administrator would. */
  async endAt(name: string, ms: number): Promise<void> {
    await this.kube.patch(`${paths.signIns(this.namespace, name)}/status`, {
      status: { valid_until: new Date(ms).toISOString().replace(/\.\d+Z/, 'Z') },
    });
  }
}

interface Established {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** Resolves as soon as the object of this name (undefined: none) passes; told by a watch, not by asking again. */
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

/** An answer of the TKA API. */
export interface Answered<T> {
  readonly status: number;
  readonly body: T;
}

/** Somebody who calls a replica. */
export class Person {
  readonly caller: Caller;
  readonly #url: () => string;

  constructor(url: string | (() => string), caller: Partial<Caller> & Pick<Caller, 'role'>) {
    const username = caller.username ?? `u${randomBytes(4).toString('hex')}`;
    this.caller = { username, login: `${username}@example.com`, periodMs: 1_800_000, ...caller };
    this.#url = typeof url === 'string' ? () => url : url;
  }

  /** The same person, granted something else. */
  granted(caller: Partial<Caller>): Person {
    return new Person(this.#url, { ...this.caller, ...caller });
  }

  get name(): string {
    return `tka-user-${this.caller.username}`;
  }

  login = (): Promise<Answered<{ username: string; role: string; until: string }>> => this.#call('POST', '/login');
  status = (): Promise<Answered<{ username: string; role: string; until: string }>> => this.#call('GET', '/login');
  logout = (): Promise<Answered<{ username: string; role: string; until: string }>> => this.#call('POST', '/logout');
  kubeconfig = (): Promise<Answered<KubeconfigAnswer>> => this.#call('GET', '/kubeconfig');

  /** Signs in and answers the token. */
  async token(): Promise<string> {
    const answered = await this.login();
    if (answered.status !== 202) throw new Error(`POST /login: ${answered.status} ${JSON.stringify(answered.body)}`);
    return this.freshToken();
  }

  /** The token of a sign-in that is there. */
  async freshToken(): Promise<string> {
    const { status, body } = await this.kubeconfig();
    const token = status === 200 ? body.users[`tka-user-${this.caller.username}`]?.token : undefined;
    if (token === undefined) throw new Error(`GET /kubeconfig: ${status} ${JSON.stringify(body)}`);
    return token;
  }

  async #call<T>(method: string, route: string): Promise<Answered<T>> {
    const response = await fetch(`${this.#url()}${route}`, {
      method,
      headers: { 'x-caller': JSON.stringify(this.caller) },
    });
    const text = await response.text();
    return { status: response.status, body: (text === '' ? undefined : JSON.parse(text)) as T };
  }
}

let folder: string | undefined;

/** Runs the machine's kubectl with what `GET /kubeconfig` answered. */
export async function kubectl(
  answer: KubeconfigAnswer,
  ...args: readonly string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  folder ??= makeFolder();
  const list = (map: object, kind: string): object[] => Object.entries(map).map(([name, it]) => ({ name, [kind]: it }));
  const file = path.join(folder, `${randomBytes(6).toString('hex')}.yaml`);
  const config = {
    ...answer,
    clusters: list(answer.clusters, 'cluster'),
    users: list(answer.users, 'user'),
    contexts: list(answer.contexts, 'context'),
  };
  fs.writeFileSync(file, stringify(config), { mode: 0o600 });
  let stdout = '';
  let stderr = '';
  const child = execFile('kubectl', args, { env: { ...process.env, KUBECONFIG: file, HOME: folder } });
  child.stdout?.on('data', (text) => {
    stdout += text;
  });
  child.stderr?.on('data', (text) => {
    stderr += text;
  });
  const [status] = await once(child, 'close');
  return { status: status as number, stdout, stderr };
}

/** What the API server says to a token: 200, 401 or 403 for a list of namespaces. */
export async function statusFor(access: Access, token: string, path = '/api/v1/namespaces'): Promise<number> {
  const kube = connectKube(kubeConfigFor(access, token));
  try {
    await kube.get(path);
    return 200;
  } catch (error) {
    const status = (error as { readonly status?: number }).status;
    if (status === undefined) throw error;
    return status;
  } finally {
    kube.close();
  }
}

/** A test with a ground on the first API server, and a replica there that leads. */
export const test = base.extend<{ ground: Ground; replica: Replica; role: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  ground: async ({}, use) => {
    const [access] = inject('clusters');
    if (access === undefined) throw new Error(absent);
    const ground = await Ground.make(access);
    await use(ground);
    ground.kube.close();
  },
  replica: async ({ ground }, use) => {
    const replica = await startReplica(ground.replicaOptions());
    await use(replica);
    await replica.stop();
  },
  role: async ({ ground }, use) => use(await ground.role()),
});
