// What kubectl gets while the token expires, while the server is down, and while it refuses.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import type { SandboxMesh } from '../../src/sandbox/mesh.ts';
import type { Home } from '../fixtures/home.ts';
import { callers } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';
import { times } from '../fixtures/wait.ts';

type Us = ReturnType<SandboxMesh['cluster']>;

/** Signs in to a token that is about to expire: stale from the start, valid for `seconds` more. */
async function aboutToExpire(home: Home, us: Us, seconds = 50): Promise<string> {
  us.faults.token = { expOffsetMs: seconds * 1000 };
  expect((await home.run('login prod-us')).status).toBe(0);
  delete us.faults.token;
  us.resetCounts();
  return home.token(us);
}

for (const caller of callers) {
  describe.skipIf(caller.absent).concurrent(`${caller.name}, with a token about to expire`, () => {
    test('gets a new one', async ({ home, us }) => {
      const old = await aboutToExpire(home, us);
      expect(await caller.call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
      expect(us.counts.login).toBe(1);
      expect(home.token(us)).not.toBe(old);
      // And that one is fresh.
      expect(await caller.call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
      expect(us.counts.login).toBe(1);
    });

    test('gets the old one while the server is down, with one warning', async ({ home, us }) => {
      const old = await aboutToExpire(home, us);
      await us.stop();
      const first = await caller.call(home, 'get namespaces');
      expect(first.status).toBe(0);
      expect(first.stdout).toMatch(/shop-prod-us/);
      if (caller.passesStderr) expect(first.stderr).toMatch(/^warning: [^\n]*: using the cached token, [^\n]*\n$/);
      expect(home.token(us)).toBe(old);
    });

    test('is refused if the server is down and there is no token, with the reason and a hint', async ({ home, us }) => {
      await home.run('login --all-contexts');
      await us.stop();
      const refused = await caller.call(home, '--context prod-us get namespaces');
      expect(refused.status).toBe(1);
      expect(refused.stdout).toBe('');
      expect(refused.stderr).toContain(`error: cannot reach ${us.server}: connection refused\n`);
      expect(refused.stderr).toMatch(
        /^hint: check that the TKA server is up and the port is right: kubectl tka config$/m,
      );
    });
  });
}

describe.concurrent('credential, with a token about to expire', () => {
  test.for<[string, (us: Us) => unknown]>([
    ['refuses connections', (us) => us.stop()],
    ['resets connections', (us) => (us.faults.routes.all = { reset: 'before' })],
    ['answers 503', (us) => (us.faults.routes.all = { answer: { status: 503, body: 'no upstream' } })],
    [
      'answers a proxy’s 404 page',
      (us) => (us.faults.routes.all = { answer: { status: 404, body: '<html>not here', contentType: 'text/html' } }),
    ],
    ['answers something other than JSON', (us) => (us.faults.routes.all = { notJson: true })],
    ['gives an empty token', (us) => (us.faults.token = { empty: true })],
    ['never provisions the sign-in', (us) => (us.faults.pending = { forever: true, retryAfter: 1 })],
  ])('a server that %s: the old token, one line on stderr, and no retry for 30 s', async ([, fault], { home, us }) => {
    const old = await aboutToExpire(home, us);
    fault(us);
    const first = await home.credential(us);
    expect(first.status).toBe(0);
    expect(JSON.parse(first.stdout).status.token).toBe(old);
    expect(lines(first.stderr)).toHaveLength(1);
    expect(first.stderr).toMatch(/^warning: .*: using the cached token, valid until [0-9T:-]+Z\n$/);
    expect(first.took).toBeLessThan(15_000);
    us.resetCounts();
    const second = await home.credential(us);
    expect(second).toMatchObject({ status: 0, stdout: first.stdout, stderr: '' });
    expect(us.requests).toEqual([]);
  });

  test('a silent server: waiting callers get the old token too, within 5 s', async ({ home, us }) => {
    const old = await aboutToExpire(home, us);
    us.faults.routes.all = { silent: true };
    for (const one of await times(5, () => home.credential(us))) {
      expect(one.status).toBe(0);
      expect(JSON.parse(one.stdout).status.token).toBe(old);
      expect(lines(one.stderr).length).toBeLessThanOrEqual(1);
      expect(one.took).toBeLessThan(15_000);
    }
    expect(us.counts.login).toBe(1);
  });

  test('a token that is valid for less than 30 s is not served any more', async ({ home, us }) => {
    await aboutToExpire(home, us, 25);
    await us.stop();
    expect(await home.credential(us)).toMatchObject({ status: 1, stdout: '' });
  });

  test('a refusal is final, with the server’s message and all its advice, and deletes the token', async ({
    home,
    us,
  }) => {
    await aboutToExpire(home, us);
    us.faults.routes.login = {
      answer: {
        status: 403,
        body: {
          message: 'login failed',
          advice: ['ask the network team'],
          cause: { message: 'no grant for alice', advice: ['add a grant to the policy', 'then try again'] },
        },
      },
    };
    const refused = await home.credential(us);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(lines(refused.stderr)[0]).toMatch(/^error: .*no grant for alice/);
    for (const advice of ['ask the network team', 'add a grant to the policy', 'then try again'])
      expect(refused.stderr).toContain(`hint: ${advice}\n`);
    expect(refused.took).toBeLessThan(5000);
    expect(us.counts.login).toBe(1);
    expect(fs.existsSync(home.entry(us))).toBe(false);
  });
});

describe.concurrent('credential, without a token', () => {
  test('asked again by the same process, as kubectl does: the same answer at once, without the server', async ({
    home,
    us,
  }) => {
    us.faults.routes.login = { answer: { status: 503, body: 'no upstream' } };
    const script = '"$0" "$@"; "$0" "$@"; exit $?';
    const twice = await home.byShell(script, ['credential', '--server', us.server], { env: { TKA_TIMEOUT: '1s' } });
    expect(twice).toMatchObject({ status: 1, stdout: '' });
    const [first, second] = twice.stderr.match(/^error: .*\n(?:hint: .*\n)*/gm) ?? [];
    expect(first).toMatch(/503/);
    expect(second).toBe(first);
    const asked = us.counts.login;
    // Another process tries again.
    us.clearFaults();
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
    expect(us.counts.login).toBe(asked + 1);
  });

  test('a server that is down: an error and a hint, quickly', async ({ home, us }) => {
    await us.stop();
    const refused = await home.credential(us);
    expect(refused).toMatchObject({
      status: 1,
      stdout: '',
      stderr: `error: cannot reach ${us.server}: connection refused\nhint: check that the TKA server is up and the port is right: kubectl tka config\n`,
    });
    // It tries for two seconds, since servers restart.
    expect(refused.took).toBeLessThan(10_000);
  });

  test('a server that comes back in the meantime: a token, without a message', async ({ home, us }) => {
    us.faults.routes.login = { reset: 'before', times: 3 };
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
  });

  test('TKA_TIMEOUT is the timeout', async ({ home, us }) => {
    us.faults.pending = { forever: true, retryAfter: 1 };
    const late = await home.credential(us, { env: { TKA_TIMEOUT: '4s' } });
    expect(late).toMatchObject({ status: 1, stdout: '' });
    expect(late.stderr).toMatch(/has not provisioned the sign-in of alice in time\nhint: .*TKA_TIMEOUT=60s/);
    expect(late.took).toBeGreaterThan(3000);
    expect(late.took).toBeLessThan(15_000);
  });

  test.for<[string, (us: Us) => unknown, RegExp]>([
    ['no grant', (us) => (us.user = null), /no grant for /],
    [
      'an invalid period in the policy',
      (us) => (us.user = { username: 'alice', role: 'viewer', periodMs: 60_000 }),
      /may not specify a duration less than 10 minutes/,
    ],
    ['an empty token', (us) => (us.faults.token = { empty: true }), /token/],
    ['a token that is not a JWT', (us) => (us.faults.token = { raw: 'abc' }), /token/],
    ['a token that has expired', (us) => (us.faults.token = { expOffsetMs: -5000 }), /expired/],
  ])('%s: exit 1, the reason, an empty stdout, nothing stored', async ([, fault, words], { home, us }) => {
    fault(us);
    const refused = await home.credential(us, { env: { TKA_TIMEOUT: '6s' } });
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: /);
    expect(refused.stderr).toMatch(words);
    expect(fs.existsSync(home.entry(us))).toBe(false);
  });
});
