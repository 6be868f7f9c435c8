// A signed-out cluster stays signed out until the next login.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { Home } from '../fixtures/home.ts';
import { callers } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';
import { gate, until } from '../fixtures/wait.ts';

for (const caller of callers) {
  describe.skipIf(caller.absent).concurrent(`${caller.name}, after a logout`, () => {
    test('is refused with a hint, and the server is not asked', async ({ home, us }) => {
      await home.run('login prod-us');
      expect(await caller.call(home, 'get namespaces')).toMatchObject({ status: 0 });
      await home.transcript(`
        $ kubectl tka logout
        Signed out of prod-us (${us.server}).
      `);
      expect(us.signIn()).toBeUndefined();
      us.resetCounts();
      const refused = await caller.call(home, 'get namespaces');
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toContain(`error: signed out of ${us.server}\nhint: kubectl tka login prod-us\n`);
      expect(us.counts).toMatchObject({ login: 0, kubeconfig: 0 });
    });

    test('works after an immediate login, and keeps working although the server cleans up late', async ({
      home,
      us,
    }) => {
      us.faults.logoutRaceMs = 1000;
      await home.run('login prod-us');
      expect((await home.run('logout prod-us')).status).toBe(0);
      expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
      expect(await caller.call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
      // The server's cleanup is over by now, and has not removed this sign-in.
      expect(us.signIn()).toBeDefined();
    });

    test('of one of two contexts: the other keeps working', async ({ home }) => {
      await home.run('login --all-contexts');
      for (const name of ['prod-us', 'prod-eu'])
        expect(await caller.call(home, `--context ${name} get namespaces`)).toMatchObject({ status: 0 });
      expect(await home.run('logout prod-us')).toMatchObject({ status: 0 });
      expect(await caller.call(home, '--context prod-us get namespaces')).toMatchObject({ status: 1 });
      expect(await caller.call(home, '--context prod-eu get namespaces')).toMatchObject({ status: 0, stderr: '' });
    });
  });
}

describe.concurrent('logout', () => {
  test('outlives a cache that a cleaner empties', async ({ home, us }) => {
    await home.run('login prod-us');
    await home.run('logout');
    fs.rmSync(home.cache, { recursive: true, force: true });
    const refused = await home.credential(us);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: signed out of /);
    expect(us.counts.login).toBe(1);
  });

  test('deletes the token, and leaves the kubeconfig unchanged', async ({ home, us }) => {
    await home.run('login prod-us');
    const token = home.token(us);
    const before = fs.readFileSync(home.kubeconfig);
    await home.run('logout');
    expect(fs.readFileSync(home.kubeconfig)).toEqual(before);
    expect(Object.values(home.files()).join('\n')).not.toContain(token);
    expect(home.cached()).toEqual([]);
  });

  test('without NAME: the current context if it is managed, else the configured server', async ({ home, us, eu }) => {
    await home.run('login prod-us');
    await home.run('login prod-eu');
    expect((await home.run('logout')).stdout).toBe(`Signed out of prod-eu (${eu.server}).\n`);
    home.write(home.kubeconfig, fs.readFileSync(home.kubeconfig, 'utf8').replace(/^current-context: .*$/m, ''));
    expect((await home.run('logout')).stdout).toBe(`Signed out of prod-us (${us.server}).\n`);
  });

  test('of a context without a sign-in: kubectl does not sign in there either', async ({ home, us }) => {
    await home.run('login --all-contexts');
    expect((await home.run('logout prod-us')).stdout).toBe(
      `Signed out of prod-us (${us.server}); you were not signed in there.\n`,
    );
    expect((await home.credential(us)).stderr).toMatch(/^error: signed out of /);
  });

  test('of an unknown name: an error with the nearest names, and nothing is recorded', async ({ home, us }) => {
    await home.run('login prod-us');
    const before = home.files();
    us.resetCounts();
    for (const [args, error] of [
      ['logout prod-su', 'no cluster or context named "prod-su"; did you mean "prod-us"?'],
      ['forget prod-su', 'no cluster or context named "prod-su"; did you mean "prod-us"?'],
      // A prefix of a name is not a name.
      ['logout prod-u', 'no cluster or context named "prod-u"; did you mean "prod-us" or "prod-eu"?'],
      ['forget prod', 'no cluster or context named "prod"; did you mean "prod-us" or "prod-eu"?'],
      ['logout nowhere prod-us', 'no cluster or context named "nowhere"'],
    ] as const) {
      const ran = await home.run(args);
      expect(ran).toMatchObject({ status: 1, stdout: '' });
      expect(ran.stderr.split('\n')[0]).toBe(`error: ${error}`);
      expect(ran.stderr).toMatch(/^hint: kubectl tka status$/m);
    }
    expect(us.counts).toMatchObject({ logout: 0 });
    expect(home.files()).toEqual(before);
    expect(JSON.parse((await home.run('status -o json')).stdout)).toHaveLength(1);
  });

  test('of a URL that is unknown here: asks its server, and is recorded only if there was a sign-in', async ({
    home,
    mesh,
    eu,
  }) => {
    const before = home.files();
    await home.transcript(`
      $ kubectl tka logout ${eu.server}
      ! error: you were not signed in to ${eu.server}
      ! hint: kubectl tka status
      [1]
    `);
    const staging = mesh.cluster('staging');
    await staging.stop();
    expect((await home.run(`logout ${staging.server}`)).stderr).toMatch(/^error: .*cannot reach /);
    expect(home.files(/^\.(?:cache|local)/)).toEqual(before);
    expect((await home.run('status -o json')).stdout).toBe('[]\n');
    // Signed in on another machine.
    using there = new Home(eu.server);
    await there.run('login');
    expect((await home.run(`logout ${eu.server}`)).stdout).toMatch(/^Signed out of /);
    expect(eu.signIn()).toBeUndefined();
  });

  test('of an unknown server in --server: nothing is recorded', async ({ home, eu }) => {
    for (const [args, error] of [
      ['logout -s nowhere.invalid', /^error: cannot reach https?:\/\/nowhere\.invalid.*: the name does not resolve$/m],
      [`logout -s ${eu.server}`, /^error: you were not signed in to /m],
      [`forget -s ${eu.server}`, /^error: no session or context for /m],
    ] as const) {
      const ran = await home.run(args);
      expect(ran).toMatchObject({ status: 1, stdout: '' });
      expect(ran.stderr).toMatch(error);
      expect((await home.run('status -o json')).stdout).toBe('[]\n');
    }
  });

  test('that cannot be recorded is an error with a hint', async ({ home, us }) => {
    await home.run('login prod-us');
    fs.rmSync(home.state, { recursive: true, force: true });
    home.write(home.state, 'no folder');
    const ran = await home.run('logout');
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^error: cannot record on this machine that you are signed out of http:/);
    expect(ran.stderr).toMatch(/^hint: kubectl signs in again unless you remove the context: /m);
    expect(us.signIn()).toBeUndefined();
    expect(home.cached()).toEqual([]);
  });

  test('twice: succeeds both times', async ({ home }) => {
    await home.run('login prod-us');
    expect((await home.run('logout')).status).toBe(0);
    expect(await home.run('logout')).toMatchObject({ status: 0, stderr: '' });
  });

  test('--all: every session and context of this machine', async ({ home, mesh }) => {
    await home.run('login --all-contexts');
    await home.run('login prod-us');
    await home.run('login prod-eu');
    const all = await home.run('logout --all');
    expect(all).toMatchObject({ status: 0, stderr: '' });
    for (const name of ['prod-eu', 'prod-us'])
      expect(lines(all.stdout)).toContain(`Signed out of ${name} (${mesh.cluster(name).server}).`);
    for (const cluster of mesh.clusters)
      expect((await home.credential(cluster)).stderr).toMatch(/^error: signed out of /);
    expect(mesh.cluster('staging').counts.login).toBe(0);
  });

  test('--all without a session', async ({ home }) => {
    await home.transcript(`
      $ kubectl tka logout --all
      No sessions on this machine.
    `);
  });

  test('while the server is down: signed out on this machine, with an error, and can be repeated', async ({
    home,
    us,
  }) => {
    await home.run('login prod-us');
    await us.stop();
    const half = await home.run('logout');
    expect(half).toMatchObject({ status: 1, stdout: '' });
    expect(half.stderr).toMatch(/^error: signed out on this machine, but not on the server: cannot reach .*\nhint: /);
    expect(home.cached()).toEqual([]);
    expect((await home.credential(us)).stderr).toMatch(/^error: signed out of /);
    await us.start();
    expect((await home.credential(us)).stderr).toMatch(/^error: signed out of /);
    expect((await home.run('logout')).stdout).toBe(`Signed out of prod-us (${us.server}).\n`);
    expect(us.signIn()).toBeUndefined();
  });

  test('while kubectl signs in: a late token is neither served nor stored', async ({ home, us }) => {
    await home.run('login --all-contexts');
    const { shut, open } = gate();
    us.faults.routes.kubeconfig = { hold: shut };
    const asked = home.credential(us);
    await us.seen('kubeconfig');
    const logout = home.run('logout prod-us');
    const mark = path.join(home.state, 'signed-out', path.basename(home.entry(us)));
    await until('the mark of the logout', () => fs.existsSync(mark));
    open();
    expect(await asked).toMatchObject({ status: 1, stdout: '' });
    expect((await asked).stderr).toMatch(/^error: signed out of /);
    expect(await logout).toMatchObject({ status: 0 });
    expect(home.cached()).toEqual([]);
  });
});
