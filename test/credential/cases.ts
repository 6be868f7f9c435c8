// What may lie in the cache, and how the cached path may be called: one table, to which both readers of an entry are held
// (src/credential/fast.ts and cmd/kubectl-tka.sh).
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type CacheEntry, entryName, formatEntry } from '../../src/credential/entry.ts';
import { callerOf } from '../../src/credential/served.ts';

export const server = 'http://127.0.0.11:8123';
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

/** The whole entry with another text as its nth line. */
export const line = (n: number, text: string): string =>
  whole
    .split('\n')
    .map((old, i) => (i === n ? text : old))
    .join('\n');
const withToken = (token: string) => line(4, token).replace(/^tka1 [0-9]+/, `tka1 ${token.length}`);

/** Damaged files, by what happened to them: none may be served, none may hang or throw. */
export const damages: readonly (readonly [string, string | Buffer])[] = [
  ['empty', ''],
  ['a newline', '\n'],
  ['another version', line(0, `tka2 ${entry.token.length} ${entry.freshUntil}`)],
  ['a length that is one too small', line(0, `tka1 ${entry.token.length - 1} ${entry.freshUntil}`)],
  ['a length that is one too large', line(0, `tka1 ${entry.token.length + 1} ${entry.freshUntil}`)],
  ['a length with a leading zero', line(0, `tka1 0${entry.token.length} ${entry.freshUntil}`)],
  ['a length with a sign', line(0, `tka1 +${entry.token.length} ${entry.freshUntil}`)],
  ['a length that is a pattern', line(0, `tka1 * ${entry.freshUntil}`)],
  ['no length', line(0, 'tka1')],
  ['no moment', line(0, `tka1 ${entry.token.length} `)],
  ['a moment of thirteen digits', line(0, `tka1 ${entry.token.length} 000${entry.freshUntil}`)],
  ['a moment that is no number', line(0, `tka1 ${entry.token.length} ${entry.freshUntil}x`)],
  ['two spaces', line(0, `tka1  ${entry.token.length} ${entry.freshUntil}`)],
  ['a tab', line(0, `tka1\t${entry.token.length} ${entry.freshUntil}`)],
  ['a space before', ` ${whole}`],
  ['a newline before', `\n${whole}`],
  ['more on the first line', line(0, `tka1 ${entry.token.length} ${entry.freshUntil} x`)],
  ['another server', line(1, 'http://127.0.0.12:8123')],
  ['the server with a space behind it', line(1, `${server} `)],
  ['the server with a backslash behind it', line(1, `${server}\\`)],
  ['no API server', line(2, '')],
  ['an API server without a name', line(2, 'https://')],
  ['an API server over http', line(2, 'http://127.0.0.11:6443')],
  ['an API server with a quote', line(2, 'https://a"b c')],
  ['an API server of other letters', line(2, 'https://é')],
  ['an API server with a control', line(2, 'https://a\u007f')],
  ['an API server without end', line(2, `https://${'a'.repeat(3000)}`)],
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
  ['a token of other letters', withToken('a.é.c')],
  ['a token of Latin-1', Buffer.from(withToken('a.é.c'), 'latin1')],
  ['a token that is too long', withToken(`a.${'b'.repeat(16 * 1024 - 3)}.c`)],
  ['a token that is far too long', withToken(`a.${'b'.repeat(300_000)}.c`)],
  ['CRLF', whole.replaceAll('\n', '\r\n')],
  ['a BOM', `\ufeff${whole}`],
  ['a NUL in the place of a letter', line(4, `\0${entry.token.slice(1)}`)],
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

/** A private HOME with a cache folder that is yet empty. */
export interface Fixture {
  readonly home: string;
  readonly folder: string;
  /** The entry of `server`. */
  readonly file: string;
  /** Puts an entry in its place. */
  put(text?: string | Buffer, mtime?: number, file?: string): void;
}

export interface Call {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Case {
  readonly name: string;
  /** Makes what lies there, and says how to call (a Call): as a context does, unless it says otherwise. */
  readonly arrange: (fixture: Fixture) => unknown;
  /**
   * `program`: the front leaves to the program what it could serve, since no shell can do it safely. `front`: it serves
   * what the program would not, since no shell can tell. `either`: the program serves it, and so may the front.
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
/** A whole, fresh entry, and something else as well. */
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
/** An entry whose head and mtime say so many seconds from now. */
const until = (head: number, mtime: number) => (fixture: Fixture) => {
  const clock = Math.floor(Date.now() / 1000);
  fixture.put(line(0, `tka1 ${entry.token.length} ${clock + head}`), clock + mtime);
};
const of = (served: boolean, url: string) =>
  c(served, `the server ${JSON.stringify(url)}`, (fixture) => {
    const name = entryName(url) ?? url.replace('://', '+').replaceAll(':', '+');
    // What has no name may have a file all the same.
    const file = path.join(fixture.folder, name.replaceAll('/', '').replaceAll('\0', '') || 'none');
    fixture.put(formatEntry({ ...entry, server: url }), entry.freshUntil, file);
    return { args: ['credential', '--server', url] };
  });

/** An entry with a note of whom it was served to, so many seconds ago. */
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
/** The marks of a logout in a state folder: whatever is there is one. */
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
  c(true, 'a minute left', until(60, 60)),
  c(false, 'not a second left', until(0, 0)),
  c(false, 'a second too late', until(-1, -1)),
  c(false, 'long stale', until(-1e9, -1e9)),
  c(false, 'of the moment 0', ({ put }) => put(line(0, `tka1 ${entry.token.length} 0`), 0)),
  c(true, 'of a clock that is years ahead', until(4e8, 4e8)),
  c(true, 'an mtime a second off, as some file systems keep it', until(3600, 3599)),
  c(false, 'an mtime that is past, of what is fresh', until(3600, -10)),
  c(false, 'an mtime that is just past', until(1, -1)),
  c('front', 'an mtime in the future, of what is stale: no shell can tell it from a true one', until(-1, 600)),
  c('front', 'an mtime that is further in the future', until(600, 3600)),
  // Damage.
  ...damages.map(([name, text]) => c(false, `damage: ${name}`, ({ put }) => put(text))),
  ...Array.from({ length: 4 }, (_, i) =>
    c(true, `cut within the details, of which no reader needs any, ${i}`, ({ put }) => {
      const at = whole.lastIndexOf('\n', whole.length - 2) + 1;
      put(whole.slice(0, [at, at + 1, at + 5, whole.length - 1][i]));
    }),
  ),
  c(true, 'followed by anything', ({ put }) => put(whole + 'x\n'.repeat(100_000))),
  c(true, 'the shortest token', ({ put }) => put(withToken('a.b.c'))),
  c(true, 'the longest token', ({ put }) => put(withToken(`a.${'b'.repeat(16 * 1024 - 4)}.c`))),
  c('either', 'with NULs between, which some shells pass over', ({ put }) =>
    put(`\0\0${whole.replace('eyJ', 'e\0yJ')}`),
  ),
  // What else may lie there.
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
  // Whose, and with which bits.
  fresh(false, 'another user’s file (as root only)', ({ file }) => fs.chownSync(file, 12345, 12345), notRoot),
  fresh(false, 'another user’s folder (as root only)', ({ folder }) => fs.chownSync(folder, 12345, 12345), notRoot),
  fresh(false, 'a folder that is shared by its nature', ({ folder }) => fs.chmodSync(folder, 0o1777)),
  fresh(false, 'a file that cannot be read (not as root)', ({ file }) => fs.chmodSync(file, 0), !notRoot),
  ...[0o400, 0o644, 0o666, 0o777].map((mode) =>
    fresh(true, `a file with the mode ${mode.toString(8)}, which the slow path mends`, ({ file }) =>
      fs.chmodSync(file, mode),
    ),
  ),
  ...[0o755, 0o777].map((mode) =>
    fresh(true, `a folder with the mode ${mode.toString(8)}, which the slow path mends`, ({ folder }) =>
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
  // Which callers it was served to: a second question of one is the sign of a 401.
  note(false, 'last to this caller', () => `${process.pid} - - -\n`),
  note(false, 'to this caller, and to three since', () => `1 2 3 ${process.pid}\n`),
  note(true, 'to four others', () => '1 2 3 4\n'),
  note(true, 'to others whose numbers begin or end so', () => `${process.pid}0 1${process.pid} ${process.pid}0:1 -\n`),
  note('program', 'to this caller an hour ago', () => `${process.pid} - - -\n`, 3600),
  note('program', 'to this caller, by a clock that is ahead', () => `${process.pid} - - -\n`, -3600),
  note(false, 'to this caller, with more after the line', () => `${process.pid} - - -\nx\n`),
  note('program', 'to this caller, in a line without an end', () => `${process.pid} - - -`),
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
  ].map((text) => note('program', `in a damaged note: ${JSON.stringify(text).slice(0, 40)}`, () => text)),
  // On Linux a start time tells processes of one ID apart, as in containers, where kubectl has the same one each time.
  ...(process.platform === 'linux'
    ? [
        note(true, 'to an earlier process with this ID', () => `${process.pid}:1 - - -\n`),
        note(false, 'to this very process', () => `${callerOf(process.pid)} - - -\n`),
        note(
          false,
          'to this very process, and to an earlier one',
          () => `${process.pid}:1 ${callerOf(process.pid)} - -\n`,
        ),
      ]
    : []),
  fresh('program', 'a note that is a FIFO', ({ file }) => fifo(`${file}+served`)),
  fresh('program', 'a note that is a directory', ({ file }) => fs.mkdirSync(`${file}+served`)),
  fresh('program', 'a note that is a symlink', ({ file, home }) => {
    fs.writeFileSync(path.join(home, 'mine'), 'mine\n');
    fs.symlinkSync(path.join(home, 'mine'), `${file}+served`);
  }),
  fresh('program', 'a note that is a dangling symlink', ({ file, home }) =>
    fs.symlinkSync(path.join(home, 'pwned'), `${file}+served`),
  ),
  fresh(
    'program',
    'a note of another user (as root only)',
    ({ file }) => {
      fs.writeFileSync(`${file}+served`, '1\n');
      fs.chownSync(`${file}+served`, 12345, 12345);
    },
    notRoot,
  ),
  // Signed out, and the entry is there again: a restored cache, or one that could not be written.
  ...marks(stateOf, undefined),
  ...(process.platform === 'linux'
    ? [
        ...marks(
          (home) => path.join(home, 'state of'),
          (home) => ({ XDG_STATE_HOME: path.join(home, 'state of') }),
        ),
        ...marks(stateOf, () => ({ XDG_STATE_HOME: 'relative' })),
        fresh(true, 'signed out by what XDG_STATE_HOME does not name', ({ home, file }) => {
          putMark(stateOf(home), file, (mark) => fs.writeFileSync(mark, ''));
          return { env: { XDG_STATE_HOME: path.join(home, 'state of') } };
        }),
        fresh('program', 'XDG_STATE_HOME with a way up', ({ home }) => ({
          env: { XDG_STATE_HOME: `${home}/x/../state` },
        })),
      ]
    : []),
  fresh(true, 'another server is signed out', ({ home, file }) => {
    putMark(stateOf(home), `${file}0`, (mark) => fs.writeFileSync(mark, '{}'));
  }),
  fresh(true, 'a file in the place of the state folder', ({ home }) => {
    fs.mkdirSync(path.dirname(stateOf(home)), { recursive: true });
    fs.writeFileSync(stateOf(home), '');
  }),
  // How it is called.
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
  // Names of servers.
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
  // What the caller asks for.
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
  // As others write it, or with what a shell cannot judge.
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
  fresh('program', 'TKA_CACHE_DIR and a HOME with a way up', ({ home, folder }) => ({
    env: { HOME: `${home}/x/..`, TKA_CACHE_DIR: folder },
  })),
  fresh(true, 'TKA_CACHE_DIR with a slash behind it', ({ folder }) => ({ env: { TKA_CACHE_DIR: `${folder}//` } })),
  // Where the marks of logouts are, only the system's user database says then.
  fresh(false, 'TKA_CACHE_DIR and no HOME', ({ folder }) => ({ env: { HOME: undefined, TKA_CACHE_DIR: folder } })),
  fresh(true, 'TKA_CACHE_DIR empty', () => ({ env: { TKA_CACHE_DIR: '' } })),
  fresh(false, 'TKA_CACHE_DIR elsewhere', ({ home }) => ({ env: { TKA_CACHE_DIR: home } })),
  fresh('program', 'TKA_CACHE_DIR with a way up, which a link would lead elsewhere', ({ folder }) => ({
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
        fresh(true, 'XDG_CACHE_HOME relative, which does not count', () => ({ env: { XDG_CACHE_HOME: 'x' } })),
        fresh(false, 'XDG_CACHE_HOME elsewhere', () => ({ env: { XDG_CACHE_HOME: '/nowhere' } })),
      ]
    : []),
];
