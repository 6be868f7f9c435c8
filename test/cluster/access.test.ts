import { describe, expect } from 'vitest';
import { absent, kubectl, Person, statusFor, test } from './ground.ts';

describe.skipIf(absent !== undefined)('access', () => {
  test('a read-only role sees pods, and cannot delete them', async ({ ground, replica, role }) => {
    await ground.kube.create('/api/v1/namespaces/default/pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: `pod-${ground.namespace}` },
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
    expect(seen.stdout).toContain(`pod/pod-${ground.namespace}`);
    const refused = await kubectl(body, 'delete', 'pod', `pod-${ground.namespace}`);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('cannot delete resource "pods"');
    const who = await kubectl(body, 'auth', 'whoami', '-o', 'jsonpath={.status.userInfo.username}');
    expect(who.stdout).toBe(`system:serviceaccount:${ground.namespace}:${alice.name}`);
    expect(replica.complaints).toEqual([]);
  });

  test('logout ends the token', async ({ ground, replica, role }) => {
    const alice = new Person(replica.url, { role });
    const token = await alice.token();
    expect(await statusFor(ground.access, token)).toBe(200);
    expect((await alice.logout()).status).toBe(200);
    expect([401, 403]).toContain(await statusFor(ground.access, token));
    await ground.gone(alice.name);
    expect((await alice.status()).status).toBe(401);
    expect((await alice.kubeconfig()).status).toBe(401);
    expect((await alice.logout()).status).toBe(404);
    expect(replica.complaints).toEqual([]);
  });
});
