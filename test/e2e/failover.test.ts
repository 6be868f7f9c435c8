// A cluster with several TKA servers, some of them unreachable: kubectl and our commands continue at another one.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test as base, describe, expect } from 'vitest';
import { parse } from 'yaml';
import { entryName } from '../../src/credential/entry.ts';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { lines } from '../fixtures/program.ts';
import { until } from '../fixtures/wait.ts';
import { type Replica, type ReplicaSet, startReplicas } from '../session/replicas.ts';

interface Fixtures {
  readonly set: ReplicaSet;
  readonly other: ReplicaSet;
  readonly home: Home;
  /** The servers of the cluster `prod-us`: `prod-us` and `prod-us-1`. */
  readonly first: Replica;
  readonly second: Replica;
}

const test = base.extend<Fixtures>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  set: async ({}, use) => {
    const set = await startReplicas('prod-us', 2);
    await use(set);
    await set.close();
  },
  other: async ({ set }, use) => {
    const other = await startReplicas('prod-eu', 1, set.certificates);
    await use(other);
    await other.close();
  },
  first: async ({ set }, use) => use(set.replicas[0] as Replica),
  second: async ({ set }, use) => use(set.replicas[1] as Replica),
  home: async ({ first }, use) => {
    using home = new Home(first.server);
    await use(home);
  },
});

const logins = (set: ReplicaSet) => set.events.filter((event) => event.endsWith(' login asked'));
const marks = (home: Home): string[] => {
  const folder = path.join(home.state, 'signed-out');
  return fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
};
/** Returns the extension of a context. */
const extension = (home: Home, name = 'prod-us') =>
  parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.find((each: { name: string }) => each.name === name).context
    .extensions[0].extension;
const nodes = (home: Home) => home.kubectl('get namespaces --request-timeout=20s');

describe.concurrent('the first of two servers is unreachable', () => {
  test('login stores the cluster’s other servers, and no secret', async ({ home, set, first, second }) => {
    expect((await home.run('login prod-us')).status).toBe(0);
    const own = { server: first.server, servers: [second.server], namedBy: first.server };
    expect(extension(home)).toEqual({ ...own, cluster: set.cluster, signInStore: set.store });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).not.toMatch(/eyJ/);
  });

  test.skipIf(kubectl === undefined)(
    'kubectl signs in at the other, and the entry stays that of the first',
    async ({ home, set, first, second }) => {
      await home.run('login prod-us');
      fs.rmSync(home.cache, { recursive: true });
      await first.stop();
      set.events.length = 0;
      const ran = await nodes(home);
      expect(ran).toMatchObject({ status: 0 });
      expect(ran.stderr).toBe(
        `warning: ${first.server} is away: signed in through ${second.server}, of the same cluster\n`,
      );
      expect(logins(set)).toEqual(['prod-us-1 login asked']);
      expect(home.cached()).toContain(entryName(first.server));
      expect(home.cached()).not.toContain(entryName(second.server));
      expect(await nodes(home)).toMatchObject({ status: 0, stderr: '' });
      expect(logins(set)).toHaveLength(1);
    },
  );

  test.skipIf(kubectl === undefined)(
    'with a context of `sync`, and only the list in the state',
    async ({ home, set, first, second }) => {
      expect((await home.run('sync')).status).toBe(0);
      expect(extension(home).servers).toEqual([second.server]);
      expect(fs.existsSync(path.join(home.state, 'siblings'))).toBe(false);
      await home.run('use prod-us');
      await first.stop();
      set.events.length = 0;
      expect(await nodes(home)).toMatchObject({ status: 0 });
      expect(logins(set)).toEqual(['prod-us-1 login asked']);
    },
  );

  test.skipIf(kubectl === undefined)('with a kubeconfig that only --kubeconfig names', async ({ home, set, first }) => {
    const file = path.join(home.root, 'elsewhere');
    await home.run(['sync', '--kubeconfig', file]);
    await first.stop();
    set.events.length = 0;
    const ran = await home.kubectl(['--kubeconfig', file, '--context', 'prod-us', 'get', 'namespaces']);
    expect(ran).toMatchObject({ status: 0 });
    expect(logins(set)).toEqual(['prod-us-1 login asked']);
  });

  test('without tailscaled, a server that only the context names is not trusted', async ({
    home,
    set,
    first,
    second,
  }) => {
    await home.run('login prod-us');
    fs.rmSync(home.cache, { recursive: true });
    fs.rmSync(path.join(home.state, 'clusters'), { recursive: true });
    await first.stop();
    set.events.length = 0;
    const ran = await home.credential({ server: first.server, apiServer: set.apiServer });
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(second.count('clusterInfo')).toBe(0);
    expect(second.count('login')).toBe(0);
  });

  test('a server that only the context names is trusted by its tag', async ({ home, set, first, second }) => {
    await home.run('login prod-us');
    fs.rmSync(home.cache, { recursive: true });
    fs.rmSync(home.state, { recursive: true });
    await first.stop();
    set.events.length = 0;
    for (const tags of [['tag:laptop'], ['tag:tka']]) {
      await using tailscaled = await startTailscaled({
        peers: [{ hostName: 'prod-us-1', addresses: ['127.0.0.1'], tags }],
      });
      const env = { TS_SOCKET: tailscaled.socketPath };
      const ran = await home.credential({ server: first.server, apiServer: set.apiServer }, { env });
      expect(ran.status).toBe(tags.includes('tag:tka') ? 0 : 1);
      expect(second.count('login')).toBe(tags.includes('tag:tka') ? 1 : 0);
    }
  });

  test('a context of 0.1.0 has no failover, and works as before', async ({ home, set, first }) => {
    await home.run('login prod-us');
    fs.rmSync(home.cache, { recursive: true });
    fs.rmSync(path.join(home.state, 'siblings'), { recursive: true });
    const text = fs.readFileSync(home.kubeconfig, 'utf8');
    const old = text
      .replace(/^ +namedBy: .*\n/m, '')
      .replace(/^ +cluster: "prod-us"\n(?= +server: )/m, '')
      .replace(/^ +servers:\n +- .*\n/m, '')
      .replace(/^ +signInStore: .*\n/m, '');
    fs.writeFileSync(home.kubeconfig, old);
    expect(extension(home)).toEqual({ server: first.server });
    await first.stop();
    expect(await home.credential({ server: first.server, apiServer: set.apiServer })).toMatchObject({ status: 1 });
    await first.start();
    expect(await home.credential({ server: first.server, apiServer: set.apiServer })).toMatchObject({
      status: 0,
      stderr: '',
    });
    await home.run('sync');
    expect(extension(home)).toMatchObject({ cluster: 'prod-us', signInStore: set.store });
  });

  test('login by name works, before and after a logout', async ({ home, set, first, second }) => {
    await home.run('login prod-us');
    await first.stop();
    const again = await home.run('login prod-us');
    expect(again).toMatchObject({ status: 0 });
    expect(again.stdout).toContain(`Signed in to prod-us (${first.server}) as alice`);
    await first.start();
    await home.run('logout prod-us');
    await first.stop();
    set.events.length = 0;
    expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
    expect(logins(set)).toEqual(['prod-us-1 login asked']);
    expect(extension(home)).toMatchObject({ server: first.server, servers: [second.server] });
  });

  test('a first login works on a machine that has only a list', async ({ home, set, first, second }) => {
    expect((await home.run('clusters')).status).toBe(0);
    for (const fault of ['silent', 'stopped']) {
      if (fault === 'silent') first.faults.routes = { all: { silent: true } };
      else await first.stop();
      const ran = await home.run('login prod-us');
      expect(ran).toMatchObject({ status: 0, stdout: expect.stringContaining(`(${second.server}) as alice`) });
      expect(ran.took).toBeLessThan(8000);
      const names = parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.map((each: { name: string }) => each.name);
      // The unreachable server cannot confirm that it belongs to the cluster.
      expect(extension(home, names[0])).toEqual({ server: second.server, namedBy: first.server });
      fs.rmSync(home.cache, { recursive: true });
      fs.rmSync(path.join(home.state, 'siblings'), { recursive: true });
      fs.rmSync(home.kubeconfig);
    }
    expect(logins(set)).toEqual(['prod-us-1 login asked', 'prod-us-1 login asked']);
  });

  test.skipIf(kubectl === undefined)('exec works, with and without a context', async ({ home, set, first }) => {
    await home.run('login prod-us');
    fs.rmSync(home.cache, { recursive: true });
    await first.stop();
    const through = await home.run('exec prod-us -- get namespaces');
    expect(through).toMatchObject({ status: 0 });
    expect(through.stderr).toMatch(/is away: signed in through/);
    await home.kubectl('config delete-context prod-us');
    fs.rmSync(home.cache, { recursive: true });
    set.events.length = 0;
    expect(await home.run('exec prod-us -- get namespaces')).toMatchObject({ status: 0 });
    expect(logins(set)).toEqual(['prod-us-1 login asked']);
  });

  test('a silent server delays neither list, login nor credential for long', async ({ home, set, first, second }) => {
    await home.run('login prod-us');
    first.faults.routes = { all: { silent: true } };
    const list = await home.run('clusters');
    expect(list).toMatchObject({ status: 0 });
    expect(list.took).toBeLessThan(10_000);
    fs.rmSync(home.cache, { recursive: true });
    set.events.length = 0;
    expect(await home.credential({ server: first.server, apiServer: set.apiServer })).toMatchObject({ status: 0 });
    expect(logins(set)).toEqual(['prod-us login asked', 'prod-us-1 login asked']);
    // The list marks the server that did not answer, so the first is not asked for it again.
    set.events.length = 0;
    expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
    expect(first.count('memberlist')).toBe(0);
    expect(second.count('login')).toBe(1);
  });

  test.skipIf(kubectl === undefined)(
    'a kubectl loop has no failure while each server in turn is unreachable',
    async ({ home, set, first, second }) => {
      await home.run('login prod-us');
      for (const away of [first, second, first]) {
        await away.stop();
        fs.rmSync(home.cache, { recursive: true });
        for (let i = 0; i < 3; i++) expect(await nodes(home)).toMatchObject({ status: 0 });
        await away.start();
      }
      expect(logins(set).slice(1)).toEqual(['prod-us-1 login asked', 'prod-us login asked', 'prod-us-1 login asked']);
    },
  );
});

describe.concurrent('a healthy but slow server', () => {
  test('stays with the context', async ({ home, first, second }) => {
    second.faults.routes.clusterInfo = { latencyMs: 900 };
    expect((await home.run('login prod-us')).status).toBe(0);
    expect(extension(home)).toMatchObject({ server: first.server, servers: [second.server] });
  });
});

describe.concurrent('a tagged server of another cluster that states this endpoint and name', () => {
  test('is not asked to sign in, and not stored in an entry', async ({ home, set, other, first, second }) => {
    const [hostile] = other.replicas as [Replica];
    hostile.faults.clusterInfo = (normal) => ({
      ...normal,
      ...{ server_url: set.apiServer, ca_data: set.caData, cluster: set.cluster },
    });
    set.others.push({
      ...{ name: 'prod-us-7', cluster: 'prod-us', server: hostile.server, apiEndpoint: set.apiServer },
      ...{ apiPort: 1, labels: {}, state: 'healthy', lastSeen: new Date().toISOString() },
    });
    await using tailscaled = await startTailscaled({
      peers: [{ hostName: 'prod-us', addresses: ['127.0.0.1'], tags: ['tag:tka'] }],
    });
    const env = { TS_SOCKET: tailscaled.socketPath };
    expect((await home.run('login prod-us', { env })).status).toBe(0);
    expect(extension(home)).toMatchObject({ server: first.server, servers: [second.server] });
    fs.rmSync(home.cache, { recursive: true });
    await first.stop();
    second.faults.routes.clusterInfo = { latencyMs: 300 };
    const about = { server: first.server, apiServer: set.apiServer };
    expect(await home.credential(about, { env })).toMatchObject({ status: 0 });
    // By the login, before it would be stored, and by the sign-in.
    expect(hostile.count('clusterInfo')).toBe(2);
    fs.rmSync(home.cache, { recursive: true });
    await second.stop();
    const none = await home.credential(about, { env });
    expect(none).toMatchObject({ status: 1, stdout: '' });
    expect(none.stderr).toContain(`${hostile.server} is not used: it has another sign-in store`);
    for (const command of ['login prod-us', 'exec prod-us -- get namespaces'])
      expect((await home.run(command, { env })).status).toBe(1);
    expect(hostile.count('login')).toBe(0);
    expect(home.cached().filter((name) => !name.endsWith('+failed'))).toEqual([]);
  });
});

describe.concurrent('logout', () => {
  test('is for the whole cluster: it goes to one of its servers, and kubectl is refused at all of them', async ({
    home,
    set,
    first,
    second,
  }) => {
    await home.run('login prod-us');
    set.events.length = 0;
    expect(await home.run('logout prod-us')).toMatchObject({
      status: 0,
      stdout: `Signed out of prod-us (${first.server}).\n`,
    });
    expect(set.events.filter((event) => event.includes('logout'))).toEqual(['prod-us logout asked']);
    expect(home.cached()).toEqual([]);
    expect(marks(home)).toEqual([first, second].map(({ server }) => entryName(server)).sort());
    expect(lines((await home.run('status')).stdout).filter((line) => line.includes('signed-out'))).toHaveLength(1);
    expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
    expect(marks(home)).toEqual([]);
  });

  test('goes to the other server while the first is unreachable', async ({ home, set, first, second }) => {
    await home.run('login prod-us');
    await first.stop();
    expect(await home.run('logout prod-us')).toMatchObject({
      status: 0,
      stdout: `Signed out of prod-us (${first.server}).\n`,
    });
    expect(second.count('logout')).toBe(1);
    expect(set.provisioner.view('alice')).toBeUndefined();
  });

  test('fails while all are unreachable, but this machine is signed out', async ({ home, set, first, second }) => {
    await home.run('login prod-us');
    await first.stop();
    await second.stop();
    const ran = await home.run('logout prod-us');
    expect(ran).toMatchObject({ status: 1 });
    expect(ran.stderr).toContain('signed out on this machine, but not on the server: cannot reach');
    expect(home.cached()).toEqual([]);
    expect(marks(home)).toHaveLength(2);
    expect(set.provisioner.view('alice')).toBeDefined();
  });

  test('of two contexts of 0.1.0 for one cluster deletes both entries', async ({ home, set, first, second }) => {
    for (const replica of [first, second]) await home.run(['login', replica.server, '--context', replica.name]);
    fs.rmSync(path.join(home.state, 'siblings'), { recursive: true });
    fs.rmSync(path.join(home.state, 'clusters'), { recursive: true, force: true });
    expect(home.cached().filter((name) => !name.includes('+served'))).toHaveLength(2);
    expect(await home.run('logout prod-us-1')).toMatchObject({ status: 0 });
    expect(home.cached()).toEqual([]);
    expect(marks(home)).toHaveLength(2);
    expect(set.provisioner.view('alice')).toBeUndefined();
    for (const { server } of [first, second])
      expect((await home.credential({ server, apiServer: set.apiServer })).stderr).toContain(`signed out of ${server}`);
  });

  test('does not affect other clusters, whatever a list says about them', async ({ home, set, other, first }) => {
    const [elsewhere] = other.replicas as [Replica];
    set.others.push({
      ...{ name: 'prod-us-7', cluster: 'prod-us', server: elsewhere.server, apiEndpoint: set.apiServer },
      ...{ apiPort: 1, labels: {}, state: 'healthy', lastSeen: new Date().toISOString() },
    });
    await home.run(['login', elsewhere.server, '--context', 'eu']);
    await home.run('login prod-us');
    expect(await home.run('logout prod-us')).toMatchObject({ status: 0 });
    expect(elsewhere.count('logout')).toBe(0);
    expect(home.cached()).toContain(entryName(elsewhere.server));
    expect(marks(home)).toContain(entryName(first.server));
    expect(marks(home)).not.toContain(entryName(elsewhere.server));
  });

  test('ends a pending sign-in at another server', async ({ home, set, first, second }) => {
    await home.run('login prod-us');
    fs.rmSync(home.cache, { recursive: true });
    await first.stop();
    second.faults.routes.kubeconfig = { answer: { status: 202, headers: { 'Retry-After': '0' } } };
    const signingIn = home.credential({ server: first.server, apiServer: set.apiServer });
    await until('the other server is asked', () => second.count('kubeconfig') > 0);
    const loggingOut = home.run('logout prod-us');
    await until('this machine is signed out', () => marks(home).length > 0);
    second.faults.routes = {};
    await loggingOut;
    expect(await signingIn).toMatchObject({ status: 1, stdout: '' });
    expect(home.cached().filter((name) => !name.endsWith('+failed'))).toEqual([]);
  });
});
