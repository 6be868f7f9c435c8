// The audit log of a server on loopback: one line for each event that concerns access.
import { once } from 'node:events';
import * as fs from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, onTestFinished, test } from 'vitest';
import { type StandInCaller, startTailscaled } from '../../../src/sandbox/tailscaled.ts';
import { loadConfig } from '../../../src/server/config/config.ts';
import { type Decided, Refusal, type SignIns } from '../../../src/server/http/contract.ts';
import { CallerLimits } from '../../../src/server/http/limits.ts';
import { tailnetIdentity } from '../../../src/server/identity/tailnet.ts';
import type { Log } from '../../../src/server/log/log.ts';
import { eventOf, lineOf, openAudit } from '../../../src/server/telemetry/audit.ts';
import { testFolder } from '../../fixtures/temporary.ts';
import { alice, api, ask, login, serve, signedIn, signedOut } from '../support.ts';

const capName = 'specht-labs.de/cap/tka';
const granted: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { [capName]: [{ role: 'viewer', period: '1h' }] },
};
const quiet: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
type Line = Readonly<Record<string, unknown>>;

const part = (claims: object): string => Buffer.from(JSON.stringify(claims)).toString('base64url');
const expiry = Math.floor(Date.now() / 1000) + 1800;
const token = `${part({ alg: 'RS256' })}.${part({ exp: expiry, sub: 'system:serviceaccount:tka:tka-user-alice' })}.c2ln`;
const withToken: SignIns = {
  ...signedIn,
  signIn: async () => ({ ...login, account: 'tka-user-alice' }),
  kubeconfig: async () => ({
    kind: 'Config',
    apiVersion: 'v1',
    clusters: { c: { server: 'https://api.example.com' } },
    users: { u: { token } },
    contexts: { c: { cluster: 'c', user: 'u' } },
    'current-context': 'c',
  }),
  signOut: async () => ({ answer: login, complete: true, accounts: ['tka-user-alice', 'tka-login-alice-0f3a'] }),
};

/** Starts a server that keeps an audit log in a file, and asks a tailscaled that knows this caller. */
async function audited(
  caller: StandInCaller | undefined,
  { signIns = withToken, limits }: { signIns?: SignIns; limits?: CallerLimits } = {},
) {
  const tailscaled = await startTailscaled({ whois: () => caller });
  onTestFinished(() => tailscaled.close());
  const file = path.join(testFolder(), 'audit.log');
  const env = { TKA_AUDIT_FILE: file, TKA_CLUSTERINFO_APIENDPOINT: 'https://api.example.com' };
  const audit = openAudit(await loadConfig(undefined, env), quiet);
  const identity = tailnetIdentity({ capName, env: { TS_SOCKET: tailscaled.socketPath }, log: quiet });
  const onDecided = (decided: Decided) => audit.decided(decided);
  const port = await serve({ identity, signIns, onDecided, ...(limits && { limits }) });
  const read = (): string => fs.readFileSync(file, 'utf8');
  const lines = (): Line[] =>
    read()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
  return { audit, file, port, read, lines };
}

const common = {
  log: 'audit',
  time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
  server: 'tka',
  cluster: 'tka',
  request: 'req-1',
  node: 'laptop.example.ts.net',
  address: '100.64.0.7',
};
const asAlice = { ...common, login: 'alice@example.com', role: 'viewer' };
const id = { 'x-request-id': 'req-1' };

test.each<[what: string, method: string, route: string, line: object]>([
  [
    'a sign-in',
    'POST',
    '/login',
    { ...asAlice, event: 'sign-in', outcome: 'success', until: login.until, account: 'tka-user-alice' },
  ],
  [
    'a token',
    'GET',
    '/kubeconfig',
    {
      ...asAlice,
      event: 'token',
      outcome: 'success',
      until: new Date(expiry * 1000).toISOString().replace('.000Z', 'Z'),
      account: 'tka-user-alice',
    },
  ],
  [
    'a logout',
    'POST',
    '/logout',
    {
      ...asAlice,
      event: 'logout',
      outcome: 'success',
      until: login.until,
      account: 'tka-user-alice,tka-login-alice-0f3a',
    },
  ],
])('%s is one line, without the token', async (_, method, route, line) => {
  const { lines, read } = await audited(granted);
  const { headers } = await ask(method, `${api}${route}`, id);
  expect(lines()).toEqual([line]);
  expect(headers['x-request-id']).toBe('req-1');
  expect(read()).not.toContain('eyJ');
});

test('the file is accessible to this user only', async () => {
  const { file } = await audited(granted);
  if (process.platform !== 'win32') expect(fs.statSync(file).mode & 0o777).toBe(0o600);
});

test('requests that give no access are not logged', async () => {
  const { lines } = await audited(granted, { signIns: { ...signedIn, kubeconfig: async () => 'pending' } });
  await ask('GET', `${api}/login`);
  await ask('GET', `${api}/kubeconfig`);
  await ask('GET', `${api}/cluster-info`);
  await ask('GET', '/swagger');
  await ask('GET', '/nothing');
  await ask('DELETE', `${api}/login`);
  expect(lines()).toEqual([]);
});

const refused = { ...common, event: 'refusal', outcome: 'refused' };
test.each<[what: string, caller: StandInCaller | undefined, line: object, signIns?: SignIns]>([
  [
    'the policy grants nothing',
    { login: 'alice@example.com', capabilities: {} },
    { ...refused, login: 'alice@example.com', reason: 'No grant found for user' },
    { ...signedOut, get: async () => undefined },
  ],
  [
    'the policy grants another capability only',
    { login: 'alice@example.com', capabilities: { 'specht-labs.de/cap/other': [{ role: 'admin', period: '1h' }] } },
    { ...refused, login: 'alice@example.com', reason: 'No grant found for user' },
    { ...signedOut, get: async () => undefined },
  ],
  [
    'the policy cannot be read',
    { login: 'alice@example.com', capabilities: { [capName]: [{ role: 'viewer', period: 'soon' }] } },
    {
      ...refused,
      login: 'alice@example.com',
      role: 'viewer',
      reason: expect.stringMatching(/^Error parsing duration: time: invalid duration/),
    },
  ],
  [
    'the device is tagged',
    { login: 'x', tags: ['tag:ci'], dnsName: 'runner.example.ts.net' },
    {
      ...refused,
      login: 'node:n7CNTRL',
      node: 'runner.example.ts.net',
      tags: ['tag:ci'],
      reason: 'tagged devices of other tailnets cannot sign in',
    },
  ],
  [
    'the caller is not on the tailnet',
    undefined,
    {
      ...refused,
      node: undefined,
      address: '127.0.0.1',
      reason: 'your connection does not come from a device of the tailnet',
    },
  ],
  [
    'the role does not exist',
    granted,
    { ...refused, login: 'alice@example.com', role: 'viewer', reason: 'the role "viewer" does not exist: not found' },
    {
      ...signedIn,
      async signIn() {
        throw new Refusal(422, { message: 'the role "viewer" does not exist', cause: { message: 'not found' } });
      },
    },
  ],
])('a refused sign-in is one line: %s', async (_, caller, line, signIns) => {
  const { lines } = await audited(caller, signIns === undefined ? {} : { signIns });
  expect((await ask('POST', `${api}/login`, id)).status).toBeGreaterThanOrEqual(400);
  const expected = Object.fromEntries(
    Object.entries({ ...line, asked: 'sign-in' }).filter(([, value]) => value !== undefined),
  );
  expect(lines()).toEqual([expected]);
});

test.each([
  ['GET', '/kubeconfig', 'token', 'User not signed in'],
  ['POST', '/logout', 'logout', 'User not signed in'],
  ['GET', '/login', 'status', 'User not signed in'],
])('%s %s after the sign-in has expired is one refusal', async (method, route, asked, reason) => {
  const { lines } = await audited(granted, { signIns: signedOut });
  await ask(method, `${api}${route}`);
  expect(lines()).toEqual([
    expect.objectContaining({
      event: 'refusal',
      asked,
      login: 'alice@example.com',
      reason: expect.stringContaining(reason),
    }),
  ]);
});

test.each([
  ['/cluster-info', 'cluster-info'],
  ['/memberlist', 'memberlist'],
])('GET %s by a caller without a grant is one refusal', async (route, asked) => {
  const { lines } = await audited({ login: 'bob@example.com', capabilities: {} }, { signIns: signedOut });
  await ask('GET', `${api}${route}`);
  expect(lines()).toEqual([expect.objectContaining({ event: 'refusal', asked, login: 'bob@example.com' })]);
});

test('each request over a limit is one refusal, with the login and the device', async () => {
  const limits = new CallerLimits({ perSecond: 0.01, burst: 1, patienceMs: 0, holdMs: 0 });
  const { lines, port } = await audited(granted, { limits });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  for (let i = 0; i < 3; i++) {
    const request = httpRequest({ host: '127.0.0.1', port, method: 'POST', path: `${api}/login`, agent }).end();
    const [response] = await once(request, 'response');
    await text(response);
  }
  agent.destroy();
  const who = { login: 'alice@example.com', node: 'laptop.example.ts.net', address: '100.64.0.7' };
  expect(lines()).toEqual([
    expect.objectContaining({ ...who, event: 'sign-in', outcome: 'success' }),
    expect.objectContaining({ ...who, event: 'refusal', asked: 'sign-in', reason: 'too many requests' }),
    expect.objectContaining({ ...who, event: 'refusal', asked: 'sign-in', reason: 'too many requests' }),
  ]);
});

test('a sign-in that fails is one line with its outcome', async () => {
  const signIns: SignIns = {
    ...signedIn,
    async signIn() {
      throw new Refusal(500, { message: 'Error signing in user', cause: { message: 'connect ECONNREFUSED' } });
    },
  };
  const { lines } = await audited(granted, { signIns });
  await ask('POST', `${api}/login`);
  expect(lines()).toEqual([
    expect.objectContaining({
      event: 'sign-in',
      outcome: 'failed',
      reason: 'Error signing in user: connect ECONNREFUSED',
    }),
  ]);
});

test('a sign-in whose caller hangs up before the answer is logged too', async () => {
  const { promise: asked, resolve: isAsked } = Promise.withResolvers<void>();
  const { promise: done, resolve: goOn } = Promise.withResolvers<void>();
  const signIns: SignIns = {
    ...signedIn,
    async signIn() {
      isAsked();
      await done;
      return { ...login, account: 'tka-user-alice' };
    },
  };
  const { audit, port, lines } = await audited(granted, { signIns });
  const { promise: decided, resolve: isDecided } = Promise.withResolvers<void>();
  const old = audit.decided;
  Object.assign(audit, {
    decided(one: Decided) {
      old(one);
      isDecided();
    },
  });
  const socket = connect(port, '127.0.0.1');
  socket.write(`POST ${api}/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
  await asked;
  socket.destroy();
  await once(socket, 'close');
  goOn();
  await decided;
  expect(lines()).toEqual([
    expect.objectContaining({ event: 'sign-in', outcome: 'success', account: 'tka-user-alice' }),
  ]);
});

test('access that ends by itself is one line; for the Go server’s sign-ins the login is the username', async () => {
  const { audit, lines } = await audited(granted);
  const ended = {
    username: 'alice',
    role: 'viewer',
    until: '2026-11-21T08:00:00Z',
    account: 'tka-user-alice',
    tagged: undefined,
    through: undefined,
  };
  audit.ended({ ...ended, event: 'expiry', reason: 'the sign-in has expired', login: 'alice@example.com' });
  audit.ended({ ...ended, event: 'revocation', reason: 'the policy grants nothing', login: undefined });
  const tagged = { node: 'ci-7.example.ts.net', tags: ['tag:ci'] };
  audit.ended({ ...ended, tagged, event: 'expiry', reason: 'the sign-in has expired', login: 'node:n7CNTRL' });
  const through = 'login-eu';
  audit.ended({ ...ended, through, event: 'revocation', reason: 'it is over', login: 'alice@example.com' });
  const place = { log: 'audit', time: expect.any(String), server: 'tka', cluster: 'tka', outcome: 'success' };
  const { username: _, tagged: __, through: ___, ...rest } = ended;
  expect(lines()).toEqual([
    { ...place, ...rest, event: 'expiry', reason: 'the sign-in has expired', login: 'alice@example.com' },
    { ...place, ...rest, event: 'revocation', reason: 'the policy grants nothing', login: 'alice' },
    { ...place, ...rest, ...tagged, event: 'expiry', reason: 'the sign-in has expired', login: 'node:n7CNTRL' },
    {
      ...place,
      ...rest,
      event: 'revocation',
      reason: 'it is over',
      login: 'alice@example.com',
      login_server: 'login-eu',
    },
  ]);
});

test('texts from elsewhere are cleaned and cut, and contain no token', () => {
  const line = lineOf(
    {
      event: 'refusal',
      outcome: 'refused',
      reason: `x\n{"log":"audit"}\u001b[31m\u202e ${token} ${'y'.repeat(5_000)}`,
      login: `alice\r\n${'z'.repeat(500)}`,
      tags: Array.from({ length: 100 }, () => 'tag:\u0007ci'),
      node: '',
    },
    { server: 'tka', cluster: 'prod' },
  );
  expect(line.indexOf('\n')).toBe(line.length - 1);
  expect(line.slice(0, -1)).toMatch(/^[ -~…]*$/);
  expect(line).not.toContain('eyJ');
  const read = JSON.parse(line);
  expect(read.login).toHaveLength(320);
  expect(read.reason).toHaveLength(1_000);
  expect(read.tags).toEqual(Array.from({ length: 16 }, () => 'tag: ci'));
  expect(read).not.toHaveProperty('node');
});

test('with audit.enabled: false nothing is written', async () => {
  const file = path.join(testFolder(), 'audit.log');
  const env = {
    TKA_AUDIT_FILE: file,
    TKA_AUDIT_ENABLED: 'false',
    TKA_CLUSTERINFO_APIENDPOINT: 'https://x.example.com',
  };
  const audit = openAudit(await loadConfig(undefined, env), quiet);
  const decided: Decided = {
    id: 'x',
    method: 'POST',
    route: `${api}/login`,
    status: 202,
    refusal: undefined,
    caller: alice,
    origin: {},
    address: '100.64.0.1',
    access: { role: 'viewer' },
  };
  expect(eventOf(decided)).toMatchObject({ event: 'sign-in' });
  audit.decided(decided);
  expect(fs.existsSync(file)).toBe(false);
});

test('the documents show a line of each event, and list each field', () => {
  const page = fs.readFileSync(path.join(import.meta.dirname, '../../../docs/day-2.md'), 'utf8');
  const [, section = ''] = page.split(/^## The audit log$/m);
  const [, examples = ''] = /^```jsonl\n(.*?)^```$/ms.exec(section) ?? [];
  const shown: Line[] = examples
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const events = ['sign-in', 'token', 'refusal', 'logout', 'expiry', 'revocation'];
  expect(shown.map(({ event }) => event)).toEqual(events);
  const listed = [...section.matchAll(/^\| ((?:`\w+`(?:, )?)+) \|/gm)].flatMap(
    ([, fields = '']) => fields.match(/\w+/g) ?? [],
  );
  for (const field of shown.flatMap((line) => Object.keys(line))) expect(listed).toContain(field);
});

test('a file that cannot be opened is an error with a hint', async () => {
  const env = { TKA_AUDIT_FILE: '/none/audit.log', TKA_CLUSTERINFO_APIENDPOINT: 'https://x.example.com' };
  const config = await loadConfig(undefined, env);
  expect(() => openAudit(config, quiet)).toThrow(/^cannot open the audit log: ENOENT.*\/none\/audit\.log/);
});
