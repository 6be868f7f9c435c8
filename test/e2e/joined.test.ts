// Clusters that are signed in to through a login server, with the program as users run it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import { entryName } from '../../src/credential/entry.ts';
import type { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { lines } from '../fixtures/program.ts';
import { type Replica, type ReplicaSet, startReplicas } from '../session/replicas.ts';
import { capability, type Joined, join, test } from './login-server.ts';

const contexts = (home: Home): Record<string, string> => {
  const { contexts: all, users } = parse(fs.readFileSync(home.kubeconfig, 'utf8'));
  const serverOf = (user: string) => {
    const found = users.find((each: { name: string }) => each.name === user);
    return found.user.exec.args[found.user.exec.args.indexOf('--server') + 1];
  };
  return Object.fromEntries(
    all.map(({ name, context }: { name: string; context: { user: string } }) => [name, serverOf(context.user)]),
  );
};
const marks = (home: Home): string[] => {
  const folder = path.join(home.state, 'signed-out');
  return fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
};
const json = async (home: Home, command: string) => {
  const ran = await home.run(`${command} -o json`);
  expect(ran).toMatchObject({ status: 0 });
  return JSON.parse(ran.stdout);
};
/** Returns the requests of one kind, each as `REPLICA` or `REPLICA/CLUSTER`. */
const asked = (hub: ReplicaSet, route: string) =>
  hub.events.filter((event) => event.endsWith(` ${route} asked`)).map((event) => event.split(' ', 1)[0]);

/** Starts the cluster `prod`, which is in the tailnet and has joined the login server as well. */
async function bothWays(hub: ReplicaSet): Promise<{ readonly prod: ReplicaSet; readonly way: Joined }> {
  const prod = await startReplicas('prod', 1, hub.certificates);
  hub.others.push(...prod.members());
  const way = join(hub, 'prod', prod);
  way.row = { direct: true };
  return { prod, way };
}

describe.concurrent('a cluster behind a login server', () => {
  test('is listed with its login server, and its replicas are one cluster', async ({
    home,
    hub,
    site,
    first,
    second,
  }) => {
    const rows = await json(home, 'clusters');
    expect(rows.map(({ name, through }: { name: string; through: string | null }) => [name, through])).toEqual([
      ['hub', null],
      ['site', 'hub'],
    ]);
    expect(rows[1]).toMatchObject({ server: site.at(first), apiEndpoint: site.set.apiServer, state: 'healthy' });
    expect(rows[1].servers).toEqual(
      [first, second].map((replica) => ({
        name: 'site-through-127.0.0.1',
        server: site.at(replica),
        state: 'healthy',
      })),
    );
    const wide = lines((await home.run('clusters -o wide')).stdout);
    const at = wide[0]?.indexOf('THROUGH') ?? -1;
    expect(wide.map((line) => line.slice(at).split(' ', 1)[0])).toEqual(['THROUGH', '-', 'hub']);
    expect(asked(hub, 'login')).toEqual([]);
  });

  test('login, credential, exec, status and logout use its path, and nothing of the login server’s own', async ({
    home,
    hub,
    site,
    first,
    second,
  }) => {
    const login = await home.run('login site');
    expect(login).toMatchObject({ status: 0, stderr: '' });
    expect(login.stdout).toContain(`Signed in to site (${site.at(first)}) as alice-9f3c, role viewer`);
    expect(contexts(home)).toEqual({ site: site.at(first) });
    expect(asked(hub, 'login')).toEqual(['hub/site']);
    const entry = `http+127.0.0.1+${new URL(first.server).port}+clusters+site`;
    expect(home.cached().filter((name) => !name.endsWith('+served'))).toEqual([entry]);

    hub.events.length = 0;
    const cluster = { server: site.at(first), apiServer: site.set.apiServer };
    const cached = await home.credential(cluster);
    expect(cached).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(cached.stdout).status.token).toBe(home.token(cluster));
    expect(hub.events).toEqual([]);

    fs.rmSync(home.cache, { recursive: true });
    expect(await home.credential(cluster)).toMatchObject({ status: 0, stderr: '' });
    expect(asked(hub, 'login')).toEqual(['hub/site']);
    expect(home.cached()).toContain(entry);

    if (kubectl !== undefined) {
      const ran = await home.run('exec site -- get namespaces');
      expect(ran).toMatchObject({ status: 0 });
      expect(ran.stdout).toContain('default');
    }
    const [session] = await json(home, 'status');
    expect(session).toMatchObject({ name: 'site', server: site.at(first), through: 'hub', state: 'active' });
    const wide = lines((await home.run('status -o wide')).stdout);
    expect(wide[0]).toMatch(/ TKA SERVER +THROUGH +API SERVER +SERVICE ACCOUNT$/);
    expect(wide[1]).toContain(' hub ');

    hub.events.length = 0;
    expect(await home.run('logout site')).toMatchObject({ status: 0 });
    expect(asked(hub, 'logout')).toEqual(['hub/site']);
    expect(marks(home)).toEqual([site.at(first), site.at(second)].map(entryName).sort());
    const refused = await home.credential(cluster);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(lines(refused.stderr)[0]).toBe(`error: signed out of cluster site through login server ${first.server}`);
    expect(hub.provisioner.view('alice')).toBeUndefined();
  });

  test('is signed in to by its URL, by --server and by the setting', async ({ home, hub, site, first }) => {
    const url = site.at(first);
    expect(await home.run(['login', `${url}/`])).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ site: url });
    home.forget();
    expect(await home.run(['login', '--server', `${url}/api/v1alpha1`])).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ site: url });
    home.forget();
    expect(await home.run(['config', 'tailscale.hostname', url])).toMatchObject({ status: 0 });
    expect(await home.run('login')).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ site: url });
    expect(asked(hub, 'login')).toEqual(['hub/site', 'hub/site', 'hub/site']);
    expect((await json(home, 'clusters')).map(({ name }: { name: string }) => name)).toEqual(['hub', 'site']);
  });

  test('sync writes a context for it, and use switches to it', async ({ home, hub, site, first, second }) => {
    expect(await home.run('sync')).toMatchObject({ status: 0, stdout: '2 added: hub, site.\n' });
    expect(contexts(home)).toEqual({ hub: first.server, site: site.at(first) });
    expect(await home.run('sync')).toMatchObject({ status: 0, stdout: '2 unchanged.\n' });
    expect(await home.run('use site')).toMatchObject({ status: 0 });
    expect((await json(home, 'clusters'))[1]).toMatchObject({ context: 'site' });
    expect(asked(hub, 'login')).toEqual([]);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toContain(`- "${site.at(second)}"\n`);
  });

  test('completion knows its name and its URLs', async ({ home, site, first }) => {
    await home.run('clusters');
    const complete = async (...words: string[]) =>
      lines((await home.run(['__complete', ...words])).stdout).map((line) => line.split('\t', 1)[0]);
    expect(await complete('login', 's')).toContain('site');
    expect(await complete('login', '--server', 'http://127')).toContain(site.at(first));
    await home.run('login site');
    expect(await complete('logout', 's')).toContain('site');
  });

  test('doctor names the login server and all checks pass', async ({ home, site, first }) => {
    await home.run('login site');
    const [report] = JSON.parse((await home.run('doctor site -o json')).stdout);
    const details = Object.fromEntries(report.checks.map(({ name, detail }: Record<string, string>) => [name, detail]));
    expect(details.name).toBe('127.0.0.1 is an address; it is the login server of cluster site');
    expect(details['tka-api']).toMatch(
      `cluster site through login server ${first.server} serves ${site.set.apiServer}, `,
    );
    expect(report.checks.filter(({ status }: { status: string }) => status === 'failed')).toEqual([]);
  });

  test('without a grant, the error names the cluster and the grant to ask for', async ({ home, site, first }) => {
    await home.run('clusters');
    site.isGranted = false;
    const ran = await home.run('login site');
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    const place = `cluster site through login server ${first.server}`;
    expect(lines(ran.stderr)[0]).toBe(
      `error: no grant for alice@example.com on ${place}: the tailnet policy does not give the capability ${capability} there (HTTP 403)`,
    );
    const grant = JSON.parse(/add this grant \(see [^)]*\): (\{.*\})$/m.exec(ran.stderr)?.[1] ?? '');
    expect(grant).toEqual({
      src: ['alice@example.com'],
      dst: ['tag:tka'],
      ip: [`tcp:${new URL(first.server).port}`],
      app: { [capability]: [{ role: 'view', period: '8h', clusters: ['site'] }] },
    });
    expect((await home.run('doctor site')).stdout).toContain('"clusters": ["site"]');
  });

  test('a kubeconfig for another API server than the list’s or the context’s is refused', async ({
    home,
    hub,
    site,
    first,
  }) => {
    expect(await home.run('login site')).toMatchObject({ status: 0 });
    const { apiServer } = site.set;
    site.set.faults.kubeconfig = (answer) => JSON.parse(JSON.stringify(answer).replaceAll(apiServer, hub.apiServer));
    fs.rmSync(home.cache, { recursive: true });
    for (const ran of [
      await home.credential({ server: site.at(first), apiServer }),
      await home.run('login site'),
      await home.run('exec site -- get namespaces'),
    ]) {
      expect(ran).toMatchObject({ status: 1 });
      expect(ran.stderr).toContain(
        `cluster site through login server ${first.server} gives tokens for ${hub.apiServer}, not ${apiServer}`,
      );
      expect(ran.stdout).not.toMatch(/eyJ/);
    }
    expect(home.cached().filter((name) => name.endsWith('+clusters+site'))).toEqual([]);
  });
});

describe.concurrent('while one replica of the login server has no connection to the cluster', () => {
  test('kubectl signs in at the other, and the entry stays that of the first', async ({
    home,
    hub,
    site,
    first,
    second,
  }) => {
    await home.run('login site');
    fs.rmSync(home.cache, { recursive: true });
    first.joined.clear();
    hub.events.length = 0;
    const cluster = { server: site.at(first), apiServer: site.set.apiServer };
    const ran = await home.credential(cluster);
    expect(ran.stderr).toBe(
      `warning: cluster site through login server ${first.server} is away: signed in through ${site.at(second)}, of the same cluster\n`,
    );
    const logins = asked(hub, 'login');
    expect([logins[0], logins.at(-1)]).toEqual(['hub/site', 'hub-1/site']);
    expect(logins.filter((place) => place === 'hub-1/site')).toHaveLength(1);
    expect(home.cached()).toContain(entryName(cluster.server));
    expect(home.cached()).not.toContain(entryName(site.at(second)));
  });

  test('login and sync go on at the other', async ({ home, hub, site, first, second }) => {
    first.joined.clear();
    expect(await home.run('login site')).toMatchObject({ status: 0 });
    expect(asked(hub, 'login').at(-1)).toBe('hub-1/site');
    expect(contexts(home)).toEqual({ site: site.at(second) });
    expect(await home.run('sync')).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ hub: first.server, site: site.at(second) });
  });

  test('logout ends the sign-in at the other', async ({ home, hub, site, first }) => {
    await home.run('login site');
    first.joined.clear();
    hub.events.length = 0;
    expect(await home.run('logout site')).toMatchObject({ status: 0 });
    expect(asked(hub, 'logout').at(-1)).toBe('hub-1/site');
    expect(site.set.provisioner.view('alice-9f3c')).toBeUndefined();
  });

  test('no other cluster takes over, whatever the list says', async ({ home, hub, site, first }) => {
    const other = await startReplicas('other', 0, hub.certificates);
    const alike = join(hub, 'site-2', other);
    alike.row = { cluster: 'site', apiEndpoint: site.set.apiServer };
    await home.run('login site');
    const [own] = hub.members();
    if (own !== undefined) hub.others.push({ ...own, cluster: 'site', apiEndpoint: site.set.apiServer });
    await home.run('clusters');
    fs.rmSync(home.cache, { recursive: true });
    for (const replica of hub.replicas) replica.joined.delete('site');
    hub.events.length = 0;
    const ran = await home.credential({ server: site.at(first), apiServer: site.set.apiServer });
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(lines(ran.stderr)[0]).toBe(
      `error: cluster site through login server ${first.server} failed at the sign-in: cluster "site" is not connected to this login server (HTTP 503)`,
    );
    expect(new Set(asked(hub, 'login'))).toEqual(new Set(['hub/site']));
    expect(asked(hub, 'kubeconfig')).toEqual([]);
    await other.close();
  });
});

describe.concurrent('a joined cluster that states the name and the endpoint of another cluster', () => {
  /** A cluster of the tailnet, and a joined cluster that claims to be it. */
  async function withImpostor(hub: ReplicaSet) {
    const prod = await startReplicas('prod', 1, hub.certificates);
    const fake = await startReplicas('fake', 0, hub.certificates);
    hub.others.push(...prod.members());
    const impostor = join(hub, 'prod', fake);
    impostor.row = { apiEndpoint: prod.apiServer };
    return { prod, impostor, close: () => Promise.all([prod.close(), fake.close()]) };
  }

  test('is another cluster in the list, with a name that says through whom', async ({ home, hub, first }) => {
    const { prod, impostor, close } = await withImpostor(hub);
    const ran = await home.run('clusters -o json');
    const rows = JSON.parse(ran.stdout).map((row: Record<string, unknown>) => [row.name, row.server, row.through]);
    expect(rows).toContainEqual(['prod', prod.replicas[0]?.server, null]);
    expect(rows).toContainEqual(['prod-through-hub', impostor.at(first), 'hub']);
    expect(ran.stderr).toMatch(/^warning: 2 clusters claim the name "prod": /m);
    await close();
  });

  test('gets neither its sign-ins nor its context', async ({ home, hub, first }) => {
    const { prod, impostor, close } = await withImpostor(hub);
    const own = prod.replicas[0]?.server ?? '';
    expect(await home.run('login prod')).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ prod: own });
    expect(asked(hub, 'login')).toEqual([]);
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    // It confirms the endpoint in the list only, and gives tokens for its own API server.
    const wrong = await home.run('login prod-through-hub');
    expect(wrong).toMatchObject({ status: 1 });
    expect(wrong.stderr).toContain(
      `cluster prod through login server ${first.server} is not the TKA server of prod-through-hub`,
    );
    expect(await home.run('sync')).toMatchObject({ status: 1 });
    expect(contexts(home)).toMatchObject({ prod: own });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toContain(before.slice(0, 100));

    // By its URL it gets a context of its own.
    const byUrl = await home.run(['login', impostor.at(first), '--no-switch']);
    expect(byUrl).toMatchObject({ status: 0 });
    expect(contexts(home)).toMatchObject({ prod: own, 'prod-through-127.0.0.1': impostor.at(first) });
    const taken = await home.run(['login', impostor.at(first), '--context', 'prod']);
    expect(taken).toMatchObject({ status: 1 });
    expect(lines(taken.stderr)[0]).toBe(`error: context "prod" belongs to ${own}`);
    await close();
  });

  test('never takes over from it, and a login to it does not undo a logout', async ({ home, hub, first }) => {
    const { prod, impostor, close } = await withImpostor(hub);
    const [replica] = prod.replicas;
    const own = replica?.server ?? '';
    await home.run('login prod');
    fs.rmSync(home.cache, { recursive: true });
    await replica?.stop();
    const away = await home.credential({ server: own, apiServer: prod.apiServer }, { env: { TKA_TIMEOUT: '2s' } });
    expect(away).toMatchObject({ status: 1, stdout: '' });
    expect(asked(hub, 'login')).toEqual([]);
    expect(asked(hub, 'clusterInfo').filter((place) => place?.includes('/'))).toEqual([]);
    await replica?.start();
    await home.run('logout prod');
    expect(marks(home)).toContain(entryName(own));
    await home.run(['login', impostor.at(first)]);
    expect(marks(home)).toContain(entryName(own));
    expect(await home.credential({ server: own })).toMatchObject({ status: 1, stdout: '' });
    await close();
  });

  test('is a further way to it if the login server says so, with its own sign-in', async ({ home, hub, first }) => {
    const { prod, way } = await bothWays(hub);
    const [own] = prod.replicas;
    const rows = await json(home, 'clusters');
    expect(rows.map(({ name }: { name: string }) => name)).toEqual(['hub', 'prod', 'site']);
    expect(rows[1]).toMatchObject({ server: own?.server, through: null });
    expect(rows[1].servers).toHaveLength(3);
    expect(await home.run('login prod')).toMatchObject({ status: 0 });
    expect(await home.run(['login', way.at(first)])).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ prod: own?.server, 'prod-through-127.0.0.1': way.at(first) });
    expect(prod.provisioner.view('alice')).toBeDefined();
    expect(prod.provisioner.view('alice-9f3c')).toBeDefined();
    const sessions = await json(home, 'status');
    expect(sessions.map(({ server, through }: Record<string, string>) => [server, through]).sort()).toEqual(
      [
        [own?.server, null],
        [way.at(first), expect.any(String)],
      ].sort(),
    );
    // A logout is for the whole cluster.
    expect(await home.run('logout prod')).toMatchObject({ status: 0 });
    expect(prod.provisioner.view('alice')).toBeUndefined();
    expect(prod.provisioner.view('alice-9f3c')).toBeUndefined();
    // A login is for one way.
    expect(await home.run(['login', way.at(first)])).toMatchObject({ status: 0 });
    expect(marks(home)).toContain(entryName(own?.server ?? ''));
    await prod.close();
  });

  test('a logout ends both sign-ins, although the newest list states another endpoint', async ({
    home,
    hub,
    first,
  }) => {
    const { prod, way } = await bothWays(hub);
    await home.run('login prod');
    await home.run(['login', way.at(first)]);
    expect(prod.provisioner.view('alice-9f3c')).toBeDefined();
    const moved = { apiEndpoint: 'https://new.example.com:6443' };
    for (const row of hub.others) Object.assign(row, moved);
    way.row = { direct: true, ...moved };
    await home.run('clusters');
    expect(await home.run('logout prod')).toMatchObject({ status: 0 });
    expect(prod.provisioner.view('alice')).toBeUndefined();
    expect(prod.provisioner.view('alice-9f3c')).toBeUndefined();
    await prod.close();
  });

  test('forget of a further way leaves its sign-in', async ({ home, hub, first }) => {
    const { prod, way } = await bothWays(hub);
    await home.run('login prod');
    await home.run(['login', way.at(first)]);
    expect(prod.provisioner.view('alice-9f3c')).toBeDefined();
    expect(await home.run('forget prod-through-127.0.0.1')).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ prod: prod.replicas[0]?.server });
    expect(prod.provisioner.view('alice-9f3c')).toBeUndefined();
    expect(prod.provisioner.view('alice')).toBeDefined();
    expect(marks(home)).not.toContain(entryName(prod.replicas[0]?.server ?? ''));
    await prod.close();
  });

  test('forget of one further way leaves the sign-in through another login server', async ({ home, hub, first }) => {
    const prod = await startReplicas('prod', 1, hub.certificates);
    const hub2 = await startReplicas('hub-b', 1, hub.certificates);
    const ways = [join(hub, 'prod', prod), join(hub2, 'prod', prod)] as const;
    for (const way of ways) way.row = { direct: true };
    hub.others.push(...prod.members(), ...hub2.members());
    const [one, other] = [ways[0].at(first), ways[1].at(hub2.replicas[0] as Replica)];
    for (const url of [one, other]) expect(await home.run(['login', url])).toMatchObject({ status: 0 });
    expect((await json(home, 'clusters')).map(({ name }: { name: string }) => name)).toEqual([
      ...['hub', 'hub-b', 'prod', 'site'],
    ]);
    expect(await home.run(['forget', one])).toMatchObject({ status: 0 });
    expect(Object.values(contexts(home))).toEqual([other]);
    expect(home.cached()).toContain(entryName(other));
    expect(marks(home)).not.toContain(entryName(other));
    await Promise.all([prod.close(), hub2.close()]);
  });

  test('a further way never takes its context', async ({ home, hub, first }) => {
    const { prod, way } = await bothWays(hub);
    const own = prod.replicas[0]?.server;
    expect(await home.run('login prod')).toMatchObject({ status: 0 });
    await prod.replicas[0]?.stop();
    const away = await home.run('login prod');
    expect(away.status).toBe(1);
    const url = way.at(first);
    expect(away.stderr).toContain(`\nhint: through its login server, with another account: kubectl tka login ${url}\n`);
    expect(asked(hub, 'login')).toEqual([]);
    // Its own server has left the tailnet: the name means the way through the login server.
    hub.others.length = 0;
    expect(await home.run('login prod')).toMatchObject({ status: 0 });
    const { prod: kept, ...others } = contexts(home);
    expect(kept).toBe(own);
    expect(Object.values(others)).toEqual([url]);
    expect(asked(hub, 'login')).toEqual(['hub/prod']);
    await prod.close();
  });
});

describe.concurrent('another login server with a cluster of the same name and endpoint', () => {
  /** A login server with one replica that the site has joined too. */
  async function loginServer(hub: ReplicaSet, site: Joined, name: string) {
    const set = await startReplicas(name, 1, hub.certificates);
    const joined = join(set, 'site', site.set);
    const { server } = set.replicas[0] as Replica;
    return { set, server, url: `${server}/clusters/site`, joined };
  }

  test('does not get the context', async ({ home, hub, site, first }) => {
    const other = await loginServer(hub, site, 'hub-b');
    expect(await home.run('login site')).toMatchObject({ status: 0 });
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    const refused = await home.run(['login', 'site', '-s', other.server]);
    expect(refused).toMatchObject({ status: 2, stdout: '' });
    expect(lines(refused.stderr)).toEqual([
      'error: "site" is a cluster, and the context of another cluster',
      `hint: kubectl tka login ${other.url} (site)`,
      `hint: kubectl tka login ${site.at(first)} (context site)`,
    ]);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(before);
    expect(await home.run(['login', other.url])).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ site: site.at(first), 'site-through-hub-b': other.url });
    await other.set.close();
  });

  test('does not get the context either if both have one replica', async ({ home, hub, site }) => {
    const [one, other] = [await loginServer(hub, site, 'hub-a'), await loginServer(hub, site, 'hub-b')];
    expect(await home.run(['login', 'site', '-s', one.server])).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run(['login', 'site', '-s', other.server])).toMatchObject({ status: 2, stdout: '' });
    expect(await home.run(['login', other.url])).toMatchObject({ status: 0 });
    expect(contexts(home)).toEqual({ site: one.url, 'site-through-hub-b': other.url });
    await Promise.all([one.set.close(), other.set.close()]);
  });
});

describe.concurrent('a login server with new URLs', () => {
  /** Syncs, and gives the contexts other URLs, as if the list had them before. Returns the old URL of the site. */
  async function beforeMove(home: Home, urls: readonly string[]): Promise<string> {
    await home.run('sync');
    let text = fs.readFileSync(home.kubeconfig, 'utf8');
    for (const [i, url] of urls.entries()) text = text.replaceAll(url, oldUrl(i));
    home.write(home.kubeconfig, text);
    return oldUrl(0);
  }
  const oldUrl = (i: number) => `http://127.0.0.1:${i + 1}/clusters/site`;

  test('a login says that its context has moved with the login server', async ({ home, site, first, second }) => {
    const old = await beforeMove(home, [site.at(first), site.at(second)]);
    const moved = await home.run('login site');
    expect(moved).toMatchObject({ status: 0 });
    expect(moved.stderr).toBe(`the TKA server of context "site" is now ${site.at(first)} (was ${old})\n`);
    expect(contexts(home)).toMatchObject({ site: site.at(first) });
  });

  test('clusters and sync show the context, which changes only if that is accepted', async ({
    home,
    site,
    first,
    second,
  }) => {
    const old = await beforeMove(home, [site.at(first), site.at(second)]);
    expect((await json(home, 'clusters'))[1]).toMatchObject({ name: 'site', context: 'site' });
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    const kept = await home.run('sync');
    expect(kept).toMatchObject({ status: 1, stdout: '1 kept unchanged: site. 1 unchanged.\n' });
    expect(lines(kept.stderr)[0]).toBe(
      `warning: site: its TKA server has changed: ${old} → ${site.at(first)}; context site is unchanged`,
    );
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(before);
    const accepted = await home.run('sync --accept-changes');
    expect(accepted).toMatchObject({ status: 0, stdout: '1 updated: site. 1 unchanged.\n' });
    expect(contexts(home)).toMatchObject({ site: site.at(first) });
  });

  test('sync --prune removes its old context if there is a new one', async ({ home, site, first, second }) => {
    const old = await beforeMove(home, [site.at(first), site.at(second)]);
    const url = site.at(first);
    expect(await home.run(['login', url, '--no-switch', '--context', 'new'])).toMatchObject({ status: 0 });
    expect(contexts(home)).toMatchObject({ site: old, new: url });
    const pruned = await home.run('sync --prune');
    expect(pruned).toMatchObject({ status: 0, stdout: '1 removed: site. 2 unchanged.\n', stderr: '' });
    expect(contexts(home)).toEqual({ hub: first.server, new: url });
  });
});
