// The server's configuration: environment, then file, then default.
import { parseConfigText, readConfigText } from '../../settings/config-file.ts';
import { UsageError } from '../../util/errors.ts';
import { cleanText, isDnsLike } from '../../util/text.ts';
import { quotedUrl } from '../../util/url.ts';
import { type ConfigKey, type ConfigValue, configKeys, variableOf } from './keys.ts';

/** All of it, each key with its value. */
export interface Config {
  get<K extends ConfigKey>(key: K): ConfigValue<K>;
  /** The file that was read, if any. */
  readonly file: string | undefined;
}

const usualFile = '/etc/tka/config.yaml';
const keys = Object.keys(configKeys) as ConfigKey[];
// What a Service of that name puts into the environment of every pod beside it: `TKA_HEALTH_PORT=tcp://10.0.0.1:80`.
const serviceLink = /^(?:tcp|udp|sctp):\/\//;

/**
 * Reads the configuration: the named file, else /etc/tka/config.yaml where there is one. Throws one UsageError with a
 * line for every problem.
 */
export async function loadConfig(named: string | undefined, env: NodeJS.ProcessEnv): Promise<Config> {
  const problems: string[] = [];
  const file = named ?? usualFile;
  const text = readConfigText(file, named !== undefined, problems);
  const wrong = new Set<ConfigKey>();
  let entries = 0;
  const read = (key: ConfigKey, value: unknown) => {
    const found = configKeys[key].read(value) as { readonly value: ConfigValue } | { readonly problem: string };
    entries++;
    if ('problem' in found) wrong.add(key);
    return found;
  };
  const unknown = (dotted: string) => {
    entries++;
    const last = dotted.slice(dotted.lastIndexOf('.') + 1).toLowerCase();
    const meant = keys.find((key) => key.toLowerCase().endsWith(`.${last}`));
    return `is no key of the configuration${meant === undefined ? '' : ` (${meant} is)`}`;
  };
  const schema = { keys, read, unknown };
  const values =
    text === undefined ? new Map<ConfigKey, ConfigValue>() : await parseConfigText(file, text, schema, problems);
  // What an unreadable file would have said is not known.
  const isUnreadable = problems.length > 0 && entries === 0;
  for (const key of keys) {
    const variable = variableOf(key);
    const given = env[variable];
    if (!given || (key.endsWith('.port') && serviceLink.test(given))) continue;
    const found = read(key, given);
    if (!('problem' in found)) values.set(key, found.value);
    else problems.push(`${variable}${key === 'gossip.key' ? '' : `=${quotedUrl(cleanText(given))}`}: ${found.problem}`);
  }
  const config: Config = {
    file: text === undefined ? undefined : file,
    get: <K extends ConfigKey>(key: K) =>
      (values.has(key) ? values.get(key) : configKeys[key].fallback) as ConfigValue<K>,
  };
  if (!isUnreadable) checkTogether(config, wrong, problems);
  if (problems.length > 0) {
    throw new UsageError(problems.map((problem) => `bad configuration: ${problem}`).join('\n'));
  }
  return config;
}

/**
 * Returns what people call the cluster of this server: `operator.clusterName`, unless it is the default (configurations for
 * the Go server copy it) or cannot name a context; else `tailscale.hostname` without the tailnet.
 */
export function clusterNameOf(config: Config): string {
  const given = config.get('operator.clusterName');
  if (given !== configKeys['operator.clusterName'].fallback && isDnsLike(given)) return given;
  const hostname = config.get('tailscale.hostname').toLowerCase();
  const suffix = `.${tailnetOf(config)}`;
  return suffix !== '.' && hostname.endsWith(suffix) ? hostname.slice(0, -suffix.length) : hostname;
}

/** Returns the configured tailnet in lower case, without dots at its ends; empty where none is configured. */
export const tailnetOf = (config: Config): string =>
  config
    .get('tailscale.tailnet')
    .replace(/^\.+|\.+$/g, '')
    .toLowerCase();

/** What is wrong only with several keys together. */
function checkTogether(config: Config, wrong: ReadonlySet<ConfigKey>, problems: string[]): void {
  const areRead = (...some: readonly ConfigKey[]) => !some.some((key) => wrong.has(key));
  const endpoint = config.get('clusterInfo.apiEndpoint');
  const fromMap = config.get('clusterInfo.configMapRef.enabled');
  if (areRead('clusterInfo.apiEndpoint', 'clusterInfo.configMapRef.enabled') && endpoint === undefined && !fromMap) {
    problems.push('clusterInfo.apiEndpoint is required (or clusterInfo.configMapRef.enabled: true)');
  }
  if (endpoint !== undefined && fromMap) {
    problems.push('clusterInfo.apiEndpoint and clusterInfo.configMapRef.enabled: true exclude each other');
  }
  if (
    areRead('gossip.deadThreshold', 'gossip.stalenessThreshold') &&
    config.get('gossip.deadThreshold') <= config.get('gossip.stalenessThreshold')
  ) {
    problems.push('gossip.deadThreshold must be more than gossip.stalenessThreshold');
  }
}
