// Breaks one link from the sign-in on at a time: only that check reports it, with a hint.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { behindSignIn, type Status, test } from './doctor-patient.ts';

describe.concurrent('one link is broken', () => {
  test('sign-in: signed out', async ({ patient, home, login }) => {
    expect(await home.run('logout', { env: patient.env })).toMatchObject({ status: 0 });
    const found = await patient.look();
    found.differs({ ...behindSignIn, 'sign-in': 'warning' });
    expect(found.of('sign-in')).toMatchObject({ hint: login });
    expect(found.of('sign-in').detail).toMatch(/^signed out \d+s ago \(.*\d\d:\d\d\); kubectl is refused/);
    for (const name of ['token', 'token-accepted', 'rbac']) expect(found.of(name).detail).toBe('depends on sign-in');
  });

  test('sign-in: expired', async ({ patient, login }) => {
    patient.rewrite(({ details }) => ({
      details: JSON.stringify({ ...JSON.parse(details), until: '2026-01-01T00:00:00Z' }),
    }));
    const found = await patient.look();
    found.differs({ ...behindSignIn, 'sign-in': 'warning' });
    expect(found.of('sign-in')).toMatchObject({ hint: login });
    expect(found.of('sign-in').detail).toMatch(/^alice, role viewer: expired \d+d ago \(2026-01-01 00:00\)/);
  });

  test('sign-in: the entry is damaged', async ({ patient, home, us, login }) => {
    for (const text of ['', '\u0000\u001b[2J']) {
      fs.writeFileSync(home.entry(us), text);
      const found = await patient.look();
      // It is unknown whether there was a sign-in, so its context is still valid.
      found.differs({ ...behindSignIn, 'sign-in': 'warning' });
      expect(found.of('sign-in').hint).toBe(login);
    }
  });

  test('token: not a JWT, and expired', async ({ patient, login }) => {
    const broken: Record<string, Status> = { 'token-accepted': 'skipped', rbac: 'skipped' };
    const claims = (exp: number) =>
      `eyJhbGciOiJub25lIn0.${Buffer.from(JSON.stringify({ exp })).toString('base64url')}.c2ln`;
    patient.rewrite(() => ({ token: 'not.a.token' }));
    const odd = await patient.look();
    odd.differs({ token: 'failed', ...broken }, 'depends on token');
    expect(odd.of('token')).toMatchObject({ hint: login });
    expect(odd.of('token').detail).toMatch(/^the token is not a JWT/);
    patient.rewrite(() => ({ token: claims(1_700_000_000) }));
    const served = await patient.look();
    served.differs({ token: 'failed', ...broken }, 'depends on token');
    patient.rewrite(() => ({ freshUntil: 1_700_000_000 }));
    const renewed = await patient.look();
    renewed.differs({ token: 'warning', ...broken }, 'depends on token');
    expect(renewed.of('token').detail).toMatch(/^expired; the next kubectl call gets a new one/);
  });

  test('API server: nothing listens', async ({ patient, us }) => {
    await us.stopApi();
    const found = await patient.look();
    found.differs({ 'api-server': 'failed', 'token-accepted': 'skipped', rbac: 'skipped' }, 'depends on api-server');
    expect(found.of('api-server').detail).toMatch(/connection refused$/);
    expect(found.of('api-server').hint).toBe(`check it: curl -k ${us.apiServer}/version`);
  });

  test('API server: the proxy on the way to it is down', async ({ patient, us }) => {
    us.faults.clusterInfo = { server_url: 'https://api.example.com:6443' };
    const found = await patient.look([], { HTTPS_PROXY: 'http://alice:sesame@127.0.0.1:1' });
    // The kubeconfig and the token are still for the other one.
    found.differs({ 'api-server': 'failed', 'token-accepted': 'skipped', rbac: 'skipped', kubeconfig: 'failed' });
    expect(found.of('api-server').detail).toBe('cannot reach the proxy http://127.0.0.1:1: connection refused');
    expect(found.of('api-server').hint).toMatch(/^check the proxy in HTTPS_PROXY/);
    expect(found.ran.stdout).not.toContain('sesame');
  });

  test('API server: the token is sent only to its own', async ({ patient, us, eu, login }) => {
    us.faults.clusterInfo = { server_url: eu.apiServer };
    const found = await patient.look();
    found.differs({ 'token-accepted': 'skipped', rbac: 'skipped', kubeconfig: 'failed' });
    expect(found.of('token-accepted').detail).toMatch(/^depends on kubeconfig: the token is for /);
    expect(found.of('kubeconfig').hint).toBe(login);
    expect(eu.counts.tokenChecks).toBe(0);
  });

  test('API server: another CA is stated, so the kubeconfig’s is wrong too', async ({ patient, us }) => {
    const { ca } = await makeCertificates('127.0.0.1');
    us.faults.clusterInfo = { ca_data: Buffer.from(ca).toString('base64') };
    const found = await patient.look();
    found.differs({ 'api-server': 'failed', 'token-accepted': 'skipped', rbac: 'skipped', kubeconfig: 'failed' });
    expect(found.of('api-server').detail).toMatch(/certificate.*with the CA from the TKA server/);
    expect(found.of('kubeconfig').detail).toMatch(/its CA differs from the TKA server's/);
  });

  test('the token is refused', async ({ patient, us, login }) => {
    us.deleteServiceAccount();
    const found = await patient.look();
    found.differs({ 'token-accepted': 'failed', rbac: 'skipped' }, 'depends on token-accepted');
    expect(found.of('token-accepted')).toMatchObject({
      detail: `${us.apiServer} refuses the token (HTTP 401)`,
      hint: login,
    });
  });

  test('RBAC: the role allows nothing', async ({ patient, us, home }) => {
    us.user = { username: 'alice', role: 'nobody', periodMs: 30 * 60_000 };
    await home.run('logout', { env: patient.env });
    await home.run('login', { env: patient.env });
    const found = await patient.look();
    found.differs({ rbac: 'failed' });
    expect(found.of('rbac').detail).toMatch(/tka-user-alice may do nothing: the role nobody is not bound, or empty/);
    expect(found.of('rbac').hint).toBe('kubectl tka logout prod-us && kubectl tka login prod-us');
  });

  test('RBAC and grant: a changed role that the server has not applied', async ({ patient, us, home }) => {
    const remedy = 'kubectl tka logout prod-us && kubectl tka login prod-us';
    us.faults.roleNotApplied = true;
    us.user = { username: 'alice', role: 'cluster-admin', periodMs: 30 * 60_000 };
    expect((await home.run('login', { env: patient.env })).status).toBe(0);
    const found = await patient.look();
    found.differs({ grant: 'warning', rbac: 'warning' });
    expect(found.of('grant')).toMatchObject({ hint: remedy });
    expect(found.of('grant').detail).toMatch(/^your role is now cluster-admin \(was viewer\)/);
    expect(found.of('rbac').hint).toBe(remedy);
    expect(found.of('rbac').detail).toMatch(/may .*get.*, but the role cluster-admin allows to do anything/);
    await home.run('logout', { env: patient.env });
    await home.run('login', { env: patient.env });
    (await patient.look()).differs({});
  });

  test('kubeconfig: the entry is wrong', async ({ patient, login }) => {
    // biome-ignore lint/suspicious/noExplicitAny: a kubeconfig
    const exec = (change: (exec: any) => void) => (value: any) => change(value.users[0].user.exec);
    // biome-ignore lint/suspicious/noExplicitAny: a kubeconfig
    const cases: [(value: any) => void, RegExp][] = [
      [
        exec((e) => Object.assign(e, { command: '/nowhere/kubectl-tka' })),
        /its command \/nowhere\/kubectl-tka does not exist/,
      ],
      [exec((e) => e.args.pop()), /its arguments are not credential --server/],
      [exec((e) => delete e.interactiveMode), /it has no interactiveMode/],
      [exec((e) => Object.assign(e, { interactiveMode: 'Always' })), /its interactiveMode needs a terminal/],
      [exec((e) => Object.assign(e, { apiVersion: 'v1' })), /its apiVersion is not client\.authentication/],
      [(value) => delete value.users[0].user.exec, /its user "prod-us" has no exec command/],
      [(value) => delete value.clusters[0].cluster['certificate-authority-data'], /its CA differs from/],
      [
        (value) => Object.assign(value.clusters[0].cluster, { server: 'https://10.0.0.1:6443' }),
        /its API server is https:\/\/10\.0\.0\.1:6443, but the TKA server says/,
      ],
      [
        (value) => Object.assign(value.clusters[0].cluster, { 'insecure-skip-tls-verify': true }),
        /it skips TLS verification/,
      ],
    ];
    for (const [change, detail] of cases) {
      const undo = patient.edit(change);
      const found = await patient.look();
      found.differs({ kubeconfig: 'failed' });
      expect(found.of('kubeconfig').detail).toMatch(detail);
      expect(found.of('kubeconfig').hint).toBe(login);
      undo();
    }
    patient.edit(exec((e) => Object.assign(e, { apiVersion: 'client.authentication.k8s.io/v1beta1' })));
    const found = await patient.look();
    found.differs({ kubeconfig: 'warning' });
    expect(found.of('kubeconfig').hint).toBe(login);
  });

  test('kubeconfig: no entry, a foreign one, damage', async ({ patient, home, login }) => {
    const whole = fs.readFileSync(home.kubeconfig, 'utf8');
    fs.rmSync(home.kubeconfig);
    const none = await patient.look();
    none.differs({ kubeconfig: 'failed' });
    expect(none.of('kubeconfig').hint).toBe(login);
    const foreign = 'contexts: [{name: prod-us, context: {cluster: a, user: a}}]\n';
    fs.writeFileSync(home.kubeconfig, foreign);
    const other = await patient.look();
    other.differs({ kubeconfig: 'failed' });
    // `login` writes its context under another name.
    expect(other.of('kubeconfig').hint).toBe(login);
    fs.writeFileSync(home.kubeconfig, `${whole}\n  - [`);
    const damaged = await patient.look();
    damaged.differs({ kubeconfig: 'failed' });
    expect(damaged.of('kubeconfig').hint).toMatch(/^fix the file, then check it: kubectl config view/);
  });
});
