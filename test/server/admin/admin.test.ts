// Inspects a running server through its socket, with the built program.
import { once } from 'node:events';
import * as fs from 'node:fs';
import { createServer } from 'node:http';
import * as net from 'node:net';
import * as path from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type StandInCaller, startTailscaled } from '../../../src/sandbox/tailscaled.ts';
import { askAdmin } from '../../../src/server/admin/client.ts';
import { type AdminSources, adminListener, openAdmin } from '../../../src/server/admin/socket.ts';
import {
  membersText,
  type SignInsView,
  type StatusView,
  signInsText,
  statusText,
} from '../../../src/server/admin/views.ts';
import type { Log } from '../../../src/server/log/log.ts';
import type { MemberOverview } from '../../../src/server/mesh/mesh.ts';
import { annotation } from '../../../src/server/provisioner/objects.ts';
import { rfc3339 } from '../../../src/server/provisioner/sign-in.ts';
import { freePort } from '../../fixtures/ports.ts';
import { testFolder } from '../../fixtures/temporary.ts';
import { ask, TkaServerProcess } from '../program.ts';
import { StandInApi } from '../stand-in-api.ts';

const alice: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h' }] },
};
const status: StatusView = {
  version: '1.2.3',
  commit: 'abc',
  server: 'tka',
  cluster: 'prod-us',
  startedAt: '2026-11-21T08:00:00.000Z',
  uptimeSeconds: 7_200,
  ready: false,
  reason: 'the server has no certificate yet',
  leader: { leading: false, holder: 'tka-server/tka-1_0f3a', silentSeconds: 1 },
  watches: [{ resource: 'tkasignins', connected: true, silentSeconds: 3 }],
  signIns: 2,
  certificate: { until: '2099-01-01T00:00:00.000Z' },
  apiServer: 'https://10.96.0.1:443',
  tailnet: { node: 'tka.example.ts.net', name: 'example.com', addresses: ['100.64.0.1'] },
  mesh: { healthy: 57, suspected: 0, dead: 1, left: 0 },
};
const member: MemberOverview = {
  name: 'tka',
  state: 'healthy',
  self: true,
  left: false,
  gossip: 'tka.example.ts.net:7946',
  lastSeen: '2026-11-21T08:00:00.000Z',
  apiEndpoint: 'https://api.example.com:6443',
  apiPort: 443,
  server: 'https://tka.example.ts.net',
  cluster: 'prod-us',
  version: '1.2.3',
  labels: { region: 'us' },
};
const quietly = (lines: string[]): Log => {
  const note = (fields: Readonly<Record<string, unknown>>, message: string) =>
    void lines.push(`${message}: ${fields.err instanceof Error ? fields.err.message : ''}`);
  return { debug: () => {}, info: note, warn: note, error: note };
};

/** Opens a socket for this test, which answers from these sources. */
async function opened(sources: Partial<AdminSources> = {}, file = path.join(testFolder(), 'own/admin.sock')) {
  const lines: string[] = [];
  const all: AdminSources = {
    status: () => status,
    signIns: () => ({ signIns: [] }),
    members: () => [member],
    drop: () => undefined,
    ...sources,
  };
  const close = await openAdmin(file, adminListener(all), quietly(lines));
  if (close !== undefined) onTestFinished(close);
  return { file, lines, close };
}

describe.skipIf(process.platform === 'win32')('the socket', () => {
  test('is accessible to this user only', async () => {
    const { file } = await opened();
    expect(fs.statSync(file).mode & 0o777).toBe(0o600);
    expect(fs.statSync(path.dirname(file)).mode & 0o777).toBe(0o700);
    expect(await askAdmin(file, 'GET', '/status')).toEqual(status);
  });

  test('closes a folder that others could read', async () => {
    const folder = path.join(testFolder(), 'own');
    fs.mkdirSync(folder, { mode: 0o755 });
    await opened({}, path.join(folder, 'admin.sock'));
    expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
  });

  test('replaces the socket of a killed server, and is removed with the server', async () => {
    const file = path.join(testFolder(), 'own/admin.sock');
    fs.mkdirSync(path.dirname(file), { mode: 0o700 });
    const killed = net.createServer().listen(file);
    await once(killed, 'listening');
    // Node removes the file of a server that it closes.
    fs.linkSync(file, `${file}.kept`);
    killed.close();
    await once(killed, 'close');
    fs.renameSync(`${file}.kept`, file);
    const { close, lines } = await opened({}, file);
    expect(lines).toEqual([]);
    expect(await askAdmin(file, 'GET', '/status')).toEqual(status);
    await close?.();
    expect(fs.existsSync(file)).toBe(false);
  });

  test('of a running server stays; another server continues without one', async () => {
    const first = await opened();
    const second = await opened({}, first.file);
    expect(second.close).toBeUndefined();
    expect(second.lines).toEqual([`could not open the admin socket: another tka-server uses ${first.file}`]);
    expect(await askAdmin(first.file, 'GET', '/status')).toEqual(status);
  });

  test.each<[what: string, place: (folder: string) => string, why: RegExp]>([
    ['a path too long', (folder) => path.join(folder, 'x'.repeat(100), 'admin.sock'), /longer than 103 bytes/],
    [
      'a file in its place',
      (folder) => {
        fs.writeFileSync(path.join(folder, 'file'), 'x', { mode: 0o600 });
        return path.join(folder, 'file');
      },
      /is not a socket$/,
    ],
    [
      'a link as its folder',
      (folder) => {
        fs.mkdirSync(path.join(folder, 'real'), { mode: 0o700 });
        fs.symlinkSync('real', path.join(folder, 'link'));
        return path.join(folder, 'link/admin.sock');
      },
      /is a symbolic link$/,
    ],
    ['a folder that everybody shares', () => path.join('/tmp', 'tka-admin-test.sock'), /is shared with other users$/],
  ])('with %s, the server continues without a socket and logs it', async (_, place, why) => {
    const file = place(testFolder());
    const { close, lines } = await opened({}, file);
    expect(close).toBeUndefined();
    expect(lines).toEqual([expect.stringMatching(why)]);
    if (path.basename(file) === 'file') expect(fs.readFileSync(file, 'utf8')).toBe('x');
  });

  test('refuses other requests, and drops only dead members', async () => {
    const dropped: string[] = [];
    const { file } = await opened({
      members: () => [member, { ...member, name: 'tka-eu', self: false, state: 'suspected' }],
      drop(name) {
        dropped.push(name);
        return { 'tka-eu': 'suspected', 'tka-old': 'dead' }[name];
      },
    });
    const refused = (method: 'GET' | 'DELETE', route: string) =>
      askAdmin(file, method, route).then(
        () => 'answered',
        (error) => error.message,
      );
    expect(await refused('GET', '/kubeconfig')).toBe(
      'unknown request: the server may have another version than this program',
    );
    expect(await refused('GET', '/api/v1alpha1/kubeconfig')).toBe(
      'unknown request: the server may have another version than this program',
    );
    expect(await refused('DELETE', '/sign-ins')).toBe(
      'unknown request: the server may have another version than this program',
    );
    expect(await refused('DELETE', '/members/tka')).toBe('"tka" is this server itself');
    expect(await refused('DELETE', '/members/tka-eu')).toBe('"tka-eu" is suspected');
    expect(await refused('DELETE', '/members/nobody')).toBe('member "nobody" not found');
    expect(await refused('DELETE', '/members/%zz')).toBe('invalid request');
    expect(await askAdmin(file, 'DELETE', '/members/tka-old')).toEqual({ dropped: 'tka-old' });
    expect(dropped).toEqual(['tka-eu', 'nobody', 'tka-old']);
  });

  test('of a server without a mesh, or during its start, reports it', async () => {
    const { file } = await opened({ members: () => undefined, signIns: () => undefined });
    await expect(askAdmin(file, 'GET', '/members')).rejects.toMatchObject({ message: 'this server is not in a mesh' });
    await expect(askAdmin(file, 'DELETE', '/members/x')).rejects.toMatchObject({
      message: 'this server is not in a mesh',
    });
    await expect(askAdmin(file, 'GET', '/sign-ins')).rejects.toMatchObject({ message: 'the server is starting' });
  });

  test('of something else is distinguished from a server', async () => {
    const file = path.join(testFolder(), 'x.sock');
    const other = createServer((_, response) => response.end('hello')).listen(file);
    await once(other, 'listening');
    onTestFinished(() => void other.close());
    await expect(askAdmin(file, 'GET', '/status')).rejects.toMatchObject({
      message: `${file} is not the socket of a tka-server`,
    });
  });
});

describe('output as text', () => {
  test('shows a status as lines of names and values', () => {
    const lines = statusText(status).split('\n');
    expect(lines.slice(0, 7)).toEqual([
      expect.stringMatching(/^Server: +tka, cluster prod-us$/),
      expect.stringMatching(/^Version: +1\.2\.3 \(commit abc\)$/),
      expect.stringMatching(/^Uptime: +2h$/),
      expect.stringMatching(/^Ready: +no: the server has no certificate yet$/),
      expect.stringMatching(/^Leader: +no; tka-1 holds the lease$/),
      expect.stringMatching(/^Watch on tkasignins: +connected, last message 3s ago$/),
      expect.stringMatching(/^Sign-ins: +2$/),
    ]);
    expect(lines.slice(7)).toEqual([
      expect.stringMatching(/^Certificate: +until 2099-01-01 00:00:00 UTC, in \d+d$/),
      expect.stringMatching(/^API server: +https:\/\/10\.96\.0\.1:443$/),
      expect.stringMatching(/^Tailnet: +tka\.example\.ts\.net in example\.com, 100\.64\.0\.1$/),
      expect.stringMatching(/^Mesh: +57 healthy, 1 dead$/),
      '',
    ]);
    const { holder: _, ...nobody } = status.leader;
    expect(statusText({ ...status, leader: nobody })).toMatch(/^Leader: +no; the lease has no holder$/m);
    expect(statusText({ ...status, leader: { ...status.leader, silentSeconds: 40 } })).toMatch(
      /^Leader: +no; tka-1 holds the lease, last renewed 40s ago$/m,
    );
  });

  test('shows the clusters that have joined, and why none can', () => {
    const counts = { connected: 0, disconnected: 2, suspended: 1, conflict: 0 };
    expect(statusText({ ...status, joinedClusters: counts })).toMatch(
      /^Joined clusters: +0 connected, 2 disconnected, 1 suspended$/m,
    );
    expect(statusText({ ...status, joinedClusters: { ...counts, problem: 'there is no key' } })).toMatch(
      /^Joined clusters: +0 connected, 2 disconnected, 1 suspended; there is no key$/m,
    );
  });

  test('shows members and sign-ins as tables, and cleans their texts', () => {
    const now = Date.parse('2026-11-21T08:00:42Z');
    const other = { ...member, name: 'tka-eu', self: false, left: true, state: 'dead' as const, labels: null };
    const { version: _, ...old } = other;
    expect(membersText({ members: [member, { ...old, cluster: '\u001b[31mevil' }] }, now)).toBe(
      [
        'NAME         STATE     AGE   CLUSTER    SERVER                       VERSION   LABELS',
        'tka (this)   healthy   42s   prod-us    https://tka.example.ts.net   1.2.3     region=us',
        'tka-eu       left      42s   [31mevil   https://tka.example.ts.net   -         -',
        '',
      ].join('\n'),
    );
    const view: SignInsView = {
      signIns: [
        {
          name: 'tka-user-alice',
          login: 'alice@example.com',
          username: 'alice',
          role: 'view',
          state: 'active',
          until: '2026-11-21T09:00:42Z',
          account: 'tka-user-alice',
        },
        { name: 'tka-user-bob', username: 'bob', role: 'edit', state: 'blocked', problem: 'the name is taken' },
        { name: 'tka-user-carol', username: 'carol', role: 'edit', state: 'pending' },
      ],
    };
    expect(signInsText(view, now)).toBe(
      [
        'LOGIN               ROLE   UNTIL                            ACCOUNT          PROBLEM',
        'alice@example.com   view   2026-11-21 09:00:42 UTC, in 1h   tka-user-alice   -',
        'bob                 edit   -                                -                the name is taken',
        'carol               edit   -                                -                pending',
        '',
      ].join('\n'),
    );
    // In a cluster that has joined a login server, also the way in.
    const joined: SignInsView = {
      signIns: [
        { name: 'tka-user-bob', username: 'bob', role: 'edit', state: 'active', login: 'bob@example.com' },
        {
          name: 'tka-login-bob-0f3a',
          username: 'bob',
          role: 'view',
          state: 'active',
          login: 'bob@example.com',
          loginServer: 'eu',
        },
      ],
    };
    expect(signInsText(joined, now)).toBe(
      [
        'LOGIN             LOGIN SERVER   ROLE   UNTIL   ACCOUNT   PROBLEM',
        'bob@example.com   -              edit   -       -         -',
        'bob@example.com   eu             view   -       -         -',
        '',
      ].join('\n'),
    );
  });
});

describe.skipIf(process.platform === 'win32')('the program', () => {
  /** Starts servers with a shared key on separate addresses. */
  async function startedOn(hosts: readonly string[], more: object = {}, env: Readonly<Record<string, string>> = {}) {
    const stack = new AsyncDisposableStack();
    onTestFinished(() => stack.disposeAsync());
    const tailscaled = stack.use(await startTailscaled({ whois: () => alice }));
    const [port, gossipPort] = [await freePort(...hosts), await freePort(...hosts)];
    const servers: TkaServerProcess[] = [];
    const healths: number[] = [];
    for (const [i, host] of hosts.entries()) {
      const health = await freePort(host);
      const config = {
        clusterInfo: { apiEndpoint: `https://api-${i}.example.com:6443` },
        server: { host },
        tailscale: { hostname: `tka-${i}`, port },
        health: { host, port: health },
        gossip: {
          enabled: true,
          port: gossipPort,
          key: 'k'.repeat(32),
          bootstrapPeers: hosts.map((peer) => `${peer}:${gossipPort}`),
          interval: '100ms',
          stalenessThreshold: 5,
          deadThreshold: 10,
        },
        ...more,
      };
      servers.push(stack.use(new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath, ...env })));
      healths.push(health);
    }
    await Promise.all(servers.map((server) => server.said(/listening for the API/)));
    return { servers, port, healths };
  }

  test('gives a hint if no server runs', async () => {
    const { servers } = await startedOn(['127.0.0.1'], { gossip: {} });
    const [server] = servers as [TkaServerProcess];
    server.child.kill('SIGTERM');
    await server.ended;
    for (const command of [['status'], ['members'], ['sign-ins'], ['members', 'drop', 'x'], ['status', '-o', 'json']]) {
      const { status, stdout, stderr } = await server.exec(...command);
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
      expect(stderr).toMatch(
        /^error: tka-server is not running here: socket not found: \/.*\/tka-server-\d+\/admin\.sock\nhint: in a cluster: kubectl exec /,
      );
    }
  });

  test('starts after it was killed, and distinguishes the old socket from one that answers', async () => {
    const folder = testFolder();
    const env = { TKA_ADMIN_SOCKET: path.join(folder, 'own/admin.sock') };
    const { servers } = await startedOn(['127.0.0.1'], { gossip: {} }, env);
    const [server] = servers as [TkaServerProcess];
    expect((await server.exec('status')).status).toBe(0);
    server.child.kill('SIGKILL');
    await server.ended;
    expect(fs.existsSync(env.TKA_ADMIN_SOCKET)).toBe(true);
    const { status, stderr } = await server.exec('status');
    expect(status).toBe(1);
    expect(stderr).toContain(
      `error: tka-server is not running here: no process listens on ${env.TKA_ADMIN_SOCKET}\nhint: `,
    );
    const again = await startedOn(['127.0.0.1'], { gossip: {} }, env);
    expect(await again.servers[0]?.exec('status', '-o', 'json')).toMatchObject({ status: 0, stderr: '' });
  });

  test('shows the status and the sign-ins, which nothing on the network does', async () => {
    const api = new StandInApi();
    await api.start();
    onTestFinished(() => api.stop());
    const now = Date.now();
    const signIn = api.put('tka-user-alice');
    api.items = [
      {
        ...signIn,
        metadata: {
          ...signIn.metadata,
          annotations: { [annotation.login]: 'alice@example.com', [annotation.attempted]: rfc3339(now) },
        },
        status: { provisioned: true, signed_in: rfc3339(now), valid_until: rfc3339(now + 3_600_000) },
      },
    ];
    const { servers, port, healths } = await startedOn(['127.0.0.1'], { gossip: {} }, { KUBECONFIG: api.kubeconfig() });
    const [server] = servers as [TkaServerProcess];
    await api.watched();
    const shown = async (command: string) => JSON.parse((await server.exec(command, '-o', 'json')).stdout);
    // On a slow machine the watch on this silent stand-in may break and restart.
    const soon = { timeout: 60_000 };
    await expect
      .poll(() => shown('sign-ins'), soon)
      .toEqual({
        signIns: [
          {
            name: 'tka-user-alice',
            login: 'alice@example.com',
            username: 'tka-user-alice',
            role: 'view',
            state: 'active',
            until: rfc3339(now + 3_600_000),
          },
        ],
      } satisfies SignInsView);
    expect((await server.exec('sign-ins')).stdout).toMatch(
      /^LOGIN +ROLE +UNTIL +ACCOUNT +PROBLEM\nalice@example\.com +view +\d{4}-.* UTC, in \w+ +- +-\n$/,
    );
    await expect
      .poll(() => shown('status'), soon)
      .toEqual({
        version: expect.any(String),
        commit: expect.any(String),
        server: 'tka-0',
        cluster: 'tka-0',
        startedAt: expect.any(String),
        uptimeSeconds: expect.any(Number),
        ready: true,
        leader: { leading: false },
        watches: ['tkasignins', 'serviceaccounts', 'clusterrolebindings'].map((resource) => ({
          resource,
          connected: resource === 'tkasignins',
          silentSeconds: expect.any(Number),
        })),
        signIns: 1,
        apiServer: api.url,
      });
    expect((await server.exec('status')).stdout).toMatch(/^Mesh: +none$/m);
    const members = await server.exec('members');
    expect(members).toEqual({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/^error: this server is not in a mesh\nhint: set gossip\.enabled: true /),
    });
    for (const route of ['/status', '/members', '/sign-ins']) {
      expect((await ask(`http://127.0.0.1:${port}${route}`)).status).toBe(404);
      expect((await ask(`http://127.0.0.1:${healths[0]}${route}`)).status).toBe(404);
    }
    expect(await server.exec('status', '-o', 'xml')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('json or yaml'),
    });
  });

  // macOS has only 127.0.0.1.
  test.runIf(process.platform === 'linux')('lists the members, and drops only the dead one', async () => {
    const { servers } = await startedOn(['127.0.0.61', '127.0.0.62', '127.0.0.63']);
    const [first, second, third] = servers as [TkaServerProcess, TkaServerProcess, TkaServerProcess];
    const list = async (at: TkaServerProcess) => {
      const { stdout } = await at.exec('members', '-o', 'json');
      return stdout === ''
        ? {}
        : Object.fromEntries((JSON.parse(stdout).members as MemberOverview[]).map((one) => [one.name, one.state]));
    };
    const all = { 'tka-0': 'healthy', 'tka-1': 'healthy', 'tka-2': 'healthy' };
    for (const one of [first, second]) await expect.poll(() => list(one), { timeout: 30_000 }).toEqual(all);
    expect((await first.exec('members')).stdout).toMatch(
      /^NAME +STATE +AGE +CLUSTER +SERVER .*\ntka-0 \(this\) +healthy +\d+s +tka-0 +http:\/\/127\.0\.0\.61:/,
    );
    expect(await first.exec('members', 'drop', 'tka-2')).toEqual({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^error: "tka-2" is (?:healthy|suspected)\nhint: only a dead member can be dropped/,
      ),
    });
    third.child.kill('SIGKILL');
    for (const one of [first, second])
      await expect.poll(async () => (await list(one))['tka-2'], { timeout: 30_000 }).toBe('dead');
    expect(await first.exec('members', 'drop', 'tka-2')).toEqual({ status: 0, stdout: '', stderr: 'dropped tka-2\n' });
    const { 'tka-2': _, ...living } = all;
    expect(await list(first)).toEqual(living);
    expect(await list(second)).toEqual({ ...all, 'tka-2': 'dead' });
    expect(await first.exec('members', 'drop', 'tka-2')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('error: member "tka-2" not found\n'),
    });
    expect((await first.exec('status')).stdout).toMatch(/^Mesh: +2 healthy$/m);
    expect((await second.exec('status')).stdout).toMatch(/^Mesh: +2 healthy, 1 dead$/m);
  });
});
