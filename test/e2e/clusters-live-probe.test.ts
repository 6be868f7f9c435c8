// `clusters --probe`: the state of each TKA server, without leaving a trace there.
import * as http from 'node:http';
import * as https from 'node:https';
import * as net from 'node:net';
import * as path from 'node:path';
import { generate } from 'selfsigned';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import { probeAll, probeOf } from '../../src/cli/clusters/probe.ts';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import type { SandboxCluster, SandboxMesh } from '../../src/sandbox/mesh.ts';
import { TkaClient } from '../../src/tka/client.ts';
import type { Home } from '../fixtures/home.ts';
import { test as base } from '../fixtures/mesh.ts';
import { lines, type RunOptions } from '../fixtures/program.ts';

interface Row {
  readonly name: string;
  readonly server: string | null;
  readonly probe: Readonly<Record<'reachable' | 'latencyMs' | 'tls' | 'version' | 'signIn' | 'error', unknown>>;
}

const test = base.extend<{ sockets: net.Server[] }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  sockets: async ({}, use) => {
    const servers: net.Server[] = [];
    await use(servers);
    for (const server of servers) {
      server.close();
      server.emit('end-all');
    }
  },
});

/** Listens on loopback until the test is over; resolves to the port. */
async function serve(sockets: net.Server[], server: net.Server): Promise<number> {
  const open = new Set<net.Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('error', () => {}).once('close', () => open.delete(socket));
  });
  server.once('end-all', () => {
    for (const socket of open) socket.destroy();
  });
  sockets.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as net.AddressInfo).port;
}

const probe = async (home: Home, args = '', options: RunOptions = {}) => {
  const ran = await home.run(`clusters --probe -o json ${args}`, options);
  expect(ran).toMatchObject({ status: 0 });
  const rows = JSON.parse(ran.stdout) as Row[];
  return { ...ran, rows, of: (name: string) => rows.find((row) => row.name === name)?.probe };
};
const noPosts = (mesh: SandboxMesh) =>
  expect(mesh.clusters.flatMap(({ requests }) => requests).filter(({ method }) => method !== 'GET')).toEqual([]);
const stamp = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
const milliseconds = expect.toSatisfy((ms: unknown) => typeof ms === 'number' && ms >= 0 && ms < 5000, 'a latency');
const signedOut = { state: 'signed-out', username: null, role: null, until: null };
const fine = {
  reachable: true,
  latencyMs: milliseconds,
  tls: null,
  version: 'sandbox',
  signIn: signedOut,
  error: null,
};
const nothing = { latencyMs: null, tls: null, signIn: null };

const answering = (fault: object) => (eu: SandboxCluster) => {
  eu.faults.routes.clusterInfo = fault;
};

describe.concurrent('clusters --probe', () => {
  test('adds only the key probe: signed in, not signed in, no grant', async ({ home, mesh, us, eu }) => {
    await home.run('login prod-us');
    const staging = mesh.cluster('staging');
    eu.user = null;
    staging.faults.routes.loginGet = {
      answer: { status: 202, body: { username: 'alice', role: 'viewer', until: '2030-01-01T00:00:00Z' } },
    };
    for (const cluster of mesh.clusters) cluster.resetCounts();
    const plain = JSON.parse((await home.run('clusters -o json')).stdout);
    const { rows, of, stderr } = await probe(home);
    expect(stderr).toBe('');
    expect(rows.map((row) => Object.keys(row))).toEqual(plain.map((row: Row) => [...Object.keys(row), 'probe']));
    for (const row of rows)
      expect(Object.keys(row.probe)).toEqual(['reachable', 'latencyMs', 'tls', 'version', 'signIn', 'error']);
    const alice = { username: 'alice', role: 'viewer', until: stamp };
    expect(of('prod-us')).toEqual({ ...fine, signIn: { state: 'active', ...alice } });
    expect(of('staging')).toEqual({ ...fine, signIn: { state: 'pending', ...alice } });
    expect(of('prod-eu')).toEqual({
      ...fine,
      signIn: { ...signedOut, state: 'refused' },
      error: expect.stringMatching(/no grant for /),
    });
    // One request for the cluster and one for the sign-in.
    expect([us, staging].map(({ counts }) => [counts.clusterInfo, counts.loginGet])).toEqual([
      [1, 1],
      [1, 1],
    ]);
    noPosts(mesh);
    const yaml = parse((await home.run('clusters --probe -o yaml')).stdout) as Row[];
    const still = ({ name, probe: { latencyMs: _, ...rest } }: Row) => [name, rest];
    expect(yaml.map(still)).toEqual(rows.map(still));
  });

  test('works in the table, with -l, -o wide and -o name', async ({ home, mesh, us }) => {
    await home.run('login prod-us');
    mesh.cluster('staging').faults.clusterInfo = { server_url: us.apiServer };
    const ran = await home.run('clusters --probe');
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    const table = lines(ran.stdout).map((line) => line.split(/ {3,}/));
    const latency = expect.stringMatching(/^[\d.]+ ms$/);
    expect(table.map((cells) => cells.slice(0, 9))).toEqual([
      ['CURRENT', 'NAME', 'STATE', 'REACHABLE', 'LATENCY', 'TLS', 'VERSION', 'SIGN-IN', 'CONTEXT'],
      ['', 'prod-eu', 'healthy', 'yes', latency, '-', 'sandbox', 'signed-out', '-'],
      [
        '*',
        'prod-us',
        'healthy',
        'yes',
        latency,
        '-',
        'sandbox',
        expect.stringMatching(/^alice \(viewer\), expires in \d+m \(.*\d\d:\d\d\)$/),
        'prod-us',
      ],
      ['', 'staging', 'healthy', 'error (another cluster)', latency, '-', 'sandbox', '-', '-'],
    ]);
    for (const cluster of mesh.clusters) cluster.resetCounts();
    const wide = await home.run('clusters --probe -l environment=staging -o wide');
    expect(lines(wide.stdout).map((line) => line.split(/ {3,}/).at(1))).toEqual(['NAME', 'staging']);
    expect(wide.stdout).toMatch(/^CURRENT +NAME.*LABELS +SERVERS +TKA SERVER +API ENDPOINT +LAST SEEN +THROUGH\n/);
    // No other server is asked, and for names none at all.
    expect(mesh.clusters.map(({ counts }) => counts.clusterInfo)).toEqual([0, 0, 1]);
    expect((await home.run('clusters --probe -o name')).stdout).toBe('prod-eu\nprod-us\nstaging\n');
    expect(mesh.clusters.map(({ counts }) => counts.clusterInfo)).toEqual([0, 0, 1]);
  });

  test('a server that serves another cluster is not asked for the sign-in', async ({ home, mesh, us, eu }) => {
    eu.faults.clusterInfo = { server_url: us.apiServer };
    const { of } = await probe(home);
    expect(of('prod-eu')).toEqual({
      ...fine,
      signIn: null,
      error: `${eu.server} serves ${us.apiServer}, not ${eu.apiServer}`,
    });
    expect(eu.counts).toMatchObject({ loginGet: 0, login: 0, kubeconfig: 0 });
    noPosts(mesh);
  });

  test.for<[string, (eu: SandboxCluster) => unknown, Record<string, unknown>, RegExp, string]>([
    [
      'down',
      (eu) => eu.stop(),
      { reachable: false, ...nothing },
      /^cannot reach .*connection refused$/,
      'no (connection refused)',
    ],
    [
      'an HTTP 500',
      answering({ answer: { status: 500, body: { message: 'etcd is away' } } }),
      { reachable: true, signIn: null },
      /etcd is away \(HTTP 500\)$/,
      'error (HTTP 500)',
    ],
    [
      'not JSON',
      answering({ notJson: true }),
      { reachable: true, signIn: null },
      /not the TKA protocol/,
      'error (not the TKA protocol)',
    ],
    ['50 MB', answering({ oversizeMiB: 50 }), { reachable: false, ...nothing }, /answered with more than 1 MiB$/, 'no'],
    [
      'a reset',
      answering({ reset: 'middle' }),
      { reachable: false, ...nothing },
      /the connection broke/,
      'no (the connection broke',
    ],
    [
      'escapes in its message',
      answering({ answer: { status: 500, body: { message: 'bad\u001b[31m\u202eword\nx' } } }),
      { reachable: true },
      /badword x|bad \[31mword x|bad\[31mword x/,
      'error (HTTP 500)',
    ],
    ['escapes in its version', answering({ headers: { 'X-TKA-Version': '1.2\u009b31m' } }), { ...fine }, /^$/, 'yes'],
  ])(
    '%s: is reported, and affects no other server',
    async ([, break_, expected, error, shown], { home, mesh, us, eu }) => {
      await break_(eu);
      const { of, stdout } = await probe(home);
      expect(of('prod-eu')).toMatchObject(expected);
      expect(of('prod-eu')?.error ?? '').toMatch(error);
      for (const name of ['prod-us', 'staging']) expect(of(name)).toEqual(fine);
      const table = await home.run('clusters --probe');
      expect(table.stdout).toContain(shown);
      for (const text of [stdout, table.stdout]) expect(text).not.toMatch(/[\u001b\u0080-\u009f\u202e]/);
      expect(us.counts.login).toBe(0);
      noPosts(mesh);
    },
  );

  test('silent and slow servers: 5 s for the answer, and 2 s for a dead member', async ({ home, mesh, us, eu }) => {
    us.faults.routes.clusterInfo = { silent: true };
    eu.faults.routes.clusterInfo = { trickleMs: 100 };
    mesh.cluster('staging').gossip.state = 'dead';
    mesh.cluster('staging').faults.routes.clusterInfo = { silent: true };
    const { of, took, rows } = await probe(home);
    expect(of('prod-us')).toMatchObject({
      reachable: false,
      ...nothing,
      error: expect.stringMatching(/no answer within 5 s$/),
    });
    expect(of('prod-eu')).toMatchObject({ reachable: false, error: expect.stringMatching(/no answer within 5 s$/) });
    expect(of('staging')).toMatchObject({ reachable: false, error: expect.stringMatching(/no answer within 2 s$/) });
    expect(rows.at(-1)?.name).toBe('staging');
    expect(took).toBeGreaterThan(4900);
    // One after the other they take 12 s, plus the program's own time.
    expect(took).toBeLessThan(12_000);
  });

  test('no answer about the sign-in: the others are complete', async ({ home, eu }) => {
    eu.faults.routes.loginGet = { answer: { status: 500, body: { message: 'no operator' } } };
    const { of } = await probe(home);
    expect(of('prod-eu')).toEqual({ ...fine, signIn: null, error: expect.stringMatching(/no operator \(HTTP 500\)$/) });
  });

  test('an unresolved member has only a reason', async ({ home, us }) => {
    us.faults.memberlist = 'go-json-only';
    const { rows } = await probe(home);
    const placed = rows.filter((row) => row.server !== null);
    expect(placed).toHaveLength(1);
    // The Go server states no version, and sends no header with one.
    expect(placed[0]?.probe).toEqual({ ...fine, version: null });
    for (const row of rows.filter(({ server }) => server === null))
      expect(row.probe).toEqual({ ...nothing, reachable: null, version: null, error: expect.stringMatching(/./) });
  });

  test.for([
    [{ 'X-TKA-Version': '1.2.3' }, '1.2.3'],
    [{ Server: 'tka-server/2.0.1' }, '2.0.1'],
    [{ Server: 'nginx/1.27' }, null],
  ] as const)('a version that only a header states: %j', async ([headers, version], { home, us, eu }) => {
    us.faults.memberlist = { raw: JSON.stringify([{ name: 'eu', apiEndpoint: eu.apiServer, server: eu.server }]) };
    eu.faults.routes.clusterInfo = { headers: headers as Record<string, string> };
    expect((await probe(home)).of('eu')).toMatchObject({ version });
  });
});

describe.concurrent('TLS', () => {
  test('shows the days left, or the problem', async ({ home, us, eu, sockets }) => {
    const good = await makeCertificates('127.0.0.1');
    const day = 86_400_000;
    const name = [{ name: 'commonName', value: 'x' }];
    const own = { keyType: 'ec', algorithm: 'sha256', notBeforeDate: new Date(Date.now() - 9 * day) } as const;
    const old = await generate(name, {
      ...own,
      notAfterDate: new Date(Date.now() - day),
      extensions: [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }],
    });
    const foreign = await generate([{ name: 'commonName', value: 'y' }], {
      ...own,
      notAfterDate: new Date(Date.now() + day),
    });
    // The server in front of eu, with each certificate.
    const front = async (key: string, cert: string) => {
      const server = https.createServer({ key, cert }, (request, response) => {
        http.get(eu.server + request.url, (answer) => {
          response.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(response);
        });
      });
      return `https://127.0.0.1:${await serve(sockets, server)}`;
    };
    const servers = {
      good: await front(good.key, good.cert),
      foreign: await front(foreign.private, foreign.cert),
      old: await front(old.private, old.cert),
      mute: `https://127.0.0.1:${await serve(sockets, net.createServer())}`,
      plain: eu.server.replace('http:', 'https:'),
    };
    const rows = Object.entries(servers).map(([name, server]) => ({
      ...{ name, cluster: name },
      server,
      apiEndpoint: eu.apiServer,
    }));
    us.faults.memberlist = { raw: JSON.stringify(rows) };
    const ca = path.join(home.root, 'ca.pem');
    home.write(ca, `${good.ca}\n${old.cert}\n`);
    const { of } = await probe(home, '', { env: { NODE_EXTRA_CA_CERTS: ca } });
    expect(of('good')).toEqual({
      ...fine,
      version: null,
      tls: { valid: true, validUntil: stamp, daysLeft: 29, problem: null },
    });
    const bad = (problem: RegExp) => ({
      valid: false,
      validUntil: null,
      daysLeft: null,
      problem: expect.stringMatching(problem),
    });
    expect(of('foreign')).toMatchObject({
      reachable: false,
      latencyMs: null,
      tls: bad(/^self-signed certificate$/),
    });
    expect(of('old')).toMatchObject({
      reachable: false,
      tls: bad(/has expired/),
      error: expect.stringMatching(/has expired/),
    });
    expect(of('plain')).toMatchObject({ reachable: false, tls: bad(/./) });
    // A connection gets 2 s, including TLS.
    expect(of('mute')).toMatchObject({
      reachable: false,
      tls: null,
      error: expect.stringMatching(/no answer within 2 s$/),
    });
    const table = await home.run('clusters --probe', { env: { NODE_EXTRA_CA_CERTS: ca } });
    expect(table.stdout).toMatch(/^ +good .* 29d left /m);
    expect(table.stdout).toMatch(/^ +old +\S+ +no \(TLS\) +- +certificate has expired /m);
  });
});

describe.concurrent('many', () => {
  const linux = process.platform === 'linux';
  const only = linux ? '' : ' (skipped: needs loopback addresses that only Linux has)';
  test.skipIf(!linux)(
    `16 at a time; with 300, most of them unreachable, none delays the others${only}`,
    async ({ home, us, sockets }) => {
      const gate = Promise.withResolvers<void>();
      let [now, most, posts] = [0, 0, 0];
      const sixteen = Promise.withResolvers<void>();
      const api = (i: number) => `https://api-${i}.example.com:6443`;
      const members: object[] = [];
      const add = (kind: string, port: number, state?: string) =>
        members.push({
          name: `${kind}-${members.length}`,
          server: `http://127.0.0.1:${port}`,
          state,
          apiEndpoint: api(members.length),
        });
      for (let i = 0; i < 20; i++) {
        const mine = api(i);
        const server = http.createServer(async (request, response) => {
          if (request.method !== 'GET') posts++;
          most = Math.max(most, ++now);
          if (now === 16) sixteen.resolve();
          await gate.promise;
          now--;
          const info = request.url?.endsWith('/cluster-info');
          response.writeHead(info ? 200 : 401, { 'Content-Type': 'application/json' });
          response.end(JSON.stringify(info ? { server_url: mine } : { message: 'User not signed in' }));
        });
        add('a-good', await serve(sockets, server));
      }
      const silent = () => serve(sockets, net.createServer());
      for (let i = 0; i < 16; i++) add('silent', await silent());
      for (let i = 0; i < 16; i++) add('was', await silent(), 'dead');
      const closed = net.createServer();
      await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
      const { port } = closed.address() as net.AddressInfo;
      closed.close();
      // Each with its own host, where nothing listens.
      while (members.length < 300) {
        const n = members.length;
        members.push({ name: `down-${n}`, server: `http://127.1.${n >> 8}.${n & 255}:${port}`, apiEndpoint: api(n) });
      }
      us.faults.memberlist = { raw: JSON.stringify(members) };
      const running = home.start('clusters --probe -o json');
      await sixteen.promise;
      // All simultaneous requests have arrived; one more round of the event loop brings no other.
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect([now, most]).toEqual([16, 16]);
      gate.resolve();
      const ran = await running.ran;
      expect(ran).toMatchObject({ status: 0, stderr: '' });
      const rows = JSON.parse(ran.stdout) as Row[];
      const reachable = (kind: string) =>
        rows.filter((row) => row.name.startsWith(kind)).map((row) => row.probe.reachable);
      expect(rows).toHaveLength(300);
      expect(reachable('a-good')).toEqual(Array(20).fill(true));
      for (const kind of ['silent', 'was', 'down']) expect(new Set(reachable(kind))).toEqual(new Set([false]));
      expect([most, posts]).toEqual([16, 0]);
      // The silent ones in sequence would take 112 s.
      expect(ran.took).toBeLessThan(40_000);
    },
  );

  test('after its timeout no other server is asked', async ({ sockets }) => {
    const port = await serve(sockets, net.createServer());
    const targets = Array.from({ length: 40 }, (_, i) => ({
      server: `http://server-${i}`,
      endpoints: new Set<string>(),
      patience: 2_000,
    }));
    const open = () => ({ client: new TkaClient(`http://127.0.0.1:${port}`), opened: () => undefined });
    const found = await probeAll(targets, { open, budget: 1_500, onDone: () => {} });
    expect(new Set(found.keys())).toEqual(new Set(targets.slice(0, 16).map(({ server }) => server)));
    const [target] = targets.slice(16);
    const cluster = { name: 'late', server: target?.server ?? '', apiEndpoint: 'https://x', state: 'healthy' } as const;
    const { probe: late } = probeOf(
      {
        ...cluster,
        reason: null,
        lastSeen: null,
        version: null,
        provenance: 'stated',
        labels: new Map(),
        through: null,
        servers: [],
      },
      found,
    );
    expect(late).toEqual({ ...nothing, reachable: null, version: null, error: 'not asked' });
  });
});
