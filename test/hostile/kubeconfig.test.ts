// Damaged and hostile kubeconfig files. What cannot be edited safely stays byte for byte, with an error that gives the
// position. Unusual but valid content keeps every line that is not managed. None of its text reaches a terminal
// uncleaned.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe } from 'vitest';
import { checkCalm, checkCredential, checkFailure, checkTable, checkTexts } from './checks.ts';
import { bystanderKubeconfig, type Fixture, hostileTest } from './fixture.ts';
import { damagedText, evilTexts, fewTexts, randomCases } from './junk.ts';

const test = hostileTest();
const put = (fixture: Fixture, text: string | Buffer) => fs.writeFileSync(fixture.home.kubeconfig, text);

test.concurrent('control: a correct file is edited once, and not changed the second time', async ({ fixture }) => {
  const ran = await fixture.edit('login');
  assert.equal(ran.status, 0, ran.stderr);
  assert.ok(ran.changed);
  const again = await fixture.edit('login');
  assert.equal(again.status, 0);
  assert.ok(!again.changed);
});

const bomb = `a: &a [x,x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
  .split('')
  .map((c, i) => `${c}: &${c} [${`*${'abcdefgh'[i]},`.repeat(10)}]`)
  .join('\n')}\n`;

const damages: Readonly<Record<string, string | Buffer>> = {
  'an unclosed list': 'clusters: [\n',
  'an unclosed quote': 'current-context: "a\n',
  'a tab for indentation': 'clusters:\n\t- name: a\n',
  'conflict markers': `<<<<<<< HEAD\n${bystanderKubeconfig}=======\n>>>>>>> other\n`,
  'a duplicate section': 'clusters: []\nclusters: []\n',
  'a duplicate name': 'clusters:\n- name: a\n- name: a\n',
  'a section that is a map': 'clusters: {a: {server: "https://a"}}\n',
  'a section that is text': 'users: none\n',
  'an item that is text': 'contexts: [a]\n',
  'an item without a name': 'users: [{user: {}}]\n',
  'a name that is a number': 'users: [{name: 7}]\n',
  'a name that is a YAML 1.1 word': 'contexts: [{name: no}]\n',
  'a current context that is a list': 'current-context: [a]\n',
  'another kind': 'kind: Secret\n',
  'another kind with escapes': `kind: ${JSON.stringify(evilTexts['an OSC 52 clipboard'])}\n`,
  'a duplicate name, with escapes': `users:\n- name: ${JSON.stringify('\u001b]52;c;eA==\u0007')}\n- name: ${JSON.stringify('\u001b]52;c;eA==\u0007')}\n`,
  'an alias to nothing, with a forged name': 'users: *error\n',
  'a list': '- a\n- b\n',
  text: 'kubeconfig',
  'an alias bomb': `${bomb}x: [*i, *i]\n`,
  'deep lists': `x: ${'['.repeat(20_000)}${']'.repeat(20_000)}\n`,
  'deep lists in lines': `x:\n${'- '.repeat(20_000)}x\n`,
  'a map as a key': '? {a: b}\n: c\n',
  NULs: Buffer.alloc(3000),
  'an escape': `# \u001b[31m\n${bystanderKubeconfig}`,
  'a C1 control': `# \u009b31m\n${bystanderKubeconfig}`,
  'UTF-16': Buffer.from(`\ufeff${bystanderKubeconfig}`, 'utf16le'),
  'bytes of Latin-1': Buffer.from(`# caf\u00e9\n${bystanderKubeconfig}`, 'latin1'),
  gzip: execFileSync('gzip', ['-c'], { input: bystanderKubeconfig }),
  HTML: '<!doctype html><html>\n',
  'a directive of YAML 1.2': '%YAML 1.2\n---\nkind: Config\n',
  'a section that is an alias': 'x: &x []\nclusters: *x\nusers: *x\ncontexts: *x\n',
  'a section that is merged in': 'x: &x {clusters: []}\n<<: *x\n',
  '17 MiB': Buffer.alloc(17 << 20, '# comment\n'),
};

describe('damage is reported with its position, and stays unchanged', () => {
  const commands = ['login', 'clusters', 'login --all-contexts', 'forget --all'];
  for (const [i, [name, text]] of Object.entries(damages).entries()) {
    // Aliases matter to commands that write.
    const command = /alias$|merged/.test(name) ? 'login' : (commands[i % commands.length] as string);
    test.concurrent(`${name} (${command})`, async ({ fixture }) => {
      put(fixture, text);
      const ran = await fixture.run(command, { may: [...fixture.ownCache, ...fixture.remembered] });
      checkFailure(ran);
      assert.match(ran.stderr, /^error: /m);
      assert.ok(ran.stderr.includes(fixture.home.kubeconfig), 'the file is not named');
      if (!/alias$|merged/.test(name)) {
        assert.match(ran.stderr, /config:\d+:\d+: \S/);
        assert.equal(fixture.cluster.counts.login, 0, 'it signed in all the same');
      }
      assert.ok(ran.stderr.length < 4000);
    });
  }

  test.concurrent.for(['NULs', 'conflict markers', 'an alias bomb'])(
    'damage does not prevent a logout: %s',
    async (name, { fixture }) => {
      fixture.signedIn();
      put(fixture, damages[name] ?? '');
      const ran = await fixture.run('logout', { may: [...fixture.ownCache, /signed-out/] });
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stderr, /^warning: ignoring the kubeconfig: \S.*config:\d+:\d+: \S/);
      checkFailure(await fixture.run(fixture.credentialArgs()));
    },
  );

  test.concurrent.for(['NULs', 'conflict markers', 'an alias bomb', 'HTML'])(
    'damage does not hide the sessions: %s (status)',
    async (name, { fixture }) => {
      put(fixture, damages[name] ?? '');
      const ran = await fixture.run('status');
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stderr, /^warning: \S.*config:\d+:\d+: \S/);
      checkTable(ran.stdout, /^CURRENT +NAME +/, 2);
    },
  );

  const places: Readonly<Record<string, (fixture: Fixture, file: string) => void>> = {
    'a folder': (_, file) => fs.mkdirSync(file),
    'a FIFO': (_, file) => void execFileSync('mkfifo', [file]),
    'a symlink to itself': (_, file) => fs.symlinkSync(file, file),
    'a device that never ends': (_, file) => fs.symlinkSync('/dev/zero', file),
  };
  test.concurrent.for(Object.entries(places))('reports a kubeconfig that is %s', async ([, make], { fixture }) => {
    fs.rmSync(fixture.home.kubeconfig);
    make(fixture, fixture.home.kubeconfig);
    const ran = await fixture.run('login', { may: fixture.ownCache });
    checkFailure(ran);
    assert.equal(fixture.cluster.counts.login, 0);
  });

  test.concurrent('a kubectl lock that is never released is reported, and kept', async ({ fixture }) => {
    fs.writeFileSync(`${fixture.home.kubeconfig}.lock`, '');
    const ran = await fixture.run('login', {
      timeout: '2s',
      may: fixture.ownCache,
      leftovers: ['.kube/config.lock'],
    });
    checkFailure(ran);
    assert.ok(fs.existsSync(`${fixture.home.kubeconfig}.lock`));
  });

  for (const [name, text] of Object.entries({
    NULs: damages.NULs,
    'an unclosed list': damages['an unclosed list'],
    'deep lists': damages['deep lists'],
  })) {
    test.concurrent(`\`credential\` does not read damage: ${name}`, async ({ fixture }) => {
      put(fixture, text ?? '');
      checkCredential(await fixture.freshCredential());
    });
  }
});

describe('unusual but valid content is edited, and everything else is kept', () => {
  const sound: Readonly<Record<string, string>> = {
    'a BOM': `\ufeff${bystanderKubeconfig}`,
    CRLF: bystanderKubeconfig.replaceAll('\n', '\r\n'),
    'no newline at the end': bystanderKubeconfig.trimEnd(),
    'an end of the document, and another': `${bystanderKubeconfig}---\nkind: Other\n`,
    'a document start with a comment': `--- # here\n${bystanderKubeconfig}`,
    'keys of a prototype': `${bystanderKubeconfig}__proto__: {clusters: []}\nconstructor: {a: b}\n`,
    'unknown sections of hostile text': `${bystanderKubeconfig}"\\e]52;c;eA==\\a": "$(touch pwned)"\n'<<': x\n`,
    'names of hostile text': bystanderKubeconfig
      .replaceAll(/\bwork\b(?!\.example)/g, '"\\e]52;c;eA==\\a\\nerror: forged"')
      .replace('\'"\\e]52;c;eA==\\a\\nerror: forged"\'', '"\\e]52;c;eA==\\a\\nerror: forged"'),
    'a name of 100,000 letters': `${bystanderKubeconfig}- name: ${'x'.repeat(100_000)}\n  user: {}\n`,
    '2,000 users':
      bystanderKubeconfig + Array.from({ length: 2000 }, (_, i) => `- {name: u${i}, user: {token: t}}\n`).join(''),
  };
  test.concurrent.for(Object.entries(sound))('%s', async ([, text], { fixture }) => {
    put(fixture, text);
    const ran = await fixture.run('login', { may: fixture.loginMay });
    const after = fs.readFileSync(fixture.home.kubeconfig, 'utf8');
    if (ran.status === 1) {
      assert.equal(after, text);
      checkFailure(ran);
      return;
    }
    checkCalm(ran.stderr);
    assert.equal(ran.status, 0);
    assert.equal(ran.stdout.split('\n').length, 3, ran.stdout);
    let at = 0;
    for (const line of text.split('\n').filter((one) => one.trim() !== '' && !/^current-context:/.test(one))) {
      at = after.indexOf(line, at);
      assert.ok(at >= 0, `the kubeconfig has lost ${JSON.stringify(line.slice(0, 200))}`);
    }
  });
});

/** Returns a managed context for the server, with hostile names and values. */
function oursWith(
  fixture: Fixture,
  fields: { name?: string; server?: string; api?: string; command?: string; ca?: string },
): string {
  const q = (text: string) =>
    JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const {
    name = 'mine',
    server = fixture.cluster.server,
    api = fixture.cluster.apiServer,
    command = '/bin/true',
    ca,
  } = fields;
  const mark = `extensions: [{extension: {server: ${q(server)}}, name: tka.specht-labs.de}]`;
  return bystanderKubeconfig
    .replace(
      'contexts:\n',
      `- cluster: {server: ${q(api)}, ${mark}${ca === undefined ? '' : `, certificate-authority-data: ${q(ca)}`}}\n  name: ${q(name)}\ncontexts:\n- context: {cluster: ${q(name)}, user: ${q(name)}, ${mark}}\n  name: ${q(name)}\n`,
    )
    .replace(
      'users:\n',
      `users:\n- name: ${q(name)}\n  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: ${q(command)}, args: [credential, --server, ${q(server)}], interactiveMode: Never}, ${mark}}\n`,
    )
    .replace('current-context: work', `current-context: ${q(name)}`);
}

describe('entries that look managed', () => {
  const names = Object.entries(fewTexts).filter(([, text]) => text.isWellFormed() && text.length < 1000);
  for (const [i, [name, text]] of names.entries()) {
    const command = ['status', 'clusters', 'login', 'logout'][i % 4] as string;
    test.concurrent(`a context’s name with ${name} (${command})`, async ({ fixture }) => {
      fixture.signedIn();
      put(fixture, oursWith(fixture, { name: text }));
      const ran = await fixture.run(command, { may: [...fixture.loginMay, /signed-out/] });
      if (command === 'clusters' || command === 'status') {
        assert.equal(ran.status, 0, ran.stderr);
        checkTable(ran.stdout, /^CURRENT +NAME +/, command === 'status' ? 3 : 8);
      } else assert.ok(ran.stdout.split('\n').length <= 3, `forged lines: ${ran.stdout}`);
    });
  }

  test.concurrent('hostile names, in all formats', async ({ fixture }) => {
    fixture.signedIn();
    put(
      fixture,
      oursWith(fixture, {
        name: `${evilTexts['an OSC 52 clipboard']}${evilTexts['a forged error']}${evilTexts['zero width']}`,
      }),
    );
    for (const command of ['status', 'clusters']) {
      for (const format of ['json', 'yaml', 'name'])
        assert.equal((await fixture.run(`${command} -o ${format}`, { may: fixture.remembered })).status, 0);
    }
    assert.equal((await fixture.run('status -o name')).stdout.split('\n').length, 4);
  });

  const fields: Readonly<Record<string, Parameters<typeof oursWith>[1]>> = {
    'a server that is a script': { server: 'javascript:alert(1)' },
    'a server with a forged error': { server: evilTexts['a forged error'] as string },
    'a server with credentials': { server: 'https://a:b@evil.example' },
    'another API server': { api: 'https://evil.example:6443' },
    'an API server with escapes': { api: 'https://a\u001b]52;c;eA==\u0007' },
    'a command with escapes': { command: '/tmp/\u001b[31m$(touch pwned)' },
    'a command with several lines': { command: '/bin/sh\n-c\ntouch pwned' },
    'a CA that is not base64': { ca: '\u001b[31m' },
    'another CA': { ca: 'QUJD' },
  };
  test.concurrent.for(Object.entries(fields))(
    '%s: a login repairs it, or reports why not',
    async ([, change], { fixture }) => {
      const text = oursWith(fixture, change);
      put(fixture, text);
      const ran = await fixture.run('login', { may: fixture.loginMay });
      if (ran.status === 1) {
        checkFailure(ran);
        assert.equal(fs.readFileSync(fixture.home.kubeconfig, 'utf8'), text);
      } else assert.equal(ran.status, 0);
      const list = await fixture.run('clusters -o json', { may: fixture.remembered });
      checkTexts(JSON.parse(list.stdout), 'clusters -o json');
    },
  );

  test.concurrent('a list does not change a managed context to an unknown server', async ({ fixture }) => {
    put(fixture, oursWith(fixture, { name: fixture.cluster.name, server: 'https://evil.example' }));
    const ran = await fixture.run('login --all-contexts', {
      timeout: '2s',
      may: fixture.loginMay,
    });
    assert.ok(ran.status === 0 || ran.status === 1);
    const text = fs.readFileSync(fixture.home.kubeconfig, 'utf8');
    assert.equal(text.match(/evil\.example/g)?.length, 4, 'a stranger’s context has changed');
  });
});

describe('a damaged previous context', () => {
  for (const text of [
    '',
    'null',
    '[]',
    '{"context":7}',
    JSON.stringify({ context: evilTexts['a forged error'] }),
    JSON.stringify({ context: evilTexts['an OSC 52 clipboard'] }),
    '['.repeat(30_000),
  ]) {
    test.concurrent(JSON.stringify(text.slice(0, 50)), async ({ fixture }) => {
      await fixture.edit('login');
      const folder = path.join(fixture.home.state, 'previous-context');
      const [file] = fs.readdirSync(folder);
      fs.writeFileSync(path.join(folder, file ?? ''), text);
      checkFailure(await fixture.run('use -'));
    });
  }
});

describe('random damage of the kubeconfig', () => {
  test.concurrent.for(randomCases(20, 7))('%s', async ([, chance], { fixture }) => {
    const bad = damagedText(oursWith(fixture, {}), chance);
    put(fixture, bad);
    try {
      const ran = await fixture.run('login --no-switch', {
        may: fixture.loginMay,
      });
      if (ran.status === 0) return;
      checkFailure(ran);
      assert.equal(fs.readFileSync(fixture.home.kubeconfig, 'utf8'), bad);
    } catch (error) {
      if (error instanceof Error) error.message += `\nfile: ${JSON.stringify(bad)}`;
      throw error;
    }
  });
});
