// A token that the cluster no longer accepts is replaced: only a second request of one process shows the refusal.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { callers, kubectl, kubectls, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';

const programs = kubectl === undefined ? [] : [kubectl, ...kubectls];

describe
  .skipIf(kubectl === undefined)
  .concurrent(`the ServiceAccount is deleted in the background${needsKubectl}`, () => {
    test.for(programs.map((file) => [path.basename(file), file] as const))(
      '%s: the first call fails, the next succeeds, without another command',
      async ([, program], { home, us }) => {
        const get = () => home.kubectl('get namespaces', { kubectl: program });
        await home.run('login prod-us');
        // Also fills the discovery cache: without it kubectl repeats its first request.
        expect(await get()).toMatchObject({ status: 0, stderr: '' });
        const old = home.token(us);
        us.deleteServiceAccount();
        us.resetCounts();
        const refused = await get();
        expect(refused).toMatchObject({ status: 1, stdout: '' });
        expect(refused.stderr).toMatch(/Unauthorized|must be logged in/);
        const healed = await get();
        expect(healed).toMatchObject({ status: 0, stderr: '' });
        expect(healed.stdout).toMatch(/shop-prod-us/);
        expect(us.counts.login).toBe(1);
        expect(home.token(us)).not.toBe(old);
      },
    );

    test('on an empty discovery cache kubectl asks again by itself, and succeeds', async ({ home, us }) => {
      await home.run('login prod-us');
      expect(await home.kubectl('get namespaces')).toMatchObject({ status: 0 });
      fs.rmSync(path.join(home.dir, '.kube', 'cache'), { recursive: true });
      us.deleteServiceAccount();
      const healed = await home.kubectl('get namespaces');
      expect(healed.status).toBe(0);
      expect(healed.stdout).toMatch(/shop-prod-us/);
    });

    test('after a logout in the meantime: refused, not signed in again', async ({ home, us }) => {
      await home.run('login prod-us');
      expect(await home.kubectl('get namespaces')).toMatchObject({ status: 0 });
      await home.run('logout');
      us.resetCounts();
      expect(await home.kubectl('get namespaces')).toMatchObject({ status: 1 });
      expect(us.counts.login).toBe(0);
    });
  });

for (const caller of callers) {
  describe.skipIf(caller.absent).concurrent(`${caller.name}, after the token was refused`, () => {
    test('works again after a second request of one process', async ({ home, us }) => {
      await home.run('login prod-us');
      us.deleteServiceAccount();
      await home.credential(us, { times: 2 });
      expect(await caller.call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
    });
  });
}

describe.concurrent('credential, asked twice by one process', () => {
  const tokens = (stdout: string) => lines(stdout).map((line) => JSON.parse(line).status.token);

  test('a token that the API server accepts: the same again', async ({ home, us }) => {
    await home.run('login prod-us');
    us.resetCounts();
    const twice = await home.credential(us, { times: 3 });
    expect(twice).toMatchObject({ status: 0, stderr: '' });
    expect(new Set(tokens(twice.stdout))).toEqual(new Set([home.token(us)]));
    expect(us.counts.login).toBe(0);
    // Checked at the API server at the second call, and then not for a minute.
    expect(us.counts.tokenChecks).toBe(1);
  });

  test('if a new token is due, the API server is not asked about the old one', async ({ home, us }) => {
    await home.run('login prod-us');
    await home.credential(us);
    const text = fs.readFileSync(home.entry(us), 'utf8').replace(/^(tka1 [0-9]+) [0-9]+/, '$1 1000');
    fs.writeFileSync(home.entry(us), text);
    fs.utimesSync(home.entry(us), 1000, 1000);
    us.resetCounts();
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
    expect(us.counts).toMatchObject({ login: 1, tokenChecks: 0 });
  });

  test('a token that the API server refuses: a new one', async ({ home, us }) => {
    await home.run('login prod-us');
    const old = home.token(us);
    us.deleteServiceAccount();
    us.resetCounts();
    const twice = await home.credential(us, { times: 2 });
    expect(twice).toMatchObject({ status: 0, stderr: '' });
    expect(tokens(twice.stdout)).toEqual([old, home.token(us)]);
    expect(home.token(us)).not.toBe(old);
    expect(us.counts).toMatchObject({ login: 1, tokenChecks: 1, tokensRefused: 1 });
  });

  test('a forbidden one (403) is served unchanged', async ({ home, us }) => {
    await home.run('login prod-us');
    us.resetCounts();
    us.faults.routes.api = { answer: { status: 403, body: { kind: 'Status', code: 403 } } };
    const twice = await home.credential(us, { times: 2 });
    expect(tokens(twice.stdout)).toEqual([home.token(us), home.token(us)]);
    expect(us.counts).toMatchObject({ login: 0, api: 1 });
  });

  test.for<[string, 'silent' | 'down' | 500]>([
    ['is silent', 'silent'],
    ['is down', 'down'],
    ['answers 500', 500],
  ])('an API server that %s: the token is served unchanged, after 2 s at most', async ([, how], { home, us }) => {
    await home.run('login prod-us');
    us.resetCounts();
    if (how === 'down') await us.stopApi();
    else us.faults.routes.api = how === 'silent' ? { silent: true } : { answer: { status: how } };
    const twice = await home.credential(us, { times: 2 });
    expect(twice).toMatchObject({ status: 0, stderr: '' });
    expect(tokens(twice.stdout)).toEqual([home.token(us), home.token(us)]);
    expect(twice.took).toBeLessThan(10_000);
    expect(us.counts.login).toBe(0);
  });

  test('refused while the TKA server is down: an error, never the refused token', async ({ home, us }) => {
    await home.run('login prod-us');
    us.deleteServiceAccount();
    await us.stop();
    const twice = await home.credential(us, { times: 2 });
    expect(twice.status).toBe(1);
    expect(lines(twice.stdout)).toHaveLength(1);
    expect(twice.stderr).toMatch(/^error: cannot reach /);
    expect(fs.existsSync(home.entry(us))).toBe(false);
  });

  test('several processes that ask once each cause no check', async ({ home, us }) => {
    await home.run('login prod-us');
    us.resetCounts();
    for (let i = 0; i < 3; i++) await home.credential(us);
    expect(us.counts).toMatchObject({ api: 0, login: 0 });
  });

  const unshare = '/usr/bin/unshare';
  const containers = process.platform === 'linux' && process.getuid?.() === 0 && fs.existsSync(unshare);
  test.skipIf(!containers)(
    'containers, in which the caller is always process 1, cause no check (skipped unless run by root on Linux)',
    async ({ home, us }) => {
      await home.run('login prod-us');
      us.resetCounts();
      // The shell is process 1, as kubectl is in a container.
      const script = `${unshare} --pid --fork --mount-proc /bin/sh -c '"$0" "$@"; exit $?' "$0" "$@"`;
      for (let i = 0; i < 4; i++) {
        const once = await home.byShell(script, ['credential', '--server', us.server, '--api-server', us.apiServer]);
        expect(once).toMatchObject({ status: 0, stderr: '' });
        // Real containers do not start this soon after each other.
        const before = Date.now() / 1000 - 60;
        fs.utimesSync(home.entry(us, '+served'), before, before);
      }
      expect(us.counts).toMatchObject({ api: 0, login: 0 });
    },
  );
});
