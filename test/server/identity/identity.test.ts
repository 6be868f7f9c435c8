import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, test } from 'vitest';
import {
  type StandInCaller,
  startTailscaled,
  type Tailscaled,
  type TailscaledOptions,
} from '../../../src/sandbox/tailscaled.ts';
import type { Caller, Refusal, SignIns } from '../../../src/server/http/contract.ts';
import { createHandler } from '../../../src/server/http/handler.ts';
import { close, createTkaServer, listen } from '../../../src/server/http/listen.ts';
import type { DeviceRules } from '../../../src/server/identity/devices.ts';
import { isOfOwnDomain } from '../../../src/server/identity/login.ts';
import { guardOrigin } from '../../../src/server/identity/origin.ts';
import { grantOf } from '../../../src/server/identity/rules.ts';
import { tailnetIdentity } from '../../../src/server/identity/tailnet.ts';
import type { Log } from '../../../src/server/log/log.ts';
import { tailnetFacts } from '../../../src/server/tailnet/status.ts';
import { addressPort } from '../../../src/tailscale/localapi.ts';
import { cpuTime } from '../../fixtures/cpu.ts';

const sampleBody = (name: string): object =>
  JSON.parse(readFileSync(new URL(`../../samples/${name}.http`, import.meta.url), 'utf8').split('\n\n')[1] ?? '');

const capName = 'specht-labs.de/cap/tka';
const rule = { role: 'cluster-admin', period: '8h', priority: 100 };
const alice: StandInCaller = { login: 'alice@example.com', capabilities: { [capName]: [rule] } };

const bob: StandInCaller = { ...alice, login: 'bob@example.com' };

let daemon: Tailscaled | undefined;
let server: Server | undefined;
let port = 0;
const logged: string[] = [];
const seen: Caller[] = [];
const asked: [address: string, port: number][] = [];
afterEach(async () => {
  if (server !== undefined) await close(server);
  await daemon?.close();
  for (const list of [logged, seen, asked]) list.length = 0;
});

/** A TKA server on loopback whose tailscaled knows this caller. */
async function serve(
  caller: StandInCaller | undefined,
  timeoutMs?: number,
  { devices, ...tailnet }: TailscaledOptions & { devices?: DeviceRules } = {},
): Promise<Tailscaled> {
  const tailscaled = await startTailscaled({
    ...tailnet,
    whois(...from) {
      asked.push(from);
      return caller;
    },
  });
  daemon = tailscaled;
  const note = (fields: Readonly<Record<string, unknown>>, message: string) =>
    logged.push(`${message}: ${(fields.err as Error | undefined)?.message}`);
  const log: Log = { debug: () => {}, info: note, warn: note, error: note };
  const answer = { username: 'x', role: 'x', until: '2026-11-21T00:00:00Z' };
  const signIns: SignIns = {
    async signIn(caller) {
      seen.push(caller);
      return answer;
    },
    async get(caller) {
      seen.push(caller);
      return { answer, provisioned: true };
    },
    async kubeconfig(caller) {
      seen.push(caller);
      return 'pending';
    },
    async signOut(caller) {
      seen.push(caller);
      return { answer, complete: true };
    },
  };
  const env = { TS_SOCKET: tailscaled.socketPath };
  const identity = tailnetIdentity({
    capName,
    tailnet: tailnetFacts(env, log, undefined),
    env,
    log,
    ...(devices && { devices }),
    ...(timeoutMs !== undefined && { timeoutMs }),
  });
  const clusterInfo = { server_url: 'https://x', insecure_skip_tls_verify: false, ca_data: '', labels: {} };
  server = createTkaServer(createHandler({ identity, signIns, clusterInfo: () => clusterInfo }));
  port = await listen(server, '127.0.0.1', 0);
  return tailscaled;
}

async function ask(headers: Record<string, string> = {}, method = 'POST', path = '/login') {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const to = { host: '127.0.0.1', port, method, path: `/api/v1alpha1${path}`, headers, agent: false as const };
    const sent = httpRequest(to, resolve).on('error', reject);
    sent.end();
  });
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

test('identifies the caller by the connection’s own address and port', async () => {
  await serve(alice);
  expect((await ask()).status).toBe(202);
  expect(seen).toEqual([
    {
      username: 'alice',
      login: 'alice@example.com',
      ownDomain: true,
      device: 'n7CNTRL',
      role: 'cluster-admin',
      periodMs: 28_800_000,
    },
  ]);
  expect(asked).toEqual([['127.0.0.1', expect.any(Number)]]);
  expect(asked[0]?.[1]).not.toBe(port);
});

test.each<[name: string, node: object | null]>([
  ['no device', null],
  ['no ID', { Name: 'laptop' }],
  ['an invalid ID', { StableID: 'a b"\n' }],
  ['an ID that is too long', { StableID: 'n'.repeat(65) }],
])('has no device if tailscaled returns %s', async (_, node) => {
  await serve({ ...alice, fields: { Node: node } });
  expect((await ask()).status).toBe(202);
  expect(seen[0]).not.toHaveProperty('device');
});

test('a grant applies at once, and so does its end', async () => {
  const tailscaled = await serve(alice);
  expect((await ask()).status).toBe(202);
  tailscaled.whois = () => ({ ...alice, capabilities: {} });
  expect((await ask()).status).toBe(403);
  tailscaled.whois = () => alice;
  expect((await ask()).status).toBe(202);
});

test('a caller that hangs up during the whois request is not mistaken for the next user of its port', async () => {
  const tailscaled = await serve(alice);
  const connected = new Promise<Socket>((resolve) => server?.once('connection', resolve));
  const over = new Promise<void>((resolve) =>
    server?.once('request', (_, response) => response.once('close', resolve)),
  );
  tailscaled.whois = () => {
    connected.then((socket) => socket.destroy());
    return alice;
  };
  await expect(ask()).rejects.toThrow();
  await over;
  await tailscaled.seen(1, 'whois');
  tailscaled.whois = () => bob;
  expect((await ask()).status).toBe(202);
  expect(seen.map(({ username }) => username)).toEqual(['bob']);
});

test('ignores what a caller states about itself', async () => {
  await serve(alice);
  const { status } = await ask({
    'Tailscale-User-Login': 'root@example.com',
    'Tailscale-User-Name': 'root',
    'Tailscale-App-Capabilities': JSON.stringify({ [capName]: [{ role: 'root', period: '9h', priority: 999 }] }),
    'X-Forwarded-For': '100.64.0.99',
    Forwarded: 'for=100.64.0.99',
  });
  expect(status).toBe(202);
  expect(seen).toEqual([expect.objectContaining({ username: 'alice', role: 'cluster-admin' })]);
  expect(asked[0]?.[0]).toBe('127.0.0.1');
});

const granted = (...rules: readonly unknown[]): StandInCaller => ({ ...alice, capabilities: { [capName]: rules } });
const tie = (first: string, second: string) =>
  `two rules of the capability "${capName}" grant alice@example.com different access with priority 100: ${first} and ${second}`;
const syntax = `invalid rule of the capability "${capName}" for alice@example.com in the tailnet policy`;

describe('grants', () => {
  test.each<[name: string, rules: readonly unknown[], caller: Partial<Caller>]>([
    [
      'the highest priority',
      [rule, { ...rule, role: 'view', priority: 200 }, { ...rule, priority: 1 }],
      { role: 'view' },
    ],
    [
      'no priority is 0',
      [
        { role: 'view', period: '1h' },
        { ...rule, priority: -1 },
      ],
      { role: 'view', periodMs: 3_600_000 },
    ],
    [
      'two of a lower priority, neither of which wins',
      [{ ...rule, role: 'edit', priority: 200 }, rule, { ...rule, role: 'view' }],
      { role: 'edit' },
    ],
    ['the same access twice, as by two groups', [rule, { ...rule, note: 'x' }], { role: 'cluster-admin' }],
    ['unknown fields are ignored', [{ ...rule, note: 'x' }], { role: 'cluster-admin' }],
  ])('%s', async (_, rules, caller) => {
    await serve(granted(...rules));
    expect((await ask()).status).toBe(202);
    expect(seen).toEqual([expect.objectContaining(caller)]);
  });

  test.each<[name: string, caller: StandInCaller | undefined, status: number, message: string]>([
    [
      'two roles of the highest priority',
      granted({ ...rule, priority: 1 }, rule, { ...rule, role: 'view' }),
      400,
      tie('role "cluster-admin" for "8h"', 'role "view" for "8h"'),
    ],
    [
      'two periods of the highest priority',
      granted(rule, rule, { ...rule, period: '1h' }),
      400,
      tie('role "cluster-admin" for "8h"', 'role "cluster-admin" for "1h"'),
    ],
    ['a rule that is not an object', granted('cluster-admin'), 400, syntax],
    ['a rule that is null', granted(null), 400, syntax],
    ['no role', granted({ period: '8h', priority: 1 }), 400, syntax],
    ['a role that is not text', granted({ ...rule, role: ['cluster-admin'] }), 400, syntax],
    ['a priority that is not a number', granted({ ...rule, priority: '100' }), 400, syntax],
    ['a period that is not text', granted({ ...rule, period: 8 }), 400, syntax],
    [
      'a login in the form of a device',
      { ...alice, login: 'node:n7CNTRL' },
      400,
      'tailscaled does not know the login of your device',
    ],
    [
      'a tagged device without an ID',
      { ...alice, tags: ['tag:ci'], device: '' },
      400,
      'tailscaled does not know the ID of your device',
    ],
    ['a device without a user', { ...alice, login: '' }, 400, 'tailscaled does not know the login of your device'],
    [
      'a device without a profile',
      { ...alice, fields: { UserProfile: null } },
      400,
      'tailscaled does not know the login of your device',
    ],
    ['an unknown address', undefined, 403, 'your connection does not come from a device of the tailnet'],
  ])('%s', async (_, caller, status, message) => {
    await serve(caller);
    const answer = await ask();
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.body)).toMatchObject({ message });
    expect(seen).toEqual([]);
    for (const path of ['/cluster-info', '/login', '/kubeconfig'])
      expect((await ask({}, 'GET', path)).status).toBe(status);
  });

  test.each<[name: string, caller: StandInCaller]>([
    ['none', granted()],
    ['no capabilities at all', { login: alice.login }],
    ['another capability', { ...alice, capabilities: { other: [rule] } }],
  ])('%s: ends the access of the caller, and names the login and the missing capability', async (_, caller) => {
    await serve(caller);
    const body = { ...sampleBody('login-no-grant'), capability: capName, login: 'alice@example.com' };
    const refused = { status: 403, body: JSON.stringify(body) };
    expect(await ask()).toMatchObject(refused);
    expect(seen.splice(0)).toEqual([expect.objectContaining({ revoked: true })]);
    expect(await ask({}, 'GET', '/cluster-info')).toMatchObject(refused);
    expect(await ask({}, 'GET', '/memberlist')).toMatchObject(refused);
    expect(seen.splice(0)).toEqual(Array(2).fill(expect.objectContaining({ revoked: true })));
    // The sign-ins decide, knowing that nothing is granted any more.
    for (const [method, path] of [
      ['GET', '/login'],
      ['GET', '/kubeconfig'],
      ['POST', '/logout'],
    ] as const) {
      await ask({}, method, path);
      expect(seen.pop()).toMatchObject({ login: alice.login, device: 'n7CNTRL', role: '', revoked: true });
    }
  });

  test('a policy that cannot be read gives no token and revokes nothing; logout works', async () => {
    await serve(granted({ ...rule, priority: 'high' }));
    for (const path of ['/login', '/kubeconfig']) expect((await ask({}, 'GET', path)).status).toBe(400);
    expect(seen).toEqual([]);
    expect((await ask({}, 'POST', '/logout')).status).toBe(200);
    expect(seen).toEqual([expect.not.objectContaining({ revoked: true })]);
  });

  const invalid = (message: string) => ({ message: 'Error parsing duration', cause: { message } });
  test.each<[period: string, body: object]>([
    ['abc', sampleBody('login-period-invalid')],
    ['10', invalid('time: missing unit in duration "10"')],
    ['1d', invalid('time: unknown unit "d" in duration "1d"')],
    ['', invalid('time: invalid duration ""')],
    ['9999999h', invalid('time: invalid duration "9999999h"')],
  ])('a period of %j refuses sign-ins and tokens with advice, and allows a logout', async (period, body) => {
    await serve(granted({ ...rule, period }));
    const advice = [expect.stringMatching(/correct the period .* for alice@example\.com: https:\S+\/policy\.md$/)];
    const answers = [await ask(), await ask({}, 'GET', '/login'), await ask({}, 'GET', '/kubeconfig')];
    for (const answer of answers) {
      expect(answer.status).toBe(422);
      expect(JSON.parse(answer.body)).toEqual({ ...body, advice });
    }
    expect(seen).toEqual([]);
    expect((await ask({}, 'POST', '/logout')).status).toBe(200);
  });
});

describe('a tagged device', () => {
  const ci: StandInCaller = { ...alice, dnsName: 'ci-7.example.ts.net', tags: ['tag:ci'] };
  const devices: DeviceRules = { allowed: ['tag:ci', 'tag:k8s'], serverTag: 'tag:tka' };
  const hour = 3_600_000;

  test.each<[name: string, caller: StandInCaller, expected: Partial<Caller>]>([
    ['for at most an hour', ci, { role: 'cluster-admin', periodMs: hour }],
    [
      'for less if its grant is for less',
      { ...ci, capabilities: { [capName]: [{ ...rule, period: '20m' }] } },
      { periodMs: hour / 3 },
    ],
    ['with one listed tag of several', { ...ci, tags: ['tag:arm', 'tag:ci'] }, { role: 'cluster-admin' }],
  ])('signs in by its ID, %s', async (_, caller, expected) => {
    await serve(caller, undefined, { devices });
    expect((await ask()).status).toBe(202);
    const tagged = { node: 'ci-7.example.ts.net', tags: caller.tags };
    const known = { username: 'n7CNTRL', login: 'node:n7CNTRL', device: 'n7CNTRL', tagged };
    expect(seen).toEqual([expect.objectContaining({ ...known, ...expected })]);
    expect(seen[0]).not.toHaveProperty('ownDomain');
  });

  const notListed = 'tagged devices cannot sign in here, unless identity.allowTagged lists one of their tags';
  test.each<[name: string, caller: StandInCaller, options: Parameters<typeof serve>[2], message: string]>([
    ['by default', ci, {}, `${notListed} (tag:ci)`],
    ['with another tag', { ...ci, tags: ['tag:web', 'tag:CI'] }, { devices }, `${notListed} (tag:web, tag:CI)`],
    [
      'with the tag of the servers too',
      { ...ci, tags: ['tag:ci', 'tag:tka'] },
      { devices: { ...devices, allowed: ['tag:ci', 'tag:tka'] } },
      'a device with a tag of the TKA servers (tag:tka) cannot sign in',
    ],
    [
      'with another tag of this server',
      { ...ci, tags: ['tag:ci', 'tag:k8s'] },
      { devices, self: { hostName: 'tka', addresses: ['100.64.0.1'], tags: ['tag:k8s'] } },
      'a device with a tag of the TKA servers (tag:k8s) cannot sign in',
    ],
    [
      'of another tailnet',
      { ...ci, dnsName: 'ci-7.other.ts.net' },
      { devices },
      'tagged devices of other tailnets cannot sign in',
    ],
    [
      'of a domain that ends like the tailnet',
      { ...ci, dnsName: 'ci-7.evil-example.ts.net' },
      { devices },
      'tagged devices of other tailnets cannot sign in',
    ],
    ['without a name', { ...ci, dnsName: '' }, { devices }, 'tagged devices of other tailnets cannot sign in'],
    ['of an unknown tailnet', ci, { devices, suffix: '' }, 'tagged devices of other tailnets cannot sign in'],
  ])('%s is refused, and its access ends', async (_, caller, options, message) => {
    await serve(caller, undefined, options);
    for (const [method, path] of [
      ['POST', '/login'],
      ['GET', '/cluster-info'],
    ] as const) {
      const answer = await ask({}, method, path);
      expect(answer.status).toBe(400);
      expect(JSON.parse(answer.body)).toMatchObject({ message });
      expect(seen.splice(0)).toEqual([
        expect.objectContaining({ login: 'node:n7CNTRL', device: 'n7CNTRL', role: '', revoked: true }),
      ]);
    }
  });

  test('without a grant gets the capability and the tags that count', async () => {
    await serve({ ...ci, tags: ['tag:arm', 'tag:ci'], capabilities: {} }, undefined, { devices });
    const answer = await ask();
    expect(answer.status).toBe(403);
    expect(JSON.parse(answer.body)).toEqual({
      message: 'No grant found for user',
      capability: capName,
      tags: ['tag:ci'],
    });
    expect(seen).toEqual([expect.objectContaining({ login: 'node:n7CNTRL', role: '', revoked: true })]);
  });
});

test('a period of 200,000 digits is checked quickly', async () => {
  const period = `${'1'.repeat(200_000)}x`;
  const judge = (): number | undefined =>
    grantOf([{ role: 'view', period }], { name: 'alice@example.com', tags: [] }, capName).problem?.status;
  expect(judge()).toBe(422);
  expect(await cpuTime(judge, 100)).toBeLessThan(100);
});

describe('a connection from tailscaled’s proxy', () => {
  test.each<[name: string, remoteAddress: string, localAddress: string, headers: object, status: number]>([
    ['to this machine’s own address', '100.64.0.1', '100.64.0.1', { 'x-forwarded-for': '100.64.0.9' }, 403],
    ['from an unknown source: a program of this machine', '100.64.0.1', '100.64.0.1', {}, 200],
    ['from a proxy of another machine', '100.64.0.9', '100.64.0.1', { 'x-forwarded-for': '10.0.0.1' }, 200],
    ['on loopback, where whois knows the port', '127.0.0.1', '127.0.0.1', { 'x-forwarded-for': '10.0.0.1' }, 200],
  ])('%s', async (_, remoteAddress, localAddress, headers, status) => {
    await using tailscaled = await startTailscaled({ whois: () => alice });
    const log: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const identity = tailnetIdentity({ capName, env: { TS_SOCKET: tailscaled.socketPath }, log });
    const request = { headers, socket: { remoteAddress, localAddress, remotePort: 5 } } as unknown as IncomingMessage;
    const answer = await Promise.resolve(identity.whoIs(request)).then(
      () => 200,
      (error: Refusal) => error.status,
    );
    expect(answer).toBe(status);
  });

  test('Funnel', async () => {
    await serve(alice);
    const answer = await ask({ 'Tailscale-Funnel-Request': '?1' });
    expect(answer).toMatchObject({ status: 403, body: '{"message":"Unauthorized request from Funnel"}' });
    expect(asked).toEqual([]);
  });
});

describe('the Host and Origin of a request', () => {
  const names = { names: ['tka.example.com', undefined], domains: ['Example.ORG.', ''], secure: false };
  const call = (headers: Record<string, string>, method = 'GET', secure = false) => {
    const identity = guardOrigin({ whoIs: () => ({ ...caller }) }, { ...names, secure });
    try {
      return identity.whoIs({ method, headers } as unknown as IncomingMessage) && 200;
    } catch (error) {
      return (error as Refusal).status;
    }
  };
  const caller: Caller = { username: 'alice', login: 'alice@example.com', role: 'view', periodMs: 1 };

  test.each<[host: string, status: number]>([
    ['127.0.0.1:8123', 200],
    ['100.64.0.1', 200],
    ['[fd7a:115c:a1e0::1]:8123', 200],
    ['tka', 200],
    ['tka:8123', 200],
    ['TKA.Example.Com', 200],
    ['tka.example.com.:8123', 200],
    ['tka.tail1234.ts.net', 200],
    ['tka.example.org', 200],
    ['evil.example.com', 421],
    ['ts.net.evil.com', 421],
    ['evilts.net', 421],
    ['127.0.0.1.nip.io', 421],
    ['tka@evil.com', 421],
    ['a b', 421],
  ])('Host: %s is %i', (host, status) => {
    expect(call({ host })).toBe(status);
  });

  test('over TLS the certificate decides', () => {
    expect(call({ host: 'tka.company.example' }, 'GET', true)).toBe(200);
  });

  test.each<[origin: string, host: string, method: string, status: number]>([
    ['http://evil.com', 'tka', 'POST', 403],
    ['null', 'tka', 'POST', 403],
    ['http://tka:8123', 'tka', 'POST', 403],
    ['http://tka:8123', 'tka:8123', 'POST', 200],
    ['https://tka.example.com', 'tka.example.com:443', 'POST', 200],
    ['http://evil.com', 'tka', 'GET', 200],
  ])('Origin: %s to %s by %s is %i', (origin, host, method, status) => {
    expect(call({ host, origin }, method)).toBe(status);
  });
});

describe('a tailscaled that fails', () => {
  test.each<[name: string, breakIt: (tailscaled: Tailscaled) => unknown, logs: RegExp]>([
    ['is down', (tailscaled) => tailscaled.stop(), /no tailscaled at/],
    ['does not answer', (tailscaled) => Object.assign(tailscaled.fault, { silent: true }), /does not answer/],
    [
      'refuses',
      (tailscaled) => Object.assign(tailscaled.fault, { answer: { status: 403, body: 'whois access denied' } }),
      /refuses to answer: whois access denied/,
    ],
    [
      'returns nonsense',
      (tailscaled) => Object.assign(tailscaled.fault, { notJson: true }),
      /cannot be read \(not JSON\)/,
    ],
    [
      'reports an error',
      (tailscaled) => Object.assign(tailscaled.fault, { answer: { status: 500, body: 'x' } }),
      /cannot be read \(HTTP 500\)/,
    ],
    ['answers endlessly', (tailscaled) => Object.assign(tailscaled.fault, { oversizeMiB: 2 }), /more than 1 MiB/],
  ])('%s', async (name, breakIt, logs) => {
    // An answer must not be late on a busy machine.
    const tailscaled = await serve(alice, name === 'does not answer' ? 300 : 60_000);
    await breakIt(tailscaled);
    const answer = await ask();
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(JSON.parse(answer.body).message).toBe('the TKA server cannot identify you: its tailscaled does not answer');
    expect(answer.body).not.toContain(tailscaled.socketPath);
    expect(logged).toEqual([expect.stringMatching(logs)]);
    expect(seen).toEqual([]);
  });
});

test.each([
  ['127.0.0.1', '127.0.0.1:5'],
  ['::ffff:127.0.0.1', '127.0.0.1:5'],
  ['fd7a:115c:a1e0::1', '[fd7a:115c:a1e0::1]:5'],
])('%s is requested as %s', (address, spelled) => {
  expect(addressPort(address, 5)).toBe(spelled);
});

describe('the tailnet’s own domain', () => {
  test.each<[login: string, tailnet: string, own: boolean]>([
    ['alice@example.com', 'example.com', true],
    ['alice@example.com', '', false],
    ['alice@gmail.com', 'example.com', false],
    ['alice@sub.example.com', 'example.com', false],
    ['alice@example.com.evil.net', 'example.com', false],
    ['alice@evil@example.com', 'example.com', false],
    ['@example.com', 'example.com', false],
    ['alice', 'example.com', false],
    ['alice@', '', false],
    ['alice@com', 'com', false],
    ['alice@gmail.com', 'alice@gmail.com', true],
    ['bob@gmail.com', 'alice@gmail.com', false],
    ['gmail.com', 'alice@gmail.com', false],
    ['alice@passkey', 'alice@passkey', true],
    ['mallory@passkey', 'alice@passkey', false],
    ['alice@github', 'acme.org.github', true],
    ['alice@gmail.com', 'acme.org.github', false],
    ['alice@acme.org.github', 'acme.org.github', false],
    ['alice@github', 'alice.github', true],
    ['bob@github', 'alice.github', false],
    ['alice@github', 'alice@github', true],
  ])('%s in %j: %s', (login, tailnet, own) => {
    expect(isOfOwnDomain(login, tailnet)).toBe(own);
  });

  test('comes from tailscaled, and is cached while that is unavailable', async () => {
    await using tailscaled = await startTailscaled({ tailnet: 'Example.ORG' });
    const log: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const facts = tailnetFacts({ TS_SOCKET: tailscaled.socketPath }, log, undefined);
    const name = async () => (await facts()).name;
    await tailscaled.stop();
    await expect(name()).rejects.toThrow(/no tailscaled at/);
    await tailscaled.start();
    expect(await Promise.all([name(), name()])).toEqual(['example.org', 'example.org']);
    await tailscaled.stop();
    expect(await name()).toBe('example.org');
    expect(tailscaled.counts.status).toBe(1);
  });
});
