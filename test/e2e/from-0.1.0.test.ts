// The files of version 0.1.0 on a machine still work: kubeconfig, cache entries, logout marks, the last list.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import { entryName } from '../../src/credential/entry.ts';
import type { SandboxMesh } from '../../src/sandbox/mesh.ts';
import type { Home } from '../fixtures/home.ts';
import { testWithReplicas as test } from '../fixtures/mesh.ts';
import { program } from '../fixtures/program.ts';

const samples = path.join(import.meta.dirname, '../samples/v0.1.0');
const rfc3339 = (time: number) => new Date(time).toISOString().replace(/\.\d+Z$/, 'Z');

/**
 * Puts the files of version 0.1.0 into a HOME, and makes the servers answer as version 0.1.0 does. `left` is the
 * remaining lifetime of the token in milliseconds.
 */
function install(home: Home, mesh: SandboxMesh, left = 20 * 60_000): { token: string } {
  const us = mesh.cluster('prod-us');
  const now = Math.floor(Date.now() / 1000) * 1000;
  const token = us.issueToken({ ttlMs: left });
  const values: Record<string, string> = {
    ...{ ca: us.caData, command: program, token, length: String(token.length), now: String(now - 60_000) },
    ...{ expires: rfc3339(now + left), until: rfc3339(now + left), refresh: String((now + left * 0.9) / 1000 - 120) },
  };
  for (const cluster of mesh.clusters) {
    cluster.gossip.cluster = null;
    values[cluster.name] = cluster.server;
    values[`${cluster.name} api`] = cluster.apiServer;
  }
  const put = (sample: string, file: string) => {
    const text = fs.readFileSync(path.join(samples, sample), 'utf8');
    home.write(
      file,
      text.replace(/\{\{(.+?)\}\}/g, (_, key) => values[key] ?? expect.fail(`no value for ${key}`)),
    );
  };
  put('kubeconfig.yaml', home.kubeconfig);
  put('entry', home.entry(us));
  fs.chmodSync(home.cache, 0o700);
  // The mtime of an entry is its fresh-until time.
  fs.utimesSync(home.entry(us), Number(values.refresh), Number(values.refresh));
  const name = entryName(us.server);
  put('list.json', path.join(home.state, 'clusters', `${name}.json`));
  put('synced.json', path.join(home.state, 'synced', `${name}.json`));
  put('signed-out', path.join(home.state, 'signed-out', entryName(mesh.cluster('staging').server) ?? ''));
  return { token };
}

const contexts = (home: Home): string[] =>
  parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.map(({ name }: { name: string }) => name);
const before = ['prod-us', '127.0.0.1', 'prod-eu', 'staging'];

describe('files of version 0.1.0', () => {
  test('a fresh token is served without a request', async ({ mesh, home }) => {
    const { token } = install(home, mesh);
    const us = mesh.cluster('prod-us');
    const ran = await home.credential(us);
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(ran.stdout).status.token).toBe(token);
    expect(us.requests).toEqual([]);
  });

  test('a stale one is refreshed, in the same file', async ({ mesh, home }) => {
    const { token } = install(home, mesh, -60_000);
    const us = mesh.cluster('prod-us');
    const ran = await home.credential(us);
    expect(ran.status).toBe(0);
    expect(JSON.parse(ran.stdout).status.token).not.toBe(token);
    expect(us.counts.login).toBe(1);
    expect(home.token(us)).toBe(JSON.parse(ran.stdout).status.token);
  });

  test.for([null, 'stated'])(
    'its servers are grouped, and no context is renamed: cluster %s',
    async (name, { mesh, home }) => {
      install(home, mesh);
      if (name !== null) for (const cluster of mesh.clusters) delete cluster.gossip.cluster;
      const rows = JSON.parse((await home.run('clusters -o json')).stdout);
      expect(rows).toMatchObject([
        { name: 'prod-eu', context: 'prod-eu' },
        {
          name: 'prod-us',
          context: 'prod-us',
          session: { username: 'alice' },
          servers: [{ name: 'prod-us' }, { name: 'prod-us-1' }],
        },
        { name: 'staging', context: 'staging' },
      ]);
      expect(await home.run('sync')).toMatchObject({ status: 0, stdout: expect.stringMatching(/^4 unchanged\b/) });
      expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
      expect(await home.run('use prod-us-1')).toMatchObject({ status: 0, stdout: 'Switched to context "prod-us".\n' });
      expect(contexts(home)).toEqual(before);
    },
  );

  test('nothing is pruned, since it is unknown what named the servers', async ({ mesh, home }) => {
    install(home, mesh);
    for (const name of ['staging', 'prod-eu']) mesh.cluster(name).gossip.listed = false;
    fs.rmSync(path.join(home.state, 'clusters'), { recursive: true });
    const ran = await home.run('sync --prune');
    expect(ran).toMatchObject({ status: 0, stderr: expect.stringMatching(/^not removed, .*: prod-eu, staging$/m) });
    expect(contexts(home)).toEqual(before);
  });

  test('status has one row for a cluster, and a logout still counts', async ({ mesh, home }) => {
    install(home, mesh);
    await home.credential(mesh.cluster('prod-us-1'));
    expect(JSON.parse((await home.run('status -o json')).stdout)).toMatchObject([
      { name: 'prod-us', context: 'prod-us', state: 'active' },
      { name: 'staging', context: 'staging', state: 'signed-out' },
    ]);
    expect(await home.credential(mesh.cluster('staging'))).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^error: signed out of .*\nhint: kubectl tka login staging\n$/),
    });
  });

  test('without any server its last list is still used', async ({ mesh, home }) => {
    install(home, mesh);
    for (const cluster of mesh.clusters) await cluster.stop();
    const ran = await home.run('clusters -o json');
    expect(ran).toMatchObject({ status: 0, stderr: expect.stringMatching(/showing the list (?:of|from) /) });
    const rows: { name: string; servers: unknown[] }[] = JSON.parse(ran.stdout);
    expect(rows.map(({ name, servers }) => [name, servers.length])).toEqual([
      ['prod-eu', 1],
      ['prod-us', 2],
      ['staging', 1],
    ]);
    const { stdout } = await home.run('__complete login prod-u');
    expect(stdout).toMatch(/^prod-us\b/m);
    expect(stdout).not.toMatch(/^prod-us-1\b/m);
  });
});
