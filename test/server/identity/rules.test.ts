// The rules for joined clusters, and that they are a capability of their own.
import { afterEach, describe, expect, test } from 'vitest';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../../src/sandbox/tailscaled.ts';
import type { AskedCluster, Caller } from '../../../src/server/http/contract.ts';
import { clusterGrantOf, type Grant, grantOf } from '../../../src/server/identity/rules.ts';
import { tailnetIdentity } from '../../../src/server/identity/tailnet.ts';
import type { Log } from '../../../src/server/log/log.ts';
import type { Labels } from '../../../src/tka/types.ts';
import * as v010 from '../../samples/v0.1.0/identity.mjs';
import { ask, serve } from '../support.ts';

const own = 'specht-labs.de/cap/tka';
const federation = 'specht-labs.de/cap/tka-federation';
const alice = { name: 'alice@example.com', tags: [] };
const rule = { role: 'view', period: '8h', priority: 10, clusters: ['prod-eu'] };
const eu: AskedCluster = { name: 'prod-eu', labels: { env: 'prod', region: 'eu', 'example.com/tier': '1' } };

const grant = (rules: readonly unknown[], cluster = eu) => clusterGrantOf(rules, alice, federation, cluster);
const granted = { role: 'view', periodMs: 28_800_000 };
const summary = ({ role, problem, revoked }: Grant) => ({ role, status: problem?.status, revoked });

describe('the clusters of a rule', () => {
  test.each<[entry: string, matches: boolean]>([
    ['prod-eu', true],
    ['prod-us', false],
    ['prod', false],
    ['prod-e', false],
    ['prod-*', true],
    ['*-eu', true],
    ['*', true],
    ['p*-*u', true],
    ['prod-eu-*', false],
    ['env=prod', true],
    ['env==prod', true],
    ['env!=prod', false],
    ['env!=staging', true],
    ['env=prod,region=eu', true],
    ['env=prod,region=us', false],
    ['env in (staging, prod)', true],
    ['env notin (staging,prod)', false],
    ['!absent', true],
    ['!env', false],
    ['example.com/tier>0', true],
    ['example.com/tier<1', false],
    ['env,!absent', true],
  ])('%s: %s', (entry, matches) => {
    expect(summary(grant([{ ...rule, clusters: [entry] }]))).toEqual(
      matches ? { role: 'view' } : { role: '', status: 403, revoked: true },
    );
  });

  test('one entry that matches is enough', () => {
    expect(grant([{ ...rule, clusters: ['staging', 'x-*', 'env=prod'] }])).toEqual(granted);
  });

  test.each<[name: string, clusters: unknown]>([
    ['absent', undefined],
    ['null', null],
    ['empty', []],
    ['a text instead of a list', 'prod-eu'],
    ['a map', { name: 'prod-eu' }],
    ['an entry that is not text', ['prod-eu', 7]],
    ['an empty entry', ['prod-eu', '']],
    ['a blank entry', [' ']],
    ['a key without an operator', ['example.com/tier']],
    ['several names in one entry', ['prod-eu,prod-us']],
    ['capital letters', ['Prod-EU']],
    ['a selector that cannot be parsed', ['env=prod=x']],
    ['a selector with an empty part', ['env=prod,']],
    ['an open parenthesis', ['env in (prod']],
    ['only an operator', ['!']],
    ['an inherited field', Object.create({ clusters: ['*'] })],
    ['a control character', ['prod-eu\u001b[2J=x']],
    ['a very long entry', [`env in (${'a,'.repeat(500)}a)`]],
    ['very many entries', Array(257).fill('prod-eu')],
  ])('%s: the policy is invalid, and the answer says which rule', (_, clusters) => {
    const good = { ...rule, role: 'edit', priority: 1 };
    const { role, periodMs, problem, revoked } = grant([good, { ...rule, clusters }]);
    expect({ role, periodMs, revoked }).toEqual({ role: '', periodMs: 0 });
    expect(problem).toMatchObject({ status: 400, reason: 'invalid_policy' });
    expect(problem?.body.message).toBe(
      `invalid rule of the capability "${federation}" for alice@example.com in the tailnet policy`,
    );
    expect(problem?.body.cause?.message).toMatch(/"clusters".*\(the rule with the role "view"\)$/);
    expect(problem?.body.cause?.message).not.toMatch(/[\u0000-\u001f]/);
  });

  test('a rule that is not an object is invalid', () => {
    for (const each of ['prod-eu', null, ['prod-eu'], 7]) {
      expect(summary(grant([rule, each]))).toEqual({ role: '', status: 400 });
    }
  });

  test('only the labels of the cluster count, not the fields of every object', () => {
    for (const entry of ['constructor', '__proto__', 'toString']) {
      const clusters = [`${entry},!absent`];
      const { role } = grant([{ ...rule, clusters }], { name: 'x', labels: { env: 'prod' } });
      expect(role, entry).toBe('');
    }
  });

  test('a cluster without labels matches by name, and selectors for the absence of a label', () => {
    const bare = { name: 'prod-eu', labels: {} };
    expect(grant([rule], bare)).toEqual(granted);
    expect(summary(grant([{ ...rule, clusters: ['env=prod'] }], bare))).toMatchObject({ status: 403 });
    expect(grant([{ ...rule, clusters: ['!env'] }], bare)).toEqual(granted);
  });
});

describe('several rules', () => {
  test('the highest priority among those that match counts', () => {
    const rules = [
      rule,
      { ...rule, role: 'admin', priority: 50, clusters: ['env=prod'] },
      { ...rule, role: 'cluster-admin', priority: 100, clusters: ['staging-*'] },
    ];
    expect(grant(rules).role).toBe('admin');
    expect(grant(rules, { name: 'staging-1', labels: {} }).role).toBe('cluster-admin');
  });

  test('two of the same priority are an error only if both match', () => {
    const other = { ...rule, role: 'edit', clusters: ['prod-us'] };
    expect(grant([rule, other])).toEqual(granted);
    const { problem } = grant([rule, { ...other, clusters: ['prod-*'] }]);
    expect(problem).toMatchObject({ status: 400 });
    expect(problem?.message).toMatch(/^two rules of the capability "\S+tka-federation" grant alice@example\.com/);
    expect(grant([rule, { ...rule, clusters: ['*'] }])).toEqual(granted);
  });

  test('a wrong role, period or priority of a rule for another cluster does not matter', () => {
    const elsewhere = { ...rule, clusters: ['prod-us'] };
    for (const wrong of [{ role: 7 }, { period: 8 }, { priority: 'high' }]) {
      expect(grant([rule, { ...elsewhere, ...wrong }])).toEqual(granted);
      expect(summary(grant([rule, { ...rule, ...wrong }]))).toEqual({ role: '', status: 400 });
    }
    expect(grant([rule, { ...elsewhere, period: 'soon', priority: 99 }])).toEqual(granted);
    expect(grant([{ ...rule, period: 'soon' }])).toMatchObject({ role: 'view', periodMs: 0, problem: { status: 422 } });
  });

  test('the answer without a grant names the cluster, and is the same for one that has not joined', () => {
    const body = {
      message: 'No grant found for user',
      capability: federation,
      login: 'alice@example.com',
      cluster: 'prod-eu',
    };
    const unknown = { name: 'prod-eu', labels: undefined };
    for (const cluster of [eu, unknown]) expect(grant([], cluster).problem?.body).toEqual(body);
    expect(grant([{ ...rule, clusters: ['staging'] }]).problem?.body).toEqual(body);
    expect(summary(grant([{ ...rule, clusters: ['*'] }], unknown))).toEqual({ role: '', status: 404, revoked: true });
  });

  test('a thousand rules of many entries are evaluated quickly', () => {
    const entries = Array.from({ length: 100 }, (_, i) =>
      i % 2 ? `${'a*'.repeat(100)}b` : `env in (${'x,'.repeat(400)}y)`,
    );
    const many = Array(1_000).fill({ ...rule, clusters: entries });
    expect(summary(grant(many, { name: 'a'.repeat(63), labels: { env: 'z' } }))).toMatchObject({ status: 403 });
  });
});

let daemon: Tailscaled | undefined;
afterEach(() => daemon?.close());

const log: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Serves with the identity of the tailnet. Returns the callers that the routes saw. */
async function serveTo(caller: StandInCaller, joined?: Labels): Promise<Caller[]> {
  await daemon?.close();
  daemon = await startTailscaled({ whois: () => caller });
  const env = { TS_SOCKET: daemon.socketPath };
  const devices = { allowed: ['tag:ci'], serverTag: 'tag:tka' };
  const tailnet = async () => ({ name: 'example.com', suffix: 'example.ts.net', ownTags: [] });
  const seen: Caller[] = [];
  const signIns = {
    signIn: async (by: Caller) => note(by),
    get: async (by: Caller) => ({ answer: note(by), provisioned: true }),
    kubeconfig: async (by: Caller) => note(by) && ('pending' as const),
    signOut: async (by: Caller) => ({ answer: note(by), complete: true }),
  };
  const note = (by: Caller) => {
    seen.push(by);
    return { username: by.username, role: by.role, until: '2026-11-22T00:00:00Z' };
  };
  const clusterInfo = () => ({ server_url: 'https://x', insecure_skip_tls_verify: false, ca_data: '', labels: {} });
  await serve({
    identity: tailnetIdentity({ capName: own, federationCapName: federation, devices, tailnet, env, log }),
    signIns,
    clusterInfo,
    members: () => [],
    ...(joined && { joined: ({ cluster }) => ({ name: cluster, labels: joined, signIns, clusterInfo }) }),
  });
  return seen;
}

const calls = [
  'POST /login',
  'GET /login',
  'GET /kubeconfig',
  'POST /logout',
  'GET /cluster-info',
  'GET /memberlist',
].map((call) => call.split(' ') as [string, string]);

/** Returns all answers of the API without what differs from request to request, and the callers that it saw. */
async function answers(caller: StandInCaller, prefix = '', joined?: Labels) {
  const seen = await serveTo(caller, joined);
  const given = [];
  for (const [method, route] of calls) {
    const { status, headers, body } = await ask(method, `${prefix}/api/v1alpha1${route}`);
    given.push({ status, headers: { ...headers, date: '', 'x-request-id': '' }, body });
  }
  return { given, seen };
}

describe('the capability of joined clusters', () => {
  const any = { role: 'cluster-admin', period: '24h', priority: 1_000, clusters: ['*'] };
  const policies: Readonly<Record<string, readonly unknown[]>> = {
    'a grant': [{ role: 'view', period: '8h', priority: 100 }],
    'several grants': [
      { role: 'view', period: '8h', priority: 100 },
      { role: 'edit', period: '1h', priority: 200 },
    ],
    'grants that disagree': [
      { role: 'view', period: '8h', priority: 100 },
      { role: 'edit', period: '8h', priority: 100 },
    ],
    'an invalid grant': [{ role: 'view', period: '8h', priority: 'high' }],
    'no grant': [],
  };
  const federations: Readonly<Record<string, readonly unknown[]>> = {
    'rules for clusters': [any],
    'invalid rules': [{ role: 'cluster-admin' }, null, 'x'],
  };

  /** Returns the role and period that version 0.1.0 grants, or the status of its refusal. */
  async function grantOf010(caller: StandInCaller): Promise<unknown> {
    await using socket = await startTailscaled({ whois: () => caller });
    const { whoIs } = v010.tailnetIdentity({ capName: own, env: { TS_SOCKET: socket.socketPath }, log });
    const from = { remoteAddress: '100.64.0.7', remotePort: 40_000, localAddress: '100.64.0.1', destroyed: false };
    try {
      const { role, periodMs } = await whoIs({ headers: {}, socket: from });
      return { role, periodMs };
    } catch (error) {
      return (error as { readonly status?: number }).status ?? error;
    }
  }

  // The Go server, too, reads the rules of its own capability, and ignores keys that it does not know (pkg/service/auth).
  // So does the stand-in here.
  type CapMap = Readonly<Record<string, readonly unknown[]>>;
  const olderGrant = (map: CapMap, clusters = false): unknown => {
    const rules = [...(map[own] ?? []), ...(clusters ? (map[federation] ?? []) : [])];
    const read = rules.map((each) => {
      const { role, period, priority } = each as Record<string, unknown>;
      return typeof priority === 'number' ? { role, period, priority } : undefined;
    });
    if (read.length === 0) return 403;
    if (read.includes(undefined) || new Set(read.map((each) => each?.priority)).size < read.length) return 400;
    const [best] = read.sort((a, b) => (b?.priority ?? 0) - (a?.priority ?? 0));
    return { role: best?.role, period: best?.period };
  };

  const table = Object.keys(policies).flatMap((policy) =>
    Object.keys(federations).map((also) => [policy, also] as const),
  );
  test.each(table)('%s and %s: the own cluster answers as without the rules for clusters', async (policy, also) => {
    const rules = policies[policy] ?? [];
    const login = 'alice@example.com';
    const without: StandInCaller = { login, capabilities: { [own]: rules } };
    const withRules: StandInCaller = { login, capabilities: { [own]: rules, [federation]: federations[also] ?? [] } };
    const expected = await answers(without);
    // Only the list is for everyone who can sign in somewhere.
    const list = { status: 200, body: '[]' };
    const isListed = expected.given[5]?.status === 403;
    for (const joined of [undefined, {}]) {
      const { given, seen } = await answers(withRules, '', joined);
      if (isListed) expect(given[5]).toMatchObject(list);
      expect(given.slice(0, isListed ? 5 : 6)).toEqual(expected.given.slice(0, isListed ? 5 : 6));
      expect(seen.map(({ mayList: _, ...rest }) => rest)).toEqual(expected.seen);
    }
    const { problem, role, periodMs } = grantOf(rules, alice, own);
    const now = problem?.status ?? { role, periodMs };
    expect([await grantOf010(without), await grantOf010(withRules)]).toEqual([now, now]);
    const [older, newer] = [without, withRules].map(({ capabilities = {} }) => olderGrant(capabilities));
    expect(newer).toEqual(older);
    expect(typeof older === 'number' ? older : undefined).toBe(problem?.status);
  });

  test('an older server that read the rules for clusters would grant their role', async () => {
    const map = { [own]: policies['a grant'] ?? [], [federation]: [any] };
    expect(olderGrant(map)).toEqual({ role: 'view', period: '8h' });
    expect(olderGrant(map, true)).toEqual({ role: 'cluster-admin', period: '24h' });
    // Under the capability of the own cluster, 0.1.0 would ignore `clusters`.
    const wrong = { login: 'alice@example.com', capabilities: { [own]: [any] } };
    expect(await grantOf010(wrong)).toEqual({ role: 'cluster-admin', periodMs: 86_400_000 });
  });

  test('a rule for the own cluster grants nothing in a joined one', async () => {
    const caller = { login: 'alice@example.com', capabilities: { [own]: [any] } };
    const { given, seen } = await answers(caller, '/clusters/prod-eu', { env: 'prod' });
    const login = given[0];
    expect(login?.status).toBe(403);
    expect(JSON.parse(login?.body ?? '')).toMatchObject({ capability: federation, cluster: 'prod-eu' });
    expect(seen.map(({ role }) => role)).toEqual(Array(6).fill(''));
  });

  test('a rule for clusters grants its role there, to a person and to a device', async () => {
    const capabilities = { [federation]: [{ ...any, period: '2h', clusters: ['env=prod'] }] };
    const person = { login: 'alice@example.com', capabilities };
    const { seen } = await answers(person, '/clusters/prod-eu', { env: 'prod' });
    expect(seen[0]).toMatchObject({ username: 'alice', role: 'cluster-admin', periodMs: 7_200_000 });
    const device = { login: '', tags: ['tag:ci'], dnsName: 'ci-7.example.ts.net', capabilities };
    const asDevice = await answers(device, '/clusters/prod-eu', { env: 'prod' });
    expect(asDevice.seen[0]).toMatchObject({ login: 'node:n7CNTRL', role: 'cluster-admin', periodMs: 3_600_000 });
  });

  test('a server without joined clusters has no such path', async () => {
    const caller = { login: 'alice@example.com', capabilities: { [own]: [any], [federation]: [any] } };
    const seen = await serveTo(caller);
    for (const [method, route] of calls) {
      const answer = await ask(method, `/clusters/prod-eu/api/v1alpha1${route}`);
      expect(answer).toMatchObject({ status: 404, body: '404 page not found' });
    }
    expect(seen).toEqual([]);
  });
});
