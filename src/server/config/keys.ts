// All keys of the server's configuration, with defaults and meanings. Names and defaults are those of the Go server;
// only `tailscale.tag`, `identity`, `health.host`, `gossip.key`, `operator.leaseNamespace`, `admin`, `audit` and `federation`
// (except `federation.loginServer`) are new here.
// docs/reference/server-config.md is generated from this file (npm run reference).
import { X509Certificate } from 'node:crypto';
import type { Labels } from '../../tka/types.ts';
import { isHostPort } from '../../util/address.ts';
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import { certificatesIn } from '../../util/pem.ts';
import { canonicalApiServer, canonicalServer } from '../../util/url.ts';

/** A type of value. */
interface Kind<T> {
  /** Parses a value from a file or a variable. Returns undefined if it is invalid. */
  readonly read: (given: unknown) => { readonly value: T } | undefined;
  readonly fallback: T;
  /** What the value must be, for errors and the reference: `a port from 1 to 65535`. */
  readonly what: string;
  /** Formats the value as people write it, without secrets. Default: unchanged. */
  readonly show?: (value: T) => unknown;
  readonly secret?: true;
}

interface Key<T> extends Kind<T> {
  /** One or two sentences for the reference. */
  readonly meaning: string;
}

/** Returns a key: a type of value with its meaning. */
const key = <T>(meaning: string, kind: Kind<T>): Key<T> => ({ ...kind, meaning });

const oneLine = (value: unknown): string | undefined => {
  const text = typeof value === 'number' ? String(value) : value;
  if (typeof text !== 'string' || text.length > 1024 || /[\u0000-\u001f\u007f-\u009f]/.test(text)) return undefined;
  return text.trim();
};

/** Returns the type of a one-line text that matches `shape`. Default: any text. */
function text<T extends string | undefined>(fallback: T, what = 'one line of plain text', shape = /^/): Kind<T> {
  return {
    fallback,
    what,
    read(value) {
      const line = oneLine(value);
      if (line === undefined || !shape.test(line)) return undefined;
      return { value: (line === '' ? fallback : line) as T };
    },
  };
}

const dnsName = /^(?=.{0,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*)?$/i;
const host = /^(?:[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}|)$/i;
const absolutePath = /^(?:\/.*|[A-Za-z]:[\\/].*|)$/;
const objectName = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?|)$/;

/** Returns whether a text is a valid name of a namespace. */
export const isNamespace = (text: string): boolean => text !== '' && objectName.test(text);

function whole(fallback: number, least: number, most: number, what: string): Kind<number> {
  return {
    fallback,
    what: `${what} from ${least} to ${most}`,
    read(value) {
      const number = typeof value === 'string' && /^[0-9]{1,9}$/.test(value.trim()) ? Number(value) : value;
      const isIn = typeof number === 'number' && Number.isInteger(number) && number >= least && number <= most;
      return isIn ? { value: number } : undefined;
    },
  };
}

const port = (fallback: number): Kind<number> => whole(fallback, 1, 65_535, 'a port');

function flag<T extends boolean | undefined>(fallback: T): Kind<T | boolean> {
  return {
    fallback,
    what: 'true or false',
    read(value) {
      const word = typeof value === 'boolean' ? String(value) : typeof value === 'string' ? value.trim() : '';
      // Like Go's strconv.ParseBool.
      if (/^(?:1|t|true)$/i.test(word)) return { value: true };
      if (/^(?:0|f|false)$/i.test(word)) return { value: false };
      return undefined;
    },
  };
}

/** Returns the type of a duration; numbers are in milliseconds. One day is enough for all of these timers. */
function duration(fallback: number, least = 0): Kind<number> {
  return {
    fallback,
    what: `a Go duration like ${fallback / 1000}s, from ${least === 0 ? '0' : `${least}ms`} to 24h`,
    show: formatGoDuration,
    read(value) {
      const given = typeof value === 'string' ? value.trim() : value === 0 ? '0s' : '';
      const ms = given === '0' ? 0 : goDuration(given);
      return ms !== undefined && ms >= least && ms <= 86_400_000 ? { value: ms } : undefined;
    },
  };
}

function checked<T extends string | undefined>(fallback: T, what: string, check: (line: string) => void): Kind<T> {
  return {
    fallback,
    what,
    read(value) {
      const line = oneLine(value);
      if (line === '') return { value: fallback };
      try {
        if (line === undefined) return undefined;
        check(line);
        return { value: line as T };
      } catch {
        return undefined;
      }
    },
  };
}

/** Throws unless the text is host:port or an http or https URL without credentials. */
function collector(line: string): void {
  const isUrl = /^https?:\/\/[^\s/@]+(?:\/\S*)?$/i.test(line);
  if (!isUrl && !/^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]):[0-9]{1,5}$/i.test(line))
    throw new Error(line);
  new URL(isUrl ? line : `http://${line}`);
}

const labels: Kind<Labels> = {
  fallback: {},
  what: 'a map of strings, or key=value,key=value',
  read(value) {
    let map = value;
    if (typeof value === 'string') {
      const given = value.trim();
      try {
        // The Go server accepts JSON in the environment.
        map = given.startsWith('{')
          ? JSON.parse(given)
          : Object.fromEntries(
              given
                .split(',')
                .filter((pair) => pair.trim() !== '')
                .map((pair) => pair.split(/=(.*)/s, 2).map((part) => part.trim())),
            );
      } catch {
        return undefined;
      }
    }
    if (typeof map !== 'object' || map === null || Array.isArray(map)) return undefined;
    for (const [key, label] of Object.entries(map)) {
      if (key === '' || oneLine(key) !== key || typeof label !== 'string' || oneLine(label) === undefined) {
        return undefined;
      }
    }
    return { value: map as Labels };
  },
};

const peers: Kind<readonly string[]> = {
  fallback: [],
  what: 'a list of host:port',
  read(value) {
    const list = typeof value === 'string' ? value.split(/[\s,]+/).filter((peer) => peer !== '') : value;
    const isPeer = (peer: unknown) => typeof peer === 'string' && isHostPort(peer.toLowerCase());
    return Array.isArray(list) && list.every(isPeer) ? { value: list } : undefined;
  },
};

const isTag = (text: unknown): text is string =>
  typeof text === 'string' && /^tag:[A-Za-z][A-Za-z0-9-]{0,62}$/.test(text);

const tags: Kind<readonly string[]> = {
  fallback: [],
  what: 'a list of tags such as tag:ci',
  read(value) {
    const list = typeof value === 'string' ? value.split(/[\s,]+/).filter((tag) => tag !== '') : value;
    return Array.isArray(list) && list.length <= 64 && list.every(isTag) ? { value: list } : undefined;
  },
};

const names: Kind<readonly string[]> = {
  fallback: [],
  what: 'a list of names',
  read(value) {
    const list = typeof value === 'string' ? value.split(/[\s,]+/).filter((name) => name !== '') : value;
    const isRole = (name: unknown) => typeof name === 'string' && oneLine(name) === name && name !== '';
    return Array.isArray(list) && list.length <= 256 && list.every(isRole) ? { value: list } : undefined;
  },
};

/** Secrets as a list, or as one text separated by commas. */
const secrets: Kind<readonly string[]> = {
  fallback: [],
  what: 'a secret of at least 32 characters, or a list of at most 10 (the first one signs)',
  show: (list) => list.map(() => '[redacted]'),
  secret: true,
  read(value) {
    const list = typeof value === 'string' ? value.split(',').map((key) => key.trim()) : value;
    const isSecret = (key: unknown) => typeof key === 'string' && key.length >= 32 && key.length <= 1024;
    return Array.isArray(list) && list.length <= 10 && list.every(isSecret) ? { value: list } : undefined;
  },
};

const caData: Kind<string> = {
  fallback: '',
  what: 'base64 of PEM, as certificate-authority-data in a kubeconfig',
  read(value) {
    const base64 = typeof value === 'string' ? value.replace(/\s/g, '') : '!';
    if (base64 === '') return { value: '' };
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return undefined;
    try {
      const pem = Buffer.from(base64, 'base64');
      new X509Certificate(pem);
      return certificatesIn(pem.toString('latin1')).length > 0 ? { value: base64 } : undefined;
    } catch {
      return undefined;
    }
  },
};

const namespace = 'the name of a namespace';

const file: Kind<string | undefined> = text<string | undefined>(undefined, 'an absolute path', absolutePath);
const listenAddress = /^(?:(?:[a-z0-9.-]*|\[[0-9a-f:]+\]):[0-9]{1,5}|)$/i;

export const configKeys = {
  'tailscale.hostname': key(
    'The name of this server in the tailnet, and of its cluster unless `operator.clusterName` is set.',
    text('tka', 'a host name', dnsName),
  ),
  'tailscale.tailnet': key(
    'The domain of the tailnet. Only needed without tailscaled, which knows it.',
    text('', 'a domain like example.ts.net', /^\.?[a-z0-9.-]{0,253}\.?$/i),
  ),
  'tailscale.port': key('The port of the API. 443 is https, any other port is plain http.', port(443)),
  'tailscale.tag': key(
    'The tag of the TKA servers: the members of the mesh have it, and a device with it cannot sign in.',
    text('tag:tka', 'a tag such as tag:tka', /^(?:tag:[A-Za-z][A-Za-z0-9-]{0,62}|)$/),
  ),
  'tailscale.stateDir': key('No effect here: tailscaled, not this server, keeps the state of the node.', text('')),
  'tailscale.capName': key(
    'The capability whose rules in the tailnet policy grant roles.',
    text('specht-labs.de/cap/tka', 'the name of a capability', /^\S*$/),
  ),
  'identity.allowTagged': key(
    'Tags of devices that can sign in, such as CI machines. Default: none, only people can. Never `tailscale.tag`.',
    tags,
  ),
  'server.host': key(
    'The address of the API and the mesh. Default: the addresses of the tailnet, or 127.0.0.1 with a userspace tailscaled.',
    text<string | undefined>(undefined, 'an address or a host name', host),
  ),
  'server.readTimeout': key('Timeout for reading a request.', duration(10_000)),
  'server.readHeaderTimeout': key('Timeout for reading the headers of a request.', duration(5_000)),
  'server.writeTimeout': key('Timeout for answering a request.', duration(20_000)),
  'server.idleTimeout': key('How long an idle connection stays open.', duration(120_000)),
  'operator.namespace': key(
    'The namespace of sign-ins and their ServiceAccounts. The manifests and the chart set it to the namespace of the pod.',
    text('tka-dev', namespace, objectName),
  ),
  'operator.leaseNamespace': key(
    'The namespace of the leader lease, if a Go server shares it. Default: `operator.namespace`.',
    text<string | undefined>(undefined, namespace, objectName),
  ),
  'operator.clusterName': key(
    'The name of the cluster. With the default value, the cluster is called `tailscale.hostname`.',
    text('tka-cluster'),
  ),
  'operator.contextPrefix': key(
    'Prefix of context names in the kubeconfig that `GET /kubeconfig` returns.',
    text('tka-context-'),
  ),
  'operator.userPrefix': key('Prefix of user names in that kubeconfig.', text('tka-user-')),
  'api.retryAfterSeconds': key(
    'How long clients wait between requests while a sign-in is not provisioned yet.',
    whole(1, 1, 86_400, 'a number of seconds'),
  ),
  'health.host': key(
    'The address of probes and metrics. Default: `server.host` if it is set, else all addresses.',
    text<string | undefined>(undefined, 'an address or a host name', host),
  ),
  'health.port': key('The port of `/healthz`, `/ready` and `/metrics`.', port(8080)),
  debug: key('Log debug lines too.', flag(false)),
  'otel.endpoint': key(
    'The collector of traces: `host:port` for OTLP over gRPC (port 4318: over HTTP), a URL for OTLP over HTTP. Default: no traces.',
    {
      ...checked<string | undefined>(undefined, 'host:port or a URL', collector),
      // Some collectors take their API key in the query.
      show: (url) => url?.replace(/\?.*$/, '?[redacted]'),
    },
  ),
  'otel.insecure': key('Send traces to a `host:port` without TLS.', flag(true)),
  'admin.socket': key(
    'The Unix socket for `tka-server members`, `status` and `sign-ins`. Default: `tka-server-UID/admin.sock` in the temporary folder.',
    text<string | undefined>(undefined, 'an absolute path', absolutePath),
  ),
  'audit.enabled': key(
    'Write an audit log: one JSON line for each sign-in, token, logout, expiry and refusal.',
    flag(true),
  ),
  'audit.file': key(
    'The file of the audit log. Default: standard output.',
    text<string | undefined>(undefined, 'an absolute path', absolutePath),
  ),
  'clusterInfo.apiEndpoint': key(
    'The URL of the Kubernetes API server for users. Default: from the ConfigMap of `clusterInfo.configMapRef`.',
    checked<string | undefined>(undefined, 'the https URL of the API server', canonicalApiServer),
  ),
  'clusterInfo.caData': key('The certificate authority of `clusterInfo.apiEndpoint`.', caData),
  'clusterInfo.insecureSkipTLSVerify': key(
    'Tell clients not to verify the certificate of `clusterInfo.apiEndpoint`.',
    flag(false),
  ),
  'clusterInfo.labels': key('Labels of the cluster, for selectors like `kubectl tka clusters -l region=eu`.', labels),
  'clusterInfo.configMapRef.enabled': key(
    'Read endpoint and certificate authority from a ConfigMap. Default: true without `clusterInfo.apiEndpoint`.',
    flag(undefined),
  ),
  'clusterInfo.configMapRef.name': key(
    'The name of the ConfigMap. The default is the ConfigMap of kubeadm.',
    text('cluster-info'),
  ),
  'clusterInfo.configMapRef.namespace': key(
    'The namespace of the ConfigMap.',
    text('kube-public', namespace, objectName),
  ),
  'clusterInfo.configMapRef.keys.apiEndpoint': key('The key of the endpoint in the ConfigMap.', text('apiEndpoint')),
  'clusterInfo.configMapRef.keys.caData': key('The key of the certificate authority in the ConfigMap.', text('caData')),
  'clusterInfo.configMapRef.keys.insecure': key(
    'The key in the ConfigMap that tells clients not to verify the certificate.',
    text('insecure'),
  ),
  'clusterInfo.configMapRef.keys.kubeconfig': key(
    'The key of a kubeconfig in the ConfigMap. Used if the ConfigMap has neither endpoint nor certificate authority.',
    text('kubeconfig'),
  ),
  'gossip.enabled': key('Join the mesh: exchange the list of clusters with other TKA servers.', flag(false)),
  'gossip.port': key('The port of the mesh.', port(7946)),
  'gossip.bootstrapPeers': key(
    'The members to contact first. Default: the devices of the tailnet with the tag of this one.',
    peers,
  ),
  'gossip.factor': key('How many members this server asks in each round.', whole(3, 1, 100, 'a number of peers')),
  'gossip.interval': key('The time between two rounds.', duration(1_000, 50)),
  'gossip.stalenessThreshold': key(
    'A member is suspected after this many rounds without an answer.',
    whole(5, 1, 100_000, 'a number of rounds'),
  ),
  'gossip.deadThreshold': key(
    'A member is dead after this many rounds without an answer. Must be greater than `gossip.stalenessThreshold`.',
    whole(10, 2, 100_000, 'a number of rounds'),
  ),
  'gossip.key': key(
    'The shared keys of the mesh. Default: none; the tag of a node decides whether it is a member.',
    secrets,
  ),
  'federation.loginServer': key(
    'Of a joined cluster: the endpoint of its login server, to check the one in the join Secret. Without a join Secret: a TKA server to contact first, like `gossip.bootstrapPeers`.',
    checked<string | undefined>(undefined, 'the URL of a TKA server', canonicalServer),
  ),
  'federation.caFile': key(
    'Of a joined cluster: the certificate authorities of the login server, as a PEM file. Default: those of the system.',
    file,
  ),
  'federation.joinFolder': key(
    'Of a joined cluster: the folder where the join Secret is mounted (files `endpoint` and `token`).',
    text('/etc/tka/join', 'an absolute path', absolutePath),
  ),
  'federation.roles': key(
    'Of a joined cluster: the roles that people can get through the login server. Default: all roles that this server may bind.',
    names,
  ),
  'federation.maxPeriod': key(
    'Of a joined cluster: the longest period of a sign-in through the login server.',
    duration(28_800_000, 600_000),
  ),
  'federation.listen': key(
    'Of a login server: the address for the tunnels of joined clusters (`:7947`, `10.0.0.5:7947`). Default: this server is not a login server.',
    text<string | undefined>(undefined, 'host:port or :port', listenAddress),
  ),
  'federation.endpoint': key(
    'Of a login server: the URL under which joined clusters reach `federation.listen`. It is part of every join token.',
    checked<string | undefined>(undefined, 'an https URL', canonicalApiServer),
  ),
  'federation.certFile': key(
    'Of a login server: the certificate of `federation.endpoint` with its chain, as a PEM file. Read again when it changes.',
    file,
  ),
  'federation.keyFile': key('Of a login server: the private key of `federation.certFile`, as a PEM file.', file),
  'federation.capName': key(
    'Of a login server: the capability whose rules in the tailnet policy grant roles in joined clusters.',
    text('specht-labs.de/cap/tka-federation', 'the name of a capability', /^\S*$/),
  ),
} as const;

export type ConfigKey = keyof typeof configKeys;
export type ConfigValue<K extends ConfigKey = ConfigKey> = (typeof configKeys)[K]['fallback'];

/** Returns a key's value as people write it (`10s`), without secrets, or null if there is none. */
export function shownValue<K extends ConfigKey>(key: K, value: ConfigValue<K>): unknown {
  const { show } = configKeys[key] as Kind<ConfigValue<K>>;
  return (show === undefined ? value : show(value)) ?? null;
}

/** Returns the environment variable that overrides a key of the file. */
export function variableOf(key: ConfigKey): string {
  return `TKA_${key.toUpperCase().replaceAll('.', '_')}`;
}
