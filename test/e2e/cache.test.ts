// A cache with too wide modes is repaired; one that cannot be written still gives a credential.
// test/hostile/cache.test.ts covers other files in place of an entry, a lock and the folder.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { Home } from '../fixtures/home.ts';
import { callers } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { hooked, launched, lines, program } from '../fixtures/program.ts';

const modeOf = (file: string) => fs.lstatSync(file).mode & 0o7777;

test('modes that are too wide are repaired by the slow path', async ({ home, us }) => {
  await home.run('login prod-us');
  fs.chmodSync(home.cache, 0o755);
  fs.chmodSync(home.entry(us), 0o644);
  await home.run('status');
  expect([modeOf(home.cache), modeOf(home.entry(us))]).toEqual([0o700, 0o600]);
});

const oneLine = /^warning: cannot write the token cache, so every call signs in: [^\n]+\n$/;

describe.concurrent('a cache that cannot be written', () => {
  test.for<[string, (home: Home) => Record<string, string | undefined>]>([
    [
      'HOME is a file',
      (home) => {
        home.write(path.join(home.root, 'file'), '');
        return { HOME: path.join(home.root, 'file') };
      },
    ],
    ['HOME is unset', () => ({ HOME: undefined })],
    ['HOME is empty', () => ({ HOME: '' })],
  ])('%s: still gives a credential, with one line on stderr', async ([, place], { home, us }) => {
    const env = { ...place(home), TKA_TAILSCALE_HOSTNAME: us.server, KUBECONFIG: home.kubeconfig };
    const before = home.files();
    for (let i = 1; i <= 2; i++) {
      const answer = await home.credential(us, { env });
      expect(answer.status).toBe(0);
      expect(lines(answer.stdout)).toHaveLength(1);
      expect(JSON.parse(answer.stdout).status.token).toMatch(/^eyJ/);
      expect(answer.stderr).toMatch(oneLine);
      expect(us.counts.login).toBe(i);
    }
    expect(home.files()).toEqual(before);
  });

  test.skipIf(!launched)(
    'a full disk: still gives a credential, and leaves no half-written file',
    async ({ home, us }) => {
      const answer = await home.credential(us, { env: hooked('full-disk') });
      expect(answer.status).toBe(0);
      expect(JSON.parse(answer.stdout).status.token).toMatch(/^eyJ/);
      expect(answer.stderr).toMatch(oneLine);
      expect(Object.values(home.files()).join()).not.toMatch(/eyJ/);
      // With room on the disk everything works again.
      expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
      expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
      expect(us.counts.login).toBe(2);
    },
  );

  test.skipIf(!launched)('a full disk later: the cached token is served without a warning', async ({ home, us }) => {
    await home.run('login prod-us');
    const answer = await home.credential(us, { env: hooked('full-disk') });
    expect(answer).toMatchObject({ status: 0, stderr: '' });
    expect(us.counts.login).toBe(1);
  });

  test.skipIf(!fs.existsSync('/dev/full'))(
    'an answer that cannot be written is one error line',
    async ({ home, us }) => {
      await home.run('login prod-us');
      const answer = await home.byShell('"$0" "$@" > /dev/full', ['credential', '--server', us.server]);
      expect(answer.status).toBe(1);
      expect(answer.stderr).toMatch(/^error: cannot write the credential(?:: ENOSPC)?\nhint: kubectl tka doctor\n$/);
      expect(us.counts.login).toBe(1);
    },
  );

  test('login warns too, and writes its context', async ({ home, us }) => {
    home.write(path.join(home.root, 'file'), '');
    const env = { TKA_CACHE_DIR: path.join(home.root, 'file') };
    const login = await home.run('login prod-us', { env });
    expect(login.status).toBe(0);
    expect(login.stderr).toMatch(oneLine);
    expect(login.stdout).toMatch(/^Signed in to prod-us /);
    for (const caller of callers.filter(({ absent }) => !absent)) {
      const got = await caller.call(home, 'get namespaces', { env });
      expect(got.status).toBe(0);
      expect(got.stdout).toMatch(/shop-prod-us/);
      // kubectl itself keeps the token as long as it runs.
      if (caller.passesStderr) expect(got.stderr).toMatch(oneLine);
    }
    expect(us.counts.login).toBe(1 + callers.filter(({ absent }) => !absent).length);
  });
});

describe('as another user, to whom file modes apply', () => {
  const nobody = 65534;
  test.skipIf(process.getuid?.() !== 0)(
    'a read-only home: a credential, and one line on stderr (skipped unless run by root)',
    async ({ us }) => {
      using home = new Home(us.server);
      // Only files that others may read: the checkout may belong to root.
      fs.chmodSync(home.root, 0o755);
      fs.chmodSync(home.dir, 0o555);
      const copy = path.join(home.root, 'bin');
      fs.cpSync(path.dirname(fs.realpathSync(program)), copy, { recursive: true });
      const answer = await new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) =>
        execFile(
          path.join(copy, 'kubectl-tka'),
          ['credential', '--server', us.server],
          { env: home.env as NodeJS.ProcessEnv, uid: nobody, gid: nobody, cwd: '/' },
          (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }),
        ),
      );
      expect(answer.code).toBe(0);
      expect(JSON.parse(answer.stdout).status.token).toMatch(/^eyJ/);
      expect(answer.stderr).toMatch(oneLine);
    },
  );
});
