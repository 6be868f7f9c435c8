// Damage of the token cache and of the files beside an entry: each is a miss. The call prints a token that the server
// just issued, never one from the damaged file.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe } from 'vitest';
import { readEntry } from '../../src/credential/entry.ts';
import { checkCredential, checkTable, checkTexts } from './checks.ts';
import { type Fixture, hostileTest, makeEntry, makeToken, putEntry } from './fixture.ts';
import { damagedText, evilTexts, fewTexts, randomCases, wrongTypes } from './junk.ts';

const test = hostileTest();

const decoy = makeToken({ sub: 'decoy' });
const whole = (fixture: Fixture, token = decoy) => makeEntry(fixture.cluster.server, fixture.cluster.apiServer, token);
const withLine = (text: string, n: number, line: string) =>
  text
    .split('\n')
    .map((old, i) => (i === n ? line : old))
    .join('\n');
const head = (token: string) => `tka1 ${token.length} ${Math.floor(Date.now() / 1000) + 600}`;
const withToken = (fixture: Fixture, token: string) => withLine(withLine(whole(fixture), 0, head(token)), 4, token);

/** Checks that after a miss the cache contains the whole new entry, and nothing of the old one. */
async function isMiss(fixture: Fixture): Promise<void> {
  const ran = await fixture.freshCredential();
  assert.equal(ran.stderr, '');
  assert.equal(fixture.cluster.counts.login, 1);
  const kept = readEntry(fixture.home.cache, fixture.cluster.server);
  assert.equal(kept?.token, checkCredential(ran), 'the cache does not hold what was given');
  assert.equal(fs.statSync(fixture.entry).mode & 0o777, 0o600);
  const next = await fixture.run(fixture.credentialArgs(), { may: fixture.ownCache });
  assert.deepEqual([next.stdout, next.stderr], [ran.stdout, '']);
  assert.equal(fixture.cluster.counts.login, 1);
}

test.concurrent('control: a whole entry is served without a request to the server', async ({ fixture }) => {
  putEntry(fixture.entry, whole(fixture));
  const ran = await fixture.run(fixture.credentialArgs(), { may: [/\+served$/] });
  assert.equal(checkCredential(ran), decoy);
  assert.equal(fixture.cluster.counts.login, 0);
});

type Damage = (fixture: Fixture) => string | Buffer;
const line =
  (n: number, text: string): Damage =>
  (fixture) =>
    withLine(whole(fixture), n, text);
const token =
  (text: string): Damage =>
  (fixture) =>
    withToken(fixture, text);

// Both readers of an entry are tested with the long table in test/credential/cases.ts; these are entries that attackers
// would write.
const entries: Readonly<Record<string, Damage>> = {
  empty: () => '',
  'a MiB of letters': () => 'x'.repeat(1 << 20),
  'a MiB of newlines': () => '\n'.repeat(1 << 20),
  'a negative length': line(0, `tka1 -${decoy.length} 4000000000`),
  'a length in hexadecimal': line(0, `tka1 0x${decoy.length.toString(16)} 4000000000`),
  'a fresh-until of 1e99': line(0, `tka1 ${decoy.length} 1e99`),
  'a server with an escape': line(1, 'http://127.0.0.1\u001b[31m'),
  'another API server': line(2, 'https://127.0.0.99:6443'),
  'an API server that is a script': line(2, 'javascript:alert(1)'),
  'an API server with an escape': line(2, 'https://a\u001b[31m'),
  'an expiry that is text': line(3, 'tomorrow'),
  'an expiry that ends the JSON': line(3, '2099-01-01T00:00:00Z"}}{"x":{"'),
  'an expiry in the month 99': line(3, '2099-99-99T99:99:99Z'),
  'an expiry in the year 300000': line(3, '+300000-01-01T00:00:00Z'),
  'a token of one part': token('abc'),
  'a token with a backslash': token('a.b\\u001b.c'),
  'a token with an escape': token('a.\u001b[31m.c'),
  'a token with a C1 control': token('a.\u009b31m.c'),
  'a token with a NUL': token('a.\0.c'),
  'a token with a carriage return': token('a.b.c\r'),
  'a token of 100,000 letters': token(`${'a'.repeat(100_000)}.b.c`),
  'a token’s line without an end': (fixture) => whole(fixture).slice(0, whole(fixture).indexOf(decoy) + decoy.length),
  UTF16: (fixture) => Buffer.from(`\ufeff${whole(fixture)}`, 'utf16le'),
  'two entries, the second for the server': (fixture) =>
    `${makeEntry('http://127.0.0.99:8123', fixture.cluster.apiServer, decoy)}${whole(fixture)}`,
  'an ExecCredential': () =>
    JSON.stringify({ kind: 'ExecCredential', status: { token: decoy, expirationTimestamp: '2099-01-01T00:00:00Z' } }),
  'cut before its token': (fixture) => whole(fixture).slice(0, whole(fixture).indexOf(decoy)),
  'cut within its token': (fixture) => whole(fixture).slice(0, whole(fixture).indexOf(decoy) + 50),
  binary: () => '\u0000\u00ff'.repeat(500),
  'in an older form': (fixture) => whole(fixture).replace('tka1', 'tka0'),
  'of another server': (fixture) => makeEntry('http://127.0.0.99:8123', fixture.cluster.apiServer, decoy),
  HTML: () => `<html>${decoy}</html>`,
  gzip: () => execFileSync('gzip', ['-c'], { input: decoy }),
};

describe('a damaged entry is a miss', () => {
  test.concurrent.for(Object.entries(entries))('%s', async ([, damage], { fixture }) => {
    putEntry(fixture.entry, damage(fixture), Math.floor(Date.now() / 1000) + 600);
    await isMiss(fixture);
  });

  test.concurrent('a whole entry that was touched is a miss', async ({ fixture }) => {
    // Not now: the clock of files can be some milliseconds late.
    putEntry(fixture.entry, whole(fixture), Date.now() / 1000 - 1);
    await isMiss(fixture);
  });

  test.concurrent.for(randomCases(25, 1))('%s', async ([, chance], { fixture }) => {
    const good = whole(fixture);
    const bad = damagedText(good, chance);
    putEntry(fixture.entry, bad);
    // Only the slow path reads the text after the token, and not while the entry is fresh.
    const untouched = good.slice(0, good.indexOf(decoy) + decoy.length + 1);
    try {
      if (!bad.startsWith(untouched)) await isMiss(fixture);
      else {
        const ran = await fixture.run(fixture.credentialArgs(), { may: [/\+served$/] });
        assert.equal(checkCredential(ran), decoy);
      }
    } catch (error) {
      if (error instanceof Error) error.message += `\nentry: ${JSON.stringify(bad)}`;
      throw error;
    }
  });
});

const outside = (fixture: Fixture, name: string) => path.join(fixture.home.dir, name);
const fifo = (file: string) => execFileSync('mkfifo', [file]);
const cacheFolder = (fixture: Fixture) => fs.mkdirSync(path.dirname(fixture.entry), { recursive: true, mode: 0o700 });

const notFiles: Readonly<Record<string, (fixture: Fixture, file: string) => void>> = {
  'an empty folder': (_, file) => fs.mkdirSync(file),
  'a folder with a folder': (_, file) => fs.mkdirSync(path.join(file, 'a', 'b'), { recursive: true }),
  'a FIFO': (_, file) => fifo(file),
  'a symlink to a whole entry': (fixture, file) => {
    putEntry(outside(fixture, 'elsewhere'), whole(fixture));
    fs.symlinkSync(outside(fixture, 'elsewhere'), file);
  },
  'a symlink to the kubeconfig': (fixture, file) => fs.symlinkSync(fixture.home.kubeconfig, file),
  'a dangling symlink': (fixture, file) => fs.symlinkSync(outside(fixture, 'pwned'), file),
  'a symlink to itself': (_, file) => fs.symlinkSync(file, file),
  'a symlink to a device that never ends': (_, file) => fs.symlinkSync('/dev/zero', file),
  'a symlink to a folder': (fixture, file) => fs.symlinkSync(path.join(fixture.home.dir, '.ssh'), file),
};

describe('something else in place of an entry is a miss', () => {
  test.concurrent.for(Object.entries(notFiles))('%s', async ([, make], { fixture }) => {
    cacheFolder(fixture);
    make(fixture, fixture.entry);
    const mine = path.relative(fixture.home.dir, fixture.entry);
    const ran = await fixture.run(fixture.credentialArgs(), {
      may: [...fixture.ownCache, new RegExp(`${mine.replaceAll('+', '\\+')}/`)],
    });
    assert.ok(fixture.minted.has(checkCredential(ran)));
    assert.ok(fs.lstatSync(fixture.entry).isFile());
  });
});

describe('a damaged +served is ignored', () => {
  const texts: Readonly<Record<string, string>> = {
    empty: '',
    text: 'nobody\n',
    'a negative number': '-1\n',
    'a huge number': `${'9'.repeat(400)}\n`,
    'a MiB': '1'.repeat(1 << 20),
    NULs: '\0\0\0\0',
    'an escape': '\u001b[31m1\n',
  };
  const all: [string, (fixture: Fixture, file: string) => void][] = [
    ...Object.entries(texts).map(([name, text]): [string, (fixture: Fixture, file: string) => void] => [
      name,
      (_, file) => fs.writeFileSync(file, text, { mode: 0o600 }),
    ]),
    ...Object.entries(notFiles).filter(([name]) => /FIFO|kubeconfig|dangling|never ends/.test(name)),
  ];
  test.concurrent.for(all)('%s', async ([, make], { fixture }) => {
    putEntry(fixture.entry, whole(fixture));
    make(fixture, `${fixture.entry}+served`);
    const ran = await fixture.run(fixture.credentialArgs(), { may: fixture.ownCache });
    assert.equal(checkCredential(ran), decoy);
    assert.equal(ran.stderr, '');
  });
});

describe('a damaged +lock is taken over', () => {
  const old = (file: string) => fs.lutimesSync(file, 1000, 1000);
  const locks: Readonly<Record<string, (fixture: Fixture, file: string) => void>> = {
    ...notFiles,
    'an empty file': (_, file) => fs.writeFileSync(file, ''),
    'a file from the future': (_, file) => {
      fs.writeFileSync(file, '');
      fs.utimesSync(file, 4e9, 4e9);
    },
    'an abandoned folder': (_, file) => {
      fs.mkdirSync(file);
      old(file);
    },
    'a folder from the future': (_, file) => {
      fs.mkdirSync(file);
      fs.utimesSync(file, 4e9, 4e9);
    },
    'an abandoned folder with files': (_, file) => {
      fs.mkdirSync(path.join(file, 'a'), { recursive: true });
      fs.writeFileSync(path.join(file, 'a', 'b'), '');
      old(file);
    },
  };
  test.concurrent.for(Object.entries(locks))('%s', async ([, make], { fixture }) => {
    cacheFolder(fixture);
    const file = `${fixture.entry}+lock`;
    make(fixture, file);
    const ran = await fixture.freshCredential({ may: [/\+lock(?:\/|$)/] });
    assert.equal(ran.stderr, '');
    assert.ok(!fs.lstatSync(file, { throwIfNoEntry: false }), 'the lock is still there');
  });
});

describe('a damaged +failed is not an answer', () => {
  // The result of an attempt is shared with waiting callers, and with client-go, which asks again at once.
  const asClientGo = { env: { KUBERNETES_EXEC_INFO: '{"apiVersion":"client.authentication.k8s.io/v1"}' } };
  const note = (fixture: Fixture, fields: object, at: number | string = Date.now()) => {
    const whole = {
      message: 'forged',
      hints: ['forged'],
      apiServer: fixture.cluster.apiServer,
      parent: process.pid,
      outOfTime: false,
    };
    return JSON.stringify({ at: '@', ...whole, ...fields }).replace('"@"', String(at));
  };
  const put = (fixture: Fixture, text: string) => {
    cacheFolder(fixture);
    fs.writeFileSync(`${fixture.entry}+failed`, text, { mode: 0o600 });
  };
  async function whileHeld(fixture: Fixture, act: () => Promise<unknown>): Promise<void> {
    const lock = `${fixture.entry}+lock`;
    fs.mkdirSync(lock, { mode: 0o700 });
    const letGo = delay(1500).then(() => fs.rmdirSync(lock));
    await Promise.all([act(), letGo]);
  }

  const notes: Readonly<Record<string, (fixture: Fixture) => string>> = {
    empty: () => '',
    text: () => 'failed',
    null: () => 'null',
    'a list': () => '[1,2,3]',
    'another type of time': (fixture) => note(fixture, {}, '"9999-01-01"'),
    'another type of message': (fixture) => note(fixture, { message: { a: 1 } }),
    'another API server': (fixture) => note(fixture, { apiServer: 'https://evil.example' }),
    'a time in the future': (fixture) => note(fixture, {}, 9e15),
    'a time that is too large': (fixture) => note(fixture, {}, '1e400'),
    'a time long ago': (fixture) => note(fixture, {}, 1),
    'a time that is too small': (fixture) => note(fixture, {}, '-1e400'),
    'a deep list': () => '['.repeat(20_000),
    'a MiB': (fixture) => note(fixture, { message: 'x'.repeat(1 << 20) }),
    NULs: () => '\0'.repeat(1000),
  };
  for (const [i, [name, text]] of Object.entries(notes).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      put(fixture, text(fixture));
      const call = async () => {
        const ran = await fixture.freshCredential({ ...asClientGo, may: [/\+lock\/?$/] });
        assert.equal(ran.stderr, '');
      };
      if (i % 2 === 0) await call();
      else await whileHeld(fixture, call);
    });
  }
});

describe('an entry with damaged details', () => {
  const details: Readonly<Record<string, string>> = {
    nothing: '',
    'not JSON': '{"username":',
    null: 'null',
    'a number': '7',
    'a list': '[]',
    'a deep list': '['.repeat(100_000),
    ...Object.fromEntries(
      ['null', 'a number', 'a map'].map((name) => [
        `a username that is ${name}`,
        JSON.stringify({ username: wrongTypes[name] }),
      ]),
    ),
  };
  test.concurrent.for(Object.entries(details))('is a miss once it is stale: %s', async ([, text], { fixture }) => {
    const past = Math.floor(Date.now() / 1000) - 60;
    const good = withLine(whole(fixture), 0, `tka1 ${decoy.length} ${past}`);
    putEntry(fixture.entry, withLine(good, 5, text), past);
    await isMiss(fixture);
  });

  const session = { username: 'alice', role: 'viewer', until: '2099-01-01T00:00:00Z', clockOffset: 0, caData: '' };
  const told: Readonly<Record<string, object>> = {
    ...Object.fromEntries(
      Object.entries(fewTexts).map(([name, text]) => [`a username with ${name}`, { username: text }]),
    ),
    'a role with a forged error': { role: evilTexts['a forged error'] },
    'a clock that is far ahead': { clockOffset: 1e300 },
    'a clock that is far behind': { clockOffset: -1e300 },
    'an until that is text': { until: 'soon' },
    'an until with a comment': { until: '1 Jan 2099 (\u001b]52;c;eA==\u0007)' },
    'an until with a C1 control': { until: '1 Jan 2099 (\u009b31m)' },
    'an until in the year 300000': { until: '+300000-01-01T00:00:00Z' },
    'an until in the year 275000': { until: '+275000-01-01T00:00:00Z' },
  };
  test.concurrent.for(Object.entries(told))(
    'is shown as plain text, or not at all: %s',
    async ([, change], { fixture }) => {
      const text = JSON.stringify({ insecureSkipTlsVerify: false, ...session, ...change });
      putEntry(fixture.entry, withLine(whole(fixture), 5, text));
      const rows = await statusRows(fixture);
      const table = await fixture.run('status');
      assert.equal(table.status, 0);
      checkTable(table.stdout, /^CURRENT +NAME +USER +ROLE +STATE +EXPIRES +CONTEXT +TKA SERVER$/, rows.length);
    },
  );
});

/** Runs `status -o json` and `-o yaml`, which must agree, and returns the rows. */
async function statusRows(fixture: Fixture): Promise<{ server: string; state: string }[]> {
  const json = await fixture.run('status -o json');
  assert.equal(json.status, 0);
  const rows = JSON.parse(json.stdout);
  checkTexts(rows, 'status -o json');
  for (const row of rows) {
    assert.deepEqual(Object.keys(row), ['name', 'server', 'through', 'username', 'role', 'until', 'context', 'state']);
    if (row.until !== null)
      assert.match(row.until, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'until is not an RFC 3339 time');
    assert.ok(['active', 'expired', 'signed-out'].includes(row.state));
  }
  assert.ok(
    rows.some((row: { server: string }) => row.server === 'http://127.0.0.99:8123'),
    'the bystander is not shown',
  );
  return rows;
}

describe('a logout mark counts, whatever its content', () => {
  const marks: Readonly<Record<string, (fixture: Fixture, file: string) => void>> = {
    'control: a whole mark': (_, file) =>
      fs.writeFileSync(file, '{"username":"alice","role":"viewer","until":"2099-01-01T00:00:00Z"}'),
    empty: (_, file) => fs.writeFileSync(file, ''),
    'not JSON': (_, file) => fs.writeFileSync(file, '{"username":'),
    'a list': (_, file) => fs.writeFileSync(file, '[]'),
    'fields of other types': (_, file) => fs.writeFileSync(file, '{"username":7,"role":null,"until":{}}'),
    'a name with escapes': (_, file) =>
      fs.writeFileSync(
        file,
        JSON.stringify({ username: evilTexts['an OSC 52 clipboard'], role: evilTexts['a forged error'] }),
      ),
    'an until that is text': (_, file) => fs.writeFileSync(file, '{"username":"alice","until":"soon"}'),
    'an until in the year 300000': (_, file) => fs.writeFileSync(file, '{"until":"+300000-01-01T00:00:00Z"}'),
    'an until with a C1 control': (_, file) => fs.writeFileSync(file, '{"until":"1 Jan 2099 (\\u009b31m)"}'),
    'a MiB': (_, file) => fs.writeFileSync(file, 'x'.repeat(1 << 20)),
    ...Object.fromEntries(
      Object.entries(notFiles).filter(([name]) => /empty folder|FIFO|kubeconfig|dangling|itself/.test(name)),
    ),
  };
  test.concurrent.for(Object.entries(marks))('%s', async ([name, make], { fixture }) => {
    const file = path.join(fixture.home.state, 'signed-out', path.basename(fixture.entry));
    make(fixture, file);
    putEntry(fixture.entry, whole(fixture), 0);
    const refused = await fixture.run(fixture.credentialArgs(), { may: [/\+served$/] });
    assert.equal(refused.status, 1);
    assert.equal(refused.stdout, '');
    assert.match(refused.stderr, /^error: signed out of http:\S+\nhint: kubectl tka login http:\S+\n$/);
    assert.equal(fixture.cluster.counts.login, 0);
    const rows = await statusRows(fixture);
    assert.equal(rows.find(({ server }) => server === fixture.cluster.server)?.state, 'signed-out');
    if (name.includes('until')) {
      const table = await fixture.run('status');
      assert.equal(table.status, 0);
      checkTable(table.stdout, /^CURRENT +NAME +USER/, rows.length);
    }
  });
});

describe('a damaged consent does not count', () => {
  const consents = [
    '',
    'null',
    '{"apiServer":true}',
    '{"apiServer":"https://127.0.0.99:6443"}',
    `${'['.repeat(10_000)}`,
    '{"apiServer":"*"}',
  ];
  for (const text of consents) {
    test.concurrent(text.slice(0, 50) || 'empty', async ({ fixture }) => {
      fixture.home.write(path.join(fixture.home.state, 'insecure', path.basename(fixture.entry)), text);
      fixture.cluster.faults.routes.kubeconfig = {
        change: (answer: { clusters: { 'tka-cluster': Record<string, unknown> } }) => {
          answer.clusters['tka-cluster']['insecure-skip-tls-verify'] = true;
          return answer;
        },
      };
      const ran = await fixture.noCredential({ timeout: '60s' });
      assert.match(ran.stderr, /skip TLS verification of \S+\nhint: if you accept that/);
    });
  }
});

describe('names in the cache folder that are not entries', () => {
  const names = [
    'https+..+..+etc+passwd',
    'https+a\nerror: forged',
    'http+\u001b[31m',
    'http+127.0.0.1+8123\u009b',
    'https+__proto__',
    '-rf',
    'https+a+99999999',
    `https+${'a'.repeat(240)}`,
    'https++++',
  ];
  test.concurrent('are ignored', async ({ fixture }) => {
    for (const name of names) putEntry(path.join(fixture.home.cache, name), whole(fixture));
    fs.mkdirSync(path.join(fixture.home.cache, 'https+folder.example'));
    assert.equal((await statusRows(fixture)).length, 2);
    await isMiss(fixture);
  });
  test.concurrent('are ignored in large numbers', async ({ fixture }) => {
    for (let i = 0; i < 3000; i++) fs.writeFileSync(path.join(fixture.home.cache, `http+10.0.0.${i}+80`), 'x');
    assert.equal((await statusRows(fixture)).length, 2);
  });
});

describe('a cache that cannot be written still gives a token, with one warning', () => {
  const folders: Readonly<Record<string, (fixture: Fixture, folder: string) => void>> = {
    'the folder is a file': (_, folder) => fs.writeFileSync(folder, 'x'),
    'the folder is a dangling symlink': (fixture, folder) => fs.symlinkSync(outside(fixture, 'nowhere'), folder),
    'the folder is a FIFO': (_, folder) => fifo(folder),
    'the folder is a device': (_, folder) => fs.symlinkSync('/dev/null', folder),
    'the folder is in a file': (_, folder) => fs.writeFileSync(path.dirname(folder), 'x'),
    'the folder is shared with others': (_, folder) => {
      fs.mkdirSync(folder);
      fs.chmodSync(folder, 0o1777);
    },
  };
  test.concurrent.for(Object.entries(folders))('%s', async ([name, make], { fixture }) => {
    const folder = path.join(fixture.home.root, 'other', 'cache');
    if (name !== 'the folder is in a file') fs.mkdirSync(path.dirname(folder));
    make(fixture, folder);
    const ran = await fixture.run(fixture.credentialArgs(), { env: { TKA_CACHE_DIR: folder } });
    assert.ok(fixture.minted.has(checkCredential(ran)));
    assert.match(ran.stderr, /^warning: cannot write the token cache, so every call signs in: [^\n]+\n$/);
    assert.equal(fixture.cluster.counts.login, 1);
  });

  test.concurrent('a path with line breaks forges no lines', async ({ fixture }) => {
    const folder = path.join(fixture.home.root, 'a\nerror: forged\u001b[31m');
    fs.writeFileSync(folder, '');
    const ran = await fixture.run(fixture.credentialArgs(), { env: { TKA_CACHE_DIR: folder } });
    assert.ok(fixture.minted.has(checkCredential(ran)));
    assert.equal(ran.stderr.split('\n').length, 2);
  });
});

describe('the API server’s answer to the check of a token', () => {
  // Two calls of one parent, as kubectl makes them after a 401.
  const twice = async (fixture: Fixture) => {
    const ran = await fixture.home.credential(fixture.cluster, { times: 2, env: { TKA_TIMEOUT: '60s' } });
    assert.equal(ran.status, 0, ran.stderr);
    assert.equal(ran.stderr, '');
    return ran.stdout
      .split('\n')
      .slice(0, -1)
      .map((one) => JSON.parse(one).status.token);
  };
  test.concurrent('control: a 401 leads to a new token', async ({ fixture }) => {
    await fixture.freshCredential();
    fixture.cluster.deleteServiceAccount();
    const [first, second] = await twice(fixture);
    assert.notEqual(first, second);
    assert.ok(fixture.minted.has(second));
  });
  const faults = {
    'a redirect': { answer: { status: 302, headers: { Location: 'https://127.0.0.1:1/' } } },
    'a 500': { answer: { status: 500 } },
    'a 403': { answer: { status: 403, body: '<html>' } },
    silence: { silent: true },
    'a reset': { reset: 'before' },
    '20 MiB of a 200': { oversizeMiB: 20 },
    'a trickle': { trickleMs: 100 },
    'gzip bytes': {
      answer: { status: 200, body: Buffer.from([0x1f, 0x8b, 8, 0]), headers: { 'Content-Encoding': 'gzip' } },
    },
  } as const;
  test.concurrent.for(Object.entries(faults))(
    '%s is not a refusal: the token is served unchanged',
    async ([, fault], { fixture }) => {
      await fixture.freshCredential();
      fixture.cluster.faults.routes.api = fault;
      fixture.cluster.resetCounts();
      const [first, second] = await twice(fixture);
      assert.equal(first, second);
      assert.equal(fixture.cluster.counts.login, 0);
      assert.equal(fixture.cluster.counts.api, 1);
    },
  );
});

test.concurrent('an API server in a damaged entry gets no token: its CA is not the cluster’s', async ({ fixture }) => {
  // The cluster's API stand-in plays the attacker. It gets no request, since the entry has no CA for it.
  putEntry(fixture.entry, whole(fixture));
  const ran = await fixture.home.credential(fixture.cluster, { times: 2, env: { TKA_TIMEOUT: '60s' } });
  assert.equal(ran.status, 0, ran.stderr);
  assert.equal(fixture.cluster.counts.api, 0);
  assert.ok(ran.stdout.includes(decoy));
});
