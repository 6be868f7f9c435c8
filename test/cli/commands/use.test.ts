// `use` of the built program without a terminal.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../../fixtures/home.ts';
import { kubectl } from '../../fixtures/kubectl.ts';
import { test } from '../../fixtures/mesh.ts';
import { jwt } from '../../fixtures/program.ts';

// A kubeconfig whose current context is not managed.
const theirs = `apiVersion: v1
kind: Config
contexts:
- name: mine
  context: {cluster: c, user: u}
current-context: mine
`;
const current = (home: Home) => /^current-context: "?([^"\n]*)"?$/m.exec(fs.readFileSync(home.kubeconfig, 'utf8'))?.[1];

describe('use NAME', () => {
  test('of a cluster without a context: writes it without a sign-in, and switches', async ({ home, us, eu }) => {
    await home.transcript(`
      $ kubectl tka use prod-eu
      Switched to context "prod-eu".
    `);
    expect(current(home)).toBe('prod-eu');
    for (const cluster of [us, eu]) expect(cluster.counts.login).toBe(0);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).not.toMatch(jwt);
    // The same as login --all-contexts would have written.
    const written = fs.readFileSync(home.kubeconfig, 'utf8');
    await home.run('login --all-contexts');
    await home.run('forget prod-us');
    await home.run('forget staging');
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(written);
    if (kubectl !== undefined) expect((await home.kubectl('get namespaces')).stdout).toMatch(/shop-prod-eu +Active/);
  });

  test('of a managed context: uses the kubeconfig only, without the network', async ({ home, mesh }) => {
    await home.run('login --all-contexts');
    for (const cluster of mesh.clusters) cluster.resetCounts();
    await home.transcript(`
      $ kubectl tka use staging
      Switched to context "staging".
    `);
    expect(current(home)).toBe('staging');
    for (const cluster of mesh.clusters) expect(cluster.requests).toEqual([]);
    await mesh.close();
    await home.transcript(`
      $ kubectl tka use prod-us
      Switched to context "prod-us".
      $ kubectl tka use -q prod-eu
    `);
    expect(current(home)).toBe('prod-eu');
  });

  test('changes one line of an existing kubeconfig', async ({ home }) => {
    await home.run('login --all-contexts');
    await home.run('use staging');
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    await home.run('use prod-us');
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(
      before.replace('current-context: "staging"', 'current-context: "prod-us"'),
    );
    // Again: nothing changes, but it is printed, as kubectl does.
    expect((await home.run('use prod-us')).stdout).toBe('Switched to context "prod-us".\n');
  });

  test('of a context that is not managed: needs no network once a list is known, and goes back', async ({
    home,
    mesh,
  }) => {
    home.write(
      home.kubeconfig,
      theirs.replace('contexts:', 'contexts:\n- {name: minikube, context: {cluster: c, user: u}}'),
    );
    await home.run('login --all-contexts');
    for (const cluster of mesh.clusters) cluster.resetCounts();
    await home.transcript(`
      $ kubectl tka use minikube
      Switched to context "minikube".
      $ kubectl tka use prod-us
      Switched to context "prod-us".
      $ kubectl tka use -
      Switched to context "minikube".
      $ kubectl tka use -
      Switched to context "prod-us".
    `);
    for (const cluster of mesh.clusters) expect(cluster.requests).toEqual([]);
    expect((await home.run('use mini')).stdout).toBe('Switched to context "minikube".\n');
    expect(current(home)).toBe('minikube');
    await mesh.close();
    expect(await home.run('use mine')).toMatchObject({ stdout: 'Switched to context "mine".\n', stderr: '' });
    fs.rmSync(home.state, { recursive: true });
    expect(await home.run('use minikube')).toMatchObject({ stdout: 'Switched to context "minikube".\n', stderr: '' });
  });

  test('prefers a cluster to a context with its name that is not managed', async ({ home }) => {
    home.write(home.kubeconfig, theirs.replaceAll('mine', 'prod-eu'));
    expect((await home.run('use prod-eu')).stdout).toBe('Switched to context "tka-prod-eu".\n');
    expect((await home.run('use prod-eu')).stdout).toBe('Switched to context "tka-prod-eu".\n');
    expect((await home.run('use -')).stdout).toBe('Switched to context "prod-eu".\n');
  });

  test('lists several matches of a prefix, of any kind, exit 2', async ({ home }) => {
    home.write(home.kubeconfig, theirs.replaceAll('mine', 'stuff'));
    await home.transcript(`
      $ kubectl tka use st
      ! error: 2 clusters and contexts have names that start with "st"
      ! hint: staging (healthy)
      ! hint: stuff (not managed)
      [2]
    `);
    expect(current(home)).toBe('stuff');
  });

  test('accepts an unambiguous prefix of a cluster or of a context', async ({ home, eu }) => {
    expect((await home.run('use st')).stdout).toBe('Switched to context "staging".\n');
    await home.run(['login', eu.server, '--context', 'frankfurt']);
    expect((await home.run('use st')).stdout).toBe('Switched to context "staging".\n');
    expect((await home.run('use fr')).stdout).toBe('Switched to context "frankfurt".\n');
    await home.run('use staging');
    expect((await home.run('use prod-e')).stdout).toBe('Switched to context "frankfurt".\n');
  });

  test('lists the candidates of an ambiguous prefix, exit 2', async ({ home }) => {
    await home.run('login prod-us');
    await home.run('use staging');
    await home.transcript(`
      $ kubectl tka use prod
      ! error: 2 clusters have names that start with "prod"
      ! hint: prod-eu (healthy)
      ! hint: prod-us (healthy)
      [2]
    `);
    expect(current(home)).toBe('staging');
  });

  test('accepts a prefix of a managed context while the mesh is down, with a warning', async ({ home, mesh }) => {
    await home.run('login prod-us');
    await home.run('use staging');
    fs.rmSync(home.state, { recursive: true, force: true });
    await mesh.close();
    const ran = await home.run('use prod-u');
    expect(ran).toMatchObject({ status: 0, stdout: 'Switched to context "prod-us".\n' });
    const none = await home.run('use nowhere');
    expect(none).toMatchObject({ status: 1, stdout: '' });
    expect(none.stderr).toMatch(/^error: /m);
  });

  test('of a cluster after a logout: switches, with a warning', async ({ home }) => {
    await home.run('login prod-us');
    await home.run('logout prod-us');
    await home.transcript(`
      $ kubectl tka use prod-us
      Switched to context "prod-us".
      ! you are signed out of this cluster
      ! hint: kubectl tka login prod-us
    `);
  });

  test.for<[string, number, RegExp]>([
    ['use nowhere', 1, /^error: no cluster named "nowhere"\nhint: kubectl tka clusters/],
    ['use min prod', 2, /^error: too many arguments/],
    ['use mine -n Web', 2, /^error: invalid namespace "Web"\nhint: /],
    ['use mine -n -web', 2, /^error: invalid namespace "-web"\nhint: /],
    ['use a b', 2, /^error: too many arguments/],
    ['use -', 1, /^error: no previous context\nhint: kubectl tka use NAME\n$/],
  ])('%s: exit %d, nothing written', async ([args, status, stderr], { home }) => {
    home.write(home.kubeconfig, theirs);
    const before = fs.readFileSync(home.kubeconfig);
    const ran = await home.run(args);
    expect(ran).toMatchObject({ status, stdout: '' });
    expect(ran.stderr).toMatch(stderr);
    expect(fs.readFileSync(home.kubeconfig)).toEqual(before);
  });

  test('the empty name', async ({ home }) => {
    expect(await home.run(['use', ''])).toMatchObject({ status: 2, stdout: '' });
  });

  test('refuses what login --all-contexts refuses, and writes nothing', async ({ home, us }) => {
    us.faults.clusterInfo = { server_url: 'https://127.0.0.1:1' };
    const other = await home.run('use prod-us');
    expect(other).toMatchObject({ status: 1, stdout: '' });
    expect(other.stderr).toMatch(/^error: \S+ is not the TKA server of prod-us/);
    us.faults.clusterInfo = { insecure_skip_tls_verify: true };
    const insecure = await home.run('use prod-us');
    expect(insecure).toMatchObject({ status: 1, stdout: '' });
    expect(insecure.stderr).toContain(`--insecure-skip-tls-verify`);
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
  });
});

describe('use -n', () => {
  const namespaces = (home: Home) =>
    Object.fromEntries(
      parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.map(
        ({ name, context }: { name: string; context: { namespace?: string } }) => [name, context.namespace],
      ),
    );

  test('sets the namespace of a context, new, managed or not, which later commands keep', async ({ home }) => {
    home.write(home.kubeconfig, theirs);
    await home.transcript(`
      $ kubectl tka use prod-eu -n web
      Switched to context "prod-eu", namespace "web".
      $ kubectl tka use prod-eu --namespace shop
      Switched to context "prod-eu", namespace "shop".
      $ kubectl tka use mine -n kube-system
      Switched to context "mine", namespace "kube-system".
      $ kubectl tka use - -n a
      Switched to context "prod-eu", namespace "a".
      $ kubectl tka use -n b
      Switched to context "prod-eu", namespace "b".
    `);
    expect(namespaces(home)).toEqual({ mine: 'kube-system', 'prod-eu': 'b' });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toContain(
      '\n- name: mine\n  context: {cluster: c, user: u, "namespace": "kube-system"}\n',
    );
    for (const command of ['login prod-eu', 'sync', 'use mine', 'use prod-eu'])
      expect(await home.run(command)).toMatchObject({ status: 0, stderr: '' });
    expect(namespaces(home)).toEqual({ mine: 'kube-system', 'prod-eu': 'b', 'prod-us': undefined, staging: undefined });
    if (kubectl !== undefined)
      expect((await home.kubectl('config view --minify -o jsonpath={..namespace}')).stdout).toBe('b');
  });

  test('is like kubectl config set-context for a context in any file', async ({ home }) => {
    const files = ['a.yaml', 'b.json'].map((name) => path.join(home.dir, name));
    const env = { KUBECONFIG: files.join(path.delimiter) };
    home.write(files[0] as string, theirs);
    const other = {
      apiVersion: 'v1',
      kind: 'Config',
      contexts: [{ name: 'other', context: { cluster: 'c', user: 'u' } }],
    };
    home.write(files[1] as string, JSON.stringify(other));
    expect(await home.run('use other -n web', { env })).toMatchObject({ status: 0, stderr: '' });
    const before = theirs.replace('current-context: mine', 'current-context: "other"');
    expect(fs.readFileSync(files[0] as string, 'utf8')).toBe(before);
    expect(JSON.parse(fs.readFileSync(files[1] as string, 'utf8')).contexts[0].context.namespace).toBe('web');
  });

  test('without NAME needs a current context', async ({ home }) => {
    const ran = await home.run('use -n web');
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toBe('error: no current context\nhint: name one: kubectl tka use NAME -n NAMESPACE\n');
  });

  test('does not change a context that shares its fields with another', async ({ home }) => {
    const shared = theirs
      .replace('context: {', 'context: &c {')
      .replace('current', '- {name: two, context: *c}\ncurrent');
    home.write(home.kubeconfig, shared);
    expect((await home.run('use mine -n web')).stderr).toMatch(/^error: .*config:\d+.*\nhint: /);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(shared);
  });
});

describe('use -', () => {
  test('goes back, and forth again', async ({ home }) => {
    await home.run('login --all-contexts');
    await home.run('use prod-us');
    await home.run('use staging');
    for (const name of ['prod-us', 'staging', 'prod-us']) {
      await home.transcript(`
        $ kubectl tka use -
        Switched to context "${name}".
      `);
      expect(current(home)).toBe(name);
    }
  });

  test('goes back to a context that is not managed', async ({ home }) => {
    home.write(home.kubeconfig, theirs);
    await home.run('use prod-us');
    expect((await home.run('use -')).stdout).toBe('Switched to context "mine".\n');
    expect(current(home)).toBe('mine');
  });

  test('reports a context that no longer exists', async ({ home }) => {
    await home.run('use prod-us');
    await home.run('use staging');
    await home.run('forget prod-us');
    await home.transcript(`
      $ kubectl tka use -
      ! error: previous context "prod-us" no longer exists
      ! hint: kubectl tka use NAME
      [1]
    `);
  });

  test('each kubeconfig has its own previous context, in a private file', async ({ home }) => {
    const other = path.join(home.dir, 'other.yaml');
    for (const name of ['prod-us', 'staging']) await home.run(['use', name]);
    for (const name of ['prod-eu', 'prod-us']) await home.run(['--kubeconfig', other, 'use', name]);
    await home.transcript(`
      $ kubectl tka use -
      Switched to context "prod-us".
      $ KUBECONFIG='${other}' kubectl tka use -
      Switched to context "prod-eu".
    `);
    const folder = path.join(home.state, 'previous-context');
    expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
    for (const name of fs.readdirSync(folder)) expect(fs.statSync(path.join(folder, name)).mode & 0o777).toBe(0o600);
    // Invalid content: no previous context, and no harm.
    for (const text of ['', '{', 'null', '{"context":1}', '{"context":""}']) {
      for (const name of fs.readdirSync(folder)) fs.writeFileSync(path.join(folder, name), text);
      expect(await home.run('use -')).toMatchObject({ status: 1, stdout: '' });
    }
  });

  test('switches even if it cannot remember the previous context', async ({ home }) => {
    await home.run('login --all-contexts');
    await home.run('use prod-us');
    fs.rmSync(home.state, { recursive: true, force: true });
    home.write(home.state, 'a file where the folder should be');
    await home.transcript(`
      $ kubectl tka use staging
      Switched to context "staging".
      ! …
      ! warning: cannot remember the previous context: …
      ! …
    `);
    expect(current(home)).toBe('staging');
  });
});

describe('use without a name', () => {
  test('is an error with the list without a terminal, exit 2', async ({ home, eu }) => {
    await home.run(['login', eu.server, '--context', 'frankfurt']);
    await home.transcript(`
      $ kubectl tka use
      ! error: a cluster name is required: there is no terminal to choose one on
      ! hint: prod-eu (healthy, context frankfurt)
      ! hint: prod-us (healthy)
      ! hint: staging (healthy)
      [2]
    `);
  });
});
