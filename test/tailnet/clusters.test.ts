// A real tailnet with two meshes: a cluster of two servers, named as in deploy/, in one; a cluster of one server in the
// other, which has a key; and a server in no mesh. Nodes and servers of the first cluster become unavailable in turn.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Ran } from '../fixtures/program.ts';
import type { TkaServerProcess } from '../server/program.ts';
import { eventually } from './network.ts';
import { ok, port, reader, Stage, url } from './stage.ts';

const first = 'tka-prod-us';
const second = 'tka-prod-us-1';
const mesh = 'tka-prod-eu';
const alone = 'tka-dev';
const mallory = 'tka-mallory';
const tagged = [first, second, mesh, alone];

const stage = await Stage.set({
  apiServers: 3,
  servers: { [first]: 'prod-us', [second]: 'prod-us', [mesh]: 'prod-eu', [alone]: 'dev', [mallory]: 'prod-us' },
  others: ['laptop'],
  userspace: [second],
});
const { home, tailnet, ask, at, clusters, device, fixture, kubectl, requests, run, serve, server } = stage;

const gossip = { enabled: true, interval: '400ms', stalenessThreshold: 8, deadThreshold: 16 };
/** The configuration of both servers of the cluster, as in deploy/. */
const replica = { tailscale: { hostname: first, port } };
const serveFirst = (): Promise<TkaServerProcess> => serve(first, replica);
const serveSecond = (): Promise<TkaServerProcess> => serve(second, replica);

/** Resolves when the laptop reaches both servers of the cluster, and each lists both as healthy. */
const bothUp = async (): Promise<void> => {
  for (const name of [first, second]) {
    await eventually(
      `${name} to list both servers`,
      () => ask('GET', name, 'memberlist'),
      ({ status, body }) => status === 200 && body.match(/"state":"healthy"/g)?.length === 2,
    );
  }
};

/** Makes kubectl need a new sign-in, without knowledge of unavailable servers. */
function miss(): void {
  fs.rmSync(home.cache, { recursive: true, force: true });
  fs.rmSync(path.join(home.state, 'away'), { recursive: true, force: true });
}

const configured = at('laptop', { TKA_TAILSCALE_HOSTNAME: first });
const namespaces = (options = at('laptop')): Promise<Ran> =>
  kubectl(`--context ${first} get namespaces -o name`, options);
const logins = (name: string): number => requests(name, '/login').filter(({ method }) => method === 'POST').length;

/**
 * Resolves when kubectl signs in at the first server again. While its connection is slow to return, the other one is
 * right.
 */
const backAtFirst = (): Promise<unknown> =>
  eventually(
    'a sign-in at the first',
    async () => {
      const before = logins(first);
      miss();
      await ok(namespaces());
      return logins(first) - before;
    },
    (count) => count === 1,
  );

/** Runs kubectl without a token; only this server may sign it in. Returns the result with the time it took. */
async function signedInBy(name: string): Promise<Ran> {
  const before = [first, second].map(logins);
  miss();
  const ran = await ok(namespaces(at('laptop', process.env.TKA_TAILNET_TIMES ? { TKA_DEBUG: '1' } : {})));
  expect(ran.stdout).toContain(`namespace/${fixture(first).namespace}`);
  expect([first, second].map((each, i) => logins(each) - (before[i] ?? 0))).toEqual(
    [first, second].map((each) => Number(each === name)),
  );
  return ran;
}

beforeAll(async () => {
  for (const name of [first, mesh, alone]) await fixture(name).role(undefined, undefined, reader);
  await tailnet.tag(Object.fromEntries(tagged.map((name) => [name, ['tag:tka']])));
  await stage.grant(reader);
  const key = randomBytes(24).toString('hex');
  await Promise.all([
    ...[serveFirst(), serveSecond(), serve(mesh, { gossip: { ...gossip, key } })].map(async (starting) =>
      (await starting).said(/listens for gossip/),
    ),
    // It states the same as the servers of the cluster, and even shares their sign-ins.
    serve(mallory, { ...replica, gossip: { enabled: false } }).then((one) => one.said(/listening for the API/)),
    serve(alone, { gossip: { enabled: false } }).then((one) => one.said(/listening for the API/)),
  ]);
  await bothUp();
});

afterAll(() => stage.strike());

beforeEach(() => home.forget());

test('lists the clusters of both meshes, and that of the server in none, once each', async () => {
  const ran = await ok(run('clusters -o json'));
  const rows = JSON.parse(ran.stdout) as Awaited<ReturnType<typeof clusters>>;
  expect(ran.stderr).not.toMatch(/warning|missing/);
  expect(
    rows.map(({ name, server, apiEndpoint, servers }) => [name, server, apiEndpoint, servers.map((s) => s.name)]),
  ).toEqual([
    [alone, url(alone), fixture(alone).access.server, [alone]],
    [mesh, url(mesh), fixture(mesh).access.server, [mesh]],
    [first, url(first), fixture(first).access.server, [first, second]],
  ]);
  const { stdout: wide } = await ok(run('clusters -o wide'));
  const lines = wide.trim().split('\n').slice(1);
  expect(lines.map((line) => [/[^\s*]+/.exec(line)?.[0], /\d\/\d/.exec(line)?.[0]])).toEqual([
    [alone, '1/1'],
    [mesh, '1/1'],
    [first, '2/2'],
  ]);
});

test('uses the list of a configured server, and names the tagged servers that are not in it in one line', async () => {
  for (const name of [first, second]) {
    const ran = await ok(run('clusters -o json', at('laptop', { TKA_TAILSCALE_HOSTNAME: name })));
    expect(JSON.parse(ran.stdout)).toMatchObject([{ name: first, servers: [{ name: first }, { name: second }] }]);
    expect(ran.stderr.trim().split('\n')).toEqual([
      expect.stringMatching(/\b2 tagged servers\b.*tka-dev, tka-prod-eu$/),
    ]);
  }
});

test('makes one sign-in, one context and one run of a command for each cluster', async () => {
  await ok(run('sync'));
  const { stdout: contexts } = await ok(kubectl('config get-contexts -o name'));
  expect(contexts.trim().split('\n').sort()).toEqual([alone, mesh, first]);
  const { stdout: json } = await ok(run('exec -o json -- get namespaces -o name'));
  expect(
    JSON.parse(json)
      .map(({ cluster }: { cluster: string }) => cluster)
      .sort(),
  ).toEqual([alone, mesh, first]);
  await signedInBy(first);
});

test('signs in at the other server while one is killed, stopped or its node is off the tailnet', async () => {
  await ok(run(`login ${first}`));
  await ok(namespaces());
  const direct = (await signedInBy(first)).took;
  // Limits the milliseconds until the other server is asked, with room for a busy machine.
  const within = (ran: Ran, least: number): void => {
    expect(ran.took).toBeGreaterThan(least);
    expect(ran.took - least).toBeLessThan(3 * direct + 2000);
    if (process.env.TKA_TAILNET_TIMES)
      process.stderr.write(`away ${least}: ${Math.round(ran.took)} ms, there: ${Math.round(direct)} ms\n${ran.stderr}`);
  };

  server(first).child.kill('SIGSTOP');
  within(await signedInBy(second), 2000);
  server(first).child.kill('SIGCONT');
  await bothUp();
  await backAtFirst();

  await device(first).leave();
  within(await signedInBy(second), 300);
  await device(first).rejoin();
  await bothUp();
  await backAtFirst();

  server(first).child.kill('SIGKILL');
  await server(first).ended;
  within(await signedInBy(second), 0);
  await (await serveFirst()).said(/listens for gossip/);
  await bothUp();
  await backAtFirst();
});

test('uses a server that states the same cluster only while its node has the tag', async () => {
  await ok(run(`login ${first}`, configured));
  await ok(namespaces());
  // As if it had been a server of the cluster at the last sign-in.
  const text = fs.readFileSync(home.kubeconfig, 'utf8');
  const item = /^( +- ).*tka-prod-us-1.*$/m;
  expect(text).toMatch(item);
  fs.writeFileSync(
    home.kubeconfig,
    text.replace(item, (line) => `${line}\n${line.replace(url(second), url(mallory))}`),
  );
  fs.rmSync(path.join(home.state, 'siblings'), { recursive: true, force: true });
  server(first).child.kill('SIGKILL');
  await server(first).ended;
  const refusedBy = async (name: string): Promise<void> => {
    miss();
    const before = requests(name).length;
    const ran = await namespaces(at('laptop', { TKA_TIMEOUT: '3s' }));
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining(url(first)) });
    expect(requests(name).length).toBe(before);
  };
  try {
    await signedInBy(second);
    expect(requests(mallory)).toEqual([]);
    await tailnet.tag({ [second]: [] });
    await refusedBy(second);
    expect(requests(mallory)).toEqual([]);
    // This shows that the missing tag kept it out.
    await tailnet.tag({ [mallory]: ['tag:tka'] });
    miss();
    await ok(namespaces());
    expect(logins(mallory)).toBe(1);
    await tailnet.tag({ [mallory]: [] });
    await refusedBy(mallory);
  } finally {
    await tailnet.tag({ [second]: ['tag:tka'], [mallory]: [] });
    await (await serveFirst()).said(/listens for gossip/);
  }
  await bothUp();
});

test('login finds the other server of a cluster if the configured host, named like the cluster, is unavailable', async () => {
  const configured = at('laptop', { TKA_TAILSCALE_HOSTNAME: first });
  await device(first).leave();
  try {
    // A server of another mesh may answer first, and nothing is known from before.
    for (let round = 0; round < 3; round++) {
      home.forget();
      const ran = await ok(run(`login ${first}`, configured));
      expect(ran.stdout).toContain(`Signed in to ${first} `);
      expect(ran.took).toBeLessThan(15_000);
      await ok(namespaces());
    }
    await eventually(
      'the mesh to miss it',
      () => ask('GET', second, 'memberlist'),
      ({ body }) => body.includes('"state":"dead"'),
    );
    home.forget();
    await ok(run(`login ${first}`, configured));
    await ok(namespaces());
  } finally {
    await device(first).rejoin();
  }
  await bothUp();
});

test('kubectl does not fail while one node is drained, then the other, and the list says 1/2', async () => {
  await ok(run('sync'));
  await ok(run(`use ${first}`));
  await ok(namespaces());
  const failures: string[] = [];
  let calls = 0;
  let isOver = false;
  const loop = async () => {
    for (; !isOver; calls++) {
      miss();
      const ran = await namespaces();
      if (ran.status !== 0) failures.push(ran.stderr);
    }
  };
  const looping = loop();
  try {
    for (const [name, start] of [
      [first, serveFirst],
      [second, serveSecond],
    ] as const) {
      server(name).child.kill('SIGTERM');
      expect(await server(name).ended).toEqual({ status: 0, signal: null });
      await device(name).leave();
      await eventually(
        'the list to say 1/2',
        () => ok(run('clusters -o wide')),
        ({ stdout }) => new RegExp(`^[* ] +${first} .* 1/2 `, 'm').test(stdout),
      );
      const before = calls;
      await eventually(
        'kubectl to go on',
        async () => calls,
        (count) => count > before + 2,
      );
      await device(name).rejoin();
      await (await start()).said(/listens for gossip/);
      await bothUp();
    }
  } finally {
    isOver = true;
    await looping;
  }
  expect(failures).toEqual([]);
  const text = fs.readFileSync(home.kubeconfig, 'utf8');
  await ok(run('sync'));
  expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(text);
});
