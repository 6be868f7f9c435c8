// Loads the server's configuration: environment first, then file, then defaults.
import { type FileValue, parseConfigText, readConfigText } from '../../settings/config-file.ts';
import { UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, isPlainName, quoted } from '../../util/text.ts';
import { quotedUrl } from '../../util/url.ts';
import { type ConfigKey, type ConfigValue, configKeys, variableOf } from './keys.ts';

/** The configuration, with a value for each key. */
export interface Config {
  get<K extends ConfigKey>(key: K): ConfigValue<K>;
  /** Returns the source of a value: `/etc/tka/config.yaml:3`, `TKA_GOSSIP_PORT`, or undefined for the default. */
  sourceOf(key: ConfigKey): string | undefined;
  /** The file that was read, if any. */
  readonly file: string | undefined;
  /** Suspicious settings, one line each with the place. */
  readonly warnings: readonly string[];
}

/** A configuration, and the problems that make it unusable, one line each with the place. */
export interface Examined {
  readonly config: Config;
  readonly problems: readonly string[];
}

export const keysHint = 'see docs/reference/server-config.md for all keys';

const usualFile = '/etc/tka/config.yaml';
const keys = Object.keys(configKeys) as ConfigKey[];
// Kubernetes puts this into the environment of every pod in the namespace of a Service:
// `TKA_HEALTH_PORT=tcp://10.0.0.1:80`.
const serviceLink = /^(?:tcp|udp|sctp):\/\//;
// Settings of the Go CLI and of kubectl-tka, which may share /etc/tka/config.yaml with a server.
const clientSetting = /^(?:output|tls)(?:\.|$)/i;

/**
 * Reads the configuration from the named file, or from /etc/tka/config.yaml if it exists. Throws one UsageError with a
 * line for each problem.
 */
export async function loadConfig(named: string | undefined, env: NodeJS.ProcessEnv): Promise<Config> {
  const unreadable: string[] = [];
  const file = named ?? usualFile;
  const text = readConfigText(file, named !== undefined, unreadable);
  const { config, problems } = await examineConfig(file, text, env);
  const all = [...unreadable, ...problems];
  if (all.length === 0) return config;
  throw new UsageError(all.map((problem) => `bad configuration: ${problem}`).join('\n'), { hints: [keysHint] });
}

/** Reads a configuration file (undefined if there is none) and the environment variables, which override it. */
export async function examineConfig(file: string, text: string | undefined, env: NodeJS.ProcessEnv): Promise<Examined> {
  const problems: string[] = [];
  const warnings: string[] = [];
  const wrong = new Set<ConfigKey>();
  const read = (key: ConfigKey, given: unknown) => {
    const found = configKeys[key].read(given) as { readonly value: ConfigValue } | undefined;
    if (found === undefined) wrong.add(key);
    return found ?? { problem: `must be ${configKeys[key].what}` };
  };
  const unknown = (dotted: string, place: string) => {
    const why = clientSetting.test(dotted)
      ? `${cleanText(dotted)} has no effect: it is for kubectl-tka, not for the server`
      : `unknown key ${quoted(dotted)}${meantBy(dotted)}`;
    warnings.push(`${place}: ${why}`);
  };
  const inFile =
    text === undefined
      ? new Map<ConfigKey, FileValue<ConfigValue>>()
      : await parseConfigText(file, text, { keys, read, unknown }, problems);
  const values = new Map<ConfigKey, { readonly value: ConfigValue; readonly source: string }>();
  for (const [key, { value, line }] of inFile) values.set(key, { value, source: `${file}:${line}` });
  for (const key of keys) {
    const variable = variableOf(key);
    const given = env[variable];
    if (!given || (key.endsWith('.port') && serviceLink.test(given))) continue;
    const found = read(key, given);
    if (!('problem' in found)) values.set(key, { value: found.value, source: variable });
    else {
      const isSecret = 'secret' in configKeys[key];
      problems.push(`${variable}${isSecret ? '' : `=${quotedUrl(cleanText(given))}`}: ${found.problem}`);
    }
  }
  const config: Config = {
    file: text === undefined ? undefined : file,
    warnings,
    get: <K extends ConfigKey>(key: K) =>
      (values.has(key) ? values.get(key)?.value : configKeys[key].fallback) as ConfigValue<K>,
    sourceOf: (key) => values.get(key)?.source,
  };
  checkTogether(config, wrong, problems);
  warnings.push(...withoutEffect(config), ...oddities(config));
  return { config, problems };
}

/**
 * Returns the cluster's name for people. This is `operator.clusterName`, unless it is the default (configurations for
 * the Go server copy it) or cannot name a context. Otherwise it is `tailscale.hostname` without the tailnet.
 */
export function clusterNameOf(config: Config): string {
  const given = config.get('operator.clusterName');
  if (given !== configKeys['operator.clusterName'].fallback && isPlainName(given)) return given;
  const hostname = config.get('tailscale.hostname').toLowerCase();
  const suffix = `.${tailnetOf(config)}`;
  return suffix !== '.' && hostname.endsWith(suffix) ? hostname.slice(0, -suffix.length) : hostname;
}

/**
 * Returns the configured tailnet in lower case without leading and trailing dots, or an empty text if there is none.
 */
export const tailnetOf = (config: Config): string =>
  config
    .get('tailscale.tailnet')
    .replace(/^\.+|\.+$/g, '')
    .toLowerCase();

/** Returns `; did you mean "tailscale.capName"?` for a key that is unknown or misplaced, or an empty text. */
function meantBy(dotted: string): string {
  const lastOf = (key: string) => key.slice(key.lastIndexOf('.') + 1).toLowerCase();
  const same = keys.filter((key) => lastOf(key) === lastOf(dotted));
  return didYouMean(dotted, same.length === 1 ? [] : keys) || (same[0] ? `; did you mean "${same[0]}"?` : '');
}

// What a login server needs besides federation.listen.
const required = ['federation.endpoint', 'federation.certFile', 'federation.keyFile'] as const;

/** Checks rules that concern several keys. */
function checkTogether(config: Config, wrong: ReadonlySet<ConfigKey>, problems: string[]): void {
  const areRead = (...some: readonly ConfigKey[]) => !some.some((key) => wrong.has(key));
  const add = (problem: string, ...some: readonly ConfigKey[]) => problems.push(`${placeOf(config, some)}${problem}`);
  const endpoint = config.get('clusterInfo.apiEndpoint');
  const fromMap = config.get('clusterInfo.configMapRef.enabled');
  if (endpoint === undefined && fromMap === false && areRead('clusterInfo.apiEndpoint')) {
    const problem = 'clusterInfo.apiEndpoint is required with clusterInfo.configMapRef.enabled: false';
    add(problem, 'clusterInfo.configMapRef.enabled');
  }
  if (endpoint !== undefined && fromMap) {
    const problem = 'set either clusterInfo.apiEndpoint or clusterInfo.configMapRef.enabled: true, not both';
    add(problem, 'clusterInfo.configMapRef.enabled');
  }
  const [allowed, tag] = ['identity.allowTagged', 'tailscale.tag'] as const;
  if (areRead(allowed, tag) && config.get(allowed).includes(config.get(tag))) {
    add(`${allowed} must not contain ${config.get(tag)}, the tag of the TKA servers (${tag})`, allowed, tag);
  }
  if (config.get('federation.listen') !== undefined) {
    const [own, joined] = ['tailscale.capName', 'federation.capName'] as const;
    const capabilities = new Set<string>([config.get(own), config.get(joined)]);
    if (areRead(own, joined) && capabilities.size === 1) {
      add(`${joined} must differ from ${own}: rules for joined clusters must not count for this one`, joined, own);
    }
    for (const key of required) {
      if (config.get(key) === undefined && areRead(key))
        add(`${key} is required with federation.listen`, 'federation.listen');
    }
  }
  const [dead, stale] = ['gossip.deadThreshold', 'gossip.stalenessThreshold'] as const;
  if (areRead(dead, stale) && config.get(dead) <= config.get(stale)) {
    add(`${dead} must be greater than ${stale}`, dead, stale);
  }
}

/** Returns the place of the first of these keys that is set, with a colon, or an empty text. */
function placeOf(config: Config, some: readonly ConfigKey[]): string {
  const place = some.map((key) => config.sourceOf(key)).find((source) => source !== undefined);
  return place === undefined ? '' : `${place}: `;
}

/** Returns a warning for each key that is set but has no effect with this server or with the other keys. */
function withoutEffect(config: Config): string[] {
  const hasEndpoint = config.get('clusterInfo.apiEndpoint') !== undefined;
  const table: readonly (readonly [key: ConfigKey, isIgnored: boolean, why: string])[] = [
    ['tailscale.stateDir', true, "tailscaled keeps the state of the node; set the sidecar's TS_STATE_DIR instead"],
    [
      'clusterInfo.caData',
      !hasEndpoint,
      'the certificate authority comes from the ConfigMap; set clusterInfo.apiEndpoint too',
    ],
    ['clusterInfo.insecureSkipTLSVerify', !hasEndpoint, 'it comes from the ConfigMap; set clusterInfo.apiEndpoint too'],
    ...[...required, 'federation.capName' as const].map(
      (key) => [key, config.get('federation.listen') === undefined, 'set federation.listen too'] as const,
    ),
    [
      'otel.insecure',
      config.get('otel.endpoint')?.includes('://') === true,
      'the scheme of otel.endpoint (http or https) defines it',
    ],
  ];
  return table.flatMap(([key, isIgnored, why]) => {
    const isSet = config.sourceOf(key) !== undefined && config.get(key) !== configKeys[key].fallback;
    return isSet && isIgnored ? [`${placeOf(config, [key])}${key} has no effect: ${why}`] : [];
  });
}

/** Returns a warning for each valid value that is probably a mistake. */
function oddities(config: Config): string[] {
  const found: string[] = [];
  const given = config.get('operator.clusterName');
  if (!isPlainName(given)) {
    const place = placeOf(config, ['operator.clusterName']);
    const why = `operator.clusterName ${quotedUrl(cleanText(given))} is not a valid context name`;
    const advice = 'use letters, digits, ".", "_" and "-"';
    found.push(`${place}${why}: the cluster is called ${quoted(clusterNameOf(config))}; ${advice}`);
  }
  const endpoint = config.get('otel.endpoint') ?? '';
  const place = placeOf(config, ['otel.endpoint']);
  if (/^http:\/\/[^/]+:4317(?:\/|$)/i.test(endpoint)) {
    found.push(`${place}otel.endpoint: port 4317 is usually OTLP over gRPC; remove http:// to use gRPC`);
  }
  if (/^[^/]+:14250$/.test(endpoint)) {
    found.push(
      `${place}otel.endpoint: port 14250 is for Jaeger's legacy format; the server sends OTLP over gRPC, usually to port 4317`,
    );
  }
  // Node refuses an address as TLS server name, and gRPC uses the host as server name.
  if (!config.get('otel.insecure') && /^(?:[0-9.]+|\[.*\]):(?!4318$)[0-9]+$/.test(endpoint)) {
    found.push(
      `${place}otel.endpoint: gRPC with TLS needs a host name, not an IP address; https:// accepts an IP address`,
    );
  }
  return found;
}
