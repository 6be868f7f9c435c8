// The whole system: three tka-server processes that gossip, three API servers, the built plugin, and kubectl.
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject } from 'vitest';
import { startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { freePort } from '../fixtures/ports.ts';
import { TkaServerProcess } from '../server/program.ts';
import { kubeconfigFile } from './api-server.ts';
import { statusFor } from './people.ts';
import { absent, Fixture, test, until } from './support.ts';

const hosts = ['127.0.0.51', '127.0.0.52', '127.0.0.53'] as const;
const names = ['tka-prod-us', 'tka-prod-eu', 'tka-staging'] as const;
const username = `u${randomBytes(4).toString('hex')}`;
const signIn = `tka-user-${username}`;
const role = `reader-${username}`;

let tailscaled: Tailscaled;
let fixtures: readonly Fixture[] = [];
let servers: TkaServerProcess[] = [];
let home: Home;
let port = 0;
let gossipPort = 0;

function grant(to: string): void {
  const rules = [{ role: to, period: '1h', priority: 1 }];
  tailscaled.whois = () => ({ login: `${username}@example.com`, capabilities: { 'specht-labs.de/cap/tka': rules } });
}

/** Starts the server of one cluster. */
async function startServer(i: number): Promise<TkaServerProcess> {
  const { access, namespace, token } = fixtures[i] as Fixture;
  const host = hosts[i] as string;
  const ca = Buffer.from(access.ca).toString('base64');
  const config = {
    tailscale: { hostname: names[i], port },
    server: { host },
    health: { port: await freePort(host) },
    operator: { namespace },
    clusterInfo: { apiEndpoint: access.server, caData: ca, labels: { number: String(i) } },
    gossip: {
      enabled: true,
      port: gossipPort,
      interval: '100ms',
      stalenessThreshold: 50,
      deadThreshold: 100,
      bootstrapPeers: hosts.map((peer) => `${peer}:${gossipPort}`),
      key: 'k'.repeat(32),
    },
  };
  const server = new TkaServerProcess(config, {
    KUBECONFIG: kubeconfigFile(access, token),
    TS_SOCKET: tailscaled.socketPath,
  });
  await server.said(/listens for gossip/);
  await server.said(/^started leading$/);
  return server;
}

const url = (i: number): string => `http://${hosts[i]}:${port}`;

async function tokenOf(i: number): Promise<string> {
  const { status, stdout, stderr } = await home.credential({ server: url(i) });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout).status.token;
}

const clean = (text: string): string => text.trim();

describe.skipIf(absent !== undefined || kubectl === undefined)('three servers', () => {
  beforeAll(async () => {
    fixtures = await Promise.all(inject('clusters').map((access) => Fixture.make(access)));
    for (const fixture of fixtures) await fixture.role(undefined, undefined, role);
    tailscaled = await startTailscaled();
    grant(role);
    port = await freePort(...hosts);
    gossipPort = await freePort(...hosts);
    home = new Home(`http://${hosts[0]}:${port}`);
    servers = await Promise.all(hosts.map((_, i) => startServer(i)));
  });

  afterAll(async () => {
    for (const server of servers) await server[Symbol.asyncDispose]();
    await tailscaled?.close();
    home?.remove();
    for (const fixture of fixtures) fixture.kube.close();
  });

  test('are found through one of them, and kubectl reaches each', async () => {
    type Listed = { name: string; state: string; server: string; apiEndpoint: string; labels: object };
    let listed: Listed[] = [];
    while (listed.filter(({ state }) => state === 'healthy').length < 3) {
      const { status, stdout, stderr } = await home.run('clusters -o json');
      expect({ status, stderr }).toMatchObject({ status: 0 });
      listed = JSON.parse(stdout);
    }
    expect(listed.map(({ name, server, apiEndpoint, labels }) => ({ name, server, apiEndpoint, labels }))).toEqual(
      [1, 0, 2].map((i) => ({
        name: names[i],
        server: url(i),
        apiEndpoint: fixtures[i]?.access.server,
        labels: { number: String(i) },
      })),
    );
    expect(await home.run('login --all-contexts')).toMatchObject({ status: 0 });
    for (const [i, name] of names.entries()) {
      const who = await home.kubectl(`--context ${name} auth whoami -o jsonpath={.status.userInfo.username}`);
      expect(who).toMatchObject({
        status: 0,
        stdout: `system:serviceaccount:${fixtures[i]?.namespace}:${signIn}`,
        stderr: '',
      });
    }
  });

  test('a read-only role sees pods, and cannot delete them', async () => {
    const [fixture] = fixtures as [Fixture];
    await fixture.kube.create('/api/v1/namespaces/default/pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: `pod-${username}` },
      spec: { containers: [{ name: 'main', image: 'none.invalid/none' }] },
    });
    expect(await home.run(`login ${names[0]}`)).toMatchObject({ status: 0 });
    const seen = await home.kubectl('get pods -o name');
    expect(seen).toMatchObject({ status: 0, stderr: '' });
    expect(seen.stdout).toContain(`pod/pod-${username}`);
    const refused = await home.kubectl(`delete pod pod-${username}`);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('cannot delete resource "pods"');
  });

  test('logout ends the token', async () => {
    const [fixture] = fixtures as [Fixture];
    const token = await tokenOf(0);
    expect(await statusFor(fixture.access, token)).toBe(200);
    expect(await home.run(`logout ${names[0]}`)).toMatchObject({ status: 0 });
    expect([401, 403]).toContain(await statusFor(fixture.access, token));
    await fixture.gone(signIn);
    const after = await home.kubectl(`--context ${names[0]} get pods`);
    expect(after.status).toBe(1);
    expect(clean(after.stderr)).toMatch(/^error: signed out of http:\/\/127\.0\.0\.51:/);
  });

  test('a changed role is in force after the next login', async () => {
    const [fixture] = fixtures as [Fixture];
    expect(await home.run(`login ${names[0]}`)).toMatchObject({ status: 0 });
    const wider = await fixture.role(['get', 'list'], ['configmaps']);
    expect((await home.kubectl('get configmaps')).status).toBe(1);
    grant(wider);
    try {
      const login = await home.run(`login ${names[0]}`);
      expect(login).toMatchObject({ status: 0 });
      expect(await home.kubectl('get configmaps -o name')).toMatchObject({ status: 0 });
      expect((await home.kubectl('get pods')).status).toBe(1);
    } finally {
      grant(role);
    }
  });

  test('a removed grant refuses the login', async () => {
    const before = tailscaled.whois;
    tailscaled.whois = (...from) => ({ ...before(...from), login: `${username}@example.com`, capabilities: {} });
    try {
      const login = await home.run(`login ${names[0]}`);
      expect(login.status).toBe(1);
      expect(login.stderr).toContain(`no grant for ${username}@example.com on `);
    } finally {
      tailscaled.whois = before;
    }
  });

  test('an earlier end, set by an administrator, ends access on time', async () => {
    const [fixture] = fixtures as [Fixture];
    expect(await home.run(`login ${names[0]}`)).toMatchObject({ status: 0 });
    const token = await tokenOf(0);
    const end = Math.ceil(Date.now() / 1000) * 1000 + 2_000;
    await fixture.endAt(signIn, end);
    await fixture.gone(signIn);
    expect(Date.now() - end).toBeLessThan(10_000);
    expect([401, 403]).toContain(await statusFor(fixture.access, token));
  });

  test('a server killed between login and end leaves nothing behind; the others see it go and come back', async () => {
    const fixture = fixtures[2] as Fixture;
    const state = async () => {
      const listed = JSON.parse((await home.run('clusters -o json')).stdout) as { name: string; state: string }[];
      return listed.find(({ name }) => name === names[2])?.state;
    };
    expect(await home.run(`login ${names[2]}`)).toMatchObject({ status: 0 });
    servers[2]?.child.kill('SIGKILL');
    await servers[2]?.ended;
    await fixture.endAt(signIn, Date.now() + 1_000);
    while ((await state()) === 'healthy');
    expect(['suspected', 'dead']).toContain(await state());
    servers[2] = await startServer(2);
    await fixture.gone(signIn);
    while ((await state()) !== 'healthy');
    expect(await home.kubectl(`--context ${names[2]} get pods`)).toMatchObject({ status: 0 });
  });

  test('on SIGTERM they leave, release the lease, and exit 0', async () => {
    for (const server of servers) server.child.kill('SIGTERM');
    for (const server of servers) expect(await server.ended).toEqual({ status: 0, signal: null });
    for (const { access, namespace } of fixtures) {
      const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
      await until<{ spec: { holderIdentity: string } }>(
        access,
        leases,
        'controller.tka.specht-labs.de',
        (found) => found?.spec.holderIdentity === '',
      );
    }
    const logs = servers.map(({ stderr }) => stderr).join('');
    expect(logs).not.toMatch(/eyJ/);
    expect(servers.flatMap(({ lines }) => lines.filter(({ level }) => level === 'error'))).toEqual([]);
  });
});
