import { get as httpGet } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { ask, askApi, claimsOf, obtain, tokenOf } from './helpers.ts';

let mesh: SandboxMesh;
let c: SandboxCluster;
beforeAll(async () => {
  mesh = await startMesh({ clusters: [{ name: 'one', labels: { a: 'b' } }, { name: 'two' }] });
  c = mesh.cluster('one');
});
afterAll(() => mesh.close());
beforeEach(async () => {
  c.clearFaults();
  c.user = { username: 'alice', role: 'viewer', periodMs: 30 * 60_000 };
  await ask(c, 'POST', '/logout');
  c.resetCounts();
});

describe('faults of one route', () => {
  test.each([
    [
      { status: 422, body: { message: 'no', advice: ['do'], cause: { message: 'why' } } },
      'application/json; charset=utf-8',
    ],
    [{ status: 400, body: { error: 'no' } }, 'application/json; charset=utf-8'],
    [{ status: 502, body: '<html>bad gateway</html>', contentType: 'text/html' }, 'text/html'],
    [{ status: 500, body: 'oops' }, 'text/plain'],
  ])('a fixed answer %#, without an effect on the server', async (answer, contentType) => {
    c.faults.routes.login = { answer: { ...answer, headers: { 'Retry-After': '3' } } };
    const got = await ask(c, 'POST', '/login');
    expect(got).toMatchObject({ status: answer.status, headers: { 'content-type': contentType, 'retry-after': '3' } });
    expect(got.body).toBe(typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body));
    expect(c.signIn()).toBeUndefined();
  });

  test('a sequence of answers', async () => {
    c.faults.routes.login = [
      { answer: { status: 500 }, times: 2 },
      { answer: { status: 401 }, times: 1 },
    ];
    const statuses = [];
    for (let i = 0; i < 4; i++) statuses.push((await ask(c, 'POST', '/login')).status);
    expect(statuses).toEqual([500, 500, 401, 202]);
  });

  test('for all routes except those with a fault of their own', async () => {
    c.faults.routes = { all: { answer: { status: 500 } }, clusterInfo: {} };
    expect((await ask(c, 'GET', '/memberlist')).status).toBe(500);
    expect((await ask(c, 'GET', '/cluster-info')).status).toBe(200);
    expect((await askApi(c, c.issueToken(), '/version')).status).toBe(200);
  });

  test('latency', async () => {
    c.faults.routes.clusterInfo = { latencyMs: 60 };
    const started = performance.now();
    expect((await ask(c, 'GET', '/cluster-info')).status).toBe(200);
    expect(performance.now() - started).toBeGreaterThan(55);
  });

  test('a request held until it is released', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    c.faults.routes.login = { hold: promise };
    const answer = ask(c, 'POST', '/login');
    await c.seen('login');
    expect(c.signIn()).toBeUndefined();
    resolve();
    expect((await answer).status).toBe(202);
  });

  test.each([
    ['before', false],
    ['after', true],
    ['middle', true],
  ] as const)('reset %s, with an effect on the server: %s', async (reset, done) => {
    c.faults.routes.login = { reset, times: 1 };
    await expect(ask(c, 'POST', '/login')).rejects.toMatchObject({ code: 'ECONNRESET' });
    expect(c.signIn() !== undefined).toBe(done);
    expect((await ask(c, 'POST', '/login')).status).toBe(202);
  });

  test('a reset in the middle comes after half the body', async () => {
    c.faults.routes.clusterInfo = { reset: 'middle' };
    let body = '';
    await new Promise<void>((resolve) => {
      httpGet(`${c.server}/api/v1alpha1/cluster-info`, { agent: false }, (response) => {
        response.on('data', (chunk) => {
          body += chunk;
        });
        response.on('error', () => {});
        response.on('close', resolve);
      }).on('error', () => {});
    });
    expect(body).toMatch(/^\{"server_url"/);
    expect(() => JSON.parse(body)).toThrow();
  });

  test('silence', async () => {
    c.faults.routes.login = { silent: true };
    const answer = ask(c, 'POST', '/login');
    await c.seen('login');
    expect(await Promise.race([answer, new Promise((r) => setTimeout(r, 50, 'silence'))])).toBe('silence');
    await c.stop();
    await expect(answer).rejects.toMatchObject({ code: 'ECONNRESET' });
    await c.start();
  });

  test('trickle', async () => {
    const chunks: number[] = [];
    c.faults.routes.memberlist = { trickleMs: 2, change: () => ['slow'] };
    await new Promise<void>((resolve) => {
      httpGet(`${c.server}/api/v1alpha1/memberlist`, { agent: false }, (response) => {
        response.on('data', (chunk: Buffer) => chunks.push(chunk.length));
        response.on('end', resolve);
      });
    });
    expect(chunks.length).toBeGreaterThan(1);
    expect(chunks.reduce((a, b) => a + b)).toBe('["slow"]'.length);
  });

  test.each(['/cluster-info', '/kubeconfig'])('truncated %s', async (path) => {
    await obtain(c);
    c.faults.routes.all = { truncate: true };
    await expect(ask(c, 'GET', path)).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  test('oversize', async () => {
    c.faults.routes.login = { oversizeMiB: 3 };
    const { status, headers, body } = await ask(c, 'POST', '/login');
    expect({ status, type: headers['content-type'] }).toEqual({ status: 200, type: 'application/json; charset=utf-8' });
    expect(JSON.parse(body).username).toHaveLength(3 << 20);
  });

  test('not JSON, changed JSON, changed headers', async () => {
    c.faults.routes.login = { notJson: true, times: 1 };
    const bad = await ask(c, 'POST', '/login');
    expect(bad.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(() => JSON.parse(bad.body)).toThrow();
    c.faults.routes.login = {
      change: (a: object) => ({ ...a, username: 'x\ny' }),
      headers: { Date: null, 'X-Y': 'z' },
    };
    const { body, headers } = await ask(c, 'POST', '/login');
    expect(JSON.parse(body)).toMatchObject({ username: 'x\ny', role: 'viewer' });
    expect(headers).toMatchObject({ 'x-y': 'z', 'content-length': String(body.length) });
    expect(headers.date).toBeUndefined();
    c.faults.routes.login = { change: () => '<raw>' };
    expect((await ask(c, 'POST', '/login')).body).toBe('<raw>');
  });

  test('faults of the API stand-in', async () => {
    const token = c.issueToken();
    c.faults.routes.api = { answer: { status: 503, body: { kind: 'Status' } }, times: 1 };
    expect((await askApi(c, token, '/version')).status).toBe(503);
    c.faults.routes.api = { reset: 'before', times: 1 };
    await expect(askApi(c, token, '/version')).rejects.toMatchObject({ code: 'ECONNRESET' });
    c.faults.routes.api = { reset: 'middle', times: 1 };
    await expect(askApi(c, token, '/version')).rejects.toThrow();
    expect((await askApi(c, token, '/version')).status).toBe(200);
  });

  test('several at once', async () => {
    c.faults.routes.login = { latencyMs: 30, answer: { status: 200, body: 'x'.repeat(10) }, truncate: 3 };
    const started = performance.now();
    await expect(ask(c, 'POST', '/login')).rejects.toMatchObject({ code: 'ECONNRESET' });
    expect(performance.now() - started).toBeGreaterThan(25);
  });
});

describe('faults of the sign-in', () => {
  test('pending forever, with its own Retry-After', async () => {
    c.readyAfterMs = 0;
    c.faults.pending = { forever: true, retryAfter: 'soon' };
    await ask(c, 'POST', '/login');
    for (let i = 0; i < 3; i++) {
      expect(await ask(c, 'GET', '/kubeconfig')).toMatchObject({ status: 202, headers: { 'retry-after': 'soon' } });
    }
  });

  test('pending for some requests, then for some time', async () => {
    c.readyAfterMs = 0;
    c.faults.pending = { requests: 2 };
    await ask(c, 'POST', '/login');
    const statuses = [];
    for (let i = 0; i < 3; i++) statuses.push((await ask(c, 'GET', '/kubeconfig')).status);
    expect(statuses).toEqual([202, 202, 200]);
    c.faults.pending = { ms: 250 };
    await ask(c, 'POST', '/login');
    const started = performance.now();
    expect((await ask(c, 'GET', '/kubeconfig')).status).toBe(202);
    await obtain(c);
    expect(performance.now() - started).toBeGreaterThan(240);
  });

  test.each([
    ['empty', { empty: true }, undefined],
    ['not a JWT', { raw: 'no\u001b[31m\njwt' }, 'no\u001b[31m\njwt'],
  ])('token: %s', async (_, fault, token) => {
    c.faults.token = fault;
    expect((await obtain(c)).token).toBe(token);
  });

  test('token: exp', async () => {
    const { until } = await obtain(c);
    const expOf = async () => claimsOf(tokenOf((await ask(c, 'GET', '/kubeconfig')).body)).exp;
    c.faults.token = { expOffsetMs: 90_000 };
    expect(((await expOf()) as number) - Date.now() / 1000).toBeLessThanOrEqual(90);
    c.faults.token = { expOffsetMs: -5000 };
    expect(((await expOf()) as number) - Date.now() / 1000).toBeLessThan(0);
    c.faults.token = { claims: { exp: undefined } };
    expect(await expOf()).toBeUndefined();
    c.faults.token = { claims: { exp: 'NaN' } };
    expect(await expOf()).toBe('NaN');
    c.faults.token = undefined;
    expect(until / 1000 - ((await expOf()) as number)).toBeLessThanOrEqual(2);
  });

  test('a sign-in that ends soon gives a token of ten minutes', async () => {
    c.user = { username: 'alice', role: 'viewer', periodMs: 600_000 };
    const { token } = await obtain(c);
    const { exp, iat } = claimsOf(token) as { exp: number; iat: number };
    expect(exp - iat).toBe(600);
  });

  test('until', async () => {
    const normal = JSON.parse((await ask(c, 'POST', '/login')).body).until;
    c.faults.until = -3_600_000;
    const moved = JSON.parse((await ask(c, 'GET', '/login')).body).until;
    expect(Date.parse(normal) - Date.parse(moved)).toBe(3_600_000);
    c.faults.until = 'tomorrow';
    expect(JSON.parse((await ask(c, 'POST', '/login')).body).until).toBe('tomorrow');
  });

  test('Date header', async () => {
    c.faults.dateSkewMs = 3_600_000;
    const { headers } = await ask(c, 'POST', '/login');
    expect(Math.abs(Date.parse(headers.date ?? '') - Date.now() - 3_600_000)).toBeLessThan(2000);
  });

  test('the extension race', async () => {
    const first = await obtain(c);
    c.faults.extensionRace = 2;
    c.user = { username: 'alice', role: 'viewer', periodMs: 60 * 60_000 };
    const { until } = JSON.parse((await ask(c, 'POST', '/login')).body);
    const ends = [];
    for (let i = 0; i < 3; i++) ends.push(claimsOf(tokenOf((await ask(c, 'GET', '/kubeconfig')).body)).exp as number);
    expect(first.until / 1000 - (ends[1] as number)).toBeLessThanOrEqual(2);
    expect(ends[0]).toBeLessThan(Date.now() / 1000 + 31 * 60);
    expect(Date.parse(until) / 1000 - (ends[2] as number)).toBeLessThanOrEqual(2);
  });

  test('the logout race', async () => {
    await obtain(c);
    c.faults.logoutRaceMs = 500;
    await ask(c, 'POST', '/logout');
    const { token } = await obtain(c);
    let status: number | undefined = 200;
    while (status === 200) status = (await ask(c, 'GET', '/kubeconfig')).status;
    expect(status).toBe(401);
    expect((await askApi(c, token, '/version')).status).toBe(401);
    await obtain(c);
    expect(c.signIn()).toBeDefined();
  });

  test('a role that is announced but not applied until logout', async () => {
    const { token } = await obtain(c);
    c.faults.roleNotApplied = true;
    c.user = { username: 'alice', role: 'cluster-admin', periodMs: 30 * 60_000 };
    expect(JSON.parse((await ask(c, 'POST', '/login')).body).role).toBe('cluster-admin');
    expect(c.signIn()).toMatchObject({ role: 'cluster-admin' });
    expect((await askApi(c, token, '/api/v1/namespaces/default/pods/x', 'DELETE')).status).toBe(403);
    await ask(c, 'POST', '/logout');
    const again = await obtain(c);
    expect((await askApi(c, again.token, '/api/v1/namespaces/default/pods/x', 'DELETE')).status).toBe(404);
  });
});

describe('shapes of answers', () => {
  test('memberlist', async () => {
    const list = (accept = 'application/json') => ask(c, 'GET', '/memberlist', { accept });
    c.faults.memberlist = 'go-json';
    expect((await list('*/*')).headers['content-type']).toBe('text/html; charset=utf-8');
    const rows = JSON.parse((await list()).body);
    expect(rows).toHaveLength(2);
    const port = Number(new URL(c.apiServer).port);
    expect(rows).toContainEqual({ apiEndpoint: c.apiServer, apiPort: port, labels: { a: 'b' } });
    expect(rows).toContainEqual(expect.objectContaining({ labels: null }));
    c.faults.memberlist = 'go-json-only';
    expect(JSON.parse((await list('*/*')).body)).toEqual(rows);
    c.faults.memberlist = 'absent-404';
    expect(await list()).toMatchObject({ status: 404, body: '404 page not found' });
    c.faults.memberlist = 'gossip-503';
    expect(await list()).toMatchObject({ status: 503, body: '{"error":"Gossip not enabled"}' });
    c.faults.memberlist = { raw: '[{"apiEndpoint":' };
    expect(await list()).toMatchObject({ status: 200, body: '[{"apiEndpoint":' });
    c.faults.memberlist = 'ours';
    expect(JSON.parse((await list()).body)).toHaveLength(2);
  });

  test('cluster-info', async () => {
    c.faults.clusterInfo = { server_url: 'https://elsewhere:6443', insecure_skip_tls_verify: true, ca_data: '' };
    const info = JSON.parse((await ask(c, 'GET', '/cluster-info')).body);
    expect(info).toEqual({
      cluster: 'one',
      sign_in_store: expect.any(String),
      server_url: 'https://elsewhere:6443',
      insecure_skip_tls_verify: true,
      ca_data: '',
      labels: { a: 'b' },
    });
    c.faults.clusterInfo = ({ labels }) => ({ labels });
    expect(JSON.parse((await ask(c, 'GET', '/cluster-info')).body)).toEqual({ labels: { a: 'b' } });
  });

  test('kubeconfig, in both formats', async () => {
    await obtain(c);
    c.faults.kubeconfig = (normal) => ({ ...normal, clusters: {}, 'current-context': '../x\ny' });
    expect(JSON.parse((await ask(c, 'GET', '/kubeconfig')).body)).toMatchObject({
      clusters: {},
      'current-context': '../x\ny',
    });
    expect((await ask(c, 'GET', '/kubeconfig', { accept: 'text/yaml' })).body).toContain('clusters: {}');
  });
});
