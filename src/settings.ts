import * as fs from 'node:fs';
import * as net from 'node:net';
import type { YAMLMap } from 'yaml';
import { systemCode, TkaError, UsageError } from './errors.ts';
import type { Paths } from './paths.ts';
import { cleanText } from './tka/text.ts';
import { canonicalServer } from './tka/url.ts';

/** The keys, spelled as the Go CLI's documentation does; `tailscale.tag` and `tls.caFile` are ours. */
export const settingKeys = {
  'tailscale.hostname': { type: 'string', fallback: undefined },
  'tailscale.tailnet': { type: 'string', fallback: '' },
  'tailscale.port': { type: 'port', fallback: 443 },
  'tailscale.tag': { type: 'tag', fallback: 'tag:tka' },
  'tls.caFile': { type: 'string', fallback: undefined },
  debug: { type: 'boolean', fallback: false },
  'output.theme': { type: 'string', fallback: 'default' },
  'output.long': { type: 'boolean', fallback: false },
  'output.quiet': { type: 'boolean', fallback: false },
  'api.retryAfterSeconds': { type: 'count', fallback: 1 },
} as const;

export type SettingKey = keyof typeof settingKeys;
export type SettingValue = string | number | boolean;

export interface Setting {
  readonly value: SettingValue | undefined;
  /** `--port`, `TKA_TAILSCALE_PORT`, `/path/config.yaml`, or `default`. */
  readonly source: string;
}

export interface Flags {
  readonly server?: string;
  readonly port?: string;
  readonly tailnet?: string;
  readonly config?: string;
  readonly debug?: boolean;
  readonly quiet?: boolean;
}

// A YAML parser takes a thousand times what it reads in memory, where it is made to; eight settings take no 64 KiB.
export const configLimit = 64 * 1024;
const problemLimit = 20;

/** The environment variable that overrides a key. */
export function environmentName(key: SettingKey): string {
  return `TKA_${key.toUpperCase().replace(/[.-]/g, '_')}`;
}

/** The key in its documented spelling, whatever the case it is given in; undefined if there is none. */
export function settingKey(name: string): SettingKey | undefined {
  const wanted = name.toLowerCase();
  return (Object.keys(settingKeys) as SettingKey[]).find((key) => key.toLowerCase() === wanted);
}

/** Reads a value for a key; a string that starts with `must be` tells what is wrong with it. */
export function readSetting(key: SettingKey, value: unknown): { value: SettingValue } | { problem: string } {
  const text = typeof value === 'string' ? value.trim() : value;
  switch (settingKeys[key].type) {
    case 'string':
      if (typeof text === 'number') return { value: String(text) };
      if (typeof text !== 'string') return { problem: 'must be text' };
      if (/[\u0000-\u001f\u007f-\u009f]/.test(text) || text.length > 1024)
        return { problem: 'must be one line of plain text' };
      return { value: text };
    case 'tag':
      // As the policy file spells tags.
      if (typeof text === 'string' && /^tag:[a-z][a-z0-9-]{0,62}$/i.test(text)) return { value: text };
      return { problem: 'must be a tag like tag:tka' };
    case 'boolean':
      if (typeof text === 'boolean') return { value: text };
      // As Go's strconv.ParseBool, which the Go CLI reads it with.
      if (typeof text === 'string' && /^(?:1|t|true)$/i.test(text)) return { value: true };
      if (typeof text === 'string' && /^(?:0|f|false)$/i.test(text)) return { value: false };
      return { problem: 'must be true or false' };
    case 'port':
    case 'count': {
      const number = typeof text === 'string' && /^[0-9]{1,9}$/.test(text) ? Number(text) : text;
      const isPort = settingKeys[key].type === 'port';
      if (typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= (isPort ? 65535 : 86400)) {
        return { value: number };
      }
      return {
        problem: isPort ? 'must be a port from 1 to 65535' : 'must be a whole number of seconds from 1 to 86400',
      };
    }
  }
}

/** All settings, resolved once: flag > environment > file > default. */
export class Settings {
  readonly values: ReadonlyMap<SettingKey, Setting>;
  /** The file that was read; undefined if there is none. */
  readonly configFile: string | undefined;
  /** True where `--port` was given: it then also applies to a URL without a port. */
  readonly #explicitPort: boolean;
  #foundTailnet = '';

  constructor(values: ReadonlyMap<SettingKey, Setting>, configFile: string | undefined, explicitPort: boolean) {
    this.values = values;
    this.configFile = configFile;
    this.#explicitPort = explicitPort;
  }

  #get(key: SettingKey): SettingValue | undefined {
    return this.values.get(key)?.value;
  }

  get debug(): boolean {
    return this.#get('debug') === true;
  }

  get quiet(): boolean {
    return this.#get('output.quiet') === true;
  }

  get long(): boolean {
    return this.#get('output.long') === true;
  }

  /** The tag that a tailnet's TKA servers carry. */
  get tag(): string {
    return String(this.#get('tailscale.tag') ?? 'tag:tka');
  }

  /** A file with certificate authorities to trust besides the default ones. */
  get caFile(): string | undefined {
    const file = this.#get('tls.caFile');
    return file === undefined || file === '' ? undefined : String(file);
  }

  /** The tailnet's suffix without dots at its ends, lower case; the one that was found where none is set, else empty. */
  get tailnet(): string {
    const configured = String(this.#get('tailscale.tailnet') ?? '')
      .replace(/^\.+|\.+$/g, '')
      .toLowerCase();
    return configured === '' ? this.#foundTailnet : configured;
  }

  /** The suffix that tailscaled knows, for where none is configured. */
  assumeTailnet(suffix: string): void {
    this.#foundTailnet = suffix;
  }

  /** True for the name of a server (undefined: the configured one) that only becomes one with the tailnet's suffix. */
  needsTailnet(name: string | undefined): boolean {
    const host = (name ?? String(this.#get('tailscale.hostname') ?? ''))
      .replace(/^https?:\/\//i, '')
      .replace(/:[0-9]+$/, '');
    const isUrl = name?.includes('://') === true;
    return !isUrl && this.tailnet === '' && /^[^.:[\]]+\.?$/.test(host) && host.toLowerCase() !== 'localhost';
  }

  /** The canonical URL of the configured server; undefined where none is. Throws TkaError for one that is no host. */
  get entryServer(): string | undefined {
    const setting = this.values.get('tailscale.hostname');
    if (setting?.value === undefined || setting.value === '') return undefined;
    const name = String(setting.value);
    return setting.source === '--server' ? this.serverNamed(name) : this.#build(name, true);
  }

  /**
   * The canonical URL of a server that a person named: a URL, a host, host:port, or a bare name on the tailnet.
   * Throws UsageError for what is none of them.
   */
  serverNamed(name: string): string {
    return this.#build(name, false);
  }

  #build(name: string, configured: boolean): string {
    const port = Number(this.#get('tailscale.port') ?? 443);
    const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(name);
    try {
      if (hasScheme && !configured) {
        const url = new URL(canonicalServer(name));
        // `https://host:443` states its port as much as `https://host:8443` does.
        if (this.#explicitPort && !/^[a-z]+:\/\/[^/]*:[0-9]+(?:\/|$)/i.test(name)) url.port = String(port);
        return canonicalServer(url.href);
      }
      const [, scheme, rest = name] = /^(https?):\/\/([^/]*)\/?$/i.exec(name) ?? [];
      const { host, port: ownPort } = splitHost(rest);
      const usePort = ownPort ?? port;
      const full = this.#withTailnet(host, configured);
      return canonicalServer(`${scheme ?? (usePort === 443 ? 'https' : 'http')}://${full}:${usePort}`);
    } catch (error) {
      const why = error instanceof TkaError ? error.message : 'it is not a host name';
      throw new UsageError(`${JSON.stringify(cleanText(name))} names no server: ${why}`, {
        hints: ['give a host name, host:port, or a URL like https://tka.example.ts.net'],
      });
    }
  }

  // A name with dots is whole already, unless it was configured: there the tailnet always follows, as in the Go CLI.
  #withTailnet(host: string, configured: boolean): string {
    const bare = host.replace(/\.$/, '').toLowerCase();
    if (this.tailnet === '' || bare.startsWith('[') || net.isIP(bare) !== 0 || bare === 'localhost') return bare;
    if (bare.endsWith(`.${this.tailnet}`) || (bare.includes('.') && !configured)) return bare;
    return `${bare}.${this.tailnet}`;
  }
}

function splitHost(text: string): { host: string; port: number | undefined } {
  if (net.isIPv6(text)) return { host: `[${text}]`, port: undefined };
  const match = /^(\[[0-9a-f:.]+\]|[^:/?#@\s]+)(?::([0-9]{1,5}))?$/i.exec(text);
  if (match?.[1] === undefined) throw new TkaError('it is not a host name');
  return { host: match[1], port: match[2] === undefined ? undefined : Number(match[2]) };
}

/**
 * Reads all settings. Throws one TkaError with a line for every problem of the file (file:line: key) and of the
 * environment, or UsageError for a bad flag.
 */
export async function loadSettings(flags: Flags, env: NodeJS.ProcessEnv, paths: Paths): Promise<Settings> {
  const problems: string[] = [];
  const file = await readConfig(flags.config, paths, problems);
  const given: Partial<Record<SettingKey, [string, unknown]>> = {
    'tailscale.hostname': ['--server', flags.server],
    'tailscale.port': ['--port', flags.port],
    'tailscale.tailnet': ['--tailnet', flags.tailnet],
    debug: ['--debug', flags.debug],
    'output.quiet': ['--quiet', flags.quiet],
  };
  const values = new Map<SettingKey, Setting>();
  for (const key of Object.keys(settingKeys) as SettingKey[]) {
    const [flag, flagValue] = given[key] ?? [];
    const variable = environmentName(key);
    if (flag !== undefined && flagValue !== undefined) {
      const read = readSetting(key, flagValue);
      if ('problem' in read) throw new UsageError(`${flag} ${JSON.stringify(flagValue)} ${read.problem}`);
      values.set(key, { value: read.value, source: flag });
    } else if (env[variable]) {
      const read = readSetting(key, env[variable]);
      if ('problem' in read) problems.push(`${variable}=${JSON.stringify(cleanText(env[variable]))}: ${read.problem}`);
      else values.set(key, { value: read.value, source: variable });
    } else {
      const found = file?.values.get(key);
      if (found !== undefined && file !== undefined) values.set(key, { value: found, source: file.path });
      else values.set(key, { value: settingKeys[key].fallback, source: 'default' });
    }
  }
  if (problems.length > 0) throw problemsError(problems);
  return new Settings(values, file?.path, flags.port !== undefined);
}

function problemsError(problems: readonly string[]): TkaError {
  const told = problems.slice(0, problemLimit);
  if (problems.length > told.length) told.push(`and ${problems.length - told.length} more problems`);
  return new TkaError(told.map((problem) => `bad configuration: ${problem}`).join('\n'));
}

interface ConfigFile {
  readonly path: string;
  readonly values: ReadonlyMap<SettingKey, SettingValue>;
}

async function readConfig(
  named: string | undefined,
  paths: Paths,
  problems: string[],
): Promise<ConfigFile | undefined> {
  for (const path of named === undefined ? paths.configs : [named]) {
    const text = readConfigText(path, named !== undefined, problems);
    if (text === undefined) continue;
    return { path, values: await parseConfig(path, text, problems) };
  }
  return undefined;
}

/** The text of a configuration file; undefined if it is absent (or cannot be read: then a problem says why). */
function readConfigText(path: string, required: boolean, problems: string[]): string | undefined {
  let fd: number | undefined;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) problems.push(`${path}: is not a file`);
    else if (stat.size > configLimit) problems.push(`${path}: is larger than ${configLimit >> 10} KiB`);
    else return fs.readFileSync(fd, 'utf8');
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      if (required) problems.push(`${path}: there is no such file`);
    } else problems.push(`${path}: cannot be read (${code})`);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
  return undefined;
}

/** The known keys of a configuration file's text; what is wrong with them is added to `problems`, with its line. */
export async function parseConfig(
  path: string,
  text: string,
  problems: string[],
): Promise<Map<SettingKey, SettingValue>> {
  const { isMap, isScalar, isAlias, LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  // Pretty errors quote the text, and take as long as the text for each.
  const options = { version: '1.1', schema: 'yaml-1.1', uniqueKeys: true, prettyErrors: false } as const;
  const document = parseDocument(text, { ...options, lineCounter: lines });
  const line = (offset: number | undefined) => lines.linePos(offset ?? 0).line;
  const values = new Map<SettingKey, SettingValue>();
  for (const error of document.errors) {
    // In its own words that is one of the engine's.
    const what = error.code === 'RESOURCE_EXHAUSTION' ? 'nested too deeply' : cleanText(error.message);
    const problem = `${path}:${line(error.pos[0])}: ${what}`;
    if (problem !== problems.at(-1)) problems.push(problem);
  }
  if (document.errors.length > 0 || document.contents === null) return values;
  const top = document.contents;
  if (isScalar(top) && top.value === null) return values;
  if (!isMap(top)) {
    problems.push(`${path}:${line(top.range?.[0])}: must be a map of settings`);
    return values;
  }
  const visit = (map: YAMLMap, prefix: string) => {
    for (const { key, value } of map.items) {
      if (!isScalar(key)) continue;
      const dotted = `${prefix}${key.value}`;
      const at = `${path}:${line(key.range?.[0])}: ${cleanText(dotted)}`;
      const node = isAlias(value) ? value.resolve(document) : value;
      const known = settingKey(dotted);
      const isParent = Object.keys(settingKeys).some((k) => k.toLowerCase().startsWith(`${dotted.toLowerCase()}.`));
      if (isParent && isMap(node)) visit(node, `${dotted}.`);
      else if (isParent && !(isScalar(node) && node.value === null) && node !== null)
        problems.push(`${at} must be a map`);
      if (known === undefined || node === null || (isScalar(node) && node.value === null)) continue;
      if (values.has(known)) {
        problems.push(`${at} is there twice`);
        continue;
      }
      const read = readSetting(known, isScalar(node) ? node.value : undefined);
      if ('problem' in read) problems.push(`${at} ${read.problem}`);
      else values.set(known, read.value);
    }
  };
  visit(top, '');
  return values;
}

/**
 * The budget for getting a token, in milliseconds: TKA_TIMEOUT as a Go duration or a bare number of seconds, else
 * 30 s. Throws UsageError for anything else.
 */
export function signInTimeout(env: NodeJS.ProcessEnv): number {
  const text = env.TKA_TIMEOUT?.trim();
  if (!text) return 30_000;
  const ms = /^[0-9]+(?:\.[0-9]+)?$/.test(text) ? Number(text) * 1000 : goDuration(text);
  if (ms === undefined || ms <= 0 || ms > 3_600_000) {
    throw new UsageError(`TKA_TIMEOUT=${JSON.stringify(cleanText(text))} is no time up to an hour`, {
      hints: ['give a Go duration or seconds: TKA_TIMEOUT=45s'],
    });
  }
  return ms;
}

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** A Go duration (`1m30s`, time.ParseDuration) in milliseconds; undefined if it is none. */
export function goDuration(text: string): number | undefined {
  if (!/^(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/([0-9.]+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(number) * (unitMs[unit ?? ''] ?? Number.NaN);
  }
  return Number.isNaN(total) ? undefined : total;
}
