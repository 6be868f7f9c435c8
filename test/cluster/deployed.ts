// deploy/ applied to a cluster, and the server as its pod would run it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { KubernetesObject, V1Container } from '@kubernetes/client-node';
import { expect, inject } from 'vitest';
import { stringify } from 'yaml';
import type { Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { isStatus } from '../../src/server/kubernetes/errors.ts';
import { connectKube, type Kube } from '../../src/server/kubernetes/kube.ts';
import type { KubeconfigAnswer } from '../../src/tka/types.ts';
import { allOf, configIn, only, overlay, render } from '../deploy/render.ts';
import { freePort } from '../fixtures/ports.ts';
import { TemporaryFolder } from '../fixtures/temporary.ts';
import { TkaServerProcess } from '../server/program.ts';
import { type Access, kubeConfigFor, startApiServer } from './api-server.ts';
import { makeFolder } from './processes.ts';
import { established, kubectl, tokenOf } from './support.ts';

/** A ClusterRole that the applied roles.yaml lists, and one that it does not. */
export const listed = 'deploy-listed';
export const unlisted = 'deploy-unlisted';

/** A cluster with deploy/ applied: admin access, and a token of the server. */
export interface Deployed {
  readonly access: Access;
  readonly kube: Kube;
  readonly token: string;
  readonly namespace: string;
  readonly objects: readonly KubernetesObject[];
}

/** Returns a kubeconfig of the cluster's admin, or of another token. */
export const as = ({ server, ca, token }: Access, by = token): KubeconfigAnswer => ({
  kind: 'Config',
  apiVersion: 'v1',
  clusters: { it: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } },
  users: { it: { token: by } },
  contexts: { it: { cluster: 'it', user: 'it' } },
  'current-context': 'it',
});

/** Starts an API server for one test only, with the two roles. */
export async function ownCluster(host: string): Promise<{ access: Access; kube: Kube } & AsyncDisposable> {
  const assets = inject('assets');
  if (typeof assets === 'string') throw new Error(assets);
  const server = await startApiServer(assets, { url: inject('etcd') }, host);
  const access = { server: server.server, ca: server.ca, token: server.token };
  const kube = connectKube(kubeConfigFor(access));
  return {
    access,
    kube,
    async [Symbol.asyncDispose]() {
      kube.close();
      await server.stop();
    },
  };
}

/** Applies deploy/ with a change to its kustomization, and one role listed in it. kubectl may print `warning` only. */
export async function apply(
  access: Access,
  kube: Kube,
  namespace: string,
  change: object = {},
  warning = /^$/,
): Promise<Deployed> {
  for (const name of [listed, unlisted]) {
    const role = {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: readPods,
    };
    await kube.create('/apis/rbac.authorization.k8s.io/v1/clusterroles', role).catch(forgiveConflict);
  }
  using temporary = new TemporaryFolder();
  const folder = overlay(temporary.path, {
    ...change,
    patches: [
      {
        target: { kind: 'ClusterRole', name: 'tka-server-roles' },
        patch: JSON.stringify([{ op: 'add', path: '/rules/0/resourceNames/-', value: listed }]),
      },
    ],
  });
  const applied = await kubectl(as(access), 'apply', '-k', folder);
  const objects = render(folder);
  expect(applied).toMatchObject({ status: 0, stderr: expect.stringMatching(warning) });
  await established(access);
  const account = only(objects, 'StatefulSet').spec?.template.spec?.serviceAccountName ?? '';
  return { access, kube, token: await tokenOf(kube, namespace, account), namespace, objects };
}

const readPods = [{ apiGroups: [''], resources: ['pods', 'namespaces'], verbs: ['get', 'list'] }];

function forgiveConflict(error: unknown): void {
  if (!isStatus(error, 409)) throw error;
}

/** Creates a ConfigMap as kubeadm does. */
export async function inPublic(kube: Kube, name: string, { server, ca }: Access): Promise<void> {
  const cluster = { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') };
  const kubeconfig = stringify({ apiVersion: 'v1', kind: 'Config', clusters: [{ name: '', cluster }] });
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { kubeconfig } };
  await kube.create('/api/v1/namespaces/kube-public/configmaps', map).catch(forgiveConflict);
}

/** Returns the server's container. */
export function containerOf({ objects }: Deployed): V1Container {
  const container = only(objects, 'StatefulSet').spec?.template.spec?.containers[0];
  if (container === undefined) throw new Error('no container');
  return container;
}

/** Returns the environment and the configuration of the server's container. */
export async function insideItsPod(deployed: Deployed): Promise<{ env: Record<string, string>; config: string }> {
  const { access, kube, token, namespace, objects } = deployed;
  await inPublic(kube, 'cluster-info', access);
  const env: Record<string, string> = {};
  const fields: Record<string, string> = { 'metadata.name': 'tka-0', 'metadata.namespace': namespace };
  for (const { name, value, valueFrom } of containerOf(deployed).env ?? []) {
    env[name] = value ?? fields[valueFrom?.fieldRef?.fieldPath ?? ''] ?? '';
  }
  // In the emptyDir that the pod mounts for it.
  expect(env.TKA_ADMIN_SOCKET).toMatch(/^\/run\/tka\//);
  env.TKA_ADMIN_SOCKET = path.join(makeFolder(), env.TKA_ADMIN_SOCKET?.slice('/run/tka/'.length) ?? '');
  env.KUBECONFIG = path.join(makeFolder(), 'kubeconfig');
  fs.writeFileSync(env.KUBECONFIG, kubeConfigFor(access, token).exportConfig(), { mode: 0o600 });
  // Without a ConfigMap the server uses its defaults.
  return { env, config: allOf(objects, 'ConfigMap').length === 0 ? '' : configIn(objects) };
}

/** Starts the server as its pod would, beside this tailscaled, with optional extra configuration and environment. */
export async function startAsItsPod(
  deployed: Deployed,
  tailscaled: Tailscaled,
  more = '',
  moreEnv: Readonly<Record<string, string>> = {},
): Promise<{ server: TkaServerProcess; url: string; healthUrl: string }> {
  const { env, config } = await insideItsPod(deployed);
  const [port, healthPort] = [await freePort('127.0.0.1'), await freePort('::')];
  const server = new TkaServerProcess(`${config}\n${more}`, {
    ...env,
    TS_SOCKET: tailscaled.socketPath,
    TKA_TAILSCALE_PORT: `${port}`,
    TKA_HEALTH_PORT: `${healthPort}`,
    ...moreEnv,
  });
  await server.said(/listening for the API/);
  return { server, url: `http://127.0.0.1:${port}/api/v1alpha1`, healthUrl: `http://127.0.0.1:${healthPort}` };
}
