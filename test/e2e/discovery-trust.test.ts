// Which servers are trusted: a server belongs to a member only if it says so itself, and if it is tagged or named by
// the user.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { peerOf } from '../../src/sandbox/tailscaled.ts';
import { all, asked, linux, list, listing, peerUrl, test } from './tailnet.ts';

describe.skipIf(!linux)('which servers are trusted (needs loopback addresses that only Linux has)', () => {
  test('a member’s server that serves another cluster gets no sign-in, and its token is never fetched', async ({
    net,
    user,
    env,
  }) => {
    const [us, eu] = net.clusters as [SandboxCluster, SandboxCluster];
    eu.faults.clusterInfo = { server_url: us.apiServer };
    const ran = await user.run('login tka-prod-eu', env);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/is not the TKA server of tka-prod-eu: it serves/);
    expect(eu.counts).toMatchObject({ login: 0, kubeconfig: 0 });
    expect(fs.existsSync(user.kubeconfig)).toBe(false);
  });

  test('an inferred address without the tag is not used, even if it answers correctly', async ({
    net,
    user,
    env,
    tailscaled,
  }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    listing(net, 'go-json');
    tailscaled.peers = [peerOf(us), peerOf(eu, { tags: [] }), peerOf(staging, { tags: ['tag:laptop'] })];
    const { rows } = await list(user, env);
    expect(rows.filter((row) => row.server !== null).map((row) => row.apiEndpoint)).toEqual([us.apiServer]);
    expect([...eu.requests, ...staging.requests]).toEqual([]);
  });

  test('a peer that lost its tag is not used any more, wherever it was stored', async ({
    net,
    user,
    env,
    tailscaled,
  }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    listing(net, 'go-json');
    const config = { env: { ...env.env, TKA_TAILSCALE_HOSTNAME: `${us.name}.example.ts.net` } };
    const name = (await list(user, config)).rows.find((row) => row.apiEndpoint === eu.apiServer)?.name ?? '';
    const before = user.files();
    all(net, (cluster) => cluster.resetCounts());
    tailscaled.peers = [peerOf(us), peerOf(eu, { tags: [] }), peerOf(staging)];
    const refused = async (why: RegExp) => {
      for (const command of [`login ${name}`, `use ${name}`, `exec ${name} -- get pods`, 'sync']) {
        const ran = await user.run(command, config);
        expect(ran.status).not.toBe(0);
        if (command !== 'sync') expect(ran.stderr).toMatch(why);
        expect(eu.requests).toEqual([]);
      }
    };
    // No server answers: the last list still has its address.
    await us.stop();
    await staging.stop();
    await refused(/http:\S+ is not tagged tag:tka\n/);
    await tailscaled.stop();
    await refused(/cannot check whether http:\S+ is tagged tag:tka: no tailscaled at /);
    await tailscaled.start();
    // And with a new list.
    await us.start();
    const row = (await list(user, config)).rows.find(({ apiEndpoint }) => apiEndpoint === eu.apiServer);
    expect(row).toMatchObject({ server: null, state: 'unresolved' });
    expect(eu.requests).toEqual([]);
    expect(user.files()).toEqual(before);
  });

  test.for(['only sync has written', 'version 0.1.0 has written'])(
    'a context that %s does not mark its server as used by the user',
    async (by, { net, user, env, tailscaled }) => {
      const [us, eu] = net.clusters as [SandboxCluster, SandboxCluster];
      const config = { env: { ...env.env, TKA_TAILSCALE_HOSTNAME: new URL(us.server).hostname } };
      await tailscaled.stop();
      expect((await user.run('sync', config)).stdout).toBe('3 added: tka-prod-eu, tka-prod-us, tka-staging.\n');
      const kubeconfig = fs.readFileSync(user.kubeconfig, 'utf8');
      expect(kubeconfig.match(/^ +namedBy: "http:.*"$/gm)).toHaveLength(3);
      if (by.includes('0.1.0')) user.write(user.kubeconfig, kubeconfig.replace(/^ +namedBy: .*\n/gm, ''));
      tailscaled.peers = [peerOf(us), peerOf(eu, { tags: [] })];
      await tailscaled.start();
      all(net, (cluster) => cluster.resetCounts());
      // Only the contexts name it now.
      await us.stop();
      fs.rmSync(`${user.state}/clusters`, { recursive: true });
      const ran = await user.run('exec tka-prod-eu -- get ns', config);
      expect(ran.stdout + ran.stderr).toMatch(/is not tagged tag:tka/);
      expect(eu.requests).toEqual([]);
      const login = await user.run(`login ${eu.server}`, config);
      expect(login.stderr).toContain(
        `warning: ${eu.server} is not tagged tag:tka; make sure you trust it (first sign-in)\n`,
      );
      expect((await user.run(`login ${eu.server}`, config)).stderr).not.toContain('not tagged');
    },
  );

  test('a server that serves another cluster is forgotten, and the right one found', async ({ net, user, env }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    listing(net, 'go-json-only');
    const before = await list(user, env);
    const name = before.rows.find((row) => row.apiEndpoint === eu.apiServer)?.name ?? '';
    // The two swap places.
    eu.faults.clusterInfo = { server_url: staging.apiServer };
    staging.faults.clusterInfo = { server_url: eu.apiServer };
    const first = await user.run(['login', name], env);
    expect(first).toMatchObject({ status: 1, stdout: '' });
    expect(first.stderr).toMatch(/is not the TKA server of .*: it serves/);
    expect([us, eu, staging].map(({ counts }) => [counts.login, counts.kubeconfig])).toEqual(Array(3).fill([0, 0]));
    await user.run(['login', before.rows.find((row) => row.apiEndpoint === staging.apiServer)?.name ?? ''], env);
    const { rows } = await list(user, env);
    const server = (cluster: SandboxCluster) => rows.find((row) => row.apiEndpoint === cluster.apiServer)?.server;
    expect([us, eu, staging].map(server)).toEqual([us, staging, eu].map(peerUrl));
  });

  test('a server that claims another’s cluster gets nothing of it, and does not hide it', async ({
    net,
    user,
    env,
  }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    for (const shape of ['go-json', 'go-json-only'] as const) {
      listing(net, shape);
      const name = 'tka-prod-us';
      // Its own address, and the endpoint of another.
      Object.assign(staging.gossip, { apiEndpoint: us.apiServer, address: '127.0.0.66:7946', hostName: 'evil' });
      const { rows } = await list(user, env);
      expect(rows.filter((row) => row.apiEndpoint === us.apiServer)).toMatchObject([{ name, server: peerUrl(us) }]);
      expect((await user.run(['login', name], env)).stdout).toMatch(/^Signed in to tka-prod-us /);
      expect([eu, staging].map(({ counts }) => counts.login)).toEqual([0, 0]);
      user.forget();
    }
  });

  test('two servers of one cluster are one row, and signing in to it needs no choice', async ({ net, user, env }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    Object.assign(eu.gossip, { apiEndpoint: us.apiServer, cluster: null });
    us.gossip.cluster = null;
    eu.faults.clusterInfo = { server_url: us.apiServer };
    for (const shape of ['ours', 'go-json', 'go-json-only'] as const) {
      listing(net, shape);
      const { rows } = await list(user, env);
      expect(rows.map(({ name }) => name)).toEqual(['tka-prod-eu', 'tka-staging']);
      const url = shape === 'ours' ? (cluster: SandboxCluster) => cluster.server : peerUrl;
      const state = shape === 'go-json-only' ? 'unknown' : 'healthy';
      expect(rows[0]).toMatchObject({ apiEndpoint: us.apiServer, state });
      expect(rows[0]?.servers).toEqual([
        { name: 'tka-prod-eu', server: url(eu), state },
        { name: 'tka-prod-us', server: url(us), state },
      ]);
      expect(await user.run('clusters -o wide', env)).toMatchObject({
        status: 0,
        stdout: expect.stringMatching(/^ *tka-prod-eu .* 2\/2 .*\n(?:.*\n)? *tka-staging .* 1\/1 /m),
      });
      for (const name of ['tka-prod-eu', 'tka-prod-us']) {
        expect(await user.run(['use', name], env)).toMatchObject({ status: 0, stderr: '' });
      }
      expect(parse(fs.readFileSync(user.kubeconfig, 'utf8')).contexts).toHaveLength(1);
      user.forget();
    }
    expect(asked(net, 'login')).toEqual([0, 0, 0]);
    expect(staging.counts.clusterInfo).toBeLessThan(3);
  });

  test('an old device with the name of a member does not replace it', async ({ net, user, env, tailscaled }) => {
    const [us, eu, staging] = net.clusters as [SandboxCluster, SandboxCluster, SandboxCluster];
    listing(net, 'go-json');
    // The tailnet gave its second node another name.
    const again = peerOf(eu, { dnsName: 'tka-prod-eu-1.example.ts.net.' });
    tailscaled.peers = [peerOf(us), peerOf(eu, { addresses: ['100.64.9.9'], online: false }), again, peerOf(staging)];
    const { rows } = await list(user, env);
    const row = rows.find(({ apiEndpoint }) => apiEndpoint === eu.apiServer);
    expect(row?.server).toBe(peerUrl(eu).replace('tka-prod-eu', 'tka-prod-eu-1'));
    expect(await user.run(['login', row?.name ?? ''], env)).toMatchObject({ status: 0 });
  });
});
