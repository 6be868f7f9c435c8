// What must not happen between two calls, or if an object of another program is in the way.
import { describe, expect, vi } from 'vitest';
import { bindingName, paths } from '../../src/server/provisioner/objects.ts';
import { startProvisioner } from '../../src/server/provisioner/provisioner.ts';
import { kubeConfigFor } from './api-server.ts';
import { type Hook, hooked } from './hook.ts';
import { type ReplicaOptions, startReplica } from './replica.ts';
import { absent, Fixture, Person, statusFor, test, until } from './support.ts';

/** Starts a replica whose calls to the API server pass this hook. */
async function replicaWith(fixture: Fixture, hook: Hook, options: Partial<ReplicaOptions> = {}) {
  const proxy = await hooked(fixture.access, hook);
  const replica = await startReplica(fixture.replicaOptions({ access: proxy.access, ...options }));
  return {
    ...replica,
    async [Symbol.asyncDispose]() {
      await replica.stop();
      proxy.close();
    },
  };
}

const account = (name: string, owner?: object) => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name, ...(owner !== undefined && { ownerReferences: [owner] }) },
});

/** Replaces the ServiceAccount of this name, as an administrator may. */
async function replaceAccount(fixture: Fixture, name: string, owner?: object): Promise<void> {
  const old = await fixture.account(name);
  await fixture.kube.remove(paths.accounts(fixture.namespace, name), { uid: old?.metadata.uid ?? '' });
  await fixture.kube.create(paths.accounts(fixture.namespace), account(name, owner));
}

describe.skipIf(absent !== undefined)('between two calls', () => {
  test('a token that was issued for another ServiceAccount of the same name is not returned', async ({
    fixture,
    role,
  }) => {
    let name: string | undefined;
    await using replica = await replicaWith(fixture, async ({ method, path, status }) => {
      if (method !== 'POST' || !path.endsWith('/token') || status !== undefined || name === undefined) return;
      const victim = name;
      name = undefined;
      await replaceAccount(fixture, victim);
    });
    const alice = new Person(replica.url, { role });
    await alice.token();
    name = alice.name;
    expect(await alice.kubeconfig()).toEqual({ status: 202, body: undefined });
    expect(name).toBeUndefined();
  });

  test('a ServiceAccount of another sign-in is not used, and is replaced', async ({ fixture, role }) => {
    await using replica = await replicaWith(fixture, () => undefined);
    const alice = new Person(replica.url, { role });
    await alice.token();
    await replaceAccount(fixture, alice.name, {
      apiVersion: 'tka.specht-labs.de/v1alpha1',
      kind: 'TkaSignin',
      name: 'another',
      uid: '00000000-0000-4000-8000-000000000000',
    });
    const theirs = await fixture.account(alice.name);
    expect((await alice.kubeconfig()).status).toBe(202);
    await until<{ metadata: { uid: string } }>(
      fixture.access,
      paths.accounts(fixture.namespace),
      alice.name,
      (found) => found !== undefined && found.metadata.uid !== theirs?.metadata.uid,
    );
    await alice.login();
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
  });

  test('a ClusterRoleBinding of another program stays unchanged, and the caller gets its name', async ({
    fixture,
    role,
  }) => {
    await using replica = await replicaWith(fixture, () => undefined);
    const alice = new Person(replica.url, { role });
    const theirs = await fixture.kube.create<object>(paths.bindings(), {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: bindingName(alice.name) },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ kind: 'ServiceAccount', name: 'somebody', namespace: 'elsewhere' }],
    });
    const { status, body } = await alice.login();
    expect(status).toBeGreaterThanOrEqual(400);
    expect(JSON.stringify(body)).toContain(bindingName(alice.name));
    expect(await fixture.binding(alice.name)).toEqual(theirs);
    expect((await alice.kubeconfig()).status).not.toBe(200);
  });

  test('a sign-in that is extended at the moment of its expiry stays', async ({ fixture, role }) => {
    const judged = Promise.withResolvers<number>();
    let ending: string | undefined;
    await using replica = await replicaWith(fixture, async ({ method, path, status }) => {
      if (method !== 'DELETE' || ending === undefined || path !== paths.signIns(fixture.namespace, ending)) return;
      if (status === undefined) await fixture.endAt(ending, Date.now() + 1_200_000);
      else judged.resolve(status);
    });
    const alice = new Person(replica.url, { role });
    const token = await alice.token();
    const before = await fixture.signIn(alice.name);
    ending = alice.name;
    await fixture.endAt(alice.name, Date.now());
    expect(await judged.promise).toBe(409);
    expect((await fixture.signIn(alice.name))?.metadata.uid).toBe(before?.metadata.uid);
    expect(await statusFor(fixture.access, token)).toBe(200);
  });

  test('a sign-in whose deletion fails is retried with growing pauses', async ({ fixture, role }) => {
    const pause = Promise.withResolvers<void>();
    let ending: string | undefined;
    let last = Number.POSITIVE_INFINITY;
    let failing = true;
    await using replica = await replicaWith(fixture, ({ method, path, status }) => {
      if (method !== 'DELETE' || status !== undefined || !failing) return;
      if (ending === undefined || path !== paths.signIns(fixture.namespace, ending)) return;
      const now = performance.now();
      // A loop that retries every second never pauses that long.
      if (now - last > 5_000) {
        failing = false;
        pause.resolve();
        return;
      }
      last = now;
      throw new Error('lost');
    });
    const alice = new Person(replica.url, { role });
    await alice.token();
    ending = alice.name;
    await fixture.endAt(alice.name, Date.now());
    await pause.promise;
    await fixture.gone(alice.name);
  });

  test('the time to renew the lease counts from the request, not from its answer', async ({ fixture }) => {
    const renewDeadlineMs = 2_000;
    const stopping = new AbortController();
    const inTime = Promise.withResolvers<boolean>();
    let renewals = 0;
    const replica = await replicaWith(
      fixture,
      async ({ method, path, status }) => {
        if (method !== 'PUT' || !path.includes('/leases/')) return;
        if (status === undefined) renewals++;
        // The answer to the first renewal is slow, and later ones get none.
        if (status === undefined && renewals === 1) {
          setTimeout(() => inTime.resolve(replica.provisioner.leading()), renewDeadlineMs + 500);
        }
        if (status !== undefined && renewals === 1) await new Promise((resolve) => setTimeout(resolve, 1_500));
        if (renewals > 1) await new Promise((resolve) => stopping.signal.addEventListener('abort', resolve));
      },
      { lease: { renewDeadlineMs, retryMs: 100 } },
    );
    expect(await inTime.promise).toBe(false);
    await expect.poll(() => renewals).toBeGreaterThan(1);
    stopping.abort();
    await replica[Symbol.asyncDispose]();
  });
});

test.skipIf(absent !== undefined)('the cluster info follows its ConfigMap', async ({ fixture }) => {
  const map = (apiEndpoint: string) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'cluster-info', namespace: fixture.namespace },
    data: { apiEndpoint },
  });
  await fixture.kube.create(`/api/v1/namespaces/${fixture.namespace}/configmaps`, map('https://one.example.com:6443'));
  const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const keys = { apiEndpoint: 'apiEndpoint', caData: 'caData', insecure: 'insecure', kubeconfig: 'kubeconfig' };
  const provisioner = startProvisioner({
    kubeConfig: kubeConfigFor(fixture.access),
    namespace: fixture.namespace,
    cluster: 'prod-us',
    clusterName: 'tka-cluster',
    contextPrefix: 'tka-context-',
    userPrefix: 'tka-user-',
    clusterInfo: { ref: { name: 'cluster-info', namespace: fixture.namespace, keys }, labels: {} },
    log: quiet,
  });
  const told = async () => (await provisioner.clusterInfo()).server_url;
  const start = performance.now();
  const clock = vi.spyOn(performance, 'now');
  try {
    expect(await told()).toBe('https://one.example.com:6443');
    expect(await provisioner.clusterInfo()).toMatchObject({ cluster: 'prod-us', labels: {} });
    const path = paths.configMaps(fixture.namespace, 'cluster-info');
    await fixture.kube.replace(path, map('https://two.example.com:6443'));
    expect(await told()).toBe('https://one.example.com:6443');
    clock.mockReturnValue(start + 61_000);
    expect(await told()).toBe('https://two.example.com:6443');
    const { metadata } = (await fixture.kube.get<{ metadata: { uid: string } }>(path)) ?? { metadata: { uid: '' } };
    await fixture.kube.remove(path, { uid: metadata.uid });
    clock.mockReturnValue(start + 200_000);
    // The last good answer is better than none.
    expect(await told()).toBe('https://two.example.com:6443');
  } finally {
    clock.mockRestore();
    await provisioner.stop();
  }
});

test.skipIf(absent !== undefined)(
  'replicas state the same store of sign-ins, and other namespaces another one',
  async ({ fixture, replica }) => {
    await using second = await replicaWith(fixture, () => undefined);
    const other = await Fixture.make(fixture.access);
    await using third = await replicaWith(other, () => undefined);
    other.kube.close();
    const namespace = await fixture.kube.get<{ metadata: { uid: string } }>(paths.namespaces('kube-system'));
    const storeOf = async (one: Pick<typeof replica, 'provisioner'>) =>
      (await one.provisioner.clusterInfo()).sign_in_store;
    await vi.waitFor(async () => {
      expect(await storeOf(replica)).toBe(`${namespace?.metadata.uid}/${fixture.namespace}`);
      expect(await storeOf(second)).toBe(await storeOf(replica));
      expect(await storeOf(third)).toBe(`${namespace?.metadata.uid}/${other.namespace}`);
    }, 10_000);
  },
);
