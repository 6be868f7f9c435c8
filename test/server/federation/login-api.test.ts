// The API of joined clusters on a login server: real HTTP on both sides. Between them is a stand-in for the tunnel,
// which sends each request to a server on loopback.
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { parse } from 'yaml';
import { type StandInCaller, startTailscaled } from '../../../src/sandbox/tailscaled.ts';
import { signAssertion } from '../../../src/server/federation/assertion.ts';
import {
  type JoinedCluster,
  type OwnTunnel,
  type Tunnel,
  type TunnelAnswer,
  TunnelError,
  type TunnelRequest,
  tunnelBodyLimit,
  tunnelHeaders,
} from '../../../src/server/federation/contract.ts';
import { JoinedApi } from '../../../src/server/federation/joined-api.ts';
import { newKey } from '../../../src/server/federation/keys.ts';
import { type LoginApiOptions, loginApi } from '../../../src/server/federation/login-api.ts';
import { type Answered, type Caller, type Decided, Refusal, type SignIns } from '../../../src/server/http/contract.ts';
import { CallerLimits } from '../../../src/server/http/limits.ts';
import { close, listen } from '../../../src/server/http/listen.ts';
import { tailnetIdentity } from '../../../src/server/identity/tailnet.ts';
import { eventOf, lineOf } from '../../../src/server/telemetry/audit.ts';
import { createMetrics } from '../../../src/server/telemetry/metrics.ts';
import { parseClusterInfo } from '../../../src/tka/answers.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
import { documented, problemOf } from '../documented.ts';
import { ask, serve } from '../support.ts';

const api = '/clusters/prod-eu/api/v1alpha1';
const capability = 'specht-labs.de/cap/tka-federation';
const endpoint = 'https://api.prod-eu.example.com:6443';
const alice: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { [capability]: [{ role: 'view', period: '8h', clusters: ['env=prod'] }] },
};
const stranger: StandInCaller = { login: 'bob@example.com' };

const part = (claims: object): string => Buffer.from(JSON.stringify(claims)).toString('base64url');
const expiry = Math.floor(Date.now() / 1000) + 28_800;
const token = `${part({ alg: 'RS256' })}.${part({ exp: expiry, sub: 'system:serviceaccount:tka:tka-login-alice' })}.c2ln`;
const until = new Date(expiry * 1000).toISOString().replace('.000Z', 'Z');
const signIn = { username: 'alice', role: 'view', until };
const kubeconfig = {
  kind: 'Config',
  apiVersion: 'v1',
  clusters: { c: { server: endpoint } },
  users: { u: { token } },
  contexts: { k: { cluster: 'c', user: 'u' } },
  'current-context': 'k',
} as const;
/** The same with names of the login server. */
const passed = {
  ...kubeconfig,
  clusters: { 'tka-prod-eu': kubeconfig.clusters.c },
  users: { 'tka-prod-eu': kubeconfig.users.u },
  contexts: { 'tka-prod-eu': { cluster: 'tka-prod-eu', user: 'tka-prod-eu' } },
  'current-context': 'tka-prod-eu',
};
const info = {
  server_url: endpoint,
  insecure_skip_tls_verify: false,
  ca_data: '',
  labels: { env: 'forged', team: 'a' },
  cluster: 'what-it-calls-itself',
  sign_in_store: '0b5a/tka-system',
};

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await close(server);
});

const tunnelId = (replica: string): string => Buffer.from(replica.padEnd(16)).toString('base64url');

/** Returns a tunnel that sends each request to a port of loopback. */
function tunnelTo(port: number, replica = 'tka-0', name = 'prod-eu'): Tunnel {
  const exchange = async (
    { method, path, assertion, id }: TunnelRequest,
    signal: AbortSignal,
  ): Promise<TunnelAnswer> => {
    const headers = { authorization: `Bearer ${assertion}`, 'x-request-id': id };
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const to = { host: '127.0.0.1', port, method, path, headers, agent: false as const, signal };
      httpRequest(to, resolve).on('error', reject).end();
    });
    const given = tunnelHeaders.flatMap((name) => {
      const value = response.headers[name];
      return typeof value === 'string' ? [[name, value] as const] : [];
    });
    return { status: response.statusCode ?? 0, headers: Object.fromEntries(given), body: await text(response) };
  };
  return {
    id: tunnelId(replica),
    cluster: name,
    replica,
    statement: { version: '0.2.0', apiEndpoint: endpoint, labels: { env: 'prod' } },
    keys: [key.publicKey],
    since: Date.now(),
    lastSeen: () => Date.now(),
    request: (request, signal) =>
      exchange(request, signal).catch((cause: unknown) => {
        throw new TunnelError('no answer', { cause });
      }),
    close: () => {},
  };
}

/** What a joined server was asked: method, path and the caller in the assertion. */
interface Asked {
  readonly call: string;
  readonly caller: Caller | undefined;
  readonly replica: string;
}

const key = newKey();

/** Starts the server of a joined cluster with the real API. Returns a tunnel to it, and what it was asked. */
async function joinedServer(signIns: Partial<SignIns> = {}, { replica = 'tka-0', name = 'prod-eu' } = {}) {
  const asked: Asked[] = [];
  const joined = new JoinedApi({
    signIns: {
      appliesRoles: true,
      signIn: async ({ username, role }) => ({ username, role, until, account: 'tka-login-alice' }),
      get: async ({ username, role, problem }) => {
        if (problem !== undefined) throw problem;
        return { answer: { username, role, until }, provisioned: true };
      },
      kubeconfig: async () => kubeconfig,
      signOut: async ({ username }) => ({ answer: { username, role: 'view', until }, complete: true }),
      ...signIns,
    },
    clusterInfo: () => info,
    endAllThrough: async () => 0,
    roles: [],
    maxPeriodMs: 28_800_000,
    onEvicted: () => {},
    log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
    onRequest: ({ method, path, caller }) =>
      void asked.push({ call: `${method} ${path.replace('/api/v1alpha1', '')}`, caller, replica }),
  });
  const own: OwnTunnel = {
    id: tunnelId(replica),
    cluster: name,
    primary: 'login-eu',
    replica: 'tka-login-0',
    keys: [key.publicKey],
    clockOffsetMs: 0,
    since: Date.now(),
  };
  const server = createServer(async (request, response) => {
    const { method = '', url: path = '', headers } = request;
    const [assertion = '', id = ''] = [
      headers.authorization?.slice('Bearer '.length),
      headers['x-request-id'] as string,
    ];
    const answer = await joined.answer({ method, path, assertion, id }, own, new AbortController().signal);
    response.writeHead(answer.status, answer.headers).end(answer.body);
  });
  servers.push(server);
  return { tunnel: tunnelTo(await listen(server, '127.0.0.1', 0), replica, name), asked };
}

type Raw = readonly [status: number, body: string, headers?: Readonly<Record<string, string>>];

/** Starts a server that gives one answer to everything. Returns a tunnel to it. */
async function answering([status, body, headers = { 'content-type': 'application/json' }]: Raw, replica?: string) {
  const server = createServer((_, response) => response.writeHead(status, headers).end(body));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return tunnelTo((server.address() as AddressInfo).port, replica);
}

const cluster = (change: Partial<JoinedCluster> = {}): JoinedCluster => ({
  name: 'prod-eu',
  labels: { env: 'prod' },
  suspended: false,
  conflict: undefined,
  apiEndpoint: endpoint,
  statement: undefined,
  lastSeen: undefined,
  direct: false,
  tunnels: [],
  ...change,
});

interface Seen {
  readonly answered: Answered[];
  readonly decided: Decided[];
  readonly log: string[];
  port: number;
}

const signed: LoginApiOptions['assert'] = ({ tunnel: { id, cluster }, method, path, caller }) =>
  signAssertion(key, { issuer: 'login-eu', cluster, tunnel: id, method, path, caller });

/** Starts a login server that this caller asks, with these joined clusters. */
async function loginServer(
  caller: StandInCaller | undefined,
  clusters: readonly JoinedCluster[],
  more: Partial<Pick<LoginApiOptions, 'patienceMs' | 'assert' | 'isReady' | 'isStale'>> & {
    readonly members?: readonly MemberRow[];
    readonly limits?: CallerLimits;
  } = {},
): Promise<Seen> {
  const { patienceMs, assert = signed, isReady = () => true, isStale = () => false, members, limits } = more;
  const seen: Seen = { answered: [], decided: [], log: [], port: 0 };
  const tailscaled = await startTailscaled({ whois: () => caller });
  onTestFinished(() => tailscaled.close());
  const note = (_: object, message: string) => void seen.log.push(message);
  const log = { debug: () => {}, info: () => {}, warn: note, error: note };
  seen.port = await serve({
    identity: tailnetIdentity({
      capName: 'specht-labs.de/cap/tka',
      federationCapName: capability,
      env: { TS_SOCKET: tailscaled.socketPath },
      log,
    }),
    joined: loginApi({
      clusters: { get: (name) => clusters.find((each) => each.name === name), all: () => clusters },
      primary: 'login-eu',
      assert,
      isReady,
      isStale,
      log,
      ...(patienceMs !== undefined && { patienceMs }),
    }),
    onRequest: (answered) => seen.answered.push(answered),
    onDecided: (decided) => seen.decided.push(decided),
    ...(members && { members: () => members }),
    ...(limits && { limits }),
  });
  return seen;
}

const routes = ['POST /login', 'GET /login', 'GET /kubeconfig', 'POST /logout', 'GET /cluster-info', 'GET /memberlist'];

/** Sends a request for the joined cluster, and compares its answer with the documentation. */
async function observe(call: string, headers: Readonly<Record<string, string>> = {}, prefix = api) {
  const [method = '', route = ''] = call.split(' ');
  const answer = await ask(method, prefix + route, headers);
  const key = `${method} /api/v1alpha1${route} ${answer.status}`;
  const schema = documented.get(key)?.content?.['application/json']?.schema;
  const type = answer.headers['content-type'] ?? '';
  const isError = answer.status >= 400 && type.startsWith('application/json');
  if (isError) expect(problemOf({ $ref: '#/components/schemas/Error' }, JSON.parse(answer.body)), key).toBeUndefined();
  else if (schema && type.startsWith('application/json')) {
    expect(problemOf(schema, JSON.parse(answer.body)), key).toBeUndefined();
  }
  const body = type.startsWith('application/json') ? JSON.parse(answer.body) : undefined;
  return { ...answer, json: body };
}

describe('a joined cluster', () => {
  test('has every call of the API, under its path', async () => {
    const { tunnel, asked } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [tunnel] })], { members: [] });
    const signedIn = await observe('POST /login');
    expect(signedIn).toMatchObject({ status: 202, json: signIn, headers: { 'tka-role': 'applied' } });
    expect(await observe('GET /login')).toMatchObject({ status: 200, json: signIn });
    expect(await observe('GET /kubeconfig')).toMatchObject({ status: 200, json: passed });
    const yaml = await observe('GET /kubeconfig', { accept: 'application/yaml' });
    expect(parse(yaml.body)).toEqual(passed);
    expect(await observe('GET /cluster-info')).toMatchObject({ status: 200 });
    expect(await observe('GET /memberlist')).toMatchObject({ status: 200, json: [] });
    const signedOut = await observe('POST /logout');
    expect(signedOut).toMatchObject({ status: 200, json: signIn, headers: { 'tka-logout': 'complete' } });
    expect(asked.map(({ call }) => call)).toEqual([
      'POST /login',
      'GET /login',
      'GET /kubeconfig',
      'GET /kubeconfig',
      'GET /cluster-info',
      'POST /logout',
    ]);
    for (const { caller } of asked) {
      const by = {
        username: 'alice',
        login: 'alice@example.com',
        device: 'n7CNTRL',
        role: 'view',
        periodMs: 28_800_000,
      };
      expect(caller).toMatchObject(by);
    }
  });

  test('describes itself, except for its name and the labels of its administrator', async () => {
    const { tunnel } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [tunnel] })]);
    const { json, status, body } = await observe('GET /cluster-info');
    expect(json).toEqual({
      server_url: endpoint,
      insecure_skip_tls_verify: false,
      ca_data: '',
      labels: { env: 'prod', team: 'a' },
      cluster: 'prod-eu',
      sign_in_store: '0b5a/tka-system/through/login-eu',
    });
    // The client reads the store, and compares it with that of other replicas.
    expect(parseClusterInfo({ status, headers: {}, body }, 'it').signInStore).toBe('0b5a/tka-system/through/login-eu');
  });

  test('asks to wait while it provisions, and says when the caller is not signed in', async () => {
    let found: Awaited<ReturnType<SignIns['get']>> = { answer: signIn, provisioned: false };
    const pending = found;
    const { tunnel } = await joinedServer({
      get: async () => found,
      kubeconfig: async () => (found === undefined ? undefined : 'pending'),
      signOut: async () => undefined,
    });
    await loginServer(alice, [cluster({ tunnels: [tunnel] })]);
    for (const call of ['GET /login', 'GET /kubeconfig']) {
      found = pending;
      expect(await observe(call)).toMatchObject({ status: 202, headers: { 'retry-after': '1' } });
      found = undefined;
      expect(await observe(call)).toMatchObject({ status: 401, json: { message: 'User not signed in' } });
    }
    expect(await observe('POST /logout')).toMatchObject({ status: 404, json: { message: 'User not signed in' } });
  });

  test('refuses in the words of the login server, and with its own reason', async () => {
    const advice = ['ask the administrator to create the ClusterRole "view"'];
    const refusal = new Refusal(422, {
      message: 'the role "view" does not exist in this cluster',
      advice,
      capability: 'specht-labs.de/cap/other',
      login: 'mallory@example.com',
      cause: { message: 'not\u001b[2J found' },
    });
    const { tunnel } = await joinedServer({
      signIn: async () => {
        throw refusal;
      },
    });
    const { answered } = await loginServer(alice, [cluster({ tunnels: [tunnel] })]);
    const { status, json } = await observe('POST /login');
    expect(status).toBe(422);
    expect(json).toEqual({
      message: 'cluster "prod-eu" refused',
      // These words come from outside.
      advice: ['cluster "prod-eu" advises: ask the administrator to create the ClusterRole "view"'],
      cause: { message: 'the role "view" does not exist in this cluster: not [2J found' },
    });
    expect(answered[0]?.refusal).toMatch(/^cluster "prod-eu" refused: the role "view" does not exist/);
  });

  test('has only the paths of the API', async () => {
    const { tunnel, asked } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [tunnel] })]);
    const paths = ['', '/', '/swagger', '/api/v1alpha1', '/api/v1alpha1/', '/api/v1alpha1/login/', '/x'];
    for (const path of paths)
      expect((await ask('GET', `/clusters/prod-eu${path}`)).body, path).toBe('404 page not found');
    for (const name of [
      '',
      '.',
      '..',
      'Prod-EU',
      'prod_eu',
      'a.b',
      '-a',
      'a-',
      '%70rod-eu',
      'a'.repeat(64),
      'prod-eu/x',
    ]) {
      expect((await ask('GET', `/clusters/${name}/api/v1alpha1/login`)).body, name).toBe('404 page not found');
    }
    expect(await ask('GET', `${api}/logout`)).toMatchObject({ status: 405, headers: { allow: 'POST' } });
    expect(await ask('GET', '/clusters/api/v1alpha1/login')).toMatchObject({ status: 404 });
    expect(asked).toEqual([]);
  });

  test('its own members are those of the login server, for callers with a grant', async () => {
    const rows: MemberRow[] = [{ apiEndpoint: endpoint, apiPort: 443, labels: null, cluster: 'prod-eu' }];
    const { tunnel, asked } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [tunnel] })], { members: rows });
    expect(await observe('GET /memberlist')).toMatchObject({ status: 200, json: rows });
    expect(asked).toEqual([]);
    await loginServer(stranger, [cluster({ tunnels: [tunnel] })], { members: rows });
    expect(await observe('GET /memberlist')).toMatchObject({ status: 403 });
    expect(asked).toMatchObject([{ call: 'GET /login', caller: { role: '', revoked: true } }]);
  });
});

describe('a caller without a grant', () => {
  const none = { message: 'No grant found for user', capability, login: 'bob@example.com', cluster: 'prod-eu' };

  test('is refused, and the access that it had ends', async () => {
    const { tunnel, asked } = await joinedServer({
      get: async ({ problem }) => {
        throw problem;
      },
    });
    await loginServer(stranger, [cluster({ tunnels: [tunnel] })]);
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig', 'GET /cluster-info', 'GET /memberlist']) {
      expect(await observe(call), call).toMatchObject({ status: 403, json: none });
      expect(asked.splice(0), call).toMatchObject([
        { call: 'GET /login', caller: { login: 'bob@example.com', role: '', periodMs: 0, revoked: true } },
      ]);
    }
  });

  test('hears once that the sign-in has ended', async () => {
    let hasSignIn = true;
    const { tunnel } = await joinedServer({
      get: async ({ problem }) => {
        if (!hasSignIn) throw problem;
        hasSignIn = false;
        return undefined;
      },
    });
    await loginServer(stranger, [cluster({ tunnels: [tunnel] })]);
    expect(await observe('GET /kubeconfig')).toMatchObject({ status: 401 });
    expect(await observe('GET /kubeconfig')).toMatchObject({ status: 403, json: none });
  });

  test('can sign out', async () => {
    const { tunnel, asked } = await joinedServer();
    await loginServer(stranger, [cluster({ tunnels: [tunnel] })]);
    const answer = { ...signIn, username: 'bob' };
    expect(await observe('POST /logout')).toMatchObject({ status: 200, json: answer });
    expect(asked).toMatchObject([{ call: 'POST /logout', caller: { role: '' } }]);
  });

  test('gets the same answer whether or not the cluster exists, is connected, or is suspended', async () => {
    const bodies = new Set<string>();
    for (const clusters of [[], [cluster()], [cluster({ suspended: true, conflict: 'x' })]]) {
      await loginServer(stranger, clusters);
      for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig', 'GET /cluster-info', 'GET /memberlist']) {
        const { status, body } = await observe(call);
        expect(status, call).toBe(403);
        bodies.add(body);
      }
    }
    expect([...bodies]).toEqual([JSON.stringify(none)]);
  });

  test('forged labels in the statement grant nothing', async () => {
    const { tunnel } = await joinedServer({
      get: async ({ problem }) => {
        throw problem;
      },
    });
    const { statement } = tunnel;
    expect(statement.labels).toEqual({ env: 'prod' });
    await loginServer(alice, [cluster({ labels: { env: 'test' }, statement, tunnels: [tunnel] })]);
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig', 'GET /cluster-info']) {
      expect(await observe(call), call).toMatchObject({ status: 403, json: { capability } });
    }
  });

  test('an invalid policy sends nothing but a logout', async () => {
    const { tunnel, asked } = await joinedServer();
    const rules = [{ role: 'view', period: '8h' }];
    await loginServer({ ...alice, capabilities: { [capability]: rules } }, [cluster({ tunnels: [tunnel] })], {
      members: [],
    });
    for (const call of routes.filter((each) => each !== 'POST /logout')) {
      const { status, json } = await observe(call);
      expect(status, call).toBe(400);
      expect(json.cause.message).toMatch(/^"clusters" must be a list of names/);
    }
    expect(asked).toEqual([]);
    expect(await observe('POST /logout')).toMatchObject({ status: 200 });
  });
});

describe('the state of a cluster', () => {
  const allowed = { ...alice, capabilities: { [capability]: [{ role: 'view', period: '8h', clusters: ['*'] }] } };

  test('unknown: 404 for a caller with a rule', async () => {
    await loginServer(allowed, []);
    for (const call of routes) {
      const { status, json } = await observe(call);
      expect(status, call).toBe(404);
      if (call !== 'POST /logout') expect(json.message).toBe('no cluster "prod-eu" has joined this login server');
    }
  });

  test('not known yet: 503 for a caller with a rule, whatever its rules', async () => {
    const { tunnel, asked } = await joinedServer();
    for (const clusters of [[], [cluster({ tunnels: [tunnel] })]]) {
      const { answered } = await loginServer(alice, clusters, { isReady: () => false, members: [] });
      for (const call of routes) {
        expect(await observe(call), call).toMatchObject({
          status: 503,
          headers: { 'retry-after': '1' },
          json: { message: 'the login server is not ready for its joined clusters yet' },
        });
      }
      expect(answered.map(({ caller }) => caller?.login)).toEqual(Array(6).fill('alice@example.com'));
    }
    expect(asked).toEqual([]);
    await loginServer(stranger, [], { isReady: () => false });
    expect(await observe('POST /login')).toMatchObject({ status: 403, json: { capability } });
  });

  test('not connected: 503, so that the client asks another replica', async () => {
    await loginServer(alice, [cluster()]);
    for (const call of routes.filter((each) => each !== 'GET /memberlist')) {
      expect(await observe(call), call).toMatchObject({
        status: 503,
        headers: { 'retry-after': '1' },
        json: { message: 'cluster "prod-eu" is not connected to this login server' },
      });
    }
  });

  test('perhaps suspended, because what is known is old: no sign-ins and no tokens, but a logout', async () => {
    const { tunnel, asked } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [tunnel] })], { isStale: () => true });
    const why = 'the login server cannot reach its Kubernetes API';
    const message = `sign-ins to cluster "prod-eu" may be suspended: ${why}`;
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig']) {
      expect(await observe(call), call).toMatchObject({
        status: 503,
        headers: { 'retry-after': '1' },
        json: { message },
      });
    }
    expect(await observe('POST /logout')).toMatchObject({ status: 200 });
    expect(asked.map(({ call }) => call)).toEqual(['POST /logout']);
  });

  test('suspended: no sign-ins and no tokens, but a logout', async () => {
    const { tunnel, asked } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [tunnel], suspended: true })]);
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig']) {
      const message = 'sign-ins to cluster "prod-eu" are suspended';
      expect(await observe(call), call).toMatchObject({ status: 422, json: { message } });
    }
    expect(asked).toEqual([]);
    for (const call of ['GET /cluster-info', 'POST /logout']) expect((await observe(call)).status, call).toBe(200);
  });

  test('in conflict: 409, but a logout', async () => {
    const { tunnel, asked } = await joinedServer();
    const conflict = 'cluster "prod-us" has the same API server';
    await loginServer(alice, [cluster({ tunnels: [tunnel], conflict })]);
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig', 'GET /cluster-info']) {
      expect(await observe(call), call).toMatchObject({ status: 409, json: { cause: { message: conflict } } });
    }
    expect(asked).toEqual([]);
    expect((await observe('POST /logout')).status).toBe(200);
  });

  test('suspended or in conflict: the access of a caller without a grant still ends', async () => {
    for (const state of [{ suspended: true }, { conflict: 'x' }]) {
      const { tunnel, asked } = await joinedServer();
      await loginServer(stranger, [cluster({ tunnels: [tunnel], ...state })]);
      expect((await observe('POST /login')).status).toBe(403);
      expect(asked).toMatchObject([{ caller: { role: '', revoked: true } }]);
    }
  });
});

describe('a tunnel without an answer', () => {
  /** Starts a server that accepts requests and never answers. */
  async function silent(replica: string) {
    const open = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<void>();
    const server = createServer((request) => {
      open.resolve();
      request.socket.once('close', () => closed.resolve());
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const tunnel = tunnelTo((server.address() as AddressInfo).port, replica);
    return { tunnel, opened: open.promise, closed: closed.promise };
  }

  test('a tunnel of another cluster is not used', async () => {
    const { tunnel, asked } = await joinedServer({}, { name: 'prod-us' });
    await loginServer(alice, [cluster({ tunnels: [tunnel] })]);
    expect(await observe('POST /login')).toMatchObject({ status: 503 });
    expect(asked).toEqual([]);
  });

  test('an assertion that cannot be signed is no answer, and is logged', async () => {
    const { tunnel } = await joinedServer();
    const { log } = await loginServer(alice, [cluster({ tunnels: [tunnel] })], {
      assert: async () => {
        throw new Error('no key');
      },
    });
    const message = 'cluster "prod-eu" does not answer through its tunnel';
    expect(await observe('POST /login')).toMatchObject({ status: 503, json: { message } });
    expect(log).toEqual(['a joined cluster gave no answer']);
  });

  test('another replica of the cluster answers', async () => {
    const { tunnel: gone } = await joinedServer({}, { replica: 'tka-1' });
    await close(servers.pop() as Server);
    const { tunnel, asked } = await joinedServer();
    const { log } = await loginServer(alice, [cluster({ tunnels: [gone, tunnel] })]);
    expect(await observe('POST /login')).toMatchObject({ status: 202 });
    expect(asked).toMatchObject([{ replica: 'tka-0' }]);
    expect(log).toEqual(['a joined cluster gave no answer']);
  });

  test('a replica that does not answer leaves time for another one', async () => {
    const { tunnel: quiet, closed } = await silent('tka-1');
    const { tunnel } = await joinedServer();
    await loginServer(alice, [cluster({ tunnels: [quiet, tunnel] })], { patienceMs: 3_000 });
    expect(await observe('GET /kubeconfig')).toMatchObject({ status: 200 });
    await closed;
  });

  test('no replica answers: 503 within its time', async () => {
    const quiet = [await silent('tka-0'), await silent('tka-1'), await silent('tka-2')];
    const tunnels = quiet.map(({ tunnel }) => tunnel);
    await loginServer(alice, [cluster({ tunnels })], { patienceMs: 300 });
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig', 'GET /cluster-info', 'POST /logout']) {
      expect(await observe(call), call).toMatchObject({
        status: 503,
        headers: { 'retry-after': '1' },
        json: { message: 'cluster "prod-eu" does not answer through its tunnel' },
      });
    }
  });

  test('without a grant, the refusal does not depend on the cluster', async () => {
    const { tunnel } = await silent('tka-0');
    await loginServer(stranger, [cluster({ tunnels: [tunnel] })], { patienceMs: 300 });
    expect(await observe('POST /login')).toMatchObject({ status: 403, json: { capability } });
  });

  test('a caller that hangs up ends its request in the tunnel', async () => {
    const { tunnel, opened, closed } = await silent('tka-0');
    const { port } = await loginServer(alice, [cluster({ tunnels: [tunnel] })]);
    const gone = new AbortController();
    const request = httpRequest({
      host: '127.0.0.1',
      port,
      path: `${api}/kubeconfig`,
      agent: false,
      signal: gone.signal,
    });
    request.on('error', () => {}).end();
    await opened;
    gone.abort();
    await closed;
  });

  test('one cluster that does not answer leaves the same caller the others', async () => {
    const { tunnel: quiet } = await silent('tka-0');
    const { tunnel } = await joinedServer({}, { name: 'prod-us' });
    const other = { ...cluster({ tunnels: [tunnel] }), name: 'prod-us' };
    await loginServer(alice, [cluster({ tunnels: [quiet] }), other], { patienceMs: 3_000, limits: new CallerLimits() });
    const hung = Array.from({ length: 20 }, () => observe('GET /login'));
    const answer = await observe('GET /login', {}, '/clusters/prod-us/api/v1alpha1');
    expect(answer.status).toBe(200);
    expect(new Set((await Promise.all(hung)).map(({ status }) => status))).toEqual(new Set([503]));
  });
});

describe('an answer that is not used', () => {
  const json = (value: unknown): Raw => [200, JSON.stringify(value)];
  const evil = 'https://api.evil.example.com:6443';
  const withCluster = (change: object) =>
    json({ ...kubeconfig, clusters: { c: { ...kubeconfig.clusters.c, ...change } } });
  const jwt = (claims: object) => `${part({})}.${part(claims)}.c2ln`;
  const withToken = (user: object) => json({ ...kubeconfig, users: { u: user } });
  const error = (status: number, body: unknown): Raw => [status, JSON.stringify(body)];
  const html: Raw = [200, '<html>Sign in</html>', { 'content-type': 'text/html' }];

  test.each<[name: string, call: string, answer: Raw, why: RegExp]>([
    ['HTML', 'GET /kubeconfig', html, /HTTP 200 that is not JSON$/],
    ['HTML that calls itself JSON', 'GET /kubeconfig', [200, html[1]], /not a JSON object/],
    ['no content type', 'GET /kubeconfig', [200, JSON.stringify(kubeconfig), {}], /not JSON$/],
    [
      'a similar content type',
      'GET /login',
      [200, JSON.stringify(signIn), { 'content-type': 'application/jsonx' }],
      /not JSON$/,
    ],
    ['half of an answer', 'GET /kubeconfig', [200, JSON.stringify(kubeconfig).slice(0, -5)], /not a JSON object/],
    ['a list', 'GET /login', json([signIn]), /not a JSON object/],
    ['null', 'GET /login', json(null), /not a JSON object/],
    ['a huge answer', 'GET /login', json({ ...signIn, x: 'x'.repeat(tunnelBodyLimit) }), /not a JSON object/],
    ['deep nesting', 'GET /login', [200, '['.repeat(100_000)], /not a JSON object/],
    ['a redirect', 'GET /kubeconfig', [302, '', { location: 'http://127.0.0.1:1/' }], /HTTP 302/],
    ['a permanent redirect', 'POST /login', [308, '{}', { location: `${evil}/` }], /HTTP 308/],
    ['an unknown status', 'GET /login', error(418, { message: 'x' }), /HTTP 418/],
    ['a status of another route', 'GET /login', error(204, {}), /HTTP 204/],
    ['created', 'POST /login', error(200, signIn), /HTTP 200/],
    ['a sign-in without a body', 'POST /login', [202, ''], /not JSON|not a JSON object/],
    ['not found', 'GET /kubeconfig', [404, '404 page not found', { 'content-type': 'text/plain' }], /HTTP 404/],
    ['a grant that is missing elsewhere', 'GET /cluster-info', error(404, { message: 'x' }), /HTTP 404/],
    ['a refusal without a reason', 'POST /login', error(403, {}), /HTTP 403 without a reason/],
    ['a refusal in HTML', 'POST /login', [403, '<p>no</p>', { 'content-type': 'text/html' }], /not JSON$/],

    ['another user', 'GET /login', json({ ...signIn, username: 'bob' }), /not about this user/],
    ['no user', 'POST /login', error(202, { role: 'view', until }), /not about this user/],
    ['another role', 'POST /login', error(202, { ...signIn, role: 'cluster-admin' }), /about another role/],
    ['a role with control characters', 'GET /login', json({ ...signIn, role: 'view\u001b[2J' }), /no valid role/],
    ['a role that is not text', 'GET /login', json({ ...signIn, role: ['view'] }), /no valid role/],
    ['an end that is not a time', 'GET /login', json({ ...signIn, until: 'soon' }), /no valid end/],
    ['an impossible end', 'GET /login', json({ ...signIn, until: '2026-99-99T00:00:00Z' }), /no valid end/],
    ['a logout of another user', 'POST /logout', json({ ...signIn, username: 'bob' }), /not about this user/],

    ['another API server', 'GET /kubeconfig', withCluster({ server: evil }), /names the API server \S+evil\S+, but/],
    [
      'another port',
      'GET /kubeconfig',
      withCluster({ server: endpoint.replace('6443', '6444') }),
      /names the API server/,
    ],
    ['another path', 'GET /kubeconfig', withCluster({ server: `${endpoint}/x` }), /names the API server/],
    ['plain http', 'GET /kubeconfig', withCluster({ server: endpoint.replace('https', 'http') }), /not https/],
    [
      'a user name in the URL',
      'GET /kubeconfig',
      withCluster({ server: endpoint.replace('//', '//a:b@') }),
      /credentials/,
    ],
    ['an invalid CA', 'GET /kubeconfig', withCluster({ 'certificate-authority-data': 'eA==' }), /CA/],
    [
      'lists instead of maps',
      'GET /kubeconfig',
      json({ ...kubeconfig, clusters: [{ name: 'c', cluster: { server: endpoint } }] }),
      /no cluster/,
    ],
    ['no current context', 'GET /kubeconfig', json({ ...kubeconfig, 'current-context': 'x' }), /no current context/],
    ['no token', 'GET /kubeconfig', withToken({}), /empty token/],
    ['a client certificate', 'GET /kubeconfig', withToken({ 'client-certificate-data': 'eA==' }), /empty token/],
    ['a program to run', 'GET /kubeconfig', withToken({ exec: { command: 'sh' } }), /empty token/],
    ['a token that is not a JWT', 'GET /kubeconfig', withToken({ token: 'abc' }), /not a JWT/],
    ['a token with a line break', 'GET /kubeconfig', withToken({ token: `${token}\nx: y` }), /not a JWT/],
    ['a token without an end', 'GET /kubeconfig', withToken({ token: jwt({}) }), /no expiry/],
    ['an expired token', 'GET /kubeconfig', withToken({ token: jwt({ exp: 1 }) }), /already expired/],

    ['another API server', 'GET /cluster-info', json({ ...info, server_url: evil }), /names the API server/],
    ['an invalid CA', 'GET /cluster-info', json({ ...info, ca_data: '!' }), /CA/],
    ['no API server', 'GET /cluster-info', json({ ...info, server_url: undefined }), /no API server/],
  ])('%s (%s)', async (_, call, answer, why) => {
    const { log, answered } = await loginServer(alice, [cluster({ tunnels: [await answering(answer)] })]);
    const { status, headers, json, body } = await observe(call);
    expect(json.message).toMatch(/^the answer of cluster "prod-eu" is not used: /);
    expect(json.message).toMatch(why);
    expect(status).toBe(502);
    expect(headers.location).toBeUndefined();
    expect(body.length).toBeLessThan(2_000);
    expect(body).not.toContain(token);
    expect(json.message).not.toMatch(/[\u0000-\u001f\u202e]/);
    expect(answered[0]?.refusal).toBe(json.message);
    expect(log).toEqual([]);
  });

  test('a user, a role, a name or a field that was not asked for does not pass', async () => {
    const more = { ...signIn, node: 'x', token, until, extra: { deep: true } };
    await loginServer(alice, [cluster({ tunnels: [await answering(json(more))] })]);
    expect((await observe('GET /login')).json).toEqual(signIn);
    const user = { token, exec: { command: 'sh' }, 'client-key': '/etc/passwd', username: 'x' };
    const kube = {
      ...kubeconfig,
      clusters: { c: { server: endpoint, 'proxy-url': 'http://evil.example.com', 'tls-server-name': 'x' } },
      users: { u: user },
      contexts: { k: { cluster: 'c', user: 'u', namespace: 'kube-system', extensions: [] } },
      extensions: [],
      preferences: { colors: true },
    };
    await loginServer(alice, [cluster({ tunnels: [await answering(json(kube))] })]);
    expect((await observe('GET /kubeconfig')).json).toEqual(passed);
    const names = {
      clusters: { prod: kubeconfig.clusters.c, other: { server: evil } },
      users: { 'root\u001b[2J\u202e': { token }, other: { token: jwt({ exp: expiry }) } },
      contexts: { prod: { cluster: 'prod', user: 'root\u001b[2J\u202e' } },
      'current-context': 'prod',
    };
    await loginServer(alice, [cluster({ tunnels: [await answering(json({ ...kubeconfig, ...names }))] })]);
    expect((await observe('GET /kubeconfig')).json).toEqual(passed);
    const proto = `{"server_url":"${endpoint}","insecure_skip_tls_verify":false,"ca_data":"","labels":{"__proto__":"x","a":"\\u001b[2Jb"},"x":1}`;
    await loginServer(alice, [cluster({ tunnels: [await answering([200, proto])] })]);
    const { json: described } = await observe('GET /cluster-info');
    expect(described).not.toHaveProperty('x');
    expect(described).not.toHaveProperty('sign_in_store');
    expect(described.labels).toMatchObject({ env: 'prod', a: '[2Jb' });
  });

  test('headers of the joined server do not pass', async () => {
    const headers = {
      'content-type': 'application/json',
      'set-cookie': 'a=b',
      'tka-role': 'anything',
      'tka-logout': 'anything',
      'access-control-allow-origin': '*',
      'retry-after': '99999',
      'x-request-id': 'other',
    };
    await loginServer(alice, [cluster({ tunnels: [await answering([202, JSON.stringify(signIn), headers])] })]);
    for (const call of ['POST /login', 'GET /login', 'GET /kubeconfig']) {
      const answer = await observe(call, { 'x-request-id': 'mine' });
      expect(answer.status, call).toBe(202);
      for (const name of ['set-cookie', 'tka-role', 'tka-logout', 'access-control-allow-origin']) {
        expect(answer.headers, call).not.toHaveProperty(name);
      }
      expect(answer.headers['x-request-id']).toBe('mine');
      expect(answer.headers['retry-after']).toBe(call === 'POST /login' ? undefined : '1');
    }
  });

  test.each([
    [429, '7', '7'],
    [503, '0', '1'],
    [503, '99999', '1'],
    [503, 'soon', '1'],
    [500, '7', undefined],
  ])('HTTP %i with Retry-After %s', async (status, given, expected) => {
    const headers = { 'content-type': 'application/json', 'retry-after': given };
    const answer: Raw = [status, JSON.stringify({ message: 'later' }), headers];
    await loginServer(alice, [cluster({ tunnels: [await answering(answer)] })]);
    const { status: passed, headers: sent, json } = await observe('POST /login');
    expect({ passed, again: sent['retry-after'] }).toEqual({ passed: status, again: expected });
    expect(json.cause).toEqual({ message: 'later' });
  });

  test('a joined server that does not accept the assertion is not mistaken for a caller that is not signed in', async () => {
    await loginServer(alice, [cluster({ tunnels: [await answering(error(401, { message: 'x' }))] })]);
    for (const call of ['POST /login', 'POST /logout', 'GET /cluster-info']) {
      const message = 'cluster "prod-eu" does not accept this login server';
      expect(await observe(call), call).toMatchObject({ status: 502, json: { message } });
    }
    // This server is another cluster, so the assertion is for another audience.
    const { tunnel } = await joinedServer({}, { name: 'prod-us' });
    await loginServer(alice, [cluster({ tunnels: [{ ...tunnel, cluster: 'prod-eu' }] })]);
    for (const call of routes.filter((each) => each !== 'GET /memberlist')) {
      const message = 'cluster "prod-eu" does not accept this login server';
      expect(await observe(call), call).toMatchObject({ status: 502, json: { message } });
    }
  });

  test('a joined server cannot name a grant to add', async () => {
    const refusal = {
      message: 'No grant found for user',
      capability: 'evil.example.com/cap',
      login: 'x',
      tags: ['tag:x'],
    };
    await loginServer(alice, [cluster({ tunnels: [await answering(error(403, refusal))] })]);
    const { json } = await observe('POST /login');
    expect(json).toEqual({ message: 'cluster "prod-eu" refused', cause: { message: 'No grant found for user' } });
  });
});

describe('logs and metrics', () => {
  test('name the cluster and the caller; the metrics do not grow with clusters', async () => {
    const { tunnel } = await joinedServer();
    const { tunnel: us } = await joinedServer({}, { name: 'prod-us' });
    const other = { ...cluster({ tunnels: [us] }), name: 'prod-us' };
    const { answered, decided } = await loginServer(alice, [cluster({ tunnels: [tunnel] }), other]);
    await observe('POST /login', { 'x-request-id': 'req-1' });
    await observe('GET /kubeconfig');
    await observe('POST /logout', {}, '/clusters/prod-us/api/v1alpha1');
    await observe('POST /login', {}, '/clusters/nobody/api/v1alpha1');
    expect(answered.map(({ route, path }) => [route, path])).toEqual([
      ['/clusters/{cluster}/api/v1alpha1/login', `${api}/login`],
      ['/clusters/{cluster}/api/v1alpha1/kubeconfig', `${api}/kubeconfig`],
      ['/clusters/{cluster}/api/v1alpha1/logout', '/clusters/prod-us/api/v1alpha1/logout'],
      ['/clusters/{cluster}/api/v1alpha1/login', '/clusters/nobody/api/v1alpha1/login'],
    ]);
    const lines = decided.flatMap((each) => {
      const event = eventOf(each);
      return event === undefined ? [] : [JSON.parse(lineOf(event, { server: 'tka-login', cluster: 'login-eu' }))];
    });
    const by = { login: 'alice@example.com', node: 'laptop.example.ts.net', cluster: 'login-eu' };
    expect(lines).toMatchObject([
      { ...by, event: 'sign-in', joined_cluster: 'prod-eu', request: 'req-1', role: 'view', until },
      { ...by, event: 'token', joined_cluster: 'prod-eu', account: 'tka-login-alice', until },
      { ...by, event: 'logout', outcome: 'success', joined_cluster: 'prod-us' },
      {
        ...by,
        event: 'refusal',
        asked: 'sign-in',
        joined_cluster: 'nobody',
        reason: expect.stringContaining('"nobody"'),
      },
    ]);
    const metrics = createMetrics({
      version: 'v',
      commit: 'c',
      ready: () => true,
      members: () => undefined,
      certificateUntil: () => undefined,
      cluster: () => undefined,
    });
    for (const each of answered) metrics.request(each);
    const exported = await metrics.server.metrics();
    expect(exported).toContain(
      'tka_server_requests_total{method="POST",route="/clusters/{cluster}/api/v1alpha1/login",status="202"} 1',
    );
    expect(exported).toContain('tka_login_attempts_total{cluster_role="view",outcome="success"} 1');
    expect(exported).not.toMatch(/prod-eu|prod-us|nobody/);
  });

  test('the requests of a login count together, whatever the cluster', async () => {
    const clusters: JoinedCluster[] = [];
    for (const name of ['prod-eu', 'prod-us', 'prod-ap']) {
      const { tunnel } = await joinedServer({}, { name });
      clusters.push({ ...cluster({ tunnels: [tunnel] }), name });
    }
    const limits = new CallerLimits({ perSecond: 0.001, burst: 3, patienceMs: 0, holdMs: 0 });
    await loginServer(alice, clusters, { limits });
    const statuses = [];
    for (const name of ['prod-eu', 'prod-us', 'prod-ap', 'prod-eu']) {
      statuses.push((await observe('GET /login', {}, `/clusters/${name}/api/v1alpha1`)).status);
    }
    expect(statuses.slice(0, 3)).toEqual([200, 200, 200]);
    expect(statuses[3]).toBe(429);
    expect((await ask('GET', '/api/v1alpha1/login')).status).toBe(429);
  });
});
