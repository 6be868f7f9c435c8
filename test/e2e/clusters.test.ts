// `clusters` and `status` in every output format.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { jwt, lines } from '../fixtures/program.ts';
import { clusterRowKeys as keys } from '../hostile/checks.ts';

const stamp = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/);
const json = async (home: Home, args: string) => {
  const ran = await home.run(`${args} -o json`);
  expect(ran).toMatchObject({ status: 0 });
  return { ...ran, rows: JSON.parse(ran.stdout) as Record<string, unknown>[] };
};

describe.concurrent('clusters', () => {
  test('-o json has the documented keys', async ({ home, mesh, us, eu }) => {
    await home.run('login prod-us');
    const { rows, stderr } = await json(home, 'clusters');
    expect(stderr).toBe('');
    for (const row of rows) expect(Object.keys(row)).toEqual(keys);
    const staging = mesh.cluster('staging');
    expect(rows).toEqual([
      {
        name: 'prod-eu',
        server: eu.server,
        through: null,
        apiEndpoint: eu.apiServer,
        state: 'healthy',
        reason: null,
        lastSeen: stamp,
        labels: { environment: 'production', region: 'eu-central-1' },
        context: null,
        session: null,
        servers: [{ name: 'prod-eu', server: eu.server, state: 'healthy' }],
      },
      {
        name: 'prod-us',
        server: us.server,
        through: null,
        apiEndpoint: us.apiServer,
        state: 'healthy',
        reason: null,
        lastSeen: stamp,
        labels: { environment: 'production', region: 'us-west-2' },
        context: 'prod-us',
        session: { username: 'alice', role: 'viewer', until: stamp },
        servers: [{ name: 'prod-us', server: us.server, state: 'healthy' }],
      },
      {
        name: 'staging',
        server: staging.server,
        through: null,
        apiEndpoint: staging.apiServer,
        state: 'healthy',
        reason: null,
        lastSeen: stamp,
        labels: { environment: 'staging', region: 'us-west-2' },
        context: null,
        session: null,
        servers: [{ name: 'staging', server: staging.server, state: 'healthy' }],
      },
    ]);
  });

  test('-o yaml has the same content', async ({ home }) => {
    await home.run('login prod-us');
    const { rows } = await json(home, 'clusters');
    const yaml = await home.run('clusters -o yaml');
    const still = ({ lastSeen: _, ...row }: Record<string, unknown>) => row;
    expect(parse(yaml.stdout).map(still)).toEqual(rows.map(still));
  });

  test('-o name, the table, and -o wide', async ({ home, us, eu }) => {
    await home.run('login prod-us');
    await home.transcript(`
      $ kubectl tka clusters -o name
      prod-eu
      prod-us
      staging
    `);
    const table = lines((await home.run('clusters')).stdout);
    expect(table.map((line) => line.split(/ {2,}/))).toEqual([
      ['CURRENT', 'NAME', 'STATE', 'CONTEXT', 'SESSION', 'LABELS'],
      ['', 'prod-eu', 'healthy', '-', '-', 'environment=production,region=eu-central-1'],
      [
        '*',
        'prod-us',
        'healthy',
        'prod-us',
        expect.stringMatching(/^alice \(viewer\), expires in (?:29|30)m \(.*\d\d:\d\d\)$/),
        'environment=production,region=us-west-2',
      ],
      ['', 'staging', 'healthy', '-', '-', 'environment=staging,region=us-west-2'],
    ]);
    const wide = lines((await home.run('clusters -o wide')).stdout).map((line) => line.split(/ {2,}/));
    expect(wide[0]?.slice(6)).toEqual(['SERVERS', 'TKA SERVER', 'API ENDPOINT', 'LAST SEEN', 'THROUGH']);
    expect(wide[1]?.slice(6, 9)).toEqual(['1/1', eu.server, eu.apiServer]);
    expect(wide[1]?.[10]).toBe('-');
    expect(wide[2]?.slice(6, 9)).toEqual(['1/1', us.server, us.apiServer]);
    expect(wide[2]?.[10]).toBe('-');
  });

  test.for<[string, string[]]>([
    ['environment=production', ['prod-eu', 'prod-us']],
    ['environment=production,region in (us-west-2,ap-1)', ['prod-us']],
    ['region notin (us-west-2)', ['prod-eu']],
    ['environment!=production', ['staging']],
    ['!environment', []],
    ['region', ['prod-eu', 'prod-us', 'staging']],
  ])('-l %s', async ([selector, names], { home }) => {
    const found = await home.run(['clusters', '-l', selector, '-o', 'name']);
    const stderr = names.length === 0 ? 'no cluster matches the selector\n' : '';
    expect(found).toMatchObject({ status: 0, stdout: names.map((name) => `${name}\n`).join(''), stderr });
    const asJson = await home.run(['clusters', '-l', selector, '-o', 'json']);
    expect(JSON.parse(asJson.stdout)).toHaveLength(names.length);
  });

  test('no match: nothing on stdout in tables, [] for scripts', async ({ home }) => {
    const stderr = 'no cluster matches the selector\n';
    expect(await home.run('clusters -l a=b')).toMatchObject({ status: 0, stdout: '', stderr });
    for (const [format, stdout] of [
      ['json', '[]\n'],
      ['yaml', '[]\n'],
      ['name', ''],
      ['wide', ''],
    ]) {
      expect(await home.run(`clusters -l a=b -o ${format}`)).toMatchObject({ status: 0, stdout, stderr });
      expect(await home.run(`clusters -l a=b -o ${format} --quiet`)).toMatchObject({ status: 0, stdout, stderr: '' });
    }
  });

  test('a dead member is shown last, as dead', async ({ home, eu }) => {
    await eu.stop();
    const { rows } = await json(home, 'clusters');
    expect(rows.map(({ name, state }) => [name, state])).toEqual([
      ['prod-us', 'healthy'],
      ['staging', 'healthy'],
      ['prod-eu', 'dead'],
    ]);
  });

  test('the Go server’s memberlist: names come from the API endpoints, and the server that was asked is known', async ({
    home,
    mesh,
    us,
  }) => {
    us.faults.memberlist = 'go-json';
    const { rows } = await json(home, 'clusters');
    for (const row of rows) expect(Object.keys(row)).toEqual(keys);
    expect(rows.map(({ name }) => name).sort()).toEqual(mesh.clusters.map((c) => new URL(c.apiServer).host).sort());
    for (const cluster of mesh.clusters) {
      const row = rows.find(({ apiEndpoint }) => apiEndpoint === cluster.apiServer);
      expect(row).toMatchObject({ labels: cluster.labels, session: null });
      if (cluster === us)
        expect(row).toMatchObject({
          server: us.server,
          state: expect.stringMatching(/^(?:unknown|healthy)$/),
          reason: null,
        });
      else expect(row).toMatchObject({ server: null, state: 'unresolved', reason: expect.stringMatching(/./) });
    }
  });

  test('the Go server’s memberlist: our contexts add the servers that they know', async ({ home, us, eu }) => {
    await home.run('login prod-eu');
    us.faults.memberlist = 'go-json';
    const { rows } = await json(home, 'clusters');
    const known = rows.find(({ apiEndpoint }) => apiEndpoint === eu.apiServer);
    expect(known).toMatchObject({
      server: eu.server,
      context: 'prod-eu',
      session: { username: 'alice', role: 'viewer' },
    });
  });

  test.for(['absent-404', 'gossip-503'] as const)(
    'a server without a memberlist (%s) is listed alone',
    async (shape, { home, us }) => {
      us.faults.memberlist = shape;
      const { rows, stderr } = await json(home, 'clusters');
      expect(stderr).toMatch(/memberlist/);
      expect(rows).toHaveLength(1);
      expect(rows[0]).toMatchObject({ server: us.server, apiEndpoint: us.apiServer, labels: us.labels, reason: null });
      expect((await home.run('clusters -o json -q')).stderr).toBe('');
    },
  );

  test('labels that are null, and a name with escapes, do no harm', async ({ home, us, eu }) => {
    us.faults.memberlist = {
      raw: JSON.stringify([
        { apiEndpoint: eu.apiServer, apiPort: 1, labels: null, name: 'evil\u001b[31m\nname', server: eu.server },
      ]),
    };
    const { rows } = await json(home, 'clusters');
    expect(rows[0]?.labels).toEqual({});
    expect(rows[0]?.name).not.toMatch(/[\u0000-\u001f]/);
    const table = await home.run('clusters');
    expect(table.stdout).not.toContain('\u001b');
    expect(lines(table.stdout)).toHaveLength(2);
  });

  test('without labels, with an empty list', async ({ home, us }) => {
    us.faults.memberlist = { raw: '[]' };
    expect(await home.run('clusters -o json')).toMatchObject({ status: 0, stdout: '[]\n' });
    expect(await home.run('clusters')).toMatchObject({ status: 0, stdout: '', stderr: 'no clusters found\n' });
  });

  test('the server down: exit 1, and an empty stdout in every format', async ({ home, us }) => {
    await us.stop();
    for (const format of ['', ' -o json', ' -o yaml', ' -o name']) {
      const refused = await home.run(`clusters${format}`);
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(/error: cannot reach /);
    }
  });

  test('no grant: the server’s message', async ({ home, us }) => {
    us.user = null;
    const refused = await home.run('clusters');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: .*no grant for /);
  });
});

describe.concurrent('status', () => {
  test('of a fresh machine', async ({ home }) => {
    await home.transcript(`
      $ kubectl tka status
      ! no sessions on this machine
      ! hint: kubectl tka login
      $ kubectl tka status -o json
      []
      $ kubectl tka status -q
    `);
  });

  test('-o json: active, expired and signed out, from the cache alone', async ({ home, mesh, us, eu }) => {
    const staging = mesh.cluster('staging');
    await home.run('login prod-us');
    await home.run('login prod-eu');
    await home.run('logout prod-eu');
    staging.faults.token = { expOffsetMs: 2000 };
    expect((await home.run('login staging')).status).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await mesh.close();
    const { rows, stderr } = await json(home, 'status');
    expect(stderr).toBe('');
    const alice = { through: null, username: 'alice', role: 'viewer', until: stamp };
    expect(rows).toEqual([
      { name: 'prod-eu', server: eu.server, ...alice, until: null, context: 'prod-eu', state: 'signed-out' },
      { name: 'prod-us', server: us.server, ...alice, context: 'prod-us', state: 'active' },
      { name: 'staging', server: staging.server, ...alice, context: 'staging', state: 'expired' },
    ]);
    expect(Object.keys(rows[0] ?? {})).toEqual([
      'name',
      'server',
      'through',
      'username',
      'role',
      'until',
      'context',
      'state',
    ]);
    expect(parse((await home.run('status -o yaml')).stdout)).toEqual(rows);
    expect((await home.run('status -o name')).stdout).toBe('prod-eu\nprod-us\nstaging\n');
    const table = await home.run('status');
    expect(lines(table.stdout).map((line) => line.split(/ {2,}/).slice(0, 6))).toEqual([
      ['CURRENT', 'NAME', 'USER', 'ROLE', 'STATE', 'EXPIRES'],
      ['', 'prod-eu', 'alice', 'viewer', 'signed-out', '-'],
      ['', 'prod-us', 'alice', 'viewer', 'active', expect.stringMatching(/^in \d+m /)],
      ['*', 'staging', 'alice', 'viewer', 'expired', expect.any(String)],
    ]);
    expect(table.stdout).not.toMatch(jwt);
    const wide = await home.run('status -o wide');
    expect(lines(wide.stdout).map((line) => line.split(/ {2,}/).slice(7))).toEqual([
      ['TKA SERVER', 'THROUGH', 'API SERVER', 'SERVICE ACCOUNT'],
      [eu.server, '-', eu.apiServer, '-'],
      [us.server, '-', us.apiServer, 'tka-user-alice'],
      [staging.server, '-', staging.apiServer, 'tka-user-alice'],
    ]);
    expect(wide.stdout).not.toMatch(jwt);
  });

  test('a session without a context; a cluster without a sign-in cannot be logged out of', async ({ home, us, eu }) => {
    await home.credential(us);
    expect((await json(home, 'status')).rows).toMatchObject([{ name: '127.0.0.1', server: us.server }]);
    eu.resetCounts();
    await home.transcript(`
      $ kubectl tka logout prod-eu
      ! error: you were not signed in to prod-eu (${eu.server})
      ! hint: kubectl tka status
      [1]
    `);
    expect(eu.counts.logout).toBe(1);
    const { rows } = await json(home, 'status');
    expect(rows).toHaveLength(1);
    expect(rows.find(({ server }) => server === us.server)).toMatchObject({
      // As in the list that was fetched in the meantime.
      name: 'prod-us',
      context: null,
      state: 'active',
    });
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
  });
});
