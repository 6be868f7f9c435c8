// What a joined server does for its login server, and what it does not.
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { signAssertion } from '../../../src/server/federation/assertion.ts';
import {
  assertionRefused,
  evictedPath,
  type OwnTunnel,
  type Tunnel,
  tunnelBodyLimit,
} from '../../../src/server/federation/contract.ts';
import { JoinedApi, type JoinedApiOptions } from '../../../src/server/federation/joined-api.ts';
import { newKey } from '../../../src/server/federation/keys.ts';
import { type Answered, type Caller, type Decided, Refusal, type SignIns } from '../../../src/server/http/contract.ts';
import type { Log } from '../../../src/server/log/log.ts';
import { namesOf } from '../../../src/server/provisioner/objects.ts';
import { eventOf } from '../../../src/server/telemetry/audit.ts';
import { api, kubeconfig, login, sample, signedIn, signedOut } from '../support.ts';
import { ask as askThrough, joined as keepJoined, login as listening, loginKey } from './fixture.ts';

const key = newKey();
const alice: Caller = {
  username: 'alice',
  login: 'alice@example.com',
  device: 'n1',
  role: 'view',
  periodMs: 3_600_000,
};
const problem = new Refusal(403, { message: 'No grant found for user' });
const dropped: Caller = { ...alice, role: '', periodMs: 0, problem, revoked: true };
const never = new AbortController().signal;

/** Starts the joined side with one tunnel, and returns functions that ask as the login server would. */
function joined(options: Partial<JoinedApiOptions> = {}) {
  const asked: [what: string, caller: Caller][] = [];
  const lines: string[] = [];
  const requests: Answered[] = [];
  const decisions: Decided[] = [];
  const evictions: OwnTunnel[] = [];
  const redials: string[] = [];
  const { signIns = signedIn, ...rest } = options;
  const noting = new Proxy(signIns, {
    get: (target, name: keyof SignIns) => {
      const value = target[name];
      if (typeof value !== 'function') return value;
      return (caller: Caller, signal?: AbortSignal) => {
        asked.push([name, caller]);
        return value(caller, signal);
      };
    },
  });
  const note = (fields: Readonly<Record<string, unknown>>, message: string) =>
    void lines.push(`${message}: ${fields.err instanceof Error ? fields.err.message : ''}`);
  const log: Log = { debug: note, info: note, warn: note, error: note };
  const server = new JoinedApi({
    signIns: noting,
    clusterInfo: () => JSON.parse(sample('cluster-info').body),
    endAllThrough: async () => 0,
    signInsThrough: () => new Set(),
    roles: [],
    maxPeriodMs: 8 * 3_600_000,
    onEvicted: (tunnel) => void evictions.push(tunnel),
    log,
    onRequest: (answered) => void requests.push(answered),
    onDecided: (decided) => void decisions.push(decided),
    ...rest,
  });
  const tunnel: OwnTunnel = {
    id: 'dHVubmVsLW9uZQ',
    cluster: 'edge-1',
    primary: 'eu',
    replica: 'tka-0',
    keys: [key.publicKey],
    clockOffsetMs: 0,
    since: Date.now(),
    redial: (reason) => void redials.push(reason),
  };
  const assertionFor = (method: string, path: string, caller?: Caller, now?: number, id = tunnel.id) =>
    signAssertion(
      key,
      { issuer: 'eu', cluster: 'edge-1', tunnel: id, method, path, ...(caller && { caller }) },
      now ?? Date.now(),
    );
  const send = async (
    method: string,
    path: string,
    assertion: string,
    { signal = never, at = tunnel }: { signal?: AbortSignal; at?: OwnTunnel } = {},
  ) => {
    const answer = await server.answer({ method, path, assertion, id: 'req-1' }, at, signal);
    return { ...answer, json: answer.body === '' ? undefined : JSON.parse(answer.body) };
  };
  const ask = async (method: string, route: string, caller = alice, how: Parameters<typeof send>[3] = {}) =>
    send(method, `${api}${route}`, await assertionFor(method, `${api}${route}`, caller, undefined, how.at?.id), how);
  return { server, tunnel, ask, send, assertionFor, asked, lines, requests, decisions, evictions, redials };
}

describe('a request with a valid assertion', () => {
  test.each<[string, string, what: keyof SignIns, status: number, headers: object, body: object]>([
    ['POST', '/login', 'signIn', 202, { 'tka-role': 'applied' }, login],
    ['GET', '/login', 'get', 200, {}, login],
    ['GET', '/kubeconfig', 'kubeconfig', 200, {}, kubeconfig],
    ['POST', '/logout', 'signOut', 200, { 'tka-logout': 'complete' }, login],
  ])('%s %s is answered as over HTTP, for a caller through the login server', async (...row) => {
    const [method, route, what, status, headers, body] = row;
    const { ask, asked } = joined({ signIns: { ...signedIn, appliesRoles: true } });
    const answer = await ask(method, route);
    expect(answer).toMatchObject({ status, json: body });
    expect(answer.headers).toEqual({ 'content-type': 'application/json; charset=utf-8', ...headers });
    expect(asked).toEqual([[what, { ...alice, through: 'eu' }]]);
  });

  test('GET /cluster-info is answered, and needs no sign-in', async () => {
    const { ask, asked } = joined();
    expect(await ask('GET', '/cluster-info')).toMatchObject({ status: 200, json: { server_url: expect.any(String) } });
    expect(asked).toEqual([]);
  });

  test('without a sign-in gets the refusals of the API', async () => {
    const { ask } = joined({ signIns: signedOut });
    const message = 'User not signed in';
    expect(await ask('GET', '/kubeconfig')).toMatchObject({
      status: 401,
      headers: { 'retry-after': '1' },
      json: { message },
    });
    expect(await ask('POST', '/logout')).toMatchObject({ status: 404, json: { message } });
  });

  test('is in the log and in the audit log, with the login server and the same ID', async () => {
    const { ask, requests, decisions } = joined();
    await ask('POST', '/login');
    expect(requests).toEqual([
      expect.objectContaining({
        id: 'req-1',
        method: 'POST',
        route: `${api}/login`,
        path: `${api}/login`,
        status: 202,
        refusal: undefined,
        caller: { ...alice, through: 'eu' },
      }),
    ]);
    const {
      reason: _,
      tags: __,
      node: ___,
      address: ____,
      account: _____,
      ...event
    } = eventOf(decisions[0] as Decided) ?? {};
    expect(event).toEqual({
      event: 'sign-in',
      outcome: 'success',
      request: 'req-1',
      login: 'alice@example.com',
      login_server: 'eu',
      role: login.role,
      until: login.until,
    });
    // A device: its name and tags.
    const tagged = { node: 'ci-7.example.ts.net', tags: ['tag:ci'] };
    await ask('POST', '/login', { ...alice, username: 'n7', login: 'node:n7', device: 'n7', tagged });
    expect(eventOf(decisions[1] as Decided)).toMatchObject({ login: 'node:n7', ...tagged });
  });
});

describe('the limits of the joined cluster', () => {
  test('cap the period', async () => {
    const { ask, asked } = joined({ maxPeriodMs: 1_800_000 });
    await ask('POST', '/login', { ...alice, periodMs: 86_400_000 });
    await ask('POST', '/login', { ...alice, periodMs: 900_000 });
    expect(asked.map(([, { periodMs }]) => periodMs)).toEqual([1_800_000, 900_000]);
  });

  test('refuse a role that is not listed, and name it and the cluster', async () => {
    const { ask, asked, decisions } = joined({ roles: ['view', 'edit'] });
    expect((await ask('POST', '/login', { ...alice, role: 'edit' })).status).toBe(202);
    asked.length = 0;
    const told = {
      status: 403,
      json: {
        message: 'the role "cluster-admin" cannot be used in the cluster "edge-1" through the login server "eu"',
        advice: ['ask the operator of the cluster "edge-1" to add the role to federation.roles'],
      },
    };
    const admin = { ...alice, role: 'cluster-admin' };
    expect(await ask('POST', '/login', admin)).toMatchObject(told);
    expect(await ask('GET', '/cluster-info', admin)).toMatchObject(told);
    // What the caller has from another time ends: it is asked for without a role.
    expect(asked.map(([what, { role, revoked }]) => [what, role, revoked])).toEqual([
      ['get', '', true],
      ['get', '', true],
    ]);
    expect(eventOf(decisions[1] as Decided)).toMatchObject({ event: 'refusal', asked: 'sign-in', login_server: 'eu' });
    // A logout is always possible.
    expect((await ask('POST', '/logout', admin)).status).toBe(200);
  });

  test('are not extended by a list: its roles need a right of the server as well', async () => {
    const refusal = new Refusal(422, { message: 'the role "view" does not exist in this cluster' });
    const { ask } = joined({ roles: ['view'], signIns: { ...signedIn, signIn: () => Promise.reject(refusal) } });
    expect(await ask('POST', '/login')).toMatchObject({ status: 422 });
  });
});

test('a caller without a grant loses what it has, and is refused', async () => {
  const { ask, asked } = joined({ signIns: { ...signedOut, get: () => Promise.reject(problem) } });
  for (const [method, route] of [
    ['POST', '/login'],
    ['GET', '/login'],
    ['GET', '/cluster-info'],
  ] as const) {
    const answer = await ask(method, route, dropped);
    expect(answer).toMatchObject({ status: 403, json: { message: 'No grant found for user' } });
  }
  expect(asked.map(([what, caller]) => [what, caller.role, caller.revoked, caller.through])).toEqual(
    Array.from({ length: 3 }, () => ['get', '', true, 'eu']),
  );
});

describe('a request is refused, and asks nobody', () => {
  test.each([
    ['GET', `${api}/memberlist`, 404],
    ['GET', '/', 404],
    ['GET', '/swagger', 404],
    ['GET', '/metrics', 404],
    ['POST', `${api}/login?x=1`, 404],
    ['POST', `${api}/login/`, 404],
    ['POST', '/clusters/edge-1/api/v1alpha1/login', 404],
    ['GET', '/__proto__', 404],
    ['GET', `${'/x'.repeat(4_000)}\u001b[31m`, 404],
    ['DELETE', `${api}/login`, 405],
    ['PUT', `${api}/logout`, 405],
    ['constructor', `${api}/login`, 405],
    ['GET', evictedPath, 405],
  ])('%s %s', async (method, path, status) => {
    const { send, assertionFor, asked, requests, decisions, evictions } = joined();
    const answer = await send(method, path, await assertionFor(method, path.slice(0, 100), alice));
    const what = status === 404 ? 'path' : 'method';
    expect(answer).toMatchObject({ status, json: { message: `this ${what} is not served through a tunnel` } });
    expect(asked).toEqual([]);
    expect(evictions).toEqual([]);
    expect(decisions).toEqual([]);
    // Strangers must not name a metric.
    if (status === 404) expect(requests[0]?.route).toBeUndefined();
    expect(requests[0]?.path.length).toBeLessThanOrEqual(200);
    expect(requests[0]?.path).not.toContain('\u001b');
  });

  test.each<[string, (one: ReturnType<typeof joined>) => Promise<string>, redials: boolean, why: string]>([
    ['without an assertion', async () => '', false, 'it is not a valid JWT of this kind'],
    [
      'with an assertion for another tunnel',
      (one) => one.assertionFor('POST', `${api}/login`, alice, undefined, 'YW5vdGhlcg'),
      false,
      'it is for another tunnel',
    ],
    ['about nobody', (one) => one.assertionFor('POST', `${api}/login`), false, 'its claim "sub" is wrong'],
    [
      'with an assertion that has expired',
      (one) => one.assertionFor('POST', `${api}/login`, alice, Date.now() - 120_000),
      true,
      'it has expired',
    ],
    [
      'with an assertion from the future',
      (one) => one.assertionFor('POST', `${api}/login`, alice, Date.now() + 120_000),
      true,
      'it is from the future',
    ],
    [
      'with an assertion of an unknown key',
      ({ tunnel }) =>
        signAssertion(newKey(), {
          issuer: 'eu',
          cluster: 'edge-1',
          tunnel: tunnel.id,
          method: 'POST',
          path: `${api}/login`,
          caller: alice,
        }),
      true,
      'its key is not one of the login server',
    ],
  ])('%s', async (_, assert, redials, why) => {
    const one = joined();
    const answer = await one.send('POST', `${api}/login`, await assert(one));
    expect(answer).toMatchObject({ status: 401, json: { message: assertionRefused, cause: { message: why } } });
    expect(one.asked).toEqual([]);
    expect(one.requests[0]).toMatchObject({ status: 401, refusal: `${assertionRefused}: ${why}`, caller: undefined });
    // The tunnel is the login server's, whatever comes through it.
    expect(one.requests[0]).toMatchObject({ through: 'eu' });
    expect(eventOf(one.decisions[0] as Decided)).toMatchObject({ event: 'refusal', login_server: 'eu' });
    // A new handshake measures the clocks and learns the keys.
    expect(one.redials).toEqual(redials ? [`an assertion was not accepted: ${why}`] : []);
  });

  test('with an assertion that was used before, on any tunnel', async () => {
    const { send, assertionFor, asked, tunnel } = joined();
    const assertion = await assertionFor('POST', `${api}/login`, alice);
    expect((await send('POST', `${api}/login`, assertion)).status).toBe(202);
    for (const at of [tunnel, { ...tunnel }]) {
      const again = await send('POST', `${api}/login`, assertion, { at });
      expect(again).toMatchObject({ status: 401, json: { cause: { message: 'it was used before' } } });
    }
    expect(asked).toHaveLength(1);
  });
});

/** Sign-ins whose token requests wait until they are let go. */
function waiting() {
  const started: string[] = [];
  const open: (() => void)[] = [];
  const signIns: SignIns = {
    ...signedIn,
    kubeconfig: (caller) => {
      started.push(caller.login);
      return new Promise((resolve) => open.push(() => resolve(kubeconfig)));
    },
  };
  return { signIns, started, open };
}

/** Resolves when the condition holds; checks it whenever other work was done. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

describe('requests at the same time', () => {
  test('of a tunnel are limited; other tunnels do not notice', async () => {
    const { signIns, started, open } = waiting();
    const { ask, tunnel, requests } = joined({ signIns, atOnce: 2 });
    const people = ['a', 'b', 'c'].map((name) => ({ ...alice, username: name, login: `${name}@example.com` }));
    const first = people.slice(0, 2).map((caller) => ask('GET', '/kubeconfig', caller));
    await until(() => started.length === 2);
    const third = await ask('GET', '/kubeconfig', people[2]);
    expect(third).toMatchObject({
      status: 503,
      headers: { 'retry-after': '1' },
      json: { message: 'too many requests through this tunnel at the same time' },
    });
    expect(requests[0]).toMatchObject({ status: 503, reason: 'rate_limited' });
    const other = ask('GET', '/kubeconfig', people[2], { at: { ...tunnel, id: 'YW5vdGhlcg' } });
    await until(() => started.length === 3);
    for (const go of open) go();
    expect((await Promise.all([...first, other])).map(({ status }) => status)).toEqual([200, 200, 200]);
    // The places are free again.
    const next = ask('GET', '/kubeconfig', people[2]);
    await until(() => started.length === 4);
    open[3]?.();
    expect((await next).status).toBe(200);
  });

  test('of one login take turns, and do not delay another login', async () => {
    const { signIns, started, open } = waiting();
    const { ask } = joined({ signIns });
    const bob = { ...alice, username: 'bob', login: 'bob@example.com' };
    const first = ask('GET', '/kubeconfig');
    await until(() => started.length === 1);
    const second = ask('GET', '/kubeconfig');
    const other = ask('GET', '/kubeconfig', bob);
    await until(() => started.length >= 2);
    expect(started.slice(0, 2)).toEqual([alice.login, bob.login]);
    await until(() => started.length === 3);
    for (const go of open) go();
    expect((await Promise.all([first, second, other])).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  test('of a login server that hangs up are not failures', async () => {
    const gone = new AbortController();
    const signIns: SignIns = {
      ...signedIn,
      kubeconfig: (_, signal) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(signal.reason));
          gone.abort();
        }),
    };
    const { ask, requests, lines, decisions } = joined({ signIns });
    await ask('GET', '/kubeconfig', alice, { signal: gone.signal });
    expect(requests).toEqual([
      expect.objectContaining({ status: undefined, refusal: 'the login server closed the request' }),
    ]);
    expect(eventOf(decisions[0] as Decided)).toMatchObject({ event: 'token', outcome: 'failed', login_server: 'eu' });
    expect(lines).toEqual([]);
  });
});

describe('a login server that invents logins', () => {
  test('is slowed down to its rate, over all of its tunnels; an eviction passes', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const { ask, send, assertionFor, tunnel, asked } = joined();
    const tunnels = Array.from({ length: 5 }, (_, i) => ({ ...tunnel, id: `tunnel-${i}` }));
    const statuses = await Promise.all(
      tunnels.flatMap((at) =>
        Array.from({ length: 52 }, async (_, i) => {
          const login = `${at.id}-${i}@example.com`;
          const { status, json } = await ask('POST', '/login', { ...alice, login }, { at });
          return status === 503 ? json.message : status;
        }),
      ),
    );
    // 200 at once, and 50 in the second that they may wait.
    expect(asked).toHaveLength(250);
    expect(statuses.filter((status) => status === 202)).toHaveLength(250);
    expect(new Set(statuses)).toEqual(new Set([202, 'too many requests through this login server']));
    // The login server can still say that the cluster is evicted.
    const evicted = await send('POST', evictedPath, await assertionFor('POST', evictedPath));
    expect(evicted.status).toBe(202);
  });

  test('cannot have more than 5,000 sign-ins; they can be used, renewed and ended', async () => {
    const names = new Set(Array.from({ length: 5_000 }, (_, i) => `tka-login-${i}`));
    const { ask } = joined({ signInsThrough: (loginServer) => (loginServer === 'eu' ? names : new Set()) });
    expect(await ask('POST', '/login')).toMatchObject({
      status: 503,
      headers: { 'retry-after': '1' },
      json: { message: 'there are 5000 sign-ins through this login server' },
    });
    expect(await ask('GET', '/kubeconfig')).toMatchObject({ status: 200 });
    expect(await ask('POST', '/login', dropped)).toMatchObject({ status: 403 });
    expect(await ask('POST', '/logout')).toMatchObject({ status: 200 });
    names.delete('tka-login-0');
    expect(await ask('POST', '/login')).toMatchObject({ status: 202 });
    // Now the caller has one of 5,000, and can renew it.
    for (const name of namesOf({ ...alice, through: 'eu' })) names.add(name);
    expect(names.size).toBe(5_000);
    expect(await ask('POST', '/login')).toMatchObject({ status: 202 });
  });
});

test('an internal error is in the log only', async () => {
  const signIns = { ...signedIn, kubeconfig: () => Promise.reject(new Error('secret detail')) };
  const { ask, lines } = joined({ signIns });
  expect(await ask('GET', '/kubeconfig')).toMatchObject({ status: 500, json: { message: 'internal error' } });
  expect(lines).toEqual(['internal error: secret detail']);
});

test('an answer that is too large for the tunnel is not sent', async () => {
  const large = { ...kubeconfig, clusters: { c: { server: 'x'.repeat(tunnelBodyLimit) } } };
  const { ask, decisions } = joined({ signIns: { ...signedIn, kubeconfig: async () => large } });
  expect(await ask('GET', '/kubeconfig')).toMatchObject({
    status: 500,
    json: { message: 'the answer is too large for the tunnel' },
  });
  expect(eventOf(decisions[0] as Decided)).toMatchObject({ event: 'token', outcome: 'failed' });
});

describe('an eviction', () => {
  test('is reported with its tunnel', async () => {
    const { send, assertionFor, evictions, tunnel, decisions, requests } = joined();
    expect((await send('POST', evictedPath, await assertionFor('POST', evictedPath))).status).toBe(202);
    expect(evictions).toEqual([tunnel]);
    expect(requests[0]).toMatchObject({ route: evictedPath, status: 202 });
    // The lines of the audit log are those of the sign-ins that end.
    expect(decisions).toEqual([]);
  });

  test('needs an assertion of its own', async () => {
    const { send, assertionFor, evictions } = joined();
    for (const assertion of [
      '',
      await assertionFor('POST', `${api}/logout`, alice),
      await assertionFor('GET', evictedPath),
    ]) {
      expect((await send('POST', evictedPath, assertion)).status).toBe(401);
    }
    expect(evictions).toEqual([]);
  });

  test('ends the sign-ins after the requests that still run', async () => {
    const { signIns, started, open } = waiting();
    const order: string[] = [];
    const endAllThrough = async (name: string) => {
      order.push(`end ${name}`);
      return 7;
    };
    const { server, ask } = joined({ signIns, endAllThrough });
    const asking = ask('GET', '/kubeconfig').then(() => order.push('answered'));
    await until(() => started.length === 1);
    const ending = server.endAllThrough('eu');
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual([]);
    open[0]?.();
    expect(await ending).toBe(7);
    await asking;
    expect([...order].sort()).toEqual(['answered', 'end eu']);
  });
});

describe('over real tunnels', () => {
  /** Returns what a joined cluster's server answers with the joined API, and what it was asked. */
  async function connected(cluster: string, more: { readonly offsetMs?: () => number } = {}) {
    const { endpoint, next } = await listening();
    const { server, asked } = joined();
    keepJoined(endpoint, {
      cluster,
      answer: (request, tunnel, signal) => {
        const offset = more.offsetMs?.() ?? 0;
        return server.answer(request, { ...tunnel, clockOffsetMs: tunnel.clockOffsetMs + offset }, signal);
      },
    });
    const asks = async (tunnel: Tunnel, assertedFor = tunnel) => {
      const about = { issuer: 'primary', cluster: assertedFor.cluster, tunnel: assertedFor.id };
      const request = { method: 'POST', path: `${api}/login` };
      const assertion = await signAssertion(loginKey, { ...about, ...request, caller: alice });
      return askThrough(tunnel, { ...request, assertion });
    };
    return { next, asked, asks };
  }

  test('a sign-in passes, and an assertion for one tunnel is worth nothing on another', async () => {
    const [alpha, beta] = [await connected('alpha'), await connected('beta')];
    const [first, second] = [await alpha.next(), await beta.next()];
    expect(await alpha.asks(first)).toMatchObject({ status: 202, body: JSON.stringify(login) });
    expect(await beta.asks(second, first)).toMatchObject({ status: 401 });
    // Nor on a later tunnel of the same cluster.
    first.close('a test');
    const later = await alpha.next();
    expect(await alpha.asks(later, first)).toMatchObject({ status: 401 });
    expect(await alpha.asks(later)).toMatchObject({ status: 202 });
    expect(alpha.asked.map(([, { through }]) => through)).toEqual(['primary', 'primary']);
    expect(beta.asked).toEqual([]);
  });

  test('a clock that was changed since the handshake is measured again, by a new tunnel', async () => {
    let offset = 0;
    const { next, asks } = await connected('alpha', { offsetMs: () => offset });
    const tunnel = await next();
    expect((await asks(tunnel)).status).toBe(202);
    offset = 120_000;
    expect((await asks(tunnel)).status).toBe(401);
    const second = await next();
    offset = 0;
    expect(second.id).not.toBe(tunnel.id);
    expect((await asks(second)).status).toBe(202);
  });
});
