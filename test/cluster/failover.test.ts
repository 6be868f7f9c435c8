// A cluster with two TKA servers of which each in turn is stopped, killed and cut off, and kubectl all the while: with a real
// API server, the built programs and kubectl.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, inject } from 'vitest';
import { entryName } from '../../src/credential/entry.ts';
import { startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { freePort, TkaServerProcess } from '../server/program.ts';
import { kubeconfigFile } from './api-server.ts';
import { absent, Fixture, test } from './support.ts';

const hosts = ['127.0.0.61', '127.0.0.62'] as const;
const names = ['prod-us', 'prod-us-1'] as const;
const username = `u${randomBytes(4).toString('hex')}`;
const role = `reader-${username}`;

let tailscaled: Tailscaled;
let fixture: Fixture;
let home: Home;
let port = 0;
let gossipPort = 0;
const servers: TkaServerProcess[] = [];

async function startServer(i: number): Promise<TkaServerProcess> {
  const { access, namespace, token } = fixture;
  const host = hosts[i] as string;
  const server = new TkaServerProcess(
    {
      tailscale: { hostname: names[i], port },
      server: { host },
      health: { port: await freePort(host) },
      operator: { namespace, clusterName: 'prod-us' },
      clusterInfo: { apiEndpoint: access.server, caData: Buffer.from(access.ca).toString('base64') },
      gossip: {
        ...{ enabled: true, port: gossipPort, interval: '100ms', stalenessThreshold: 50, deadThreshold: 100 },
        ...{ bootstrapPeers: hosts.map((peer) => `${peer}:${gossipPort}`), key: 'k'.repeat(32) },
      },
    },
    { KUBECONFIG: kubeconfigFile(access, token), TS_SOCKET: tailscaled.socketPath },
  );
  await server.said(/listening for the API/);
  await server.said(/listens for gossip/);
  // It reads the UID of kube-system in the background.
  for (;;) {
    const answer = await fetch(`http://${host}:${port}/api/v1alpha1/cluster-info`);
    if (/"sign_in_store"/.test(await answer.text())) return server;
    await delay(100);
  }
}

const url = (i: number): string => `http://${hosts[i]}:${port}`;
describe.skipIf(absent !== undefined || kubectl === undefined)('two servers of one cluster', () => {
  beforeAll(async () => {
    const [access] = inject('clusters');
    if (access === undefined) throw new Error(absent);
    fixture = await Fixture.make(access);
    await fixture.role(undefined, undefined, role);
    tailscaled = await startTailscaled();
    const rules = [{ role, period: '1h', priority: 1 }];
    tailscaled.whois = () => ({ login: `${username}@example.com`, capabilities: { 'specht-labs.de/cap/tka': rules } });
    port = await freePort(...hosts);
    gossipPort = await freePort(...hosts);
    home = new Home(url(0));
    servers.push(...(await Promise.all(hosts.map((_, i) => startServer(i)))));
    for (;;) {
      const { stdout } = await home.run('clusters -o json');
      const [cluster] = stdout === '' ? [] : JSON.parse(stdout);
      if (cluster?.servers.filter(({ state }: { state: string }) => state === 'healthy').length === 2) break;
    }
    expect(await home.run('login')).toMatchObject({ status: 0 });
  });

  afterAll(async () => {
    for (const server of servers) await server[Symbol.asyncDispose]();
    await tailscaled?.close();
    home?.remove();
    fixture?.kube.close();
  });

  const renewed = async () => {
    fs.rmSync(home.cache, { recursive: true, force: true });
    const ran = await home.kubectl('get pods -A --request-timeout=30s');
    expect(ran).toMatchObject({ status: 0 });
    expect(home.cached()).toContain(entryName(url(0)));
    expect(home.cached()).not.toContain(entryName(url(1)));
    return ran;
  };

  test('each of them is stopped (SIGSTOP): kubectl signs in at the other', async () => {
    for (const i of [0, 1]) {
      servers[i]?.child.kill('SIGSTOP');
      try {
        const { stderr } = await renewed();
        if (i === 0) expect(stderr).toContain(`${url(0)} is away: signed in through ${url(1)}`);
        else expect(stderr).not.toContain('is away');
      } finally {
        servers[i]?.child.kill('SIGCONT');
      }
    }
  });

  test('each of them is killed (SIGKILL) and started again, while kubectl runs in a loop: no failure', async () => {
    let over = false;
    const failed: string[] = [];
    let ran = 0;
    const loop = async () => {
      while (!over) {
        const { status, stderr } = await home.kubectl('get pods -A --request-timeout=30s');
        ran++;
        if (status !== 0) failed.push(stderr);
      }
    };
    const looping = loop();
    for (const i of [0, 1, 0]) {
      await servers[i]?.[Symbol.asyncDispose]();
      fs.rmSync(home.entry({ server: url(0) }), { force: true });
      const enough = ran + 3;
      await expect.poll(() => ran, { timeout: 120_000 }).toBeGreaterThan(enough);
      servers[i] = await startServer(i);
    }
    over = true;
    await looping;
    expect(failed).toEqual([]);
    expect(ran).toBeGreaterThan(9);
  });

  test('killed while the token is waited for: the other one goes on with the same sign-in', async () => {
    fs.rmSync(home.cache, { recursive: true, force: true });
    const signingIn = home.credential({ server: url(0), apiServer: fixture.access.server });
    servers[0]?.child.kill('SIGSTOP');
    expect(await signingIn).toMatchObject({ status: 0 });
    await servers[0]?.[Symbol.asyncDispose]();
    const signIns = await fixture.kube.get<{ items: { metadata: { name: string } }[] }>(
      `/apis/tka.specht-labs.de/v1alpha1/namespaces/${fixture.namespace}/tkasignins`,
    );
    expect(signIns?.items.map(({ metadata }) => metadata.name)).toEqual([`tka-user-${username}`]);
  });

  test('a logout while the first is away ends access, and the next login is at the other', async () => {
    expect(await home.run('logout')).toMatchObject({ status: 0 });
    await fixture.gone(`tka-user-${username}`);
    expect((await home.kubectl('get pods')).status).toBe(1);
    expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
    expect(await home.kubectl('get pods')).toMatchObject({ status: 0 });
  });
});
