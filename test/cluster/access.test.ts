import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { type ConfigMapRef, readClusterInfo } from '../../src/server/provisioner/cluster-info.ts';
import { paths } from '../../src/server/provisioner/objects.ts';
import { absent, kubectl, Person, statusFor, test, until } from './support.ts';

const sample = (name: string): unknown =>
  JSON.parse(fs.readFileSync(path.join(import.meta.dirname, '../samples', name), 'utf8').split('\n\n')[1] ?? '');

describe.skipIf(absent !== undefined)('access', () => {
  test('a read-only role sees pods, and cannot delete them', async ({ fixture, replica, role }) => {
    await fixture.kube.create('/api/v1/namespaces/default/pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: `pod-${fixture.namespace}` },
      spec: { containers: [{ name: 'main', image: 'none.invalid/none' }] },
    });
    const alice = new Person(replica.url, { role });
    const login = await alice.login();
    expect(login.status).toBe(202);
    expect(Date.parse(login.body.until) - Date.now()).toBeGreaterThan(1_795_000);
    const { status, body } = await alice.kubeconfig();
    expect(status).toBe(200);
    expect(await alice.status()).toEqual({ status: 200, body: login.body });

    const seen = await kubectl(body, 'get', 'pods', '-o', 'name');
    expect(seen).toMatchObject({ status: 0, stderr: '' });
    expect(seen.stdout).toContain(`pod/pod-${fixture.namespace}`);
    const refused = await kubectl(body, 'delete', 'pod', `pod-${fixture.namespace}`);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('cannot delete resource "pods"');
    const who = await kubectl(body, 'auth', 'whoami', '-o', 'jsonpath={.status.userInfo.username}');
    expect(who.stdout).toBe(`system:serviceaccount:${fixture.namespace}:${alice.name}`);
    expect(replica.complaints).toEqual([]);
  });

  test('logout ends the token', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role });
    const token = await alice.token();
    expect(await statusFor(fixture.access, token)).toBe(200);
    expect((await alice.logout()).status).toBe(200);
    expect([401, 403]).toContain(await statusFor(fixture.access, token));
    await fixture.gone(alice.name);
    expect((await alice.status()).status).toBe(401);
    expect((await alice.kubeconfig()).status).toBe(401);
    expect((await alice.logout()).status).toBe(404);
    expect(replica.complaints).toEqual([]);
  });

  test('an earlier end, set by an administrator, ends access on time', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role });
    const token = await alice.token();
    expect(await statusFor(fixture.access, token)).toBe(200);
    const end = Math.ceil(Date.now() / 1000) * 1000 + 2_000;
    await fixture.endAt(alice.name, end);
    expect((await alice.status()).body.until).toBe(new Date(end).toISOString().replace('.000Z', 'Z'));
    await fixture.gone(alice.name);
    expect(Date.now() - end).toBeGreaterThanOrEqual(0);
    expect(Date.now() - end).toBeLessThan(10_000);
    expect([401, 403]).toContain(await statusFor(fixture.access, token));
    expect((await alice.kubeconfig()).status).toBe(401);
    expect(replica.complaints).toEqual([]);
  });

  test('a changed role applies as soon as 200 is answered, and tokens of the old one end', async ({
    fixture,
    replica,
    role,
  }) => {
    const other = await fixture.role(['get', 'list'], ['configmaps']);
    const alice = new Person(replica.url, { role });
    let old = await alice.token();
    for (let turn = 0; turn < 10; turn++) {
      const wanted = turn % 2 === 0 ? other : role;
      const now = alice.granted({ role: wanted });
      const login = await now.login();
      expect(login.body.role).toBe(wanted);
      expect(await now.status()).toEqual({ status: 200, body: login.body });
      const token = await now.freshToken();
      expect(await statusFor(fixture.access, token, '/api/v1/configmaps')).toBe(wanted === other ? 200 : 403);
      expect(await statusFor(fixture.access, token)).toBe(wanted === other ? 403 : 200);
      expect([401, 403]).toContain(await statusFor(fixture.access, old));
      expect([401, 403]).toContain(await statusFor(fixture.access, old, '/api/v1/configmaps'));
      old = token;
    }
    expect(replica.complaints).toEqual([]);
  });

  test('an extension gives a token for the new period at once', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role });
    await alice.token();
    const longer = alice.granted({ periodMs: 7_200_000 });
    const login = await longer.login();
    const token = await longer.freshToken();
    const { exp, iat } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    expect(Math.abs(exp * 1000 - Date.parse(login.body.until))).toBeLessThanOrEqual(3_000);
    expect(exp - iat).toBeGreaterThan(7_190);
    expect(await fixture.account(alice.name)).toBeDefined();
  });

  test('logout and login in quick succession, 50 times, gives a token that works', async ({
    fixture,
    replica,
    role,
  }) => {
    const alice = new Person(replica.url, { role });
    let token = await alice.token();
    for (let turn = 0; turn < 50; turn++) {
      expect((await alice.logout()).status).toBe(200);
      const old = token;
      token = await alice.token();
      expect(await statusFor(fixture.access, token), `turn ${turn}`).toBe(200);
      // The API server's cache does not have it yet, so it would refuse it at once.
      expect(token).not.toBe(old);
    }
    expect((await alice.status()).status).toBe(200);
    // A late deletion would be noticed here.
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
    expect(replica.complaints).toEqual([]);
  });

  test('40 logins at once, of one user and of 40', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role });
    const same = await Promise.all(Array.from({ length: 40 }, () => alice.login()));
    expect(new Set(same.map(({ status }) => status))).toEqual(new Set([202]));
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);

    const many = Array.from({ length: 40 }, () => new Person(replica.url, { role }));
    const tokens = await Promise.all(many.map((person) => person.token()));
    const answers = await Promise.all(tokens.map((token) => statusFor(fixture.access, token)));
    expect(new Set(answers)).toEqual(new Set([200]));
    expect(replica.provisioner.sessions().get(role)).toBe(41);
    await Promise.all(many.map((person) => person.logout()));
    await Promise.all(many.map((person) => fixture.gone(person.name)));
    expect(replica.provisioner.sessions().get(role)).toBe(1);
    expect(replica.complaints).toEqual([]);
  });

  test('a role that does not exist is an error, and nothing is created', async ({ fixture, replica }) => {
    for (const role of ['no-such-role', '..', 'a/b', 'x?y=z']) {
      const alice = new Person(replica.url, { role });
      const { status, body } = await alice.login();
      expect(status, role).toBe(422);
      expect(body).toMatchObject({ message: `the role "${role}" does not exist in this cluster` });
      expect(body).toHaveProperty('advice');
      expect(await fixture.signIn(alice.name)).toBeUndefined();
    }
  });

  test('a period that the Go server refuses is a policy error', async ({ replica, role }) => {
    const carl = await new Person(replica.url, { role, username: 'carl', periodMs: 599_000 }).login();
    expect(carl).toEqual({ status: 422, body: sample('login-period-too-short.http') });
  });

  test('one name in two domains is two users', async ({ fixture, replica, role }) => {
    const other = await fixture.role(['get'], ['configmaps']);
    const first = new Person(replica.url, { role });
    const { username } = first.caller;
    const second = new Person(replica.url, {
      username,
      login: `${username}@example.org`,
      ownDomain: false,
      role: other,
    });
    await Promise.all([first.login(), second.login()]);
    const uids = [first, second].map(async (person) => {
      const { sub } = JSON.parse(Buffer.from((await person.freshToken()).split('.')[1] ?? '', 'base64url').toString());
      return sub as string;
    });
    const [one, two] = await Promise.all(uids);
    expect(one).not.toBe(two);
    expect(one).toBe(`system:serviceaccount:${fixture.namespace}:${first.name}`);
    expect((await first.status()).body.role).toBe(role);
    expect((await second.status()).body.role).toBe(other);
    // A logout of one does not affect the other.
    expect((await first.logout()).status).toBe(200);
    expect((await first.status()).status).toBe(401);
    expect((await second.status()).status).toBe(200);
    await second.freshToken();
    expect((await second.logout()).status).toBe(200);
  });

  test('a deleted part of a sign-in is created again', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role });
    await alice.token();
    const account = await fixture.account(alice.name);
    await fixture.kube.remove(paths.accounts(fixture.namespace, alice.name), { uid: account?.metadata.uid ?? '' });
    expect((await alice.kubeconfig()).status).toBe(202);
    await until(fixture.access, paths.accounts(fixture.namespace), alice.name, (found) => found !== undefined);
    const binding = await fixture.binding(alice.name);
    await fixture.kube.remove(paths.bindings(`${alice.name}-binding`), { uid: binding?.metadata.uid ?? '' });
    expect((await alice.kubeconfig()).status).toBe(202);
    await until(fixture.access, paths.bindings(), `${alice.name}-binding`, (found) => found !== undefined);
    expect(await statusFor(fixture.access, await alice.token())).toBe(200);
  });

  test('a sign-in without a spec is refused', async ({ fixture }) => {
    const empty = { apiVersion: 'tka.specht-labs.de/v1alpha1', kind: 'TkaSignin', metadata: { name: 'empty' } };
    await expect(fixture.kube.create(paths.signIns(fixture.namespace), empty)).rejects.toThrow('spec: Required value');
  });

  test('an object of another program is an error, and is not changed', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role });
    await fixture.kube.create(paths.accounts(fixture.namespace), {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: alice.name },
    });
    const { status, body } = await alice.login();
    expect(status).toBe(422);
    expect(body).toMatchObject({
      cause: {
        message: `ServiceAccount "${alice.name}" in namespace "${fixture.namespace}" was not created by a TKA server`,
      },
      advice: [expect.stringContaining(`kubectl delete serviceaccount ${alice.name} -n ${fixture.namespace}`)],
    });
    expect((await alice.kubeconfig()).status).toBe(422);
    await alice.logout();
    await until(fixture.access, paths.signIns(fixture.namespace), alice.name, (found) => found === undefined);
    expect(await fixture.account(alice.name)).toBeDefined();
  });

  test('a server that may not bind the role reports it', async ({ fixture, replica }) => {
    // Only a subject that has a role, or may bind it, can bind it. Here the server may bind any role, so that right is
    // removed.
    const path = paths.bindings(`tka-server-roles-${fixture.namespace}`);
    const binding = await fixture.kube.get<{ metadata: { uid: string } }>(path);
    await fixture.kube.remove(path, { uid: binding?.metadata.uid ?? '' });
    const role = await fixture.role(['get'], ['secrets']);
    await fixture.mayNot('bind', 'clusterroles');
    const { status, body } = await new Person(replica.url, { role }).login();
    expect(status).toBe(422);
    expect(JSON.stringify(body)).toContain('attempting to grant RBAC permissions not currently held');
  });
});

describe.skipIf(absent !== undefined)('cluster info', () => {
  test('comes from a ConfigMap, with keys or as kubeadm writes it', async ({ fixture }) => {
    const keys = { apiEndpoint: 'apiEndpoint', caData: 'caData', insecure: 'insecure', kubeconfig: 'kubeconfig' };
    const path = `/api/v1/namespaces/${fixture.namespace}/configmaps`;
    const make = async (name: string, data: Record<string, string>): Promise<ConfigMapRef> => {
      await fixture.kube.create(path, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data });
      return { name, namespace: fixture.namespace, keys };
    };
    const read = (ref: ConfigMapRef) => readClusterInfo(fixture.kube, ref, { region: 'eu' });
    const plain = await make('plain', { apiEndpoint: 'https://a.example:6443', caData: 'QUJD', insecure: 'true' });
    expect(await read(plain)).toEqual({
      server_url: 'https://a.example:6443',
      ca_data: 'QUJD',
      insecure_skip_tls_verify: true,
      labels: { region: 'eu' },
    });
    const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: ""
  cluster:
    certificate-authority-data: QUJD
    server: https://b.example:6443
`;
    const kubeadm = await read(await make('kubeadm', { kubeconfig, 'jws-kubeconfig-abc': 'x' }));
    expect(kubeadm).toMatchObject({
      server_url: 'https://b.example:6443',
      ca_data: 'QUJD',
      insecure_skip_tls_verify: false,
    });
    await expect(read(await make('empty', {}))).rejects.toThrow(/has no API endpoint under "apiEndpoint"/);
    await expect(read(await make('broken', { kubeconfig: ']' }))).rejects.toThrow(/has no cluster/);
    await expect(read({ ...plain, name: 'absent' })).rejects.toThrow(/does not exist/);
  });
});
