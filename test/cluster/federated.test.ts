// A federation: three real API servers, a login server with two replicas behind a load balancer, two joined clusters
// without a tailnet, the built programs, and kubectl.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, inject } from 'vitest';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { federationPaths, type TkaCluster } from '../../src/server/federation/objects.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { survey } from '../../src/server/provisioner/reconciler.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { freePort } from '../fixtures/ports.ts';
import type { Ran } from '../fixtures/program.ts';
import { type Relay, startRelay } from '../fixtures/relay.ts';
import { type ApiServer, startApiServer } from './api-server.ts';
import { certificateFiles, clusterIs, JoinedProcess, joinToken, statusIs } from './federated.ts';
import { type Mesh, ReplicaProcess } from './fleet.ts';
import { type Hook, type Hooked, hooked } from './hook.ts';
import { absent, applyManifests, established, Fixture, statusFor, test } from './support.ts';

const hosts = ['127.0.0.81', '127.0.0.82'];

let apis: readonly ApiServer[];
let hub: Fixture;
let north: Fixture;
let south: Fixture;
let replicas: readonly [ReplicaProcess, ReplicaProcess];
let balancer: Relay;
let proxy: Hooked;
let hook: Hook = () => undefined;
let joined: JoinedProcess;
let other: JoinedProcess;
let tailnet: Tailscaled;
let mesh: Mesh;
let role = '';

let caller: StandInCaller;
let home: Home;
let username = '';

const env = () => ({ TS_SOCKET: tailnet.socketPath });
const run = (args: string): Promise<Ran> => home.run(args, { env: env() });
const get = (context: string): Promise<Ran> =>
  home.kubectl(`--context ${context} get namespace default -o name --request-timeout=30s`, { env: env() });

interface Rule {
  readonly role?: string;
  readonly period?: string;
  readonly priority?: number;
  readonly clusters?: readonly string[];
}

/** Sets the rules of the federation's capability for the caller. */
function grant(...rules: readonly Rule[]): void {
  const all = rules.map((rule) => ({ role, period: '1h', priority: 1, ...rule }));
  caller = { login: `${username}@example.com`, capabilities: { 'specht-labs.de/cap/tka-federation': all } };
}

/** Returns the sign-ins of this test's user in a joined cluster. */
async function signIns({ kube, namespace }: Fixture): Promise<TkaSignin[]> {
  const found: TkaSignin[] = [];
  for await (const signIn of kube.list<TkaSignin>(paths.signIns(namespace)))
    if (signIn.spec.username === username) found.push(signIn);
  return found;
}

/** Resolves when the API server of `north` refuses a token for any reason: it knows a checked token for 10 s. */
const isRefused = async (token: string): Promise<void> =>
  expect([401, 403]).toContain(await statusFor(north.access, token));

// The calls that change the cluster in a new sign-in.
const calls = [
  ['its TkaSignin', 'POST', /\/tkasignins$/],
  ['its ServiceAccount', 'POST', /\/serviceaccounts$/],
  ['its ClusterRoleBinding', 'POST', /\/clusterrolebindings$/],
  ['its status', 'PATCH', /\/tkasignins\/[^/]+\/status$/],
  ['its token', 'POST', /\/serviceaccounts\/[^/]+\/token$/],
] as const;

// How the tunnel is cut. The client waits for its usual time at the step `waits`; at the others, the cut is
// over before the tunnel counts as dead.
const cuts: Readonly<
  Record<string, { readonly now: () => void; readonly over: () => Promise<void>; readonly waits?: string }>
> = {
  'the joined server is killed': {
    now: () => joined.signal('SIGKILL'),
    over: async () => {
      await joined.kill();
      await joined.start();
    },
  },
  'the joined server is suspended': {
    now: () => joined.signal('SIGSTOP'),
    over: async () => joined.signal('SIGCONT'),
    waits: 'its ServiceAccount',
  },
  'the connection is closed': {
    now: () => balancer.drop(),
    over: async () => undefined,
  },
  'the connection stalls': {
    now: () => balancer.stall(),
    over: async () => balancer.heal(),
    waits: 'its ServiceAccount',
  },
};

const connected = (name: string): Promise<void> =>
  clusterIs(hub, name, (found) => found?.status?.replicas?.filter((replica) => replica.connected).length === 2);

/** Signs in once a cluster is connected again. Its TkaCluster can still show tunnels that are closed. */
async function reconnected(name: string): Promise<Ran> {
  await connected(name);
  let ran = await run(`login ${name}`);
  await expect
    .poll(async () => {
      if (/is not connected/.test(ran.stderr)) ran = await run(`login ${name}`);
      return ran.stderr;
    })
    .not.toMatch(/is not connected/);
  return ran;
}

const entryOf = (name: string) => ({ server: `${replicas[0].server}/clusters/${name}` });

/** Returns the cached token for `north`. After a fail-over it is that of the other replica of the login server. */
function cachedToken(): string {
  const servers = replicas.map(({ server }) => ({ server: `${server}/clusters/north` }));
  const found = servers.find((server) => fs.existsSync(home.entry(server)));
  if (found === undefined) throw new Error(`no token for north: ${home.cached()}`);
  return home.token(found);
}

describe.skipIf(absent !== undefined || kubectl === undefined)('a login server with two replicas', () => {
  beforeAll(async () => {
    const assets = inject('assets');
    if (typeof assets === 'string') throw new Error(assets);
    // Servers of its own: the objects of a federation have fixed names.
    apis = await Promise.all(
      ['127.0.0.83', '127.0.0.84', '127.0.0.85'].map((host) => startApiServer(assets, { url: inject('etcd') }, host)),
    );
    const made = apis.map(({ server, ca, token }) => Fixture.make({ server, ca, token }, 'tka-system'));
    [hub, north, south] = (await Promise.all(made)) as [Fixture, Fixture, Fixture];
    const [namespace, loginServer] = ['federation/namespace.yaml', 'federation/login-server'];
    await applyManifests(hub.kube, namespace, `${loginServer}/crd.yaml`, `${loginServer}/rbac.yaml`);
    await established(hub.access, 'tkaclusters.tka.specht-labs.de');
    for (const { kube } of [north, south]) await applyManifests(kube, namespace, 'federation/joined-cluster/rbac.yaml');
    role = `viewer-${randomBytes(4).toString('hex')}`;
    for (const fixture of [north, south]) await fixture.role(['get', 'list'], ['namespaces'], role);
    const [port, gossipPort, listen] = [await freePort(...hosts), await freePort(...hosts), await freePort(...hosts)];
    balancer = await startRelay(hosts.map((host) => `https://${host}:${listen}`));
    const { caFile, ...certificate } = await certificateFiles();
    mesh = { port, gossipPort, hosts, peers: [], whois: () => caller };
    const endpoint = balancer.url;
    replicas = hosts.map(
      (host, i) =>
        new ReplicaProcess(mesh, {
          name: i === 0 ? 'hub' : `hub-${i}`,
          cluster: 'hub',
          host,
          fixture: hub,
          federation: { listen: `${host}:${listen}`, endpoint, ...certificate },
        }),
    ) as unknown as typeof replicas;
    tailnet = await startTailscaled({ peers: mesh.peers });
    await Promise.all(replicas.map((replica) => replica.start()));
    proxy = await hooked(north.access, (call) => hook(call));
    joined = new JoinedProcess('north', north, { caFile }, proxy.access);
    other = new JoinedProcess('south', south, { caFile });
  });

  afterAll(async () => {
    for (const server of [...(replicas ?? []), joined, other]) await server?.[Symbol.asyncDispose]();
    await balancer?.close();
    proxy?.close();
    await tailnet?.close();
    for (const fixture of [hub, north, south]) fixture?.kube.close();
    for (const api of apis ?? []) await api.stop();
  });

  beforeEach(({ onTestFinished }) => {
    username = `u${randomBytes(4).toString('hex')}`;
    grant({ clusters: ['*'] });
    home = new Home();
    onTestFinished(() => home.remove());
    home.write(home.config, `tailscale:\n  hostname: hub\n  port: ${mesh.port}\n`);
  });

  test('a cluster joins with a token, and every replica of the login server has a tunnel to it', async () => {
    joined.mount(await joinToken(hub, 'north'));
    await joined.start();
    await statusIs(north, (status) => status.get('status') === 'Joined');
    await connected('north');
    other.mount(await joinToken(hub, 'south'));
    await other.start();
    await connected('south');
  });

  test('the list shows it, and kubectl works after one login', async () => {
    const list = await run('clusters -o json');
    expect(list).toMatchObject({ status: 0, stderr: '' });
    const rows: { name: string; through: string | null }[] = JSON.parse(list.stdout);
    expect(rows.map(({ name, through }) => ({ name, through }))).toEqual([
      { name: 'hub', through: null },
      { name: 'north', through: 'hub' },
      { name: 'south', through: 'hub' },
    ]);
    const login = await run('login north');
    expect(login).toMatchObject({ status: 0, stderr: '' });
    expect(login.stdout).toMatch(/^Signed in to north /);
    expect(await get('north')).toMatchObject({ status: 0, stdout: 'namespace/default\n', stderr: '' });
    const [signIn, ...rest] = await signIns(north);
    expect(rest).toEqual([]);
    expect(signIn?.metadata.name).toMatch(/^tka-login-.+-[0-9a-f]{20}$/);
    expect(signIn?.metadata.annotations).toMatchObject({
      'tka.specht-labs.de/login': `${username}@example.com`,
      'tka.specht-labs.de/login-server': 'hub',
    });
    const line = joined.stdout.split('\n').find((text) => text.includes(`"${username}@example.com"`));
    expect(JSON.parse(line ?? '{}')).toMatchObject({ event: 'sign-in', login_server: 'hub', role });
  });

  test('a logout ends the access', async () => {
    await run('login north');
    const token = home.token(entryOf('north'));
    expect(await statusFor(north.access, token)).toBe(200);
    expect(await run('logout north')).toMatchObject({ status: 0, stderr: '' });
    expect(await signIns(north)).toEqual([]);
    await isRefused(token);
  });

  test('a demotion and a removed grant take effect at the next request', async () => {
    await run('login north');
    const token = home.token(entryOf('north'));
    const lower = await north.role(['get'], ['namespaces']);
    grant({ role: lower, clusters: ['north'] });
    fs.rmSync(home.entry(entryOf('north')));
    expect(await get('north')).toMatchObject({ status: 0 });
    await isRefused(token);
    expect((await signIns(north)).map(({ spec }) => spec.role)).toEqual([lower]);
    grant({ clusters: ['south'] });
    fs.rmSync(home.entry(entryOf('north')));
    const refused = await get('north');
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toMatch(/specht-labs\.de\/cap\/tka-federation/);
    expect(await signIns(north)).toEqual([]);
  });

  test('an expired sign-in ends, and the next one is new', async () => {
    await run('login north');
    const [signIn] = await signIns(north);
    const name = signIn?.metadata.name ?? '';
    await north.endAt(name, Date.now() + 1_000);
    await north.gone(name);
    expect(await run('login north')).toMatchObject({ status: 0 });
    expect((await signIns(north))[0]?.metadata.uid).not.toBe(signIn?.metadata.uid);
  });

  test('rules see the labels of the TkaCluster, not what the cluster says about itself', async () => {
    grant({ clusters: ['said=itself'] });
    expect(await run('login north')).toMatchObject({ status: 1 });
    expect(await signIns(north)).toEqual([]);
    await hub.kube.patch(federationPaths.clusters('north'), { metadata: { labels: { site: 'north' } } });
    grant({ clusters: ['site=north'] });
    await clusterIs(hub, 'north', (found) => found?.metadata.labels?.site === 'north');
    await expect.poll(async () => (await run('login north')).status).toBe(0);
    expect(await run('login south')).toMatchObject({ status: 1 });
    expect((await run('clusters -l said=itself -o name')).stdout).toMatch(/north/);
  });

  test('rules for one’s own cluster never count for a joined one', async () => {
    const rules = [{ role, period: '1h', priority: 9 }];
    caller = { login: `${username}@example.com`, capabilities: { 'specht-labs.de/cap/tka': rules } };
    const refused = await run('login north');
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/specht-labs\.de\/cap\/tka-federation/);
    expect(await signIns(north)).toEqual([]);
  });

  test('40 kubectl at once through one tunnel', async () => {
    await run('login north');
    fs.rmSync(home.entry(entryOf('north')));
    const all = await Promise.all(Array.from({ length: 40 }, () => get('north')));
    expect(all.filter(({ status }) => status !== 0)).toEqual([]);
    expect(await signIns(north)).toHaveLength(1);
  });

  test('a suspended cluster signs nobody in, but logs out', async () => {
    await run('login south');
    await hub.kube.patch(federationPaths.clusters('south'), { spec: { suspended: true } });
    await expect.poll(async () => (await run('login south')).stderr).toMatch(/suspended/);
    expect(await run('logout south')).toMatchObject({ status: 0 });
    expect(await signIns(south)).toEqual([]);
    await hub.kube.patch(federationPaths.clusters('south'), { spec: { suspended: false } });
    await expect.poll(async () => (await run('login south')).status).toBe(0);
  });

  test('a killed replica of the login server: the other one signs in', async () => {
    await run('login north');
    fs.rmSync(home.entry(entryOf('north')));
    await replicas[0].kill();
    expect(await get('north')).toMatchObject({ status: 0 });
    await replicas[0].start();
    await connected('north');
    // It lists the joined clusters once it knows its mesh.
    await expect.poll(async () => (await run('clusters -o name')).stdout.split('\n')).toContain('north');
  });

  test('a killed joined server reconnects after its restart, and leaves no half-made sign-in', async () => {
    await joined.kill();
    const away = await run('login north');
    expect(away.status).toBe(1);
    expect(away.stderr).toMatch(/cluster "?north"? is not connected/);
    expect(await signIns(north)).toEqual([]);
    await joined.start();
    expect(await reconnected('north')).toMatchObject({ status: 0 });
  });

  for (const [cut, { now, over, waits }] of Object.entries(cuts)) {
    // After each cut, the joined server waits up to 30 s before it dials.
    test(`${cut} during a sign-in: the next one is whole, and there is no other`, { timeout: 400_000 }, async () => {
      for (const [what, calling, path] of calls) {
        username = `u${randomBytes(4).toString('hex')}`;
        grant({ clusters: ['north'] });
        home.forget();
        let armed = true;
        hook = ({ method, path: at }) => {
          if (!armed || method !== calling || !path.test(at)) return;
          armed = false;
          now();
        };
        // It may fail or wait, but it must not give a credential that does not work.
        const isShort = waits !== undefined && waits !== what;
        const first = await home.run('login north', { env: { ...env(), ...(isShort && { TKA_TIMEOUT: '6s' }) } });
        expect(armed, what).toBe(false);
        if (first.status === 0) expect(await statusFor(north.access, cachedToken()), what).toBe(200);
        hook = () => undefined;
        await over();
        expect(await reconnected('north'), what).toMatchObject({ status: 0 });
        expect(await statusFor(north.access, cachedToken()), what).toBe(200);
        expect(await signIns(north), what).toHaveLength(1);
      }
      for await (const name of survey(north.kube, north.namespace)) throw new Error(`${name} is half-made`);
    });
  }

  test('an evicted cluster ends all its sign-ins, is out, and can join again', async () => {
    expect(await reconnected('north')).toMatchObject({ status: 0 });
    const token = cachedToken();
    await hub.kube.remove(federationPaths.clusters('north'), {
      uid: (await hub.kube.get<TkaCluster>(federationPaths.clusters('north')))?.metadata.uid ?? '',
    });
    await statusIs(north, (status) => status.get('status') === 'Rejected');
    await expect.poll(() => signIns(north)).toEqual([]);
    await isRefused(token);
    const gone = await run('login north');
    expect(gone.status).not.toBe(0);
    joined.mount(await joinToken(hub, 'north'));
    expect(await reconnected('north')).toMatchObject({ status: 0 });
  });
});
