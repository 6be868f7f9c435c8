// The lock of an entry when processes are killed, stopped, starved, or in another container.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { EntryLock } from '../../src/session/lock.ts';
import { LockWaiter, withLock } from '../../src/session/lock.ts';
import { SessionStore } from '../../src/session/store.ts';
import { testFolder } from '../fixtures/temporary.ts';

const server = 'https://tka.example.ts.net';
const source = (file: string) => path.join(import.meta.dirname, '../../src', file);
const children: ChildProcess[] = [];
let folder: string;
let entry: string;
let store: SessionStore;

beforeEach(() => {
  folder = testFolder();
  store = new SessionStore({ cache: folder, state: path.join(folder, 'state') });
  entry = store.entryFile(server) ?? '';
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
});

const session = (token: string) => ({
  server,
  apiServer: 'https://127.0.0.1:6443',
  expirationTimestamp: '2099-01-01T00:00:00Z',
  token: `a.${token}.c`,
  freshUntil: Math.floor(Date.now() / 1000) + 3600,
  username: 'alice',
  role: 'viewer',
  until: '2099-01-01T00:00:00Z',
  clockOffset: 0,
  caData: '',
  insecureSkipTlsVerify: false,
});

/**
 * Starts a process that runs a script with `lock`, `store`, `entry`, `session`, `say` and `hear`; returns what it
 * prints, line by line.
 */
function start(script: string) {
  const all = `
    import { setTimeout as delay } from 'node:timers/promises';
    import * as fs from 'node:fs';
    const [lockModule, storeModule, filesModule, folder, server, given] = process.argv.slice(1);
    const { LockWaiter, withLock } = await import(lockModule);
    const { SessionStore } = await import(storeModule);
    const { writeFileAtomic } = await import(filesModule);
    const store = new SessionStore({ cache: folder, state: folder + '/state' });
    const entry = store.entryFile(server);
    const session = JSON.parse(given);
    const say = (line) => fs.writeSync(1, line + '\\n');
    const hear = () => new Promise((done) => process.stdin.once('data', done));
    const attempt = (act) => { try { act(); say('done'); } catch (error) { say(error.name); } };
    ${script}
    process.exit();`;
  const given = JSON.stringify(session('theirs'));
  const modules = ['session/lock.ts', 'session/store.ts', 'util/files.ts'].map(source);
  const child = spawn(process.execPath, ['--input-type=module', '-e', all, ...modules, folder, server, given], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  const lines: AsyncIterator<string> = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    hear: async () => (await lines.next()).value as string,
    rest: async () => {
      const all: string[] = [];
      for (let next = await lines.next(); next.done !== true; next = await lines.next()) all.push(next.value);
      return all;
    },
  };
}

/** Returns the milliseconds until the lock is acquired; undefined after `within` ms without it. */
async function taken(within: number, act: () => void = () => {}): Promise<number | undefined> {
  const started = performance.now();
  const walk = {
    deadline: () => started + within,
    act: async (lock: EntryLock | undefined) => {
      if (lock === undefined) throw new Error('no lock could be kept');
      store.write(session('ours'), lock);
      act();
      return performance.now() - started;
    },
    late: () => undefined,
  };
  return withLock<number | undefined>(entry, walk, () => {});
}
const locks = () => fs.readdirSync(folder).filter((name) => /\+lock|\+tmp/.test(name));

describe('the lock of an entry', () => {
  it('has one holder at a time, and leaves no files', async () => {
    const [one, other] = [new LockWaiter(entry), new LockWaiter(entry)];
    const lock = one.try();
    if (lock === 'held') throw new Error('nobody else has it');
    expect(other.try()).toBe('held');
    expect(lock.held()).toBe(true);
    lock.release();
    expect(lock.held()).toBe(false);
    const next = other.try();
    expect(next).not.toBe('held');
    if (next !== 'held') next.release();
    expect(locks()).toEqual([]);
  });

  it('is taken at once from a killed process', async () => {
    const holder = start(`say(new LockWaiter(entry).try() === 'held' ? 'held' : 'locked'); await hear();`);
    expect(await holder.hear()).toBe('locked');
    holder.child.kill('SIGKILL');
    await once(holder.child, 'exit');
    expect(await taken(30_000)).toBeLessThan(2000);
    expect(locks()).toEqual([]);
  });

  it('is lost by a stopped process, which then changes nothing', { timeout: 30_000 }, async () => {
    const holder = start(`
      const lock = new LockWaiter(entry).try();
      say(lock === 'held' ? 'held' : 'locked');
      await hear();
      say(String(lock.held()));
      attempt(() => store.write(session, lock));
      attempt(() => store.remove(session.server, lock));
      store.failures.write(session.server, { at: Date.now(), message: 'x', hints: [] }, lock);
      lock.release();`);
    expect(await holder.hear()).toBe('locked');
    holder.child.kill('SIGSTOP');
    const took = await taken(25_000, () => {
      // While the next holder still has it.
      holder.child.kill('SIGCONT');
      holder.child.stdin?.write('go\n');
    });
    expect(took).toBeGreaterThan(2000);
    expect(took).toBeLessThan(15_000);
    expect(await holder.rest()).toEqual(['false', 'LostLock', 'LostLock']);
    expect(store.read(server)?.token).toBe(session('ours').token);
    expect(fs.readdirSync(folder)).toEqual([path.basename(entry)]);
  });

  it('stays with a process whose heartbeat is only late', { timeout: 30_000 }, async () => {
    const holder = start(`
      const lock = new LockWaiter(entry).try();
      say('locked');
      // As on a machine that has no time for it.
      for (const end = performance.now() + 5000; performance.now() < end; );
      say(String(lock.held()));
      store.write(session, lock);
      lock.release();
      say('released');`);
    expect(await holder.hear()).toBe('locked');
    expect(await taken(4000)).toBeUndefined();
    expect(await holder.hear()).toBe('true');
    expect(await holder.hear()).toBe('released');
    expect(store.read(server)?.token).toBe(session('theirs').token);
  });

  it('of another container or machine is judged by its heartbeat only', { timeout: 30_000 }, async () => {
    const name = '0123456789ab';
    const owner = path.join(`${entry}+lock`, name, 'owner');
    fs.mkdirSync(path.dirname(owner), { recursive: true });
    // No process here has this ID, and its clock is an hour ahead.
    fs.writeFileSync(owner, JSON.stringify({ space: 'other', pid: 2 ** 23, start: '1' }));
    let at = Date.now() / 1000 + 3600;
    const beat = setInterval(() => fs.utimesSync(owner, ++at, at), 300);
    try {
      expect(await taken(5000)).toBeUndefined();
    } finally {
      clearInterval(beat);
    }
    const took = await taken(20_000);
    expect(took).toBeGreaterThan(2000);
    expect(locks()).toEqual([]);
  });

  it('of 0.1.0, an empty folder, is held as long as it is touched', { timeout: 20_000 }, async () => {
    fs.mkdirSync(`${entry}+lock`);
    const touch = () => fs.utimesSync(`${entry}+lock`, new Date(), new Date());
    const beat = setInterval(touch, 500);
    try {
      expect(await taken(4500)).toBeUndefined();
    } finally {
      clearInterval(beat);
    }
    expect(await taken(15_000)).toBeGreaterThan(1000);
  });

  it('loses no change while its holders are stopped and continued at random', { timeout: 120_000 }, async () => {
    const counter = path.join(folder, 'counter');
    fs.writeFileSync(counter, '0');
    const rounds = 8;
    const all = Array.from({ length: 8 }, () =>
      start(`
        const counter = folder + '/counter';
        for (let i = 0; i < ${rounds}; i++) {
          await withLock(entry, {
            deadline: () => Infinity,
            late: () => {},
            act: async (lock) => {
              const before = Number(fs.readFileSync(counter, 'utf8'));
              await delay(20);
              attempt(() => writeFileAtomic(counter, String(before + 1), { within: lock.folder }));
            },
          }, (why) => say('unlockable: ' + why));
          await delay(5);
        }`),
    );
    const done = Promise.all(all.map(({ rest }) => rest()));
    let over = false;
    done.finally(() => {
      over = true;
    });
    // Longer than the wait for a stopped holder, again and again.
    for (let i = 0; !over && i < 6; i++) {
      const some = all.filter(() => Math.random() < 0.4);
      for (const { child } of some) child.kill('SIGSTOP');
      await delay(3400);
      for (const { child } of some) child.kill('SIGCONT');
      await delay(100);
    }
    const said = (await done).flat();
    expect(said.filter((line) => line.startsWith('unlockable'))).toEqual([]);
    expect(said).toHaveLength(all.length * rounds);
    // A holder that could not write had lost the lock.
    expect(Number(fs.readFileSync(counter, 'utf8'))).toBe(said.filter((line) => line === 'done').length);
    expect(said.filter((line) => line !== 'done').length).toBeLessThan(8 * 6);
    expect(locks()).toEqual([]);
  });
});
