// The rights of a server on both sides of a federation, as a real API server sees them.
import type { V1Pod, V1StatefulSet } from '@kubernetes/client-node';
import { test as base, describe, expect, vi } from 'vitest';
import { federationNamespace, federationPaths } from '../../src/server/federation/objects.ts';
import { connectKube, type Kube } from '../../src/server/kubernetes/kube.ts';
import { bindingName, paths } from '../../src/server/provisioner/objects.ts';
import { kubeConfigFor } from './api-server.ts';
import { apply, as, type Deployed, listed, ownCluster } from './deployed.ts';
import { absent, kubectl } from './support.ts';

interface Rule {
  readonly verbs: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
}

const own = '/api/v1/namespaces/tka-system/secrets';
const parts = ['login-server', 'joined-cluster'] as const;
type Part = (typeof parts)[number];

const test = base.extend<{ $file: { here: Deployed } }>({
  here: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    async ({}, use) => {
      await using cluster = await ownCluster('127.0.0.21');
      const { access, kube } = cluster;
      const both = { resources: ['federation'], components: parts.map((part) => `federation/${part}`) };
      await use(await apply(access, kube, 'tka-system', both));
    },
    { scope: 'file' },
  ],
});

const bindings = `/apis/rbac.authorization.k8s.io/v1/namespaces/${federationNamespace}/rolebindings`;

/** Runs with the rights of one side only. */
async function on(side: Part, { access, kube, token }: Deployed, run: (server: Kube) => Promise<void>): Promise<void> {
  const names = parts.filter((part) => part !== side).map((part) => `tka-${part}`);
  const removed = [];
  for (const name of names) {
    const found = await kube.get<{ metadata: { uid: string } }>(`${bindings}/${name}`);
    if (found === undefined) throw new Error(`no RoleBinding ${name}`);
    await kube.remove(`${bindings}/${name}`, { uid: found.metadata.uid });
    removed.push(found);
  }
  const server = connectKube(kubeConfigFor(access, token));
  const rights = JSON.stringify(expected[side]);
  try {
    await vi.waitFor(
      async () => expect(JSON.stringify(await rulesIn(server, federationNamespace))).toBe(rights),
      10_000,
    );
    await run(server);
  } finally {
    server.close();
    for (const binding of removed) {
      await kube.create(bindings, { ...binding, metadata: { name: names[removed.indexOf(binding)] } });
    }
  }
}

/** Returns the rules that let the server use objects in a namespace, without those that it has in all namespaces. */
async function rulesIn(server: Kube, namespace: string): Promise<string[]> {
  const review = '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews';
  const rules = async (of: string) => {
    const { status } = await server.create<{ status: { resourceRules: Rule[] } }>(review, { spec: { namespace: of } });
    return status.resourceRules.map(({ verbs, resources = [], resourceNames = [] }) =>
      [[...verbs].sort(), resources, resourceNames]
        .map((list) => list.join())
        .join(' ')
        .trim(),
    );
  };
  const everywhere = await rules('kube-node-lease');
  return (await rules(namespace)).filter((rule) => !everywhere.includes(rule)).sort();
}

const expected: Readonly<Record<Part, readonly string[]>> = {
  'login-server': [
    'create events',
    'create,delete,get,list,patch leases',
    'create,get,list,patch,watch secrets',
    'create,get,list,watch tkaclusters',
    'patch tkaclusters/status',
  ],
  'joined-cluster': ['create secrets', 'get,patch secrets tka-cluster-info,tka-join-status'],
};

describe.skipIf(absent !== undefined)('a federation', () => {
  test('both sides have exactly their rights there, and none for Secrets anywhere else', async ({ here }) => {
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'tka-join' }, stringData: { token: 'x' } };
    await here.kube.create(own, secret);
    for (const side of parts) {
      await on(side, here, async (server) => {
        expect((await rulesIn(server, 'tka-system')).filter((rule) => rule.includes('secrets'))).toEqual([]);
        expect(await rulesIn(server, 'default')).toEqual([]);
        await expect(server.get(`${own}/tka-join`)).rejects.toThrow(/forbidden/);
        await expect(server.create(own, { metadata: { name: 'x' } })).rejects.toThrow(/forbidden/);
      });
    }
  });

  test('a joined cluster cannot read the Secrets of others, nor a TkaCluster', async ({ here }) => {
    await here.kube.create(federationPaths.secrets(), { metadata: { name: 'signing-key' }, stringData: { x: 'x' } });
    await on('joined-cluster', here, async (server) => {
      await expect(server.get(federationPaths.secrets('signing-key'))).rejects.toThrow(/forbidden/);
      await expect(server.get(federationPaths.secrets())).rejects.toThrow(/forbidden/);
      await expect(server.get(federationPaths.clusters())).rejects.toThrow(/forbidden/);
      const made = await server.create<{ metadata: { uid: string } }>(federationPaths.secrets(), {
        metadata: { name: 'tka-cluster-info' },
      });
      await server.patch(federationPaths.secrets('tka-cluster-info'), { data: { clusterName: 'eA==' } });
      expect(await server.get(federationPaths.secrets('tka-cluster-info'))).toMatchObject({
        data: { clusterName: 'eA==' },
      });
      await expect(
        server.remove(federationPaths.secrets('tka-cluster-info'), { uid: made.metadata.uid }),
      ).rejects.toThrow(/forbidden/);
    });
  });

  test('a login server cannot change what only an administrator decides about a cluster', async ({ here }) => {
    const cluster = {
      apiVersion: 'tka.specht-labs.de/v1alpha1',
      kind: 'TkaCluster',
      metadata: { name: 'edge-1' },
      spec: { publicKey: 'k'.repeat(43), apiEndpoint: 'https://api.example.com:6443' },
    };
    await on('login-server', here, async (server) => {
      const { metadata } = await server.create<{ metadata: { uid: string } }>(federationPaths.clusters(), cluster);
      await server.patch(`${federationPaths.clusters('edge-1')}/status`, { status: { connected: true } });
      for (const change of [{ spec: { suspended: false } }, { metadata: { labels: { environment: 'production' } } }]) {
        await expect(server.patch(federationPaths.clusters('edge-1'), change)).rejects.toThrow(/forbidden/);
        // The status is a resource of its own: a write to it changes nothing else.
        await server.patch(`${federationPaths.clusters('edge-1')}/status`, change);
      }
      expect(await server.get(federationPaths.clusters('edge-1'))).toMatchObject({ spec: cluster.spec });
      expect((await server.get<typeof cluster>(federationPaths.clusters('edge-1')))?.metadata).not.toHaveProperty(
        'labels',
      );
      await expect(server.remove(federationPaths.clusters('edge-1'), { uid: metadata.uid })).rejects.toThrow(
        /forbidden/,
      );
    });
  });

  test('its objects are checked by the API server, and shown by kubectl', async ({ here: { access, kube } }) => {
    const make = (name: string, spec: object) =>
      kube.create(federationPaths.clusters(), {
        apiVersion: 'tka.specht-labs.de/v1alpha1',
        kind: 'TkaCluster',
        metadata: { name },
        spec: { publicKey: 'k'.repeat(43), apiEndpoint: 'https://api.example.com', ...spec },
      });
    for (const [name, spec] of [
      ['a.b', {}],
      ['x'.repeat(64), {}],
      ['good', { publicKey: 'k' }],
      ['good', { apiEndpoint: 'http://api.example.com' }],
      ['good', { apiEndpoint: 'https://api.example.com\n' }],
    ] as const) {
      await expect(make(name, spec), JSON.stringify([name, spec])).rejects.toMatchObject({ status: 422 });
    }
    await make('good', { suspended: true });
    const lastSeen = new Date(Date.now() - 90_000).toISOString().replace(/\.\d+/, '');
    const status = { connected: true, lastSeen, version: '1.2.3', endpoint: 'https://other.example.com' };
    const condition = { type: 'Conflict', status: 'True', reason: 'EndpointChanged', lastTransitionTime: lastSeen };
    await kube.patch(`${federationPaths.clusters('good')}/status`, {
      status: { ...status, conditions: [{ ...condition, message: 'it states another endpoint' }] },
    });
    const shown = async (...more: string[]) => {
      const args = ['get', 'tkaclusters', 'good', '-n', federationNamespace, '--no-headers', ...more];
      return (await kubectl(as(access), ...args)).stdout.trim().split(/ {2,}/);
    };
    expect(await shown()).toEqual([
      'good',
      'true',
      expect.stringMatching(/^\d+(?:m\d*s?|s)$/),
      '1.2.3',
      'https://api.example.com',
      'true',
      expect.stringMatching(/s$/),
    ]);
    const wide = await shown('-o', 'wide');
    expect(wide.slice(-2)).toEqual(['it states another endpoint', 'https://other.example.com']);
  });

  test('the admission policy restricts the server to the bindings of sign-ins here as well', async ({ here }) => {
    const server = connectKube(kubeConfigFor(here.access, here.token));
    const binding = (name: string, account: string, role: string) => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ kind: 'ServiceAccount', name: account, namespace: here.namespace }],
    });
    const dryRun = `${paths.bindings()}?dryRun=All`;
    const name = 'tka-login-0123456789abcdef';
    await server.create(dryRun, binding(bindingName(name), name, listed));
    // A policy applies only some time after it was created.
    await vi.waitFor(
      () => expect(server.create(dryRun, binding('other', name, listed))).rejects.toThrow(/denied request: tka-server/),
      20_000,
    );
    // Otherwise a person who signs in could read the keys of the federation.
    for (const role of ['tka-server', 'tka-server-roles']) {
      await expect(server.create(dryRun, binding(bindingName(name), name, role))).rejects.toThrow(/denied request/);
    }
    const inFederation = `${bindings}?dryRun=All`;
    const grant = { ...binding('mine', name, listed), kind: 'RoleBinding' };
    await expect(server.create(inFederation, grant)).rejects.toThrow(/forbidden/);
    server.close();
  });

  test('its pods are admitted to the namespace', async ({ here: { kube } }) => {
    const set = await kube.get<V1StatefulSet>('/apis/apps/v1/namespaces/tka-system/statefulsets/tka');
    const { metadata, spec } = set?.spec?.template ?? {};
    if (spec === undefined) throw new Error('no pod');
    const state = { name: 'state', persistentVolumeClaim: { claimName: 'state-tka-0' } };
    const { spec: admitted } = await kube.create<V1Pod>('/api/v1/namespaces/tka-system/pods?dryRun=All', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...metadata, name: 'tka-0' },
      spec: { ...spec, volumes: [...(spec.volumes ?? []), state] },
    });
    expect(admitted?.volumes?.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['join', 'federation-certificate']),
    );
  });
});
