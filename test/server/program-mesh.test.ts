import { once } from 'node:events';
import * as http from 'node:http';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  type StandInCaller,
  type StandInPeer,
  startTailscaled,
  type Tailscaled,
} from '../../src/sandbox/tailscaled.ts';
import { digestOf } from '../../src/server/mesh/member.ts';
import { freePort } from '../fixtures/ports.ts';
import { socksProxy } from '../network/servers.ts';
import { hasPods, Pod } from './pod.ts';
import { ask, TkaServerProcess } from './program.ts';

const alice: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h', priority: 1 }] },
};

// macOS has only 127.0.0.1.
describe.runIf(process.platform === 'linux')('a mesh', () => {
  type Row = { name: string; cluster?: string; server: string; state: string; apiPort: number };
  const gossip = { enabled: true, interval: '200ms', stalenessThreshold: 25, deadThreshold: 50 };
  /** Sent from a separate address, since the members are known by theirs. */
  async function members(host: string, port: number): Promise<Row[]> {
    const url = `http://${host}:${port}/api/v1alpha1/memberlist`;
    const { status, body } = await ask(url, { localAddress: '127.0.0.9', headers: { accept: 'application/json' } });
    expect(status).toBe(200);
    return JSON.parse(body);
  }
  /** The tailscaled of one of these devices. Connections from loopback are those of a member, passed on by it. */
  const tailnetOf = (self: number, devices: readonly StandInPeer[]): Promise<Tailscaled> =>
    startTailscaled({
      self: devices[self] as StandInPeer,
      peers: devices.filter((_, i) => i !== self),
      whois: (address) => {
        if (address === '127.0.0.9') return alice;
        const device = devices.find(({ addresses }) => addresses.includes(address)) ?? devices[self === 0 ? 1 : 0];
        return { login: '', tags: device?.tags ?? [], dnsName: `${device?.hostName}.example.ts.net` };
      },
    });
  /**
   * A tagged node that claims to be another one, alternately with its own address and the other's, and claims that the
   * other leaves.
   */
  async function startLiar(host: string, gossipPort: number, hosts: readonly string[], port: number) {
    let asked = 0;
    const say = (more: object) => ({ v: 2, name: 'tka-prod-us', process: 'liar', version: 'liar', ...more });
    const server = http.createServer((request, response) => {
      const own = ++asked % 2 === 0 ? host : (hosts[0] as string);
      const record = {
        server: `http://${own}:${port}`,
        gossipPort,
        apiEndpoint: 'https://api.evil.example.com',
        labels: {},
        version: '1',
        ...(asked % 3 === 0 && { left: true }),
      };
      const version = digestOf(JSON.stringify(record));
      request.resume().on('end', () => response.end(JSON.stringify(say({ record, version, others: [] }))));
      // It also sends requests to the others, as if it were each of them.
      for (const at of hosts.slice(0, 2)) {
        const body = JSON.stringify(say({ at: `${at}:${gossipPort}`, members: [9, 'x'], leaving: asked % 3 === 0 }));
        const question = { host: at, port: gossipPort, method: 'POST', path: '/gossip/v2', agent: false };
        http
          .request(question, (answer) => answer.resume())
          .on('error', () => {})
          .end(body);
      }
    });
    await new Promise<void>((resolve) => server.listen(gossipPort, host, resolve));
    return {
      asked: () => asked,
      async [Symbol.asyncDispose]() {
        server.close().closeAllConnections();
      },
    };
  }
  async function until(what: () => Promise<boolean>): Promise<void> {
    while (!(await what())) await delay(20);
  }

  test('of servers that find each other by their tag only; a stopped one has left', async () => {
    const hosts = ['127.0.0.41', '127.0.0.42', '127.0.0.43'];
    const port = await freePort(...hosts);
    const gossipPort = await freePort(...hosts);
    const tags = ['tag:tka'];
    await using stack = new AsyncDisposableStack();
    const servers: TkaServerProcess[] = [];
    const devices = hosts.map((host, i) => ({ hostName: `tka-${i}`, addresses: [host], tags }));
    for (const [i, host] of hosts.entries()) {
      const tailscaled = stack.use(await tailnetOf(i, devices));
      const config = {
        clusterInfo: { apiEndpoint: `https://api-${i}.example.com:6443` },
        server: { host },
        tailscale: { hostname: `tka-${i}`, port },
        health: { port: await freePort(host) },
        gossip: { ...gossip, port: gossipPort },
      };
      servers.push(stack.use(new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath })));
    }
    await Promise.all(servers.map((server) => server.said(/listens for gossip/)));
    for (const host of hosts) {
      await until(async () => (await members(host, port)).filter(({ state }) => state === 'healthy').length === 3);
    }
    expect(await members(hosts[0] as string, port)).toEqual(
      hosts.map((host, i) =>
        expect.objectContaining({
          name: `tka-${i}`,
          cluster: `tka-${i}`,
          server: `http://${host}:${port}`,
          apiPort: port,
        }),
      ),
    );
    servers[2]?.child.kill('SIGTERM');
    expect(await servers[2]?.ended).toEqual({ status: 0, signal: null });
    await until(async () => (await members(hosts[0] as string, port))[2]?.state === 'dead');
  });

  test('of a cluster whose first node was HOSTNAME-0 and is renamed to HOSTNAME', async () => {
    const hosts = ['127.0.0.48', '127.0.0.49'] as const;
    const [port, gossipPort] = [await freePort(...hosts), await freePort(...hosts)];
    const device = (name: string, i: number) => ({
      hostName: name,
      addresses: [hosts[i] ?? ''],
      tags: ['tag:tka'],
    });
    const devices = [device('tka-prod-us-0', 0), device('tka-prod-us-1', 1)];
    await using stack = new AsyncDisposableStack();
    const tailscaleds = [stack.use(await tailnetOf(0, devices)), stack.use(await tailnetOf(1, devices))] as const;
    const start = async (i: 0 | 1, bootstrap = 'tka-prod-us-0'): Promise<TkaServerProcess> => {
      const config = {
        clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
        server: { host: hosts[i] },
        tailscale: { hostname: 'tka-prod-us', tailnet: 'example.ts.net', port },
        health: { port: await freePort(hosts[i]) },
        gossip: {
          ...gossip,
          port: gossipPort,
          ...(i === 1 && { bootstrapPeers: [`${bootstrap}.example.ts.net:${gossipPort}`] }),
        },
      };
      const server = stack.use(new TkaServerProcess(config, { TS_SOCKET: tailscaleds[i].socketPath }));
      await server.said(/listens for gossip/);
      return server;
    };
    const [first, second] = [await start(0), await start(1)];
    const healthy = async (host: string) =>
      (await members(host, port).catch(() => []))
        .filter(({ state }) => state === 'healthy')
        .map(({ name, cluster, server }) => ({ name, cluster, server }));
    const row = (name: string) => ({
      name,
      cluster: 'tka-prod-us',
      server: `http://${name}.example.ts.net:${port}`,
    });
    for (const host of hosts) {
      await expect.poll(() => healthy(host), { timeout: 10_000 }).toEqual(['tka-prod-us-0', 'tka-prod-us-1'].map(row));
    }

    devices[0] = device('tka-prod-us', 0);
    tailscaleds[0].self = devices[0];
    tailscaleds[1].peers = [devices[0]];
    await first.said(/^tka-server restarts$/);
    for (const host of hosts) {
      await expect.poll(() => healthy(host), { timeout: 20_000 }).toEqual(['tka-prod-us', 'tka-prod-us-1'].map(row));
    }
    expect(first.child.exitCode).toBeNull();

    // Its bootstrap peer does not exist any more, and has the cluster's name now.
    second.child.kill('SIGTERM');
    await second.ended;
    await start(1, 'tka-prod-us');
    for (const host of hosts) {
      await expect.poll(() => healthy(host), { timeout: 20_000 }).toEqual(['tka-prod-us', 'tka-prod-us-1'].map(row));
    }
  });

  test('with a liar: no member shows the liar’s address under another’s name, or its claims about others', async () => {
    const hosts = ['127.0.0.45', '127.0.0.46', '127.0.0.47'];
    const names = ['tka-prod-us', 'tka-prod-eu', 'tka-evil'];
    const port = await freePort(...hosts);
    const gossipPort = await freePort(...hosts);
    const tags = ['tag:tka'];
    const devices = hosts.map((host, i) => ({ hostName: names[i] ?? '', addresses: [host], tags }));
    await using stack = new AsyncDisposableStack();
    const liar = stack.use(await startLiar(hosts[2] as string, gossipPort, hosts, port));
    const honest = hosts.slice(0, 2);
    for (const [i, host] of honest.entries()) {
      const tailscaled = stack.use(await tailnetOf(i, devices));
      const config = {
        clusterInfo: { apiEndpoint: `https://api-${i}.example.com:6443`, labels: { own: names[i] } },
        server: { host },
        tailscale: { hostname: names[i], port },
        health: { port: await freePort(host) },
        gossip: { ...gossip, port: gossipPort },
      };
      const server = stack.use(new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath }));
      await server.said(/ignored member tka-prod-us: its node name on the tailnet is "tka-evil"/);
    }
    for (const host of honest) await until(async () => (await members(host, port)).length === 2);
    // Each has read the liar often enough to have accepted everything that it says.
    const before = liar.asked();
    await until(async () => liar.asked() > before + 12);
    for (const host of honest) {
      expect(await members(host, port)).toEqual(
        [1, 0].map((i) =>
          expect.objectContaining({
            name: names[i],
            server: `http://${hosts[i]}:${port}`,
            apiEndpoint: `https://api-${i}.example.com:6443`,
            labels: { own: names[i] },
            state: 'healthy',
          }),
        ),
      );
    }
  });

  test('of servers with a userspace tailscaled: goes through its proxy, by names that only it knows', async () => {
    const ports = [await freePort('127.0.0.1'), await freePort('127.0.0.1')] as const;
    const gossipPorts = [await freePort('127.0.0.1'), await freePort('127.0.0.1')] as const;
    const addresses = ['100.64.0.61', '100.64.0.62'] as const;
    const names = ['tka-a', 'tka-b'] as const;
    const proxy = await socksProxy({
      knows: Object.fromEntries(addresses.map((address, i) => [`${address}:${gossipPorts[i]}`, gossipPorts[i] ?? 0])),
    });
    const tags = ['tag:tka'];
    await using stack = new AsyncDisposableStack();
    const servers: TkaServerProcess[] = [];
    const devices = names.map((hostName, i) => ({ hostName, addresses: [addresses[i] ?? ''], tags }));
    for (const i of [0, 1] as const) {
      const tailscaled = stack.use(await tailnetOf(i, devices));
      const config = {
        clusterInfo: { apiEndpoint: `https://api-${i}.example.com:6443` },
        tailscale: { hostname: names[i], port: ports[i] },
        health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
        gossip: { ...gossip, port: gossipPorts[i], bootstrapPeers: [`tka-b.example.ts.net:${gossipPorts[1]}`] },
      };
      const env = { TS_SOCKET: tailscaled.socketPath, ALL_PROXY: `socks5://127.0.0.1:${proxy.port}` };
      servers.push(stack.use(new TkaServerProcess(config, env)));
    }
    await Promise.all(servers.map((server) => server.said(/listens for gossip/)));
    for (const port of ports) {
      await until(
        async () => (await members('127.0.0.1', port)).filter(({ state }) => state === 'healthy').length === 2,
      );
    }
    expect((await members('127.0.0.1', ports[1])).map(({ server }) => server)).toEqual(
      names.map((name, i) => `http://${name}.example.ts.net:${ports[i]}`),
    );
    await until(async () => new Set(proxy.asked).size >= 2);
    expect(new Set(proxy.asked)).toEqual(new Set(addresses.map((address, i) => `1 ${address}:${gossipPorts[i]}`)));
  });

  // As a pod of a network that uses the tailnet's address range too: with the right tag according to tailscaled, and
  // not on loopback.
  test.runIf(hasPods)(
    'with a userspace tailscaled: connects only through its proxy, whatever the address',
    async () => {
      await using pod = await Pod.make();
      const stranger = pod.start(`
      require('node:net')
        .createServer((socket) => { console.log('called'); socket.destroy(); })
        .listen(7946, '${pod.address}', () => console.log('listens'))`);
      let said = '';
      stranger.stdout?.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      await once(stranger.stdout as Readable, 'data');
      const tags = ['tag:tka'];
      await using tailscaled = await startTailscaled({
        self: { hostName: 'tka', addresses: ['127.0.0.1'], tags },
        peers: [{ hostName: 'tka-1', addresses: [pod.address], tags }],
        whois: () => ({ login: '', tags }),
      });
      const config = {
        clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
        tailscale: { port: 8123 },
        health: { host: '127.0.0.1', port: 8080 },
        gossip: { ...gossip, port: 7946, bootstrapPeers: [`${pod.address}:7946`] },
      };
      await using server = new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath }, undefined, pod.within);
      expect((await server.said(/ALL_PROXY/)).msg).toContain('set ALL_PROXY to the proxy of tailscaled');
      stranger.kill('SIGKILL');
      await once(stranger, 'close');
      expect(said).toBe('listens\n');
    },
  );

  test.runIf(hasPods)(
    'with a userspace tailscaled: refuses a caller that did not come through it, whatever its address',
    async () => {
      await using pod = await Pod.make();
      const tags = ['tag:tka'];
      await using tailscaled = await startTailscaled({
        self: { hostName: 'tka', addresses: ['100.64.0.1'], tags },
        whois: () => ({ login: '', tags }),
      });
      const config = {
        clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
        server: { host: '0.0.0.0' },
        tailscale: { hostname: 'tka', tailnet: 'example.ts.net', port: 8123 },
        health: { host: '127.0.0.1', port: 8080 },
        gossip: { ...gossip, port: 7946 },
      };
      await using server = new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath }, undefined, pod.within);
      await server.said(/listens for gossip/);
      expect(await pod.status(`http://${pod.address}:7946/gossip/v2`, 'POST')).toBe(403);
      // Over loopback the content of the same message is read.
      expect(await pod.status('http://127.0.0.1:7946/gossip/v2', 'POST')).toBe(400);
    },
  );

  test('without a key and without a tag is refused', async () => {
    await using tailscaled = await startTailscaled({ self: { hostName: 'laptop', addresses: ['127.0.0.44'] } });
    const config = {
      clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
      server: { host: '127.0.0.44' },
      tailscale: { port: await freePort('127.0.0.44') },
      health: { port: await freePort('127.0.0.44') },
      gossip,
    };
    await using server = new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath });
    expect(await server.ended).toEqual({ status: 2, signal: null });
    expect(server.stderr).toContain('\nerror: the mesh would admit every node: ');
  });
});
