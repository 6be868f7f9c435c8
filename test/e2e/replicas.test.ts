// A cluster with two TKA servers is one cluster: one row, one name, one context. The user never types the name of a
// replica.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { peerOf, startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { testWithReplicas as test } from '../fixtures/mesh.ts';
import { test as onTailnet, peerUrl } from './tailnet.ts';

const contexts = (home: Home): [name: string, server: string][] =>
  parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.map(
    ({ name, context }: { name: string; context: { extensions: { extension: { server: string } }[] } }) => [
      name,
      context.extensions[0]?.extension.server ?? '',
    ],
  );
const json = async (home: Home, args: string) => JSON.parse((await home.run(`${args} -o json`)).stdout);
const pair = (mesh: SandboxMesh): [SandboxCluster, SandboxCluster] => [
  mesh.cluster('prod-us'),
  mesh.cluster('prod-us-1'),
];

describe('a cluster with two servers', () => {
  test('is one row, with the number of servers that are up', async ({ mesh, home }) => {
    const [us, second] = pair(mesh);
    expect((await home.run('clusters -o name')).stdout).toBe('prod-eu\nprod-us\nstaging\n');
    const row = async () => (await json(home, 'clusters')).find(({ name }: { name: string }) => name === 'prod-us');
    expect(await row()).toMatchObject({
      server: us.server,
      state: 'healthy',
      servers: [
        { name: 'prod-us', server: us.server, state: 'healthy' },
        { name: 'prod-us-1', server: second.server, state: 'healthy' },
      ],
    });
    expect((await home.run('clusters -o wide')).stdout).toMatch(/^[* ] +prod-us .* 2\/2 /m);
    await second.stop();
    expect(await row()).toMatchObject({ state: 'healthy', server: us.server });
    expect((await home.run('clusters -o wide')).stdout).toMatch(/^[* ] +prod-us .* 1\/2 /m);
  });

  test('gets one context, however it is named, and keeps it', async ({ mesh, home }) => {
    const [us, second] = pair(mesh);
    for (const name of ['', 'prod-us', 'prod-us-1', us.server, second.server]) {
      const ran = await home.run(['login', ...(name === '' ? [] : [name])]);
      expect([name, ran.status]).toEqual([name, 0]);
      expect(ran.stdout).toMatch(/^Signed in to prod-us \(/);
      // Only a URL selects that server.
      expect(contexts(home)).toEqual([['prod-us', name === second.server ? second.server : us.server]]);
    }
    expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual([['prod-us', second.server]]);
    for (const name of ['prod-us', 'prod-us-1']) {
      expect(await home.run(['use', name])).toMatchObject({ status: 0, stdout: 'Switched to context "prod-us".\n' });
    }
    expect(await home.run('sync')).toMatchObject({ status: 0, stdout: '2 added: prod-eu, staging. 1 unchanged.\n' });
    expect(contexts(home)).toHaveLength(3);
    expect((await home.run('sync')).stdout).toBe('3 unchanged.\n');
    expect((await json(home, 'clusters')).map(({ context }: { context: string }) => context)).toEqual([
      'prod-eu',
      'prod-us',
      'staging',
    ]);
  });

  test('exec runs once for it, also with a context for each of its servers', async ({ mesh, home }) => {
    const folder = path.join(home.root, 'kubectl');
    home.write(path.join(folder, 'kubectl'), '#!/bin/sh\necho here\n', 0o755);
    const kubectl = { env: { PATH: `${folder}:${home.env.PATH}` } };
    const clusters = ['prod-eu | here', 'prod-us | here', 'staging | here'];
    const ran = async (args: string) => (await home.run(`exec --yes ${args} -- delete pod x`, kubectl)).stdout;
    const lines = (text: string) =>
      text
        .trimEnd()
        .split('\n')
        .map((line) => line.replace(/ +\|/, ' |'))
        .sort();
    expect(lines(await ran('--parallel 4'))).toEqual(clusters);
    // As version 0.1.0 wrote them.
    for (const cluster of pair(mesh)) await home.run(['login', cluster.server, '--context', `old-${cluster.name}`]);
    expect(contexts(home).map(([name]) => name)).toEqual(['old-prod-us', 'old-prod-us-1']);
    expect(lines(await ran(''))).toEqual(clusters);
    expect(await home.run('exec prod-us prod-us-1 old-prod-us old-prod-us-1 -- delete pod x', kubectl)).toMatchObject({
      stdout: 'prod-us | here\n',
      stderr: '',
    });
    // No server answers: only the contexts and the last list are left.
    for (const cluster of mesh.clusters) await cluster.stop();
    expect(lines(await ran('prod-us'))).toEqual(['prod-us | here']);
    expect(await home.run('exec prod-us-1 old-prod-us -- delete pod x', kubectl)).toMatchObject({
      stdout: 'prod-us | here\n',
    });
  });

  test('status shows it once, and names and hints are the cluster’s', async ({ mesh, home }) => {
    const [us, second] = pair(mesh);
    for (const cluster of [us, second]) await home.run(['login', cluster.server, '--context', `old-${cluster.name}`]);
    await home.run('clusters');
    expect(await json(home, 'status')).toMatchObject([
      { name: 'prod-us', server: second.server, context: 'old-prod-us-1', state: 'active' },
    ]);
    expect(await home.run('logout prod-us')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^Signed out of prod-us \(/),
    });
    const ambiguous = await home.run('login prod');
    expect(ambiguous.status).toBe(2);
    for (const name of ['prod-us', 'prod-eu']) expect(ambiguous.stderr).toContain(`hint: kubectl tka login ${name} (`);
    const complete = await home.run(['__complete', 'login', 'prod-u']);
    expect(complete.stdout.split('\n').map((line) => line.split('\t')[0])).not.toContain('prod-us-1');
  });

  test('an existing context keeps its name and its server while that is one of the cluster’s', async ({
    mesh,
    home,
  }) => {
    const [, second] = pair(mesh);
    await home.run(['login', second.server, '--context', 'mine']);
    for (const args of ['login prod-us', 'sync', 'use prod-us', 'exec prod-us -- config current-context']) {
      await home.run(args);
      expect(contexts(home).filter(([name]) => name === 'mine' || name.startsWith('prod-us'))).toEqual([
        ['mine', second.server],
      ]);
    }
  });

  test('scaled down and up, its context stays unchanged', async ({ mesh, home }) => {
    const [us, second] = pair(mesh);
    await home.run(['login', second.server]);
    await home.run('sync');
    const before = fs.readFileSync(home.kubeconfig);
    for (const listed of [false, true]) {
      second.gossip.listed = listed;
      if (!listed) await second.stop();
      else await second.start();
      expect(await home.run('sync')).toMatchObject({ status: 0, stdout: '3 unchanged.\n' });
      expect(fs.readFileSync(home.kubeconfig)).toEqual(before);
      expect((await home.run('clusters -o wide')).stdout).toMatch(
        listed ? /^[* ] +prod-us .* 2\/2 /m : /^[* ] +prod-us .* 1\/2 /m,
      );
    }
    expect(us.counts.login).toBe(0);
  });
});

describe.skipIf(process.platform !== 'linux')('on a tailnet (needs loopback addresses that only Linux has)', () => {
  it('login without a name asks nothing if the tailnet has one cluster', async () => {
    const [first, second] = ['tka-prod-us', 'tka-prod-us-1'] as const;
    const clusters = [
      { name: first, host: '127.0.0.11' },
      { name: second, host: '127.0.0.12', replicaOf: first },
    ];
    await using net = await startMesh({ samePort: true, clusters });
    await using tailscaled = await startTailscaled({ peers: net.clusters.map((cluster) => peerOf(cluster)) });
    const port = new URL(net.cluster(first).server).port;
    using user = new Home();
    const env = { env: { TS_SOCKET: tailscaled.socketPath, TKA_TAILSCALE_PORT: port } };
    const ran = await user.run('login', env);
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(ran.stdout).toMatch(/^Signed in to tka-prod-us \(.*\nSwitched to context "tka-prod-us"/);
    expect(net.clusters.map(({ counts }) => counts.login)).toEqual([1, 0]);
    // The node with the cluster's name is offline: the other one is tagged, and of that cluster.
    await net.cluster(first).stop();
    const configured = { env: { ...env.env, TKA_TAILSCALE_HOSTNAME: first } };
    expect((await user.run('clusters -o wide', configured)).stdout).toMatch(/^[* ] +tka-prod-us +healthy .* 1\/2 /m);
    user.forget();
    expect(await user.run('login', configured)).toMatchObject({ status: 0 });
    expect(contexts(user)).toEqual([['tka-prod-us', net.cluster(second).server]]);
    expect(net.clusters.map(({ counts }) => counts.login)).toEqual([1, 1]);
  });

  onTailnet('an address or a name of a server selects the listed cluster', async ({ net, user, env }) => {
    const [us] = net.clusters as [SandboxCluster];
    await user.run('clusters', env);
    for (const url of [us.server, peerUrl(us)]) {
      expect(await user.run(['login', url], env)).toMatchObject({ status: 0 });
      expect(contexts(user)).toEqual([['tka-prod-us', url]]);
    }
  });
});
