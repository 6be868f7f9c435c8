// deploy/ as an administrator applies it: the API server accepts it, and the server has exactly the rights that it needs.
import type { V1Pod, V1StatefulSet } from '@kubernetes/client-node';
import { test as base, describe, expect, inject, vi } from 'vitest';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { connectKube, type Kube } from '../../src/server/kubernetes/kube.ts';
import { readClusterInfo } from '../../src/server/provisioner/cluster-info.ts';
import { bindingName, paths } from '../../src/server/provisioner/objects.ts';
import type { MemberRow } from '../../src/tka/types.ts';
import { deploy, only } from '../deploy/render.ts';
import { freePort } from '../fixtures/ports.ts';
import { type Access, kubeConfigFor } from './api-server.ts';
import {
  apply,
  as,
  containerOf,
  type Deployed,
  inPublic,
  listed,
  ownCluster,
  startAsItsPod,
  unlisted,
} from './deployed.ts';
import { startReplica } from './replica.ts';
import { absent, kubectl, Person, statusFor, tokenOf, until } from './support.ts';

const namespace = 'tka-system';
const nodeOf = (hostName: string) => ({ hostName, addresses: ['100.64.0.1'], tags: ['tag:tka'] });
const asDora = () => ({
  login: 'dora@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: listed, period: '1h', priority: 1 }] },
});
interface Fixtures {
  readonly access: Access;
  readonly kube: Kube;
  readonly token: string;
  /** deploy/, applied with one role in its list. */
  readonly here: Deployed;
  /** The same in another namespace, on a separate API server. */
  readonly elsewhere: Deployed;
}

const test = base.extend<{ $file: Fixtures }>({
  access: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    async ({}, use) => {
      const access = inject('clusters')[2];
      if (access === undefined) throw new Error(absent);
      await use(access);
    },
    { scope: 'file' },
  ],
  kube: [
    async ({ access }, use) => {
      const kube = connectKube(kubeConfigFor(access));
      await use(kube);
      kube.close();
    },
    { scope: 'file' },
  ],
  token: [async ({ here }, use) => use(here.token), { scope: 'file' }],
  here: [async ({ access, kube }, use) => use(await apply(access, kube, namespace, {})), { scope: 'file' }],
  elsewhere: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    async ({}, use) => {
      await using own = await ownCluster('127.0.0.15');
      const { access, kube } = own;
      await use(
        await apply(access, kube, 'access', { namespace: 'access', namePrefix: 'acme-', nameSuffix: '-prod-us' }),
      );
    },
    { scope: 'file' },
  ],
});

describe.skipIf(absent !== undefined)('deploy/', () => {
  test('its pod is admitted to its namespace, and a less restricted one is not', async ({ kube, token }) => {
    expect(token).not.toBe('');
    const set = await kube.get<V1StatefulSet>(`/apis/apps/v1/namespaces/${namespace}/statefulsets/tka`);
    const { metadata, spec } = set?.spec?.template ?? {};
    if (spec === undefined) throw new Error('no pod');
    const pods = `/api/v1/namespaces/${namespace}/pods?dryRun=All`;
    const state = { name: 'state', persistentVolumeClaim: { claimName: 'state-tka-0' } };
    const pod = (change: object): V1Pod => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...metadata, name: 'tka-0' },
      spec: { ...spec, volumes: [...(spec.volumes ?? []), state], ...change },
    });
    const { spec: admitted } = await kube.create<V1Pod>(pods, pod({}));
    expect(admitted?.initContainers?.[0]?.restartPolicy).toBe('Always');
    await expect(kube.create(pods, pod({ hostPID: true }))).rejects.toThrow(/violates PodSecurity "restricted/);
    await expect(kube.create(pods, pod({ securityContext: {} }))).rejects.toThrow(/violates PodSecurity "restricted/);
  });

  test('its rights are enough to sign users in, with the roles that it lists', async ({ access, kube, token }) => {
    const replica = await startReplica({ access, token, namespace });
    try {
      const alice = new Person(replica.url, { role: listed });
      const given = await alice.token();
      expect(await statusFor(access, given)).toBe(200);
      await alice.granted({ periodMs: 7_200_000 }).login();
      expect((await alice.logout()).status).toBe(200);
      await until(access, paths.bindings(), bindingName(alice.name), (found) => found === undefined);
      expect([401, 403]).toContain(await statusFor(access, given));
      expect(replica.complaints).toEqual([]);

      const bob = new Person(replica.url, { role: unlisted });
      const { status, body } = await bob.login();
      expect(status).toBe(422);
      expect(JSON.stringify(body)).toContain('attempting to grant RBAC permissions not currently held');
      expect(await kube.get(paths.bindings(bindingName(bob.name)))).toBeUndefined();
      await bob.logout();
    } finally {
      await replica.stop();
    }
  });

  test('it reads kubeadm’s cluster-info, and nothing else there', async ({ access, kube, token }) => {
    await inPublic(kube, 'cluster-info', access);
    await inPublic(kube, 'other', access);
    const server = connectKube(kubeConfigFor(access, token));
    const keys = { apiEndpoint: 'apiEndpoint', caData: 'caData', insecure: 'insecure', kubeconfig: 'kubeconfig' };
    const read = (name: string) => readClusterInfo(server, { name, namespace: 'kube-public', keys }, {});
    expect(await read('cluster-info')).toMatchObject({ server_url: access.server });
    await expect(read('other')).rejects.toThrow(/forbidden/);
    server.close();
  });

  async function runsAsItsPod(deployed: Deployed): Promise<void> {
    const { kube, namespace } = deployed;
    const container = containerOf(deployed);
    await using tailscaled = await startTailscaled({
      self: nodeOf('tka'),
      whois: asDora,
    });
    const { server, url, healthUrl } = await startAsItsPod(deployed, tailscaled);
    await using _ = server;
    const { startupProbe, livenessProbe, readinessProbe } = container ?? {};
    for (const probe of [startupProbe, livenessProbe, readinessProbe]) {
      const path = probe?.httpGet?.path;
      await vi.waitFor(async () => expect((await fetch(`${healthUrl}${path}`)).status, path).toBe(200), 10_000);
    }
    const dora = new Person(url, { role: listed, username: 'dora' });
    await dora.token();
    const { body } = await dora.kubeconfig();
    expect(await kubectl(body, 'get', 'pods', '-n', 'default')).toMatchObject({ status: 0 });
    expect(await kube.get(paths.accounts(namespace, dora.name))).toBeDefined();
    expect((await dora.logout()).status).toBe(200);
    server.child.kill('SIGTERM');
    expect(await server.ended).toEqual({ status: 0, signal: null });
    expect(server.lines.filter(({ level }) => level !== 'info')).toEqual([]);
  }

  test('the server runs as its pod would run it', ({ here }) => runsAsItsPod(here));

  test('the server runs in the namespace of an overlay', ({ elsewhere }) => runsAsItsPod(elsewhere));

  test('the state of the pod tka-0 of 0.1.0, whose node is renamed while the server runs: sign-ins and tokens continue', async ({
    here,
  }) => {
    await using tailscaled = await startTailscaled({ self: nodeOf('tka-0'), whois: asDora });
    const gossip = { TKA_GOSSIP_ENABLED: 'true', TKA_GOSSIP_PORT: `${await freePort('127.0.0.1')}` };
    const { server, url } = await startAsItsPod(here, tailscaled, '', gossip);
    await using _ = server;
    const dora = new Person(url, { role: listed, username: 'dora' });
    const names = async () => {
      const response = await fetch(`${url}/memberlist`).catch(() => undefined);
      const rows = response?.ok ? ((await response.json()) as MemberRow[]) : [];
      return rows.map(({ name, cluster, server: at }) => [name, cluster, new URL(at ?? 'http://none').hostname]);
    };
    await vi.waitFor(async () => expect(await names()).toEqual([['tka-0', 'tka', 'tka-0.example.ts.net']]), 10_000);
    await dora.token();
    const { body } = await dora.kubeconfig();
    tailscaled.self = nodeOf('tka');
    await vi.waitFor(async () => expect(await names()).toEqual([['tka', 'tka', 'tka.example.ts.net']]), 30_000);
    expect(await dora.status()).toMatchObject({ status: 200 });
    expect(await kubectl(body, 'get', 'pods', '-n', 'default')).toMatchObject({ status: 0 });
    expect((await dora.logout()).status).toBe(200);
  });

  const system = ['-n', namespace];
  const rights = [
    ['yes', 'create', 'tkasignins', ...system],
    ['yes', 'create', 'serviceaccounts/token', ...system],
    ['yes', 'bind', `clusterroles/${listed}`],
    ['no', 'bind', `clusterroles/${unlisted}`],
    ['no', 'bind', 'clusterroles/cluster-admin'],
    ['no', 'bind', 'roles', ...system],
    ['no', 'escalate', 'clusterroles'],
    ['no', 'create', 'clusterroles'],
    ['no', 'update', 'clusterroles'],
    ['no', 'impersonate', 'users'],
    ['no', 'impersonate', 'serviceaccounts', ...system],
    ['no', 'create', 'rolebindings', ...system],
    ['no', 'get', 'secrets', ...system],
    ['no', 'list', 'secrets', '-A'],
    ['no', 'create', 'pods', ...system],
    ['no', 'create', 'pods/exec', ...system],
    ['no', 'list', 'pods', '-A'],
    ['no', 'create', 'serviceaccounts', '-n', 'kube-system'],
    ['no', 'create', 'serviceaccounts/token', '-n', 'kube-system'],
    ['no', 'create', 'tkasignins', '-n', 'default'],
    ['no', 'get', 'leases', ...system],
    ['no', 'delete', 'leases/controller.tka.specht-labs.de', ...system],
    ['yes', 'get', 'namespaces/kube-system'],
    ['no', 'get', 'namespaces/default'],
    ['no', 'list', 'namespaces'],
    ['no', 'get', 'nodes'],
    ['no', '*', '*', '-A'],
  ] as const;

  test('its rights are exactly these', async ({ access, token }) => {
    const told: string[] = [];
    for (const [, verb, resource, ...where] of rights) {
      const [name = '', part] = /\/(?:token|exec)$/.test(resource) ? resource.split('/') : [resource];
      const args = part === undefined ? [name] : [name, `--subresource=${part}`];
      const { stdout } = await kubectl(as(access, token), 'auth', 'can-i', verb, ...args, ...where);
      told.push([stdout.trim().split(' ')[0], verb, resource, ...where].join(' '));
    }
    expect(told).toEqual(rights.map((right) => right.join(' ')));
  });

  async function isHeldToItsOwn({ access, kube, token, namespace, objects }: Deployed): Promise<void> {
    // kustomize renames it everywhere, as all objects of the server.
    const called = only(objects, 'StatefulSet').spec?.template.spec?.serviceAccountName ?? '';
    const binding = (name: string, subjects: object[]) => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: listed },
      subjects,
    });
    const account = (name: string, of = namespace) => ({ kind: 'ServiceAccount', name, namespace: of });
    const carol = { kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'carol' };
    const others = await kube.create<{ metadata: { uid: string } }>(
      paths.bindings(),
      binding('deploy-others', [carol]),
    );
    const server = connectKube(kubeConfigFor(access, token));
    const own = new RegExp(`ValidatingAdmissionPolicy '${called}' .* denied request: tka-server can`);
    // A policy applies only some time after it was created.
    await vi.waitFor(() => expect(server.patch(paths.bindings('deploy-others'), {})).rejects.toThrow(own), 20_000);
    await expect(server.remove(paths.bindings('deploy-others'), { uid: others.metadata.uid })).rejects.toThrow(own);
    for (const [name, ...subjects] of [
      ['tka-user-mallory', account('tka-user-mallory')],
      ['tka-user-mallory-binding'],
      ['tka-user-mallory-binding', carol],
      ['tka-user-mallory-binding', account('tka-user-mallory'), account('default')],
      ['tka-user-mallory-binding', account('tka-user-mallory', 'default')],
    ] as const) {
      const made = server.create(`${paths.bindings()}?dryRun=All`, binding(name, subjects));
      await expect(made, JSON.stringify([name, subjects])).rejects.toThrow(own);
    }
    const right = binding('tka-user-mallory-binding', [account('tka-user-mallory')]);
    await server.create(`${paths.bindings()}?dryRun=All`, right);
    const itself = {
      ...right,
      roleRef: { ...right.roleRef, name: called },
    };
    await expect(server.create(`${paths.bindings()}?dryRun=All`, itself)).rejects.toThrow(own);
    // The policy does not apply to a user who signed in with a role that may do this.
    await kube.create(paths.accounts(namespace), { metadata: { name: 'tka-user-root' } });
    await kube.create(paths.bindings(), {
      ...binding('deploy-root', [account('tka-user-root')]),
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
    });
    const root = connectKube(kubeConfigFor(access, await tokenOf(kube, namespace, 'tka-user-root')));
    expect(await root.remove(paths.bindings('deploy-others'), { uid: others.metadata.uid })).toBe(true);
    server.close();
    root.close();
  }

  test('it may change the bindings of sign-ins, and no others', ({ here }) => isHeldToItsOwn(here));

  test('the same applies in the namespace of an overlay', ({ elsewhere }) => isHeldToItsOwn(elsewhere));

  test('is applied again without restarting a server', async ({ access, kube, token }) => {
    expect(token).not.toBe('');
    const set = `/apis/apps/v1/namespaces/${namespace}/statefulsets/tka`;
    const before = await kube.get<V1StatefulSet>(set);
    expect(await kubectl(as(access), 'apply', '-k', deploy)).toMatchObject({ status: 0, stderr: '' });
    const after = await kube.get<V1StatefulSet>(set);
    expect(before?.metadata?.generation).toBe(1);
    expect(after?.metadata?.generation).toBe(1);
  });
});
