import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isFresh } from '../../src/credential/entry.ts';
import {
  type RouteFault,
  type SandboxCluster,
  type SandboxMesh,
  startMesh,
  type TokenFault,
} from '../../src/sandbox/mesh.ts';
import { LockWaiter } from '../../src/session/lock-waiter.ts';
import { timeLeft } from '../../src/session/session.ts';
import { Sessions } from '../../src/session/sessions.ts';
import { SessionStore } from '../../src/session/store.ts';
import type { TkaError } from '../../src/util/errors.ts';

let mesh: SandboxMesh;
let cluster: SandboxCluster;
let other: SandboxCluster;
let folder: string;
let said: string[];

beforeAll(async () => {
  mesh = await startMesh();
});
afterAll(() => mesh.close());
let turn = 0;
beforeEach(async () => {
  [cluster, other] = [mesh.clusters[0], mesh.clusters[1]] as [SandboxCluster, SandboxCluster];
  cluster.clearFaults();
  cluster.user = { username: `user-${turn++}`, role: 'viewer', periodMs: 30 * 60_000 };
  cluster.readyAfterMs = 10;
  await cluster.start();
  cluster.resetCounts();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'session-'));
  said = [];
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

const store = () => new SessionStore({ cache: path.join(folder, 'cache'), state: path.join(folder, 'state') });
const sessions = (timeout = 5000) =>
  new Sessions({ store: store(), timeout, warn: (line) => said.push(line), log: () => {} });
let nextParent = 1_000_000;
/** A call by kubectl; every one by a process of its own unless told otherwise. */
const call = (options: { apiServer?: string; parent?: number; timeout?: number } = {}) =>
  sessions(options.timeout).credential({
    server: cluster.server,
    apiServer: options.apiServer ?? cluster.apiServer,
    parent: options.parent ?? nextParent++,
  });
async function failure(promise: Promise<unknown>): Promise<TkaError> {
  return promise.then(
    () => Promise.reject(new Error('it did not fail')),
    (error) => error,
  );
}
const files = () =>
  fs.existsSync(path.join(folder, 'cache')) ? fs.readdirSync(path.join(folder, 'cache')).sort() : [];
const entryName = () => path.basename(store().entryFile(cluster.server) ?? '');

describe('a miss', () => {
  it('logs in once, keeps the token whole and private, and leaves nothing else', async () => {
    const session = await call();
    expect(cluster.counts).toMatchObject({ login: 1, kubeconfig: 1 });
    expect(session).toMatchObject({ apiServer: cluster.apiServer, role: 'viewer', username: cluster.user?.username });
    expect(files()).toEqual([entryName(), `${entryName()}+served`]);
    for (const name of files()) expect(fs.statSync(path.join(folder, 'cache', name)).mode & 0o777).toBe(0o600);
    expect(fs.statSync(path.join(folder, 'cache')).mode & 0o777).toBe(0o700);
    expect((await call()).token).toBe(session.token);
    expect(cluster.counts.login).toBe(1);
  });

  it('ends at the earlier of the token’s end and the sign-in’s', async () => {
    cluster.faults.until = -600_000;
    const session = await call();
    expect(session.expirationTimestamp).toBe(`${session.until.slice(0, 19)}Z`);
    cluster.faults.until = undefined;
    cluster.faults.token = { expOffsetMs: 700_000 };
    await sessions().signIn(cluster.server, { insecure: false });
    const exp = JSON.parse(
      Buffer.from(store().read(cluster.server)?.token.split('.')[1] ?? '', 'base64url').toString(),
    ).exp;
    expect(Date.parse(store().read(cluster.server)?.expirationTimestamp ?? '')).toBe(exp * 1000);
  });

  it('polls after 10, 20, 40 … ms, and no slower than Retry-After', async () => {
    cluster.faults.pending = { ms: 2600, retryAfter: 1 };
    await call();
    const polls = cluster.requests.filter((r) => r.route === 'kubeconfig').map((r) => r.at);
    const login = cluster.requests.find((r) => r.route === 'login')?.at ?? 0;
    const pauses = [login, ...polls].slice(1).map((at, i) => at - ([login, ...polls][i] ?? 0));
    // 10 20 40 80 160 320 640 1000 1000
    expect(polls.length).toBeGreaterThanOrEqual(8);
    expect(polls.length).toBeLessThanOrEqual(10);
    expect(Math.max(...pauses)).toBeLessThan(1300);
    expect(pauses[0]).toBeLessThan(200);
  });

  it.each([0, -1, 'soon', 1e9])('does not mind a Retry-After of %s', async (retryAfter) => {
    cluster.faults.pending = { ms: 500, retryAfter };
    await call();
    expect(cluster.counts.kubeconfig).toBeLessThan(9);
  });

  it('gives up in its budget, and says what it waited for', async () => {
    cluster.faults.pending = { forever: true, retryAfter: 1 };
    const started = performance.now();
    const error = await failure(call({ timeout: 700 }));
    expect(performance.now() - started).toBeLessThan(2000);
    expect(error.message).toMatch(/has not provisioned the sign-in of user-\d+ in time$/);
    expect(error.message).toContain(cluster.server);
    expect(files()).not.toContain(`${entryName()}+lock`);
  });

  it('gives up on a silent server in its budget', async () => {
    cluster.faults.routes.login = { silent: true };
    const error = await failure(call({ timeout: 400 }));
    expect(error.message).toMatch(/no answer within 0\.4 s/);
  });

  it('signs in again when a late clean-up deletes the sign-in', async () => {
    cluster.faults.routes.kubeconfig = { answer: { status: 401, body: { message: 'User not signed in' } }, times: 3 };
    await call();
    expect(cluster.counts.login).toBe(4);
  });

  it('asks again for the token of a sign-in that was just extended, twice, then takes what there is', async () => {
    await call();
    store().remove(cluster.server);
    cluster.user = { username: cluster.user?.username ?? '', role: 'viewer', periodMs: 60 * 60_000 };
    cluster.faults.extensionRace = 1;
    cluster.resetCounts();
    const session = await call();
    expect(cluster.counts.kubeconfig).toBe(2);
    expect(Date.parse(session.expirationTimestamp)).toBeGreaterThan(Date.now() + 59 * 60_000);
    store().remove(cluster.server);
    cluster.faults.token = { expOffsetMs: 20 * 60_000 };
    cluster.resetCounts();
    await call();
    expect(cluster.counts.kubeconfig).toBe(3);
  });

  it('takes a token that ends a few seconds before the sign-in as it is', async () => {
    cluster.faults.until = 2500;
    await call();
    expect(cluster.counts.kubeconfig).toBe(1);
  });

  it.each([
    ['a 500 with an error body', { answer: { status: 500, body: { message: 'conflict' } }, times: 2 }],
    ['a 502 page', { answer: { status: 502, body: '<html>bad gateway', contentType: 'text/html' }, times: 2 }],
    ['a 404 page of a proxy', { answer: { status: 404, body: '<html>not here', contentType: 'text/html' }, times: 2 }],
    ['a reset', { reset: 'before', times: 2 }],
    ['a reset after its work', { reset: 'after', times: 1 }],
    ['a cut answer', { truncate: true, times: 1 }],
    ['no JSON', { notJson: true, times: 1 }],
    ['a slow answer', { latencyMs: 300, times: 1 }],
    ['a trickle', { trickleMs: 1, times: 1 }],
  ] as const)('lives through %s', async (_, fault) => {
    for (const route of ['login', 'kubeconfig'] as const) {
      cluster.faults.routes = { [route]: { ...fault } };
      store().remove(cluster.server);
      // A trickle is two thousand timers, each of which a busy machine lets wait.
      const session = await call({ timeout: 60_000 });
      expect(session.token).toMatch(/^eyJ/);
    }
  });

  it.each([400, 403, 404, 422])('believes a refusal at once: %i', async (status) => {
    cluster.faults.routes.login = {
      answer: {
        status,
        body: { message: 'outer', advice: ['do this'], cause: { message: 'inner', advice: ['and that'] } },
      },
    };
    const error = await failure(call());
    expect(error.message).toBe(`${cluster.server} refused the sign-in: outer: inner (HTTP ${status})`);
    expect(error.hints).toEqual(['do this', 'and that']);
    cluster.faults.routes = { kubeconfig: { answer: { status, body: { error: 'the other form' } } } };
    expect((await failure(call())).message).toContain('the other form');
    expect(cluster.counts).toMatchObject({ login: 2, kubeconfig: 1 });
  });

  it('pauses after a failure as after a first one, however long it has polled', async () => {
    // 10 20 … 640 ms: the next poll would come after 1280.
    cluster.faults.routes.kubeconfig = [
      { answer: { status: 202, headers: { 'Retry-After': '30' } }, times: 7 },
      { answer: { status: 500, body: { message: 'passing' } }, times: 1 },
    ];
    await call({ timeout: 10_000 });
    const polls = cluster.requests.filter(({ route }) => route === 'kubeconfig').map(({ at }) => at);
    expect(polls).toHaveLength(9);
    expect((polls[8] ?? 0) - (polls[7] ?? 0)).toBeLessThan(900);
  });

  it.each([
    ['our server’s 422', { status: 422, body: { message: 'the period of the grant is too short' } }],
    [
      'a period that is too short',
      { status: 500, body: { message: '`period` may not specify a duration less than 10 minutes' } },
    ],
    [
      'a period that is unreadable',
      { status: 500, body: { message: 'Error parsing duration', cause: { message: 'time: invalid duration "abc"' } } },
    ],
  ])('is final at an error in the policy: %s', async (_, answer) => {
    cluster.faults.routes.login = { answer };
    const error = await failure(call());
    expect(error.message).toContain(answer.body.message);
    expect(cluster.counts.login).toBe(1);
  });

  it('tries again at once where another request changed the sign-in at the same time', async () => {
    const message = 'Operation cannot be fulfilled on tkasignins "tka-user-alice": the object has been modified';
    cluster.faults.routes.login = {
      answer: { status: 500, body: { message: 'Error signing in user', cause: { message } } },
      times: 3,
    };
    await call();
    expect(cluster.counts.login).toBe(4);
  });

  it.each(['login', 'kubeconfig'] as const)('waits as long as a 429 of %s says', async (route) => {
    cluster.faults.routes[route] = { answer: { status: 429, headers: { 'Retry-After': '1' } }, times: 2 };
    await call({ timeout: 20_000 });
    const asked = cluster.requests.filter((request) => request.route === route).map(({ at }) => at);
    expect(asked).toHaveLength(3);
    expect((asked[1] ?? 0) - (asked[0] ?? 0)).toBeGreaterThanOrEqual(990);
    expect((asked[2] ?? 0) - (asked[1] ?? 0)).toBeGreaterThanOrEqual(990);
  });

  it('gives up at once where a 429 asks for more time than there is', async () => {
    cluster.faults.routes.login = {
      answer: { status: 429, headers: { 'Retry-After': '60' }, body: { message: 'slow down' } },
    };
    const error = await failure(call());
    expect(error.message).toContain('slow down');
    expect(error.hints).toContain('try again in 60 s');
    expect(cluster.counts.login).toBe(1);
  });

  it.each([
    ['an empty token', { empty: true }, /empty token/],
    ['an expired token', { expOffsetMs: -5000 }, /expired already/],
    ['a token without exp', { claims: { exp: undefined } }, /no expiry/],
    ['a token that is no JWT', { raw: 'sesame' }, /no JWT/],
    ['a token with a newline', { raw: 'a.b\n.c' }, /no JWT/],
  ] as const)('refuses %s, and keeps nothing', async (_, token, why) => {
    cluster.faults.token = token;
    const error = await failure(call({ timeout: 3000 }));
    expect(error.message).toMatch(why);
    expect(store().read(cluster.server)).toBeUndefined();
  });

  it('judges by the server’s clock', async () => {
    cluster.faults.dateSkewMs = 3_600_000;
    expect((await failure(call({ timeout: 3000 }))).message).toMatch(/ended already|expired already/);
    // A server whose clock is an hour behind ours: to itself, its tokens are as good as any.
    cluster.faults.dateSkewMs = -3_600_000;
    cluster.faults.until = -3_600_000;
    cluster.faults.token = { expOffsetMs: -3_600_000 + 1_800_000 };
    const session = await call();
    expect(isFresh(session, Date.now())).toBe(true);
    expect(timeLeft(session)).toBeGreaterThan(29 * 60_000);
    expect(timeLeft(session)).toBeLessThan(31 * 60_000);
  });

  it.each([-40 * 60_000, 40 * 60_000])(
    'says when a token ends by our clock: the server’s differs by %i ms',
    async (skew) => {
      cluster.faults.dateSkewMs = skew;
      cluster.faults.until = skew;
      cluster.faults.token = { expOffsetMs: skew + 1_800_000 };
      const session = await call();
      const ends = Date.parse(session.expirationTimestamp) - Date.now();
      expect(ends).toBeGreaterThan(29 * 60_000);
      expect(ends).toBeLessThan(31 * 60_000);
      expect(Math.abs(session.clockOffset - skew)).toBeLessThan(2000);
      // What is read back says the same.
      expect(store().read(cluster.server)).toMatchObject({
        expirationTimestamp: session.expirationTimestamp,
        clockOffset: session.clockOffset,
      });
    },
  );

  it('reads an entry of 0.1.0, which has its time by the server’s clock', async () => {
    const session = await call();
    const file = store().entryFile(cluster.server) ?? '';
    const text = fs.readFileSync(file, 'utf8');
    const old = (offset: number) => {
      const ends = new Date(Date.parse(session.expirationTimestamp) + offset).toISOString().replace(/\.\d+/, '');
      fs.writeFileSync(
        file,
        text
          .replace(session.expirationTimestamp, ends)
          .replace(/"clockOffset":0,"serverClock":-?\d+/, `"clockOffset":${offset}`),
      );
    };
    for (const offset of [0, 3_600_000, -3_600_000]) {
      old(offset);
      expect(store().read(cluster.server)).toMatchObject({
        expirationTimestamp: session.expirationTimestamp,
        clockOffset: offset,
      });
    }
  });

  it('refuses a token for another API server, and keeps nothing', async () => {
    const error = await failure(call({ apiServer: other.apiServer }));
    expect(error.message).toBe(`${cluster.server} gives tokens for ${cluster.apiServer}, not for ${other.apiServer}`);
    expect(store().read(cluster.server)).toBeUndefined();
    await call();
    await failure(call({ apiServer: other.apiServer }));
    // The right one keeps its token.
    cluster.resetCounts();
    await call();
    expect(cluster.counts.login).toBe(0);
  });

  it('refuses an API server without TLS verification until a person agrees, for this pair', async () => {
    cluster.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: cluster.apiServer, 'insecure-skip-tls-verify': true } },
    });
    const error = await failure(call());
    expect(error.message).toContain('without a look at its certificate');
    expect(error.hints.join()).toContain('--insecure-skip-tls-verify');
    await sessions().signIn(cluster.server, { insecure: true });
    store().remove(cluster.server);
    expect((await call()).insecureSkipTlsVerify).toBe(true);
    cluster.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: other.apiServer, 'insecure-skip-tls-verify': true } },
    });
    store().remove(cluster.server);
    expect((await failure(call({ apiServer: other.apiServer }))).message).toContain('without a look');
  });

  it('of 40 at once makes one login', async () => {
    cluster.faults.routes.login = { latencyMs: 100 };
    const all = await Promise.all(Array.from({ length: 40 }, () => call()));
    expect(new Set(all.map((s) => s.token)).size).toBe(1);
    expect(cluster.counts.login).toBe(1);
  });

  it('of 40 at once asks once when the answer is no', async () => {
    cluster.faults.routes.login = {
      answer: { status: 403, body: { message: 'No grant found for user' } },
      latencyMs: 200,
    };
    const all = await Promise.all(Array.from({ length: 40 }, () => failure(call())));
    expect(new Set(all.map((e) => e.message)).size).toBe(1);
    expect(cluster.counts.login).toBe(1);
  });

  it('shares what is wrong with the answer, but not that its own time has run out', async () => {
    cluster.faults.token = { empty: true };
    cluster.faults.routes.login = { latencyMs: 150 };
    await Promise.all(Array.from({ length: 8 }, () => failure(call())));
    expect(cluster.counts.login).toBe(1);
    cluster.clearFaults();
    cluster.faults.pending = { ms: 1500 };
    const hasty = failure(call({ timeout: 700 }));
    await cluster.seen('login', 2);
    const [error, session] = await Promise.all([hasty, call({ timeout: 10_000 })]);
    expect(error.message).toMatch(/in time$/);
    expect(session.token).toMatch(/^eyJ/);
  });

  it('takes a token that another process keeps at the last moment without a word', async () => {
    const session = await call();
    store().remove(cluster.server);
    const lock = new LockWaiter(store().entryFile(cluster.server) ?? '').try();
    const started = performance.now();
    const late = store();
    const { read } = late.failures;
    // A failure is looked for after a token.
    late.failures.read = (server) => {
      if (performance.now() - started > 5200) late.write(session, undefined);
      return read.call(late.failures, server);
    };
    const waiting = new Sessions({ store: late, timeout: 20_000, warn: (line) => said.push(line), log: () => {} });
    try {
      const request = { server: cluster.server, apiServer: cluster.apiServer, parent: nextParent++ };
      expect((await waiting.credential(request)).token).toBe(session.token);
      expect(said).toEqual([]);
    } finally {
      if (lock !== 'held') lock.release();
    }
  }, 20_000);

  it('tells client-go, which asks again at once, what it told it before, and nobody else', async () => {
    cluster.faults.routes.login = { answer: { status: 403, body: { message: 'no' } } };
    const ask = (byClientGo: boolean, parent = 7) =>
      failure(sessions().credential({ server: cluster.server, apiServer: undefined, parent, byClientGo }));
    const logins = async (act: () => Promise<unknown>) => {
      const before = cluster.counts.login;
      await act();
      return cluster.counts.login - before;
    };
    // "At once" is two seconds, which a busy machine may miss now and then.
    let repeated = 1;
    for (let tries = 0; repeated > 0 && tries < 10; tries++) {
      await ask(true);
      repeated = await logins(() => ask(true));
    }
    expect(repeated).toBe(0);
    expect(await logins(() => ask(false))).toBe(1);
    expect(await logins(() => ask(true, 8))).toBe(1);
  });

  it('does without a cache that cannot be written, and says so in one line', async () => {
    fs.writeFileSync(path.join(folder, 'cache'), 'a file', { mode: 0o644 });
    expect((await call()).token).toMatch(/^eyJ/);
    expect(fs.statSync(path.join(folder, 'cache')).mode & 0o777).toBe(0o644);
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/^the token cache cannot be written, so every call signs in: /);
  });

  it.skipIf(!fs.existsSync('/proc/self'))(
    'does without a cache where no folder can be made (checked with /proc only)',
    async () => {
      const strange = new Sessions({
        store: new SessionStore({ cache: '/proc/self/nowhere/cache', state: '/proc/self/nowhere/state' }),
        timeout: 5000,
        warn: (line) => said.push(line),
        log: () => {},
      });
      const session = await strange.credential({ server: cluster.server, apiServer: undefined, parent: 1 });
      expect(session.token).toMatch(/^eyJ/);
      expect(said).toHaveLength(1);
    },
  );

  it.each([
    ['a lock file', (lock: string) => fs.writeFileSync(lock, '')],
    [
      'a lock that a killed process left',
      (lock: string) => {
        fs.mkdirSync(lock);
        fs.utimesSync(lock, 1, 1);
      },
    ],
    [
      'a lock from the future',
      (lock: string) => {
        fs.mkdirSync(lock);
        fs.utimesSync(lock, 4e9, 4e9);
      },
    ],
    [
      'an old lock with something in it',
      (lock: string) => {
        fs.mkdirSync(`${lock}/x`, { recursive: true });
        fs.utimesSync(lock, 1, 1);
      },
    ],
    ['a dangling symlink for a lock', (lock: string) => fs.symlinkSync('/nowhere', lock)],
    [
      'a folder in place of the entry',
      (lock: string) => fs.mkdirSync(lock.replace('+lock', '/x'), { recursive: true }),
    ],
  ])('gets past %s', async (_, make) => {
    fs.mkdirSync(path.join(folder, 'cache'), { recursive: true });
    make(`${store().entryFile(cluster.server)}+lock`);
    await call();
    expect(said).toEqual([]);
    expect(store().read(cluster.server)).toBeDefined();
    expect(files()).toEqual([entryName(), `${entryName()}+served`]);
  });

  it('removes what a killed writer left behind', async () => {
    fs.mkdirSync(path.join(folder, 'cache'));
    const left = `${store().entryFile(cluster.server)}+99.0123456789ab+tmp`;
    fs.writeFileSync(left, 'half a tok');
    await call();
    expect(fs.existsSync(left)).toBe(false);
  });

  it('mends the modes of its files', async () => {
    await call();
    fs.chmodSync(path.join(folder, 'cache'), 0o755);
    fs.chmodSync(path.join(folder, 'cache', entryName()), 0o644);
    await call();
    expect(fs.statSync(path.join(folder, 'cache')).mode & 0o777).toBe(0o700);
    expect(fs.statSync(path.join(folder, 'cache', entryName())).mode & 0o777).toBe(0o600);
  });
});

describe('a token about to expire', () => {
  beforeEach(async () => {
    // Good for 50 s: too short to be fresh, long enough to be served.
    cluster.faults.token = { expOffsetMs: 50_000 };
    await call();
    cluster.faults.token = undefined;
    cluster.resetCounts();
    said = [];
  });

  it('is refreshed', async () => {
    const session = await call();
    expect(cluster.counts.login).toBe(1);
    expect(timeLeft(session)).toBeGreaterThan(600_000);
    expect(said).toEqual([]);
  });

  const all = (fault: RouteFault) => {
    cluster.faults.routes.all = fault;
  };
  const token = (fault: TokenFault) => {
    cluster.faults.token = fault;
  };
  it.each([
    ['refuses connections', () => cluster.stop()],
    ['resets', () => all({ reset: 'before' })],
    ['fails', () => all({ answer: { status: 500, body: { message: 'no' } } })],
    ['is a proxy’s 404 page', () => all({ answer: { status: 404, body: '<html>', contentType: 'text/html' } })],
    ['speaks something else', () => all({ notJson: true })],
    ['is over its limit', () => all({ answer: { status: 429, headers: { 'Retry-After': '10' } } })],
    ['has an error in its policy', () => all({ answer: { status: 422, body: { message: 'no period' } } })],
    ['gives an empty token', () => token({ empty: true })],
    ['gives an expired token', () => token({ expOffsetMs: -1 })],
  ])('is served with one line when the server %s, and for the next 30 s without another try', async (_, misbehave) => {
    const old = store().read(cluster.server);
    await misbehave();
    expect((await call()).token).toBe(old?.token);
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/: serving the cached token, which is good until /);
    const { login } = cluster.counts;
    expect((await call()).token).toBe(old?.token);
    expect(said).toHaveLength(1);
    expect(cluster.counts.login).toBe(login);
    const fresh = store().read(cluster.server)?.freshUntil ?? 0;
    expect(fresh - Date.now() / 1000).toBeGreaterThan(15);
    expect(fresh - Date.now() / 1000).toBeLessThan(32);
  });

  it('is served within 5 s when the server is silent, to those who waited too', async () => {
    cluster.faults.routes.all = { silent: true };
    const started = performance.now();
    const all = await Promise.all([call({ timeout: 30_000 }), call({ timeout: 30_000 }), call({ timeout: 30_000 })]);
    expect(performance.now() - started).toBeLessThan(7000);
    expect(new Set(all.map((s) => s.token)).size).toBe(1);
    expect(said.length).toBeGreaterThanOrEqual(1);
  });

  it('is not served when the server refuses in the protocol’s own form', async () => {
    cluster.user = null;
    const error = await failure(call());
    expect(error.message).toContain('User not authorized');
    expect(store().read(cluster.server)).toBeUndefined();
  });

  it('is not served when it is good for less than 30 s', async () => {
    cluster.faults.token = { expOffsetMs: 20_000 };
    await sessions().signIn(cluster.server, { insecure: false });
    await cluster.stop();
    expect((await failure(call())).message).toMatch(/connection refused/);
  });
});

describe('a token that the API server refuses', () => {
  it('heals at the second call of the same process', async () => {
    const first = await call({ parent: 1 });
    cluster.deleteServiceAccount();
    expect((await call({ parent: 2 })).token).toBe(first.token);
    cluster.resetCounts();
    const healed = await call({ parent: 2 });
    expect(healed.token).not.toBe(first.token);
    expect(cluster.counts).toMatchObject({ login: 1, tokensRefused: 1 });
    cluster.resetCounts();
    expect((await call({ parent: 3 })).token).toBe(healed.token);
    expect(cluster.counts).toMatchObject({ login: 0, api: 0 });
  });

  /** As if the API server had not been asked for a minute. */
  const minuteLater = () => fs.rmSync(`${store().entryFile(cluster.server)}+checked`, { force: true });

  it('is tried only then, and served as it is when the API server takes it, or does not answer', async () => {
    const { token } = await call({ parent: 1 });
    expect(cluster.counts.api).toBe(0);
    expect((await call({ parent: 1 })).token).toBe(token);
    expect(cluster.counts).toMatchObject({ api: 1, tokensRefused: 0, login: 1 });
    for (const fault of [
      { answer: { status: 500 } },
      { answer: { status: 403 } },
      { reset: 'before' as const },
      { silent: true },
    ]) {
      minuteLater();
      cluster.faults.routes.api = fault;
      expect((await call({ parent: 1 })).token).toBe(token);
    }
    expect(cluster.counts).toMatchObject({ api: 5, login: 1 });
  });

  it('is tried once a minute, however often one process asks (kube-rs asks three times per client)', async () => {
    await call({ parent: 1 });
    for (let i = 0; i < 5; i++) await call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 1, login: 1 });
    minuteLater();
    await call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 2, login: 1 });
  });

  it('heals where several processes ask in turn (k9s and Lens)', async () => {
    const { token } = await call({ parent: 1 });
    await call({ parent: 2 });
    cluster.deleteServiceAccount();
    await call({ parent: 3 });
    expect((await call({ parent: 1 })).token).not.toBe(token);
    expect(cluster.counts).toMatchObject({ login: 2, tokensRefused: 1 });
  });

  it('is replaced once where several callers ask for it again at the same time', async () => {
    const parents = [1, 2, 3, 4];
    for (const parent of parents) await call({ parent });
    cluster.deleteServiceAccount();
    cluster.resetCounts();
    cluster.faults.routes.login = { latencyMs: 200 };
    const all = await Promise.all(parents.map((parent) => call({ parent })));
    expect(new Set(all.map(({ token }) => token)).size).toBe(1);
    expect(cluster.counts).toMatchObject({ login: 1, tokensRefused: 1 });
  });

  it('is suspected after a refresh that failed, too', async () => {
    // Too short to be fresh.
    cluster.faults.token = { expOffsetMs: 50_000 };
    await call({ parent: 1 });
    cluster.faults.routes.login = { answer: { status: 422, body: { message: 'no period' } } };
    // The same token is kept again, to let the server rest.
    const { token } = await call({ parent: 2 });
    expect(cluster.counts.api).toBe(0);
    expect((await call({ parent: 1 })).token).toBe(token);
    expect(cluster.counts.api).toBe(1);
  });

  it('is not suspected where one process asks again after a long time', async () => {
    await call({ parent: 1 });
    fs.utimesSync(`${store().entryFile(cluster.server)}+served`, Date.now() / 1000 - 3600, Date.now() / 1000 - 3600);
    await call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 0, login: 1 });
  });

  it('is not suspected where a new one is due anyway', async () => {
    const session = await call({ parent: 1 });
    store().write({ ...session, freshUntil: Math.floor(Date.now() / 1000) - 1 }, undefined);
    expect(files()).toContain(`${entryName()}+served`);
    await call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 0, login: 2 });
  });

  it('is not suspected for what its predecessor was asked', async () => {
    await call({ parent: 1 });
    await call({ parent: 1 });
    expect(cluster.counts.api).toBe(1);
    await sessions().signIn(cluster.server, { insecure: false });
    expect(files()).toEqual([entryName()]);
    await call({ parent: 1 });
    expect(cluster.counts.api).toBe(1);
    // Its own minute has not begun.
    await call({ parent: 1 });
    expect(cluster.counts.api).toBe(2);
  });

  it('is never shown to another server that stands at the API server’s address', async () => {
    const { token, ...session } = await call({ parent: 1 });
    // Another CA beside the entry: the certificate at that address is not signed by it.
    const strange = await startMesh({ clusters: [{ name: 'strange' }] });
    try {
      store().write({ ...session, token, caData: strange.clusters[0]?.caData ?? '' }, undefined);
      cluster.resetCounts();
      expect((await call({ parent: 1 })).token).toBe(token);
      expect((await call({ parent: 1 })).token).toBe(token);
      expect(cluster.counts.api).toBe(0);
    } finally {
      await strange.close();
    }
  });
});

describe('signing out', () => {
  it('revokes, deletes, and stays so until the next login', async () => {
    const { token } = await call();
    expect(await sessions().signOut(cluster.server)).toBe(true);
    expect(cluster.signIn()).toBeUndefined();
    expect(files()).toEqual([]);
    const error = await failure(call());
    expect(error.message).toBe(`signed out of ${cluster.server}`);
    expect(error.hints).toEqual([`kubectl tka login ${cluster.server}`]);
    // A cleaner empties the cache: still signed out.
    fs.rmSync(path.join(folder, 'cache'), { recursive: true });
    await failure(call());
    expect(await sessions().signOut(cluster.server)).toBe(false);
    const { session, previous } = await sessions().signIn(cluster.server, { insecure: false });
    expect(session.token).not.toBe(token);
    expect(previous).toEqual({ username: cluster.user?.username, role: 'viewer' });
    await call();
  });

  it('is done here even where the server cannot be told', async () => {
    await call();
    await cluster.stop();
    const error = await failure(sessions().signOut(cluster.server));
    expect(error.message).toMatch(/^signed out on this machine, but not on the server: .*connection refused/);
    expect(files()).toEqual([]);
    expect((await failure(call())).message).toMatch(/^signed out of/);
  });

  it('and in again at once gives a token that works', async () => {
    await call();
    cluster.faults.logoutRaceMs = 800;
    await sessions().signOut(cluster.server);
    const { session } = await sessions().signIn(cluster.server, { insecure: false });
    expect(cluster.signIn()?.username).toBe(session.username);
    expect((await call({ parent: 1 })).token).toBe(session.token);
    expect((await call({ parent: 1 })).token).toBe(session.token);
    expect(cluster.counts.tokensRefused).toBe(0);
  });

  it('and in again at once takes no pause where the server says that its logout is complete', async () => {
    await call();
    cluster.faults.routes.logout = { headers: { 'Tka-Logout': 'complete' } };
    await sessions().signOut(cluster.server);
    cluster.resetCounts();
    const started = performance.now();
    await sessions().signIn(cluster.server, { insecure: false });
    expect(performance.now() - started).toBeLessThan(1000);
    expect(cluster.counts.kubeconfig).toBe(1);
  });

  it('and in again takes no longer for a mark from the future', async () => {
    await call();
    await sessions().signOut(cluster.server);
    fs.utimesSync(path.join(folder, 'state', 'signed-out', entryName()), 4e9, 4e9);
    const started = performance.now();
    await sessions(20_000).signIn(cluster.server, { insecure: false });
    expect(performance.now() - started).toBeLessThan(4000);
  });

  it('wins over a sign-in that is under way', async () => {
    cluster.faults.routes.kubeconfig = { latencyMs: 500 };
    const pending = failure(call());
    await cluster.seen('kubeconfig', 1);
    const out = sessions().signOut(cluster.server);
    expect((await pending).message).toMatch(/^signed out of/);
    await out;
    expect(files()).toEqual([]);
    expect(cluster.signIn()).toBeUndefined();
  });

  it('wins over a login that is under way', async () => {
    cluster.faults.routes.kubeconfig = { latencyMs: 700, times: 1 };
    const login = failure(sessions().signIn(cluster.server, { insecure: false }));
    await cluster.seen('kubeconfig', 1);
    const out = sessions().signOut(cluster.server);
    expect((await login).message).toMatch(/^signed out of .* meanwhile$/);
    expect(await out).toBe(true);
    expect(cluster.signIn()).toBeUndefined();
    expect((await failure(call())).message).toMatch(/^signed out of/);
  });

  it('is not undone on the server by a call that waits for its token', async () => {
    cluster.faults.pending = { forever: true, retryAfter: 1 };
    const pending = failure(call({ timeout: 20_000 }));
    await cluster.seen('kubeconfig', 2);
    // The lock is held: after a while the logout goes on without it.
    await sessions().signOut(cluster.server);
    expect((await pending).message).toMatch(/^signed out of/);
    expect(cluster.counts.login).toBe(1);
    expect(cluster.signIn()).toBeUndefined();
  });

  it('revokes even where the cache and the state cannot be changed', async () => {
    await call();
    const broken = new Sessions({
      store: new SessionStore({ cache: '/dev/null/cache', state: '/dev/null/state' }),
      timeout: 3000,
      warn: (line) => said.push(line),
      log: () => {},
    });
    expect((await failure(broken.signOut(cluster.server))).message).toMatch(/ENOTDIR|not a folder/);
    expect(cluster.counts.logout).toBe(1);
    expect(cluster.signIn()).toBeUndefined();
    expect(said).toEqual([]);
  });

  it('counts its aftermath from the moment the server was told', async () => {
    await call();
    cluster.faults.logoutRaceMs = 1000;
    cluster.faults.routes.logout = { latencyMs: 1200, times: 1 };
    await sessions().signOut(cluster.server);
    const { session } = await sessions().signIn(cluster.server, { insecure: false });
    expect((await call({ parent: 1 })).token).toBe(session.token);
    await call({ parent: 1 });
    expect(cluster.counts.tokensRefused).toBe(0);
    expect(cluster.signIn()).toBeDefined();
  });

  it('outlives being forgotten, which shows nothing of it', async () => {
    await call();
    await sessions().signOut(cluster.server);
    store().forget(cluster.server);
    expect(store().signedOut.list()).toEqual([]);
    expect((await failure(call())).message).toMatch(/^signed out of/);
    await sessions().signIn(cluster.server, { insecure: false });
    await call();
  });

  it('takes anything at the mark’s place for a mark', async () => {
    await sessions().signOut(cluster.server);
    const mark = path.join(folder, 'state', 'signed-out', entryName());
    fs.rmSync(mark);
    fs.mkdirSync(mark);
    expect((await failure(call())).message).toMatch(/^signed out of/);
    await sessions().signIn(cluster.server, { insecure: false });
    await call();
  });
});

describe('signing in', () => {
  it('always asks the server, and tells who one was before', async () => {
    await call();
    const user = cluster.user;
    cluster.user = { username: user?.username ?? '', role: 'cluster-admin', periodMs: 3_600_000 };
    cluster.resetCounts();
    const { session, previous } = await sessions().signIn(cluster.server, { insecure: false });
    expect(cluster.counts).toMatchObject({ login: 1, logout: 0 });
    expect(previous?.role).toBe('viewer');
    expect(session.role).toBe('cluster-admin');
  });

  const changeRole = (role: string) => {
    cluster.user = { username: cluster.user?.username ?? '', role, periodMs: 1_800_000 };
  };
  const signIn = async () => (await sessions().signIn(cluster.server, { insecure: false })).session;

  it('tells a role that may not be in force as long as it may not be, until a logout', async () => {
    await call();
    changeRole('cluster-admin');
    expect(await signIn()).toMatchObject({ role: 'cluster-admin', formerRole: 'viewer' });
    expect(await signIn()).toMatchObject({ role: 'cluster-admin', formerRole: 'viewer' });
    changeRole('editor');
    expect(await signIn()).toMatchObject({ role: 'editor', formerRole: 'viewer' });
    changeRole('viewer');
    expect((await signIn()).formerRole).toBeUndefined();
    changeRole('editor');
    await sessions().signOut(cluster.server);
    expect((await signIn()).formerRole).toBeUndefined();
    expect(said).toEqual([]);
  });

  it('tells no such thing of a server that applies roles, of another user, and of a sign-in that has ended', async () => {
    const first = await call();
    changeRole('cluster-admin');
    cluster.faults.routes.login = { headers: { 'Tka-Role': 'applied' } };
    expect((await signIn()).formerRole).toBeUndefined();
    cluster.clearFaults();
    expect((await signIn()).formerRole).toBeUndefined();
    store().write({ ...first, username: 'somebody-else' }, undefined);
    expect((await signIn()).formerRole).toBeUndefined();
    store().write({ ...first, until: '2020-01-01T00:00:00Z' }, undefined);
    expect((await signIn()).formerRole).toBeUndefined();
  });

  it('is compared by credential as well, which says it in one line', async () => {
    cluster.faults.token = { expOffsetMs: 50_000 };
    await call();
    changeRole('cluster-admin');
    cluster.faults.token = undefined;
    expect(await call()).toMatchObject({ role: 'cluster-admin', formerRole: 'viewer' });
    expect(said).toEqual([
      'your role is cluster-admin now; before, it was viewer. some servers apply a changed role only after a logout: ' +
        `kubectl tka logout ${cluster.server} && kubectl tka login ${cluster.server}`,
    ]);
    said = [];
    await call();
    expect(said).toEqual([]);
  });
});
