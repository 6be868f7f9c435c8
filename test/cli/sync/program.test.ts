// The built program: exit status, streams, and its progress.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { callers } from '../../fixtures/kubectl.ts';
import { test } from '../../fixtures/mesh.ts';

describe('kubectl tka sync', () => {
  test('writes contexts that work, and reports them on stdout only', async ({ home, us, eu }) => {
    const ran = await home.run('sync');
    expect(ran).toMatchObject({ status: 0, stdout: '3 added: prod-eu, prod-us, staging.\n', stderr: '' });
    for (const caller of callers.filter(({ absent }) => !absent)) {
      expect(await caller.call(home, '--context prod-eu get namespaces')).toMatchObject({ status: 0 });
    }
    expect([us.counts.login, eu.counts.login]).toEqual([0, 1]);
    const before = home.files(/state/);
    expect(await home.run('sync')).toMatchObject({ status: 0, stdout: '3 unchanged.\n', stderr: '' });
    expect(home.files(/state/)).toEqual(before);
    expect(await home.run('sync --quiet')).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  test('exits with 1 if something is left to do, with errors on stderr', async ({ home, eu }) => {
    eu.faults.clusterInfo = { server_url: 'https://evil.example.com' };
    const ran = await home.run('sync');
    expect(ran).toMatchObject({ status: 1, stdout: '2 added: prod-us, staging.\n' });
    expect(ran.stderr.split('\n')).toEqual([
      expect.stringMatching(/^warning: prod-eu: .* is not the TKA server of prod-eu: .*; no context is written$/),
      'error: 1 of 3 clusters could not be synced: prod-eu',
      expect.stringMatching(/^hint: /),
      '',
    ]);
  });

  test('exits with 2 for wrong usage, before any server is asked', async ({ home, us }) => {
    const wrong = [
      ['sync', 'prod-us'],
      ['sync', '--context-template', '{nam}'],
      ['sync', '-l', 'a=b=c'],
      ['sync', '--prune=yes'],
    ];
    for (const args of wrong) {
      expect([args, await home.run(args)]).toEqual([args, expect.objectContaining({ status: 2, stdout: '' })]);
    }
    expect(us.counts.memberlist).toBe(0);
    const help = await home.run('sync --help');
    for (const flag of ['-l, --selector', '--prune', '--dry-run', '--diff', '--context-template', '--accept-changes'])
      expect(help.stdout).toContain(flag);
    expect(help.stdout).not.toContain('insecure');
  });

  test('prints a diff that patch accepts, and changes nothing', async ({ home, eu }) => {
    await home.run('sync -l environment=production');
    const before = home.files(/state/);
    const text = fs.readFileSync(home.kubeconfig, 'utf8');
    const plan = await home.run('sync --dry-run', { env: { FORCE_COLOR: '1' } });
    expect(plan).toMatchObject({ status: 0, stderr: 'dry run: nothing is written\n' });
    expect(plan.stdout).toMatch(/^\x1b\[32m\+\x1b\[39m add staging \(https:\S+\)\nPlan: 1 to add, 2 unchanged\.\n$/);
    const ran = await home.run('sync --diff');
    expect(ran).toMatchObject({ status: 0, stderr: 'dry run: nothing is written\n' });
    expect(home.files(/state/)).toEqual(before);
    await home.run('sync');
    if (spawnSync('patch', ['--version']).status !== 0) return;
    fs.writeFileSync(`${home.root}/copy`, text);
    execFileSync('patch', ['-s', `${home.root}/copy`], { input: ran.stdout });
    expect(fs.readFileSync(`${home.root}/copy`, 'utf8')).toBe(fs.readFileSync(home.kubeconfig, 'utf8'));
    expect(eu.counts.login).toBe(0);
  });

  test('shows no progress without a terminal', async ({ home, eu, us }) => {
    for (const cluster of [eu, us]) cluster.faults.routes.clusterInfo = { latencyMs: 1200 };
    expect(await home.run('sync')).toMatchObject({ status: 0, stderr: '' });
  });

  test('has its own last line in login --all-contexts', async ({ home }) => {
    const ran = await home.run('login --all-contexts');
    expect(ran).toMatchObject({
      status: 0,
      stdout:
        '3 added: prod-eu, prod-us, staging.\nThe current context is still none. kubectl signs in to each cluster on first use.\n',
      stderr: '',
    });
  });
});
