// Commands that accept several names, or a selector.

import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import { test } from '../fixtures/mesh.ts';

const counts = (
  mesh: { clusters: readonly { counts: { login: number; logout: number } }[] },
  what: 'login' | 'logout',
) => mesh.clusters.map((cluster) => cluster.counts[what]);

describe('login of several', () => {
  test('signs in to each, and leaves the current context to `use`', async ({ mesh, home }) => {
    const ran = await home.run('login prod-us staging');
    expect(ran).toMatchObject({ status: 0 });
    expect(counts(mesh, 'login')).toEqual([1, 0, 1]);
    const config = parse(fs.readFileSync(home.kubeconfig, 'utf8'));
    expect(config.contexts.map((c: { name: string }) => c.name)).toEqual(['prod-us', 'staging']);
    expect(config['current-context'] ?? '').toBe('');
  });

  test('works with a selector', async ({ mesh, home }) => {
    expect(await home.run('login -l environment=production')).toMatchObject({ status: 0 });
    expect(counts(mesh, 'login')).toEqual([1, 1, 0]);
    expect(await home.run('login -l environment=nowhere')).toMatchObject({ status: 1, stdout: '' });
  });

  test('a failure does not stop the others', async ({ mesh, home, eu }) => {
    eu.user = null;
    const ran = await home.run('login prod-us prod-eu');
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(/^warning: prod-eu: .*no grant for /m);
    expect(ran.stderr).toMatch(/^error: 1 of 2 sign-ins failed$/m);
    expect(ran.stdout).toMatch(/^Signed in to prod-us /m);
    expect(counts(mesh, 'login')).toEqual([1, 0, 0]);
  });
});

describe('logout of several', () => {
  test('works with names and a selector', async ({ mesh, home }) => {
    await home.run('login prod-us prod-eu staging');
    expect(await home.run('logout prod-us prod-eu')).toMatchObject({ status: 0 });
    expect(counts(mesh, 'logout')).toEqual([1, 1, 0]);
    expect(await home.run('logout -l environment=staging')).toMatchObject({ status: 0 });
    expect(counts(mesh, 'logout')).toEqual([1, 1, 1]);
    const rows = JSON.parse((await home.run('status -o json')).stdout);
    expect(rows.map((row: { state: string }) => row.state)).toEqual(['signed-out', 'signed-out', 'signed-out']);
  });
});

describe('a name', () => {
  test('may be a context’s, which takes precedence over a prefix', async ({ us, eu, home }) => {
    await home.run('login prod-eu --context prod');
    await home.run('logout prod-eu');
    expect(await home.run('login prod --no-switch')).toMatchObject({ status: 0, stderr: '' });
    expect([us.counts.login, eu.counts.login]).toEqual([0, 2]);
  });

  test('may be an unambiguous prefix', async ({ mesh, home }) => {
    expect(await home.run('login st')).toMatchObject({ status: 0 });
    expect(counts(mesh, 'login')).toEqual([0, 0, 1]);
    const ran = await home.run('login prod');
    expect(ran).toMatchObject({ status: 2, stdout: '' });
    expect(ran.stderr).toMatch(/2 clusters have names that start with "prod"/);
    for (const name of ['prod-eu', 'prod-us']) expect(ran.stderr).toContain(`hint: kubectl tka login ${name} (`);
  });
});
