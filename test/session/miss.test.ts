import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { isFresh } from '../../src/credential/entry.ts';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { LockWaiter } from '../../src/session/lock.ts';
import { timeLeft } from '../../src/session/session.ts';
import { SessionStore } from '../../src/session/store.ts';
import { failure, fileMesh, type Machine, newMachine, newParent } from './fixture.ts';

const mesh = fileMesh();
let machine: Machine;
let cluster: SandboxCluster;

beforeEach(async () => {
  machine = await newMachine(mesh());
  ({ cluster } = machine);
});

describe('a miss', () => {
  it('logs in once, stores the token whole and private, and leaves no other files', async () => {
    const session = await machine.call();
    expect(cluster.counts).toMatchObject({ login: 1, kubeconfig: 1 });
    expect(session).toMatchObject({ apiServer: cluster.apiServer, role: 'viewer', username: cluster.user?.username });
    expect(machine.files).toEqual([machine.entryName, `${machine.entryName}+served`]);
    for (const name of machine.files) expect(fs.statSync(path.join(machine.cache, name)).mode & 0o777).toBe(0o600);
    expect(fs.statSync(machine.cache).mode & 0o777).toBe(0o700);
    expect((await machine.call()).token).toBe(session.token);
    expect(cluster.counts.login).toBe(1);
  });

  it('ends at the earlier end of the token and the sign-in', async () => {
    cluster.faults.until = -600_000;
    const session = await machine.call();
    expect(session.expirationTimestamp).toBe(`${session.until.slice(0, 19)}Z`);
    cluster.faults.until = undefined;
    cluster.faults.token = { expOffsetMs: 700_000 };
    await machine.signIn();
    const exp = JSON.parse(Buffer.from(machine.kept()?.token.split('.')[1] ?? '', 'base64url').toString()).exp;
    expect(Date.parse(machine.kept()?.expirationTimestamp ?? '')).toBe(exp * 1000);
  });

  it('polls after 10, 20, 40 … ms, at the latest after Retry-After', async () => {
    cluster.faults.routes.kubeconfig = { answer: { status: 202, headers: { 'Retry-After': '1' } }, times: 8 };
    await machine.call({ timeout: 60_000 });
    expect(cluster.counts.kubeconfig).toBe(9);
    const pauses = machine.logged.flatMap((line) => /asking .*in (\d+) ms$/.exec(line)?.[1] ?? []).map(Number);
    expect(pauses).toEqual([10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
  });

  it.each([0, -1, 'soon', 1e9])('ignores a Retry-After of %s', async (retryAfter) => {
    cluster.faults.pending = { ms: 500, retryAfter };
    await machine.call();
    expect(cluster.counts.kubeconfig).toBeLessThan(9);
  });

  it('gives up within its timeout and reports what it waited for', async () => {
    cluster.faults.pending = { forever: true, retryAfter: 1 };
    let error = await failure(machine.call({ timeout: 700 }));
    // On a busy machine the first request takes longer.
    if (cluster.counts.kubeconfig === 0) error = await failure(machine.call({ timeout: 10_000 }));
    expect(error.message).toMatch(/has not provisioned the sign-in of user-\d+ in time$/);
    expect(error.message).toContain(cluster.server);
    expect(machine.files).not.toContain(`${machine.entryName}+lock`);
  });

  it('gives up on a silent server within its timeout', async () => {
    cluster.faults.routes.login = { silent: true };
    const error = await failure(machine.call({ timeout: 400 }));
    expect(error.message).toMatch(/no answer within 0\.\d s|did not answer in time/);
  });

  it('signs in again if a late cleanup deletes the sign-in', async () => {
    cluster.faults.routes.kubeconfig = { answer: { status: 401, body: { message: 'User not signed in' } }, times: 3 };
    await machine.call();
    expect(cluster.counts.login).toBe(4);
  });

  it('asks again for the token of a sign-in that was just extended, twice, then takes the last one', async () => {
    await machine.call();
    machine.store.remove(cluster.server);
    machine.changeRole('viewer', 60 * 60_000);
    cluster.faults.extensionRace = 1;
    cluster.resetCounts();
    const session = await machine.call();
    expect(cluster.counts.kubeconfig).toBe(2);
    expect(Date.parse(session.expirationTimestamp)).toBeGreaterThan(Date.now() + 59 * 60_000);
    machine.store.remove(cluster.server);
    cluster.faults.token = { expOffsetMs: 20 * 60_000 };
    cluster.resetCounts();
    await machine.call();
    expect(cluster.counts.kubeconfig).toBe(3);
  });

  it('accepts a token that ends a few seconds before the sign-in', async () => {
    cluster.faults.until = 2500;
    await machine.call();
    expect(cluster.counts.kubeconfig).toBe(1);
  });

  it.each([
    ['a 500 with an error body', { answer: { status: 500, body: { message: 'conflict' } }, times: 2 }],
    ['a 502 page', { answer: { status: 502, body: '<html>bad gateway', contentType: 'text/html' }, times: 2 }],
    ['a 404 page of a proxy', { answer: { status: 404, body: '<html>not here', contentType: 'text/html' }, times: 2 }],
    ['a reset', { reset: 'before', times: 2 }],
    ['a reset after the work is done', { reset: 'after', times: 1 }],
    ['a truncated answer', { truncate: true, times: 1 }],
    ['not JSON', { notJson: true, times: 1 }],
    ['a slow answer', { latencyMs: 300, times: 1 }],
    ['a trickle', { trickleMs: 1, times: 1 }],
  ] as const)('survives %s', async (_, fault) => {
    for (const route of ['login', 'kubeconfig'] as const) {
      cluster.faults.routes = { [route]: { ...fault } };
      machine.store.remove(cluster.server);
      // A trickle needs two thousand timers, and a busy machine delays each of them.
      const session = await machine.call({ timeout: 60_000 });
      expect(session.token).toMatch(/^eyJ/);
    }
  });

  it.each([400, 403, 404, 422])('takes a refusal as final: %i', async (status) => {
    cluster.faults.routes.login = {
      answer: {
        status,
        body: { message: 'outer', advice: ['do this'], cause: { message: 'inner', advice: ['and that'] } },
      },
    };
    const error = await failure(machine.call());
    expect(error.message).toBe(`${cluster.server} refused the sign-in: outer: inner (HTTP ${status})`);
    expect(error.hints).toEqual(['do this', 'and that']);
    cluster.faults.routes = { kubeconfig: { answer: { status, body: { error: 'the other form' } } } };
    expect((await failure(machine.call())).message).toContain('the other form');
    expect(cluster.counts).toMatchObject({ login: 2, kubeconfig: 1 });
  });

  it('restarts its pauses after a failure, however long it has polled', async () => {
    // 10 20 … 640 ms: the next poll would come after 1280.
    cluster.faults.routes.kubeconfig = [
      { answer: { status: 202, headers: { 'Retry-After': '30' } }, times: 7 },
      { answer: { status: 500, body: { message: 'passing' } }, times: 1 },
    ];
    await machine.call({ timeout: 60_000 });
    expect(cluster.counts.kubeconfig).toBe(9);
    expect(machine.logged).toContainEqual(expect.stringMatching(/^trying again in 10 ms: .*passing/));
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
  ])('takes a policy error as final: %s', async (_, answer) => {
    cluster.faults.routes.login = { answer };
    const error = await failure(machine.call());
    expect(error.message).toContain(answer.body.message);
    expect(cluster.counts.login).toBe(1);
  });

  it('retries at once if another request changed the sign-in at the same time', async () => {
    const message = 'Operation cannot be fulfilled on tkasignins "tka-user-alice": the object has been modified';
    cluster.faults.routes.login = {
      answer: { status: 500, body: { message: 'Error signing in user', cause: { message } } },
      times: 3,
    };
    await machine.call();
    expect(cluster.counts.login).toBe(4);
  });

  it.each(['login', 'kubeconfig'] as const)('waits as long as a 429 of %s says', async (route) => {
    cluster.faults.routes[route] = { answer: { status: 429, headers: { 'Retry-After': '1' } }, times: 2 };
    await machine.call({ timeout: 20_000 });
    const asked = cluster.requests.filter((request) => request.route === route).map(({ at }) => at);
    expect(asked).toHaveLength(3);
    expect((asked[1] ?? 0) - (asked[0] ?? 0)).toBeGreaterThanOrEqual(990);
    expect((asked[2] ?? 0) - (asked[1] ?? 0)).toBeGreaterThanOrEqual(990);
  });

  it('gives up at once if a 429 asks for more time than is left', async () => {
    cluster.faults.routes.login = {
      answer: { status: 429, headers: { 'Retry-After': '60' }, body: { message: 'slow down' } },
    };
    const error = await failure(machine.call());
    expect(error.message).toContain('slow down');
    expect(error.hints).toContain('try again in 60 s');
    expect(cluster.counts.login).toBe(1);
  });

  it.each([
    ['an empty token', { empty: true }, /empty token/],
    ['an expired token', { expOffsetMs: -5000 }, /already expired/],
    ['a token without exp', { claims: { exp: undefined } }, /no expiry/],
    ['a token that is not a JWT', { raw: 'sesame' }, /not a JWT/],
    ['a token with a newline', { raw: 'a.b\n.c' }, /not a JWT/],
  ] as const)('refuses %s and stores nothing', async (_, token, why) => {
    cluster.faults.token = token;
    const error = await failure(machine.call({ timeout: 3000 }));
    expect(error.message).toMatch(why);
    expect(machine.kept()).toBeUndefined();
  });

  it('uses the server’s clock to judge a token', async () => {
    cluster.faults.dateSkewMs = 3_600_000;
    expect((await failure(machine.call({ timeout: 3000 }))).message).toMatch(/already ended|already expired/);
    // A server whose clock is an hour behind ours: by its own clock its tokens are valid.
    cluster.faults.dateSkewMs = -3_600_000;
    cluster.faults.until = -3_600_000;
    cluster.faults.token = { expOffsetMs: -3_600_000 + 1_800_000 };
    const session = await machine.call();
    expect(isFresh(session, Date.now())).toBe(true);
    expect(timeLeft(session)).toBeGreaterThan(29 * 60_000);
    expect(timeLeft(session)).toBeLessThan(31 * 60_000);
  });

  it.each([-40 * 60_000, 40 * 60_000])(
    'gives a token’s end by our clock: the server’s differs by %i ms',
    async (skew) => {
      cluster.faults.dateSkewMs = skew;
      cluster.faults.until = skew;
      cluster.faults.token = { expOffsetMs: skew + 1_800_000 };
      const session = await machine.call();
      const ends = Date.parse(session.expirationTimestamp) - Date.now();
      expect(ends).toBeGreaterThan(29 * 60_000);
      expect(ends).toBeLessThan(31 * 60_000);
      expect(Math.abs(session.clockOffset - skew)).toBeLessThan(2000);
      // Reading the entry back gives the same.
      expect(machine.kept()).toMatchObject({
        expirationTimestamp: session.expirationTimestamp,
        clockOffset: session.clockOffset,
      });
    },
  );

  it('reads an entry of 0.1.0, which has its time by the server’s clock', async () => {
    const session = await machine.call();
    const file = machine.entry();
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
      expect(machine.kept()).toMatchObject({
        expirationTimestamp: session.expirationTimestamp,
        clockOffset: offset,
      });
    }
  });

  it('refuses a token for another API server and stores nothing', async () => {
    const error = await failure(machine.call({ apiServer: machine.other.apiServer }));
    expect(error.message).toBe(
      `${cluster.server} gives tokens for ${cluster.apiServer}, not ${machine.other.apiServer}`,
    );
    expect(machine.kept()).toBeUndefined();
    await machine.call();
    await failure(machine.call({ apiServer: machine.other.apiServer }));
    // The entry of the right API server keeps its token.
    cluster.resetCounts();
    await machine.call();
    expect(cluster.counts.login).toBe(0);
  });

  it('refuses an API server without TLS verification until the user agrees, for this pair', async () => {
    cluster.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: cluster.apiServer, 'insecure-skip-tls-verify': true } },
    });
    const error = await failure(machine.call());
    expect(error.message).toContain('asks clients to skip TLS verification');
    expect(error.hints.join()).toContain('--insecure-skip-tls-verify');
    await machine.signIn({ insecure: true });
    machine.store.remove(cluster.server);
    expect((await machine.call()).insecureSkipTlsVerify).toBe(true);
    cluster.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: machine.other.apiServer, 'insecure-skip-tls-verify': true } },
    });
    machine.store.remove(cluster.server);
    expect((await failure(machine.call({ apiServer: machine.other.apiServer }))).message).toContain(
      'skip TLS verification',
    );
  });

  it('of 40 callers at once makes one login', async () => {
    cluster.faults.routes.login = { latencyMs: 100 };
    const all = await Promise.all(Array.from({ length: 40 }, () => machine.call()));
    expect(new Set(all.map((s) => s.token)).size).toBe(1);
    expect(cluster.counts.login).toBe(1);
  });

  it('of 40 callers at once asks once if the answer is a refusal', async () => {
    cluster.faults.routes.login = {
      answer: { status: 403, body: { message: 'No grant found for user' } },
      latencyMs: 200,
    };
    const all = await Promise.all(Array.from({ length: 40 }, () => failure(machine.call())));
    expect(new Set(all.map((e) => e.message)).size).toBe(1);
    expect(cluster.counts.login).toBe(1);
  });

  it('shares the server’s error with other callers, but not its own timeout', async () => {
    cluster.faults.token = { empty: true };
    cluster.faults.routes.login = { latencyMs: 150 };
    await Promise.all(Array.from({ length: 8 }, () => failure(machine.call())));
    expect(cluster.counts.login).toBe(1);
    cluster.clearFaults();
    cluster.faults.pending = { ms: 1500 };
    const hasty = failure(machine.call({ timeout: 700 }));
    await cluster.seen('login', 2);
    const [error, session] = await Promise.all([hasty, machine.call({ timeout: 10_000 })]);
    expect(error.message).toMatch(/in time$/);
    expect(session.token).toMatch(/^eyJ/);
  });

  it('silently takes a token that another process stores at the last moment', async () => {
    const session = await machine.call();
    machine.store.remove(cluster.server);
    const lock = new LockWaiter(machine.entry()).try();
    const started = performance.now();
    const late = machine.store;
    const { read } = late.failures;
    // The waiter looks for a token first, then for a failure.
    late.failures.read = (server) => {
      if (performance.now() - started > 5200) late.write(session, undefined);
      return read.call(late.failures, server);
    };
    const waiting = machine.sessions(20_000, late);
    try {
      const request = { server: cluster.server, apiServer: cluster.apiServer, parent: newParent() };
      expect((await waiting.credential(request)).token).toBe(session.token);
      expect(machine.said).toEqual([]);
    } finally {
      if (lock !== 'held') lock.release();
    }
  }, 20_000);

  it('repeats the last error to client-go, which asks again at once, but to no other caller', async () => {
    cluster.faults.routes.login = { answer: { status: 403, body: { message: 'no' } } };
    const ask = (byClientGo: boolean, parent = 7) =>
      failure(machine.sessions().credential({ server: cluster.server, apiServer: undefined, parent, byClientGo }));
    const logins = async (act: () => Promise<unknown>) => {
      const before = cluster.counts.login;
      await act();
      return cluster.counts.login - before;
    };
    // "At once" means within two seconds, which a busy machine may miss now and then.
    let repeated = 1;
    for (let tries = 0; repeated > 0 && tries < 10; tries++) {
      await ask(true);
      repeated = await logins(() => ask(true));
    }
    expect(repeated).toBe(0);
    expect(await logins(() => ask(false))).toBe(1);
    expect(await logins(() => ask(true, 8))).toBe(1);
  });

  it('works without a writable cache, with one warning', async () => {
    fs.writeFileSync(machine.cache, 'a file', { mode: 0o644 });
    expect((await machine.call()).token).toMatch(/^eyJ/);
    expect(fs.statSync(machine.cache).mode & 0o777).toBe(0o644);
    expect(machine.said).toHaveLength(1);
    expect(machine.said[0]).toMatch(/^cannot write the token cache, so every call signs in: /);
  });

  it.skipIf(!fs.existsSync('/proc/self'))(
    'works without a cache if no folder can be created (checked with /proc only)',
    async () => {
      const strange = new SessionStore({ cache: '/proc/self/nowhere/cache', state: '/proc/self/nowhere/state' });
      const request = { server: cluster.server, apiServer: undefined, parent: 1 };
      const session = await machine.sessions(5000, strange).credential(request);
      expect(session.token).toMatch(/^eyJ/);
      expect(machine.said).toHaveLength(1);
    },
  );

  it('removes the leftovers of a killed writer', async () => {
    fs.mkdirSync(machine.cache);
    const left = machine.entry('+99.0123456789ab+tmp');
    fs.writeFileSync(left, 'half a tok');
    await machine.call();
    expect(fs.existsSync(left)).toBe(false);
  });

  it('repairs the modes of its files', async () => {
    await machine.call();
    fs.chmodSync(machine.cache, 0o755);
    fs.chmodSync(path.join(machine.cache, machine.entryName), 0o644);
    await machine.call();
    expect(fs.statSync(machine.cache).mode & 0o777).toBe(0o700);
    expect(fs.statSync(path.join(machine.cache, machine.entryName)).mode & 0o777).toBe(0o600);
  });
});
