// Starts the program from any folder and by any name.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { callers, kubectl, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { bin, copyProgram, launched, program, start } from '../fixtures/program.ts';

const commandIn = (home: Home): string => parse(fs.readFileSync(home.kubeconfig, 'utf8')).users[0].user.exec.command;

/** Makes a folder with only these system programs. */
function bareFolder(home: Home, ...programs: readonly string[]): string {
  const folder = path.join(home.root, 'bare bin');
  fs.mkdirSync(folder);
  for (const name of programs) {
    const real = ['/bin', '/usr/bin'].map((dir) => path.join(dir, name)).find((file) => fs.existsSync(file));
    if (real !== undefined) fs.symlinkSync(real, path.join(folder, name));
  }
  return folder;
}

describe.concurrent('the program runs', () => {
  test('from another folder, by its absolute path', async ({ home }) => {
    expect(await home.run('version', { cwd: '/' })).toMatchObject({ status: 0, stderr: '' });
  });

  test('by a relative path', async ({ home }) => {
    expect(await start('./kubectl-tka', ['version'], home.env, { cwd: bin }).ran).toMatchObject({
      status: 0,
      stderr: '',
    });
    const relative = path.relative(home.dir, program);
    expect(await home.run('version', { program: relative })).toMatchObject({ status: 0, stderr: '' });
  });

  test('through links: absolute, relative, a link to a link, a link to its folder', async ({ home }) => {
    const links = path.join(home.root, 'some links');
    fs.mkdirSync(links);
    fs.symlinkSync(program, path.join(links, 'kubectl-tka'));
    fs.symlinkSync('kubectl-tka', path.join(links, 'again'));
    fs.symlinkSync(path.relative(links, program), path.join(links, 'relative'));
    fs.symlinkSync(bin, path.join(links, 'folder'));
    for (const name of ['kubectl-tka', 'again', 'relative', 'folder/kubectl-tka'])
      expect(await home.run('version', { program: path.join(links, name) })).toMatchObject({ status: 0, stderr: '' });
  });

  test('from a folder with spaces, quotes and dollar signs, after a move', async ({ home, us }) => {
    const copy = copyProgram(path.join(home.root, 'it\'s "my" $HOME; folder'));
    expect(await home.run('version', { program: copy })).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('login prod-us', { program: copy })).toMatchObject({ status: 0, stderr: '' });
    expect(commandIn(home)).toBe(copy);
    for (const { call } of callers.filter(({ absent }) => !absent))
      expect(await call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
    expect(us.counts.login).toBe(1);
  });

  test('without any node on PATH, and without PATH', async ({ home }) => {
    const bare = bareFolder(home, 'sh', 'readlink');
    expect(await home.run('version -o json', { env: { PATH: bare } })).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('version -o json', { env: { PATH: undefined } })).toMatchObject({ status: 0, stderr: '' });
    const link = path.join(home.root, 'kubectl-tka');
    fs.symlinkSync(program, link);
    expect(await home.run('version', { program: link, env: { PATH: bare } })).toMatchObject({ status: 0, stderr: '' });
  });

  test('with another node first on PATH: still uses its own', async ({ home }) => {
    const own = JSON.parse((await home.run('version -o json')).stdout).node;
    const fake = path.join(home.root, 'fake');
    home.write(path.join(fake, 'node'), '#!/bin/sh\necho v8.0.0\nexit 3\n', 0o755);
    const ran = await home.run('version -o json', { env: { PATH: `${fake}:${home.env.PATH}` } });
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(ran.stdout).node).toBe(own);
  });

  test('with an empty environment except HOME', async ({ home, us }) => {
    const ran = await start(program, ['credential', '--server', us.server], { HOME: home.dir }).ran;
    expect(ran).toMatchObject({ status: 0, stderr: '' });
  });

  test('found on PATH by a shell, also through `sh`', async ({ home }) => {
    const shell = (script: string, cwd = home.dir) => start('/bin/sh', ['-c', script], home.env, { cwd }).ran;
    expect(await shell('kubectl-tka version')).toMatchObject({ status: 0, stderr: '' });
    if (launched) expect(await shell('sh kubectl-tka version', bin)).toMatchObject({ status: 0, stderr: '' });
  });

  test.for(['dash', 'bash', 'busybox', 'ksh', 'mksh', 'zsh'])(
    'its launcher under %s, if installed',
    async (shell, { home }) => {
      const file = ['/bin', '/usr/bin'].map((dir) => path.join(dir, shell)).find((f) => fs.existsSync(f));
      if (file === undefined || !launched) return;
      const link = path.join(home.root, 'a link');
      fs.symlinkSync(program, link);
      const applet = shell === 'busybox' ? ['sh'] : [];
      expect(await start(file, [...applet, link, 'version'], home.env).ran).toMatchObject({ status: 0, stderr: '' });
    },
  );

  test.skipIf(!launched)('ignores NODE_OPTIONS, which is meant for the caller’s own Node', async ({ home, us }) => {
    for (const options of ['--require /nonexistent', '--inspect-brk=0', '--no-such-option']) {
      const env = { NODE_OPTIONS: options };
      expect(await home.run('version', { env })).toMatchObject({ status: 0, stderr: '' });
      expect(await home.credential(us, { env })).toMatchObject({ status: 0, stderr: '' });
    }
    const broken = await home.run('version', { env: { TKA_NODE_OPTIONS: '--require /nonexistent' } });
    expect(broken.stderr).toContain('/nonexistent');
  });

  test('without HOME: login writes the file that kubectl reads', async ({ home, us }) => {
    const folder = path.join(home.root, 'elsewhere');
    fs.mkdirSync(folder);
    for (const HOME of ['', undefined]) {
      const env = {
        HOME,
        XDG_STATE_HOME: path.join(home.root, 'state'),
        TKA_CACHE_DIR: home.cache,
        TKA_TAILSCALE_HOSTNAME: us.server,
      };
      expect((await home.run('login', { env, cwd: folder })).status).toBe(0);
      expect(fs.readFileSync(path.join(folder, '.kube', 'config'), 'utf8')).toContain(us.server);
      if (kubectl !== undefined)
        expect((await home.kubectl('config current-context', { env, cwd: folder })).stdout).toBe('prod-us\n');
      fs.rmSync(path.join(folder, '.kube'), { recursive: true });
    }
  });

  test('with arguments that contain shell syntax', async ({ home }) => {
    const odd = ['a b', '"c"', "d'e", '$f', '*', '', '--'];
    for (const name of odd.slice(0, 5)) {
      const refused = await home.run(['config', name]);
      expect(refused).toMatchObject({ status: 2, stdout: '' });
      expect(refused.stderr).toContain(`unknown setting ${JSON.stringify(name)}`);
    }
  });
});

describe.concurrent('the exec command in the kubeconfig is the path it was started by, without resolving links', () => {
  test('a relative path becomes absolute', async ({ home }) => {
    await start('./kubectl-tka', ['login', 'prod-us'], home.env, { cwd: bin }).ran;
    expect(commandIn(home)).toBe(program);
  });

  test('is absolute for a bare name that a shell found on PATH', async ({ home }) => {
    await start('/bin/sh', ['-c', 'kubectl-tka login prod-us'], home.env, { cwd: home.dir }).ran;
    expect(commandIn(home)).toBe(program);
  });

  test.skipIf(kubectl === undefined)(`kubectl tka${needsKubectl}`, async ({ home }) => {
    await home.kubectl('tka login prod-us');
    expect(commandIn(home)).toBe(program);
  });

  test('works for a caller whose PATH lacks it, such as a desktop program', async ({ home }) => {
    await home.run('login prod-us');
    for (const { call } of callers.filter(({ absent }) => !absent)) {
      const got = await call(home, 'get namespaces', { env: { PATH: '/usr/bin:/bin' } });
      expect(got).toMatchObject({ status: 0, stderr: '' });
    }
  });
});
