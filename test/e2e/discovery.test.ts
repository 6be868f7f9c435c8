// From one server, or none, to every cluster: on the existing servers.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { peerOf } from '../../src/sandbox/tailscaled.ts';
import { lines, program, type RunOptions } from '../fixtures/program.ts';
import { hasPty, needsPty, Pty } from '../fixtures/pty.ts';
import { all, asked, linux, list, listing, peerUrl, test } from './tailnet.ts';

describe.skipIf(!linux)('with nothing configured (needs loopback addresses that only Linux has)', () => {
  test('our servers: finds every cluster without a host name', async ({ net, user, env }) => {
    const { rows, stderr } = await list(user, env);
    expect(stderr).toBe('');
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['tka-prod-eu', 'healthy'],
      ['tka-prod-us', 'healthy'],
      ['tka-staging', 'healthy'],
    ]);
    expect((await user.run('login tka-staging', env)).stdout).toMatch(/^Signed in to tka-staging /);
    expect(asked(net, 'login')).toEqual([0, 0, 1]);
  });

  test('the Go server: found by the hash in its page, and asked once', async ({ net, user, env }) => {
    listing(net, 'go-json');
    const { rows } = await list(user, env);
    const servers = new Map(rows.map((row) => [row.apiEndpoint, row.server]));
    // The server that was asked is recorded as such; the others by name.
    for (const cluster of net.clusters) expect([peerUrl(cluster)]).toContain(servers.get(cluster.apiServer));
    expect(rows.every((row) => row.state === 'healthy')).toBe(true);
    expect(asked(net, 'clusterInfo')).toEqual([0, 0, 0]);
    all(net, (cluster) => cluster.resetCounts());
    expect((await list(user, env)).rows).toHaveLength(3);
    expect(asked(net, 'memberlist').reduce((a, b) => a + b)).toBe(1);
    const name = rows.find((row) => row.apiEndpoint === net.clusters[1]?.apiServer)?.name ?? '';
    const login = await user.run(['login', name], env);
    expect(login).toMatchObject({ status: 0 });
    expect(asked(net, 'login')).toEqual([0, 1, 0]);
    expect(asked(net, 'clusterInfo')).toEqual([0, 1, 0]);
    const view = parse(fs.readFileSync(user.kubeconfig, 'utf8'));
    expect(view.contexts[0].name).toBe('tka-prod-eu');
  });

  test('the Go server without its page: candidates are asked once, then remembered', async ({ net, user, env }) => {
    listing(net, 'go-json-only');
    const { rows } = await list(user, env);
    expect(new Set(rows.map((row) => row.server))).toEqual(new Set(net.clusters.map(peerUrl)));
    expect(rows.every((row) => row.state === 'unknown')).toBe(true);
    all(net, (cluster) => cluster.resetCounts());
    await list(user, env);
    expect(asked(net, 'clusterInfo')).toEqual([0, 0, 0]);
  });

  test('a member that no server claims is unresolved, and its candidates are not asked again at once', async ({
    net,
    user,
    env,
  }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    listing(net, 'go-json-only');
    staging.faults.clusterInfo = { server_url: 'https://elsewhere.example.com:6443' };
    const { rows } = await list(user, env);
    const row = rows.find(({ apiEndpoint }) => apiEndpoint === staging.apiServer);
    expect(row).toMatchObject({ state: 'unresolved', server: null });
    expect(row?.reason).toMatch(/no tagged server confirms/);
    all(net, (cluster) => cluster.resetCounts());
    await list(user, env);
    // The tagged server that is in no list describes itself.
    expect(asked(net, 'clusterInfo')).toEqual([0, 0, 1]);
    const login = await user.run(['login', row?.name ?? ''], env);
    expect(login.status).toBe(1);
    expect(asked(net, 'login')).toEqual([0, 0, 0]);
    expect([us, eu].every((cluster) => cluster.counts.kubeconfig === 0)).toBe(true);
  });

  test('no memberlist anywhere: the tagged peers are the clusters', async ({ net, user, env }) => {
    for (const shape of ['absent-404', 'gossip-503'] as const) {
      listing(net, shape);
      const { rows, stderr } = await list(user, env);
      expect(rows.map(({ name, state }) => [name, state])).toEqual([
        ['tka-prod-eu', 'unknown'],
        ['tka-prod-us', 'unknown'],
        ['tka-staging', 'unknown'],
      ]);
      expect(stderr).toMatch(/no server has a memberlist/);
    }
  });

  test('login without a name never uses the first of several', async ({ net, user, env }) => {
    const before = user.files();
    const ran = await user.run('login', env);
    expect(ran).toMatchObject({ status: 2, stdout: '' });
    expect(ran.stderr).toMatch(/^error: the tailnet has 3 clusters: choose one$/m);
    for (const { name } of net.clusters) expect(ran.stderr).toContain(`hint: kubectl tka login ${name}\n`);
    expect(asked(net, 'login')).toEqual([0, 0, 0]);
    expect(user.files()).toEqual(before);
  });

  test('logout without a name does not either, and its hint is a logout', async ({ net, user, env }) => {
    const ran = await user.run('logout', env);
    expect(ran).toMatchObject({ status: 2, stdout: '' });
    for (const { name } of net.clusters) expect(ran.stderr).toContain(`hint: kubectl tka logout ${name}\n`);
  });

  test('logout -s NAME means the same server as login -s NAME', async ({ net, user, env }) => {
    const [us] = net.clusters as [SandboxCluster];
    expect(await user.run('login -s tka-prod-us', env)).toMatchObject({ status: 0 });
    expect(await user.run('logout -s tka-prod-us', env)).toMatchObject({
      status: 0,
      stdout: `Signed out of tka-prod-us (${peerUrl(us)}).\n`,
      stderr: '',
    });
    expect(us.signIn()).toBeUndefined();
  });

  test('a typo is not a host if only the last list has the names', async ({ net, user, env, tailscaled }) => {
    await list(user, env);
    await tailscaled.stop();
    const ran = await user.run('login tka-prod-su', env);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(
      /^error: no cluster named "tka-prod-su"; did you mean "tka-prod-us"\?\nhint: kubectl tka clusters$/m,
    );
    expect(asked(net, 'login')).toEqual([0, 0, 0]);
  });

  test('login without a name does not choose between two, one of them offline', async ({
    net,
    user,
    env,
    tailscaled,
  }) => {
    tailscaled.peers = net.clusters.slice(0, 2).map((cluster, i) => peerOf(cluster, { online: i === 0 }));
    const ran = await user.run('login', env);
    expect(ran).toMatchObject({ status: 2, stdout: '' });
    expect(ran.stderr).toMatch(/2 clusters: choose one/);
    expect(asked(net, 'login')).toEqual([0, 0, 0]);
  });

  test('login without a name uses the only one', async ({ net, user, env, tailscaled }) => {
    tailscaled.peers = tailscaled.peers.slice(0, 1);
    expect(await user.run('login', env)).toMatchObject({ status: 0 });
    expect(asked(net, 'login')).toEqual([1, 0, 0]);
  });

  test('an untagged peer named tka is a hint, and never asked', async ({ net, user, env, tailscaled }) => {
    const [us] = net.clusters as [SandboxCluster];
    tailscaled.peers = [
      peerOf(us, { hostName: 'tka', tags: [] }),
      peerOf(us, { hostName: 'tka-laptop', tags: ['tag:other'] }),
    ];
    const ran = await user.run('clusters', env);
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(/no device of example\.ts\.net carries tag:tka/);
    expect(ran.stderr).toContain('hint: if you trust tka.example.ts.net: kubectl tka config tailscale.hostname tka');
    expect(us.requests).toEqual([]);
    // A bare word may be a typo: without a terminal to ask on, the URL is required. No server is contacted.
    const url = `http://tka.example.ts.net:${new URL(us.server).port}`;
    for (const command of ['login -s tka', 'login -q -s tka']) {
      const typed = await user.run(command, env);
      expect(typed.status).toBe(1);
      expect(typed.stderr).toContain(`${url} is not tagged tag:tka`);
      expect(typed.stderr).toContain(`: kubectl tka login ${url}\n`);
    }
    for (const command of ['sync -s tka', 'exec -s tka tka-prod-us -- get pods', 'use -s tka tka-prod-us']) {
      const typed = await user.run(command, env);
      expect(typed.status).toBe(1);
      expect(typed.stderr).toMatch(/http:\S+ is not tagged tag:tka/);
    }
    expect(us.counts).toMatchObject({ login: 0, clusterInfo: 0 });
    // By its URL it is used, with a warning at the first sign-in that -q does not silence.
    const login = await user.run(`login -q ${url}`, env);
    expect(login).toMatchObject({ status: 0, stdout: '' });
    expect(login.stderr).toBe(`warning: ${url} is not tagged tag:tka; make sure you trust it (first sign-in)\n`);
    expect(await user.run(`login ${url}`, env)).toMatchObject({ status: 0, stderr: '' });
    expect(await user.run('login -s tka', env)).toMatchObject({ status: 0, stderr: '' });
  });

  test('a listed server without the tag is used after one login by its URL', async ({ net, user, env, tailscaled }) => {
    const [us, eu] = net.clusters as [SandboxCluster, SandboxCluster];
    tailscaled.peers = [peerOf(us), peerOf(eu, { tags: [] })];
    expect((await user.run('login tka-prod-us', env)).stderr).toBe('');
    const { rows } = await list(user, env);
    expect(rows.map(({ name, reason }) => [name, reason])).toContainEqual([
      'tka-prod-eu',
      'its TKA server is not tagged tag:tka',
    ]);
    for (const command of ['login tka-prod-eu', 'use tka-prod-eu', 'exec tka-prod-eu -- get pods', 'sync']) {
      const ran = await user.run(command, env);
      expect(ran.status).toBe(1);
      expect(ran.stderr).toContain(`${eu.server} is not tagged tag:tka`);
      expect(ran.stderr).toContain(`kubectl tka login ${eu.server}\n`);
    }
    expect(eu.counts).toMatchObject({ login: 0, clusterInfo: 0, kubeconfig: 0 });
    const login = await user.run(`login ${eu.server}`, env);
    expect(login).toMatchObject({ status: 0 });
    expect(login.stderr).toBe(`warning: ${eu.server} is not tagged tag:tka; make sure you trust it (first sign-in)\n`);
    for (const command of ['login tka-prod-eu', 'use tka-prod-eu', 'sync -l environment=production'])
      expect(await user.run(command, env)).toMatchObject({ status: 0, stderr: '' });
    // After forget it must be named again.
    await user.run(`forget ${eu.server}`, env);
    expect((await user.run('login tka-prod-eu', env)).stderr).toContain(`${eu.server} is not tagged tag:tka`);
  });

  test('the configured server needs no tag, but the servers that it states do', async ({
    net,
    user,
    env,
    tailscaled,
  }) => {
    const [us, eu] = net.clusters as [SandboxCluster, SandboxCluster];
    tailscaled.peers = net.clusters.map((cluster) => peerOf(cluster, { tags: [] }));
    const config = { env: { ...env.env, TKA_TAILSCALE_HOSTNAME: us.server } };
    const login = await user.run('login', config);
    expect(login).toMatchObject({ status: 0 });
    expect(login.stderr).toBe(`warning: ${us.server} is not tagged tag:tka; make sure you trust it (first sign-in)\n`);
    expect(await user.run('login tka-prod-us', config)).toMatchObject({ status: 0, stderr: '' });
    expect((await user.run('login tka-prod-eu', config)).stderr).toContain(`${eu.server} is not tagged tag:tka`);
    const clusters = await user.run('clusters', config);
    expect(clusters.stderr).toMatch(
      /^tka-prod-eu, tka-staging: its TKA server is not tagged tag:tka\nhint: .* login http/,
    );
    // Without tailscaled only the configured server's list is available.
    await tailscaled.stop();
    expect(await user.run('login tka-prod-eu', config)).toMatchObject({ status: 0, stderr: '' });
  });

  test('without tailscaled and list, each warning and each hint is printed once', async ({ user, env, tailscaled }) => {
    await tailscaled.stop();
    const named = { env: { ...env.env, TKA_TAILSCALE_HOSTNAME: 'tka' } };
    for (const config of [env, named]) {
      for (const command of [
        'clusters',
        'sync',
        'login',
        'login prod',
        'login -s prod',
        'logout prod',
        'forget prod',
      ]) {
        const { status, stderr } = await user.run(command, config);
        const said = lines(stderr);
        expect(status).toBe(1);
        expect(said.length, command).toBeGreaterThan(1);
        expect(new Set(said).size, stderr).toBe(said.length);
      }
    }
  });

  test('a typo is not treated as a host, and contacts no server', async ({ net, user, env, tailscaled }) => {
    const [us] = net.clusters as [SandboxCluster];
    tailscaled.peers = [...tailscaled.peers, peerOf(us, { hostName: 'tka-prod-su', tags: [] })];
    await user.run('login tka-prod-us', env);
    all(net, (cluster) => cluster.resetCounts());
    const before = user.files();
    const typo = await user.run('login tka-prod-eus', env);
    expect(typo).toMatchObject({ status: 1, stdout: '' });
    expect(typo.stderr).toMatch(
      /^error: no cluster named "tka-prod-eus"; did you mean "tka-prod-eu" or "tka-prod-us"\?\n/,
    );
    // This one is the name of another user's device.
    const device = await user.run('login tka-prod-su', env);
    expect(device).toMatchObject({ status: 1, stdout: '' });
    expect(device.stderr).toMatch(
      /^error: http:\/\/tka-prod-su\S+ is not tagged tag:tka, and you have not used it before\n/,
    );
    expect(device.stderr).toMatch(/^hint: .*kubectl tka login http:\/\/tka-prod-su\.example\.ts\.net:\d+$/m);
    expect(net.clusters.flatMap(({ requests }) => requests).filter(({ route }) => route !== 'memberlist')).toEqual([]);
    expect(user.files()).toEqual(before);
  });

  test.skipIf(!hasPty)(
    `on a terminal, asks before it uses a device without the tag${needsPty}`,
    async ({ net, user, env, tailscaled }) => {
      const [us] = net.clusters as [SandboxCluster];
      tailscaled.peers = [...tailscaled.peers, peerOf(us, { hostName: 'alices-box', tags: [] })];
      const answer = async (keys: string) => {
        const pty = new Pty(program, ['login', 'alices-box'], { env: { ...user.env, ...env.env }, cwd: user.dir });
        try {
          await pty.shows(/Sign in to it\? \[y\/N\]/);
          pty.type(keys);
          return { status: await pty.ended, text: pty.screen.text() };
        } finally {
          await pty.close();
        }
      };
      for (const keys of ['\r', 'n\r', '\x04']) {
        const no = await answer(keys);
        expect(no.text).toMatch(/^error: cancelled$/m);
        expect(no.status).toBe(130);
      }
      expect(us.counts.login).toBe(0);
      expect(await answer('y\r')).toMatchObject({ status: 0 });
      expect(us.counts.login).toBe(1);
      // Once is enough.
      expect(await user.run('login alices-box', env)).toMatchObject({ status: 0, stderr: '' });
    },
  );

  test('without tailscaled and configuration: uses the last list and the contexts, with one warning', async ({
    net,
    user,
    env,
    tailscaled,
  }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    // Nothing is known yet.
    await tailscaled.stop();
    for (const command of ['clusters', 'sync', 'login', 'exec -- get pods']) {
      const ran = await user.run(command, env);
      expect(ran).toMatchObject({ status: 1, stdout: '' });
      expect(ran.stderr).toMatch(/^error: no TKA server is configured, and discovery failed: .*\nhint: /);
    }
    await tailscaled.start();
    await list(user, env);
    await user.run('login tka-prod-us', env);
    await tailscaled.stop();
    const said =
      /^warning: no TKA server is configured, and discovery failed: no tailscaled at \S+, .*; using the list from \d+s ago \(.*\d\d:\d\d\)$/;
    const { rows, stderr } = await list(user, env);
    expect(rows.map(({ name, context }) => [name, context])).toEqual([
      ['tka-prod-eu', null],
      ['tka-prod-us', 'tka-prod-us'],
      ['tka-staging', null],
    ]);
    expect(stderr.trimEnd()).toMatch(said);
    // The list states these servers.
    const login = await user.run('login tka-prod-eu', env);
    expect(login).toMatchObject({ status: 0 });
    expect(login.stderr.trimEnd()).toMatch(said);
    const sync = await user.run('sync', env);
    expect(sync).toMatchObject({ status: 0, stdout: expect.stringMatching(/^1 added: /) });
    expect(sync.stderr.trimEnd()).toMatch(said);
    // An inferred server is not used while its tag cannot be checked.
    fs.rmSync(user.state, { recursive: true });
    fs.rmSync(user.kubeconfig);
    await tailscaled.start();
    listing(net, 'go-json');
    const inferred = (await list(user, env)).rows.find(({ apiEndpoint }) => apiEndpoint === staging.apiServer);
    expect(inferred?.server).toBe(peerUrl(staging));
    await tailscaled.stop();
    all(net, (cluster) => cluster.resetCounts());
    for (const command of [`login ${inferred?.name}`, `exec ${inferred?.name} -- get pods`, 'sync']) {
      const refused = await user.run(command, env);
      expect(refused.status).toBe(1);
      expect(refused.stderr).toMatch(/cannot check whether http:\S+ is tagged tag:tka: no tailscaled at /);
      expect(refused.stderr).toContain(`kubectl tka login ${peerUrl(staging)}\n`);
    }
    expect([us, eu, staging].flatMap(({ requests }) => requests)).toEqual([]);
  });

  test('config shows what tailscaled provides', async ({ net, user, env, tailscaled }) => {
    const names = net.clusters.map(({ name }) => `${name}.example.ts.net`).sort();
    const rows = async (more: RunOptions['env'] = {}) => {
      const ran = await user.run('config -o json', { env: { ...env.env, ...more } });
      expect(ran).toMatchObject({ status: 0, stderr: '' });
      const all: { key: string; value: unknown; source: string }[] = JSON.parse(ran.stdout);
      return ['tailscale.hostname', 'tailscale.tailnet'].map((key) => {
        const { value, source } = all.find((row) => row.key === key) ?? {};
        return [value, source];
      });
    };
    expect(await rows()).toEqual([
      [names.join(', '), 'tailscaled'],
      ['example.ts.net', 'tailscaled'],
    ]);
    expect((await user.run('config', env)).stdout).toMatch(/^tailscale\.tailnet +example\.ts\.net +tailscaled$/m);
    expect(await rows({ TKA_TAILSCALE_HOSTNAME: 'tka', TKA_TAILSCALE_TAILNET: 'other.ts.net' })).toEqual([
      ['tka', 'TKA_TAILSCALE_HOSTNAME'],
      ['other.ts.net', 'TKA_TAILSCALE_TAILNET'],
    ]);
    tailscaled.backendState = 'Stopped';
    expect(await rows()).toEqual([
      [null, 'default'],
      ['', 'default'],
    ]);
  });

  test('another tag can be configured', async ({ net, user, env, tailscaled }) => {
    tailscaled.peers = net.clusters.map((cluster) => peerOf(cluster, { tags: ['tag:kube-auth'] }));
    expect((await user.run('clusters', env)).status).toBe(1);
    expect(await user.run('config tailscale.tag tag:kube-auth', env)).toMatchObject({ status: 0 });
    expect((await list(user, env)).rows).toHaveLength(3);
  });

  test.for([
    ['Stopped', /tailscale is stopped/, /tailscale up/],
    ['NeedsLogin', /tailscale is logged out/, /tailscale login/],
    ['NoState', /tailscale is still starting/, /tailscale status/],
  ] as const)(
    'tailscale %s: the error names it, with a hint',
    async ([state, error, hint], { user, env, tailscaled }) => {
      tailscaled.backendState = state;
      // A bare name cannot be completed then.
      for (const more of [{}, { TKA_TAILSCALE_HOSTNAME: 'tka-prod-us' }]) {
        const ran = await user.run('clusters', { env: { ...env.env, ...more } });
        expect(ran).toMatchObject({ status: 1, stdout: '' });
        expect(ran.stderr).toMatch(error);
        expect(ran.stderr).toMatch(hint);
      }
    },
  );

  test('a bare name gets the tailnet’s suffix', async ({ net, user, env }) => {
    const ran = await user.run('login -s tka-prod-us --no-switch', env);
    expect(ran.stdout).toMatch(/^Signed in to tka-prod-us \(http:\/\/tka-prod-us\.example\.ts\.net:\d+\)/);
    expect(asked(net, 'login')).toEqual([1, 0, 0]);
    const [us] = net.clusters as [SandboxCluster];
    expect(await user.credential({ server: peerUrl(us), apiServer: us.apiServer }, env)).toMatchObject({ status: 0 });
    expect(asked(net, 'login')).toEqual([1, 0, 0]);
  });
});

describe.skipIf(!linux)('no single point of failure (needs loopback addresses that only Linux has)', () => {
  test('the entry server is down: another one answers, with a warning', async ({ net, user, env }) => {
    await list(user, env);
    const eu = net.cluster('tka-prod-eu');
    await eu.stop();
    const { rows, stderr } = await list(user, env);
    expect(rows).toHaveLength(3);
    expect(stderr).toMatch(/tka-prod-eu\.example\.ts\.net:\d+ did not answer; showing the list of http/);
    expect(rows.find((row) => row.name === 'tka-prod-eu')?.state).toBe('dead');
    expect(rows.at(-1)?.name).toBe('tka-prod-eu');
  });

  test('the entry server is silent: the wait is at most 2 s', async ({ net, user, env }) => {
    await list(user, env);
    net.cluster('tka-prod-eu').faults.routes.memberlist = { silent: true };
    const ran = await user.run('clusters -o json', env);
    expect(JSON.parse(ran.stdout)).toHaveLength(3);
    expect(ran.took).toBeLessThan(8000);
  });

  test('all are down: the last list, marked as such', async ({ net, user, env }) => {
    await list(user, env);
    for (const cluster of net.clusters) await cluster.stop();
    const { rows, stderr } = await list(user, env);
    expect(rows).toHaveLength(3);
    expect(stderr).toMatch(/^warning: no TKA server answered; showing the list from \d+s ago \(.*\d\d:\d\d\)$/m);
    expect(rows.map(({ state }) => state)).toEqual(['healthy', 'healthy', 'healthy']);
    const table = (await user.run('clusters', env)).stdout;
    expect(table.match(/ healthy \(\d+s ago\) /g)).toHaveLength(3);
  });

  test('a refused list is reported with its reason', async ({ net, user, env }) => {
    await list(user, env);
    const eu = net.cluster('tka-prod-eu');
    // With a stated length, so that a busy machine need not read it within the time for a list.
    eu.faults.routes.memberlist = { oversizeMiB: 17, headers: { 'Content-Length': String(17 * 2 ** 20 + 15) } };
    const one = await list(user, env);
    expect(one.rows).toHaveLength(3);
    expect(one.stderr).toMatch(/tka-prod-eu\S+ answered with more than 16 MiB; showing the list of http/);
    for (const cluster of net.clusters) await cluster.stop();
    await eu.start();
    const all = await list(user, env);
    expect(all.rows).toHaveLength(3);
    expect(all.stderr).toMatch(
      /^warning: http:\S+ answered with more than 16 MiB; showing the list from \d+s ago \(.*\d\d:\d\d\)$/m,
    );
  });

  test('all are down and there is no list: an error', async ({ net, user, env }) => {
    for (const cluster of net.clusters) await cluster.stop();
    const ran = await user.run('clusters', env);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^error: cannot reach .*connection refused$/m);
  });

  test('a member that is no longer listed stays for seven days, as missing and in last place', async ({
    net,
    user,
    env,
  }) => {
    await list(user, env);
    const us = net.cluster('tka-prod-us');
    us.gossip.listed = false;
    // While it answers it is listed with its own statements.
    expect((await list(user, env)).rows).toContainEqual(expect.objectContaining({ name: us.name, state: 'unknown' }));
    await us.stop();
    const { rows } = await list(user, env);
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['tka-prod-eu', 'healthy'],
      ['tka-staging', 'healthy'],
      ['tka-prod-us', 'missing'],
    ]);
    // Eight days later.
    const folder = path.join(user.state, 'clusters');
    const [name = ''] = fs.readdirSync(folder);
    const kept = JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8'));
    kept.times = kept.times.map(([listed, tried]: number[]) => [(listed ?? 0) - 8 * 86_400_000, tried]);
    fs.writeFileSync(path.join(folder, name), JSON.stringify(kept));
    expect((await list(user, env)).rows.map((row) => row.name)).toEqual(['tka-prod-eu', 'tka-staging']);
  });

  test('the list continues if another server becomes the first to be asked', async ({ net, user, env, tailscaled }) => {
    await list(user, env);
    const eu = net.cluster('tka-prod-eu');
    eu.gossip.listed = false;
    await eu.stop();
    tailscaled.peers = net.clusters.map((cluster) => peerOf(cluster, { online: cluster !== eu }));
    const { rows, stderr } = await list(user, env);
    expect(stderr).toBe('');
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['tka-prod-us', 'healthy'],
      ['tka-staging', 'healthy'],
      ['tka-prod-eu', 'missing'],
    ]);
    for (const cluster of net.clusters) await cluster.stop();
    tailscaled.peers = net.clusters.map((cluster) => peerOf(cluster, { online: cluster.name === 'tka-staging' }));
    const last = await list(user, env);
    expect(last.stderr).toMatch(/no TKA server answered/);
    expect(last.rows.map(({ name, state }) => [name, state])).toEqual(rows.map(({ name, state }) => [name, state]));
  });

  test('without memberlists: a server that stops answering is missing, and then the last list is shown', async ({
    net,
    user,
    env,
  }) => {
    listing(net, 'absent-404');
    await list(user, env);
    await net.cluster('tka-prod-us').stop();
    const { rows, stderr } = await list(user, env);
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['tka-prod-eu', 'unknown'],
      ['tka-staging', 'unknown'],
      ['tka-prod-us', 'missing'],
    ]);
    expect(stderr).toMatch(/^warning: cannot reach http:\/\/tka-prod-us\.example\.ts\.net:\d+: connection refused$/m);
    for (const cluster of net.clusters) await cluster.stop();
    const last = await list(user, env);
    expect(last.stderr).toMatch(/no TKA server answered/);
    expect(last.rows).toEqual(rows);
  });

  test('a cluster with a changed API endpoint is listed once, so that its name still works', async ({
    net,
    user,
    env,
  }) => {
    await list(user, env);
    const moved = 'https://new.example.com:6443';
    Object.assign(net.cluster('tka-prod-us').gossip, { apiEndpoint: moved });
    net.cluster('tka-prod-us').faults.clusterInfo = { server_url: moved };
    const { rows } = await list(user, env);
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['tka-prod-eu', 'healthy'],
      ['tka-prod-us', 'healthy'],
      ['tka-staging', 'healthy'],
    ]);
    expect(await user.run('use tka-prod-us', env)).toMatchObject({ status: 0, stderr: '' });
  });

  test.for(['', '{', 'null', '[]', '{"at":1,"html":false,"members":[{}],"times":[[1,1]]}', '\u0000'])(
    'a damaged last list (%j) is ignored',
    async (text, { user, env }) => {
      await list(user, env);
      const folder = path.join(user.state, 'clusters');
      const [name = ''] = fs.readdirSync(folder);
      fs.writeFileSync(path.join(folder, name), text);
      expect((await list(user, env)).rows).toHaveLength(3);
    },
  );
});
