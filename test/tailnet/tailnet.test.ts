// A real tailnet: one mesh of three clusters with one server each.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { statusFor } from '../cluster/people.ts';
import type { Ran } from '../fixtures/program.ts';
import { eventually } from './network.ts';
import { admin, ok, port, reader, Stage, url } from './stage.ts';
import { proxy, suffix } from './tailnet.ts';

const names = ['tka-prod-us', 'tka-prod-eu', 'tka-staging'] as const;
type Name = (typeof names)[number];

const stage = await Stage.set({
  apiServers: 3,
  // "tka" is the name that the Go CLI asks by default; here it is an impostor. "tka-mallory" is a TKA server like the
  // others, but lies.
  servers: Object.fromEntries([...names, 'tka', 'tka-mallory'].map((name) => [name, name])),
  others: ['laptop', 'ci'],
  userspace: ['tka-staging', 'ci'],
});
const { home, tailnet, ask, at, clusters, device, grant, fixture, requests, run, serve, server } = stage;
const runKubectl = stage.kubectl;

/** Resolves when the API server of a cluster refuses a token. It caches a check for ten seconds. */
const refused = (token: string, name: Name = 'tka-prod-us'): Promise<unknown> =>
  eventually(
    'the old token to be refused',
    () => statusFor(fixture(name).access, token),
    (status) => status === 401,
  );

/** Resolves when the laptop lists the three clusters as healthy. */
const healthy = (): Promise<unknown> =>
  eventually(
    'three healthy clusters',
    () => clusters(),
    (rows) => rows.length === 3 && rows.every(({ state }) => state === 'healthy'),
  );

/** Returns the user name of the laptop at the API server of the current context, or of another one. */
const whoami = (context?: string, options = at('laptop')): Promise<Ran> =>
  runKubectl(`${context ? `--context ${context} ` : ''}auth whoami -o jsonpath={.status.userInfo.username}`, options);

const account = (name: Name): RegExp => new RegExp(`^system:serviceaccount:${fixture(name).namespace}:tka-user-`);

beforeAll(async () => {
  for (const name of names) {
    await fixture(name).role(undefined, undefined, reader);
    await fixture(name).role(['*'], ['*'], admin);
  }
  await tailnet.tag(Object.fromEntries(names.map((name) => [name, ['tag:tka']])));
  await grant(reader);
  await Promise.all([
    ...names.map(async (name) => {
      const identity = { allowTagged: name === 'tka-prod-eu' ? ['tag:ci'] : [] };
      await (await serve(name, { identity })).said(/listens for gossip/);
    }),
    serve('tka', { gossip: { enabled: false } }).then((impostor) => impostor.said(/listening for the API/)),
  ]);
  await healthy();
});

afterAll(() => stage.strike());

beforeEach(() => home.forget());

test('finds all clusters by the tag of their servers', async () => {
  const rows = await clusters();
  expect(rows.map((row) => [row.name, row.server, row.apiEndpoint])).toEqual(
    ['tka-prod-eu', 'tka-prod-us', 'tka-staging'].map((name) => [name, url(name), fixture(name).access.server]),
  );
});

test('kubectl works after one login', async () => {
  await ok(run('login tka-prod-us'));
  expect(await whoami()).toMatchObject({ status: 0, stdout: expect.stringMatching(account('tka-prod-us')) });
  await ok(runKubectl('get namespaces'));
  const denied = await runKubectl('get secrets');
  expect(denied).toMatchObject({ status: 1, stderr: expect.stringContaining('cannot list resource "secrets"') });
});

test('sync writes a context for each cluster, and kubectl signs in by itself, also to a server with a userspace tailscaled', async () => {
  await ok(run('sync'));
  for (const name of names) {
    expect(await whoami(name)).toMatchObject({ status: 0, stdout: expect.stringMatching(account(name)) });
  }
});

test('exec runs on every cluster', async () => {
  const { stdout: json } = await ok(run('exec -o json -- get namespaces -o name'));
  const results: { cluster: string; exitCode: number; stdout: string }[] = JSON.parse(json);
  expect(results.map(({ cluster, exitCode }) => [cluster, exitCode])).toEqual(
    ['tka-prod-eu', 'tka-prod-us', 'tka-staging'].map((name) => [name, 0]),
  );
  for (const { cluster, stdout } of results) expect(stdout).toContain(`namespace/${fixture(cluster).namespace}`);
});

test('doctor finds no problem', async () => {
  const ran = await run('doctor tka-prod-us -o json');
  const [report] = JSON.parse(ran.stdout) as { checks: { name: string; status: string; detail: string }[] }[];
  expect(report?.checks.filter(({ status }) => status === 'failed' || status === 'warning')).toEqual([]);
  expect(ran.status).toBe(0);
});

test('a job behind a userspace tailscaled signs in through its proxy', async () => {
  const job = at('ci', { ALL_PROXY: `socks5h://${proxy}` });
  await ok(run('login tka-prod-us', job));
  expect(await whoami(undefined, job)).toMatchObject({ stdout: expect.stringMatching(account('tka-prod-us')) });
});

test('a tagged caller is refused, with the reason', async () => {
  await tailnet.tag({ laptop: ['tag:ci'] });
  try {
    const ran = await run(`login ${url('tka-prod-us')}`);
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('tagged') });
  } finally {
    await tailnet.tag({ laptop: [] });
  }
  await ok(run(`login ${url('tka-prod-us')}`));
});

test('a tagged device signs in where its tag is listed, until it loses the tag', async () => {
  const job = at('ci', { ALL_PROXY: `socks5h://${proxy}` });
  await tailnet.tag({ ci: ['tag:ci'] });
  try {
    const elsewhere = await run('login tka-prod-us', job);
    expect(elsewhere).toMatchObject({ status: 1, stderr: expect.stringContaining('identity.allowTagged') });
    const { stdout } = await ok(run('login tka-prod-eu', job));
    expect(stdout).toContain(`as ci.${suffix}, role ${reader}`);
    const { namespace } = fixture('tka-prod-eu');
    const who = await whoami(undefined, job);
    expect(who.stdout).toMatch(new RegExp(`^system:serviceaccount:${namespace}:tka-login-`));
    const token = home.token({ server: url('tka-prod-eu') });
    await tailnet.tag({ ci: ['tag:web'] });
    expect((await run('login tka-prod-eu', job)).status).toBe(1);
    await refused(token, 'tka-prod-eu');
  } finally {
    await tailnet.tag({ ci: [] });
  }
});

test('a demotion takes effect at the next request', async () => {
  await grant(admin);
  await ok(run('login tka-prod-us'));
  await ok(runKubectl('get secrets'));
  const token = home.token({ server: url('tka-prod-us') });
  await grant(reader);
  expect(await ask('GET', 'tka-prod-us', 'kubeconfig')).toMatchObject({ status: 401 });
  await refused(token);
  expect(await runKubectl('get secrets')).toMatchObject({ status: 1 });
  await eventually(
    'kubectl with the new role',
    () => runKubectl('get namespaces'),
    ({ status }) => status === 0,
  );
});

test('a removed grant refuses the login, and the answer names the missing capability', async () => {
  await ok(run('login tka-prod-us'));
  const token = home.token({ server: url('tka-prod-us') });
  await tailnet.grant();
  try {
    const ran = await run('login tka-prod-us');
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringMatching(/^error: no grant for user-\d+@\S+ on /m) });
    expect(ran.stderr).toMatch(
      /add this grant .*"src": \["user-\d+@[^"]+"\], "dst": \["tag:tka"\], "ip": \["tcp:8123"\]/,
    );
    // The request for the cluster info has already ended the sign-in.
    await refused(token);
    expect(await ask('GET', 'tka-prod-us', 'kubeconfig')).toMatchObject({ status: 403 });
  } finally {
    await grant(reader);
  }
  await ok(run('login tka-prod-us'));
});

test('a server without its tag is not used, until it gets it back', async () => {
  await tailnet.tag({ 'tka-prod-eu': [] });
  try {
    await eventually(
      'prod-eu to be out of use',
      () => clusters(),
      (rows) => rows.every(({ server, state }) => server !== url('tka-prod-eu') || state !== 'healthy'),
    );
    const before = requests('tka-prod-eu', '/login').length;
    expect(await run('login tka-prod-eu')).toMatchObject({ status: 1 });
    expect(requests('tka-prod-eu', '/login').length).toBe(before);
    await ok(run('login tka-prod-us'));
  } finally {
    await tailnet.tag({ 'tka-prod-eu': ['tag:tka'] });
  }
  home.forget();
  await healthy();
  await ok(run('login tka-prod-eu'));
});

test('while a server is stopped its tokens stay valid, and it comes back', async () => {
  await ok(run('login tka-prod-eu'));
  server('tka-prod-eu').child.kill('SIGTERM');
  expect(await server('tka-prod-eu').ended).toEqual({ status: 0, signal: null });
  expect(await whoami()).toMatchObject({ status: 0, stdout: expect.stringMatching(account('tka-prod-eu')) });
  const rows = await clusters();
  expect(rows.find(({ name }) => name === 'tka-prod-eu')?.state).not.toBe('healthy');
  expect(rows.filter(({ state }) => state === 'healthy').length).toBe(2);
  const ran = await run('login tka-prod-eu', at('laptop', { TKA_TIMEOUT: '5s' }));
  expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining(url('tka-prod-eu')) });
  await serve('tka-prod-eu').then((started) => started.said(/listens for gossip/));
  await healthy();
  await ok(run('login tka-prod-eu'));
});

test('a disconnected node delays nothing else, and is back when its network is', async () => {
  await ok(run('login tka-prod-eu'));
  // The server that is asked for the list first.
  device('tka-prod-eu').cable('down');
  try {
    const rows = await eventually(
      'prod-eu to be missed',
      () => clusters(),
      (seen) => seen.every(({ name, state }) => name !== 'tka-prod-eu' || state !== 'healthy'),
    );
    expect(rows.filter(({ state }) => state === 'healthy').length).toBe(2);
    expect(await whoami()).toMatchObject({ status: 0, stdout: expect.stringMatching(account('tka-prod-eu')) });
    const login = await run('login tka-prod-us');
    expect(login).toMatchObject({ status: 0 });
    expect(login.took).toBeLessThan(10_000);
    const late = await run('login tka-prod-eu', at('laptop', { TKA_TIMEOUT: '3s' }));
    expect(late).toMatchObject({ status: 1, stderr: expect.stringContaining('tka-prod-eu') });
    expect(late.took).toBeLessThan(10_000);
  } finally {
    device('tka-prod-eu').cable('up');
  }
  await healthy();
  await eventually(
    'a sign-in',
    () => run('login tka-prod-eu'),
    ({ status }) => status === 0,
  );
});

test('a member that claims another’s name is neither shown nor used under that name', async () => {
  await tailnet.tag({ 'tka-mallory': ['tag:tka'] });
  try {
    const { access } = fixture('tka-prod-us');
    const liar = await serve('tka-mallory', {
      tailscale: { hostname: 'tka-prod-us', port },
      clusterInfo: { apiEndpoint: access.server, caData: Buffer.from(access.ca).toString('base64') },
    });
    await liar.said(/listens for gossip/);
    await eventually(
      'the liar to be in the mesh',
      () => clusters(`-s ${url('tka-mallory')}`),
      (rows) => names.every((name) => rows.some((row) => row.name === name && row.state === 'healthy')),
    );
    for (let round = 0; round < 3; round++) {
      for (const name of names) {
        const rows = await clusters(`-s ${url(name)}`);
        expect(rows.filter((row) => row.name === 'tka-prod-us').map((row) => row.server)).toEqual([url('tka-prod-us')]);
      }
    }
    home.forget();
    await ok(run('login tka-prod-us'));
    expect(await whoami()).toMatchObject({ stdout: expect.stringMatching(account('tka-prod-us')) });
    expect(requests('tka-mallory', '/login')).toEqual([]);
  } finally {
    await server('tka-mallory')?.[Symbol.asyncDispose]();
    await tailnet.tag({ 'tka-mallory': [] });
  }
});

test('an untagged device is never asked, whatever its name, and cannot start a mesh', async () => {
  expect(requests('tka')).toEqual([]);
  await run(`clusters -s ${url('tka')}`);
  expect(requests('tka')).not.toEqual([]);
  server('tka').child.kill('SIGTERM');
  await server('tka').ended;
  const mesh = await serve('tka');
  expect(await mesh.ended).toMatchObject({ status: 2 });
  expect(mesh.stderr).toContain('the mesh would admit every node');
});
