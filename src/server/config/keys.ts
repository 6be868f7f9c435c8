// Every key of the server's configuration, with its default, as the Go server has them; `health.host`, `gossip.key`
// and `operator.leaseNamespace` are ours.
import { X509Certificate } from 'node:crypto';
import { isHostPort } from '../../util/address.ts';
import { goDuration } from '../../util/duration.ts';
import { certificatesIn } from '../../util/pem.ts';
import { canonicalApiServer, canonicalServer } from '../../util/url.ts';

type Labels = Readonly<Record<string, string>>;
type Reader<T> = (value: unknown) => { readonly value: T } | { readonly problem: string };
interface Key<T> {
  readonly read: Reader<T>;
  readonly fallback: T;
}

const oneLine = (value: unknown): string | undefined => {
  const text = typeof value === 'number' ? String(value) : value;
  if (typeof text !== 'string' || text.length > 1024 || /[\u0000-\u001f\u007f-\u009f]/.test(text)) return undefined;
  return text.trim();
};

/** A text of one line that `shape` accepts; default: any. */
function text<T extends string | undefined>(fallback: T, what = 'must be one line of plain text', shape = /^/): Key<T> {
  return {
    fallback,
    read(value) {
      const line = oneLine(value);
      if (line === undefined || !shape.test(line)) return { problem: what };
      return { value: (line === '' ? fallback : line) as T };
    },
  };
}

const dnsName = /^(?=.{0,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*)?$/i;
const host = /^(?:[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}|)$/i;
const objectName = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?|)$/;

/** Returns whether a text can be the name of a namespace. */
export const isNamespace = (text: string): boolean => text !== '' && objectName.test(text);

function whole(fallback: number, least: number, most: number, what: string): Key<number> {
  return {
    fallback,
    read(value) {
      const number = typeof value === 'string' && /^[0-9]{1,9}$/.test(value.trim()) ? Number(value) : value;
      if (typeof number === 'number' && Number.isInteger(number) && number >= least && number <= most) {
        return { value: number };
      }
      return { problem: `must be ${what} from ${least} to ${most}` };
    },
  };
}

const port = (fallback: number): Key<number> => whole(fallback, 1, 65_535, 'a port');

function flag(fallback: boolean): Key<boolean> {
  return {
    fallback,
    read(value) {
      const word = typeof value === 'boolean' ? String(value) : typeof value === 'string' ? value.trim() : '';
      // As Go's strconv.ParseBool.
      if (/^(?:1|t|true)$/i.test(word)) return { value: true };
      if (/^(?:0|f|false)$/i.test(word)) return { value: false };
      return { problem: 'must be true or false' };
    },
  };
}

/** In milliseconds. A day is more than a timer of any of these needs. */
function duration(fallback: number, least = 0): Key<number> {
  return {
    fallback,
    read(value) {
      const given = typeof value === 'string' ? value.trim() : value === 0 ? '0s' : '';
      const ms = given === '0' ? 0 : goDuration(given);
      if (ms !== undefined && ms >= least && ms <= 86_400_000) return { value: ms };
      return {
        problem: `must be a Go duration like ${fallback / 1000}s, from ${least === 0 ? '0' : `${least}ms`} to 24h`,
      };
    },
  };
}

function checked<T extends string | undefined>(fallback: T, what: string, check: (line: string) => void): Key<T> {
  return {
    fallback,
    read(value) {
      const line = oneLine(value);
      if (line === '') return { value: fallback };
      try {
        if (line === undefined) return { problem: what };
        check(line);
        return { value: line as T };
      } catch {
        return { problem: what };
      }
    },
  };
}

const labels: Key<Labels> = {
  fallback: {},
  read(value) {
    const what = 'must be a map of texts, or key=value,key=value';
    let map = value;
    if (typeof value === 'string') {
      const given = value.trim();
      try {
        // The Go server takes JSON from the environment.
        map = given.startsWith('{')
          ? JSON.parse(given)
          : Object.fromEntries(
              given
                .split(',')
                .filter((pair) => pair.trim() !== '')
                .map((pair) => pair.split(/=(.*)/s, 2).map((part) => part.trim())),
            );
      } catch {
        return { problem: what };
      }
    }
    if (typeof map !== 'object' || map === null || Array.isArray(map)) return { problem: what };
    for (const [key, label] of Object.entries(map)) {
      if (key === '' || oneLine(key) !== key || typeof label !== 'string' || oneLine(label) === undefined) {
        return { problem: what };
      }
    }
    return { value: map as Labels };
  },
};

const peers: Key<readonly string[]> = {
  fallback: [],
  read(value) {
    const list = typeof value === 'string' ? value.split(/[\s,]+/).filter((peer) => peer !== '') : value;
    if (Array.isArray(list) && list.every((peer) => typeof peer === 'string' && isHostPort(peer.toLowerCase())))
      return { value: list };
    return { problem: 'must be a list of host:port' };
  },
};

/** Secrets as a list, or in one text with commas between them. */
const secrets: Key<readonly string[]> = {
  fallback: [],
  read(value) {
    const list = typeof value === 'string' ? value.split(',').map((key) => key.trim()) : value;
    const isSecret = (key: unknown) => typeof key === 'string' && key.length >= 32 && key.length <= 1024;
    if (Array.isArray(list) && list.length <= 10 && list.every(isSecret)) return { value: list };
    return { problem: 'must be a secret of 32 characters at least, or a list of at most 10 (the first signs)' };
  },
};

const caData: Key<string> = {
  fallback: '',
  read(value) {
    const base64 = typeof value === 'string' ? value.replace(/\s/g, '') : '!';
    if (base64 === '') return { value: '' };
    const problem = 'must be base64 of PEM, as certificate-authority-data in a kubeconfig';
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return { problem };
    try {
      new X509Certificate(Buffer.from(base64, 'base64'));
      return certificatesIn(Buffer.from(base64, 'base64').toString('latin1')).length > 0
        ? { value: base64 }
        : { problem };
    } catch {
      return { problem };
    }
  },
};

export const configKeys = {
  'tailscale.hostname': text('tka', 'must be a host name', dnsName),
  'tailscale.tailnet': text('', 'must be a domain like example.ts.net', /^\.?[a-z0-9.-]{0,253}\.?$/i),
  'tailscale.port': port(443),
  // A sidecar's state is the sidecar's.
  'tailscale.stateDir': text(''),
  'tailscale.capName': text('specht-labs.de/cap/tka', "must be a capability's name", /^\S*$/),
  'server.host': text<string | undefined>(undefined, 'must be an address or a host name', host),
  'server.readTimeout': duration(10_000),
  'server.readHeaderTimeout': duration(5_000),
  'server.writeTimeout': duration(20_000),
  'server.idleTimeout': duration(120_000),
  'operator.namespace': text('tka-dev', "must be a namespace's name", objectName),
  // Default: operator.namespace.
  'operator.leaseNamespace': text<string | undefined>(undefined, "must be a namespace's name", objectName),
  'operator.clusterName': text('tka-cluster'),
  'operator.contextPrefix': text('tka-context-'),
  'operator.userPrefix': text('tka-user-'),
  'api.retryAfterSeconds': whole(1, 1, 86_400, 'a number of seconds'),
  'health.host': text<string | undefined>(undefined, 'must be an address or a host name', host),
  'health.port': port(8080),
  debug: flag(false),
  'otel.endpoint': text<string | undefined>(
    undefined,
    'must be host:port or a URL',
    /^(?:https?:\/\/[^\s/@]+(?:\/\S*)?|[^\s/@:]+:[0-9]{1,5}|)$/i,
  ),
  'otel.insecure': flag(true),
  'clusterInfo.apiEndpoint': checked<string | undefined>(
    undefined,
    'must be the https URL of the API server',
    canonicalApiServer,
  ),
  'clusterInfo.caData': caData,
  'clusterInfo.insecureSkipTLSVerify': flag(false),
  'clusterInfo.labels': labels,
  'clusterInfo.configMapRef.enabled': flag(false),
  'clusterInfo.configMapRef.name': text('cluster-info'),
  'clusterInfo.configMapRef.namespace': text('kube-public', "must be a namespace's name", objectName),
  'clusterInfo.configMapRef.keys.apiEndpoint': text('apiEndpoint'),
  'clusterInfo.configMapRef.keys.caData': text('caData'),
  'clusterInfo.configMapRef.keys.insecure': text('insecure'),
  'clusterInfo.configMapRef.keys.kubeconfig': text('kubeconfig'),
  'gossip.enabled': flag(false),
  'gossip.port': port(7946),
  'gossip.bootstrapPeers': peers,
  'gossip.factor': whole(3, 1, 100, 'a number of peers'),
  'gossip.interval': duration(1_000, 50),
  'gossip.stalenessThreshold': whole(5, 1, 100_000, 'a number of rounds'),
  'gossip.deadThreshold': whole(10, 2, 100_000, 'a number of rounds'),
  'gossip.key': secrets,
  'federation.loginServer': checked<string | undefined>(undefined, 'must be the URL of a TKA server', canonicalServer),
} as const;

export type ConfigKey = keyof typeof configKeys;
export type ConfigValue<K extends ConfigKey = ConfigKey> = (typeof configKeys)[K]['fallback'];

/** The environment variable that beats a key of the file. */
export function variableOf(key: ConfigKey): string {
  return `TKA_${key.toUpperCase().replaceAll('.', '_')}`;
}
