import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import envPaths from 'env-paths';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  cacheFolder,
  entryName,
  execCredential,
  formatEntry,
  isFresh,
  parseEntry,
  readEntry,
  serverOfEntry,
  stateFolder,
  wantedApiVersion,
} from '../../src/credential/entry.ts';
import { findPaths } from '../../src/settings/paths.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { damages, entry, now, server, whole } from './cases.ts';

const folder = fileFolder();
const file = path.join(folder, entryName(server) ?? '');
beforeEach(() => {
  fs.rmSync(folder, { recursive: true });
  fs.mkdirSync(folder, { mode: 0o700 });
});

function put(text: string | Buffer, freshUntil = entry.freshUntil): void {
  fs.writeFileSync(file, text, { mode: 0o600 });
  fs.utimesSync(file, freshUntil, freshUntil);
}

describe('the name of an entry', () => {
  it.each([
    ['http://127.0.0.11:8123', 'http+127.0.0.11+8123'],
    ['https://tka-prod-us.example.ts.net', 'https+tka-prod-us.example.ts.net'],
    ['https://[fd7a:115c:a1e0::1]:8443', 'https+[fd7a+115c+a1e0++1]+8443'],
    ['https://tka.example.ts.net/clusters/site-1', 'https+tka.example.ts.net+clusters+site-1'],
    ['https://tka:8443/clusters/9', 'https+tka+8443+clusters+9'],
    ['https://clusters:1/clusters/clusters', 'https+clusters+1+clusters+clusters'],
    ['https://[fd7a::1]/clusters/lock', 'https+[fd7a++1]+clusters+lock'],
  ])('%s is stored as %s', (url, name) => {
    expect(entryName(url)).toBe(name);
    expect(serverOfEntry(name)).toBe(url);
  });

  it.each(['+lock', '+lock+0123456789ab', '+served', '+checked', '+failed', '+4711.00000000.0123456789ab+tmp'])(
    'is never that of a file beside another entry, which ends in %s',
    (suffix) => {
      for (const url of ['https://tka', 'https://tka:8443', 'https://tka/clusters/a', 'https://[::1]/clusters/a'])
        expect(serverOfEntry(`${entryName(url)}${suffix}`)).toBeUndefined();
    },
  );

  it.each([
    'https+tka+clusters',
    'https+tka+clusters+',
    'https+tka+clusters+a+b',
    'https+tka+clusters+8443+clusters+a',
  ])('is not %s', (name) => expect(serverOfEntry(name)).toBeUndefined());

  it.each([
    '',
    'tka',
    'https://',
    'https://a/b',
    'https://../x',
    'https://A',
    'https://a?b',
    'https://a+b',
    'ftp://a',
    'https://a:1:2',
    'https://a\n',
    'https://a ',
    'https://a/clusters/',
    'https://a/clusters/-b',
    'https://a/clusters/b/',
    'https://a/clusters/..',
    'https://a/clusters/B',
    `https://a/clusters/${'b'.repeat(64)}`,
  ])('%j has no entry name', (url) => expect(entryName(url)).toBeUndefined());
});

describe('the cache folder', () => {
  it('is the one of env-paths', () => {
    const env = { ...process.env };
    delete env.TKA_CACHE_DIR;
    expect(cacheFolder(env)).toBe(envPaths('kubectl-tka', { suffix: '' }).cache);
  });
  it.each([
    [{ TKA_CACHE_DIR: '/c' }, 'linux', '/c'],
    [{ HOME: '/h', XDG_CACHE_HOME: '/x' }, 'linux', '/x/kubectl-tka'],
    [{ HOME: '/h', XDG_CACHE_HOME: 'relative' }, 'linux', '/h/.cache/kubectl-tka'],
    [{ HOME: '/h' }, 'darwin', '/h/Library/Caches/kubectl-tka'],
    [{}, 'linux', undefined],
    [{ HOME: '' }, 'linux', undefined],
    [{}, 'darwin', undefined],
    [{}, 'win32', undefined],
  ])('%j on %s is %s', (env, platform, expected) => expect(cacheFolder(env, platform)).toBe(expected));
});

describe('the state folder', () => {
  it('is the one of env-paths', () => {
    const { log, data } = envPaths('kubectl-tka', { suffix: '' });
    expect(stateFolder(process.env, os.homedir())).toBe(process.platform === 'linux' ? log : data);
  });
  it.each([
    [{}, '/h', 'linux', '/h/.local/state/kubectl-tka'],
    [{ XDG_STATE_HOME: '/x' }, '/h', 'linux', '/x/kubectl-tka'],
    [{ XDG_STATE_HOME: 'relative' }, '/h', 'linux', '/h/.local/state/kubectl-tka'],
    [{ XDG_STATE_HOME: '/x' }, undefined, 'linux', '/x/kubectl-tka'],
    [{}, undefined, 'linux', undefined],
    [{}, '/h', 'darwin', '/h/Library/Application Support/kubectl-tka'],
    [{}, undefined, 'darwin', undefined],
    [{ LOCALAPPDATA: '/l' }, '/h', 'win32', '/l/kubectl-tka/Data'],
    [{}, '/h', 'win32', '/h/AppData/Local/kubectl-tka/Data'],
    [{}, undefined, 'win32', undefined],
  ])('%j with home %s on %s is %s', (env, home, platform, expected) =>
    expect(stateFolder(env, home, platform)).toBe(expected),
  );
  it.skipIf(process.platform === 'win32')('is in the user’s home if HOME is empty or unset', async () => {
    const { homedir } = os.userInfo();
    for (const env of [{ HOME: '' }, {}]) expect((await findPaths(env)).state).toBe(stateFolder({}, homedir));
  });
});

describe('an entry', () => {
  it('reads back as it was written', () => {
    put(formatEntry(entry));
    expect(readEntry(folder, server)).toEqual(entry);
  });

  it('is fresh until its fresh-until time, and not a second longer', () => {
    expect(isFresh(entry, (entry.freshUntil - 1) * 1000)).toBe(true);
    expect(isFresh(entry, entry.freshUntil * 1000)).toBe(false);
  });

  it('is not fresh once it was touched or copied', () => {
    put(formatEntry(entry), now + 9000);
    expect(readEntry(folder, server)?.freshUntil).toBe(0);
    put(formatEntry(entry), now);
    expect(readEntry(folder, server)?.freshUntil).toBe(0);
  });

  it('may be followed by other text, which is not read', () => {
    put(whole + 'x'.repeat(1 << 20));
    expect(readEntry(folder, server)).toMatchObject({ token: entry.token, details: entry.details });
  });

  it('prints as one line of JSON that client-go reads', () => {
    const text = execCredential('client.authentication.k8s.io/v1beta1', entry);
    expect(JSON.parse(text)).toEqual({
      kind: 'ExecCredential',
      apiVersion: 'client.authentication.k8s.io/v1beta1',
      status: { token: entry.token, expirationTimestamp: entry.expirationTimestamp },
    });
    expect(text.split('\n')).toHaveLength(2);
  });
});

describe('a damaged entry is a miss', () => {
  it.each(damages)('%s', (_, text) => {
    put(text);
    expect(readEntry(folder, server)).toBeUndefined();
  });

  it.each([
    ['absent', () => {}],
    ['a directory', () => fs.mkdirSync(file)],
    [
      'a symlink to a whole entry',
      () => {
        fs.writeFileSync(`${file}-elsewhere`, whole);
        fs.utimesSync(`${file}-elsewhere`, entry.freshUntil, entry.freshUntil);
        fs.symlinkSync(`${file}-elsewhere`, file);
      },
    ],
    ['a dangling symlink', () => fs.symlinkSync('/nowhere', file)],
    ['a FIFO', () => spawnSync('mkfifo', [file])],
    ['a symlink to a device', () => fs.symlinkSync('/dev/zero', file)],
    [
      'a folder that is a file',
      () => {
        fs.rmSync(folder, { recursive: true });
        fs.writeFileSync(folder, '');
      },
    ],
  ])('%s', (_, make) => {
    make();
    try {
      expect(readEntry(folder, server)).toBeUndefined();
    } finally {
      fs.rmSync(folder, { recursive: true });
      fs.mkdirSync(folder);
    }
  });

  it.skipIf(process.getuid?.() !== 0)('another user’s file (checked as root only)', () => {
    put(whole);
    fs.chownSync(file, 12345, 12345);
    expect(readEntry(folder, server)).toBeUndefined();
  });
});

describe('wantedApiVersion', () => {
  const info = (apiVersion: unknown) => ({
    KUBERNETES_EXEC_INFO: JSON.stringify({ kind: 'ExecCredential', apiVersion, spec: {} }),
  });
  it.each([
    [{}, 'client.authentication.k8s.io/v1'],
    [{ KUBERNETES_EXEC_INFO: '' }, 'client.authentication.k8s.io/v1'],
    [info('client.authentication.k8s.io/v1'), 'client.authentication.k8s.io/v1'],
    [info('client.authentication.k8s.io/v1beta1'), 'client.authentication.k8s.io/v1beta1'],
    [info('client.authentication.k8s.io/v1alpha1'), undefined],
    [info('v1'), undefined],
    [info(1), undefined],
    [info(undefined), undefined],
    [{ KUBERNETES_EXEC_INFO: '{' }, undefined],
    [{ KUBERNETES_EXEC_INFO: 'null' }, undefined],
  ])('%j', (env, expected) => expect(wantedApiVersion(env)).toBe(expected));
});

it('parseEntry does not throw', () => {
  let seed = 1;
  const random = (n: number) => {
    seed = (seed * 48271) % 2147483647;
    return seed % n;
  };
  for (let i = 0; i < 2000; i++) {
    const bytes = Buffer.from(whole);
    for (let flips = random(8) + 1; flips > 0; flips--) bytes[random(bytes.length)] = random(256);
    const parsed = parseEntry(bytes.toString('latin1'), server, entry.freshUntil);
    if (parsed !== undefined) expect(parsed.server).toBe(server);
  }
});

it('writeAll waits for room in a full pipe, without spinning', async () => {
  // The pipe of a child that reads after a second. It is non-blocking, as some shells and programs leave it.
  const child = spawn('/bin/sh', ['-c', 'sleep 1; wc -c'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const script = `const [{ writeAll }, { countFull }] = await Promise.all(process.argv.slice(1).map((file) => import(file)));
    new (process.binding('pipe_wrap').Pipe)(0).open(1);
    const full = countFull(() => writeAll(1, 'x'.repeat(300000)));
    writeAll(2, JSON.stringify(full));`;
  const modules = ['../../src/credential/entry.ts', '../fixtures/eagain.ts'].map((file) =>
    path.join(import.meta.dirname, file),
  );
  const writer = spawn(process.execPath, ['--no-deprecation', '--input-type=module', '-e', script, ...modules], {
    stdio: ['ignore', child.stdin, 'pipe'],
  });
  child.stdin.destroy();
  const [counted, told] = await Promise.all([text(child.stdout), text(writer.stderr)]);
  expect(counted.trim()).toBe('300000');
  const { tries, ms } = JSON.parse(told);
  expect(tries).toBeGreaterThan(0);
  // At most every 10 ms; a busy loop would try thousands of times.
  expect(tries).toBeLessThan(ms / 5);
});
