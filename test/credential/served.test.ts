// The note of the callers that an entry was served to, and of the last check of its token at the API server.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fsItself, * as fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import * as path from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { entryName, readEntry } from '../../src/credential/entry.ts';
import { asksAgain, callerOf, startTime, wasChecked, writeChecked, writeServed } from '../../src/credential/served.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { server } from './cases.ts';

const folder = fileFolder();
const file = path.join(folder, `${entryName(server)}+served`);
const checked = path.join(folder, `${entryName(server)}+checked`);
beforeEach(() => {
  fs.rmSync(folder, { recursive: true });
  fs.mkdirSync(folder, { mode: 0o700 });
});
const linux = process.platform === 'linux';
/** IDs that no process has. */
const gone = (n: number) => 2 ** 23 + n;
const again = (pid: number, now = Date.now()) => asksAgain(folder, server, pid, now);
const put = (text: string, ago = 0) => {
  fs.writeFileSync(file, text);
  const at = Date.now() / 1000 - ago;
  fs.utimesSync(file, at, at);
};

describe('a caller that asks again', () => {
  it('is one of the last four callers', () => {
    expect(again(gone(1))).toBe(false);
    for (const n of [1, 2, 3, 4]) writeServed(folder, server, gone(n));
    for (const n of [1, 2, 3, 4]) expect(again(gone(n))).toBe(true);
    writeServed(folder, server, gone(4));
    expect(again(gone(1))).toBe(true);
    writeServed(folder, server, gone(5));
    expect(again(gone(1))).toBe(false);
    expect(again(gone(2))).toBe(true);
    expect(fs.statSync(file).mode & 0o777).toBe(0o600);
  });

  it('is forgotten after an hour', () => {
    writeServed(folder, server, gone(1));
    expect(again(gone(1), Date.now() + 60_000)).toBe(true);
    expect(again(gone(1), Date.now() + 3_600_000)).toBe(false);
    expect(again(gone(1), Date.now() - 3_600_000)).toBe(false);
  });

  it.skipIf(!linux)('differs from an earlier process with the same ID by its start time', () => {
    put(`${process.pid}:1 - - -\n`);
    expect(again(process.pid)).toBe(false);
    writeServed(folder, server, process.pid);
    expect(fs.readFileSync(file, 'utf8')).toBe(`${callerOf(process.pid)} - - -\n`);
    expect(again(process.pid)).toBe(true);
  });

  it.skipIf(!linux)('is another process if it is younger than a note without a start time', async () => {
    const child = spawn('sleep', ['60']);
    try {
      await once(child, 'spawn');
      const pid = child.pid ?? 0;
      put(`${pid} - - -\n`, 30);
      expect(again(pid)).toBe(false);
      // This process is older than that.
      put(`${process.pid} - - -\n`);
      expect(again(process.pid)).toBe(true);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it.skipIf(!linux).each<[name: string, uptime: (text: string) => string, again: boolean]>([
    [
      'the same process if /proc/uptime differs from the system’s (lxcfs)',
      (text) => `${Number.parseFloat(text) - 1e6}`,
      true,
    ],
    [
      'another process although this one is paused while it reads the clocks',
      (text) => {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
        return text;
      },
      false,
    ],
  ])('is %s', async (_, uptime, expected) => {
    const child = spawn('sleep', ['60']);
    const read = fsItself.readFileSync;
    vi.spyOn(fsItself, 'readFileSync').mockImplementation(((name: string, encoding: 'latin1') => {
      const text = read(name, encoding);
      return name === '/proc/uptime' ? uptime(text) : text;
    }) as typeof fs.readFileSync);
    syncBuiltinESMExports();
    try {
      await once(child, 'spawn');
      put(`${child.pid} - - -\n`, 30);
      expect(again(child.pid ?? 0)).toBe(expected);
    } finally {
      vi.restoreAllMocks();
      syncBuiltinESMExports();
      child.kill('SIGKILL');
    }
  });

  it.skipIf(!linux)('has a start time, whatever its name', async () => {
    const odd = path.join(folder, 'a) R 1 (b');
    fs.copyFileSync('/bin/sleep', odd);
    fs.chmodSync(odd, 0o755);
    const child = spawn(odd, ['60']);
    try {
      await once(child, 'spawn');
      expect(Number(startTime(child.pid ?? 0))).toBeGreaterThanOrEqual(Number(startTime(process.pid)));
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('is unknown if the file server fails during the read', () => {
    for (const name of ['readSync', 'fstatSync'] as const) {
      writeServed(folder, server, gone(1));
      const open = () => (fs.existsSync('/proc/self/fd') ? fs.readdirSync('/proc/self/fd').length : 0);
      const before = open();
      const stale = vi.spyOn(fsItself, name).mockImplementation(() => {
        throw Object.assign(new Error('ESTALE: stale file handle'), { code: 'ESTALE' });
      });
      syncBuiltinESMExports();
      try {
        expect(again(gone(1))).toBe(false);
        expect(readEntry(folder, server)).toBeUndefined();
      } finally {
        stale.mockRestore();
        syncBuiltinESMExports();
      }
      expect(again(gone(1))).toBe(true);
      expect(open()).toBe(before);
    }
  });

  it.each([
    ['empty', ''],
    ['words', 'x'],
    ['a long one', `${'1'.repeat(300)} - - -\n`],
    ['of 0.1.0', `${gone(1)}\n`],
    ['half a line', `${gone(1)} - - -`],
  ])('is unknown if the note is damaged: %s', (_, text) => {
    put(text);
    expect(again(gone(1))).toBe(false);
    writeServed(folder, server, gone(2));
    expect(again(gone(2))).toBe(true);
  });

  it.each([
    ['a FIFO', (place: string) => spawnSync('mkfifo', [place])],
    ['a directory', (place: string) => fs.mkdirSync(place)],
    ['a symlink', (place: string) => fs.symlinkSync(`${place}-target`, place)],
  ])('is unknown if the note is %s, which stays unchanged and does not block', (_, make) => {
    for (const place of [file, checked]) make(place);
    writeServed(folder, server, gone(1));
    writeChecked(folder, server);
    expect(again(gone(1))).toBe(false);
    for (const place of [file, checked]) expect(fs.existsSync(`${place}-target`)).toBe(false);
  });
});

describe('a token check at the API server', () => {
  it('counts for a minute', () => {
    const now = Date.now();
    expect(wasChecked(folder, server, now)).toBe(false);
    writeChecked(folder, server);
    expect(wasChecked(folder, server, Date.now())).toBe(true);
    expect(wasChecked(folder, server, now + 61_000)).toBe(false);
    // The clock was set back in the meantime.
    expect(wasChecked(folder, server, now - 61_000)).toBe(false);
    expect(fs.statSync(checked).mode & 0o777).toBe(0o600);
  });
});
