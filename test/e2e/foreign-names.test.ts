// Names that entries of the user's own already have in the kubeconfig.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';

/** A kubeconfig whose context, cluster and user all have this name and are not managed. */
const foreign = (name: string) => `apiVersion: v1
kind: Config
# mine
clusters:
- cluster: {server: "https://mine.example.com"}
  name: ${name}
contexts:
- context: {cluster: ${name}, user: ${name}, namespace: web}
  name: ${name}
users:
- name: ${name}
  user:
    token: mine-and-secret
`;

const contexts = (file: string): string[] =>
  parse(fs.readFileSync(file, 'utf8')).contexts.map(({ name }: { name: string }) => name);
const current = (home: Home) => parse(fs.readFileSync(home.kubeconfig, 'utf8'))['current-context'];
/** Every line of a text is in the file, unchanged. */
const expectKept = (file: string, text: string) => {
  const after = lines(fs.readFileSync(file, 'utf8'));
  expect(after).toEqual(expect.arrayContaining(lines(text)));
};

describe.concurrent('a name that an unmanaged context has', () => {
  test('login writes tka-NAME with a warning, and finds it again', async ({ home, us }) => {
    home.write(home.kubeconfig, foreign('prod-us'));
    await home.transcript(`
      $ kubectl tka login prod-us
      Signed in to prod-us (${us.server}) as alice, …
      Switched to context "tka-prod-us".
      ! context "prod-us" already exists and is not managed by kubectl-tka; using "tka-prod-us"
      $ kubectl tka login prod-us
      Signed in to prod-us (${us.server}) as alice, …
      Context "tka-prod-us" is already the current context.
      $ kubectl tka logout prod-us
      Signed out of prod-us (${us.server}).
    `);
    expectKept(home.kubeconfig, foreign('prod-us'));
    expect(contexts(home.kubeconfig)).toEqual(['prod-us', 'tka-prod-us']);
    // Also after the foreign context is gone.
    home.write(home.kubeconfig, fs.readFileSync(home.kubeconfig, 'utf8').replaceAll(/\bprod-us$/gm, 'other'));
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    expect(contexts(home.kubeconfig)).toEqual(['other', 'tka-prod-us']);
  });

  test('login uses tka-NAME-2 if tka-NAME is taken as well', async ({ home }) => {
    home.write(home.kubeconfig, `${foreign('prod-us')}- {name: tka-prod-us, user: {token: mine}}\n`);
    for (const stderr of [/^context "prod-us" already exists .*; using "tka-prod-us-2"\n$/, /^$/])
      expect((await home.run('login prod-us')).stderr).toMatch(stderr);
    expect(contexts(home.kubeconfig)).toEqual(['prod-us', 'tka-prod-us-2']);
    expectKept(home.kubeconfig, foreign('prod-us'));
  });

  test('use writes tka-NAME for a cluster without a context, and finds it again', async ({ home }) => {
    home.write(home.kubeconfig, foreign('prod-eu'));
    await home.transcript(`
      $ kubectl tka use prod-eu
      Switched to context "tka-prod-eu".
      ! context "prod-eu" already exists and is not managed by kubectl-tka; using "tka-prod-eu"
      $ kubectl tka use prod-eu
      Switched to context "tka-prod-eu".
    `);
    expect(current(home)).toBe('tka-prod-eu');
    expectKept(home.kubeconfig, foreign('prod-eu'));
  });

  test.for(['sync', 'login --all-contexts'])('%s writes tka-NAME, once', async (command, { home }) => {
    home.write(home.kubeconfig, foreign('prod-eu'));
    const first = await home.run(command);
    expect(first).toMatchObject({ status: 0 });
    expect(first.stderr).toBe(
      'context "prod-eu" already exists and is not managed by kubectl-tka; using "tka-prod-eu"\n',
    );
    const written = fs.readFileSync(home.kubeconfig, 'utf8');
    expect(contexts(home.kubeconfig).sort()).toEqual(['prod-eu', 'prod-us', 'staging', 'tka-prod-eu']);
    expectKept(home.kubeconfig, foreign('prod-eu'));
    expect(await home.run(command)).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(written);
    // Login finds the context of sync.
    expect(await home.run('login prod-eu')).toMatchObject({ status: 0, stderr: '' });
    expect(current(home)).toBe('tka-prod-eu');
  });

  test('sync renames by a template around it, and stays there', async ({ home }) => {
    await home.run('sync');
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    home.write(home.kubeconfig, before.replace('contexts:\n', 'contexts:\n- {name: x-prod-eu, context: {}}\n'));
    const template = ['sync', '--context-template', 'x-{name}'];
    const ran = await home.run(template);
    expect(ran.stderr).toBe(
      'context "x-prod-eu" already exists and is not managed by kubectl-tka; using "tka-x-prod-eu"\n',
    );
    const names = ['tka-x-prod-eu', 'x-prod-eu', 'x-prod-us', 'x-staging'];
    expect(contexts(home.kubeconfig).sort()).toEqual(names);
    expect(await home.run(template)).toMatchObject({ status: 0, stderr: '' });
    expect(contexts(home.kubeconfig).sort()).toEqual(names);
  });

  test('--context decides: a free name is used, a foreign one is an error and nothing changes', async ({
    home,
    us,
  }) => {
    home.write(home.kubeconfig, foreign('prod-us'));
    const before = home.files();
    const refused = await home.run('login prod-us --context prod-us');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /^error: context "prod-us" already exists and is not managed by kubectl-tka\nhint: /,
    );
    expect(home.files()).toEqual(before);
    expect(us.counts.login).toBe(0);
    expect(await home.run('login prod-us --context mine')).toMatchObject({ status: 0, stderr: '' });
    expect(contexts(home.kubeconfig)).toEqual(['prod-us', 'mine']);
  });

  test.for<[string, (text: string) => string]>([
    [
      'cluster',
      (text) => text.replace('clusters:', 'clusters:\n- {name: prod-us, cluster: {server: "https://a.example"}}'),
    ],
    ['user', (text) => text.replace('users:', 'users:\n- {name: prod-us, user: {token: mine}}')],
  ])('a %s of that name counts too', async ([kind, add], { home }) => {
    const theirs = add(foreign('work'));
    home.write(home.kubeconfig, theirs);
    expect((await home.run('sync')).stderr).toBe(
      `${kind} "prod-us" already exists and is not managed by kubectl-tka; using "tka-prod-us"\n`,
    );
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    expectKept(home.kubeconfig, theirs);
    const { clusters, users } = parse(fs.readFileSync(home.kubeconfig, 'utf8'));
    for (const list of [clusters, users])
      expect(list.map(({ name }: { name: string }) => name)).toContain('tka-prod-us');
  });

  test('it can be in another file of KUBECONFIG, which is not changed', async ({ home }) => {
    const files = ['first', 'second', 'third'].map((name) => path.join(home.dir, name));
    const env = { KUBECONFIG: files.join(path.delimiter) };
    home.write(files[1] as string, foreign('prod-us'));
    home.write(files[2] as string, foreign('staging'));
    const ran = await home.run('sync', { env });
    expect(ran).toMatchObject({ status: 0 });
    expect(lines(ran.stderr).sort()).toEqual([
      'context "prod-us" already exists and is not managed by kubectl-tka; using "tka-prod-us"',
      'context "staging" already exists and is not managed by kubectl-tka; using "tka-staging"',
    ]);
    expect(await home.run('login prod-us', { env })).toMatchObject({ status: 0, stderr: '' });
    // kubectl writes new entries to the first file that exists, and so do we.
    expectKept(files[1] as string, foreign('prod-us'));
    expect(fs.readFileSync(files[2] as string, 'utf8')).toBe(foreign('staging'));
  });
});
