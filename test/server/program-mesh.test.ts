import * as net from 'node:net';
import * as os from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type StandInCaller, startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { socksProxy } from '../network/servers.ts';
import { ask, freePort, TkaServerProcess } from './program.ts';

const alice: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h', priority: 1 }] },
};

// macOS has 127.0.0.1 alone.
describe.runIf(process.platform === 'linux')('a mesh', () => {
  type Row = { name: string; server: string; state: string; apiPort: number };
  const gossip = { enabled: true, interval: '50ms', stalenessThreshold: 100, deadThreshold: 200 };
  /** Asked from an address of its own, since the members are known by theirs. */
  async function members(host: string, port: number): Promise<Row[]> {
    const url = `http://${host}:${port}/api/v1alpha1/memberlist`;
    const { status, body } = await ask(url, { localAddress: '127.0.0.9', headers: { accept: 'application/json' } });
    expect(status).toBe(200);
    return JSON.parse(body);
  }
  /** An address of this machine that is not loopback. */
  const ownAddress = (): string | undefined =>
    Object.values(os.networkInterfaces())
      .flatMap((list) => list ?? [])
      .find(({ internal, family }) => !internal && family === 'IPv4')?.address;
  async function until(what: () => Promise<boolean>): Promise<void> {
    while (!(await what())) await delay(20);
  }

  test('of servers that find each other by their tag alone; one that is stopped has left', async () => {
    const hosts = ['127.0.0.41', '127.0.0.42', '127.0.0.43'];
    const port = await freePort(...hosts);
    const gossipPort = await freePort(...hosts);
    const tags = ['tag:tka'];
    await using tailscaled = await startTailscaled({
      self: { hostName: 'tka-0', addresses: ['127.0.0.41'], tags },
      peers: hosts.slice(1).map((host, i) => ({ hostName: `tka-${i + 1}`, addresses: [host], tags })),
      whois: (address) => (address === '127.0.0.9' ? alice : { login: '', tags }),
    });
    await using stack = new AsyncDisposableStack();
    const servers: TkaServerProcess[] = [];
    for (const [i, host] of hosts.entries()) {
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
        expect.objectContaining({ name: `tka-${i}`, server: `http://${host}:${port}`, apiPort: port }),
      ),
    );
    servers[2]?.child.kill('SIGTERM');
    expect(await servers[2]?.ended).toEqual({ status: 0, signal: null });
    await until(async () => (await members(hosts[0] as string, port))[2]?.state === 'dead');
  });

  test('of servers whose tailnet is tailscaled’s alone: through its proxy, by names that nobody else knows', async () => {
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
    for (const i of [0, 1] as const) {
      const device = (j: 0 | 1) => ({ hostName: names[j], addresses: [addresses[j]], tags });
      const tailscaled = stack.use(
        await startTailscaled({
          self: device(i),
          peers: [device(i === 0 ? 1 : 0)],
          whois: (address) => (address === '127.0.0.9' ? alice : { login: '', tags }),
        }),
      );
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

  test('whose tailnet is tailscaled’s alone: what is past its proxy is not spoken to, whatever address it has', async ({
    skip,
  }) => {
    // As a pod of a network that uses the tailnet's addresses too: of the right tag, says tailscaled, and not loopback.
    const address = ownAddress();
    if (address === undefined) return skip('this machine has loopback alone');
    let calls = 0;
    const stranger = net.createServer((socket) => {
      calls++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => stranger.listen(0, address, resolve));
    const { port } = stranger.address() as net.AddressInfo;
    const tags = ['tag:tka'];
    await using tailscaled = await startTailscaled({
      self: { hostName: 'tka-0', addresses: ['127.0.0.1'], tags },
      peers: [{ hostName: 'tka-1', addresses: [address], tags }],
      whois: () => ({ login: '', tags }),
    });
    const config = {
      clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
      tailscale: { port: await freePort('127.0.0.1') },
      health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
      gossip: { ...gossip, port: await freePort('127.0.0.1'), bootstrapPeers: [`${address}:${port}`] },
    };
    await using server = new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath });
    expect((await server.said(/ALL_PROXY/)).msg).toContain('ALL_PROXY must name tailscaled’s proxy');
    stranger.close();
    expect(calls).toBe(0);
  });

  test('behind a userspace tailscaled: a caller that did not come through it is refused, whatever its address', async ({
    skip,
  }) => {
    const address = ownAddress();
    if (address === undefined) return skip('this machine has loopback alone');
    const tags = ['tag:tka'];
    await using tailscaled = await startTailscaled({
      self: { hostName: 'tka-0', addresses: ['100.64.0.1'], tags },
      whois: () => ({ login: '', tags }),
    });
    const port = await freePort('0.0.0.0');
    const config = {
      clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
      server: { host: '0.0.0.0' },
      tailscale: { hostname: 'tka-0', tailnet: 'example.ts.net', port: await freePort('0.0.0.0') },
      health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
      gossip: { ...gossip, port },
    };
    await using server = new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath });
    await server.said(/listens for gossip/);
    const asPod = { method: 'POST', localAddress: address };
    expect((await ask(`http://${address}:${port}/gossip/v1`, asPod)).status).toBe(403);
    // The same message over loopback gets as far as its content.
    expect((await ask(`http://127.0.0.1:${port}/gossip/v1`, { method: 'POST' })).status).toBe(400);
  });

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
    expect(server.stderr).toContain('\nerror: the mesh would be open to strangers: ');
  });
});
