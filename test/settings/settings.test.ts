import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { configKeys } from '../../src/server/config/keys.ts';
import type { Paths } from '../../src/settings/paths.ts';
import { type Flags, loadSettings, signInTimeout } from '../../src/settings/settings.ts';
import { goDuration } from '../../src/util/duration.ts';
import { UsageError } from '../../src/util/errors.ts';
import { fileFolder } from '../fixtures/temporary.ts';

const folder = fileFolder();
const file = path.join(folder, 'config.yaml');
const second = path.join(folder, 'etc.yaml');
const paths: Paths = { cache: undefined, state: undefined, home: folder, configs: [file, second] };

function load(text: string | undefined, flags: Flags = {}, env: NodeJS.ProcessEnv = {}) {
  fs.rmSync(file, { force: true, recursive: true });
  if (text !== undefined) fs.writeFileSync(file, text);
  return loadSettings(flags, env, paths);
}

describe('precedence', () => {
  it('is flag > environment > file > default', async () => {
    const text = 'tailscale:\n  hostname: from-file\n  port: 1001\n  tailnet: file.ts.net\n';
    const env = { TKA_TAILSCALE_HOSTNAME: 'from-env', TKA_TAILSCALE_PORT: '1002' };
    const settings = await load(text, { port: '1003' }, env);
    expect(settings.values.get('tailscale.port')).toEqual({ value: 1003, source: '--port' });
    expect(settings.values.get('tailscale.hostname')).toEqual({ value: 'from-env', source: 'TKA_TAILSCALE_HOSTNAME' });
    expect(settings.values.get('tailscale.tailnet')).toEqual({ value: 'file.ts.net', source: file });
    expect(settings.values.get('debug')).toEqual({ value: false, source: 'default' });
    expect(settings.seed).toBe('http://from-env.file.ts.net:1003');
  });

  it('has no host name by default', async () => {
    expect((await load(undefined)).seed).toBeUndefined();
    expect((await load('')).seed).toBeUndefined();
    expect((await load('tailscale:\n')).seed).toBeUndefined();
  });

  it('reads only the first file that exists', async () => {
    fs.writeFileSync(second, 'tailscale: {hostname: second, port: 99}\n');
    expect((await load('debug: true\n')).seed).toBeUndefined();
    expect((await load(undefined)).seed).toBe('http://second:99');
    fs.rmSync(second);
  });

  it.each(['tls:\n  cafile: /ca.pem\n', 'TLS:\n  CaFile: /ca.pem\n', 'tls: {caFile: "/ca.pem"}\n'])(
    'reads keys in any case: %j',
    async (text) => {
      expect((await load(text)).values.get('tls.caFile')?.value).toBe('/ca.pem');
    },
  );
});

describe('unknown keys', () => {
  it('are warnings with line, column and the nearest key', async () => {
    const settings = await load('tailscale:\n  hostnam: tka\n  port: 1\ndebgu: true\nother: {a: 1}\nhostname: tka\n');
    expect(settings.warnings).toEqual([
      `${file}:2:3: unknown key "tailscale.hostnam"; did you mean "tailscale.hostname"?`,
      `${file}:4:1: unknown key "debgu"; did you mean "debug"?`,
      `${file}:5:1: unknown key "other"`,
      `${file}:6:1: unknown key "hostname"; did you mean "tailscale.hostname"?`,
    ]);
  });

  it('are at most ten', async () => {
    const { warnings } = await load(Array.from({ length: 500 }, (_, i) => `key${i}: x\n`).join(''));
    expect(warnings).toHaveLength(11);
    expect(warnings[10]).toBe(`${file}: and 490 more unknown keys`);
  });

  it('are not those of the Go CLI, whatever their value, and not those of a TKA server', async () => {
    const keys = Object.keys(configKeys).map((key) => key.split('.'));
    const server: Record<string, unknown> = {};
    for (const [first = '', ...rest] of keys) {
      if (first === 'tailscale' && /^(?:hostname|tailnet|port|tag)$/.test(rest.join('.'))) continue;
      let map = server;
      for (const part of [first, ...rest.slice(0, -1)]) {
        map[part] ??= {};
        map = map[part] as Record<string, unknown>;
      }
      if (first !== 'debug') map[rest.at(-1) ?? ''] = 'x';
    }
    for (const name of ['debug', 'api']) delete server[name];
    const settings = await load(stringify({ ...server, output: { theme: ['dark'] }, Api: { retryafterseconds: -7 } }));
    expect(settings.warnings).toEqual([]);
    expect(Object.fromEntries(settings.unused)).toEqual({ 'output.theme': '…', 'api.retryAfterSeconds': '-7' });
  });
});

describe('the server in the settings', () => {
  const config = 'tailscale:\n  tailnet: .example.ts.net.\n';
  it.each([
    // [-s, -p, configured port, canonical URL]
    ['tka', undefined, undefined, 'https://tka.example.ts.net'],
    ['TKA.', undefined, undefined, 'https://tka.example.ts.net'],
    ['tka', '8123', undefined, 'http://tka.example.ts.net:8123'],
    ['tka', undefined, 8123, 'http://tka.example.ts.net:8123'],
    ['tka:80', undefined, 8123, 'http://tka.example.ts.net'],
    ['tka.example.ts.net', undefined, undefined, 'https://tka.example.ts.net'],
    ['tka.other.ts.net', undefined, undefined, 'https://tka.other.ts.net'],
    ['127.0.0.11:8123', undefined, undefined, 'http://127.0.0.11:8123'],
    ['127.0.0.11', undefined, undefined, 'https://127.0.0.11'],
    ['localhost:8123', undefined, undefined, 'http://localhost:8123'],
    ['[fd7a:115c:a1e0::1]:8123', undefined, undefined, 'http://[fd7a:115c:a1e0::1]:8123'],
    ['fd7a:115c:a1e0::1', undefined, undefined, 'https://[fd7a:115c:a1e0::1]'],
    // For a URL the configured port and tailnet do not apply; an explicit port applies only if it has none.
    ['https://tka', undefined, 8123, 'https://tka'],
    ['http://tka', undefined, 8123, 'http://tka'],
    ['http://tka', '8124', undefined, 'http://tka:8124'],
    ['http://tka:8125/', '8124', undefined, 'http://tka:8125'],
    ['https://tka:443', '8124', undefined, 'https://tka'],
    ['https://[fd7a:115c:a1e0::1]', '8124', undefined, 'https://[fd7a:115c:a1e0::1]:8124'],
    ['https://tka.example.ts.net/api/v1alpha1', undefined, undefined, 'https://tka.example.ts.net'],
    ['https://tka.example.ts.net/clusters/a/', undefined, 8123, 'https://tka.example.ts.net/clusters/a'],
    ['http://tka/clusters/a', '8124', undefined, 'http://tka:8124/clusters/a'],
    ['https://tka:443/clusters/a', '8124', undefined, 'https://tka/clusters/a'],
  ])('-s %s -p %s, configured port %s: %s', async (server, port, configured, expected) => {
    const text = configured === undefined ? config : `${config}  port: ${configured}\n`;
    const settings = await load(text, { server, ...(port !== undefined && { port }) });
    expect(settings.seed).toBe(expected);
  });

  it.each([
    // A configured host name gets the port and tailnet even with a scheme, as in the Go CLI.
    ['https://tka', 443, 'https://tka.example.ts.net'],
    ['http://tka', 8123, 'http://tka.example.ts.net:8123'],
    ['http://127.0.0.11', 8123, 'http://127.0.0.11:8123'],
    ['http://127.0.0.11:9000', 8123, 'http://127.0.0.11:9000'],
    ['tka.example.ts.net', 443, 'https://tka.example.ts.net'],
    ['https://tka/clusters/site-1', 443, 'https://tka.example.ts.net/clusters/site-1'],
    ['http://tka:9000/clusters/site-1/', 8123, 'http://tka.example.ts.net:9000/clusters/site-1'],
  ])('tailscale.hostname %s with port %i: %s', async (hostname, port, expected) => {
    const settings = await load(config, {}, { TKA_TAILSCALE_HOSTNAME: hostname, TKA_TAILSCALE_PORT: String(port) });
    expect(settings.seed).toBe(expected);
  });

  it('needs the tailnet’s suffix for a short host, also in the URL of a joined cluster', async () => {
    for (const hostname of ['tka', 'https://tka', 'https://tka/clusters/site-1', 'http://tka:8123/clusters/site-1/']) {
      const settings = await load(undefined, {}, { TKA_TAILSCALE_HOSTNAME: hostname });
      expect([hostname, settings.needsTailnet(undefined)]).toEqual([hostname, true]);
      settings.assumeTailnet('example.ts.net');
      expect(settings.seed).toContain('://tka.example.ts.net');
    }
    const complete = await load(undefined, {}, { TKA_TAILSCALE_HOSTNAME: 'https://tka.example.ts.net/clusters/a' });
    expect(complete.needsTailnet(undefined)).toBe(false);
  });

  it.each([
    'a b',
    'https://u:p@tka',
    'tka:0x50',
    'tka:',
    ':80',
    'tka/path',
    'ftp://tka',
    '../etc',
    'tka:99999',
    'a\u001bb',
    'https://',
    '-',
    'http://tka/x',
    'tka/clusters/a',
    'https://tka/clusters/A',
    'https://tka/clusters/..',
  ])('%j is a usage error', async (server) => {
    const attempt = load(undefined, { server }).then((settings) => settings.seed);
    await expect(attempt).rejects.not.toThrow(/u:p|: server "/);
    await expect(attempt).rejects.toThrow(UsageError);
  });
});

describe('a bad configuration', () => {
  it('is reported with all its problems, by file, line and key', async () => {
    const text = 'tailscale:\n  hostname: [a]\n  port: 70000\n# comment\ndebug: perhaps\noutput: no\n';
    const error = await load(text, {}, { TKA_OUTPUT_QUIET: 'x' }).catch((e) => e);
    expect(error.exitCode).toBe(1);
    expect(error.message.split('\n')).toEqual([
      `bad configuration: ${file}:2:3: tailscale.hostname must be text`,
      `bad configuration: ${file}:3:3: tailscale.port must be a port from 1 to 65535`,
      `bad configuration: ${file}:5:1: debug must be true or false`,
      `bad configuration: ${file}:6:1: output must be a map`,
      'bad configuration: TKA_OUTPUT_QUIET="x": must be true or false',
    ]);
  });

  it('with many problems reports the first twenty and the number of further ones', async () => {
    const error = await load('}\n'.repeat(30)).catch((e) => e);
    const lines = error.message.split('\n');
    expect(lines).toHaveLength(21);
    for (const line of lines) expect(line).toMatch(/^bad configuration: \S/);
    expect(lines[20]).toMatch(/: and \d+ more problems$/);
  });

  it.each([
    ['a list', '- a\n', /:1:1: must be a map of settings/],
    ['text', 'hello\n', /:1:1: must be a map of settings/],
    ['a duplicate key', 'debug: true\nDEBUG: false\n', /:2:1: DEBUG is set twice/],
    ['the same key twice', 'debug: true\ndebug: false\n', /:2:1: .*unique/i],
    ['broken YAML', 'tailscale: {hostname: a\n', /config\.yaml:[12]:\d+: /],
    ['a tab', 'tailscale:\n\thostname: a\n', /config\.yaml:2:\d+: /],
    ['control characters', 'tailscale:\n  hostname: "a\\eb"\n', /plain text/],
    ['a tailnet that is a URL', 'tailscale:\n  tailnet: https://example.ts.net\n', /tailnet must be a DNS suffix/],
    ['a tailnet with a path', 'tailscale:\n  tailnet: example.ts.net/x\n', /tailnet must be a DNS suffix/],
    ['a port that is text', 'tailscale:\n  port: https\n', /must be a port/],
    ['a fraction of a port', 'tailscale:\n  port: 1.5\n', /must be a port/],
    ['binary', '\u0000\u0001\u0002', /config\.yaml:1:1/],
  ])('%s', async (_, text, expected) => {
    const error = await load(text).catch((e) => e);
    expect(error).toBeInstanceOf(Error);
    expect(error.message).toMatch(expected);
  });

  it('is a folder, or a named file that does not exist', async () => {
    fs.rmSync(file, { force: true });
    fs.mkdirSync(file);
    await expect(loadSettings({}, {}, paths)).rejects.toThrow(/config\.yaml: is not a file/);
    fs.rmdirSync(file);
    await expect(load(undefined, { config: path.join(folder, 'none.yaml') })).rejects.toThrow(
      /none\.yaml: no such file/,
    );
  });

  it('may contain keys of other programs, merge keys and anchors', async () => {
    const settings = await load(
      'operator: {namespace: tka-system}\nx: &x tka\ntailscale:\n  hostname: *x\nunknown: [1]\n',
    );
    expect(settings.seed).toBe('https://tka');
  });
});

describe('TKA_TIMEOUT', () => {
  it.each([
    [undefined, 30_000],
    ['', 30_000],
    ['45s', 45_000],
    ['45', 45_000],
    ['1.5', 1500],
    ['1m30s', 90_000],
    ['500ms', 500],
    ['1h', 3_600_000],
  ])('%s is %i ms', (text, ms) => expect(signInTimeout({ TKA_TIMEOUT: text })).toBe(ms));
  it.each(['0', '-1', '0s', 'soon', '2h', '1d', '5 s', 'NaN', 'Infinity', '1e3'])('%s is a usage error', (text) => {
    expect(() => signInTimeout({ TKA_TIMEOUT: text })).toThrow(UsageError);
  });
  it('accepts Go’s durations', () => {
    expect(goDuration('1h2m3.5s')).toBe(3_723_500);
    expect(goDuration('1.5h')).toBe(5_400_000);
    expect(goDuration('')).toBeUndefined();
    expect(goDuration('1')).toBeUndefined();
  });
});
