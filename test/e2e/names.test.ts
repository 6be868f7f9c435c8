// Lists and globs as names of several clusters.
import { describe, expect } from 'vitest';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';

const sessions = async (home: Home) => lines((await home.run('status -o name')).stdout);
const contexts = async (home: Home) =>
  (JSON.parse((await home.run('clusters -o json')).stdout) as { context: string | null }[]).flatMap(
    ({ context }) => context ?? [],
  );
const noKubectl = (home: Home) => {
  home.write(`${home.dir}/bin/kubectl`, '#!/bin/sh\necho here\n', 0o755);
  return { env: { PATH: `${home.dir}/bin:${home.env.PATH}` } };
};

describe.concurrent('login', () => {
  test('a glob signs in to every cluster that matches, and to no other', async ({ home, mesh }) => {
    expect(await home.run(['login', 'prod-*'])).toMatchObject({ status: 0, stderr: '' });
    expect(await sessions(home)).toEqual(['prod-eu', 'prod-us']);
    expect(mesh.cluster('staging').counts.login).toBe(0);
  });

  test('a glob is for several clusters, also if one matches: the current context does not change', async ({ home }) => {
    await home.run('login staging');
    expect(await home.run(['login', 'prod-u*'])).toMatchObject({ status: 0 });
    expect(await home.run('status --no-headers')).toMatchObject({ status: 0 });
    const { stdout } = await home.run(['use', '-']);
    expect(stdout).not.toContain('staging');
    expect(await home.run(['login', 'prod-u*', '--context', 'x'])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('--context works for one cluster at a time'),
    });
  });

  test('a list, with globs and twice the same name, signs in to each once', async ({ home, us, mesh }) => {
    expect(await home.run(['login', 'prod-us,st*', 'prod-us', 'prod-u*'])).toMatchObject({ status: 0, stderr: '' });
    expect(await sessions(home)).toEqual(['prod-us', 'staging']);
    expect([us.counts.login, mesh.cluster('staging').counts.login]).toEqual([1, 1]);
  });

  test('a context whose name looks like a glob or a list is meant by that name', async ({ home, us, eu }) => {
    await home.run('login prod-eu');
    for (const name of ['prod-*', 'prod-eu,prod-us']) {
      expect(await home.run(['login', 'prod-us', '--context', name])).toMatchObject({ status: 0 });
      expect(await home.run(['login', name])).toMatchObject({ status: 0, stderr: '' });
      expect(await home.run(['logout', name])).toMatchObject({ status: 0, stderr: '' });
      expect(us.signIn(), name).toBeUndefined();
      expect(eu.signIn(), name).toBeDefined();
    }
    expect(eu.counts.login).toBe(1);
  });

  test('a glob that matches nothing is an error with the names', async ({ home }) => {
    expect(await home.run(['login', 'dev-*'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: 'error: no cluster matches "dev-*"\nhint: the names are prod-eu, prod-us, staging\n',
    });
    expect(await home.run(['login', 'prod-us,'])).toMatchObject({ status: 2, stdout: '' });
    expect(await home.cached()).toEqual([]);
  });

  test('a URL is never a glob or a list', async ({ home, us }) => {
    const ran = await home.run(['login', `${us.server},https://*`]);
    expect(ran).toMatchObject({ status: 2, stderr: expect.stringContaining('invalid server') });
    expect(us.counts.login).toBe(0);
  });
});

describe.concurrent('exec', () => {
  test('a list and a glob', async ({ home }) => {
    const labels = (stdout: string) =>
      lines(stdout)
        .map((line) => line.split(/[ :|]/)[0])
        .sort();
    const options = noKubectl(home);
    const list = await home.run('exec prod-eu,staging -- version', options);
    expect({ ...list, labels: labels(list.stdout) }).toMatchObject({ status: 0, labels: ['prod-eu', 'staging'] });
    const glob = await home.run(['exec', '*-u*', '--', 'version'], options);
    expect({ ...glob, labels: labels(glob.stdout) }).toMatchObject({ status: 0, labels: ['prod-us'] });
    const none = await home.run(['exec', 'dev-*', '--', 'version'], options);
    expect(none).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining('no cluster matches "dev-*"'),
    });
  });
});

describe.concurrent('logout', () => {
  test('a glob signs out of matching local sessions, and asks no other server', async ({ home, us, eu, mesh }) => {
    await home.run('login prod-us staging');
    expect(await home.run(['logout', 'prod-*'])).toMatchObject({ status: 0, stderr: '' });
    expect(us.signIn()).toBeUndefined();
    expect(mesh.cluster('staging').signIn()).toBeDefined();
    expect(eu.counts.logout).toBe(0);
    const rows = JSON.parse((await home.run('status -o json')).stdout) as { name: string; state: string }[];
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['prod-us', 'signed-out'],
      ['staging', 'active'],
    ]);
  });

  test('a glob without a local match is an error with the names, even if the list has such a cluster', async ({
    home,
    eu,
  }) => {
    await home.run('login prod-us');
    expect(await home.run(['logout', '*-eu'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^error: no session or context matches "\*-eu"\nhint: the names are .*\bprod-us\n$/,
      ),
    });
    expect(eu.counts.logout).toBe(0);
  });

  test('a list signs out of each', async ({ home, us, mesh }) => {
    await home.run('login prod-us staging prod-eu');
    expect(await home.run('logout prod-us,staging')).toMatchObject({ status: 0, stderr: '' });
    expect([us.signIn(), mesh.cluster('staging').signIn()]).toEqual([undefined, undefined]);
    expect((await contexts(home)).length).toBe(3);
  });
});

describe.concurrent('forget', () => {
  test('a glob and a list forget what is held here and matches', async ({ home, us, mesh }) => {
    await home.run('login prod-us staging prod-eu');
    expect(await home.run(['forget', 'prod-*'])).toMatchObject({ status: 0 });
    expect([us.signIn(), await contexts(home)]).toEqual([undefined, ['staging']]);
    expect(mesh.cluster('staging').signIn()).toBeDefined();
    const none = await home.run(['forget', 'prod-*']);
    expect(none).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('no session or context matches "prod-*"'),
    });
    await home.run('login prod-us');
    expect(await home.run('forget prod-us,staging')).toMatchObject({ status: 0 });
    expect(await contexts(home)).toEqual([]);
  });
});

test('TAB completes each name of a list', async ({ home }) => {
  await home.run('clusters');
  const { stdout } = await home.run(['__complete', 'exec', 'prod-eu,pr']);
  expect(stdout).toMatch(/^prod-eu,prod-us\t.*\n:4\n$/);
});
