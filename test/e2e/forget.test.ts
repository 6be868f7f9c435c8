// `forget` removes everything managed, and nothing else.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { callers } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { jwt } from '../fixtures/program.ts';

const theirs = `# my clusters
apiVersion: v1
kind: Config
current-context: work   # where I am
contexts:
# the one at work
- context: {cluster: work, user: me}
  name: work
clusters:
- name: work
  cluster: { server: "https://work.example.com:6443" }
users:
- name: me
  user: {token: "not-ours"}
preferences: {}
`;

describe.concurrent('forget', () => {
  test('removes context, cluster and user, signs out, and leaves nothing behind', async ({ home, us }) => {
    await home.run('login prod-us');
    await home.transcript(`
      $ kubectl tka forget prod-us
      Signed out of prod-us (${us.server}).
      Removed from the kubeconfig: prod-us.
      ! no current context any more (was "prod-us")
      ! hint: kubectl config use-context NAME

      $ kubectl tka status -o json
      []
    `);
    expect(us.signIn()).toBeUndefined();
    expect(home.cached()).toEqual([]);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).not.toMatch(/prod-us|127\.0\.0\.1|kubectl-tka/);
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
  });

  test('takes several names, lists, globs and a selector, as logout does', async ({ home, mesh }) => {
    await home.transcript(`
      $ kubectl tka forget -l environment=production
      ! error: no session or context for … on this machine
      ! hint: kubectl tka status
      ! hint: kubectl config get-contexts
      [1]
    `);
    await home.run('sync');
    await home.run('login prod-us prod-eu');
    const forgotten = async (args: string | string[]) =>
      /^Removed.*: (.*)\.$/m.exec((await home.run(args)).stdout)?.[1];
    expect(await forgotten('forget prod-us staging')).toBe('prod-us, staging');
    expect(mesh.clusters.map((cluster) => cluster.signIn() !== undefined)).toEqual([false, true, false]);
    await home.run('sync');
    expect(await forgotten('forget prod-us,prod-eu')).toBe('prod-eu, prod-us');
    await home.run('sync');
    expect(await forgotten(['forget', 'prod-*'])).toBe('prod-eu, prod-us');
    // Of the selected clusters, only those that this machine has something about.
    await home.run('login prod-eu');
    expect(await forgotten('forget -l environment=production')).toBe('prod-eu');
    expect(await forgotten('forget --all')).toBe('staging');
  });

  test('one unknown name of several: nothing is forgotten', async ({ home, us }) => {
    await home.run('login prod-us');
    const before = home.files();
    for (const command of ['forget', 'logout']) {
      const refused = await home.run([command, 'prod-us', 'prod-u']);
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(/^error: no cluster or context named "prod-u"; did you mean .*\?\nhint: /);
    }
    expect(home.files()).toEqual(before);
    expect(us.signIn()).toBeDefined();
  });

  test('a forgotten cluster comes back with a sync, unlike after a logout', async ({ home, us, eu }) => {
    await home.run('sync');
    expect((await home.run('forget prod-us')).status).toBe(0);
    expect((await home.run('logout prod-eu')).status).toBe(0);
    expect((await home.credential(us)).stderr).toMatch(/^error: .*\nhint: kubectl tka login/);
    expect((await home.run('sync')).status).toBe(0);
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
    expect(await home.credential(eu)).toMatchObject({ status: 1, stdout: '' });
  });

  test('restores a file with comments byte for byte', async ({ home }) => {
    home.write(home.kubeconfig, theirs);
    await home.run('login prod-us --no-switch');
    await home.run('login --all-contexts');
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).not.toBe(theirs);
    expect((await home.run('forget --all')).status).toBe(0);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(theirs);
  });

  test('of several: the others stay, and work', async ({ home, eu }) => {
    await home.run('login --all-contexts');
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    await home.run('login prod-us --no-switch');
    expect((await home.run('forget prod-us')).stdout).toContain('Removed from the kubeconfig: prod-us.\n');
    for (const { call } of callers.filter(({ absent }) => !absent))
      expect(await call(home, '--context prod-eu get namespaces')).toMatchObject({ status: 0, stderr: '' });
    expect(eu.counts.login).toBe(1);
    await home.run('login --all-contexts');
    const words = (text: string) => text.split('\n').sort();
    expect(words(fs.readFileSync(home.kubeconfig, 'utf8'))).toEqual(words(before));
  });

  test('--all removes every session, mark, consent and managed context', async ({ home, mesh, us }) => {
    home.write(home.kubeconfig, theirs);
    await home.run('login --all-contexts');
    await home.run('login prod-us --no-switch');
    await home.run('login prod-eu --no-switch');
    await home.run('logout prod-eu');
    const before = home.files(/^\.(?:cache|local|kube)/);
    const all = await home.run('forget --all');
    expect(all).toMatchObject({ status: 0, stderr: '' });
    expect(all.stdout).toContain(`Signed out of prod-us (${us.server}).\n`);
    expect(all.stdout).toMatch(/^Removed from the kubeconfig: prod-eu, prod-us, staging\.$/m);
    for (const cluster of mesh.clusters) expect(cluster.signIn()).toBeUndefined();
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(theirs);
    expect(home.cached()).toEqual([]);
    expect(Object.values(home.files()).join('\n')).not.toMatch(jwt);
    expect(home.files(/^\.(?:cache|local|kube)/)).toEqual(before);
    expect((await home.run('status -o json')).stdout).toBe('[]\n');
  });

  test('while the server is down: reports it, and forgets anyway', async ({ home, us }) => {
    home.write(home.kubeconfig, theirs);
    await home.run('login prod-us --no-switch');
    await us.stop();
    const half = await home.run('forget prod-us');
    expect(half.stdout).toBe('Removed from the kubeconfig: prod-us.\n');
    expect(half.stderr).toMatch(/^warning: signed out on this machine, but not on the server: cannot reach /);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(theirs);
    expect(home.cached()).toEqual([]);
  });

  test('removes a renamed context with its cluster and user', async ({ home }) => {
    home.write(home.kubeconfig, theirs);
    await home.run('login prod-us --no-switch');
    const text = fs.readFileSync(home.kubeconfig, 'utf8');
    // As `kubectl config rename-context` does it.
    const renamed = text.replace(/(- context:\n(?: {4}.*\n)+ {2}name: )"prod-us"/, '$1"mine"');
    expect(renamed).not.toBe(text);
    home.write(home.kubeconfig, renamed);
    expect((await home.run('forget mine')).stdout).toContain('Removed from the kubeconfig: mine.\n');
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(theirs);
  });

  test('of an unmanaged context: exit 1, nothing changed', async ({ home, us }) => {
    home.write(home.kubeconfig, theirs);
    const before = home.files();
    for (const name of ['work', 'https://nowhere.example.com', 'prod-us']) {
      const refused = await home.run(['forget', name], { env: { TKA_TIMEOUT: '4s' } });
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(/^error: .*\nhint: /m);
    }
    expect(home.files()).toEqual(before);
    expect(us.counts).toMatchObject({ login: 0, logout: 0 });
  });
});
