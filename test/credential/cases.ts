// Contents of the cache and ways to call the cached path. One table for both readers of an entry:
// src/credential/fast.ts and cmd/kubectl-tka.sh.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type CacheEntry, entryName, formatEntry } from '../../src/credential/entry.ts';
import { callerOf } from '../../src/credential/served.ts';

export const server = 'http://127.0.0.11:8123';
/** A cluster that has joined this server. */
const joined = `${server}/clusters/site-1`;
export const apiServer = 'https://127.0.0.11:6443';
export const now = Math.floor(Date.now() / 1000);
export const entry: CacheEntry = {
  server,
  apiServer,
  expirationTimestamp: '2099-01-01T00:00:00Z',
  token: `eyJh.${'x'.repeat(1290)}-_AZ09.c2ln`,
  freshUntil: now + 3600,
  details: '{"username":"Zoë"}',
};
export const whole = formatEntry(entry);

/** Returns the whole entry with its nth line replaced. */
export const line = (n: number, text: string): string =>
  whole
    .split('\n')
    .map((old, i) => (i === n ? text : old))
    .join('\n');
const withToken = (token: string) => line(4, token).replace(/^tka1 [0-9]+/, `tka1 ${token.length}`);

/** Damaged files, named by the damage. A reader must not serve them, hang or throw. */
export const damages: readonly (readonly [string, string | Buffer])[] = [
  ['empty', ''],
  ['a newline', '\n'],
  ['another version', line(0, `tka2 ${entry.token.length} ${entry.freshUntil}`)],
  ['a length that is 1 too small', line(0, `tka1 ${entry.token.length - 1} ${entry.freshUntil}`)],
  ['a length that is 1 too large', line(0, `tka1 ${entry.token.length + 1} ${entry.freshUntil}`)],
  ['a length with a leading zero', line(0, `tka1 0${entry.token.length} ${entry.freshUntil}`)],
  ['a length with a sign', line(0, `tka1 +${entry.token.length} ${entry.freshUntil}`)],
  ['a length that is a glob pattern', line(0, `tka1 * ${entry.freshUntil}`)],
  ['no length', line(0, 'tka1')],
  ['no fresh-until time', line(0, `tka1 ${entry.token.length} `)],
  ['a fresh-until time of 13 digits', line(0, `tka1 ${entry.token.length} 000${entry.freshUntil}`)],
  ['a fresh-until time that is not a number', line(0, `tka1 ${entry.token.length} ${entry.freshUntil}x`)],
  ['two spaces', line(0, `tka1  ${entry.token.length} ${entry.freshUntil}`)],
  ['a tab', line(0, `tka1\t${entry.token.length} ${entry.freshUntil}`)],
  ['a space before', ` ${whole}`],
  ['a newline before', `\n${whole}`],
  ['extra text on the first line', line(0, `tka1 ${entry.token.length} ${entry.freshUntil} x`)],
  ['another server', line(1, 'http://127.0.0.12:8123')],
  ['the server with a trailing space', line(1, `${server} `)],
  ['the server with a trailing backslash', line(1, `${server}\\`)],
  ['no API server', line(2, '')],
  ['an API server without a name', line(2, 'https://')],
  ['an API server over http', line(2, 'http://127.0.0.11:6443')],
  ['an API server with a quote', line(2, 'https://a"b c')],
  ['an API server with a non-ASCII letter', line(2, 'https://é')],
  ['an API server with a control character', line(2, 'https://a\u007f')],
  ['an API server that is too long', line(2, `https://${'a'.repeat(3000)}`)],
  ['no expiry', line(3, '')],
  ['an expiry with a quote', line(3, '2099-01-01T00:00:00Z","x":"')],
  ['an expiry in another form', line(3, '2099-01-01T00:00:00+00:00')],
  ['an expiry with a fraction', line(3, '2099-01-01T00:00:00.5Z')],
  ...['2099-00-01', '2099-13-01', '2099-01-00', '2099-01-32', '20999-01-01'].map((day): [string, string] => [
    `an expiry on ${day}`,
    line(3, `${day}T00:00:00Z`),
  ]),
  ...['24:00:00', '00:60:00', '00:00:60', '0:00:00'].map((time): [string, string] => [
    `an expiry at ${time}`,
    line(3, `2099-01-01T${time}Z`),
  ]),
  ['an empty token', withToken('')],
  ['a token with two parts', withToken('a.b')],
  ['a token with four parts', withToken('a.b.c.d')],
  ...['a..c', '.b.c', 'a.b.', '..', 'a...'].map((token): [string, string] => [`the token ${token}`, withToken(token)]),
  ['a token with a quote', withToken('a.b".c')],
  ['a token with a backslash', withToken('a.b\\.c')],
  ['a token with a space', withToken('a.b .c')],
  ['a token with a command', withToken('a.$(id).c')],
  ['a token with a non-ASCII letter', withToken('a.é.c')],
  ['a token in Latin-1', Buffer.from(withToken('a.é.c'), 'latin1')],
  ['a token that is too long', withToken(`a.${'b'.repeat(16 * 1024 - 3)}.c`)],
  ['a token that is far too long', withToken(`a.${'b'.repeat(300_000)}.c`)],
  ['CRLF', whole.replaceAll('\n', '\r\n')],
  ['a BOM', `\ufeff${whole}`],
  ['a NUL in place of a letter', line(4, `\0${entry.token.slice(1)}`)],
  ['NULs', Buffer.alloc(whole.length)],
  ['lines in another order', whole.split('\n').reverse().join('\n')],
  ['JSON', JSON.stringify(entry)],
  ['a script', 'exit 0\n'.repeat(10)],
  ['binary', Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167) % 256))],
  ...Array.from({ length: 40 }, (_, i): [string, string] => {
    const end = whole.indexOf('\n{') + 1;
    const cut = Math.floor((i * end) / 40);
    return [`half-written, ${cut} bytes`, whole.slice(0, cut)];
  }),
];

/** A private HOME with an empty cache folder. */
export interface Fixture {
  readonly home: string;
  readonly folder: string;
  /** The entry of `server`. */
  readonly file: string;
  /** Writes an entry. */
  put(text?: string | Buffer, mtime?: number, file?: string): void;
}

export interface Call {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Case {
  readonly name: string;
  /** Prepares the files and returns how to call (a Call). Without one, the call is that of a context. */
  readonly arrange: (fixture: Fixture) => unknown;
  /**
   * `program`: the program serves it; the front hands over, since a shell cannot check it safely. `front`: the front
   * serves it, since a shell cannot see the difference; the program does not. `either`: the program serves it, and the
   * front may.
   */
  readonly served: boolean | 'program' | 'front' | 'either';
  readonly skip?: boolean;
}

const notRoot = process.getuid?.() !== 0;
const fifo = (file: string) => execFileSync('mkfifo', [file]);
const credential = ['credential', '--server', server] as const;
const both = [...credential, '--api-server', apiServer] as const;

const c = (served: Case['served'], name: string, arrange: (fixture: Fixture) => unknown, skip = false): Case => ({
  served,
  name,
  arrange,
  skip,
});
/** A whole, fresh entry, plus what `act` adds. */
const fresh = (served: Case['served'], name: string, act: (fixture: Fixture) => unknown, skip = false) =>
  c(
    served,
    name,
    (fixture) => {
      fixture.put();
      return act(fixture);
    },
    skip,
  );
const called = (served: Case['served'], args: readonly string[]) =>
  fresh(served, `called with ${args.join(' ') || 'nothing'}`, () => ({ args }));
/** Writes an entry with the given fresh-until time and mtime, in seconds from now. */
const until = (head: number, mtime: number) => (fixture: Fixture) => {
  const clock = Math.floor(Date.now() / 1000);
  fixture.put(line(0, `tka1 ${entry.token.length} ${clock + head}`), clock + mtime);
};
const of = (served: boolean, url: string) =>
  c(served, `the server ${JSON.stringify(url)}`, (fixture) => {
    const name = entryName(url) ?? url.replace('://', '+').replace(/[:/]/g, '+');
    // Without an entry name there may still be a file.
    const file = path.join(fixture.folder, name.slice(0, 200).replaceAll('\0', '') || 'none');
    fixture.put(formatEntry({ ...entry, server: url }), entry.freshUntil, file);
    return { args: ['credential', '--server', url] };
  });

/** Writes an entry with a served note of the given age in seconds. */
const note = (served: Case['served'], name: string, text: () => string, ago = 0): Case =>
  fresh(served, `served ${name}`, ({ file }) => {
    fs.writeFileSync(`${file}+served`, text());
    const at = Date.now() / 1000 - ago;
    fs.utimesSync(`${file}+served`, at, at);
  });
const stateOf = (home: string) =>
  path.join(home, process.platform === 'darwin' ? 'Library/Application Support' : '.local/state');
function putMark(state: string, entryFile: string, make: (mark: string) => void): void {
  const mark = path.join(state, 'kubectl-tka', 'signed-out', path.basename(entryFile));
  fs.mkdirSync(path.dirname(mark), { recursive: true });
  make(mark);
}
/** Logout marks in a state folder. A file of any kind counts as a mark. */
const marks = (state: (home: string) => string, env: ((home: string) => Record<string, string>) | undefined): Case[] =>
  (
    [
      ['', (mark: string) => fs.writeFileSync(mark, '{}\n')],
      [', by an empty mark', (mark: string) => fs.writeFileSync(mark, '')],
      [', by a folder', (mark: string) => fs.mkdirSync(mark)],
      [', by a dangling link', (mark: string) => fs.symlinkSync('/nowhere', mark)],
    ] as const
  ).map(([name, make]) => {
    const where = env === undefined ? '' : `, ${Object.keys(env('')).join()} ${Object.values(env('')).join()}`;
    return fresh(false, `signed out${name}${where}`, ({ home, file }) => {
      putMark(state(home), file, make);
      return env === undefined ? {} : { env: env(home) };
    });
  });

export const api = 'client.authentication.k8s.io/';
const info = (spec: string, version = 'v1', end = '') =>
  `{"kind":"ExecCredential","apiVersion":"${api}${version}","spec":{${spec}}}${end}`;
const cluster = (members: string, rest = ',"interactive":false') =>
  info(`"cluster":{"server":"https://127.0.0.11:6443"${members}}${rest}`);
const ca = Buffer.alloc(1500, 'certificate').toString('base64');
const asks = (served: Case['served'], text: string) =>
  fresh(served, `KUBERNETES_EXEC_INFO ${JSON.stringify(text).slice(0, 320)}`, () => ({
    env: { KUBERNETES_EXEC_INFO: text },
  }));

export const cases: readonly Case[] = [
  // Freshness.
  fresh(true, 'a whole, fresh entry', () => {}),
  c(false, 'no entry', () => {}),
  c(false, 'no folder', ({ folder }) => fs.rmdirSync(folder)),
  c(true, 'fresh for another minute', until(60, 60)),
  c(false, 'fresh until this second', until(0, 0)),
  c(false, 'stale for a second', until(-1, -1)),
  c(false, 'stale for a long time', until(-1e9, -1e9)),
  c(false, 'fresh until 1970', ({ put }) => put(line(0, `tka1 ${entry.token.length} 0`), 0)),
  c(true, 'fresh for years', until(4e8, 4e8)),
  c(true, 'an mtime off by a second, as some file systems store it', until(3600, 3599)),
  c(false, 'an mtime in the past, with a fresh head', until(3600, -10)),
  c(false, 'an mtime just in the past', until(1, -1)),
  c('front', 'an mtime in the future, with a stale head: a shell cannot see the difference', until(-1, 600)),
  c('front', 'an mtime further in the future', until(600, 3600)),
  // Damage.
  ...damages.map(([name, text]) => c(false, `damage: ${name}`, ({ put }) => put(text))),
  ...Array.from({ length: 4 }, (_, i) =>
    c(true, `cut within the details, which readers do not need, ${i}`, ({ put }) => {
      const at = whole.lastIndexOf('\n', whole.length - 2) + 1;
      put(whole.slice(0, [at, at + 1, at + 5, whole.length - 1][i]));
    }),
  ),
  c(true, 'followed by extra text', ({ put }) => put(whole + 'x\n'.repeat(100_000))),
  c(true, 'the shortest token', ({ put }) => put(withToken('a.b.c'))),
  c(true, 'the longest token', ({ put }) => put(withToken(`a.${'b'.repeat(16 * 1024 - 4)}.c`))),
  c('either', 'with NULs between, which some shells skip', ({ put }) => put(`\0\0${whole.replace('eyJ', 'e\0yJ')}`)),
  // Other kinds of files.
  c(false, 'a directory', ({ file }) => fs.mkdirSync(file)),
  c(false, 'a FIFO', ({ file }) => fifo(file)),
  c(false, 'a symlink to a whole entry', ({ put, file }) => {
    put(whole, entry.freshUntil, `${file}-elsewhere`);
    fs.symlinkSync(`${file}-elsewhere`, file);
  }),
  c(false, 'a dangling symlink', ({ file }) => fs.symlinkSync('/nowhere', file)),
  c(false, 'a symlink to itself', ({ file }) => fs.symlinkSync(file, file)),
  c(false, 'a symlink to a device', ({ file }) => fs.symlinkSync('/dev/zero', file)),
  c(false, 'a symlink to a FIFO', ({ file }) => {
    fifo(`${file}-fifo`);
    fs.symlinkSync(`${file}-fifo`, file);
  }),
  c(
    false,
    'a device (as root only)',
    ({ file }) => {
      execFileSync('mknod', [file, 'c', '1', '5']);
    },
    notRoot || process.platform !== 'linux',
  ),
  c(false, 'a folder that is a file', ({ folder }) => {
    fs.rmdirSync(folder);
    fs.writeFileSync(folder, '');
  }),
  fresh(true, 'a hard link to the entry', ({ file }) => fs.linkSync(file, `${file}-too`)),
  // Owners and modes.
  fresh(false, 'another user’s file (as root only)', ({ file }) => fs.chownSync(file, 12345, 12345), notRoot),
  fresh(false, 'another user’s folder (as root only)', ({ folder }) => fs.chownSync(folder, 12345, 12345), notRoot),
  fresh(false, 'a folder that others share by design', ({ folder }) => fs.chmodSync(folder, 0o1777)),
  fresh(false, 'a file that cannot be read (not as root)', ({ file }) => fs.chmodSync(file, 0), !notRoot),
  ...[0o400, 0o644, 0o666, 0o777].map((mode) =>
    fresh(true, `a file with the mode ${mode.toString(8)}, which the slow path repairs`, ({ file }) =>
      fs.chmodSync(file, mode),
    ),
  ),
  ...[0o755, 0o777].map((mode) =>
    fresh(true, `a folder with the mode ${mode.toString(8)}, which the slow path repairs`, ({ folder }) =>
      fs.chmodSync(folder, mode),
    ),
  ),
  fresh(
    'program',
    'a folder that cannot be written to (not as root)',
    ({ folder }) => fs.chmodSync(folder, 0o500),
    !notRoot,
  ),
  fresh(true, 'a folder behind a symlink', ({ home, folder }) => {
    fs.renameSync(folder, path.join(home, 'real'));
    fs.symlinkSync('../real', folder);
  }),
  // Callers that an entry was served to. A second request of the same caller means that it got a 401.
  note(false, 'served last to this caller', () => `${process.pid} - - -\n`),
  note(false, 'served to this caller, then to three others', () => `1 2 3 ${process.pid}\n`),
  note(true, 'served to four others', () => '1 2 3 4\n'),
  note(
    true,
    'served to others whose process IDs start or end with this one’s',
    () => `${process.pid}0 1${process.pid} ${process.pid}0:1 -\n`,
  ),
  note('program', 'served to this caller an hour ago', () => `${process.pid} - - -\n`, 3600),
  note('program', 'served to this caller, by a clock that is ahead', () => `${process.pid} - - -\n`, -3600),
  note(false, 'served to this caller, with more after the line', () => `${process.pid} - - -\nx\n`),
  note('program', 'served to this caller, in a line without a newline', () => `${process.pid} - - -`),
  ...[
    '',
    'nobody\n',
    '1\n',
    '1 - -\n',
    `${'9'.repeat(400)}\n`,
    '\u001b[31m1 - - -\n',
    '\0\0\0\0',
    `${'1 '.repeat(150)}\n`,
    '1 - - -;id\n',
    '* * * *\n',
  ].map((text) => note('program', `a damaged served note: ${JSON.stringify(text).slice(0, 40)}`, () => text)),
  // On Linux a start time distinguishes processes with the same ID. In containers kubectl gets the same one each time.
  ...(process.platform === 'linux'
    ? [
        note(true, 'served to an earlier process with this ID', () => `${process.pid}:1 - - -\n`),
        note(false, 'served to this process, with its start time', () => `${callerOf(process.pid)} - - -\n`),
        note(
          false,
          'served to this process and to an earlier one',
          () => `${process.pid}:1 ${callerOf(process.pid)} - -\n`,
        ),
      ]
    : []),
  fresh('program', 'a served note that is a FIFO', ({ file }) => fifo(`${file}+served`)),
  fresh('program', 'a served note that is a directory', ({ file }) => fs.mkdirSync(`${file}+served`)),
  fresh('program', 'a served note that is a symlink', ({ file, home }) => {
    fs.writeFileSync(path.join(home, 'mine'), 'mine\n');
    fs.symlinkSync(path.join(home, 'mine'), `${file}+served`);
  }),
  fresh('program', 'a served note that is a dangling symlink', ({ file, home }) =>
    fs.symlinkSync(path.join(home, 'pwned'), `${file}+served`),
  ),
  fresh(
    'program',
    'a served note of another user (as root only)',
    ({ file }) => {
      fs.writeFileSync(`${file}+served`, '1\n');
      fs.chownSync(`${file}+served`, 12345, 12345);
    },
    notRoot,
  ),
  // Signed out, but the entry is back: a restored cache, or a cache that could not be written.
  ...marks(stateOf, undefined),
  ...(process.platform === 'linux'
    ? [
        ...marks(
          (home) => path.join(home, 'state of'),
          (home) => ({ XDG_STATE_HOME: path.join(home, 'state of') }),
        ),
        ...marks(stateOf, () => ({ XDG_STATE_HOME: 'relative' })),
        fresh(true, 'a logout mark outside XDG_STATE_HOME', ({ home, file }) => {
          putMark(stateOf(home), file, (mark) => fs.writeFileSync(mark, ''));
          return { env: { XDG_STATE_HOME: path.join(home, 'state of') } };
        }),
        fresh('program', 'XDG_STATE_HOME with a ".."', ({ home }) => ({
          env: { XDG_STATE_HOME: `${home}/x/../state` },
        })),
      ]
    : []),
  fresh(true, 'another server is signed out', ({ home, file }) => {
    putMark(stateOf(home), `${file}0`, (mark) => fs.writeFileSync(mark, '{}'));
  }),
  fresh(true, 'a file in place of the state folder', ({ home }) => {
    fs.mkdirSync(path.dirname(stateOf(home)), { recursive: true });
    fs.writeFileSync(stateOf(home), '');
  }),
  // Arguments.
  called(true, credential),
  called(true, both),
  called(false, []),
  called(false, ['credential']),
  called(false, ['credential', '--server']),
  called(false, ['credential', '--server', '']),
  called(false, ['credential', `--server=${server}`]),
  called(false, ['credential', '-s', server]),
  called(false, ['Credential', '--server', server]),
  called(false, ['credential', '--SERVER', server]),
  called(false, ['--server', server, 'credential']),
  called(false, ['credential', '--api-server', apiServer, '--server', server]),
  called(false, [...credential, '--debug']),
  called(false, [...both, '--debug']),
  called(false, ['--debug', ...both]),
  called(false, [...credential, '--api-server']),
  called(false, [...credential, `--api-server=${apiServer}`]),
  called(false, [...credential, '--api-server', '']),
  called(false, [...credential, '--api-server', 'https://127.0.0.12:6443']),
  called(false, [...credential, '--api-server', `${apiServer}/`]),
  called(false, [...credential, '--api-server', '*']),
  called(false, [...credential, '--server', server]),
  called(false, ['credential', '--server', `${server}/`]),
  called(false, ['credential', '--server', `${server} `]),
  called(false, ['credential', '--server', `${server}\n`]),
  called(false, ['credential', '--server', 'prod-us']),
  called(false, ['credential', '--server', 'http://127.0.0.12:8123']),
  called(false, ['status', '--server', server]),
  // Server names.
  of(true, 'https://tka-prod-us.example.ts.net'),
  of(true, 'https://tka'),
  of(true, 'https://a.b_c-d.e:1'),
  of(true, 'https://tka.example.ts.net:65535'),
  of(true, 'https://[fd7a:115c:a1e0::1]:8443'),
  of(true, 'http://[::1]'),
  of(true, 'http://[::ffff:127.0.0.1]:80'),
  ...[
    'https://',
    'https://A',
    'HTTPS://a',
    'ftp://a',
    'https://-a',
    'https://a-',
    'https://.a',
    'https://a.',
    'https://é',
    'https://a+b',
    'https://a b',
    'https://a\\b',
    'https://a*',
    'https://a:',
    'https://a:x',
    'https://a:1:2',
    'https://a:123456',
    'https://:1',
    'https://[]',
    'https://[fd7a::G]',
    'https://[fd7a::1',
    'https://[fd7a::1]x',
    'https://[fd7a::1]:',
    'https://[fd7a::1]:123456',
    'https://[[::1]]',
    'https://fd7a::1]',
    'https://user@a',
    'https://a?b',
    'https://a\n',
    'a',
    'https:/a',
    'https//a',
    'https://https://a',
  ].map((url) => of(false, url)),
  fresh(false, 'a server that is a path', ({ folder, put }) => {
    fs.mkdirSync(path.join(folder, 'https+..'));
    const url = 'https://../x';
    put(formatEntry({ ...entry, server: url }), entry.freshUntil, path.join(folder, 'https+..', 'x'));
    return { args: ['credential', '--server', url] };
  }),
  // Clusters that are signed in to through a login server.
  ...[
    'https://tka.example.ts.net/clusters/site-1',
    'https://tka/clusters/a',
    `https://tka/clusters/${'a'.repeat(63)}`,
    'https://tka:8443/clusters/9',
    'https://[fd7a:115c:a1e0::1]:8443/clusters/a--b',
    'http://[::1]/clusters/clusters',
    'https://clusters/clusters/lock',
    'https://tka/clusters/served',
  ].map((url) => of(true, url)),
  ...[
    '/',
    '/clusters',
    '/clusters/',
    '/clusters//',
    '/clusters/a/',
    '/clusters/a/b',
    '/clusters/a/clusters/b',
    '/clusters/clusters/a',
    '/clusters//a',
    '//clusters/a',
    '/x/clusters/a',
    '/Clusters/a',
    '/cluster/a',
    '/clustersa',
    '/clusters/A',
    '/clusters/-a',
    '/clusters/a-',
    '/clusters/-',
    '/clusters/.',
    '/clusters/..',
    '/clusters/../a',
    '/clusters/a.b',
    '/clusters/a_b',
    '/clusters/a:1',
    '/clusters/a+b',
    '/clusters/a b',
    '/clusters/a\n',
    '/clusters/a\\b',
    '/clusters/é',
    '/clusters/*',
    '/clusters/%61',
    '/clusters/a?b',
    '/clusters/a#b',
    '/clusters/a\u0007b',
    `/clusters/${'a'.repeat(64)}`,
    '/clusters/a/api/v1alpha1',
    ':/clusters/a',
    ':x/clusters/a',
    ':123456/clusters/a',
    '-/clusters/a',
  ].map((place) => of(false, `https://tka${place}`)),
  ...['https:///clusters/a', 'https://clusters/a', 'https://[::1/clusters/a', 'https://[::1]x/clusters/a'].map((url) =>
    of(false, url),
  ),
  ...([true, false] as const).map((isSignedOut) =>
    c(
      !isSignedOut,
      `a joined cluster, ${isSignedOut ? 'it' : 'its login server'} signed out`,
      ({ home, folder, put }) => {
        const file = path.join(folder, entryName(joined) ?? '');
        put(formatEntry({ ...entry, server: joined }), entry.freshUntil, file);
        putMark(stateOf(home), path.join(folder, entryName(isSignedOut ? joined : server) ?? ''), (mark) =>
          fs.writeFileSync(mark, '{}\n'),
        );
        return { args: ['credential', '--server', joined] };
      },
    ),
  ),
  c(false, 'a joined cluster, served to this caller a moment ago', ({ folder, put }) => {
    const file = path.join(folder, entryName(joined) ?? '');
    put(formatEntry({ ...entry, server: joined }), entry.freshUntil, file);
    fs.writeFileSync(`${file}+served`, `${process.pid} - - -\n`);
    return { args: ['credential', '--server', joined] };
  }),
  c(false, 'a joined cluster, with the entry of its login server', ({ folder, put }) => {
    put(whole, entry.freshUntil, path.join(folder, entryName(joined) ?? ''));
    return { args: ['credential', '--server', joined] };
  }),
  fresh(false, 'the entry of a login server, called for its joined cluster', () => ({
    args: ['credential', '--server', joined],
  })),
  // What the caller requests.
  ...['v1', 'v1beta1'].flatMap((version) => [
    asks(true, info('"interactive":false', version)),
    asks(true, info('"interactive":true', version, '\n')),
    asks(true, info('', version)),
  ]),
  asks(true, ''),
  asks(true, cluster(',"config":null')),
  asks(true, `${cluster(',"config":null')}\n`),
  asks(true, cluster(',"config":null', '')),
  asks(true, cluster('', '')),
  asks(true, cluster(`,"tls-server-name":"a b","insecure-skip-tls-verify":true,"config":null`)),
  asks(
    true,
    cluster(`,"certificate-authority-data":"${ca}","proxy-url":"http://p:1","disable-compression":true,"config":null`),
  ),
  asks(false, info('"interactive":false', 'v1alpha1')),
  asks(false, info('"interactive":false', 'v2')),
  asks(false, info('"interactive":false', 'v1beta')),
  asks(false, '{"apiVersion":"v1"}'),
  asks(false, '{'),
  asks(false, 'null'),
  asks(false, '"client.authentication.k8s.io/v1"'),
  asks(false, `${info('"interactive":false')}}`),
  asks(false, info('"interactive":maybe')),
  asks(false, info('"interactive":false').slice(0, -1)),
  asks(false, info('"interactive":false').replace('v1', '*')),
  asks(false, info('"interactive":false},"apiVersion":"v1","x":{')),
  asks(false, info('"cluster":{"server":"x"}},"apiVersion":"v1","x":{"a":"b"')),
  asks(false, cluster(',"config":nul')),
  asks(false, cluster(',')),
  asks(false, cluster('"a":"b"')),
  asks(false, cluster(',"a":"b\nc"')),
  asks(false, cluster(',"a":"\\x"')),
  asks(false, cluster(',"a":"b" "c"')),
  asks(false, cluster(',"a":')),
  asks(false, cluster(',"a"')),
  asks(false, cluster('', ',')),
  // Other spellings, and values that a shell cannot check.
  asks('program', ` ${info('"interactive":false')}`),
  asks('program', `{"apiVersion": "${api}v1", "kind": "ExecCredential", "spec": {"interactive": false}}`),
  asks('program', `{"apiVersion":"${api}v1"}`),
  asks('program', info('"interactive":false', 'v1', '\n\n')),
  asks('program', cluster(',"config":null},"apiVersion":"v1","x":{"a":"b"')),
  asks('program', cluster(',"config":{"a":[1,"b"]}')),
  asks('program', cluster(',"proxy-url":"http://a\\u0026b","config":null')),
  asks('program', cluster(',"tls-server-name":"é","config":null')),
  // The environment.
  fresh(false, 'TKA_DEBUG=1', () => ({ env: { TKA_DEBUG: '1' } })),
  fresh(false, 'TKA_DEBUG=0', () => ({ env: { TKA_DEBUG: '0' } })),
  fresh(true, 'TKA_DEBUG empty', () => ({ env: { TKA_DEBUG: '' } })),
  fresh(true, 'TKA_CACHE_DIR', ({ folder }) => ({ env: { HOME: '/nowhere', TKA_CACHE_DIR: folder } })),
  fresh('program', 'TKA_CACHE_DIR and a HOME with a ".."', ({ home, folder }) => ({
    env: { HOME: `${home}/x/..`, TKA_CACHE_DIR: folder },
  })),
  fresh(true, 'TKA_CACHE_DIR with a trailing slash', ({ folder }) => ({ env: { TKA_CACHE_DIR: `${folder}//` } })),
  // Without HOME only the system's user database says where the logout marks are.
  fresh(false, 'TKA_CACHE_DIR and no HOME', ({ folder }) => ({ env: { HOME: undefined, TKA_CACHE_DIR: folder } })),
  fresh(true, 'TKA_CACHE_DIR empty', () => ({ env: { TKA_CACHE_DIR: '' } })),
  fresh(false, 'TKA_CACHE_DIR elsewhere', ({ home }) => ({ env: { TKA_CACHE_DIR: home } })),
  fresh('program', 'TKA_CACHE_DIR with a "..", which a link would redirect', ({ folder }) => ({
    env: { TKA_CACHE_DIR: `${folder}/../kubectl-tka` },
  })),
  ...['-f', '!', '(', 'a b', '~', '$HOME', '*', 'a\nb', '.', './x'].map((name) =>
    c(true, `TKA_CACHE_DIR relative: ${JSON.stringify(name)}`, ({ home, put, file }) => {
      fs.mkdirSync(path.join(home, 'cwd', name), { recursive: true });
      put(whole, entry.freshUntil, path.join(home, 'cwd', name, path.basename(file)));
      return { env: { TKA_CACHE_DIR: name } };
    }),
  ),
  fresh(false, 'HOME empty', () => ({ env: { HOME: '' } })),
  fresh(false, 'HOME elsewhere', () => ({ env: { HOME: '/nowhere' } })),
  ...(process.platform === 'linux'
    ? [
        fresh(false, 'HOME unset', () => ({ env: { HOME: undefined } })),
        fresh(true, 'XDG_CACHE_HOME and XDG_STATE_HOME, HOME unset', ({ home, folder }) => ({
          env: { HOME: undefined, XDG_CACHE_HOME: path.dirname(folder), XDG_STATE_HOME: home },
        })),
        fresh(false, 'XDG_CACHE_HOME, HOME unset', ({ folder }) => ({
          env: { HOME: undefined, XDG_CACHE_HOME: path.dirname(folder) },
        })),
        fresh(true, 'XDG_CACHE_HOME empty', () => ({ env: { XDG_CACHE_HOME: '' } })),
        fresh(true, 'a relative XDG_CACHE_HOME, which is ignored', () => ({ env: { XDG_CACHE_HOME: 'x' } })),
        fresh(false, 'XDG_CACHE_HOME elsewhere', () => ({ env: { XDG_CACHE_HOME: '/nowhere' } })),
      ]
    : []),
];
