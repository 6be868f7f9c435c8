// Others edit the kubeconfig at the same time: we undo no successful change of theirs.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { kubectl, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { times, until } from '../fixtures/wait.ts';

const contextsOf = (home: Home): string[] =>
  parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.map(({ name }: { name: string }) => name);

describe('many logins at once', () => {
  test('each context exists afterwards, and the file is whole', async ({ home, mesh }) => {
    const all = await times(9, (i) => {
      const cluster = mesh.clusters[i % 3];
      return home.run(['login', cluster?.name ?? '', '--context', `ctx-${i % 3}`]);
    });
    for (const one of all) expect(one).toMatchObject({ status: 0, stderr: '' });
    expect(contextsOf(home).sort()).toEqual(['ctx-0', 'ctx-1', 'ctx-2']);
    expect(fs.readdirSync(`${home.dir}/.kube`).filter((name) => name !== 'cache')).toEqual(['config']);
  });

  test('login and forget at once, for different clusters', async ({ home, mesh }) => {
    await home.run('login --all-contexts');
    const [us, eu, staging] = mesh.clusters;
    const all = await Promise.all([
      home.run(['forget', eu?.server ?? '']),
      home.run(['login', us?.server ?? '']),
      home.run(['forget', staging?.server ?? '']),
      home.run(['login', us?.server ?? '', '--no-switch']),
    ]);
    for (const one of all) expect(one.status).toBe(0);
    expect(contextsOf(home)).toEqual(['prod-us']);
  });
});

describe.skipIf(kubectl === undefined)(`kubectl edits the kubeconfig at the same time${needsKubectl}`, () => {
  // kubectl reads before it locks, so it may undo our changes; we read under the lock, and undo nothing.
  test('every successful change of kubectl stays, and ours exists after the next login', async ({ home, mesh }) => {
    // Large enough for a file that kubectl is writing to be read half-written.
    const others = Array.from(
      { length: 1500 },
      (_, i) => `- context: {cluster: c${i}, user: u${i}}\n  name: other-${i}\n`,
    );
    home.write(home.kubeconfig, `apiVersion: v1\nkind: Config\ncontexts:\n${others.join('')}`);
    let over = false;
    const done: string[] = [];
    const refused: string[] = [];
    const byKubectl = async () => {
      for (let i = 0; !over && i < 60; i++) {
        const set = await home.kubectl(`config set-context mine-${i} --namespace=n${i}`);
        if (set.status === 0) done.push(`mine-${i}`);
        else refused.push(set.stderr);
      }
    };
    const byUs = async () => {
      for (let round = 0; round < 3; round++) {
        const all = await times(3, (i) =>
          home.run(['login', mesh.clusters[i]?.name ?? '', '--context', `ours-${i}`, '--no-switch']),
        );
        for (const one of all) expect(one).toMatchObject({ status: 0, stderr: '' });
      }
      over = true;
    };
    await Promise.all([byKubectl(), byUs()]);
    expect(done.length).toBeGreaterThan(0);
    // It does not wait for a lock, but reports it.
    for (const text of refused) expect(text).toMatch(/lock|exists/);
    const after = contextsOf(home);
    expect(after.filter((name) => name.startsWith('other-'))).toHaveLength(1500);
    expect(done.filter((name) => !after.includes(name))).toEqual([]);
    // Without kubectl, ours stay.
    for (const [i, cluster] of mesh.clusters.entries())
      expect(await home.run(['login', cluster.server, '--context', `ours-${i}`, '--no-switch'])).toMatchObject({
        status: 0,
      });
    expect(contextsOf(home)).toEqual(expect.arrayContaining([...done, 'ours-0', 'ours-1', 'ours-2']));
    expect((await home.kubectl('config get-contexts -o name')).status).toBe(0);
    expect(fs.existsSync(`${home.kubeconfig}.lock`)).toBe(false);
  });

  test('kubectl edits our entries: the next login keeps its additions', async ({ home }) => {
    await home.run('login prod-us');
    await home.kubectl('config set-context prod-us --namespace=shop');
    await home.kubectl('config set-cluster prod-us --tls-server-name=api.example.com');
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    expect(before).toContain('namespace: shop');
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(before);
  });

  test('kubectl rewrites the whole file in its own way: our entries are still managed', async ({ home, us }) => {
    await home.run('login --all-contexts');
    await home.kubectl('config use-context prod-us');
    await home.kubectl('config rename-context prod-us mine');
    expect(await home.kubectl('get namespaces')).toMatchObject({ status: 0, stderr: '' });
    expect((await home.run(['login', us.server])).stdout).toMatch(/Context "mine" is already the current context\.\n$/);
    expect((await home.run('forget --all')).stdout).toMatch(
      /Removed from the kubeconfig: mine, prod-eu, staging\.|Removed/,
    );
    expect((await home.kubectl('config get-contexts -o name')).stdout).toBe('');
    expect((await home.kubectl('config get-clusters')).stdout).toBe('NAME\n');
    expect((await home.kubectl('config get-users')).stdout).toBe('NAME\n');
  });

  test('an old lock of kubectl is an error with its path, and nothing changes', async ({ home, us }) => {
    await home.run('login prod-us');
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    home.write(`${home.kubeconfig}.lock`, '');
    const refused = await home.run(['login', us.server, '--context', 'other']);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/^error: .*config is locked by another program: .*\nhint: .*rm /);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(before);
    expect(fs.existsSync(`${home.kubeconfig}.lock`)).toBe(true);
  });
});

describe('a login that is ended while it waits for a lock', () => {
  test('leaves no lock behind', async ({ home }) => {
    const real = path.join(home.dir, 'z', 'config');
    home.write(real, 'kind: Config\n');
    home.write(`${real}.lock`, '');
    fs.mkdirSync(path.dirname(home.kubeconfig), { recursive: true });
    fs.symlinkSync(real, home.kubeconfig);
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const { child, ran } = home.start('login prod-us');
      await until('the first lock', () => fs.existsSync(`${home.kubeconfig}.lock`));
      child.kill(signal);
      expect((await ran).status).toBe(signal === 'SIGINT' ? 130 : 143);
      expect(fs.readdirSync(path.dirname(home.kubeconfig))).toEqual(['config']);
      expect(fs.readdirSync(path.dirname(real))).toEqual(['config', 'config.lock']);
    }
  });
});
