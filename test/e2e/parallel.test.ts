// Many kubectl at once: one sign-in without a token; with a token, the cached one is only read.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import type { Home } from '../fixtures/home.ts';
import { callers } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';
import { gate, times, until } from '../fixtures/wait.ts';

// On a busy machine 80 processes may take a while.
const timeout = 60_000;

/** Returns the names in a folder with any file event during `act`. */
async function touched(folder: string, act: () => Promise<unknown>): Promise<string[]> {
  const names = new Set<string>();
  const watcher = fs.watch(folder, (_, name) => names.add(String(name)));
  try {
    await act();
    // All earlier events come before this one.
    fs.writeFileSync(path.join(folder, 'the-end'), '');
    await until('the end of the watch', () => names.has('the-end'));
  } finally {
    watcher.close();
    fs.rmSync(path.join(folder, 'the-end'), { force: true });
  }
  names.delete('the-end');
  return [...names].sort();
}

async function withContexts(home: Home): Promise<void> {
  expect(await home.run('login --all-contexts')).toMatchObject({ status: 0, stderr: '' });
}

for (const caller of callers) {
  // The stand-in for kubectl takes three times as long.
  const many = caller.name.startsWith('kubectl') ? 40 : 15;
  describe.skipIf(caller.absent)(`${caller.name}, ${many} at once`, { timeout }, () => {
    test('on an empty cache: one sign-in, and all succeed', async ({ home, us }) => {
      await withContexts(home);
      expect(us.counts.login).toBe(0);
      const all = await times(many, () => caller.call(home, '--context prod-us get namespaces'));
      for (const one of all) {
        expect(one).toMatchObject({ status: 0, stderr: '' });
        expect(one.stdout).toMatch(/shop-prod-us +Active/);
      }
      expect(us.counts.login).toBe(1);
      expect(home.cached()).toEqual([home.entry(us), home.entry(us, '+served')].map((file) => path.basename(file)));
    });

    test('on a warm cache: no request to the server, no lock, and only the served note is written', async ({
      home,
      us,
    }) => {
      await withContexts(home);
      await caller.call(home, '--context prod-us get namespaces');
      us.resetCounts();
      const before = fs.statSync(home.cache, { bigint: true });
      const entry = fs.statSync(home.entry(us), { bigint: true });
      const names = await touched(home.cache, async () => {
        for (const one of await times(many, () => caller.call(home, '--context prod-us get namespaces')))
          expect(one).toMatchObject({ status: 0, stderr: '' });
        // A file created and removed again would show here.
        const after = fs.statSync(home.cache, { bigint: true });
        expect([after.mtimeNs, after.ctimeNs]).toEqual([before.mtimeNs, before.ctimeNs]);
      });
      expect(names).toEqual([path.basename(home.entry(us, '+served'))]);
      expect(fs.statSync(home.entry(us), { bigint: true })).toMatchObject({ ino: entry.ino, ctimeNs: entry.ctimeNs });
      expect(us.requests.filter(({ route }) => route !== 'api')).toEqual([]);
    });

    test('two contexts: one sign-in at each server, and each gets its own token', async ({ home, us, eu }) => {
      await withContexts(home);
      const all = await times(12, (i) => caller.call(home, `--context prod-${i % 2 ? 'eu' : 'us'} get namespaces`));
      for (const [i, one] of all.entries()) {
        expect(one).toMatchObject({ status: 0, stderr: '' });
        expect(one.stdout).toMatch(i % 2 ? /shop-prod-eu/ : /shop-prod-us/);
      }
      for (const cluster of [us, eu]) expect(cluster.counts).toMatchObject({ login: 1, tokensRefused: 0 });
    });
  });
}

describe('credential', { timeout }, () => {
  test('waiting callers get the token of the one that signs in', async ({ home, us }) => {
    const { shut, open } = gate();
    us.faults.routes.kubeconfig = { hold: shut, times: 1 };
    const all = times(40, () => home.credential(us));
    await us.seen('kubeconfig');
    open();
    const answers = new Set((await all).map(({ status, stdout, stderr }) => JSON.stringify([status, stdout, stderr])));
    expect([...answers]).toHaveLength(1);
    expect(JSON.parse([...answers][0] ?? '')).toEqual([0, expect.stringContaining(home.token(us)), '']);
    expect(us.counts.login).toBe(1);
  });

  test('waiting callers give up with the one that tries, within the same timeout, and give the reason', async ({
    home,
    us,
  }) => {
    us.faults.routes.login = { silent: true };
    const all = await times(8, () => home.credential(us, { env: { TKA_TIMEOUT: '5s' } }));
    // How many of them try depends on when each started: one that has time left tries after another has run out of it.
    expect(us.counts.login).toBeGreaterThan(0);
    for (const one of all) {
      expect(one).toMatchObject({ status: 1, stdout: '' });
      expect(lines(one.stderr)[0]).toMatch(/^error: .*(?:no answer|did not answer|timed out)/);
      expect(one.took).toBeLessThan(20_000);
    }
    expect(home.cached()).not.toContain(path.basename(home.entry(us, '+lock')));
  });

  test('callers that run out of time while another one tries do not try themselves', async ({ home, us }) => {
    const { shut, open } = gate();
    us.faults.routes.login = { hold: shut };
    const first = home.credential(us, { env: { TKA_TIMEOUT: '10m' } });
    await us.seen('login');
    for (const one of await times(7, () => home.credential(us, { env: { TKA_TIMEOUT: '2s' } }))) {
      expect(one).toMatchObject({ status: 1, stdout: '' });
      expect(lines(one.stderr)[0]).toMatch(/^error: /);
    }
    expect(us.counts.login).toBe(1);
    open();
    expect(await first).toMatchObject({ status: 0, stdout: expect.stringContaining(home.token(us)), stderr: '' });
    expect(us.counts.login).toBe(1);
  });

  test('a refusal is shared with all waiting callers, and requested once', async ({ home, us }) => {
    const { shut, open } = gate();
    us.faults.routes.login = { hold: shut, times: 1 };
    us.user = null;
    const all = times(8, () => home.credential(us));
    await us.seen('login');
    await until('a lock', () => fs.existsSync(home.entry(us, '+lock')));
    open();
    for (const one of await all) {
      expect(one).toMatchObject({ status: 1, stdout: '' });
      expect(one.stderr).toMatch(/^error: .*no grant for /);
    }
  });
});
