// `clusters --watch`: its screens under a pseudo-terminal, and its tables where stdout is none.
import { spawnSync } from 'node:child_process';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import type { Mesh } from '../../src/sandbox/mesh.ts';
import { hasPty, needsPty, Pty, type PtyOptions } from '../cli/pty.ts';
import { test as base, type Home, lines, program, until } from '../support.ts';

// With `jobs` it is a job of an interactive shell's kind, which alone gets what Ctrl-C sends.
type Watch = (args?: string, options?: Partial<PtyOptions> & { jobs?: boolean }) => Pty;

const test = base.extend<{ watch: Watch }>({
  watch: async ({ home }, use) => {
    const open: Pty[] = [];
    await use((args = '', { jobs, ...options } = {}) => {
      const words = args.split(' ').filter((word) => word !== '');
      // The helper leaves stdout to a pipe; here it is the terminal too.
      const script = jobs === true ? 'set -m; "$@" >&2' : 'exec "$@" >&2';
      const shell = ['-c', script, 'sh', program, 'clusters', '--watch', ...words];
      const pty = new Pty('/bin/sh', shell, { env: home.env, rows: 24, columns: 100, ...options });
      open.push(pty);
      return pty;
    });
    await Promise.all(open.map((pty) => pty.close()));
  },
});

const stateOf = (pty: Pty, name: string) =>
  pty.screen
    .lines()
    .find((line) => line.startsWith(`${name} `))
    ?.split(/ {3,}/)[1];
const shownNames = (pty: Pty) => pty.screen.lines().map((line) => line.split(' ', 1)[0]);
const isUpToDate = (pty: Pty) => /^\d+ clusters?, as of \d\d:\d\d:\d\d UTC$/.test(pty.screen.lines()[0] ?? '');
const noPosts = (mesh: Mesh) =>
  expect(mesh.clusters.flatMap(({ requests }) => requests).filter(({ method }) => method !== 'GET')).toEqual([]);
const quiet = (screen: Pty['screen']) => [screen.alternate, screen.cursorShown, screen.autowrap, screen.style];

describe.skipIf(!hasPty).concurrent(`on a terminal${needsPty}`, () => {
  test('the list, and a member that stops: dead, and last', async ({ watch, mesh, eu }) => {
    const pty = watch();
    await pty.shows(/staging +healthy/);
    expect(isUpToDate(pty)).toBe(true);
    expect(shownNames(pty).slice(0, 5)).toEqual(['3', 'NAME', 'prod-eu', 'prod-us', 'staging']);
    expect(pty.screen.alternate).toBe(true);
    expect(pty.screen.cursorShown).toBe(false);
    await eu.stop();
    await pty.shows(/prod-eu +dead/);
    expect(shownNames(pty).slice(1, 5)).toEqual(['NAME', 'prod-us', 'staging', 'prod-eu']);
    await eu.start();
    await pty.shows(/prod-eu +healthy/);
    mesh.cluster('staging').gossip.state = 'suspected';
    eu.gossip.listed = false;
    await pty.shows(/staging +suspected/);
    expect(shownNames(pty).slice(1, 5)).toEqual(['NAME', 'prod-us', 'staging', 'prod-eu']);
    expect(stateOf(pty, 'prod-eu')).toBe('missing');
    noPosts(mesh);
  });

  test('--probe: reachable, then not, then again; a slow one delays nobody', async ({ watch, home, mesh, us, eu }) => {
    await home.run('login prod-us');
    for (const cluster of mesh.clusters) cluster.resetCounts();
    const staging = mesh.cluster('staging');
    staging.faults.routes.clusterInfo = { silent: true };
    const pty = watch('--probe', { columns: 160 });
    await pty.shows(/prod-us +healthy +yes +[\d.]+ ms +- +sandbox +alice \(viewer\), \d+m/);
    await pty.shows(/prod-eu +healthy +yes .* signed-out/);
    // Long before the 5 s that the third one gets.
    expect(stateOf(pty, 'staging')).toBe('healthy');
    expect(pty.screen.text()).toMatch(/staging +healthy +\? /);
    await eu.stop();
    await pty.shows(/prod-eu +dead +no \(connection refused\)/);
    await eu.start();
    await pty.shows(/prod-eu +healthy +yes/);
    await pty.shows(/staging +healthy +no \(no answer within 5 s\)/);
    expect(us.counts.clusterInfo).toBeGreaterThan(2);
    noPosts(mesh);
  });

  test('nobody answers: the last good list with a mark and its age; then again', async ({ watch, mesh, us }) => {
    const pty = watch();
    await pty.shows(() => isUpToDate(pty));
    await us.stop();
    // Others know the list too, and the picture says whose it is.
    await pty.shows(/^3 clusters, as of .*\nhttp:\S+ did not answer: this is the list of http/);
    for (const cluster of mesh.clusters) await cluster.stop();
    await pty.shows(
      /^! NOT UP TO DATE: 3 clusters, last answer \d\d:\d\d:\d\d UTC, \d+s ago\nwarning: no TKA server answered/,
    );
    expect(shownNames(pty)).toEqual(expect.arrayContaining(['prod-eu', 'prod-us', 'staging']));
    expect(pty.screen.styled('7')).toHaveLength(1);
    const age = () => Number(/, (\d+)s ago/.exec(pty.screen.text())?.[1]);
    const before = age();
    await pty.shows(() => age() > before);
    for (const cluster of mesh.clusters) await cluster.start();
    await pty.shows(() => isUpToDate(pty) && stateOf(pty, 'prod-eu') === 'healthy');
    expect(pty.screen.styled('7')).toEqual([]);
  });

  test('a server that says no, later: the list stays, with its words', async ({ watch, us }) => {
    const pty = watch('', { columns: 120 });
    await pty.shows(() => isUpToDate(pty));
    us.user = null;
    await pty.shows(/^! NOT UP TO DATE: 3 clusters.*\nerror: .*User not authorized/);
    expect(stateOf(pty, 'prod-eu')).toBe('healthy');
  });

  test('-l applies, and says where nothing matches', async ({ watch, us }) => {
    const pty = watch('-l environment=staging');
    await pty.shows(/^1 cluster, as of/);
    expect(shownNames(pty).slice(1, 4)).toEqual(['NAME', 'staging', undefined].slice(0, 2).concat(['']));
    us.faults.memberlist = { raw: '[]' };
    const other = watch('-l a=b');
    await other.shows(/^0 clusters, as of .*\nno cluster matches the selector$/);
  });

  test('it fits the window, whatever its size', async ({ watch, home, us, eu }) => {
    const many = Array.from({ length: 50 }, (_, i) => ({
      name: `member-${String(i).padStart(2, '0')}`,
      server: eu.server,
      apiEndpoint: `https://api-${i}.example.com`,
      labels: { region: '東京'.repeat(20), note: 'x'.repeat(40) },
      state: i < 45 ? 'healthy' : 'dead',
    }));
    us.faults.memberlist = { raw: JSON.stringify(many) };
    const pty = watch('', { rows: 10, columns: 60 });
    await pty.shows((screen) => screen.lines()[9] === '… and 43 more: 38 healthy, 5 dead');
    const head = pty.screen.lines().slice(1, 3);
    expect(head.map((line) => line.split(' ', 1)[0])).toEqual(['NAME', 'member-00']);
    expect(head[1]).toMatch(/…$/);
    // A picture that was under way when the size changed may scroll; those after it do not.
    const steady = async () => {
      const { scrolled } = pty.screen;
      const stamp = pty.screen.lines()[0];
      await pty.shows((screen) => screen.lines()[0] !== stamp);
      expect(pty.screen.scrolled).toBe(scrolled);
    };
    await steady();
    pty.resize(60, 200);
    const members = (screen: Pty['screen']) => screen.lines().filter((line) => line.startsWith('member-')).length;
    await pty.shows((screen) => members(screen) === 50 && /member-49 +dead/.test(screen.text()));
    expect(pty.screen.text()).not.toMatch(/ more: /);
    pty.resize(4, 20);
    await pty.shows((screen) => screen.lines()[3] === '… and 49 more: 44 …');
    pty.resize(1, 5);
    await pty.shows((screen) => screen.lines()[0] === '50 …');
    pty.resize(3, 30);
    await pty.shows(/… and 50 more/);
    await steady();
    expect(home.cached()).toEqual([]);
  });

  test('nothing that a terminal would obey comes through', async ({ watch, us, eu }) => {
    const evil = '\u001b[31m\u009b2J\u202eevil\r\n\u0007';
    us.faults.memberlist = {
      raw: JSON.stringify([
        { name: evil, apiEndpoint: eu.apiServer, server: eu.server, version: evil, labels: { [evil]: evil } },
      ]),
    };
    eu.faults.routes.clusterInfo = { answer: { status: 500, body: { message: evil } } };
    const pty = watch('--probe', { columns: 200 });
    // The screen itself refuses what it does not know.
    await pty.shows(/error \(HTTP 500\)/);
    expect(pty.raw).not.toMatch(/\u001b\[31m|[\u0080-\u009f\u202e\u0007]/);
    expect(pty.screen.lines().filter((line) => line !== '')).toHaveLength(3);
  });

  test('a first list that cannot be had is an error, on the screen as it was', async ({ watch, us }) => {
    await us.stop();
    const pty = watch();
    expect(await pty.ended).toBe(1);
    expect(pty.screen.text()).toMatch(/^error: cannot reach .*connection refused/);
    expect(pty.raw).not.toContain('\u001b[?1049h');
  });

  test.for<[string, (pty: Pty) => void, number]>([
    ['Ctrl-C', (pty) => pty.type('\x03'), 130],
    ['SIGTERM', (pty) => process.kill(pty.pid, 'SIGTERM'), 143],
    ['a crash', (pty) => process.kill(pty.pid, 'SIGUSR2'), 1],
  ])('%s: the terminal is as before, with the last picture on it', async ([what, end, status], { watch, home, us }) => {
    const crash = path.join(home.root, 'crash.cjs');
    home.write(crash, "process.on('SIGUSR2', () => { throw new Error('boom'); });");
    const pty = watch('--probe', {
      env: { ...home.env, TKA_NODE_OPTIONS: `--require ${JSON.stringify(crash)}` },
      columns: 150,
      jobs: what === 'Ctrl-C',
    });
    await pty.shows(/staging +healthy +yes/);
    // In the middle of a question, too.
    us.faults.routes.memberlist = { silent: true };
    end(pty);
    expect(await pty.ended).toBe(status);
    expect(quiet(pty.screen)).toEqual([false, true, true, '']);
    const { before, after } = pty.settings();
    expect(after).toBe(before);
    expect(pty.screen.text()).toMatch(/^(?:\^C)?3 clusters, as of .*\nNAME .*\nprod-eu .*\nprod-us .*\nstaging .*/);
    if (what === 'a crash') expect(pty.screen.text()).toMatch(/\nerror: unexpected: boom\n/);
  });

  test('Ctrl-Z gives the terminal back meanwhile', async ({ watch, eu }) => {
    const pty = watch();
    await pty.shows(/staging +healthy/);
    process.kill(pty.pid, 'SIGTSTP');
    await pty.shows((screen) => !screen.alternate && screen.cursorShown);
    // As a shell does, which goes on only once its job has stopped.
    const stat = () => spawnSync('ps', ['-o', 'stat=', '-p', String(pty.pid)], { encoding: 'utf8' }).stdout;
    await until('the stop', () => stat().startsWith('T'));
    await eu.stop();
    process.kill(pty.pid, 'SIGCONT');
    await pty.shows((screen) => screen.alternate && /prod-eu +dead/.test(screen.text()));
  });
});

describe.concurrent('without a terminal', () => {
  const watchLog = (home: Home, args = '') => {
    const running = home.start(`clusters --watch ${args}`);
    let text = '';
    running.child.stdout?.on('data', (chunk) => {
      text += chunk;
    });
    return { ...running, text: () => text };
  };
  const bare = (text: string) => lines(text).map((line) => line.split(/ {3,}/).slice(0, 2).join(' '));

  test('a table whenever something has changed, and --- between', async ({ home, mesh, eu }) => {
    const { child, ran, text } = watchLog(home);
    const first = ['NAME STATE', 'prod-eu healthy', 'prod-us healthy', 'staging healthy'];
    await until('a table', () => lines(text()).length === 4);
    expect(bare(text())).toEqual(first);
    // Two more lists of the same bring nothing.
    await mesh.cluster('prod-us').seen('memberlist', 3);
    await eu.stop();
    await until('another', () => lines(text()).length === 9);
    child.kill('SIGINT');
    const { status, stdout, stderr } = await ran;
    expect({ status, stderr }).toEqual({ status: 130, stderr: '' });
    expect(bare(stdout)).toEqual([...first, '---', 'NAME STATE', 'prod-us healthy', 'staging healthy', 'prod-eu dead']);
    expect(stdout).not.toMatch(/\u001b/);
  });

  test('--probe: the first table is whole, and latencies are no change', async ({ home, mesh, us, eu }) => {
    eu.faults.routes.clusterInfo = { latencyMs: 300 };
    const { child, ran, text } = watchLog(home, '--probe');
    await us.seen('memberlist', 3);
    expect(lines(text())).toHaveLength(4);
    expect(text().match(/ yes /g)).toHaveLength(3);
    eu.faults.routes.clusterInfo = { answer: { status: 500 } };
    await until('another', () => lines(text()).length === 9);
    child.kill('SIGTERM');
    const { status, stdout } = await ran;
    expect(status).toBe(143);
    expect(stdout).toMatch(/\n---\nNAME .*\nprod-eu .* error \(HTTP 500\) /);
    noPosts(mesh);
  });

  test('nobody answers: said once on stderr, and the list stays', async ({ home, mesh }) => {
    const { child, ran, text } = watchLog(home);
    await until('a table', () => lines(text()).length === 4);
    for (const cluster of mesh.clusters) await cluster.stop();
    let said = '';
    child.on('said', (all: string) => {
      said = all;
    });
    await until('a warning', () => /no TKA server answered/.test(said));
    for (const cluster of mesh.clusters) {
      cluster.resetCounts();
      await cluster.start();
    }
    await mesh.cluster('prod-us').seen('memberlist', 2);
    child.kill('SIGTERM');
    const { stdout, stderr } = await ran;
    expect(stderr.match(/no TKA server answered/g)).toHaveLength(1);
    expect(lines(stdout).length % 5).toBe(4);
  });

  test('the reader goes: it ends at its next table', async ({ home, eu }) => {
    const { child, ran, text } = watchLog(home);
    await until('a table', () => lines(text()).length === 4);
    child.stdout?.destroy();
    await eu.stop();
    expect(await ran).toMatchObject({ status: 0, stderr: '' });
  });

  test.for(['json', 'yaml', 'name'])('-o %s is no format for it', async (format, { home, us }) => {
    const ran = await home.run(`clusters -w -o ${format}`);
    expect(ran).toMatchObject({ status: 2, stdout: '' });
    expect(ran.stderr).toBe(
      `error: --watch shows tables, and no ${format}\nhint: leave --watch out, or show more with -o wide\n`,
    );
    expect(us.requests).toEqual([]);
  });
});
