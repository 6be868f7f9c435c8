// Compares the OpenAPI document with the answers of the built server, in each state that a caller can meet.
import { afterAll, beforeAll, describe, expect, inject } from 'vitest';
import { parse } from 'yaml';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { freePort } from '../fixtures/ports.ts';
import { documented, problemOf } from '../server/documented.ts';
import { ask, TkaServerProcess } from '../server/program.ts';
import { kubeconfigFile } from './api-server.ts';
import { type Hooked, hooked } from './hook.ts';
import { absent, Fixture, test } from './support.ts';

const api = '/api/v1alpha1';

const all = [...documented].flatMap(([key, { content }]) =>
  content === undefined ? [key] : Object.keys(content).map((type) => `${key} ${type}`),
);

const seen = new Set<string>();

/** Sends a request, compares the answer with the document, and returns its status. */
async function observe(
  server: { readonly url: string },
  call: string,
  options: { readonly headers?: Readonly<Record<string, string>>; readonly body?: string } = {},
): Promise<number> {
  const [method = '', path = ''] = call.split(' ');
  const { status = 0, headers, body } = await ask(`${server.url}${path}`, { method, ...options });
  const key = `${method} ${path} ${status}`;
  const expected = documented.get(key);
  if (expected === undefined) throw new Error(`${key} is not documented: ${body}`);
  const names = Object.keys(expected.headers).map((name) => name.toLowerCase());
  expect(Object.keys(headers), key).toEqual(expect.arrayContaining(names));
  expect('retry-after' in headers, `${key}: Retry-After`).toBe(names.includes('retry-after'));
  const type = headers['content-type']?.split(';')[0];
  if (type === undefined) {
    expect(body, key).toBe('');
    seen.add(key);
    return status;
  }
  const value = /json/.test(type) ? JSON.parse(body) : /yaml/.test(type) ? parse(body) : body;
  expect(problemOf(expected.content?.[type]?.schema ?? { not: {} }, value), `${key} ${type}: ${body}`).toBeUndefined();
  seen.add(`${key} ${type}`);
  return status;
}

const calls = [...new Set([...documented.keys()].map((key) => key.replace(/ \d+$/, '')))];
const apiCalls = calls.filter((call) => call.includes(api));

describe.skipIf(absent !== undefined)('the OpenAPI document', () => {
  let fixture: Fixture;
  let proxy: Hooked;
  let tailscaled: Tailscaled;
  let caller: StandInCaller;
  const running: TkaServerProcess[] = [];
  // What happens to the server's calls of the Kubernetes API.
  let away = false;
  let held: Promise<void> | undefined;
  let server: { url: string };
  let bare: { url: string };

  async function start(more: object): Promise<{ url: string }> {
    const port = await freePort('127.0.0.1');
    const { access } = proxy;
    const process = new TkaServerProcess(
      {
        tailscale: { hostname: 'tka', port },
        server: { host: '127.0.0.1' },
        health: { port: await freePort('127.0.0.1') },
        operator: { namespace: fixture.namespace },
        ...more,
      },
      {
        TS_SOCKET: tailscaled.socketPath,
        KUBECONFIG: kubeconfigFile(access, fixture.token),
      },
    );
    running.push(process);
    await process.said(/^listening for the API$/);
    return { url: `http://127.0.0.1:${port}` };
  }

  beforeAll(async () => {
    const [access] = inject('clusters');
    if (access === undefined) throw new Error(absent);
    fixture = await Fixture.make(access);
    proxy = await hooked(access, async ({ method, path, status }) => {
      if (away) throw new Error('away');
      if (method === 'POST' && path.endsWith('/serviceaccounts') && status === undefined) await held;
    });
    tailscaled = await startTailscaled({ whois: () => caller });
    server = await start({
      clusterInfo: { apiEndpoint: access.server },
      gossip: { enabled: true, port: await freePort('127.0.0.1'), key: 'k'.repeat(32), bootstrapPeers: [] },
    });
    bare = await start({ clusterInfo: { configMapRef: { enabled: true, namespace: fixture.namespace } } });
    await running[0]?.said(/listens for gossip/);
    await running[0]?.said(/^started leading$/);
  });

  afterAll(async () => {
    for (const process of running) await process[Symbol.asyncDispose]();
    await tailscaled?.close();
    proxy?.close();
    fixture?.kube.close();
  });

  const granted = (role: string, more: object = {}): StandInCaller => ({
    login: 'alice@example.com',
    capabilities: { 'specht-labs.de/cap/tka': [{ role, period: '1h', priority: 1, ...more }] },
  });

  test('has every answer of the server, and no other', async () => {
    const role = await fixture.role();
    const [yaml, html] = [{ headers: { accept: 'application/yaml' } }, { headers: { accept: 'text/html' } }];

    // A device without an ID cannot even log out.
    caller = { ...granted(role), tags: ['tag:ci'], device: '' };
    for (const call of apiCalls) expect(await observe(server, call), call).toBe(400);
    caller = granted(role);
    for (const call of apiCalls) {
      expect(await observe(server, call, { headers: { 'tailscale-funnel-request': '?1' } }), call).toBe(403);
    }
    caller = { login: 'alice@example.com', capabilities: {} };
    for (const call of apiCalls) expect(await observe(server, call), call).toBe(call.endsWith('/logout') ? 404 : 403);
    caller = granted(role);
    for (const call of apiCalls) {
      expect(await observe(server, call, { headers: { host: 'tka.attacker.example' } }), call).toBe(421);
    }
    for (const call of calls) {
      expect(await observe(server, call, { headers: { 'content-length': '5000' } }), call).toBe(413);
    }
    await tailscaled.stop();
    for (const call of apiCalls) expect(await observe(server, call), call).toBe(503);
    await tailscaled.start();

    caller = granted('no-such-role');
    expect(await observe(server, `POST ${api}/login`)).toBe(422);
    caller = granted(role, { period: '1m' });
    expect(await observe(server, `POST ${api}/login`)).toBe(422);
    caller = granted(role, { period: 'soon' });
    for (const route of ['POST /login', 'GET /login', 'GET /kubeconfig']) {
      expect(await observe(server, route.replace(' ', ` ${api}`)), route).toBe(422);
    }

    caller = granted(role);
    expect(await observe(server, `GET ${api}/login`)).toBe(401);
    expect(await observe(server, `GET ${api}/kubeconfig`)).toBe(401);
    expect(await observe(server, `POST ${api}/logout`)).toBe(404);
    const { promise, resolve } = Promise.withResolvers<void>();
    held = promise;
    expect(await observe(server, `POST ${api}/login`)).toBe(202);
    expect(await observe(server, `GET ${api}/login`)).toBe(202);
    expect(await observe(server, `GET ${api}/kubeconfig`)).toBe(202);
    resolve();
    expect(await observe(server, `POST ${api}/login`)).toBe(202);
    expect(await observe(server, `GET ${api}/login`)).toBe(200);
    expect(await observe(server, `GET ${api}/kubeconfig`)).toBe(200);
    expect(await observe(server, `GET ${api}/kubeconfig`, yaml)).toBe(200);

    caller = { login: 'alice@example.com', capabilities: {} };
    for (const status of [401, 403]) expect(await observe(server, `GET ${api}/kubeconfig`)).toBe(status);
    caller = granted(role);
    expect(await observe(server, `POST ${api}/login`)).toBe(202);

    away = true;
    for (const route of ['POST /login', 'GET /login', 'GET /kubeconfig', 'POST /logout']) {
      expect(await observe(server, route.replace(' ', ` ${api}`)), route).toBe(500);
    }
    away = false;
    expect(await observe(server, `POST ${api}/logout`)).toBe(200);

    expect(await observe(server, `GET ${api}/cluster-info`)).toBe(200);
    expect(await observe(bare, `GET ${api}/cluster-info`)).toBe(500);
    expect(await observe(server, `GET ${api}/memberlist`)).toBe(200);
    expect(await observe(server, `GET ${api}/memberlist`, html)).toBe(200);
    expect(await observe(bare, `GET ${api}/memberlist`)).toBe(404);
    expect(await observe(server, 'GET /swagger')).toBe(200);
    expect(await observe(server, 'GET /swagger', html)).toBe(200);
    const known = { headers: { ...html.headers, 'if-none-match': '*' } };
    for (const path of [`${api}/memberlist`, '/swagger']) expect(await observe(server, `GET ${path}`, known)).toBe(304);
    expect(await observe(server, 'GET /')).toBe(404);
    expect(await observe(server, 'GET /', html)).toBe(302);

    // More than the server accepts from one caller; on a slow machine the first requests are too slow.
    for (const call of calls) {
      const many = () => Promise.all(Array.from({ length: 120 }, () => observe(server, call)));
      while (!(await many()).includes(429));
    }

    expect([...seen].sort()).toEqual(all.sort());
  });
});
