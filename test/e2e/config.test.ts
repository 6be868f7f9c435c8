// `config`: shows the settings, changes one, and repairs an invalid file without losing any of it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';

const ours = `# the tailnet of the house
tailscale:
  hostname: tka   # where to ask

    # not the default
  Port: 8443 # since May
output: {long: true}   # wide
other: kept
`;
const read = (home: Home) => fs.readFileSync(home.config, 'utf8');
interface Row {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
}
const rowsOf = (stdout: string) => new Map((JSON.parse(stdout) as Row[]).map((row) => [row.key, row]));

describe.concurrent('shows', () => {
  test('all settings with their sources', async ({ home }) => {
    home.write(home.config, ours);
    const ran = await home.run('config -o json', { env: { TKA_TAILSCALE_TAILNET: 'example.ts.net' } });
    const rows = rowsOf(ran.stdout);
    const expected = [
      { key: 'tailscale.hostname', value: 'tka', source: home.config },
      { key: 'tailscale.port', value: 8443, source: home.config },
      { key: 'tailscale.tailnet', value: 'example.ts.net', source: 'TKA_TAILSCALE_TAILNET' },
      { key: 'debug', value: false, source: 'default' },
    ];
    for (const row of expected) expect(rows.get(row.key)).toEqual(row);
    const table = await home.run('config');
    expect(table.stdout).toMatch(/^tailscale\.port +8443 +\//m);
    expect((await home.run('config view')).stdout).toBe(table.stdout);
  });

  test('one: flag > environment > file > default, keys in any case, with get or without', async ({ home }) => {
    home.write(home.config, ours);
    const port = async (args = '', env = {}) => {
      const { stdout } = await home.run(`config TAILSCALE.port ${args}`, { env });
      expect((await home.run(`config get tailscale.port ${args}`, { env })).stdout).toBe(stdout);
      return stdout;
    };
    expect(await port()).toBe('8443\n');
    expect(await port('', { TKA_TAILSCALE_PORT: '9000' })).toBe('9000\n');
    expect(await port('--port 9001', { TKA_TAILSCALE_PORT: '9000' })).toBe('9001\n');
    fs.rmSync(home.config);
    expect(await port()).toBe('443\n');
  });

  test('the file of --config, and an error if it does not exist', async ({ home }) => {
    const file = path.join(home.dir, 'other.yaml');
    home.write(file, 'tailscale: {port: 7000}\n');
    expect((await home.run(['config', 'tailscale.port', '-c', file])).stdout).toBe('7000\n');
    const refused = await home.run('config -c /nowhere.yaml');
    expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining('/nowhere.yaml: no such file') });
  });

  test('an invalid file: its valid parts, and each problem with line, column and the expected value', async ({
    home,
  }) => {
    const bad = 'tailscale:\n  port: 99999\n  hostname: [x]\n  tailnet: example.ts.net\ndebug: perhaps\n';
    home.write(home.config, bad);
    const shown = await home.run('config');
    expect(shown.status).toBe(1);
    expect(shown.stdout).toMatch(/^tailscale\.tailnet +example\.ts\.net +\/.*config\.yaml$/m);
    for (const key of ['tailscale\\.port', 'tailscale\\.hostname', 'debug'])
      expect(shown.stdout).toMatch(new RegExp(`^${key} +<invalid> +/.*config\\.yaml$`, 'm'));
    const told = [
      `error: bad configuration: ${home.config}:2:3: tailscale.port must be a port from 1 to 65535`,
      `error: bad configuration: ${home.config}:3:3: tailscale.hostname must be text`,
      `error: bad configuration: ${home.config}:5:1: debug must be true or false`,
      'hint: kubectl tka config set KEY VALUE, or: kubectl tka config unset KEY',
    ];
    expect(lines(shown.stderr)).toEqual(told);
    const json = await home.run('config -o json');
    expect({ ...json, stdout: '' }).toMatchObject({ status: 1, stderr: shown.stderr });
    expect(rowsOf(json.stdout).get('tailscale.port')).toEqual({
      key: 'tailscale.port',
      value: null,
      source: home.config,
    });
    expect(await home.run('config get tailscale.tailnet')).toMatchObject({ status: 1, stdout: 'example.ts.net\n' });
    for (const args of ['status', 'clusters', 'login', 'config get debug'])
      expect(await home.run(args), args).toMatchObject({ status: 1, stdout: '', stderr: shown.stderr });
    expect(read(home)).toBe(bad);
  });

  test('an invalid variable', async ({ home }) => {
    const shown = await home.run('config', { env: { TKA_TAILSCALE_PORT: 'many' } });
    expect(shown.status).toBe(1);
    expect(shown.stdout).toMatch(/^tailscale\.port +<invalid> +TKA_TAILSCALE_PORT$/m);
    expect(lines(shown.stderr)).toEqual([
      'error: bad configuration: TKA_TAILSCALE_PORT="many": must be a port from 1 to 65535',
      'hint: unset TKA_TAILSCALE_PORT',
    ]);
  });

  test('a file that is not YAML: line, column, and the file to edit', async ({ home }) => {
    const bad = 'tailscale:\n  port: 8443\n  hostname: "tka\n';
    home.write(home.config, bad);
    for (const args of ['config', 'config set debug true', 'config unset tailscale.port']) {
      const refused = await home.run(args);
      expect(refused.status, args).toBe(1);
      expect(lines(refused.stderr)[0]).toMatch(new RegExp(`^error: bad configuration: ${home.config}:\\d+:\\d+: .+`));
      expect(lines(refused.stderr).at(-1)).toBe(`hint: edit ${home.config}`);
      expect(read(home)).toBe(bad);
    }
  });
});

describe.concurrent('unknown keys', () => {
  test('every command warns once on stderr, with the nearest key; credential prints nothing', async ({ home, us }) => {
    const text = `tailscale:\n  hostname: "${us.server}"\n  taliscale: x\nouptut:\n  long: true\n`;
    home.write(home.config, text);
    const told = [
      `warning: ${home.config}:3:3: unknown key "tailscale.taliscale"`,
      `warning: ${home.config}:4:1: unknown key "ouptut"`,
    ];
    for (const args of ['config', 'clusters', 'clusters -o json', 'login prod-us', 'status', 'config get debug'])
      expect(lines((await home.run(args)).stderr), args).toEqual(told);
    home.write(home.config, text.replace('taliscale: x', 'prot: 443').replace(/ouptut:\n.*\n/, ''));
    expect(lines((await home.run('status')).stderr)).toEqual([
      `warning: ${home.config}:3:3: unknown key "tailscale.prot"; did you mean "tailscale.port"?`,
    ]);
    fs.rmSync(home.cache, { recursive: true });
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
    expect(await home.credential({ server: us.server.replace('http://', '') })).toMatchObject({
      stderr: expect.not.stringContaining('unknown key'),
    });
  });

  test('unset removes one', async ({ home }) => {
    home.write(home.config, 'tailscale:\n  # ours\n  hostnam: tka\n  hostname: tka\nnonsense: [1]\n');
    const removed = await home.run('config unset tailscale.hostnam');
    expect(removed).toMatchObject({ status: 0, stdout: `Removed tailscale.hostnam from ${home.config}.\n` });
    // Only what is left is warned about.
    expect(lines(removed.stderr)).toEqual([`warning: ${home.config}:4:1: unknown key "nonsense"`]);
    expect(await home.run('config unset nonsense')).toMatchObject({ status: 0 });
    expect(read(home)).toBe('tailscale:\n  # ours\n  hostname: tka\n');
    expect((await home.run('config')).stderr).not.toContain('unknown');
    expect(await home.run('config unset nonsense')).toMatchObject({ status: 2, stdout: '' });
  });

  test('keys of the Go CLI are neither unknown nor invalid, and have no effect here', async ({ home }) => {
    home.write(
      home.config,
      `${ours}api: {retryafterseconds: [7]}\n`.replace('{long: true}', '{long: true, Theme: dracula}'),
    );
    const shown = await home.run('config');
    expect(shown).toMatchObject({ status: 0 });
    expect(shown.stdout).toMatch(/^output\.theme +dracula +\/.*config\.yaml \(for the Go CLI, no effect here\)$/m);
    expect(shown.stdout).toMatch(/^api\.retryAfterSeconds +… +\/.*\(for the Go CLI, no effect here\)$/m);
    expect(await home.run('config set output.theme x')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/^error: output\.theme has no effect here: it is a setting of the Go CLI$/m),
    });
    home.write(home.config, ours);
    expect((await home.run('config')).stdout).not.toMatch(/theme|retry/);
  });
});

describe.concurrent('set', () => {
  test('changes one value and no other byte', async ({ home }) => {
    home.write(home.config, ours, 0o640);
    fs.chmodSync(home.config, 0o640);
    const set = await home.run('config set tailscale.port 443');
    expect(set).toMatchObject({ status: 0, stdout: `tailscale.port is 443 in ${home.config}.\n` });
    expect(read(home)).toBe(ours.replace('8443', '443'));
    // The old form.
    expect(await home.run('config tailscale.hostname no')).toMatchObject({ status: 0 });
    expect(read(home)).toBe(ours.replace('8443', '443').replace('hostname: tka', 'hostname: "no"'));
    expect((await home.run('config get tailscale.hostname')).stdout).toBe('no\n');
    expect(await home.run('config set output.long false')).toMatchObject({ status: 0 });
    expect(read(home)).toContain('output: {long: false}   # wide\n');
    expect(fs.statSync(home.config).mode & 0o777).toBe(0o640);
    expect(fs.readdirSync(path.dirname(home.config))).toEqual(['config.yaml']);
  });

  test('adds a key: comments, order and everything else stay', async ({ home }) => {
    home.write(home.config, ours);
    expect(await home.run('config set tls.caFile', {})).toMatchObject({ status: 2 });
    expect(await home.run('config set tailscale.tag tag:house')).toMatchObject({ status: 0 });
    const dense = (text: string) => text.replace(/[ \n]+/g, '');
    expect(dense(read(home).replace(/ *tag: "tag:house"\n?/, ''))).toBe(dense(ours));
    expect(parse(read(home)).tailscale.tag).toBe('tag:house');
  });

  test('creates a missing file; a link stays a link', async ({ home, us }) => {
    fs.rmSync(path.join(home.dir, '.config'), { recursive: true });
    expect(await home.run(['config', 'set', 'tailscale.hostname', us.server])).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('clusters')).toMatchObject({ status: 0, stderr: '' });
    const real = path.join(home.dir, 'dotfiles.yaml');
    fs.renameSync(home.config, real);
    fs.symlinkSync(real, home.config);
    expect(await home.run('config set output.long true')).toMatchObject({ status: 0 });
    expect(fs.lstatSync(home.config).isSymbolicLink()).toBe(true);
    expect(fs.readFileSync(real, 'utf8')).toContain('long: true');
  });

  test('reports that a variable overrides the file', async ({ home }) => {
    const set = await home.run('config set tailscale.port 8443', { env: { TKA_TAILSCALE_PORT: '9000' } });
    expect(set).toMatchObject({ status: 0, stderr: 'warning: TKA_TAILSCALE_PORT is set and overrides the file\n' });
  });

  test.for<[string, string]>([
    ['tls.caFile /nope', 'tls.caFile /nope does not exist'],
    ['tls.caFile /', 'tls.caFile / cannot be read (EISDIR)'],
    ['tls.caFile /etc/hosts', 'tls.caFile /etc/hosts contains no PEM certificate'],
    ['tailscale.tailnet https://example.ts.net', 'tailscale.tailnet must be a DNS suffix like example.ts.net'],
    ['tailscale.tailnet example.ts.net/x', 'tailscale.tailnet must be a DNS suffix like example.ts.net'],
    ['tailscale.tailnet -', 'tailscale.tailnet must be a DNS suffix like example.ts.net'],
    ['tailscale.hostname ftp://tka', 'invalid server "ftp://tka"'],
    ['tailscale.hostname tka:99999', 'invalid server "tka:99999"'],
    ['tailscale.hostname tka/x', 'invalid server "tka/x"'],
    ['tailscale.port 0', 'tailscale.port must be a port from 1 to 65535'],
    ['tailscale.port 44.3', 'tailscale.port must be a port from 1 to 65535'],
    ['tailscale.tag tka', 'tailscale.tag must be a tag like tag:tka'],
    ['debug perhaps', 'debug must be true or false'],
    ['output.quiet 7', 'output.quiet must be true or false'],
    ['tailscale.prot 443', 'unknown setting "tailscale.prot"; did you mean "tailscale.port"?'],
  ])('refuses what cannot work: %s', async ([args, error], { home }) => {
    home.write(home.config, ours);
    for (const form of [`config set ${args}`, `config ${args}`]) {
      const refused = await home.run(form);
      expect(refused).toMatchObject({ status: 2, stdout: '' });
      expect(refused.stderr).toContain(`error: ${error}`);
    }
    expect(read(home)).toBe(ours);
  });

  test('checks a CA file and stores its absolute path', async ({ home }) => {
    const { ca } = await makeCertificates('example.com');
    home.write(path.join(home.dir, 'ca.pem'), ca);
    expect(await home.run('config set tls.caFile ca.pem')).toMatchObject({ status: 0 });
    expect((await home.run('config get tls.caFile')).stdout).toBe(`${path.join(home.dir, 'ca.pem')}\n`);
    home.write(path.join(home.dir, 'bad.pem'), ca.replace(/\n[A-Za-z0-9+/]{10}/, '\nAAAAAAAAAA'));
    expect(await home.run('config set tls.caFile bad.pem')).toMatchObject({ status: 2, stdout: '' });
    // Without a value the key is removed.
    expect(await home.run(['config', 'set', 'tls.caFile', ''])).toMatchObject({ status: 0 });
  });
});

describe.concurrent('repairs', () => {
  const bad = `# mine
tailscale:
  port: abc   # the port
  hostname: [x,
    y]
  # the tailnet
  tailnet: https://example.ts.net
debug: perhaps # why
`;

  test('a wrong value when it is set; other problems are warnings', async ({ home }) => {
    home.write(home.config, bad);
    const first = await home.run('config set tailscale.port 8443', { env: { TKA_OUTPUT_LONG: 'x' } });
    expect(first).toMatchObject({ status: 0, stdout: `tailscale.port is 8443 in ${home.config}.\n` });
    expect(lines(first.stderr)).toEqual([
      `warning: bad configuration: ${home.config}:4:3: tailscale.hostname must be text`,
      `warning: bad configuration: ${home.config}:7:3: tailscale.tailnet must be a DNS suffix like example.ts.net`,
      `warning: bad configuration: ${home.config}:8:1: debug must be true or false`,
      'warning: bad configuration: TKA_OUTPUT_LONG="x": must be true or false',
    ]);
    expect(read(home)).toBe(bad.replace('abc', '8443'));
    expect((await home.run('config debug false')).status).toBe(0);
    expect((await home.run('config set tailscale.tailnet example.ts.net')).status).toBe(0);
    expect(read(home)).toBe(
      bad.replace('abc', '8443').replace('perhaps', 'false').replace('https://example.ts.net', '"example.ts.net"'),
    );
    expect(await home.run('config set tailscale.hostname tka')).toMatchObject({ status: 0, stderr: '' });
    for (const comment of ['# mine', '# the port', '# the tailnet', '# why']) expect(read(home)).toContain(comment);
  });

  test('a wrong value when it is removed: only its lines disappear', async ({ home }) => {
    home.write(home.config, bad);
    expect(await home.run('config unset tailscale.hostname')).toMatchObject({ status: 0 });
    expect(read(home)).toBe(bad.replace('  hostname: [x,\n    y]\n', ''));
    expect(await home.run('config unset Tailscale.TAILNET')).toMatchObject({ status: 0 });
    expect(await home.run('config unset debug')).toMatchObject({ status: 0 });
    const last = await home.run('config unset tailscale.port');
    expect(last).toMatchObject({ status: 0, stdout: `Removed tailscale.port from ${home.config}.\n`, stderr: '' });
    expect(read(home)).toBe('# mine\ntailscale:\n  # the tailnet\n');
    expect(await home.run('config unset tailscale.port')).toMatchObject({
      status: 0,
      stdout: 'tailscale.port is not set in the file.\n',
    });
    expect((await home.run('config get tailscale.port')).stdout).toBe('443\n');
  });

  test('a section that is not a map, when it is removed', async ({ home }) => {
    home.write(home.config, 'tailscale: tka # no map\ndebug: false\n');
    const shown = await home.run('config');
    expect(lines(shown.stderr)).toEqual([
      `error: bad configuration: ${home.config}:1:1: tailscale must be a map`,
      `hint: edit ${home.config}`,
    ]);
    expect(await home.run('config unset tailscale')).toMatchObject({ status: 0, stderr: '' });
    expect(read(home)).toBe('debug: false\n');
  });

  test('no section with valid settings', async ({ home }) => {
    home.write(home.config, ours);
    const refused = await home.run('config unset tailscale');
    expect(refused).toMatchObject({ status: 2, stdout: '' });
    expect(lines(refused.stderr)).toEqual([
      'error: "tailscale" is not a key but a section',
      'hint: kubectl tka config unset tailscale.hostname',
      'hint: kubectl tka config unset tailscale.port',
    ]);
    expect(read(home)).toBe(ours);
  });

  test('a duplicate key in two spellings', async ({ home }) => {
    home.write(home.config, 'tailscale:\n  hostname: a\n  HostName: b\n  port: 1\n');
    expect(await home.run('config')).toMatchObject({ status: 1, stderr: expect.stringContaining('is set twice') });
    expect(await home.run('config unset tailscale.hostname')).toMatchObject({ status: 0, stderr: '' });
    expect(read(home)).toBe('tailscale:\n  port: 1\n');
  });

  test('a key with its dots in one line', async ({ home }) => {
    home.write(home.config, 'tailscale.port: x # flat\ntailscale: {hostname: tka}\n');
    expect(await home.run('config set tailscale.port 80')).toMatchObject({ status: 0, stderr: '' });
    expect(read(home)).toBe('tailscale.port: 80 # flat\ntailscale: {hostname: tka}\n');
    expect(await home.run('config unset tailscale.port')).toMatchObject({ status: 0, stderr: '' });
    expect(read(home)).toBe('tailscale: {hostname: tka}\n');
  });

  test('flow style, JSON and CRLF', async ({ home }) => {
    home.write(home.config, 'tailscale: {port: x, hostname: tka} # one line\r\ndebug: maybe\r\n');
    expect(await home.run('config set debug true')).toMatchObject({ status: 0 });
    expect(read(home)).toBe('tailscale: {port: x, hostname: tka} # one line\r\ndebug: true\r\n');
    expect(await home.run('config unset tailscale.port')).toMatchObject({ status: 0, stderr: '' });
    expect(parse(read(home))).toEqual({ tailscale: { hostname: 'tka' }, debug: true });
    expect(read(home)).toContain('# one line');
    home.write(home.config, '{"tailscale":{"port":"x"},"debug":false}');
    expect(await home.run('config set tailscale.port 80')).toMatchObject({ status: 0 });
    expect(read(home)).toBe('{"tailscale":{"port":80},"debug":false}');
  });

  test.for(['tailscale: [\n', 'tailscale: tka\n', '- a\n', `debug: x\n#${'x'.repeat(70_000)}\n`, 'a: 1\na: 2\n'])(
    'a file with other damage is an error, and stays: %j',
    async (text, { home }) => {
      home.write(home.config, text);
      for (const args of ['config set tailscale.port 8443', 'config tailscale.port 8443']) {
        const refused = await home.run(args);
        expect(refused).toMatchObject({ status: 1, stdout: '' });
        expect(refused.stderr).toMatch(/^error: bad configuration: \S/);
        expect(lines(refused.stderr).at(-1)).toBe(`hint: edit ${home.config}`);
        expect(read(home)).toBe(text);
      }
      expect(await home.run('config set no.such.key 1')).toMatchObject({ status: 2, stdout: '' });
    },
  );
});

test.for<[string, RegExp]>([
  ['config get', /^error: config get requires a key\nhint: the settings are /],
  ['config set debug', /^error: config set requires a value\nhint: kubectl tka config set debug VALUE\n/],
  ['config get debug true', /^error: too many arguments for 'config get'\n/],
  ['config view debug', /^error: too many arguments for 'config view'\n/],
  ['config debug true false', /^error: too many arguments for 'config'\n/],
])('usage error: %s', async ([args, told], { home }) => {
  expect(await home.run(args)).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(told) });
});

test('a kubectl that asks for a credential ignores an invalid file', async ({ home, us }) => {
  home.write(home.config, 'tailscale: [');
  expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
});

test('TAB offers verbs, keys and values', async ({ home }) => {
  const complete = async (...words: string[]) =>
    lines((await home.run(['__complete', 'config', ...words])).stdout).map((line) => line.split('\t')[0]);
  const keys = ['tls.caFile', 'tailscale.hostname', 'tailscale.tailnet', 'tailscale.port', 'tailscale.tag'].sort();
  expect((await complete('t')).slice(0, -1).sort()).toEqual(keys);
  for (const verb of ['get', 'set', 'unset']) expect((await complete(verb, 't')).slice(0, -1).sort()).toEqual(keys);
  expect(await complete('')).toEqual(expect.arrayContaining(['get', 'set', 'unset', 'view', 'debug']));
  expect(await complete('set', 'debug', '')).toEqual(['true', 'false', ':4']);
  expect(await complete('debug', '')).toEqual(['true', 'false', ':4']);
  expect(await complete('get', 'debug', '')).toEqual([':4']);
});
