// `clusters --watch`: the list once, then its changes, as in `kubectl get --watch`.
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { describe, expect } from 'vitest';
import { parseAllDocuments } from 'yaml';
import type { SandboxMesh } from '../../src/sandbox/mesh.ts';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { lines, program } from '../fixtures/program.ts';
import { hasPty, needsPty, Pty } from '../fixtures/pty.ts';
import { until } from '../fixtures/wait.ts';

const noPosts = (mesh: SandboxMesh) =>
  expect(mesh.clusters.flatMap(({ requests }) => requests).filter(({ method }) => method !== 'GET')).toEqual([]);

/** Starts a watch; `until` waits for a number of lines on stdout, `end` interrupts it. */
function watch(home: Home, args = '') {
  const { child, ran } = home.start(`clusters --watch ${args}`);
  const text = { out: '', said: '' };
  child.stdout?.on('data', (chunk) => {
    text.out += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    text.said += chunk;
  });
  return {
    child,
    ran,
    out: () => text.out,
    said: () => text.said,
    lines: async (count: number) => {
      await until(`${count} lines`, () => lines(text.out).length >= count);
      return lines(text.out);
    },
    end: async () => {
      child.kill('SIGINT');
      return ran;
    },
  };
}

// Without the column CURRENT, which is empty here.
const columns = (line: string, count: number) => line.slice(10).split(/ {3,}/).slice(0, count).join(' ');
const short = (line: string) => columns(line, 2);
const started = ['NAME STATE', 'prod-eu healthy', 'prod-us healthy', 'staging healthy'];

describe.concurrent('clusters --watch', () => {
  test('prints the list once, then a line for each change', async ({ home, mesh, us, eu }) => {
    const watching = watch(home);
    await watching.lines(4);
    // Further unchanged lists print nothing.
    await us.seen('memberlist', 3);
    await eu.stop();
    await watching.lines(5);
    await eu.start();
    await watching.lines(6);
    mesh.cluster('staging').gossip.state = 'suspected';
    await watching.lines(7);
    eu.gossip.listed = false;
    await watching.lines(8);
    const { status, stdout, stderr } = await watching.end();
    expect({ status, stderr }).toEqual({ status: 130, stderr: '' });
    expect(lines(stdout).map(short)).toEqual([
      ...started,
      'prod-eu dead',
      'prod-eu healthy',
      'staging suspected',
      'prod-eu missing',
    ]);
    expect(stdout).not.toMatch(/\u001b|---/);
    noPosts(mesh);
  });

  test('shows a new session and a new context as changes, but not passing time', async ({ home, us }) => {
    const watching = watch(home);
    await watching.lines(4);
    await home.run('login prod-us');
    await until('the session', () => /^\* +prod-us .*prod-us +alice \(viewer\), /m.test(watching.out()));
    us.resetCounts();
    await us.seen('memberlist', 3);
    const count = lines(watching.out()).length;
    await us.seen('memberlist', 5);
    expect(lines(watching.out())).toHaveLength(count);
    await home.run('logout prod-us');
    await watching.lines(count + 1);
    expect(lines(watching.out()).at(-1)).toMatch(/^\* +prod-us +healthy +prod-us +- /);
    await watching.end();
  });

  test('aligns later lines with the list; a longer cell widens its column permanently', async ({ home, us, eu }) => {
    const member = (name: string, state: string) => ({
      ...{ name, state, server: eu.server, apiEndpoint: eu.apiServer, labels: { a: 'b' } },
    });
    us.faults.memberlist = { raw: JSON.stringify([member('short', 'healthy')]) };
    const watching = watch(home);
    await watching.lines(2);
    us.faults.memberlist = { raw: JSON.stringify([member('short', 'suspected')]) };
    await watching.lines(3);
    us.faults.memberlist = { raw: JSON.stringify([member('short', 'healthy')]) };
    const out = await watching.lines(4);
    const column = (line = '') => line.search(/a=b|LABELS/);
    expect(column(out[1])).toBe(column(out[0]));
    expect(column(out[2])).toBe(column(out[0]) + 'suspected'.length - 'healthy'.length);
    expect(column(out[3])).toBe(column(out[2]));
    await watching.end();
  });

  test('-l prints only matching clusters, and the headings with the first of them', async ({ home, mesh }) => {
    const staging = mesh.cluster('staging');
    staging.gossip.listed = false;
    const watching = watch(home, '-l environment=staging');
    await until('the notice', () => watching.said() === 'no cluster matches the selector\n');
    expect(watching.out()).toBe('');
    staging.gossip.listed = true;
    expect((await watching.lines(2)).map(short)).toEqual(['NAME STATE', 'staging healthy']);
    expect(await watching.end()).toMatchObject({ status: 130, stderr: 'no cluster matches the selector\n' });
  });

  test('-o wide has all columns', async ({ home, eu }) => {
    const watching = watch(home, '-o wide');
    expect((await watching.lines(4))[0]).toMatch(/ LABELS +SERVERS +TKA SERVER +API ENDPOINT +LAST SEEN +THROUGH$/);
    await eu.stop();
    expect((await watching.lines(5))[4]).toContain(eu.apiServer);
    await watching.end();
  });

  test('-o json prints a document for each cluster, then one for each change', async ({ home, eu }) => {
    const watching = watch(home, '-o json');
    const documents = () => watching.out().split(/(?<=^\}\n)/m);
    await until('three documents', () => documents().length === 3);
    await eu.stop();
    await until('a fourth', () => documents().length === 4);
    const read = documents().map((text) => JSON.parse(text));
    expect(read.map(({ name, state }) => `${name} ${state}`)).toEqual([...started.slice(1), 'prod-eu dead']);
    const { name, server, apiEndpoint, labels } = read[3];
    expect({ name, server, apiEndpoint, labels }).toMatchObject({ name: 'prod-eu', server: eu.server });
    expect(await watching.end()).toMatchObject({ status: 130, stderr: '' });
  });

  test('-o yaml prints the same, with --- between', async ({ home, eu }) => {
    const watching = watch(home, '-o yaml');
    const documents = () => parseAllDocuments(watching.out()).map((document) => document.toJS());
    await until('three documents', () => documents().length === 3 && documents()[2]?.session === null);
    await eu.stop();
    await until('a fourth', () => documents().length === 4 && documents()[3]?.session === null);
    expect(documents().map(({ name, state }) => `${name} ${state}`)).toEqual([...started.slice(1), 'prod-eu dead']);
    expect(watching.out()).not.toMatch(/^---/);
    await watching.end();
  });

  test('-o name prints a name for each change', async ({ home, eu }) => {
    const watching = watch(home, '-o name --probe');
    await watching.lines(3);
    await eu.stop();
    expect(await watching.lines(4)).toEqual(['prod-eu', 'prod-us', 'staging', 'prod-eu']);
    expect(eu.counts.clusterInfo).toBe(0);
    await watching.end();
  });

  test('--probe keeps state and reachability consistent; a slow server delays no other', async ({
    home,
    mesh,
    us,
    eu,
  }) => {
    const staging = mesh.cluster('staging');
    eu.faults.routes.clusterInfo = { latencyMs: 300 };
    const watching = watch(home, '--probe');
    expect((await watching.lines(4)).map((line) => columns(line, 3))).toEqual([
      'NAME STATE REACHABLE',
      'prod-eu healthy yes',
      'prod-us healthy yes',
      'staging healthy yes',
    ]);
    // A different latency is not a change.
    delete eu.faults.routes.clusterInfo;
    await us.seen('memberlist', 3);
    expect(lines(watching.out())).toHaveLength(4);
    staging.faults.routes.clusterInfo = { silent: true };
    await until('silence', () => /^ +staging +suspected +no \(no answer within 5 s\)/m.test(watching.out()));
    await eu.stop();
    await until('a stop', () => /^ +prod-eu +dead +no \(connection refused\)/m.test(watching.out()));
    const before = watching.out().length;
    await eu.start();
    await until('a start', () => /^ +prod-eu +healthy +yes/m.test(watching.out().slice(before)));
    // The list is wrong about two servers in different ways.
    staging.gossip.state = 'dead';
    eu.gossip.state = 'dead';
    await until('the list', () => /^ +staging +dead +no/m.test(watching.out().slice(before)));
    eu.faults.routes.clusterInfo = { answer: { status: 500 } };
    await until('an error', () => /^ +prod-eu +suspected +error \(HTTP 500\)/m.test(watching.out()));
    const { stdout } = await watching.end();
    expect(stdout).not.toMatch(/^ +\S+ +healthy +no\b|^ +\S+ +(?:dead|suspected) +yes\b/m);
    noPosts(mesh);
  });

  test('a cluster of two servers needs only one of them, and -o wide shows how many are up', async ({
    home,
    us,
    eu,
  }) => {
    const closed = net.createServer().listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as AddressInfo;
    closed.close();
    const list = (first: string, second: string) => {
      const about = { cluster: 'prod-eu', apiEndpoint: eu.apiServer };
      const servers = [
        { ...about, name: 'prod-eu', server: `http://127.0.0.1:${port}`, state: first },
        { ...about, name: 'prod-eu-1', server: eu.server, state: second },
      ];
      return { raw: JSON.stringify(servers) };
    };
    us.faults.memberlist = list('healthy', 'healthy');
    const [probing, table, wide] = [watch(home, '--probe'), watch(home), watch(home, '-o wide')];
    expect((await probing.lines(2))[1]).toMatch(/^ +prod-eu +healthy +yes +[\d.]+ ms/);
    expect((await wide.lines(2))[1]).toMatch(/^ +prod-eu +healthy .* 2\/2 /);
    await table.lines(2);
    us.faults.memberlist = list('dead', 'healthy');
    expect((await wide.lines(3))[2]).toMatch(/^ +prod-eu +healthy .* 1\/2 /);
    us.faults.memberlist = list('dead', 'dead');
    await table.lines(3);
    expect((await wide.lines(4))[3]).toMatch(/^ +prod-eu +dead .* 0\/2 /);
    us.faults.memberlist = list('dead', 'healthy');
    await wide.lines(5);
    await table.lines(4);
    await eu.stop();
    await until('no server', () => /^ +prod-eu +suspected +no \(connection refused\)/m.test(probing.out()));
    // What the table does not show is not a change.
    expect(lines((await table.end()).stdout).map(short)).toEqual([
      ...['NAME STATE', 'prod-eu healthy', 'prod-eu dead', 'prod-eu healthy'],
    ]);
    await Promise.all([probing.end(), wide.end()]);
  });

  test('keeps the list while no server answers, with one warning, and continues later', async ({ home, mesh, eu }) => {
    const watching = watch(home);
    await watching.lines(4);
    for (const cluster of mesh.clusters) await cluster.stop();
    await until('a warning', () => /no TKA server answered/.test(watching.said()));
    for (const cluster of mesh.clusters) {
      cluster.resetCounts();
      await cluster.start();
    }
    await until('an end of it', () => /the list is up to date again/.test(watching.said()));
    expect(lines(watching.out()).map(short)).toEqual(expect.arrayContaining(started));
    const count = lines(watching.out()).length;
    await eu.stop();
    await until('a change', () => /^ +prod-eu +dead/m.test(lines(watching.out()).slice(count).join('\n')));
    const { stdout, stderr } = await watching.end();
    expect(stderr.match(/no TKA server answered/g)).toHaveLength(1);
    expect(stdout.match(/^CURRENT +NAME /gm)).toHaveLength(1);
  });

  test('keeps the list if a server refuses later, and prints its message once', async ({ home, us }) => {
    const watching = watch(home);
    await watching.lines(4);
    us.user = null;
    await until('its words', () => /^warning: .*no grant for /m.test(watching.said()));
    us.resetCounts();
    await us.seen('memberlist', 2);
    const { stdout, stderr } = await watching.end();
    expect(lines(stdout)).toHaveLength(4);
    expect(lines(stderr)).toHaveLength(1);
  });

  test('fails if there is no first list', async ({ home, us }) => {
    await us.stop();
    const ran = await home.run('clusters --watch');
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^error: cannot reach .*connection refused/);
  });

  test('exits with 143 on SIGTERM', async ({ home }) => {
    const watching = watch(home);
    await watching.lines(4);
    watching.child.kill('SIGTERM');
    expect(await watching.ran).toMatchObject({ status: 143, stderr: '' });
  });

  test('ends at the next change if its reader closes the pipe', async ({ home, eu }) => {
    const watching = watch(home);
    await watching.lines(4);
    watching.child.stdout?.destroy();
    await eu.stop();
    expect(await watching.ran).toMatchObject({ status: 0, stderr: '' });
  });

  test('prints nothing that a terminal would obey', async ({ home, us, eu }) => {
    const evil = '\u001b[31m\u009b2J\u202eevil\r\n\u0007';
    us.faults.memberlist = {
      raw: JSON.stringify([
        { name: evil, apiEndpoint: eu.apiServer, server: eu.server, version: evil, labels: { [evil]: evil } },
      ]),
    };
    eu.faults.routes.clusterInfo = { answer: { status: 500, body: { message: evil } } };
    for (const args of ['--probe', '-o name', '-o json', '-o yaml']) {
      const watching = watch(home, args);
      await until('an answer', () => watching.out() !== '');
      const { stdout } = await watching.end();
      expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    }
  });
});

describe.skipIf(!hasPty).concurrent(`on a terminal${needsPty}`, () => {
  // The helper leaves stdout to a pipe; here it is the terminal too. Only a job like that of an interactive shell gets
  // the signal of Ctrl-C.
  const onTerminal = ({ env }: Home, args: readonly string[] = []) =>
    new Pty('/bin/sh', ['-c', 'set -m; "$@" >&2', 'sh', program, 'clusters', '--watch', ...args], {
      ...{ env, rows: 24, columns: 150 },
    });

  test('prints the same lines in colour, without other control sequences, and exits with 130 on Ctrl-C', async ({
    home,
    us,
    eu,
  }) => {
    const pty = onTerminal(home, ['--probe']);
    try {
      await pty.shows(/staging +healthy +yes/);
      await eu.stop();
      await pty.shows(/staging .*\n(?: +prod-eu .*\n)* +prod-eu +dead +no/);
      // Also in the middle of a request.
      us.faults.routes.memberlist = { silent: true };
      pty.type('\x03');
      expect(await pty.ended).toBe(130);
      expect(pty.raw).toContain('\u001b[31mdead\u001b[39m');
      expect(pty.raw.replace(/\u001b\[\d+m/g, '')).not.toContain('\u001b');
      const { before, after } = pty.settings();
      expect(after).toBe(before);
    } finally {
      await pty.close();
    }
  });
});
