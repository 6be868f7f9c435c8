// Damage of the configuration file: each problem is reported with file, line and key, in plain text, and the file is
// not changed. Unusual but valid content is read as the Go CLI reads it.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe } from 'vitest';
import { checkCredential, checkFailure, checkPlain, checkTexts } from './checks.ts';
import { type Fixture, hostileTest } from './fixture.ts';
import { damagedText, evilTexts, randomCases } from './junk.ts';

const test = hostileTest();

function put(fixture: Fixture, text: string | Buffer): void {
  fs.writeFileSync(fixture.home.config, text);
}

interface Setting {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
}

async function settings(fixture: Fixture): Promise<Map<string, Setting>> {
  const ran = await fixture.run('config -o json');
  assert.equal(ran.status, 0, ran.stderr);
  const rows: Setting[] = JSON.parse(ran.stdout);
  return new Map(rows.map((row) => [row.key, row]));
}

test.concurrent('control: a correct file', async ({ fixture }) => {
  const read = await settings(fixture);
  assert.deepEqual(read.get('tailscale.hostname'), {
    key: 'tailscale.hostname',
    value: fixture.cluster.server,
    source: fixture.home.config,
  });
  assert.equal(read.get('output.theme')?.value, 'dark');
  assert.equal(
    (await fixture.run('clusters -o name', { may: fixture.remembered })).stdout,
    'c0\nc1\nc2\nc3\nc4\nc5\nc6\nc7\n',
  );
});

const nest = (open: string, close: string, times: number) => open.repeat(times) + close.repeat(times);
const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
  .split('')
  .map((c, i) => `${c}: &${c} [${`*${'abcdefgh'[i]},`.repeat(9)}]`)
  .join('\n')}\n`;

/** The file's content, and the lines that must be reported. */
const damages: Readonly<Record<string, [text: string | Buffer, told: RegExp]>> = {
  'a list': ['- a\n', /:1:\d+: must be a map of settings$/m],
  text: ['tailscale', /:1:\d+: must be a map of settings$/m],
  'an unclosed quote': ['tailscale:\n  hostname: "tka\n', /:\d+:\d+: \S/],
  'an unclosed list': ['tailscale: [\n', /:\d:\d+: \S/],
  'a tab for indentation': ['tailscale:\n\thostname: a\n', /:2:\d+: \S/],
  'wrong indentation': ['tailscale:\n  hostname: a\n tailnet: b\n', /:3:\d+: \S/],
  'a duplicate key': ['debug: true\ndebug: false\n', /:2:\d+: \S/],
  'a duplicate key in two spellings': [
    'tailscale:\n  hostname: a\n  HostName: b\n',
    /:3:\d+: tailscale\.HostName is set twice$/m,
  ],
  'a duplicate section in two spellings': [
    'tailscale:\n  port: 1\nTailscale:\n  Port: 2\n',
    /:4:\d+: Tailscale\.Port is set twice$/m,
  ],
  'conflict markers': ['<<<<<<< HEAD\ndebug: true\n=======\ndebug: false\n>>>>>>> x\n', /:\d:\d+: \S/],
  'an alias to nothing': ['debug: *nothing\n', /:1:\d+: \S/],
  'an anchor in itself': ['tailscale: &a\n  hostname: *a\n', /:2:\d+: tailscale\.hostname must be text$/m],
  'a port of 0': ['tailscale:\n  port: 0\n', /:2:\d+: tailscale\.port must be a port from 1 to 65535$/m],
  'a port of 65536': ['tailscale:\n  port: 65536\n', /must be a port/],
  'a fractional port': ['tailscale:\n  port: 443.5\n', /must be a port/],
  'an infinite port': ['tailscale:\n  port: .inf\n', /must be a port/],
  'a port that is not a number': ['tailscale:\n  port: .nan\n', /must be a port/],
  'a negative port': ['tailscale:\n  port: -1\n', /must be a port/],
  'a port that is a list': ['tailscale:\n  port: [443]\n', /must be a port/],
  'a port that is text': ['tailscale:\n  port: "443; touch pwned"\n', /must be a port/],
  'a port of 400 digits': [`tailscale:\n  port: ${'9'.repeat(400)}\n`, /must be a port/],
  'a host that is a list': ['tailscale:\n  hostname: [a]\n', /:2:\d+: tailscale\.hostname must be text$/m],
  'a host that is a map': ['tailscale:\n  hostname: {a: b}\n', /must be text/],
  'a host that is true': ['tailscale:\n  hostname: yes\n', /must be text/],
  'a host that is a time': ['tailscale:\n  hostname: !!timestamp 2020-01-01\n', /must be text/],
  'a host that is binary': ['tailscale:\n  hostname: !!binary aGk=\n', /must be text/],
  'a host that is a function': ['tailscale:\n  hostname: !!js/function "function(){}"\n  port: x\n', /must be a port/],
  'a host of 2,000 letters': [`tailscale:\n  hostname: ${'a'.repeat(2000)}\n`, /must be one line of plain text$/m],
  'a host with an escape': ['tailscale:\n  hostname: "a\\e[31m"\n', /must be one line of plain text$/m],
  'a host with a newline': ['tailscale:\n  hostname: "a\\nerror: forged"\n', /must be one line of plain text$/m],
  'a host with a C1 control': ['tailscale:\n  hostname: "a\\x9b31m"\n', /must be one line of plain text$/m],
  'a section that is a list': ['tailscale:\n- hostname: a\n', /:1:\d+: tailscale must be a map$/m],
  'a section that is text': ['tailscale: tka\n', /:1:\d+: tailscale must be a map$/m],
  'a boolean that is text': ['debug: "perhaps"\n', /:1:\d+: debug must be true or false$/m],
  'a boolean that is a number': ['output:\n  quiet: 7\n', /:2:\d+: output\.quiet must be true or false$/m],
  'a tailnet with invisible characters': [
    `tailscale:\n  tailnet: ${JSON.stringify(evilTexts['zero width'])}\n`,
    /:2:3: tailscale\.tailnet must be a DNS suffix like example\.ts\.net$/m,
  ],
  'everything wrong at once': [
    'tailscale:\n  hostname: []\n  port: 0\n  tailnet: {}\ndebug: x\n',
    /^(?:error: bad configuration: \/[^\n]+:[2345]:\d+: [^\n]+\n){4}hint: [^\n]+\n$/,
  ],
  NULs: [Buffer.alloc(100), /:\d+:\d+: \S/],
  'a NUL in a value': ['tailscale:\n  hostname: "a\0b"\n', /:\d+:\d+: \S/],
  'an escape in the text': ['tailscale:\n  hostname: a\u001b[31m\n', /:\d+:\d+: \S/],
  'hostile keys near known names': [
    'tailscale:\n  "hostname\\e[31m": a\n  port: "\\e]52;c;eA==\\a"\n',
    /:3:\d+: tailscale\.port must be a port/,
  ],
  'UTF-16': [Buffer.from('\ufeffdebug: true\n', 'utf16le'), /:1:\d+: \S/],
  'more than a MiB': [`# ${'x'.repeat(1 << 20)}\n`, /: is larger than 64 KiB$/m],
  'deep lists': [`tailscale: ${nest('[', ']', 30_000)}\n`, /:1:\d+: \S/],
  'deep maps': [`tailscale: ${nest('{a: ', '}', 12_000)}\n`, /:1:\d+: \S/],
  'deep lists in lines': [`${'- '.repeat(30_000)}x\n`, /:1:\d+: \S/],
  'a deep list that never ends': ['['.repeat(60_000), /:1:\d+: \S/],
  'deep maps in lines': [Array.from({ length: 300 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), /./],
  'a document with many errors': [
    '}\n'.repeat(30_000),
    /:1:\d+: \S.*\nerror: bad configuration: and \d+ more problems\nhint: .*\n$/s,
  ],
  HTML: ['<!doctype html>\n<html>\n<body class="x">\n', /:\d:\d+: \S/],
  'two documents': ['debug: true\n---\ndebug: false\n', /:\d:\d+: \S/],
  gzip: [execFileSync('gzip', ['-c'], { input: 'debug: true\n' }), /:1:\d+: \S/],
};

describe('problems are reported, and nothing else happens', () => {
  const commands = ['config', 'clusters', 'login', 'status', 'config tailscale.port'];
  for (const [i, [name, [text, told]]] of Object.entries(damages).entries()) {
    const command = commands[i % commands.length] as string;
    test.concurrent(`${name} (${command})`, async ({ fixture }) => {
      put(fixture, text);
      const ran = await fixture.run(command);
      if (name === 'deep maps in lines') {
        // Valid YAML, but unusual.
        assert.ok(ran.status === 0 || /bad configuration|no TKA server is configured/.test(ran.stderr));
        return;
      }
      // `config` shows what can be read all the same.
      checkFailure(command.startsWith('config') ? { ...ran, stdout: '' } : ran);
      checkPlain(ran.stdout, 'stdout');
      assert.match(ran.stderr, /^error: bad configuration/m);
      assert.match(ran.stderr, told);
      assert.doesNotMatch(ran.stderr, /call stack|stack overflow/i);
      assert.ok(ran.stderr.length < 8000, `${ran.stderr.length} characters on stderr`);
      assert.equal(fixture.cluster.counts.login + fixture.cluster.counts.memberlist, 0);
    });
  }

  const hosts = [
    'javascript:alert(1)',
    'file:///etc/passwd',
    'https://user:pass@evil.example',
    'https://evil.example/path',
    'a b',
    '../../x',
    '$(touch pwned)',
    'a"b',
    '-',
    '.',
    'a\u202eb',
    'http://203.0.113.1',
    '[::1',
    'a/b',
    '*',
  ];
  for (const host of hosts) {
    test.concurrent(`an invalid host: ${JSON.stringify(host)}`, async ({ fixture }) => {
      put(fixture, `tailscale:\n  hostname: ${JSON.stringify(host)}\n`);
      const ran = await fixture.run('clusters', { timeout: '1s' });
      assert.ok(ran.status === 1 || ran.status === 2);
      assert.equal(ran.stdout, '');
    });
  }

  const places: Readonly<Record<string, (file: string) => void>> = {
    'a folder': (file) => fs.mkdirSync(file),
    'a FIFO': (file) => void execFileSync('mkfifo', [file]),
    'a device that never ends': (file) => fs.symlinkSync('/dev/zero', file),
    'a symlink to itself': (file) => fs.symlinkSync(file, file),
  };
  test.concurrent.for(Object.entries(places))(
    'reports a configuration file that is %s',
    async ([, make], { fixture }) => {
      fs.rmSync(fixture.home.config);
      make(fixture.home.config);
      const ran = await fixture.run('clusters');
      checkFailure(ran);
      assert.match(
        ran.stderr,
        /^error: bad configuration: \/\S.*: (?:is not a file|cannot be read \(ELOOP\))\nhint: .*\n$/,
      );
    },
  );
});

describe('unusual but valid content is read', () => {
  const sound: Readonly<Record<string, [text: (server: string) => string, key: string, value: unknown]>> = {
    'an empty file': [() => '', 'tailscale.port', 443],
    'a comment only': [() => '# nothing\n', 'tailscale.port', 443],
    null: [() => '~\n', 'tailscale.port', 443],
    'sections that are null': [() => 'tailscale:\noutput: ~\n', 'tailscale.port', 443],
    'a BOM': [() => '\ufefftailscale:\n  port: 8443\n', 'tailscale.port', 8443],
    CRLF: [() => 'tailscale:\r\n  port: 8443\r\n', 'tailscale.port', 8443],
    JSON: [() => '{"tailscale":{"port":8443}}', 'tailscale.port', 8443],
    'other spellings': [() => 'TAILSCALE:\n  Port: "8443"\n', 'tailscale.port', 8443],
    'numbers of YAML 1.1': [() => 'tailscale:\n  port: 0x20FB\n', 'tailscale.port', 8443],
    'words of YAML 1.1': [() => 'debug: off\noutput:\n  quiet: no\n', 'debug', false],
    aliases: [() => 'a: &a 8443\ntailscale:\n  port: *a\n', 'tailscale.port', 8443],
    'unknown keys of hostile text': [
      () =>
        `${JSON.stringify(evilTexts['an OSC 52 clipboard'])}: x\n__proto__: {port: 1}\nconstructor: 7\n? [a, b]\n: c\n~: d\ntailscale: {port: 8443, "a.b": 1}\n`,
      'tailscale.port',
      8443,
    ],
    'unknown tags': [() => 'other: !evil x\ntailscale:\n  port: 8443\n', 'tailscale.port', 8443],
    'an unknown directive': [() => '%EVIL x\n---\ntailscale:\n  port: 8443\n', 'tailscale.port', 8443],
    'an alias bomb': [() => `${bomb}tailscale:\n  port: 8443\n`, 'tailscale.port', 8443],
    'an alias bomb in place of a section': [
      () => `${bomb}other: *i\ntailscale:\n  port: 8443\n`,
      'tailscale.port',
      8443,
    ],
  };
  test.concurrent.for(Object.entries(sound))('%s', async ([, [text, key, value]], { fixture }) => {
    put(fixture, text(fixture.cluster.server));
    assert.equal((await settings(fixture)).get(key)?.value, value);
  });

  test.concurrent('values with invisible characters are shown as plain text', async ({ fixture }) => {
    put(
      fixture,
      `output:\n  theme: ${JSON.stringify(evilTexts['a bidirectional override'])}\ntailscale:\n  hostname: ${JSON.stringify(evilTexts['zero width'])}\n`,
    );
    for (const args of ['config', 'config -o json', 'config -o yaml', 'config tailscale.hostname'])
      assert.equal((await fixture.run(args)).status, 0);
  });

  test.concurrent('`config KEY VALUE` keeps content that it does not understand', async ({ fixture }) => {
    const text = `# top\n%s: x\n"\\e[31m": &a [1, 2]\nother: *a\nTailscale: {hostName: old} # flow\n`;
    put(fixture, text);
    const ran = await fixture.run('config tailscale.hostname new', { may: [/^\.config\/tka\/config\.yaml$/] });
    if (ran.status === 0) assert.match(fs.readFileSync(fixture.home.config, 'utf8'), /^# top\n/);
    else assert.equal(fs.readFileSync(fixture.home.config, 'utf8'), text);
  });

  test.concurrent('`credential` for a URL does not read it at all', async ({ fixture }) => {
    put(fixture, 'tailscale: [\n');
    checkCredential(await fixture.freshCredential());
    fs.rmSync(fixture.home.config);
    execFileSync('mkfifo', [fixture.home.config]);
    fs.rmSync(fixture.entry);
    checkCredential(await fixture.freshCredential());
  });
});

describe('random damage of the configuration file', () => {
  test.concurrent.for(randomCases(15, 6))('%s', async ([, chance], { fixture }) => {
    const good = fs.readFileSync(fixture.home.config, 'utf8');
    const bad = damagedText(damagedText(good, chance), chance);
    put(fixture, bad);
    try {
      const ran = await fixture.run('config -o json');
      if (ran.status === 0) checkTexts(JSON.parse(ran.stdout), 'config -o json');
      else {
        checkFailure({ ...ran, stdout: '' });
        checkTexts(JSON.parse(ran.stdout), 'config -o json');
        assert.match(
          ran.stderr,
          new RegExp(
            `^(?:warning: .*\\n)*error: bad configuration.*${path.basename(fixture.home.config)}:\\d+:\\d+: `,
            's',
          ),
        );
      }
    } catch (error) {
      if (error instanceof Error) error.message += `\nfile: ${JSON.stringify(bad)}`;
      throw error;
    }
  });
});
