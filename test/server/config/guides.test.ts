// Configurations of TKA's public guides. The server accepts each, and reports which keys have no effect.
import { expect, test } from 'vitest';
import { startTailscaled } from '../../../src/sandbox/tailscaled.ts';
import { examineConfig } from '../../../src/server/config/config.ts';
import { freePort } from '../../fixtures/ports.ts';
import { ask, TkaServerProcess } from '../program.ts';
import { StandInApi } from '../stand-in-api.ts';

const guides: readonly (readonly [guide: string, text: string, warnings: readonly string[]])[] = [
  [
    'the primary login cluster',
    `
tailscale:
  hostname: tka
  port: 443
  tailnet: your-tailnet.ts.net
  capName: specht-labs.de/cap/tka

server:
  readTimeout: 30s
  readHeaderTimeout: 10s
  writeTimeout: 60s
  idleTimeout: 300s

operator:
  namespace: tka-system
  clusterName: prod-login-cluster
  contextPrefix: tka-
  userPrefix: tka-user-

otel:
  endpoint: jaeger-collector.monitoring.svc.cluster.local:14250
  insecure: false
`,
    [
      "x:21: otel.endpoint: port 14250 is for Jaeger's legacy format; the server sends OTLP over gRPC, usually to port 4317",
    ],
  ],
  [
    'a federated cluster',
    `
tailscale:
  hostname: tka-west  # Unique per cluster
  port: 443
  tailnet: your-tailnet.ts.net
  capName: specht-labs.de/cap/tka

operator:
  namespace: tka-system
  clusterName: prod-west-cluster
  contextPrefix: west-
  userPrefix: west-user-

# Point to primary login server
federation:
  loginServer: https://tka.your-tailnet.ts.net
`,
    [],
  ],
  [
    'the first of several clusters',
    `
tailscale:
  hostname: tka-prod-us
  tailnet: your-tailnet.ts.net
gossip:
  enabled: true
  port: 7946
clusterInfo:
  apiEndpoint: "https://api.prod-us.example.com:6443"
  labels:
    environment: production
    region: us-west-2
`,
    [],
  ],
  [
    'the second of several clusters',
    `
tailscale:
  hostname: tka-prod-eu
  tailnet: your-tailnet.ts.net
gossip:
  enabled: true
  port: 7946
  bootstrapPeers:
    - tka-prod-us.your-tailnet.ts.net:7946
clusterInfo:
  apiEndpoint: "https://api.prod-eu.example.com:6443"
  labels:
    environment: production
    region: eu-west-1
`,
    [],
  ],
  [
    'the command line',
    `
tailscale:
  hostname: tka-prod-us  # Your default entry point
  tailnet: your-tailnet.ts.net
`,
    [],
  ],
  [
    'the file that the Go server and the Go CLI share',
    `
debug: false
output:
  theme: tokyo-night
  long: true
  quiet: false
tailscale:
  hostname: tka
  stateDir: /var/lib/tka/tsnet-state
otel:
  endpoint: ""
  insecure: true
health:
  port: 8080
clusterInfo:
  apiEndpoint: ""
  caData: ""
  insecureSkipTLSVerify: false
`,
    [
      'x:3: output has no effect: it is for kubectl-tka, not for the server',
      "x:9: tailscale.stateDir has no effect: tailscaled keeps the state of the node; set the sidecar's TS_STATE_DIR instead",
    ],
  ],
];

test.each(guides)('the configuration of %s is valid', async (_, text, warnings) => {
  const { config, problems } = await examineConfig('x', text, {});
  expect(problems).toEqual([]);
  expect(config.warnings).toEqual(warnings);
});

test.each(guides)('a server starts with the configuration of %s', async (_, text, warnings) => {
  const cluster = new StandInApi();
  await cluster.start();
  cluster.objects.set('/api/v1/namespaces/kube-public/configmaps/cluster-info', {
    data: { apiEndpoint: 'https://api.example.com:6443' },
  });
  const self = { hostName: 'tka', addresses: ['127.0.0.1'], tags: ['tag:tka'] };
  const tailscaled = await startTailscaled({ self });
  const health = await freePort('127.0.0.1');
  // Replaces what a test must not use of the machine, and adds an available collector.
  await using server = new TkaServerProcess(text, {
    KUBECONFIG: cluster.kubeconfig(),
    TS_SOCKET: tailscaled.socketPath,
    TKA_SERVER_HOST: '127.0.0.1',
    TKA_TAILSCALE_PORT: String(await freePort('127.0.0.1')),
    TKA_HEALTH_PORT: String(health),
    TKA_GOSSIP_PORT: String(await freePort('127.0.0.1')),
    TKA_OPERATOR_NAMESPACE: 'tka-system',
  });
  await server.said(/listening for the API/);
  await expect
    .poll(async () => (await ask(`http://127.0.0.1:${health}/ready`)).body, { timeout: 20_000 })
    .toContain('"ready"');
  const logged = server.lines.filter(({ level }) => level === 'warn').map(({ msg }) => msg.replace(/^.*\.yaml:/, 'x:'));
  expect(logged).toEqual(expect.arrayContaining([...warnings]));
  server.child.kill('SIGTERM');
  expect(await server.ended).toEqual({ status: 0, signal: null });
  cluster.stop();
  await tailscaled.close();
});
