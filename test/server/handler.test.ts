import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { type Caller, type HandlerOptions, Refusal, type SignIns } from '../../src/server/http/contract.ts';
import { createHandler } from '../../src/server/http/handler.ts';
import { close, createTkaServer, type Limits, listen } from '../../src/server/http/listen.ts';
import type { ErrorBody, LoginAnswer } from '../../src/tka/types.ts';

interface Sample {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

function sample(name: string): Sample {
  const file = readFileSync(new URL(`../samples/${name}.http`, import.meta.url), 'utf8');
  const end = file.indexOf('\n\n');
  const [first = '', ...lines] = file.slice(0, end).split('\n');
  const headers = lines.map((line) => line.split(': ', 2) as [string, string]);
  return { status: Number(first.split(' ')[1]), headers: Object.fromEntries(headers), body: file.slice(end + 2) };
}

const alice: Caller = { username: 'alice', login: 'alice@example.com', role: 'viewer', periodMs: 1_800_000 };
const login = JSON.parse(sample('login').body) as LoginAnswer;
const kubeconfig = JSON.parse(sample('kubeconfig-json').body);
const bodyOf = (name: string) => JSON.parse(sample(name).body) as ErrorBody;
const refuse = (status: number, name: string) => async () => {
  throw new Refusal(status, bodyOf(name));
};

const answerOf = (body: string) => async () => ({ answer: JSON.parse(body) as LoginAnswer, provisioned: true });

const signedIn: SignIns = {
  signIn: async () => login,
  get: async () => ({ answer: login, provisioned: true }),
  kubeconfig: async () => kubeconfig,
  signOut: async () => login,
};
const signedOut: SignIns = {
  signIn: async () => login,
  get: async () => undefined,
  kubeconfig: async () => undefined,
  signOut: async () => undefined,
};
const defaults: HandlerOptions = {
  identity: { whoIs: () => alice },
  signIns: signedIn,
  clusterInfo: () => JSON.parse(sample('cluster-info').body),
};

let server: Server | undefined;
let port = 0;
afterEach(async () => {
  if (server) await close(server);
  server = undefined;
});

async function serve(options: Partial<HandlerOptions> = {}, limits?: Limits): Promise<void> {
  server = createTkaServer(createHandler({ ...defaults, ...options }), limits);
  port = await listen(server, '127.0.0.1', 0);
}

async function ask(method: string, path: string, headers: Record<string, string> = {}, body = '') {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest({ host: '127.0.0.1', port, method, path, headers, agent: false }, resolve)
      .on('error', reject)
      .end(body);
  });
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}
const api = '/api/v1alpha1';

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
    ['logout', 'POST', '/logout', { signIns: { ...signedIn, signOut: async () => JSON.parse(sample('logout').body) } }],
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

test('a query is no part of the route', async () => {
  await serve();
  expect((await ask('GET', `${api}/login?x=/y`)).status).toBe(200);
});

test('what goes wrong inside stays inside', async () => {
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

test('identity stands before every route, and a refusal may say when to come back', async () => {
  const whoIs = () => {
    throw new Refusal(503, { message: 'tailscaled is away' }, 7);
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
  test('a small body is forgiven, a large one refused', async () => {
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

  test('a caller who does not finish the headers is cut off', async () => {
    await serve({}, { readHeaderTimeoutMs: 50 });
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET ${api}/login HTTP/1.1\r\nHost: x\r\n`);
    expect(await text(socket)).toContain('408 Request Timeout');
  });
});
