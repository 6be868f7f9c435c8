// A login server and a joined cluster with limits, as built programs on two API servers, with the built plugin.
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { throughOf } from '../../src/server/provisioner/sign-in.ts';
import { Home } from '../fixtures/home.ts';
import { freePort } from '../fixtures/ports.ts';
import { mountSecret } from '../server/federation/join-secrets.ts';
import { TkaServerProcess } from '../server/program.ts';
import { type ApiServer, kubeconfigFile, startApiServer } from './api-server.ts';
import { applyManifests, Fixture } from './fixture.ts';
import { LoginCluster, tokenOfSecret } from './login-servers.ts';
import { makeFolder } from './processes.ts';
import { absent, statusFor } from './support.ts';

const name = 'edge-1';

describe.skipIf(absent !== undefined)('a login server and a cluster that has joined it', () => {
  let login: LoginCluster;
  let tailscaled: Tailscaled;
  let server: TkaServerProcess;
  let url = '';
  let api: ApiServer;
  let fixture: Fixture;
  let joined: TkaServerProcess;
  let [role, other] = ['', ''];

  const alice = (granted: string): StandInCaller => ({
    login: 'alice@example.com',
    capabilities: { 'specht-labs.de/cap/tka-federation': [{ role: granted, period: '8h', clusters: [name] }] },
  });

  beforeAll(async () => {
    const assets = inject('assets');
    if (typeof assets === 'string') throw new Error(assets);
    tailscaled = await startTailscaled({ whois: () => alice(role) });
    login = await LoginCluster.start('127.0.0.23');
    const [port, health, tunnels] = [
      await freePort('127.0.0.1'),
      await freePort('127.0.0.1'),
      await freePort('127.0.0.1'),
    ];
    const settings = {
      ...login.settings,
      federation: { ...login.settings.federation, listen: `127.0.0.1:${tunnels}` },
      server: { host: '127.0.0.1' },
      tailscale: { port },
      health: { host: '127.0.0.1', port: health },
    };
    server = new TkaServerProcess(settings, {
      KUBECONFIG: login.serverKubeconfig(),
      TS_SOCKET: tailscaled.socketPath,
    });
    await server.said(/listens for the tunnels of joined clusters/);
    await server.said(/listening for the API/);
    login.route(tunnels);
    url = `http://127.0.0.1:${port}/clusters/${name}`;
    api = await startApiServer(assets, { url: inject('etcd') }, '127.0.0.24');
    fixture = await Fixture.make({ server: api.server, ca: api.ca, token: api.token }, 'tka-system');
    await applyManifests(fixture.kube, 'federation/namespace.yaml', 'federation/joined-cluster/rbac.yaml');
    [role, other] = [await fixture.role(), await fixture.role()];
    const folder = makeFolder();
    mountSecret(folder, { endpoint: login.endpoint, token: tokenOfSecret(await login.token(name)) });
    const config = {
      tailscale: { port: await freePort('127.0.0.1') },
      server: { host: '127.0.0.1' },
      health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
      operator: { namespace: 'tka-system' },
      clusterInfo: { apiEndpoint: api.server, caData: Buffer.from(api.ca).toString('base64') },
      federation: { joinFolder: folder, caFile: login.caFile, roles: [role], maxPeriod: '1h' },
    };
    joined = new TkaServerProcess(config, { KUBECONFIG: kubeconfigFile(fixture.access, fixture.token) });
    await joined.said(/connected to the login server/);
  });
  afterAll(async () => {
    await joined?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    await tailscaled?.close();
    fixture?.kube.close();
    await api?.stop();
    await login?.stop();
  });

  const ask = async (method: string, route: string) => {
    const response = await fetch(`${url}/api/v1alpha1${route}`, { method });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  const signIns = async (): Promise<TkaSignin[]> => {
    const found: TkaSignin[] = [];
    for await (const signIn of fixture.kube.list<TkaSignin>(paths.signIns('tka-system'))) found.push(signIn);
    return found;
  };
  const refused = async (token: string) => expect([401, 403]).toContain(await statusFor(fixture.access, token));

  test('people sign in with the plugin, within the limits of the joined cluster, until they lose the grant', async () => {
    using home = new Home();
    await expect.poll(async () => (await ask('GET', '/cluster-info')).status, { timeout: 20_000 }).toBe(200);
    const ran = await home.run(['login', url]);
    expect(ran.status, ran.stderr).toBe(0);
    const token = home.token({ server: url });
    expect(await statusFor(fixture.access, token)).toBe(200);
    const [signIn] = await signIns();
    expect(signIn).toMatchObject({ spec: { role, validity_period: '1h0m0s' } });
    expect(signIn && throughOf(signIn)).toBe('login');
    const audits = (of: TkaServerProcess) =>
      of.stdout.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []));
    const here = audits(joined).find(({ event }) => event === 'sign-in');
    const there = audits(server).find(({ event }) => event === 'sign-in');
    expect(here).toMatchObject({ login: 'alice@example.com', login_server: 'login', role });
    expect(there).toMatchObject({ login: 'alice@example.com', joined_cluster: name, role, request: here.request });
    // A role that the joined cluster does not allow.
    tailscaled.whois = () => alice(other);
    expect((await ask('GET', '/kubeconfig')).status).toBe(401);
    await refused(token);
    const { status, body } = await ask('POST', '/login');
    expect([status, JSON.stringify(body)]).toEqual([403, expect.stringMatching(new RegExp(`${other}.*${name}`))]);
    expect(await signIns()).toEqual([]);
    // No grant at all.
    tailscaled.whois = () => alice(role);
    expect((await home.run(['login', url])).status).toBe(0);
    const second = home.token({ server: url });
    expect(await statusFor(fixture.access, second)).toBe(200);
    tailscaled.whois = () => ({ ...alice(role), capabilities: {} });
    // As over the direct way: the request that ends it finds no sign-in.
    expect((await ask('GET', '/login')).status).toBe(401);
    await refused(second);
    expect((await ask('GET', '/login')).status).toBe(403);
    expect(await signIns()).toEqual([]);
  });

  test('an eviction ends all sign-ins', async () => {
    tailscaled.whois = () => alice(role);
    using home = new Home();
    expect((await home.run(['login', url])).status).toBe(0);
    const token = home.token({ server: url });
    expect(await statusFor(fixture.access, token)).toBe(200);
    await login.deleteCluster(name);
    await expect.poll(signIns, { timeout: 60_000 }).toEqual([]);
    await expect.poll(() => statusFor(fixture.access, token), { timeout: 30_000 }).toBe(401);
    expect((await ask('POST', '/login')).status).toBeGreaterThanOrEqual(403);
  });
});
