// From the Go server to this one, and back: its objects, its operator's lease, and what each server reports about the
// other's.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { TkaServerProcess } from '../server/program.ts';
import { kubeConfigFor } from './api-server.ts';
import { type GoOperator, goNamespace, goOperator, goSignIn } from './go-objects.ts';
import { makeFolder } from './processes.ts';
import { type Replica, startReplica } from './replica.ts';
import { absent, test as base, type Fixture, Person, statusFor, tokenOf, until, within } from './support.ts';

const test = base.extend<{ dev: string }>({
  dev: async ({ fixture }, use) => use(await goNamespace(fixture.kube, `tka-dev-${randomBytes(4).toString('hex')}`)),
});

describe.skipIf(absent !== undefined)('beside a Go server', () => {
  test('a binding of its namespace that blocks a sign-in is reported at once, with the command', async ({
    fixture,
    replica,
    role,
    dev,
  }) => {
    const alice = new Person(replica.url, { role, ownDomain: true });
    await goSignIn(fixture.kube, dev, { username: alice.caller.username, role });
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
      expect(performance.now() - start).toBeLessThan(5_000);
      expect(await alice.status()).toEqual(told);
      expect(await alice.kubeconfig()).toEqual(told);
    }
    expect(replica.complaints).toContain(`a sign-in is blocked: ${told.body.cause.message}`);
    // After the command the next login works.
    const { metadata } = (await fixture.binding(alice.name)) ?? {};
    await fixture.kube.remove(paths.bindings(binding), { uid: metadata?.uid ?? '' });
    expect(await statusFor(fixture.access, await alice.token())).toBe(200);
  });

  test('a binding that no TKA server made is reported, and not changed', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role, ownDomain: true });
    const made = await fixture.kube.create<{ metadata: { uid: string } }>(paths.bindings(), {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: `${alice.name}-binding` },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      // The API server accepts any text for this namespace.
      subjects: [{ kind: 'ServiceAccount', name: alice.name, namespace: 'x\n; rm -rf ~' }],
    });
    const { status, body } = await alice.login();
    expect(status).toBe(422);
    expect(body).toMatchObject({
      cause: { message: `ClusterRoleBinding "${alice.name}-binding" was not created by a TKA server` },
      advice: [expect.stringContaining(`kubectl delete clusterrolebinding ${alice.name}-binding`)],
    });
    await alice.logout();
    expect((await fixture.binding(alice.name))?.metadata.uid).toBe(made.metadata.uid);
  });

  test('shares the lease of the configured namespace', async ({ fixture, role, dev }) => {
    await allow(fixture, dev, {
      apiGroups: ['coordination.k8s.io'],
      resources: ['leases'],
      verbs: ['get', 'create', 'update'],
    });
    const replica = await startReplica(fixture.replicaOptions({ leaseNamespace: dev, identity: 'ours' }));
    try {
      await held(fixture, dev, /^tka-server\/ours$/);
      expect(await fixture.kube.get(paths.leases(fixture.namespace, leaseName))).toBeUndefined();
      expect(await statusFor(fixture.access, await new Person(replica.url, { role, ownDomain: true }).token())).toBe(
        200,
      );
      expect(replica.complaints).toEqual([]);
    } finally {
      await replica.stop();
    }
    await held(fixture, dev, /^$/);
  });
});

describe.skipIf(absent !== undefined)('while a Go operator leads', () => {
  /** A replica that follows a Go operator, and a user of the tailnet's own domain. */
  const following = test.extend<{ operator: GoOperator; follower: Replica; alice: Person }>({
    operator: async ({ fixture }, use) => {
      const operator = await goOperator(fixture.kube, fixture.namespace, [fixture.namespace]);
      await use(operator);
      await operator.stop();
    },
    follower: async ({ fixture, operator }, use) => {
      expect(operator.identity).not.toBe('');
      const follower = await startReplica(fixture.replicaOptions());
      // It has read the lease when a sign-in that it cannot create is refused.
      const bob = new Person(follower.url, { role: await fixture.role(), login: 'bob@example.org', ownDomain: false });
      await expect.poll(async () => (await bob.login()).status, { timeout: 10_000 }).toBe(422);
      await use(follower);
      await follower.stop();
    },
    alice: async ({ follower, role }, use) => use(new Person(follower.url, { role, ownDomain: true })),
  });

  following(
    'a sign-in of the tailnet’s own domain is provisioned; another role takes 15 s, which the answer states at once',
    async ({ fixture, follower, alice }) => {
      const other = await fixture.role(['get', 'list'], ['configmaps']);
      expect(await statusFor(fixture.access, await alice.token())).toBe(200);
      const promoted = alice.granted({ role: other });
      const { status, body } = await within(5_000, promoted.login());
      expect(status).toBe(422);
      expect(body).toMatchObject({
        cause: { message: expect.stringContaining('cannot change a role immediately') },
        advice: ['sign in again in 15 s: kubectl tka login', expect.stringContaining('stop the Go server')],
      });
      await expect.poll(async () => (await promoted.login()).status, { timeout: 25_000, interval: 1_000 }).toBe(202);
      const token = await promoted.freshToken();
      expect(await statusFor(fixture.access, token, '/api/v1/configmaps')).toBe(200);
      expect(await statusFor(fixture.access, token)).toBe(403);
      expect(follower.complaints).toEqual([]);
    },
  );

  following(
    'a role that the Go operator announced and cannot change applies after the next login',
    async ({ fixture, role, follower, alice }) => {
      // Signed in at the Go server, which then granted another role: it announces it, but never applies it.
      const view = await fixture.role(['get'], ['configmaps']);
      const { metadata } = await goSignIn(fixture.kube, fixture.namespace, {
        username: alice.caller.username,
        role: view,
        now: Date.now() - 60_000,
      });
      await fixture.kube.patch(paths.signIns(fixture.namespace, metadata.name), { spec: { role } });
      const token = await within(5_000, alice.token());
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect(await statusFor(fixture.access, token, '/api/v1/configmaps')).toBe(403);
      expect(follower.complaints).toEqual([]);
    },
  );

  following('leftovers of a sign-in at the Go server do not block a new one', async ({ fixture, role, alice }) => {
    // Signed out at the Go server: the garbage collector deletes the account, but never the binding.
    const view = await fixture.role(['get'], ['configmaps']);
    await fixture.kube.create(paths.bindings(), {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: `${alice.name}-binding` },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: view },
      subjects: [{ kind: 'ServiceAccount', name: alice.name, namespace: fixture.namespace }],
    });
    expect(await statusFor(fixture.access, await alice.token())).toBe(200);
    expect((await fixture.binding(alice.name))?.roleRef.name).toBe(role);
  });

  following(
    'a login that the Go operator would confuse with another is refused at once',
    async ({ fixture, follower, role, operator }) => {
      const erin = new Person(follower.url, {
        role,
        login: 'erin@example.org',
        username: `e${fixture.namespace}`,
        ownDomain: false,
      });
      const { status, body } = await within(5_000, erin.login());
      expect(status).toBe(422);
      expect(JSON.stringify(body)).toMatch(/cannot distinguish \\"tka-login-e/);
      expect(await fixture.signIn(erin.name)).toBeUndefined();
      // Stopped, as the hint says.
      await operator.stop();
      await held(fixture, fixture.namespace, /^tka-server\//);
      expect(await statusFor(fixture.access, await erin.token())).toBe(200);
    },
  );

  following(
    'sign-ins and tokens of the Go operator stay valid when it stops, and a logout ends them',
    async ({ fixture, role, operator, alice }) => {
      await goSignIn(fixture.kube, fixture.namespace, { username: alice.caller.username, role, periodMs: 7_200_000 });
      const token = await tokenOf(fixture.kube, fixture.namespace, alice.name);
      expect(await statusFor(fixture.access, token)).toBe(200);
      await operator.stop();
      await held(fixture, fixture.namespace, /^tka-server\//);
      expect(await statusFor(fixture.access, token)).toBe(200);
      const stranger = alice.granted({ login: `${alice.caller.username}@example.org`, ownDomain: false });
      expect((await stranger.logout()).status).not.toBe(200);
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect((await alice.logout()).status).toBe(200);
      expect([401, 403]).toContain(await statusFor(fixture.access, token));
      await fixture.gone(alice.name);
    },
  );
});

describe.skipIf(absent !== undefined)('tka-server adopt', () => {
  test('moves the sign-ins of the other namespace, and can be repeated', async ({ fixture, replica, role, dev }) => {
    await allow(fixture, dev, ...adopting);
    const [alice, bob, carol] = [1, 2, 3].map(() => new Person(replica.url, { role, ownDomain: true })) as [
      Person,
      Person,
      Person,
    ];
    const theirs = await goSignIn(fixture.kube, dev, { username: alice.caller.username, role, periodMs: 7_200_000 });
    await goSignIn(fixture.kube, dev, { username: bob.caller.username, role });
    await fixture.kube.patch(`${paths.signIns(dev, bob.name)}/status`, {
      status: { valid_until: '2020-01-01T00:00:00Z' },
    });
    // Has tried to sign in here, and got the hint to adopt.
    await goSignIn(fixture.kube, dev, { username: carol.caller.username, role });
    expect((await carol.login()).status).toBe(422);
    // Signed out: the Go operator's binding stays.
    const gone = await goSignIn(fixture.kube, dev, { username: `x${dev}`, role });
    await fixture.kube.remove(paths.signIns(dev, gone.metadata.name), { uid: gone.metadata.uid });
    await fixture.kube.create(paths.accounts(dev), { metadata: { name: 'tka-user-of-nobody' } });

    const lines = [alice, bob, carol].flatMap(({ name }) => {
      const done =
        name === bob.name
          ? 'deleted'
          : name === carol.name
            ? `deleted (${fixture.namespace} has one)`
            : `moved to ${fixture.namespace} (role ${role}, until ${theirs.status?.valid_until})`;
      return [
        `clusterrolebinding/${name}-binding deleted`,
        `serviceaccount/${name} deleted`,
        `tkasignin/${name} ${done}`,
      ];
    });
    lines.push(
      `clusterrolebinding/${gone.metadata.name}-binding deleted`,
      `serviceaccount/${gone.metadata.name} deleted`,
    );
    const dry = await adopt(fixture, dev, '--dry-run');
    expect(dry).toMatchObject({ status: 0, stderr: '' });
    expect(dry.stdout.trim().split('\n').sort()).toEqual(lines.map((line) => `${line} (dry run)`).sort());
    expect(await fixture.kube.get(paths.signIns(dev, bob.name))).toBeDefined();
    expect(await fixture.signIn(alice.name)).toBeUndefined();

    const { stdout, ...rest } = await adopt(fixture, dev);
    expect(rest).toEqual({ status: 0, stderr: '' });
    expect(stdout.trim().split('\n').sort()).toEqual(lines.sort());
    await until<TkaSignin>(
      fixture.access,
      paths.signIns(fixture.namespace),
      alice.name,
      (found) => found?.status?.provisioned,
    );
    expect((await fixture.signIn(alice.name))?.status).toMatchObject(theirs.status ?? {});
    expect((await fixture.binding(alice.name))?.subjects).toMatchObject([{ namespace: fixture.namespace }]);
    for (const person of [alice, bob, carol]) {
      expect(await statusFor(fixture.access, await person.token())).toBe(200);
      expect(await fixture.kube.get(paths.signIns(dev, person.name))).toBeUndefined();
      expect(await fixture.kube.get(paths.accounts(dev, person.name))).toBeUndefined();
    }
    expect(await fixture.kube.get(paths.accounts(dev, 'tka-user-of-nobody'))).toBeDefined();

    expect(await adopt(fixture, dev)).toEqual({
      status: 0,
      stdout: '',
      stderr: `nothing to adopt in namespace "${dev}"\n`,
    });
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
  });

  test('removes them with --remove', async ({ fixture, replica, role, dev }) => {
    await allow(fixture, dev, ...adopting);
    const alice = new Person(replica.url, { role, ownDomain: true });
    await goSignIn(fixture.kube, dev, { username: alice.caller.username, role });
    const { status, stdout } = await adopt(fixture, dev, '--remove');
    expect(status).toBe(0);
    expect(stdout).toContain(`tkasignin/${alice.name} deleted\n`);
    expect(await fixture.kube.get(paths.signIns(dev, alice.name))).toBeUndefined();
    expect(await fixture.signIn(alice.name)).toBeUndefined();
    expect(await fixture.binding(alice.name)).toBeUndefined();
    expect(await statusFor(fixture.access, await alice.token())).toBe(200);
  });

  test('changes nothing while the other operator runs, and continues when it leaves its lease', async ({
    fixture,
    role,
    dev,
  }) => {
    await allow(fixture, dev, ...adopting);
    const name = (await goSignIn(fixture.kube, dev, { username: `x${dev}`, role })).metadata.name;
    const operator = await goOperator(fixture.kube, dev);
    const refused = await adopt(fixture, dev);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toContain(
      `error: a TKA operator is running in namespace "${dev}": "${operator.identity}" holds its lease\nhint: stop it first; its pod is tka-6d5f9-x2x4z: kubectl scale `,
    );
    expect(await fixture.kube.get(paths.signIns(dev, name))).toBeDefined();
    // A Go operator does not release its lease.
    await operator.stop();
    expect((await adopt(fixture, dev)).stdout).toContain(`tkasignin/${name} moved to ${fixture.namespace}`);
  });

  test('reports a missing right, and continues where it stopped', async ({ fixture, role, dev }) => {
    const name = (await goSignIn(fixture.kube, dev, { username: `x${dev}`, role })).metadata.name;
    await allow(fixture, dev, ...adopting.slice(0, 1), { ...adopting[1], verbs: ['list'] }, ...adopting.slice(2));
    const refused = await adopt(fixture, dev);
    expect(refused.status).toBe(1);
    expect(refused.stdout).toBe(`clusterrolebinding/${name}-binding deleted\n`);
    expect(refused.stderr).toMatch(
      /^error: serviceaccounts "\S+" is forbidden: .*\nhint: run it with a kubeconfig that may /,
    );
    const done = await adopt(fixture, dev, { token: fixture.access.token });
    expect(done).toMatchObject({ status: 0, stderr: '' });
    expect(done.stdout).toContain(`tkasignin/${name} moved to ${fixture.namespace}`);
  });
});

// The rights in the other namespace that deploy/README.md gives the server for an adoption.
const adopting = [
  { apiGroups: ['tka.specht-labs.de'], resources: ['tkasignins'], verbs: ['get', 'list', 'delete'] },
  { apiGroups: [''], resources: ['serviceaccounts'], verbs: ['get', 'list', 'delete'] },
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['get'] },
];

/** Runs the built program with the server's rights, or with another token. */
async function adopt(
  { access, namespace, token }: Fixture,
  from: string,
  ...args: readonly (string | { readonly token: string })[]
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const by = args.find((arg) => typeof arg !== 'string')?.token ?? token;
  const kubeconfig = path.join(makeFolder(), 'kubeconfig');
  fs.writeFileSync(kubeconfig, kubeConfigFor(access, by).exportConfig(), { mode: 0o600 });
  const env = {
    KUBECONFIG: kubeconfig,
    TKA_OPERATOR_NAMESPACE: namespace,
    TKA_CLUSTERINFO_APIENDPOINT: access.server,
  };
  const flags = args.filter((arg) => typeof arg === 'string');
  await using process = new TkaServerProcess({}, env, ['adopt', '--from-namespace', from, ...flags]);
  const { status } = await process.ended;
  return { status, stdout: process.stdout, stderr: process.stderr };
}

/** Gives the server these rights in another namespace, as an administrator would. */
async function allow(fixture: Fixture, namespace: string, ...rules: readonly object[]): Promise<void> {
  const collection = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  const metadata = { name: 'tka-server' };
  await fixture.kube.create(`${collection}/roles`, { apiVersion, kind: 'Role', metadata, rules });
  await fixture.kube.create(`${collection}/rolebindings`, {
    apiVersion,
    kind: 'RoleBinding',
    metadata,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'tka-server' },
    subjects: [{ kind: 'ServiceAccount', name: 'tka-server', namespace: fixture.namespace }],
  });
}

/** Resolves when the lease in this namespace has this holder. */
const held = (fixture: Fixture, namespace: string, holder: RegExp): Promise<void> =>
  until<Lease>(
    fixture.access,
    paths.leases(namespace),
    leaseName,
    (found) => found !== undefined && holder.test(found.spec?.holderIdentity ?? ''),
  );
