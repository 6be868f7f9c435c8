import { spawnSync } from 'node:child_process';
import fsItself, * as fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import envPaths from 'env-paths';
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  cacheFolder,
  type Entry,
  entryName,
  execCredential,
  formatEntry,
  isFresh,
  parseEntry,
  readEntry,
  readServed,
  wantedApiVersion,
  writeServed,
} from '../../src/credential/entry.ts';
import { findPaths, stateFolder } from '../../src/paths.ts';

const server = 'http://127.0.0.11:8123';
const apiServer = 'https://127.0.0.11:6443';
const now = Math.floor(Date.now() / 1000);
const entry: Entry = {
  server,
  apiServer,
  expirationTimestamp: '2099-01-01T00:00:00Z',
  token: `eyJh.${'x'.repeat(1300)}.c2ln`,
  freshUntil: now + 600,
  details: '{"username":"Zoë"}',
};

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'entry '));
const file = path.join(folder, entryName(server) ?? '');
afterAll(() => fs.rmSync(folder, { recursive: true }));
beforeEach(() => {
  fs.rmSync(folder, { recursive: true });
  fs.mkdirSync(folder, { mode: 0o700 });
});

function put(text: string | Buffer, freshUntil = entry.freshUntil): void {
  fs.writeFileSync(file, text, { mode: 0o600 });
  fs.utimesSync(file, freshUntil, freshUntil);
}

describe('names', () => {
  it.each([
    ['http://127.0.0.11:8123', 'http+127.0.0.11+8123'],
    ['https://tka-prod-us.example.ts.net', 'https+tka-prod-us.example.ts.net'],
    ['https://[fd7a:115c:a1e0::1]:8443', 'https+[fd7a+115c+a1e0++1]+8443'],
  ])('%s is kept in %s', (url, name) => expect(entryName(url)).toBe(name));

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
  ])('%j has no name', (url) => expect(entryName(url)).toBeUndefined());
});

describe('the folder', () => {
  it('is the one that env-paths names', () => {
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

describe('the folder of what outlives the cache', () => {
  it('is the one that env-paths names', () => {
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
  it.skipIf(process.platform === 'win32')('is in the user’s home where HOME is empty or unset', async () => {
    const { homedir } = os.userInfo();
    for (const env of [{ HOME: '' }, {}]) expect((await findPaths(env)).state).toBe(stateFolder({}, homedir));
  });
});

describe('an entry', () => {
  it('comes back as it was written', () => {
    put(formatEntry(entry));
    expect(readEntry(folder, server)).toEqual(entry);
  });

  it('is fresh until its moment, and not a second longer', () => {
    expect(isFresh(entry, (now + 599) * 1000)).toBe(true);
    expect(isFresh(entry, (now + 600) * 1000)).toBe(false);
  });

  it('says nothing about its freshness once it was touched or copied', () => {
    put(formatEntry(entry), now + 9000);
    expect(readEntry(folder, server)?.freshUntil).toBe(0);
    put(formatEntry(entry), now);
    expect(readEntry(folder, server)?.freshUntil).toBe(0);
  });

  it('may be followed by anything, which is not read', () => {
    put(whole + 'x'.repeat(1 << 20));
    expect(readEntry(folder, server)).toMatchObject({ token: entry.token, details: entry.details });
  });

  it('is printed as one line of JSON that client-go reads', () => {
    const text = execCredential('client.authentication.k8s.io/v1beta1', entry);
    expect(JSON.parse(text)).toEqual({
      kind: 'ExecCredential',
      apiVersion: 'client.authentication.k8s.io/v1beta1',
      status: { token: entry.token, expirationTimestamp: entry.expirationTimestamp },
    });
    expect(text.split('\n')).toHaveLength(2);
  });
});

const whole = formatEntry(entry);
const line = (n: number, text: string) =>
  whole
    .split('\n')
    .map((old, i) => (i === n ? text : old))
    .join('\n');

/** Damaged files, by what happened to them: none may be served, none may hang or throw. */
const damages: readonly (readonly [string, string | Buffer])[] = [
  ['empty', ''],
  ['a newline', '\n'],
  ['another version', line(0, `tka2 ${entry.token.length} ${entry.freshUntil}`)],
  ['a length that is one too small', line(0, `tka1 ${entry.token.length - 1} ${entry.freshUntil}`)],
  ['a length that is one too large', line(0, `tka1 ${entry.token.length + 1} ${entry.freshUntil}`)],
  ['a length with a leading zero', line(0, `tka1 0${entry.token.length} ${entry.freshUntil}`)],
  ['no length', line(0, 'tka1')],
  ['more on the first line', line(0, `tka1 ${entry.token.length} ${entry.freshUntil} x`)],
  ['another server', line(1, 'http://127.0.0.12:8123')],
  ['the server with a space behind it', line(1, `${server} `)],
  ['no API server', line(2, '')],
  ['an API server over http', line(2, 'http://127.0.0.11:6443')],
  ['an API server with a quote', line(2, 'https://a"b c')],
  ['no expiry', line(3, '')],
  ['an expiry with a quote', line(3, '2099-01-01T00:00:00Z","x":"')],
  ['an expiry in another form', line(3, '2099-01-01T00:00:00+00:00')],
  ['an empty token', line(4, '').replace(/^tka1 [0-9]+/, 'tka1 0')],
  ['a token with two parts', line(4, 'a.b').replace(/^tka1 [0-9]+/, 'tka1 3')],
  ['a token with a quote', line(4, 'a.b".c').replace(/^tka1 [0-9]+/, 'tka1 6')],
  ['a token with a backslash', line(4, 'a.b\\.c').replace(/^tka1 [0-9]+/, 'tka1 6')],
  ['a token of other letters', line(4, 'a.é.c').replace(/^tka1 [0-9]+/, 'tka1 5')],
  ['CRLF', whole.replaceAll('\n', '\r\n')],
  ['a BOM', `\ufeff${whole}`],
  ['a NUL in the token', line(4, `\0${entry.token.slice(1)}`)],
  ['lines in another order', whole.split('\n').reverse().join('\n')],
  ['JSON', JSON.stringify(entry)],
  ['binary', Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167) % 256))],
  ...Array.from({ length: 40 }, (_, i): [string, string] => {
    const end = whole.indexOf('\n{') + 1;
    const cut = Math.floor((i * end) / 40);
    return [`half-written, ${cut} bytes`, whole.slice(0, cut)];
  }),
];

describe('damage is a miss', () => {
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
      expect(readServed(folder, server)).toBeUndefined();
      writeServed(folder, server, 1);
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

describe('whom it was served to', () => {
  const served = `${file}+served`;
  it('is unknown where a file server gives up while it is asked', () => {
    for (const name of ['readSync', 'fstatSync'] as const) {
      writeServed(folder, server, 4711);
      const open = () => (fs.existsSync('/proc/self/fd') ? fs.readdirSync('/proc/self/fd').length : 0);
      const before = open();
      const gone = vi.spyOn(fsItself, name).mockImplementation(() => {
        throw Object.assign(new Error('ESTALE: stale file handle'), { code: 'ESTALE' });
      });
      syncBuiltinESMExports();
      try {
        expect(readServed(folder, server)).toBeUndefined();
        expect(readEntry(folder, server)).toBeUndefined();
      } finally {
        gone.mockRestore();
        syncBuiltinESMExports();
      }
      expect(readServed(folder, server)).toBe(4711);
      expect(open()).toBe(before);
    }
  });
  it('comes back as it was written', () => {
    writeServed(folder, server, 4711);
    expect(readServed(folder, server)).toBe(4711);
    writeServed(folder, server, 42);
    expect(readServed(folder, server)).toBe(42);
    expect(fs.statSync(served).mode & 0o777).toBe(0o600);
  });
  it.each([
    ['', ''],
    ['words', 'x'],
    ['a long one', '1'.repeat(30)],
    ['two lines', '1\n2\n'],
  ])('%s is nobody', (_, text) => {
    fs.writeFileSync(served, text);
    expect(readServed(folder, server)).toBeUndefined();
  });
  it.each([
    ['a FIFO', () => spawnSync('mkfifo', [served])],
    ['a directory', () => fs.mkdirSync(served)],
    ['a symlink', () => fs.symlinkSync(`${served}-target`, served)],
  ])('%s is left alone, without a hang', (_, make) => {
    make();
    writeServed(folder, server, 1);
    expect(readServed(folder, server)).toBeUndefined();
    expect(fs.existsSync(`${served}-target`)).toBe(false);
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

// The promise of the entry's form: a POSIX shell finds, judges and prints it without another program.
const reader = `
server=$1 rest=\${1#*://} name=\${1%%://*}+
while case $rest in *:*) ;; *) false ;; esac; do name=$name\${rest%%:*}+ rest=\${rest#*:}; done
entry=$2/$name$rest
[ -f "$entry" ] && [ ! -h "$entry" ] && [ -O "$entry" ] || exit 3
{ echo "$PPID" > "$entry+served"; } 2>/dev/null || exit 3
[ "$entry" -nt "$entry+served" ] || exit 3
{ IFS=' ' read -r magic length fresh && IFS= read -r itsServer && IFS= read -r apiServer && IFS= read -r expires && IFS= read -r token; } < "$entry" || exit 3
case $fresh in ''|*[!0-9]*) exit 3 ;; esac
[ "$magic" = tka1 ] && [ "$itsServer" = "$server" ] && [ "\${#token}" = "$length" ] || exit 3
case $token in *[!A-Za-z0-9._-]*|'') exit 3 ;; *.*.*.*) exit 3 ;; *?.?*.?*) ;; *) exit 3 ;; esac
case $apiServer in *[!!-~]*) exit 3 ;; https://?*) ;; *) exit 3 ;; esac
case $expires in [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z) ;; *) exit 3 ;; esac
printf '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"%s","expirationTimestamp":"%s"}}\\n' "$token" "$expires"
`;

describe('a POSIX shell', () => {
  // Without PATH there is no other program.
  const read = () =>
    spawnSync('/bin/sh', ['-c', reader, 'sh', server, folder], { env: { LC_ALL: 'C', PATH: '' }, encoding: 'utf8' });

  it('prints what the program prints', () => {
    put(whole);
    const { status, stdout, stderr } = read();
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: execCredential('client.authentication.k8s.io/v1', entry),
      stderr: '',
    });
    expect(readServed(folder, server)).toBe(process.pid);
  });

  it('sees that it is no longer fresh', () => {
    put(whole.replace(String(entry.freshUntil), String(now - 1)), now - 1);
    expect(read()).toMatchObject({ status: 3, stdout: '' });
  });

  it('refuses all of the damages but those that only the API server can tell', () => {
    const accepted = damages.filter(([, text]) => {
      put(text);
      return read().status === 0;
    });
    expect(accepted.map(([name]) => name)).toEqual([]);
  });
});

it('parseEntry never throws', () => {
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
