// SIGKILL at any moment: files are whole, no token outlives the next call outside its entry, and the next call works.
// Over 200 kills, more than 50 of them between taking the lock and the rename.
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { readEntry } from '../../src/credential/entry.ts';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { hooked, jwt, launched, type Ran, type Running } from '../fixtures/program.ts';
import { gate, until } from '../fixtures/wait.ts';

const theirs = `# somebody's own
apiVersion: v1
kind: Config
current-context: work
contexts:
- context: {cluster: work, user: me}   # at work
  name: work
clusters: [{name: work, cluster: {server: "https://work.example.com"}}]
users: [{name: me, user: {token: "not-ours"}}]
`;

// Twice the limit of the requirement, or more on a busy machine.
const allowed = 5000;
const slack = () => 5000 * Math.max(1, (os.loadavg()[0] ?? 0) / os.availableParallelism() / 4);
const nexts: number[] = [];
let kills = 0;
let betweenLockAndRename = 0;

interface Scene {
  readonly mesh: SandboxMesh;
  readonly home: Home;
  readonly us: SandboxCluster;
}
type Before = 'nothing' | 'a stale token' | 'a fresh token';

async function scene(before: Before): Promise<Scene & AsyncDisposable> {
  const mesh = await startMesh();
  const us = mesh.cluster('prod-us');
  const home = new Home(us.server);
  home.write(home.kubeconfig, theirs);
  if (before !== 'nothing') {
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
    if (before === 'a stale token') fs.utimesSync(home.entry(us), 1, 1);
  }
  us.resetCounts();
  return {
    mesh,
    home,
    us,
    [Symbol.asyncDispose]: async () => {
      await mesh.close();
      home.remove();
    },
  };
}

const calls = {
  login: ['login', 'prod-us'],
  credential: (us: SandboxCluster) => ['credential', '--server', us.server, '--api-server', us.apiServer],
};
type Call = keyof typeof calls;
const argsOf = (call: Call, us: SandboxCluster) => (call === 'login' ? calls.login : calls.credential(us));

/** Kills a program; returns false if it had already ended. */
async function kill({ child, ran }: Running): Promise<boolean> {
  child.kill('SIGKILL');
  const landed = (await ran).signal === 'SIGKILL';
  if (landed) kills++;
  return landed;
}

/**
 * Checks that the kubeconfig is whole and has the lines of others, that the entry is whole or absent, and that nothing
 * else has changed.
 */
async function expectWhole({ home, us }: Scene, untouched: Record<string, string>): Promise<void> {
  const text = fs.readFileSync(home.kubeconfig, 'utf8');
  for (const line of theirs.split('\n').filter((l) => !l.startsWith('current-context'))) {
    // A section on one line grows within it.
    expect(text).toContain(line.replace(/\]$/, ''));
  }
  expect(parse(text).contexts[0].name).toBe('work');
  if (fs.existsSync(home.entry(us))) expect(readEntry(home.cache, us.server)).toBeDefined();
  expect(home.files(/^\.(?:cache|kube|local)/)).toEqual(untouched);
  if (kubectl !== undefined) {
    expect(await home.kubectl('config get-contexts work -o name')).toMatchObject({ stdout: 'work\n', stderr: '' });
  }
}

function inTime(ran: Ran): Ran {
  nexts.push(ran.took);
  expect(ran.took).toBeLessThan(allowed + slack());
  return ran;
}

/**
 * Checks that only the entry contains a token, and that there is no temporary file and no lock other than `mayStay`.
 */
function expectTidy({ home, us }: Scene, mayStay?: string): void {
  const files = home.files();
  const entry = path.relative(home.dir, home.entry(us));
  const withToken = Object.entries(files).filter(([, text]) => jwt.test(text));
  expect(withToken.map(([name]) => name)).toEqual([entry]);
  const left = Object.keys(files).filter((name) => /\+lock|\+tmp|\.lock|\.tmp/.test(name));
  expect(left.filter((name) => mayStay === undefined || !name.includes(mayStay))).toEqual([]);
}

async function afterwards(
  where: Scene,
  untouched: Record<string, string>,
  next: Call,
  mayStay?: string,
): Promise<void> {
  const { home, us } = where;
  await expectWhole(where, untouched);
  const ran = inTime(await (next === 'login' ? home.run('login prod-us') : home.credential(us)));
  expect(ran).toMatchObject({ status: 0, stderr: '' });
  expectTidy(where, mayStay);
  if (next === 'login') expect(parse(fs.readFileSync(home.kubeconfig, 'utf8'))['current-context']).toBe('prod-us');
  if (next === 'login') expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
}

/** Runs `act` for all items, a few at a time. */
async function several<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await act(item);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}
const repeat = <T>(count: number, ...items: T[]): T[] => Array.from({ length: count }, () => items).flat();

const timeout = 180_000;

describe('killed', { timeout }, () => {
  test('while it holds the lock and waits for the server', async () => {
    const moments = repeat<[Call, Before, 'login' | 'kubeconfig']>(
      2,
      ['login', 'nothing', 'login'],
      ['login', 'nothing', 'kubeconfig'],
      ['login', 'a fresh token', 'kubeconfig'],
      ['credential', 'nothing', 'login'],
      ['credential', 'nothing', 'kubeconfig'],
      ['credential', 'a stale token', 'kubeconfig'],
    );
    await several(moments, async ([call, before, route]) => {
      await using where = await scene(before);
      const { home, us } = where;
      const { shut, open } = gate();
      us.faults.routes[route] = { hold: shut, times: 1 };
      const untouched = home.files(/^\.(?:cache|kube|local)/);
      const running = home.start(argsOf(call, us));
      await us.seen(route);
      expect(fs.existsSync(home.entry(us, '+lock'))).toBe(true);
      expect(await kill(running)).toBe(true);
      betweenLockAndRename++;
      open();
      await afterwards(where, untouched, call);
    });
  });

  test.skipIf(!launched)('at each step of writing the entry (skipped if the program is one executable)', async () => {
    const points = ['temporary file made', 'half-written', 'written', 'dated', 'synced', 'before its rename'];
    const moments = points.flatMap((point) =>
      repeat<[string, Call, Before]>(
        2,
        [point, 'login', 'nothing'],
        [point, 'login', 'a fresh token'],
        [point, 'credential', 'nothing'],
        [point, 'credential', 'a stale token'],
      ),
    );
    await several(
      [
        ...moments,
        ...repeat<[string, Call, Before]>(
          2,
          ['after its rename', 'login', 'nothing'],
          ['after its rename', 'credential', 'nothing'],
        ),
      ],
      async ([point, call, before]) => {
        await using where = await scene(before);
        const { home, us } = where;
        const untouched = home.files(/^\.(?:cache|kube|local)/);
        const mark = path.join(home.root, 'mark');
        const running = home.start(argsOf(call, us), { env: hooked('stop', `entry: ${point}`, mark) });
        await until(`${call} at ${point}`, () => fs.existsSync(mark));
        expect(fs.existsSync(home.entry(us, '+lock'))).toBe(true);
        expect(await kill(running)).toBe(true);
        if (point !== 'after its rename') betweenLockAndRename++;
        // A cached answer checks no lock: an abandoned one does no harm, and is removed by the next sign-in.
        const cached = call === 'credential' && point === 'after its rename';
        await afterwards(where, untouched, call, cached ? '+lock/' : undefined);
      },
    );
  });

  test.skipIf(!launched)(
    'at each step of writing the kubeconfig (skipped if the program is one executable)',
    async () => {
      const moments = repeat(3, 'locked', 'half-written', 'synced', 'before its rename', 'after its rename');
      await several(moments, async (point) => {
        await using where = await scene('nothing');
        const { home, us } = where;
        const untouched = home.files(/^\.(?:cache|kube|local)/);
        const mark = path.join(home.root, 'mark');
        const running = home.start(argsOf('login', us), { env: hooked('stop', `kubeconfig: ${point}`, mark) });
        await until(`login at ${point}`, () => fs.existsSync(mark));
        expect(fs.existsSync(`${home.kubeconfig}.lock`)).toBe(true);
        expect(await kill(running)).toBe(true);
        // When everything is written there is nothing to change: then only a lock that is old enough is removed.
        const last = point === 'after its rename';
        await afterwards(where, untouched, 'login', last ? 'config.lock/' : undefined);
        if (last && fs.existsSync(`${home.kubeconfig}.lock`)) {
          fs.utimesSync(`${home.kubeconfig}.lock`, 1, 1);
          expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
        }
        expect(fs.existsSync(`${home.kubeconfig}.lock`)).toBe(false);
      });
    },
  );

  test('at any moment, several at once', async () => {
    const wanted = 205 - kills;
    let landed = 0;
    const befores: Before[] = ['nothing', 'a stale token', 'a fresh token'];
    // The time of a call while so many others run.
    let typical = 300;
    await several(
      Array.from({ length: 120 }, (_, i) => i),
      async (i) => {
        if (landed >= wanted) return;
        await using where = await scene(befores[i % 3] ?? 'nothing');
        const { home, us } = where;
        const untouched = home.files(/^\.(?:cache|kube|local)/);
        const all = Array.from({ length: 5 }, async (_, n) => {
          const running = home.start(argsOf(n % 2 === 0 ? 'login' : 'credential', us));
          await delay(Math.random() * typical);
          if (await kill(running)) landed++;
          else typical = (typical + (await running.ran).took) / 2;
        });
        await Promise.all(all);
        await expectWhole(where, untouched);
        const next = inTime(await home.credential(us));
        expect(next).toMatchObject({ status: 0, stderr: '' });
        // A login killed beside a fresh entry leaves files that only the next holder of the lock may remove.
        expect(inTime(await home.run('login prod-us'))).toMatchObject({ status: 0, stderr: '' });
        expectTidy(where);
      },
    );
    expect(landed).toBeGreaterThanOrEqual(wanted);
  });

  test('more than 200 times in all, more than 50 of them between lock and rename', () => {
    const sorted = nexts.toSorted((a, b) => a - b);
    const [median = 0, most = 0] = [sorted[sorted.length >> 1], sorted.at(-1)];
    console.log(
      `${kills} kills, ${betweenLockAndRename} between lock and rename; the next call: median ${median.toFixed(0)} ms, longest ${most.toFixed(0)} ms`,
    );
    expect(kills).toBeGreaterThanOrEqual(200);
    if (launched) expect(betweenLockAndRename).toBeGreaterThanOrEqual(50);
  });
});
