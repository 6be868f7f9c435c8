import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { demoClusters, type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import type { MemberRow } from '../../src/tka/types.ts';
import { ask, askApi, claimsOf, obtain, tokenOf } from './helpers.ts';

let mesh: SandboxMesh;
let us: SandboxCluster;
beforeAll(async () => {
  mesh = await startMesh();
  us = mesh.cluster('prod-us');
});
afterAll(() => mesh.close());
beforeEach(async () => {
  us.clearFaults();
  us.user = { username: 'alice', role: 'viewer', periodMs: 30 * 60_000 };
  await ask(us, 'POST', '/logout');
  us.resetCounts();
});

test('a sign-in from login to logout', async () => {
  expect((await ask(us, 'GET', '/kubeconfig')).status).toBe(401);
  const login = await ask(us, 'POST', '/login');
  expect(login.status).toBe(202);
  expect(JSON.parse(login.body)).toEqual({
    username: 'alice',
    role: 'viewer',
    until: expect.stringMatching(/:\d\dZ$/),
  });
  const { token, until } = await obtain(us);
  const claims = claimsOf(token);
  expect(claims).toEqual({
    aud: ['https://kubernetes.default.svc'],
    exp: expect.any(Number),
    iat: expect.any(Number),
    iss: 'https://kubernetes.default.svc',
    jti: expect.any(String),
    'kubernetes.io': { namespace: 'tka-dev', serviceaccount: { name: 'tka-user-alice', uid: us.signIn()?.uid } },
    nbf: claims.iat,
    sub: 'system:serviceaccount:tka-dev:tka-user-alice',
  });
  expect(until / 1000 - (claims.exp as number)).toBeGreaterThanOrEqual(0);
  expect(until / 1000 - (claims.exp as number)).toBeLessThanOrEqual(2);
  expect(tokenOf((await ask(us, 'GET', '/kubeconfig')).body)).not.toBe(token);

  const namespaces = await askApi(us, token, '/api/v1/namespaces');
  expect(namespaces).toMatchObject({ status: 200, body: { kind: 'NamespaceList' } });
  expect(namespaces.headers['x-tka-sandbox']).toContain('stand-in');
  expect((await ask(us, 'GET', '/login')).status).toBe(200);
  expect((await ask(us, 'POST', '/logout')).status).toBe(200);
  expect((await ask(us, 'POST', '/logout')).status).toBe(404);
  expect(await askApi(us, token, '/api/v1/namespaces')).toMatchObject({
    status: 401,
    body: { kind: 'Status', status: 'Failure', reason: 'Unauthorized', message: 'Unauthorized', code: 401 },
  });
});

test('a sign-in is ready shortly after the 202', async () => {
  us.readyAfterMs = 2000;
  await ask(us, 'POST', '/login');
  us.readyAfterMs = 10;
  expect(await ask(us, 'GET', '/kubeconfig')).toMatchObject({ status: 202, body: '', headers: { 'retry-after': '1' } });
  expect(await ask(us, 'GET', '/login')).toMatchObject({ status: 202, headers: { 'retry-after': '1' } });
});

test('each server lists each member', async () => {
  const rows = JSON.parse((await ask(us, 'GET', '/memberlist')).body);
  expect(rows).toEqual(
    mesh.clusters.map(({ name, server, apiServer, labels }) => ({
      name,
      cluster: name,
      server,
      labels,
      apiEndpoint: apiServer,
      apiPort: Number(new URL(server).port),
      state: 'healthy',
      lastSeen: expect.any(String),
      version: 'sandbox',
    })),
  );
  expect(JSON.parse((await ask(us, 'GET', '/cluster-info')).body)).toEqual({
    server_url: us.apiServer,
    insecure_skip_tls_verify: false,
    ca_data: us.caData,
    labels: { environment: 'production', region: 'us-west-2' },
    cluster: 'prod-us',
    sign_in_store: expect.stringMatching(/^[0-9a-f-]{36}\/tka-dev$/),
  });
});

test('counts and logs requests without credentials, and lets tests wait for them', async () => {
  const second = us.seen('login', 2);
  await obtain(us);
  const token = us.issueToken();
  await askApi(us, token, '/version');
  await askApi(us, 'nonsense', '/version');
  await askApi(us, undefined, '/version');
  await ask(us, 'POST', '/login');
  await second;
  expect(us.counts).toMatchObject({ login: 2, api: 3, tokenChecks: 2, tokensRefused: 1 });
  expect(us.requests.filter(({ route }) => route === 'api')).toHaveLength(3);
  expect(JSON.stringify(us.requests)).not.toContain(token);
});

test('an extension keeps the ServiceAccount and its tokens', async () => {
  const { token } = await obtain(us);
  const uid = us.signIn()?.uid;
  us.user = { username: 'alice', role: 'viewer', periodMs: 60 * 60_000 };
  const { until } = await obtain(us);
  expect(until).toBeGreaterThan(Date.now() + 59 * 60_000);
  expect(us.signIn()).toMatchObject({ uid, role: 'viewer' });
  expect((await askApi(us, token, '/version')).status).toBe(200);
});

test('a changed role ends the sign-in and its tokens at the next request', async () => {
  const { token } = await obtain(us);
  const uid = us.signIn()?.uid;
  us.user = { username: 'alice', role: 'cluster-admin', periodMs: 30 * 60_000 };
  expect((await ask(us, 'GET', '/login')).status).toBe(401);
  expect((await askApi(us, token, '/version')).status).toBe(401);
  await obtain(us);
  expect(us.signIn()).toMatchObject({ role: 'cluster-admin' });
  expect(us.signIn()?.uid).not.toBe(uid);
});

test('a ServiceAccount that something else deleted', async () => {
  const { token } = await obtain(us);
  us.deleteServiceAccount();
  expect((await askApi(us, token, '/version')).status).toBe(401);
  expect((await ask(us, 'GET', '/kubeconfig')).status).toBe(500);
  const again = await obtain(us);
  expect((await askApi(us, again.token, '/version')).status).toBe(200);
  expect((await askApi(us, token, '/version')).status).toBe(401);
});

test('an expired sign-in is deleted', async () => {
  const { token } = await obtain(us);
  us.expireSignIn();
  expect(us.signIn()).toBeUndefined();
  expect((await ask(us, 'GET', '/login')).status).toBe(401);
  expect((await askApi(us, token, '/version')).status).toBe(401);
});

test('refuses a user without a grant and a period that is too short', async () => {
  us.user = null;
  for (const [method, path] of [
    ['POST', '/login'],
    ['GET', '/memberlist'],
  ] as const) {
    expect(await ask(us, method, path)).toMatchObject({ status: 403, body: '{"message":"User not authorized"}' });
  }
  us.user = { username: 'carl', role: 'viewer', periodMs: 1000 };
  expect(await ask(us, 'POST', '/login')).toMatchObject({ status: 500, body: expect.stringContaining('user carl') });
});

describe('tokens', () => {
  test('are accepted until they expire', async () => {
    expect((await askApi(us, us.issueToken(), '/version')).status).toBe(200);
    expect((await askApi(us, us.issueToken({ ttlMs: -1000 }), '/version')).status).toBe(401);
    expect((await askApi(us, us.issueToken({ claims: { exp: undefined } }), '/version')).status).toBe(401);
  });

  test('of another cluster, or changed, are refused', async () => {
    const token = us.issueToken({ role: 'viewer' });
    expect((await askApi(mesh.cluster('prod-eu'), token, '/version')).status).toBe(401);
    const [header, body, signature] = token.split('.') as [string, string, string];
    const claims = { ...claimsOf(token), exp: 9_999_999_999 };
    const forged = [header, Buffer.from(JSON.stringify(claims)).toString('base64url'), signature].join('.');
    expect((await askApi(us, forged, '/version')).status).toBe(401);
    const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.`;
    expect((await askApi(us, none, '/version')).status).toBe(401);
  });

  test('roles', async () => {
    const pod = '/api/v1/namespaces/default/pods/hello-prod-us-1';
    const viewer = us.issueToken({ role: 'viewer' });
    expect((await askApi(us, viewer, pod)).status).toBe(200);
    expect(await askApi(us, viewer, pod, 'DELETE')).toMatchObject({
      status: 403,
      body: { kind: 'Status', reason: 'Forbidden', details: { name: 'hello-prod-us-1', kind: 'pods' } },
    });
    expect((await askApi(us, us.issueToken({ role: 'unheard-of' }), pod)).status).toBe(403);
    const admin = us.issueToken({ role: 'cluster-admin' });
    expect((await askApi(us, admin, pod, 'DELETE')).status).toBe(200);
    expect(await askApi(us, admin, pod)).toMatchObject({ status: 404, body: { reason: 'NotFound' } });
    expect((await askApi(us, admin, '/api/v1/nothing')).status).toBe(404);
  });
});

test('a restarted server keeps its port', async () => {
  const { server, apiServer } = us;
  const token = us.issueToken();
  await us.stop();
  await us.stop();
  await expect(ask(us, 'GET', '/login')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  const rows = JSON.parse((await ask(mesh.cluster('staging'), 'GET', '/memberlist')).body);
  expect(rows[0]).toMatchObject({ name: 'prod-us', state: 'dead' });
  expect((await askApi(us, token, '/version')).status).toBe(200);
  await us.start();
  expect((await ask(us, 'GET', '/login')).status).toBe(401);
  await us.stopApi();
  await expect(askApi(us, token, '/version')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  await us.startApi();
  expect((await askApi(us, token, '/version')).status).toBe(200);
  expect({ server: us.server, apiServer: us.apiServer }).toEqual({ server, apiServer });
});

test('two servers of one cluster share the API and the sign-ins', async () => {
  await using mesh = await startMesh({ clusters: demoClusters });
  const [first, second] = [mesh.cluster('prod-us'), mesh.cluster('prod-us-1')];
  expect(second.server).not.toBe(first.server);
  expect(second.apiServer).toBe(first.apiServer);
  const infoOf = async (cluster: SandboxCluster) => JSON.parse((await ask(cluster, 'GET', '/cluster-info')).body);
  expect(await infoOf(second)).toEqual(await infoOf(first));
  expect((await infoOf(mesh.cluster('prod-eu'))).sign_in_store).not.toBe((await infoOf(first)).sign_in_store);
  const rows: MemberRow[] = JSON.parse((await ask(second, 'GET', '/memberlist')).body);
  expect(rows.map(({ name, cluster }) => [name, cluster])).toEqual([
    ['prod-us', 'prod-us'],
    ['prod-eu', 'prod-eu'],
    ['staging', 'staging'],
    ['prod-us-1', 'prod-us'],
  ]);
  const { token } = await obtain(first);
  expect((await ask(second, 'GET', '/login')).status).toBe(200);
  await first.stop();
  const again = await obtain(second);
  for (const one of [token, again.token]) expect((await askApi(second, one, '/version')).status).toBe(200);
  expect((await ask(second, 'POST', '/logout')).status).toBe(200);
  expect((await askApi(first, token, '/version')).status).toBe(401);
});

test('a server like the Go one states no cluster name and no store', async () => {
  us.faults.memberlist = 'go-json';
  const info = JSON.parse((await ask(us, 'GET', '/cluster-info')).body);
  expect(Object.keys(info).sort()).toEqual(['ca_data', 'insecure_skip_tls_verify', 'labels', 'server_url']);
});

test('two meshes are independent', async () => {
  await using other = await startMesh({ clusters: [{ name: 'prod-us' }], user: 'bob' });
  const theirs = other.cluster('prod-us');
  await ask(theirs, 'POST', '/login');
  expect(theirs.signIn()?.username).toBe('bob');
  expect(us.counts.login).toBe(0);
  expect(JSON.parse((await ask(theirs, 'GET', '/memberlist')).body)).toHaveLength(1);
  expect((await askApi(theirs, us.issueToken(), '/version')).status).toBe(401);
  await expect(
    askApi({ ...us, caData: theirs.caData, apiServer: us.apiServer } as SandboxCluster, 'x', '/'),
  ).rejects.toThrow(/certificate/);
});

test.each(['0.0.0.0', '::', '192.0.2.1', 'localhost.example.com', '127.0.0.1.example.com'])(
  'refuses to listen on %s',
  async (host) => {
    await expect(startMesh({ host })).rejects.toThrow('loopback addresses only');
  },
);

test('a port in use is an error that leaves nothing open', async () => {
  const taken = Number(new URL(us.server).port);
  const clusters = [{ name: 'a' }, { name: 'b', ports: { tka: taken } }];
  await expect(startMesh({ clusters })).rejects.toMatchObject({ code: 'EADDRINUSE' });
});

test('close() leaves nothing that keeps a process alive', async () => {
  const url = new URL('../../src/sandbox/mesh.ts', import.meta.url);
  const program = `
    import { connect } from 'node:net';
    const { startMesh } = await import(${JSON.stringify(url.href)});
    const mesh = await startMesh();
    const [c] = mesh.clusters;
    c.faults.routes = { login: { silent: true }, kubeconfig: { latencyMs: 60_000 }, memberlist: { trickleMs: 60_000 } };
    const calls = [['POST', 'login'], ['GET', 'kubeconfig'], ['GET', 'memberlist']].map(([method, path]) =>
      fetch(c.server + '/api/v1alpha1/' + path, { method }).then((r) => r.text()).catch(() => 'cut'));
    connect(Number(new URL(c.apiServer).port), '127.0.0.1').on('error', () => {});
    await Promise.all([c.seen('login'), c.seen('kubeconfig'), c.seen('memberlist')]);
    await mesh.close();
    console.log((await Promise.all(calls)).join());`;
  const started = performance.now();
  const args = ['--input-type=module', '-e', program];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 10_000 });
  expect(stdout).toBe('cut,cut,cut\n');
  expect(performance.now() - started).toBeLessThan(5000);
});
