// From the Go server to this one, and back: its objects, its operator's lease, and what each of us says of the other's.
import { randomBytes } from 'node:crypto';
import { describe, expect } from 'vitest';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { paths } from '../../src/server/provisioner/objects.ts';
import { goNamespace, goSignIn } from './go-objects.ts';
import { startReplica } from './replica.ts';
import { absent, test as base, type Ground, Person, statusFor, until } from './support.ts';

const test = base.extend<{ dev: string }>({
  dev: async ({ ground }, use) => use(await goNamespace(ground.kube, `tka-dev-${randomBytes(4).toString('hex')}`)),
});

describe.skipIf(absent !== undefined)('beside a Go server', () => {
  test('a binding of its namespace that is in the way is told at once, with the command', async ({
    ground,
    replica,
    role,
    dev,
  }) => {
    const alice = new Person(replica.url, { role });
    await goSignIn(ground.kube, dev, { username: alice.caller.username, role });
    const binding = `${alice.name}-binding`;
    const told = {
      status: 422,
      body: {
        message: `Error provisioning access for user ${alice.caller.username}`,
        cause: { message: `ClusterRoleBinding "${binding}" belongs to the TKA server in namespace "${dev}"` },
        advice: [
          `ask the cluster's administrator to move that server's sign-ins here: tka-server adopt --from-namespace ${dev}`,
          `or to remove this one: kubectl delete clusterrolebinding ${binding}`,
        ],
      },
    };
    for (let turn = 0; turn < 3; turn++) {
      const start = performance.now();
      expect(await alice.login()).toEqual(told);
      expect(performance.now() - start).toBeLessThan(1_000);
      expect(await alice.status()).toEqual(told);
      expect(await alice.kubeconfig()).toEqual(told);
    }
    // Done as told, the next login works.
    const { metadata } = (await ground.binding(alice.name)) ?? {};
    await ground.kube.remove(paths.bindings(binding), { uid: metadata?.uid ?? '' });
    expect(await statusFor(ground.access, await alice.token())).toBe(200);
  });

  test('a binding that no TKA server made is told, and left alone', async ({ ground, replica, role }) => {
    const alice = new Person(replica.url, { role });
    const made = await ground.kube.create<{ metadata: { uid: string } }>(paths.bindings(), {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: `${alice.name}-binding` },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      // The API server takes any text for this namespace.
      subjects: [{ kind: 'ServiceAccount', name: alice.name, namespace: 'x\n; rm -rf ~' }],
    });
    const { status, body } = await alice.login();
    expect(status).toBe(422);
    expect(body).toMatchObject({
      cause: { message: `ClusterRoleBinding "${alice.name}-binding" was not made by a TKA server` },
      advice: [expect.stringContaining(`kubectl delete clusterrolebinding ${alice.name}-binding`)],
    });
    await alice.logout();
    expect((await ground.binding(alice.name))?.metadata.uid).toBe(made.metadata.uid);
  });

  test('shares the lease of the namespace that it is told', async ({ ground, role, dev }) => {
    await allow(ground, dev, {
      apiGroups: ['coordination.k8s.io'],
      resources: ['leases'],
      verbs: ['get', 'create', 'update'],
    });
    const replica = await startReplica(ground.replicaOptions({ leaseNamespace: dev, identity: 'ours' }));
    try {
      await held(ground, dev, 'tka-server/ours');
      expect(await ground.kube.get(paths.leases(ground.namespace, leaseName))).toBeUndefined();
      expect(await statusFor(ground.access, await new Person(replica.url, { role }).token())).toBe(200);
      expect(replica.complaints).toEqual([]);
    } finally {
      await replica.stop();
    }
    await held(ground, dev, '');
  });
});

/** Lets the server do this in another namespace, as an administrator would. */
async function allow(ground: Ground, namespace: string, ...rules: readonly object[]): Promise<void> {
  const collection = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  const metadata = { name: 'tka-server' };
  await ground.kube.create(`${collection}/roles`, { apiVersion, kind: 'Role', metadata, rules });
  await ground.kube.create(`${collection}/rolebindings`, {
    apiVersion,
    kind: 'RoleBinding',
    metadata,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'tka-server' },
    subjects: [{ kind: 'ServiceAccount', name: 'tka-server', namespace: ground.namespace }],
  });
}

/** Resolves when the lease in this namespace has this holder. */
const held = (ground: Ground, namespace: string, holder: string): Promise<void> =>
  until<Lease>(
    ground.access,
    paths.leases(namespace),
    leaseName,
    (found) => found !== undefined && (found.spec?.holderIdentity ?? '') === holder,
  );
