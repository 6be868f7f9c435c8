import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { type Answered, type HandlerOptions, Refusal } from '../../../src/server/http/contract.ts';
import type { ErrorBody, LoginAnswer } from '../../../src/tka/types.ts';
import { alice, api, ask, kubeconfig, login, sample, serve, signedIn, signedOut } from '../support.ts';

const bodyOf = (name: string) => JSON.parse(sample(name).body) as ErrorBody;
const refuse = (status: number, name: string) => async () => {
  throw new Refusal(status, bodyOf(name));
};

const answerOf = (body: string) => async () => ({ answer: JSON.parse(body) as LoginAnswer, provisioned: true });

describe('answers as the Go server does', () => {
  const notReady: LoginAnswer = JSON.parse(sample('login-get-not-ready').body);
  const table: [name: string, method: string, path: string, options: Partial<HandlerOptions>, accept?: string][] = [
    ['login', 'POST', '/login', {}],
    ['login-get', 'GET', '/login', { signIns: { ...signedIn, get: answerOf(sample('login-get').body) } }],
    [
      'login-get-not-ready',
      'GET',
      '/login',
      { signIns: { ...signedIn, get: async () => ({ answer: notReady, provisioned: false }) } },
    ],
    ['login-get-not-signed-in', 'GET', '/login', { signIns: signedOut }],
    [
      'login-no-grant',
      'POST',
      '/login',
      {
        identity: {
          whoIs() {
            throw new Refusal(403, bodyOf('login-no-grant'));
          },
        },
      },
    ],
    ...['login-period-too-short', 'login-period-invalid', 'login-name-invalid', 'login-api-server-down'].map(
      (name): [string, string, string, Partial<HandlerOptions>] => [
        name,
        'POST',
        '/login',
        { signIns: { ...signedIn, signIn: refuse(500, name) } },
      ],
    ),
    ['kubeconfig-json', 'GET', '/kubeconfig', {}],
    [
      'kubeconfig-yaml',
      'GET',
      '/kubeconfig',
      { signIns: { ...signedIn, kubeconfig: async () => parse(sample('kubeconfig-yaml').body) } },
      'application/yaml',
    ],
    ['kubeconfig-not-ready', 'GET', '/kubeconfig', { signIns: { ...signedIn, kubeconfig: async () => 'pending' } }],
    ['kubeconfig-not-signed-in', 'GET', '/kubeconfig', { signIns: signedOut }],
    [
      'kubeconfig-api-server-down',
      'GET',
      '/kubeconfig',
      { signIns: { ...signedIn, kubeconfig: refuse(500, 'kubeconfig-api-server-down') } },
    ],
    [
      'logout',
      'POST',
      '/logout',
      {
        signIns: { ...signedIn, signOut: async () => ({ answer: JSON.parse(sample('logout').body), complete: true }) },
      },
    ],
    ['logout-not-signed-in', 'POST', '/logout', { signIns: signedOut }],
    ['cluster-info', 'GET', '/cluster-info', {}],
    ['memberlist-json', 'GET', '/memberlist', { members: () => JSON.parse(sample('memberlist-json').body) }],
    ['memberlist-absent', 'GET', '/memberlist', {}],
    ['no-such-route', 'GET', '/nothing', {}],
  ];
  test.each(table)('%s', async (name, method, path, options, accept) => {
    const expected = sample(name);
    await serve(options);
    const answer = await ask(method, api + path, accept === undefined ? {} : { accept });
    expect(answer.status).toBe(expected.status);
    for (const [header, value] of Object.entries(expected.headers)) {
      if (header !== 'Date') expect(answer.headers[header.toLowerCase()], header).toBe(value);
    }
    expect(answer.headers['retry-after']).toBe(expected.headers['Retry-After']);
    expect(answer.headers.date).toBeDefined();
    expect(answer.body).toBe(expected.body);
  });
});

test.each([
  ['text/yaml', true],
  ['application/x-yaml', true],
  ['application/yaml', true],
  ['application/yaml, */*', false],
  ['text/html', false],
])('kubeconfig for Accept: %s, YAML: %s', async (accept, yaml) => {
  await serve();
  const { headers, body } = await ask('GET', `${api}/kubeconfig`, { accept });
  expect(headers['content-type']).toBe(yaml ? 'application/yaml' : 'application/json; charset=utf-8');
  expect(body.startsWith('apiVersion: v1\n')).toBe(yaml);
});

test('a token is never cached', async () => {
  await serve();
  for (const accept of ['application/json', 'application/yaml']) {
    expect((await ask('GET', `${api}/kubeconfig`, { accept })).headers['cache-control']).toBe('no-store');
  }
});

test('YAML quotes what YAML 1.1 would read as something else', async () => {
  const context = { cluster: 'no', user: 'on: "x"\n' };
  await serve({ signIns: { ...signedIn, kubeconfig: async () => ({ ...kubeconfig, contexts: { yes: context } }) } });
  const { body } = await ask('GET', `${api}/kubeconfig`, { accept: 'text/yaml' });
  expect(body).toContain('contexts:\n  "yes":\n    cluster: "no"\n');
});

test.each([
  ['GET', '/', 404, '404 page not found'],
  ['GET', `${api}`, 404, '404 page not found'],
  ['GET', `${api}/login/`, 404, '404 page not found'],
  ['GET', `${api}/__proto__`, 404, '404 page not found'],
  ['GET', '/login', 404, '404 page not found'],
  ['DELETE', `${api}/login`, 405, '405 method not allowed'],
  ['GET', `${api}/logout`, 405, '405 method not allowed'],
  ['POST', `${api}/kubeconfig`, 405, '405 method not allowed'],
])('%s %s is %i', async (method, path, status, body) => {
  await serve();
  const answer = await ask(method, path);
  expect(answer).toMatchObject({ status, body, headers: { 'content-type': 'text/plain' } });
});

test.each([
  [true, 'complete'],
  [false, undefined],
])('a complete logout (%s) has Tka-Logout: %s', async (complete, header) => {
  await serve({ signIns: { ...signedIn, signOut: async () => ({ answer: login, complete }) } });
  expect((await ask('POST', `${api}/logout`)).headers['tka-logout']).toBe(header);
});

test.each([
  [true, 'applied'],
  [false, undefined],
  [undefined, undefined],
])('a server that applies changed roles (%s) has Tka-Role: %s', async (appliesRoles, header) => {
  await serve({ signIns: { ...signedIn, ...(appliesRoles !== undefined && { appliesRoles }) } });
  expect((await ask('POST', `${api}/login`)).headers['tka-role']).toBe(header);
});

test('a query is not part of the route', async () => {
  await serve();
  expect((await ask('GET', `${api}/login?x=/y`)).status).toBe(200);
});

test('internal errors are not revealed', async () => {
  const seen: unknown[] = [];
  const error = new Error('secret at /somewhere/file.ts:3');
  await serve({
    signIns: { ...signedIn, signIn: () => Promise.reject(error) },
    clusterInfo: () => {
      throw error;
    },
    onError: (e) => seen.push(e),
  });
  for (const [method, path] of [
    ['POST', '/login'],
    ['GET', '/cluster-info'],
  ] as const) {
    expect(await ask(method, api + path)).toMatchObject({ status: 500, body: '{"message":"internal error"}' });
  }
  expect(seen).toEqual([error, error]);
});

test('identity is checked before every route, and a refusal may state when to retry', async () => {
  const whoIs = () => {
    throw new Refusal(503, { message: 'tailscaled is away' }, { retryAfterSeconds: 7 });
  };
  await serve({ identity: { whoIs }, members: () => [] });
  for (const [method, path] of [
    ['POST', '/login'],
    ['GET', '/login'],
    ['GET', '/kubeconfig'],
    ['POST', '/logout'],
    ['GET', '/cluster-info'],
    ['GET', '/memberlist'],
  ] as const) {
    const answer = await ask(method, api + path);
    expect(answer).toMatchObject({ status: 503, body: '{"message":"tailscaled is away"}' });
    expect(answer.headers['retry-after']).toBe('7');
  }
});

describe('limits', () => {
  test('a small body is ignored, a large one refused', async () => {
    let calls = 0;
    await serve({
      signIns: {
        ...signedIn,
        signIn: async () => {
          calls++;
          return login;
        },
      },
    });
    expect((await ask('POST', `${api}/login`, {}, '{}')).status).toBe(202);
    const declared = await ask('POST', `${api}/login`, { 'content-length': '5000' }, 'x'.repeat(5000));
    expect(declared).toMatchObject({ status: 413, body: '{"message":"request body too large"}' });
    const chunked = await ask('POST', `${api}/login`, { 'transfer-encoding': 'chunked' }, 'x'.repeat(5000));
    expect(chunked.status).toBe(413);
    expect(calls).toBe(1);
  });

  test('large headers are refused', async () => {
    await serve();
    expect((await ask('GET', `${api}/login`, { 'x-much': 'x'.repeat(20_000) })).status).toBe(431);
  });

  test('a caller that does not finish its headers is disconnected', async () => {
    const port = await serve({}, { readHeaderTimeoutMs: 50 });
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET ${api}/login HTTP/1.1\r\nHost: x\r\n`);
    expect(await text(socket)).toContain('408 Request Timeout');
  });
});

describe('the log line of a request', () => {
  async function told(method: string, path: string, headers = {}, options: Partial<HandlerOptions> = {}) {
    const { promise, resolve } = Promise.withResolvers<Answered>();
    await serve({ ...options, onRequest: resolve });
    const answer = await ask(method, path, headers);
    return { answer, answered: await promise };
  }

  test('has its route, its caller and its status', async () => {
    const { answer, answered } = await told('GET', `${api}/login?x=secret`);
    expect(answered).toEqual({
      id: answer.headers['x-request-id'],
      method: 'GET',
      route: `${api}/login`,
      path: `${api}/login`,
      status: 200,
      ms: expect.any(Number),
      caller: alice,
      address: '127.0.0.1',
      port: expect.any(Number),
    });
    expect(answered.id).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('has the reason of a refusal with its causes, on one line', async () => {
    const cause = { message: 'Get "https://10.0.0.1:6443": connect ECONNREFUSED\n\u001b[31m', cause: { message: 'x' } };
    const get = async () => {
      throw new Refusal(500, { message: 'Failed to load sign-in request', cause });
    };
    const { answered } = await told('GET', `${api}/login`, {}, { signIns: { ...signedIn, get } });
    const { refusal = '' } = answered;
    expect(refusal).toMatch(
      /^Failed to load sign-in request: Get "https:\/\/10.0.0.1:6443": connect ECONNREFUSED .*: x$/,
    );
    expect(refusal).not.toMatch(/[\u0000-\u001f]/);
  });

  test('has the path without a route, truncated', async () => {
    const { answered } = await told('GET', `/${'x'.repeat(500)}`);
    expect(answered).toMatchObject({ status: 404, route: undefined, caller: undefined });
    expect(answered.path).toHaveLength(200);
  });

  test('has no caller if it is unknown', async () => {
    const whoIs = () => {
      throw new Refusal(403, { message: 'User not authorized' });
    };
    const { answered } = await told('POST', `${api}/login`, {}, { identity: { whoIs } });
    expect(answered).toMatchObject({ status: 403, route: `${api}/login`, caller: undefined });
  });

  test('has no status if the caller hangs up', async () => {
    const { promise, resolve } = Promise.withResolvers<Answered>();
    const asked = Promise.withResolvers<void>();
    const get = () => {
      asked.resolve();
      return new Promise<never>(() => undefined);
    };
    const port = await serve({ signIns: { ...signedIn, get }, onRequest: resolve });
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET ${api}/login HTTP/1.1\r\nHost: x\r\n\r\n`);
    await asked.promise;
    socket.destroy();
    expect(await promise).toMatchObject({ status: undefined, caller: alice });
  });

  test.each([
    ['7f0c:a.b_c-1', true],
    ['x'.repeat(64), true],
    ['x'.repeat(65), false],
    ['', false],
    ['a b', false],
    ['a"}', false],
    ['\u00e9', false],
  ])('the request ID %j, reused: %s', async (id, taken) => {
    const { answer, answered } = await told('GET', '/swagger', { 'x-request-id': id });
    expect(answer.headers['x-request-id']).toBe(answered.id);
    if (taken) expect(answered.id).toBe(id);
    else expect(answered.id).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('internal errors are logged with the request ID', async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const clusterInfo = () => Promise.reject(new Error('x'));
    const { answered } = await told(
      'GET',
      `${api}/cluster-info`,
      {},
      { clusterInfo, onError: (_, __, id) => resolve(id) },
    );
    expect(await promise).toBe(answered.id);
  });
});
