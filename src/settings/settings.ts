import * as net from 'node:net';
import { goDuration } from '../util/duration.ts';
import { TkaError, UsageError } from '../util/errors.ts';
import { cleanText, quoted } from '../util/text.ts';
import { canonicalServer, quotedUrl } from '../util/url.ts';
import { type ConfigFile, readConfig } from './file.ts';
import { environmentName, readSetting, type SettingKey, type SettingValue, settingKeys } from './keys.ts';
import type { Paths } from './paths.ts';

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

const problemLimit = 20;

/** All settings, resolved once: flag > environment > file > default. */
export class Settings {
  readonly values: ReadonlyMap<SettingKey, Setting>;
  /** The configuration file that was read; undefined if there is none. */
  readonly configFile: string | undefined;
  /** A line for each unknown key in the file. */
  readonly warnings: readonly string[];
  /** Keys of the Go CLI in the file, without effect here, with their values. */
  readonly unused: ReadonlyMap<string, string>;
  /** True with `--port`, which then also applies to a URL without a port. */
  readonly #explicitPort: boolean;
  #foundTailnet = '';
  #seed: { readonly tailnet: string; readonly url: string | undefined } | undefined;

  constructor(values: ReadonlyMap<SettingKey, Setting>, file: ConfigFile | undefined, explicitPort: boolean) {
    this.values = values;
    this.configFile = file?.path;
    this.warnings = file?.warnings ?? [];
    this.unused = file?.unused ?? new Map();
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

  /**
   * The tailnet's suffix in lower case, without dots at its ends: the configured one, else the one from
   * assumeTailnet(), else empty.
   */
  get tailnet(): string {
    const configured = String(this.#get('tailscale.tailnet') ?? '')
      .replace(/^\.+|\.+$/g, '')
      .toLowerCase();
    return configured === '' ? this.#foundTailnet : configured;
  }

  /** Sets the suffix that tailscaled knows, for use if none is configured. */
  assumeTailnet(suffix: string): void {
    this.#foundTailnet = suffix;
  }

  /**
   * Returns whether a server's name (undefined: the configured one) needs the tailnet's suffix, and the suffix is
   * unknown.
   */
  needsTailnet(name: string | undefined): boolean {
    const host = (name ?? String(this.#get('tailscale.hostname') ?? ''))
      .replace(/^https?:\/\/([^/]*)\/clusters\/[^/]*/i, '$1')
      .replace(/^https?:\/\//i, '')
      .replace(/(?::[0-9]+)?\/?$/, '');
    const isUrl = name?.includes('://') === true;
    return !isUrl && this.tailnet === '' && /^[^.:/[\]]+\.?$/.test(host) && host.toLowerCase() !== 'localhost';
  }

  /**
   * The canonical URL of the configured server; undefined if none is configured. Throws TkaError for an invalid one.
   */
  get seed(): string | undefined {
    // Cached, because a list asks for it at each server.
    const { tailnet } = this;
    if (this.#seed?.tailnet !== tailnet) this.#seed = { tailnet, url: this.#readSeed() };
    return this.#seed.url;
  }

  #readSeed(): string | undefined {
    const setting = this.values.get('tailscale.hostname');
    if (setting?.value === undefined || setting.value === '') return undefined;
    const name = String(setting.value);
    return setting.source === '--server' ? this.serverNamed(name) : this.#build(name, true);
  }

  /**
   * Returns the canonical URL of a server as the user names it: a URL, a host, host:port, or a bare name in the
   * tailnet. Throws UsageError for anything else.
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
      const [, scheme, rest = name, joined = ''] = /^(https?):\/\/([^/]*)(\/clusters\/[^/]*)?\/?$/i.exec(name) ?? [];
      const { host, port: ownPort } = splitHost(rest);
      const usePort = ownPort ?? port;
      const full = this.#withTailnet(host, configured);
      return canonicalServer(`${scheme ?? (usePort === 443 ? 'https' : 'http')}://${full}:${usePort}${joined}`);
    } catch (error) {
      const why = error instanceof TkaError ? error.message : 'not a host name';
      // The built URL says no more than the name, so leave it out.
      const short = why.replace(/^server "(?:[^"\\]|\\.)*" /, 'it ');
      throw new UsageError(`invalid server ${quotedUrl(cleanText(name))}: ${short}`, {
        hints: ['give a host name, host:port, or a URL like https://tka.example.ts.net'],
      });
    }
  }

  // A name with dots is complete. But the tailnet's suffix always follows a configured name, as in the Go CLI.
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
  if (match?.[1] === undefined) throw new TkaError('not a host name');
  return { host: match[1], port: match[2] === undefined ? undefined : Number(match[2]) };
}

/**
 * Reads all settings. Throws a TkaError with one line for each problem in the file (file:line:column: key) and in the
 * environment, or UsageError for an invalid flag.
 */
export async function loadSettings(flags: Flags, env: NodeJS.ProcessEnv, paths: Paths): Promise<Settings> {
  const { settings, problems, hints } = await readSettings(flags, env, paths);
  if (problems.length > 0) throw problemsError(problems, hints);
  return settings;
}

/** Settings that may have problems. */
export interface ReadSettings {
  /** The valid settings; one mistake does not lose the rest. */
  readonly settings: Settings;
  /** The problems of the others, one line each. */
  readonly problems: readonly string[];
  /** The settings with an invalid value, with its source. */
  readonly invalid: ReadonlyMap<SettingKey, string>;
  /** How to repair them. */
  readonly hints: readonly string[];
}

/** Reads all valid settings, and returns the problems of the others. Throws UsageError for an invalid flag. */
export async function readSettings(flags: Flags, env: NodeJS.ProcessEnv, paths: Paths): Promise<ReadSettings> {
  const problems: string[] = [];
  const file = await readConfig(flags.config, paths, problems);
  const invalid = new Map<SettingKey, string>();
  for (const key of file?.invalid ?? []) invalid.set(key, file?.path ?? '');
  const hints = fileHints(flags.config ?? file?.path ?? paths.configs[0], problems.length, [...invalid.keys()]);
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
      if ('problem' in read) {
        problems.push(`${variable}=${quoted(env[variable])}: ${read.problem}`);
        hints.push(`unset ${variable}`);
        invalid.set(key, variable);
        values.set(key, { value: settingKeys[key].fallback, source: 'default' });
      } else values.set(key, { value: read.value, source: variable });
    } else {
      const found = file?.values.get(key);
      if (found !== undefined && file !== undefined) values.set(key, { value: found, source: file.path });
      else values.set(key, { value: settingKeys[key].fallback, source: 'default' });
    }
  }
  return { settings: new Settings(values, file, flags.port !== undefined), problems, invalid, hints };
}

/** Returns how to repair a file with this number of problems, some of them invalid values of keys. */
function fileHints(file: string | undefined, problems: number, invalid: readonly SettingKey[]): string[] {
  const [key, ...others] = invalid;
  const hints: string[] = [];
  if (key !== undefined) {
    const name = others.length === 0 ? key : 'KEY';
    hints.push(`kubectl tka config set ${name} VALUE, or: kubectl tka config unset ${name}`);
  }
  if (problems > invalid.length && file !== undefined) hints.push(`edit ${file}`);
  return hints;
}

/** Prefix of each line of the error for an invalid configuration. */
export const badConfiguration = 'bad configuration: ';

function problemsError(problems: readonly string[], hints: readonly string[]): TkaError {
  const told = problems.slice(0, problemLimit);
  if (problems.length > told.length) told.push(`and ${problems.length - told.length} more problems`);
  return new TkaError(told.map((problem) => `${badConfiguration}${problem}`).join('\n'), { hints });
}

/**
 * Returns the time limit for getting a token, in milliseconds: TKA_TIMEOUT as a Go duration or a number of seconds,
 * else 30 s. Throws UsageError for an invalid value, and for more than an hour.
 */
export function signInTimeout(env: NodeJS.ProcessEnv): number {
  const text = env.TKA_TIMEOUT?.trim();
  if (!text) return 30_000;
  const ms = /^[0-9]+(?:\.[0-9]+)?$/.test(text) ? Number(text) * 1000 : goDuration(text);
  if (ms === undefined || ms <= 0 || ms > 3_600_000) {
    throw new UsageError(`invalid TKA_TIMEOUT=${quoted(text)}: must be a duration of up to an hour`, {
      hints: ['use a Go duration or seconds: TKA_TIMEOUT=45s'],
    });
  }
  return ms;
}
