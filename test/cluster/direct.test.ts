// A cluster whose TKA server is in the tailnet, and that has joined a login server of the same mesh as well: the built
// programs, the built plugin and kubectl. A third member of the mesh knows nothing of federation.
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { throughOf } from '../../src/server/provisioner/sign-in.ts';
import { apiPath, type MemberRow } from '../../src/tka/types.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { freePort } from '../fixtures/ports.ts';
import type { Ran } from '../fixtures/program.ts';
import { mountSecret } from '../server/federation/join-secrets.ts';
import { TkaServerProcess } from '../server/program.ts';
import { type ApiServer, kubeconfigFile, startApiServer } from './api-server.ts';
import { applyManifests, Fixture } from './fixture.ts';
import { type Mesh, ReplicaProcess } from './fleet.ts';
import { LoginCluster, tokenOfSecret } from './login-servers.ts';
import { makeFolder } from './processes.ts';
import { absent, statusFor } from './support.ts';

const hosts = ['127.0.0.61', '127.0.0.62', '127.0.0.63'] as const;
const [hubHost, edgeHost, westHost] = hosts;

interface Listed {
  readonly name: string;
  readonly state: string;
  readonly server: string;
  readonly apiEndpoint: string;
  readonly through: string | null;
  readonly servers: readonly { readonly server: string; readonly state: string }[];
}

describe.skipIf(absent !== undefined || kubectl === undefined)(
  'a cluster in the tailnet that has joined as well',
  () => {
    let login: LoginCluster;
    let api: ApiServer;
    let own: Fixture;
    let third: Fixture;
    let [hub, edge, west]: ReplicaProcess[] = [];
    let mesh: Mesh;
    let tailnet: Tailscaled;
    let home: Home;
    let role = '';
    let joinFolder = '';

    let caller: StandInCaller = { login: 'alice@example.com' };

    const rules = (period: string, more = {}) => [{ role, period, priority: 1, ...more }];
    const env = () => ({ TS_SOCKET: tailnet.socketPath });
    const run = (args: string): Promise<Ran> => home.run(args, { env: env() });
    const direct = () => ({ server: edge?.server ?? '' });
    const through = () => ({ server: `${hub?.server}/clusters/edge` });
    const ask = (host: string, accept: string): Promise<Response> =>
      fetch(`http://${host}:${mesh.port}${apiPath}/memberlist`, { headers: { accept } });
    const rowsAt = async (host: string) => (await (await ask(host, 'application/json')).json()) as readonly MemberRow[];
    const pageAt = async (host: string): Promise<string> => await (await ask(host, 'text/html')).text();
    const brief = (rows: readonly MemberRow[]): string[] =>
      rows
        .map(({ cluster, server, state, through: via, direct: is }) =>
          [cluster, server, state, ...(via === undefined ? [] : [`through ${via}`]), ...(is ? ['direct'] : [])].join(
            ' ',
          ),
        )
        .sort();
    const listed = async (): Promise<Listed[]> => {
      const { status, stdout, stderr } = await run('clusters -o json');
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return JSON.parse(stdout);
    };
    const signIns = async (): Promise<TkaSignin[]> => {
      const found: TkaSignin[] = [];
      for await (const signIn of own.kube.list<TkaSignin>(paths.signIns(own.namespace))) found.push(signIn);
      return found;
    };
    const waysOf = async (): Promise<(string | undefined)[]> => (await signIns()).map(throughOf).sort();
    const refused = async (token: string) => expect([401, 403]).toContain(await statusFor(own.access, token));
    const whoami = async (context: string): Promise<string> => {
      const args = `--context ${context} auth whoami -o jsonpath={.status.userInfo.username}`;
      const { status, stdout, stderr } = await home.kubectl(args, { env: env() });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return stdout;
    };
    /** Resolves when a member lists all servers, with these states of the two ways. */
    const rowsAre = async (itself: string, joined: string, host: string = westHost): Promise<void> => {
      const rows = [
        `edge ${direct().server} ${itself}`,
        `edge ${through().server} ${joined} through hub direct`,
        `hub ${hub?.server} healthy`,
        `west ${west?.server} healthy`,
      ];
      await expect.poll(async () => brief(await rowsAt(host)), { timeout: 60_000 }).toEqual(rows.sort());
    };

    beforeAll(async () => {
      const assets = inject('assets');
      const [, , access] = inject('clusters');
      if (typeof assets === 'string' || access === undefined) throw new Error(absent);
      const [port, gossipPort, tunnels] = [
        await freePort(...hosts),
        await freePort(...hosts),
        await freePort('127.0.0.1'),
      ];
      mesh = { port, gossipPort, hosts, peers: [], whois: () => caller };
      [login, api, third] = await Promise.all([
        LoginCluster.start('127.0.0.25'),
        startApiServer(assets, { url: inject('etcd') }, '127.0.0.26'),
        Fixture.make(access),
      ]);
      own = await Fixture.make({ server: api.server, ca: api.ca, token: api.token }, 'tka-system');
      await applyManifests(own.kube, 'federation/namespace.yaml', 'federation/joined-cluster/rbac.yaml');
      role = await own.role();
      caller = {
        ...caller,
        capabilities: {
          'specht-labs.de/cap/tka': rules('1h'),
          'specht-labs.de/cap/tka-federation': rules('30m', { clusters: ['edge'] }),
        },
      };
      login.route(tunnels);
      joinFolder = makeFolder();
      const federation = { ...login.settings.federation, listen: `127.0.0.1:${tunnels}`, endpoint: login.endpoint };
      const servers = [
        { name: 'hub', host: hubHost, fixture: login.fixture, federation },
        { name: 'edge', host: edgeHost, fixture: own, federation: { joinFolder, caFile: login.caFile } },
        { name: 'west', host: westHost, fixture: third },
      ].map((config) => new ReplicaProcess(mesh, { ...config, cluster: config.name }));
      [hub, edge, west] = servers;
      tailnet = await startTailscaled({ peers: mesh.peers });
      await Promise.all(servers.map((server) => server.start()));
      mountSecret(joinFolder, { endpoint: login.endpoint, token: tokenOfSecret(await login.token('edge')) });
      home = new Home();
      home.write(home.config, `tailscale:\n  hostname: west\n  port: ${port}\n`);
    });

    afterAll(async () => {
      for (const server of [hub, edge, west]) await server?.[Symbol.asyncDispose]();
      await tailnet?.close();
      home?.remove();
      third?.kube.close();
      own?.kube.close();
      await api?.stop();
      await login?.stop();
    });

    test('every member of the mesh lists both ways, also one that knows nothing of federation', async () => {
      for (const host of hosts) await rowsAre('healthy', 'healthy', host);
      const rows = await rowsAt(westHost);
      const endpoints = rows.filter(({ cluster }) => cluster === 'edge').map(({ apiEndpoint }) => apiEndpoint);
      expect(endpoints).toEqual([api.server, api.server]);
      // What the Go client reads of a row, with the types of its struct.
      for (const { apiEndpoint, apiPort, labels } of rows) {
        expect(new URL(apiEndpoint).protocol).toBe('https:');
        expect(Number.isInteger(apiPort) && apiPort > 0 && apiPort < 65_536).toBe(true);
        expect(Object.values(labels ?? {}).every((label) => typeof label === 'string')).toBe(true);
      }
      const page = await pageAt(westHost);
      expect(page.match(/data-login="edge"/g)).toHaveLength(1);
      expect(page).toContain('4 servers in 3 clusters');
      expect(page).toContain(through().server);
    });

    test('it is one cluster, and both ways give access with accounts of their own', async () => {
      const clusters = await listed();
      expect(clusters.map(({ name, state }) => `${name} ${state}`)).toEqual(
        ['edge', 'hub', 'west'].map((name) => `${name} healthy`),
      );
      expect(clusters[0]).toMatchObject({ ...direct(), apiEndpoint: api.server, through: null });
      expect(clusters[0]?.servers.map(({ server }) => server)).toEqual([direct().server, through().server]);
      expect(await run('login edge')).toMatchObject({ status: 0, stderr: '' });
      expect(await run(`login ${through().server}`)).toMatchObject({ status: 0, stderr: '' });
      expect(await waysOf()).toEqual(['hub', undefined]);
      const accounts = (await signIns()).map(({ metadata }) => `system:serviceaccount:tka-system:${metadata.name}`);
      const users = await Promise.all(['edge', 'edge-through-hub'].map(whoami));
      expect(users.sort()).toEqual(accounts.sort());
      expect(new Set(users).size).toBe(2);
    });

    test('who loses the grant of one way keeps the other', async () => {
      const [kept, lost] = [home.token(direct()), home.token(through())];
      const before = caller;
      caller = { ...before, capabilities: { 'specht-labs.de/cap/tka': rules('1h') } };
      expect(await run(`login ${through().server}`)).toMatchObject({ status: 1 });
      caller = before;
      expect(await waysOf()).toEqual([undefined]);
      expect(await statusFor(own.access, kept)).toBe(200);
      await refused(lost);
    });

    test('a logout ends both ways', async () => {
      expect(await run('login edge')).toMatchObject({ status: 0 });
      expect(await run(`login ${through().server}`)).toMatchObject({ status: 0 });
      const tokens = [direct(), through()].map((server) => home.token(server));
      for (const token of tokens) expect(await statusFor(own.access, token)).toBe(200);
      expect(await run('logout edge')).toMatchObject({ status: 0, stderr: '' });
      expect(await signIns()).toEqual([]);
      for (const token of tokens) await refused(token);
    });

    test.each(['SIGKILL', 'SIGTERM'] as const)(
      'is one row of the list while its only server is away after %s',
      async (signal) => {
        await edge?.kill(signal);
        await rowsAre('dead', 'dead');
        // With and without a memory of the last list.
        for (const _ of ['known', 'new']) {
          const clusters = await listed();
          expect(clusters.map(({ name, state }) => `${name} ${state}`)).toEqual([
            'hub healthy',
            'west healthy',
            'edge dead',
          ]);
          expect(await run('login edge')).toMatchObject({
            status: 1,
            stderr: expect.stringMatching(/^error: .*\nhint: /),
          });
          home.forget();
        }
        expect(await pageAt(westHost)).toContain('4 servers in 3 clusters');
        await edge?.start();
        await rowsAre('healthy', 'healthy');
        expect(await run('login edge')).toMatchObject({ status: 0 });
      },
    );

    test('only its URL signs in through the login server while its server in the tailnet is away', async () => {
      const config = {
        health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
        operator: { namespace: own.namespace, clusterName: 'edge' },
        clusterInfo: { apiEndpoint: api.server, caData: Buffer.from(api.ca).toString('base64') },
        federation: { joinFolder, caFile: login.caFile },
      };
      await using second = new TkaServerProcess(config, { KUBECONFIG: kubeconfigFile(own.access, own.token) });
      await second.said(/connected to the login server/);
      home.forget();
      expect(await run('login edge')).toMatchObject({ status: 0 });
      await edge?.kill('SIGTERM');
      await rowsAre('dead', 'healthy');
      const edges = (await listed()).filter(({ apiEndpoint }) => apiEndpoint === api.server);
      expect(edges.map(({ name, servers }) => [name, ...servers.map(({ state }) => state)])).toEqual([
        ['edge', 'healthy', 'dead'],
      ]);
      const url = through().server;
      const away = await run('login edge');
      expect(away.status).toBe(1);
      expect(away.stderr).toContain(`hint: through its login server, with another account: kubectl tka login ${url}\n`);
      expect(await run(`login ${url}`)).toMatchObject({ status: 0 });
      expect(await waysOf()).toContain('hub');
      const { users } = JSON.parse((await home.kubectl('config view -o json')).stdout);
      const stated = JSON.stringify(users.find(({ name }: { name: string }) => name === 'edge'));
      expect(stated).toContain(direct().server);
      expect(stated).not.toContain(url);
      expect(await whoami('edge-through-hub')).toMatch(/^system:serviceaccount:tka-system:tka-login-/);
    });
  },
);
