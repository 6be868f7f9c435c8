import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import { clusterNameOf, loadConfig } from '../../../src/server/config/config.ts';
import { type ConfigKey, configKeys, variableOf } from '../../../src/server/config/keys.ts';
import { fileFolder } from '../../fixtures/temporary.ts';

const folder = fileFolder();
const file = path.join(folder, 'config.yaml');
const required = { TKA_CLUSTERINFO_APIENDPOINT: 'https://api.example.com:6443' };

function load(text: string, env: NodeJS.ProcessEnv = required) {
  fs.writeFileSync(file, text);
  return loadConfig(file, env);
}

/** Returns the lines of the error without their common prefix. */
async function problems(text: string, env: NodeJS.ProcessEnv = required): Promise<string[]> {
  const error = await load(text, env).catch((caught) => caught);
  expect(error).toMatchObject({ name: 'UsageError', exitCode: 2 });
  return (error as Error).message
    .split('\n')
    .map((line) => line.replace('bad configuration: ', '').replace(file, 'config.yaml'));
}

test('the defaults are those of the Go server', async () => {
  const config = await load('');
  const expected: Partial<Record<ConfigKey, unknown>> = {
    'tailscale.hostname': 'tka',
    'tailscale.tailnet': '',
    'tailscale.port': 443,
    'tailscale.stateDir': '',
    'tailscale.capName': 'specht-labs.de/cap/tka',
    'tailscale.tag': 'tag:tka',
    'identity.allowTagged': [],
    'server.host': undefined,
    'server.readTimeout': 10_000,
    'server.readHeaderTimeout': 5_000,
    'server.writeTimeout': 20_000,
    'server.idleTimeout': 120_000,
    'operator.namespace': 'tka-dev',
    'operator.leaseNamespace': undefined,
    'admin.socket': undefined,
    'audit.enabled': true,
    'audit.file': undefined,
    'operator.clusterName': 'tka-cluster',
    'operator.contextPrefix': 'tka-context-',
    'operator.userPrefix': 'tka-user-',
    'api.retryAfterSeconds': 1,
    'health.host': undefined,
    'health.port': 8080,
    debug: false,
    'otel.endpoint': undefined,
    'otel.insecure': true,
    'clusterInfo.apiEndpoint': 'https://api.example.com:6443',
    'clusterInfo.caData': '',
    'clusterInfo.insecureSkipTLSVerify': false,
    'clusterInfo.labels': {},
    'clusterInfo.configMapRef.enabled': undefined,
    'clusterInfo.configMapRef.name': 'cluster-info',
    'clusterInfo.configMapRef.namespace': 'kube-public',
    'clusterInfo.configMapRef.keys.apiEndpoint': 'apiEndpoint',
    'clusterInfo.configMapRef.keys.caData': 'caData',
    'clusterInfo.configMapRef.keys.insecure': 'insecure',
    'clusterInfo.configMapRef.keys.kubeconfig': 'kubeconfig',
    'gossip.enabled': false,
    'gossip.port': 7946,
    'gossip.bootstrapPeers': [],
    'gossip.factor': 3,
    'gossip.interval': 1_000,
    'gossip.stalenessThreshold': 5,
    'gossip.deadThreshold': 10,
    'gossip.key': [],
    'federation.loginServer': undefined,
    'federation.caFile': undefined,
    'federation.joinFolder': '/etc/tka/join',
    'federation.roles': [],
    'federation.maxPeriod': 28_800_000,
    'federation.listen': undefined,
    'federation.endpoint': undefined,
    'federation.certFile': undefined,
    'federation.keyFile': undefined,
    'federation.capName': 'specht-labs.de/cap/tka-federation',
  };
  expect(Object.fromEntries(Object.keys(configKeys).map((key) => [key, config.get(key as ConfigKey)]))).toEqual(
    expected,
  );
});

const { cert } = await makeCertificates('127.0.0.1');
const caData = Buffer.from(cert).toString('base64');

describe('each key can be set in the file and in the environment', () => {
  const table: [key: ConfigKey, text: string, value: unknown][] = [
    ['tailscale.hostname', 'tka-prod-us', 'tka-prod-us'],
    ['tailscale.tailnet', '.example.ts.net', '.example.ts.net'],
    ['tailscale.port', '8123', 8123],
    ['tailscale.stateDir', '/var/lib/tka', '/var/lib/tka'],
    ['tailscale.capName', 'example.com/cap/tka', 'example.com/cap/tka'],
    ['tailscale.tag', 'tag:k8s', 'tag:k8s'],
    ['identity.allowTagged', 'tag:ci, tag:cron-1', ['tag:ci', 'tag:cron-1']],
    ['server.host', '127.0.0.11', '127.0.0.11'],
    ['server.readTimeout', '1m30s', 90_000],
    ['server.readHeaderTimeout', '500ms', 500],
    ['server.writeTimeout', '0', 0],
    ['server.idleTimeout', '1.5h', 5_400_000],
    ['operator.namespace', 'tka-system', 'tka-system'],
    ['operator.leaseNamespace', 'tka-dev', 'tka-dev'],
    ['operator.clusterName', 'prod', 'prod'],
    ['operator.contextPrefix', 'c-', 'c-'],
    ['operator.userPrefix', 'u-', 'u-'],
    ['api.retryAfterSeconds', '3', 3],
    ['health.host', '127.0.0.12', '127.0.0.12'],
    ['health.port', '9090', 9090],
    ['debug', 'true', true],
    ['otel.endpoint', 'collector:4318', 'collector:4318'],
    ['otel.insecure', 'false', false],
    ['clusterInfo.apiEndpoint', 'https://10.0.0.1:6443', 'https://10.0.0.1:6443'],
    ['clusterInfo.caData', caData, caData],
    ['clusterInfo.insecureSkipTLSVerify', 'true', true],
    ['clusterInfo.configMapRef.name', 'info', 'info'],
    ['clusterInfo.configMapRef.namespace', 'default', 'default'],
    ['clusterInfo.configMapRef.keys.apiEndpoint', 'a', 'a'],
    ['clusterInfo.configMapRef.keys.caData', 'b', 'b'],
    ['clusterInfo.configMapRef.keys.insecure', 'c', 'c'],
    ['clusterInfo.configMapRef.keys.kubeconfig', 'd', 'd'],
    ['gossip.enabled', 'true', true],
    ['gossip.port', '7947', 7947],
    ['gossip.factor', '5', 5],
    ['gossip.interval', '200ms', 200],
    ['gossip.stalenessThreshold', '7', 7],
    ['gossip.deadThreshold', '70', 70],
    ['gossip.key', 'k'.repeat(32), ['k'.repeat(32)]],
    ['gossip.key', `${'k'.repeat(32)}, ${'l'.repeat(32)}`, ['k'.repeat(32), 'l'.repeat(32)]],
    ['federation.loginServer', 'https://tka.example.ts.net', 'https://tka.example.ts.net'],
  ];
  test.each(table)('%s: %s', async (key, text, value) => {
    const nested = key.split('.').map((part, depth) => `${'  '.repeat(depth)}${part}:`);
    const env = key === 'clusterInfo.apiEndpoint' ? {} : required;
    expect((await load(`${nested.join('\n')} ${text}\n`, env)).get(key)).toEqual(value);
    // In another case, and from the environment against a value in the file.
    expect((await load(`${nested.join('\n').toLowerCase()} ${text}\n`, env)).get(key)).toEqual(value);
    expect((await load('tailscale: {port: 1}', { ...required, [variableOf(key)]: text })).get(key)).toEqual(value);
  });

  test('lists and maps are read from the file and the environment', async () => {
    const text = [
      `gossip: {bootstrapPeers: [tka-a:7946, "[::1]:7946"], key: [${'k'.repeat(32)}, ${'l'.repeat(32)}]}`,
      'clusterInfo: {labels: {environment: prod, version: 1.10, "example.com/zone": on}}',
    ].join('\n');
    const config = await load(text);
    expect(config.get('gossip.bootstrapPeers')).toEqual(['tka-a:7946', '[::1]:7946']);
    expect(config.get('gossip.key')).toEqual(['k'.repeat(32), 'l'.repeat(32)]);
    expect(config.get('clusterInfo.labels')).toEqual({
      environment: 'prod',
      version: '1.10',
      'example.com/zone': 'on',
    });
    const env = { ...required, TKA_GOSSIP_BOOTSTRAPPEERS: 'a:1, b:2 c:3' };
    expect((await load(text, env)).get('gossip.bootstrapPeers')).toEqual(['a:1', 'b:2', 'c:3']);
    for (const labels of ['environment=dev,region=eu=1', '{"environment":"dev","region":"eu=1"}']) {
      const config = await load(text, { ...required, TKA_CLUSTERINFO_LABELS: labels });
      expect(config.get('clusterInfo.labels')).toEqual({ environment: 'dev', region: 'eu=1' });
    }
  });

  test('the names of variables follow the keys', () => {
    expect(variableOf('clusterInfo.configMapRef.keys.apiEndpoint')).toBe(
      'TKA_CLUSTERINFO_CONFIGMAPREF_KEYS_APIENDPOINT',
    );
  });
});

test('an empty variable is ignored, and so are variables of a Service next to the pod', async () => {
  const config = await load('health: {port: 9000}', {
    ...required,
    TKA_TAILSCALE_PORT: '',
    TKA_HEALTH_PORT: 'tcp://10.96.0.1:8080',
    TKA_SERVICE_HOST: '10.96.0.1',
  });
  expect(config.get('tailscale.port')).toBe(443);
  expect(config.get('health.port')).toBe(9000);
});

describe('problems', () => {
  test.each<[name: string, text: string, problems: string[]]>([
    ['a value in place of a map', 'gossip: true\n', ['config.yaml:1: gossip must be a map']],
    ['a map in place of a value', 'debug: {x: 1}\n', ['config.yaml:1: debug must be true or false']],
    [
      'a bare number as a duration',
      'server: {readTimeout: 10}\n',
      ['config.yaml:1: server.readTimeout must be a Go duration like 10s, from 0 to 24h'],
    ],
    [
      'no collector',
      'otel: {endpoint: "collector:70000"}\n',
      ['config.yaml:1: otel.endpoint must be host:port or a URL'],
    ],
    ['a port', 'health: {port: 70000}\n', ['config.yaml:1: health.port must be a port from 1 to 65535']],
    [
      'a URL as a host',
      'tailscale: {hostname: "https://tka"}\n',
      ['config.yaml:1: tailscale.hostname must be a host name'],
    ],
    [
      'plain http',
      'clusterInfo: {apiEndpoint: "http://x"}\n',
      ['config.yaml:1: clusterInfo.apiEndpoint must be the https URL of the API server'],
    ],
    [
      'a CA that is already PEM',
      'clusterInfo: {caData: "-----BEGIN"}\n',
      ['config.yaml:1: clusterInfo.caData must be base64 of PEM, as certificate-authority-data in a kubeconfig'],
    ],
    [
      'peers without a port',
      'gossip: {bootstrapPeers: [tka]}\n',
      ['config.yaml:1: gossip.bootstrapPeers must be a list of host:port'],
    ],
    [
      'a nested label',
      'clusterInfo: {labels: {a: {b: c}}}\n',
      ['config.yaml:1: clusterInfo.labels must be a map of strings, or key=value,key=value'],
    ],
    [
      'thresholds',
      'gossip: {stalenessThreshold: 10}\n',
      ['config.yaml:1: gossip.deadThreshold must be greater than gossip.stalenessThreshold'],
    ],
    [
      'tags of devices',
      'identity: {allowTagged: [ci]}\n',
      ['config.yaml:1: identity.allowTagged must be a list of tags such as tag:ci'],
    ],
    [
      'the tag of the servers as one of devices',
      'identity:\n  allowTagged: [tag:ci, tag:tka]\n',
      ['config.yaml:2: identity.allowTagged must not contain tag:tka, the tag of the TKA servers (tailscale.tag)'],
    ],
    [
      'another tag of the servers as one of devices',
      'tailscale: {tag: tag:ci}\nidentity: {allowTagged: tag:ci}\n',
      ['config.yaml:2: identity.allowTagged must not contain tag:ci, the tag of the TKA servers (tailscale.tag)'],
    ],
    [
      'a login server without a certificate',
      'federation:\n  listen: :7947\n  endpoint: https://login.example.com:7947\n  keyFile: /tls/tls.key\n',
      ['config.yaml:2: federation.certFile is required with federation.listen'],
    ],
    [
      'one capability for both kinds of rules',
      'federation:\n  listen: :7947\n  endpoint: https://login.example.com:7947\n  certFile: /tls/tls.crt\n  keyFile: /tls/tls.key\n  capName: specht-labs.de/cap/tka\n',
      [
        'config.yaml:6: federation.capName must differ from tailscale.capName: rules for joined clusters must not count for this one',
      ],
    ],
    ['twice', 'health: {port: 1}\nHealth: {port: 2}\n', ['config.yaml:2: Health.port is set twice']],
    [
      'both ways to set an endpoint',
      'clusterInfo: {configMapRef: {enabled: true}}\n',
      ['config.yaml:1: set either clusterInfo.apiEndpoint or clusterInfo.configMapRef.enabled: true, not both'],
    ],
  ])('%s', async (_, text, expected) => {
    expect(await problems(text)).toEqual(expected);
  });

  test('all problems are reported at once', async () => {
    const env = { TKA_HEALTH_PORT: 'x\u001b[2J', TKA_DEBUG: 'maybe' };
    expect(await problems('tailscale: {port: no}\nfoo: 1\nserver: {idleTimeout: 1d}\n', env)).toEqual([
      'config.yaml:1: tailscale.port must be a port from 1 to 65535',
      'config.yaml:3: server.idleTimeout must be a Go duration like 120s, from 0 to 24h',
      'TKA_HEALTH_PORT="x [2J": must be a port from 1 to 65535',
      'TKA_DEBUG="maybe": must be true or false',
    ]);
  });

  test('a missing endpoint is a problem', async () => {
    const text = 'debug: true\nclusterInfo:\n  configMapRef:\n    enabled: false\n';
    expect(await problems(text, {})).toEqual([
      'config.yaml:4: clusterInfo.apiEndpoint is required with clusterInfo.configMapRef.enabled: false',
    ]);
  });

  test('secrets are not shown', async () => {
    expect(await problems('', { ...required, TKA_GOSSIP_KEY: 'too-short' })).toEqual([
      'TKA_GOSSIP_KEY: must be a secret of at least 32 characters, or a list of at most 10 (the first one signs)',
    ]);
    expect(await problems('', { ...required, TKA_OTEL_ENDPOINT: 'http://me:secret@traces x' })).toEqual([
      'TKA_OTEL_ENDPOINT="http://[redacted]@traces x": must be host:port or a URL',
    ]);
  });

  test('an invalid YAML file, or a missing one, is a problem', async () => {
    expect(await problems('a: [', {})).toEqual([expect.stringMatching(/^config\.yaml:1: /)]);
    const absent = loadConfig(path.join(folder, 'absent.yaml'), required);
    await expect(absent).rejects.toThrow(/absent\.yaml: no such file$/);
  });
});

describe('warnings', () => {
  const [known, unknown] = ['tailscale: {port: 8080}\n', 'tailscale: {port: 8080, prot: 1}\n'];
  test.each<[name: string, text: string, env: NodeJS.ProcessEnv, warnings: string[]]>([
    ['nothing unusual', known, required, []],
    [
      'an unknown key',
      unknown,
      required,
      ['config.yaml:1: unknown key "tailscale.prot"; did you mean "tailscale.port"?'],
    ],
    [
      'keys in the wrong place',
      'capName: x\nserver:\n  debug: true\n',
      required,
      [
        'config.yaml:1: unknown key "capName"; did you mean "tailscale.capName" or "federation.capName"?',
        'config.yaml:3: unknown key "server.debug"; did you mean "debug"?',
      ],
    ],
    [
      'a certificate of no login server',
      'federation: {certFile: /tls/tls.crt}\n',
      required,
      ['config.yaml:1: federation.certFile has no effect: set federation.listen too'],
    ],
    ['an unlike word', 'foo: {bar: 1}\n', required, ['config.yaml:1: unknown key "foo"']],
    [
      'an unknown key with control characters',
      '"a\\u001b[2Jb": 1\n',
      required,
      ['config.yaml:1: unknown key "a [2Jb"'],
    ],
    [
      'keys for the client',
      'output: {theme: dark}\ntailscale: {tag: "tag:tka"}\n',
      required,
      ['config.yaml:1: output has no effect: it is for kubectl-tka, not for the server'],
    ],
    [
      'the state of a node, from the environment',
      '',
      { ...required, TKA_TAILSCALE_STATEDIR: '/x' },
      [
        "TKA_TAILSCALE_STATEDIR: tailscale.stateDir has no effect: tailscaled keeps the state of the node; set the sidecar's TS_STATE_DIR instead",
      ],
    ],
    [
      'a CA without an endpoint',
      `clusterInfo:\n  caData: ${caData}\n  insecureSkipTLSVerify: true\n`,
      {},
      [
        'config.yaml:2: clusterInfo.caData has no effect: the certificate authority comes from the ConfigMap; set clusterInfo.apiEndpoint too',
        'config.yaml:3: clusterInfo.insecureSkipTLSVerify has no effect: it comes from the ConfigMap; set clusterInfo.apiEndpoint too',
      ],
    ],
    ['defaults that are set explicitly', 'tailscale: {stateDir: ""}\notel: {insecure: true}\n', required, []],
    // Only a running server knows whether there is a join Secret.
    ['a login server without gossip', 'federation: {loginServer: "https://tka.example.ts.net"}\n', required, []],
    [
      'otel.insecure beside a URL',
      'otel: {endpoint: "https://traces.example.com", insecure: false}\n',
      required,
      ['config.yaml:1: otel.insecure has no effect: the scheme of otel.endpoint (http or https) defines it'],
    ],
    [
      "gRPC's port over HTTP",
      'otel: {endpoint: "http://collector:4317"}\n',
      required,
      ['config.yaml:1: otel.endpoint: port 4317 is usually OTLP over gRPC; remove http:// to use gRPC'],
    ],
    [
      'gRPC with TLS to an address',
      'otel: {endpoint: "10.0.0.1:4317", insecure: false}\n',
      required,
      [
        'config.yaml:1: otel.endpoint: gRPC with TLS needs a host name, not an IP address; https:// accepts an IP address',
      ],
    ],
    [
      'a name that is not valid for a context',
      'operator: {clusterName: Prod US}\n',
      required,
      [
        'config.yaml:1: operator.clusterName "Prod US" is not a valid context name: the cluster is called "tka"; use letters, digits, ".", "_" and "-"',
      ],
    ],
  ])('%s', async (_, text, env, expected) => {
    const { warnings } = await load(text, env);
    expect(warnings.map((line) => line.replace(file, 'config.yaml'))).toEqual(expected);
  });
});

test('each value has its source', async () => {
  const config = await load('tailscale:\n  port: 8080\n', required);
  expect(config.sourceOf('tailscale.port')).toBe(`${file}:2`);
  expect(config.sourceOf('clusterInfo.apiEndpoint')).toBe('TKA_CLUSTERINFO_APIENDPOINT');
  expect(config.sourceOf('gossip.port')).toBeUndefined();
});

describe('the name of the cluster', () => {
  test.each([
    ['', 'tka'],
    ['tailscale: {hostname: TKA-prod-us}', 'tka-prod-us'],
    ['tailscale: {hostname: tka-prod-us.Example.ts.net, tailnet: .example.ts.net}', 'tka-prod-us'],
    ['tailscale: {hostname: tka.prod.example.com}', 'tka.prod.example.com'],
    ['operator: {clusterName: prod-us}', 'prod-us'],
    // The default of the Go server, which its configurations copy.
    ['operator: {clusterName: tka-cluster}\ntailscale: {hostname: tka-prod-us}', 'tka-prod-us'],
    ['operator: {clusterName: Prod US}\ntailscale: {hostname: tka-prod-us}', 'tka-prod-us'],
  ])('%s: %s', async (text, name) => {
    expect(clusterNameOf(await load(text))).toBe(name);
  });
});
