import { spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { connect, type Socket } from 'node:net';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { type StandInCaller, startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { freePort } from '../fixtures/ports.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { hasPods, Pod } from './pod.ts';
import { type Answer, ask, listens, program, TkaServerProcess } from './program.ts';
import { StandInApi } from './stand-in-api.ts';

const clusterInfo = { apiEndpoint: 'https://api.example.com:6443', labels: { environment: 'test' } };
const alice: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h', priority: 1 }] },
};
// macOS has only 127.0.0.1.
const manyLoopbacks = process.platform === 'linux';

/** Returns the answer of `/ready` on this port. */
async function readyOf(port: number): Promise<unknown> {
  const { status, body } = await ask(`http://127.0.0.1:${port}/ready`);
  const answer = JSON.parse(body);
  expect(status).toBe(answer.status === 'ready' ? 200 : 503);
  return answer;
}

async function failing(config: object | string, env = {}, args?: readonly string[]) {
  await using server = new TkaServerProcess(config, env, args);
  const { status } = await server.ended;
  return { status, stdout: server.stdout, stderr: server.stderr };
}

interface Serving {
  /** Replaces parts of the usual configuration. */
  readonly config?: object;
  readonly env?: Readonly<Record<string, string>>;
  readonly whois?: (address: string, port: number) => StandInCaller;
}

/** Starts a server on 127.0.0.1 with its tailscaled, and waits until it serves. */
async function serving({ config = {}, env = {}, whois = () => alice }: Serving = {}) {
  const tailscaled = await startTailscaled({ whois });
  const [port, health] = [await freePort('127.0.0.1'), await freePort('127.0.0.1')];
  const usual = {
    clusterInfo,
    server: { host: '127.0.0.1' },
    tailscale: { port },
    health: { host: '127.0.0.1', port: health },
  };
  const server = new TkaServerProcess({ ...usual, ...config }, { TS_SOCKET: tailscaled.socketPath, ...env });
  await server.said(/listening for the API/);
  return {
    tailscaled,
    server,
    url: `http://127.0.0.1:${port}/api/v1alpha1/cluster-info`,
    port,
    health,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await tailscaled.close();
    },
  };
}

describe('the command line', () => {
  test('a tag of its own node that devices could sign in with is a bad configuration', async () => {
    await using tailscaled = await startTailscaled({
      self: { hostName: 'tka', addresses: ['127.0.0.1'], tags: ['tag:k8s'] },
    });
    const config = { clusterInfo, tailscale: { port: 8123 }, identity: { allowTagged: ['tag:ci', 'tag:k8s'] } };
    const { status, stderr } = await failing(
      { ...config, health: { host: '127.0.0.1', port: await freePort('127.0.0.1') } },
      { TS_SOCKET: tailscaled.socketPath },
    );
    expect(status).toBe(2);
    expect(stderr).toMatch(
      /^error: bad configuration: .*\/config\.yaml:\d+: identity\.allowTagged must not contain tag:k8s: this server has that tag\nhint: /m,
    );
  });

  test('a bad configuration is exit 2, with all problems on stderr', async () => {
    const { status, stdout, stderr } = await failing('tailscale:\n  prot: 443\nhealth:\n  port: many\n', {
      TKA_GOSSIP_INTERVAL: 'often',
    });
    expect(status).toBe(2);
    expect(stdout).toBe('');
    const lines = stderr.replaceAll(/\/.*config\.yaml/g, 'config.yaml').split('\n');
    expect(lines).toEqual([
      'error: bad configuration: config.yaml:4: health.port must be a port from 1 to 65535',
      'error: bad configuration: TKA_GOSSIP_INTERVAL="often": must be a Go duration like 1s, from 50ms to 24h',
      'hint: see docs/reference/server-config.md for all keys',
      '',
    ]);
  });

  test.each<[string, string[], number, RegExp, RegExp]>([
    ['help', ['--help'], 0, /^Usage: tka-server [\s\S]* serve /, /^$/],
    ['nothing', [], 0, /^Usage: tka-server /, /^$/],
    ['help for serve', ['serve', '-h'], 0, /--config <file>/, /^$/],
    ['version', ['version'], 0, /^tka-server \d+\.\d+\.\d+ \(commit \S+, node 26\.\S+, \S+\)\n$/, /^$/],
    ['version as JSON', ['version', '-o', 'json'], 0, /^\{\n {2}"version": /, /^$/],
    [
      'an unknown command',
      ['server'],
      2,
      /^$/,
      /^error: unknown command 'server'\nhint: did you mean serve\?\nhint: tka-server --help\n$/,
    ],
    ['an unknown flag', ['serve', '--port', '1'], 2, /^$/, /^error: unknown option '--port'\n/],
    ['a missing file', ['serve', '--config', '/none/x.yaml'], 2, /^$/, /\/none\/x\.yaml: no such file\nhint: .*\n$/],
  ])('%s', async (_, args, status, stdout, stderr) => {
    expect(await failing('', {}, args)).toEqual({
      status,
      stdout: expect.stringMatching(stdout),
      stderr: expect.stringMatching(stderr),
    });
  });

  describe('config', () => {
    const good = 'tailscale:\n  hostname: tka-prod-us\ngossip:\n  key: kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\n';
    const odd = 'tailscale:\n  hostnam: x\nserver:\n  idleTimeout: 1d\ngossip:\n  port: many\n';
    const oddities = (name: string) => [
      `warning: ${name}:2: unknown key "tailscale.hostnam"; did you mean "tailscale.hostname"?`,
      `error: ${name}:4: server.idleTimeout must be a Go duration like 120s, from 0 to 24h`,
      `error: ${name}:6: gossip.port must be a port from 1 to 65535`,
      'hint: see docs/reference/server-config.md for all keys',
      '',
    ];

    test.each([
      ['a file without problems', good, 0, 'FILE is valid\n', ['']],
      ['a file with problems', odd, 1, '', oddities('FILE')],
      [
        'a file with a warning',
        'foo: 1\n',
        0,
        'FILE is valid, with 1 warning\n',
        ['warning: FILE:1: unknown key "foo"', ''],
      ],
      [
        'a file that is not YAML',
        'a: [\n',
        1,
        '',
        [expect.stringMatching(/^error: FILE:[12]: /), expect.stringMatching(/^hint/), ''],
      ],
    ])('check: %s', async (_, text, status, stdout, stderr) => {
      const file = path.join(testFolder(), 'x.yaml');
      fs.writeFileSync(file, text);
      // No cluster, and variables do not count.
      const ran = await failing('', { KUBECONFIG: '', TKA_TAILSCALE_PORT: 'none' }, ['config', 'check', file]);
      expect({ ...ran, stdout: ran.stdout.replace(file, 'FILE') }).toMatchObject({ status, stdout });
      expect(ran.stderr.replaceAll(file, 'FILE').split('\n')).toEqual(stderr);
    });

    test.each([
      [odd, 1, '', oddities('standard input')],
      [good, 0, 'standard input is valid\n', ['']],
      [
        `# ${'x'.repeat(70_000)}\n`,
        1,
        '',
        ['error: standard input: is larger than 64 KiB', expect.stringMatching(/^hint/), ''],
      ],
    ])('check: standard input', (input, status, stdout, stderr) => {
      const ran = spawnSync(program, ['config', 'check', '-'], { input, encoding: 'utf8' });
      expect(ran).toMatchObject({ status, stdout });
      expect(ran.stderr.split('\n')).toEqual(stderr);
    });

    test('show: each key with its value and source, without secrets', async () => {
      const file = path.join(testFolder(), 'x.yaml');
      fs.writeFileSync(file, `${good}  bootstrapPeers: [a:1, b:2]\nclusterInfo: {labels: {region: eu}}\n`);
      const env = { TKA_SERVER_IDLETIMEOUT: '90s' };
      const table = await failing('', env, ['config', 'show', '-c', file]);
      expect(table).toMatchObject({ status: 0, stderr: '' });
      expect(table.stdout.replaceAll(/ {2,}/g, ' ').split('\n')).toEqual(
        expect.arrayContaining([
          'KEY VALUE SOURCE',
          `tailscale.hostname tka-prod-us ${file}:2`,
          'tailscale.port 443 default',
          'server.idleTimeout 1m30s TKA_SERVER_IDLETIMEOUT',
          `clusterInfo.labels region=eu ${file}:6`,
          `gossip.bootstrapPeers a:1,b:2 ${file}:5`,
          `gossip.key [redacted] ${file}:4`,
          'federation.loginServer - default',
        ]),
      );
      const json = await failing('', env, ['config', 'show', '-c', file, '-o', 'json']);
      const yaml = await failing('', env, ['config', 'show', '-c', file, '-o', 'yaml']);
      expect(JSON.parse(json.stdout)).toEqual(parse(yaml.stdout));
      expect(JSON.parse(json.stdout)).toContainEqual({
        key: 'gossip.bootstrapPeers',
        value: ['a:1', 'b:2'],
        source: `${file}:5`,
      });
      for (const { stdout } of [table, json, yaml]) expect(stdout).not.toContain('kkkk');
    });

    test.each([
      ['no subcommand', ['config'], /^error: a subcommand is missing\nhint: tka-server config --help\n$/],
      ['a mistyped subcommand', ['config', 'chek'], /^error: unknown command 'chek'\n/],
      ['no file', ['config', 'check'], /^error: missing required argument 'file'\n/],
      ['a format', ['config', 'show', '-o', 'xml'], /^error: --output "xml" must be json or yaml\n/],
    ])('%s exits with 2', async (_, args, stderr) => {
      expect(await failing('', {}, args)).toMatchObject({
        status: 2,
        stdout: '',
        stderr: expect.stringMatching(stderr),
      });
    });
  });

  test('a missing cluster is an error with a hint', async () => {
    const { status, stderr } = await failing({ clusterInfo }, { KUBECONFIG: '' });
    expect(status).toBe(1);
    expect(stderr).toMatch(/\nerror: no cluster to serve: .*\nhint: export KUBECONFIG=.*\n$/);
  });

  test('a port in use is an error', async () => {
    const port = await freePort('127.0.0.1');
    const server = { host: '127.0.0.1' };
    const config = { clusterInfo, server, tailscale: { port }, health: { port: await freePort('127.0.0.1') } };
    await using first = new TkaServerProcess(config);
    await first.said(/listening for the API/);
    const second = await failing({ ...config, health: { port: await freePort('127.0.0.1') } });
    expect(second.status).toBe(1);
    expect(second.stderr).toContain(`\nerror: cannot listen on 127.0.0.1:${port}: address already in use\n`);
  });
});

describe('the addresses that it listens on', () => {
  test.runIf(manyLoopbacks)('are only the tailnet’s own', async () => {
    const addresses = ['127.0.0.21', '127.0.0.22'];
    await using tailscaled = await startTailscaled({
      tun: true,
      self: { hostName: 'tka', addresses },
      whois: () => alice,
    });
    const port = await freePort(...addresses, '127.0.0.1');
    const health = { host: '127.0.0.23', port: await freePort('127.0.0.23') };
    const env = { TS_SOCKET: tailscaled.socketPath };
    await using server = new TkaServerProcess({ clusterInfo, tailscale: { port }, health }, env);
    await server.said(/listening for the API/);
    for (const host of addresses) {
      const { status, body } = await ask(`http://${host}:${port}/api/v1alpha1/cluster-info`);
      expect(status).toBe(200);
      expect(JSON.parse(body)).toMatchObject({
        server_url: 'https://api.example.com:6443',
        labels: { environment: 'test' },
      });
    }
    expect(await listens('127.0.0.1', port)).toBe(false);
    expect(await listens('127.0.0.23', port)).toBe(false);
  });

  test('are 127.0.0.1 with a userspace tailscaled, which identifies callers by their port', async () => {
    const asked: string[] = [];
    const whois = (address: string, port: number) => {
      asked.push(`${address}:${port}`);
      return alice;
    };
    await using it = await serving({ config: { server: {} }, whois });
    const { server, port } = it;
    const { status, headers } = await ask(`${it.url}?x=secret`);
    expect(status).toBe(200);
    if (manyLoopbacks) expect(await listens('127.0.0.2', port)).toBe(false);
    const line = await server.said(/^request$/);
    expect(line).toMatchObject({
      level: 'info',
      request: headers['x-request-id'],
      method: 'GET',
      path: '/api/v1alpha1/cluster-info',
      status: 200,
      login: 'alice@example.com',
    });
    expect(asked).toEqual([`${line.address}:${line.port}`]);
    const metrics = (path: string) => ask(`http://127.0.0.1:${it.health}${path}`);
    expect((await metrics('/metrics')).body).toContain(
      '\ntka_server_requests_total{method="GET",route="/api/v1alpha1/cluster-info",status="200"} 1\n',
    );
    // Its cluster is unreachable.
    await server.said(/^the watch on .* failed/);
    expect((await metrics('/metrics/controller')).body).toMatch(
      /\ntka_watch_errors_total\{resource="tkasignins"\} [1-9]/,
    );
    expect(server.stdout).toBe('');
  });

  test('with an audit log on stdout, without other log lines', async () => {
    await using it = await serving({ whois: () => ({ login: 'x', tags: ['tag:ci'], dnsName: 'ci.example.ts.net' }) });
    const { headers } = await ask(it.url.replace('cluster-info', 'login'), { method: 'POST' });
    await it.server.said(/^request$/);
    await it.server[Symbol.asyncDispose]();
    expect(JSON.parse(it.server.stdout)).toMatchObject({
      log: 'audit',
      server: 'tka',
      event: 'refusal',
      asked: 'sign-in',
      request: headers['x-request-id'],
      node: 'ci.example.ts.net',
      tags: ['tag:ci'],
    });
  });

  test('are all for probes, since a kubelet is not in the tailnet', async () => {
    const port = await freePort('0.0.0.0');
    await using server = new TkaServerProcess(
      { clusterInfo, health: { port } },
      { TS_SOCKET: '/none/tailscaled.sock' },
    );
    await server.said(/listening for probes/);
    for (const host of manyLoopbacks ? ['127.0.0.1', '127.0.0.24'] : ['127.0.0.1']) {
      expect(await ask(`http://${host}:${port}/healthz`)).toMatchObject({ status: 200 });
    }
  });

  test('cannot be those of another machine', async () => {
    await using tailscaled = await startTailscaled();
    const config = {
      clusterInfo,
      server: { host: '192.0.2.1' },
      tailscale: { port: 8123 },
      health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
    };
    const { status, stderr } = await failing(config, { TS_SOCKET: tailscaled.socketPath });
    expect(status).toBe(1);
    expect(stderr).toContain(
      '\nerror: cannot listen on 192.0.2.1:8123: this machine does not have this address\nhint: ',
    );
  });

  test('wait for tailscaled if others can reach them too', async () => {
    const health = { host: '127.0.0.1', port: await freePort('127.0.0.1') };
    const config = { clusterInfo, server: { host: '192.0.2.1' }, tailscale: { port: 8123 }, health };
    await using server = new TkaServerProcess(config, { TS_SOCKET: '/none/tailscaled.sock' });
    await server.said(/^waiting for tailscaled: no tailscaled at/);
  });

  test('waits for tailscaled, and reports it to probes', async () => {
    await using tailscaled = await startTailscaled({ backendState: 'NeedsLogin' });
    const port = await freePort('127.0.0.1');
    const health = { host: '127.0.0.1', port: await freePort('127.0.0.1') };
    const env = { TS_SOCKET: tailscaled.socketPath };
    await using server = new TkaServerProcess({ clusterInfo, tailscale: { port }, health }, env);
    await server.said(/^waiting for tailscaled: tailscale is logged out$/);
    const probe = (path: string) => ask(`http://127.0.0.1:${health.port}${path}`);
    expect(await probe('/ready')).toMatchObject({
      status: 503,
      body: '{"status":"not ready","reason":"tailscaled is not up yet: tailscale is logged out"}',
    });
    expect(await probe('/healthz')).toMatchObject({ status: 200 });
    expect(await listens('127.0.0.1', port)).toBe(false);
    await tailscaled.stop();
    await server.said(/^waiting for tailscaled: no tailscaled at/);
    tailscaled.backendState = 'Running';
    await tailscaled.start();
    await server.said(/listening for the API/);
    const { status, body } = await probe('/ready');
    expect(status).toBe(503);
    expect(JSON.parse(body)).toEqual({
      status: 'not ready',
      reason: expect.stringMatching(/^the watch on sign-ins failed: Get "https:.*: connect ECONNREFUSED 127.0.0.1:2$/),
    });
  });
});

test.runIf(hasPods).each([
  ['a userspace tailscaled', false, 403],
  ['a tailscaled with an interface', true, 200],
])('with %s, a caller from the pod’s own network gets %3$i', async (_, tun, status) => {
  await using pod = await Pod.make();
  await using tailscaled = await startTailscaled({ whois: () => alice, tun });
  const config = {
    clusterInfo,
    server: { host: '0.0.0.0' },
    tailscale: { port: 8123 },
    health: { host: '127.0.0.1', port: 8080 },
  };
  await using server = new TkaServerProcess(config, { TS_SOCKET: tailscaled.socketPath }, undefined, pod.within);
  await server.said(/listening for the API/);
  const get = (host: string) => pod.status(`http://${host}:8123/api/v1alpha1/cluster-info`);
  expect(await get('127.0.0.1')).toBe(200);
  expect(tailscaled.counts.whois).toBe(1);
  expect(await get(pod.address)).toBe(status);
  expect(tailscaled.counts.whois).toBe(status === 403 ? 1 : 2);
});

test.each([
  ['a name of the tailnet', 'tka.example.ts.net', 200],
  ['the address', '127.0.0.1', 200],
  ['a name that a web page may have pointed here', 'tka.attacker.example', 421],
])('over plain http, a request for %s (%s) gets %i', async (_, host, status) => {
  await using it = await serving({ config: { server: {} } });
  expect((await ask(it.url, { headers: { host } })).status).toBe(status);
});

describe('/ready', () => {
  test('follows the connection to the API server, and gives the reason', async () => {
    const cluster = new StandInApi();
    await cluster.start();
    await using it = await serving({ env: { KUBECONFIG: cluster.kubeconfig() } });
    const isReady = { status: 'ready', reason: 'the API is served' };
    await expect.poll(() => readyOf(it.health)).toEqual(isReady);
    cluster.stop();
    await expect
      .poll(() => readyOf(it.health))
      .toEqual({
        status: 'not ready',
        reason: expect.stringMatching(/^the watch on sign-ins failed: Get "http:.*: connect ECONNREFUSED /),
      });
    await cluster.start();
    await expect.poll(() => readyOf(it.health), { timeout: 20_000 }).toEqual(isReady);
    cluster.stop();
  });

  test.each([true, false])(
    'names missing cluster info as the reason, with gossip: %s, and keeps trying',
    async (enabled) => {
      const cluster = new StandInApi();
      await cluster.start();
      const gossip = { enabled, port: await freePort('127.0.0.1'), key: 'k'.repeat(32) };
      const config = { clusterInfo: {}, gossip };
      await using it = await serving({ config, env: { KUBECONFIG: cluster.kubeconfig() } });
      await expect
        .poll(() => readyOf(it.health))
        .toEqual({
          status: 'not ready',
          reason: 'clusterInfo.apiEndpoint is not set, and the ConfigMap kube-public/cluster-info does not exist',
        });
      // It is tried every second, and logged once a minute.
      await cluster.until(() => cluster.missed >= 3);
      const why = 'configmaps "cluster-info" is forbidden';
      cluster.forbidden.set('/api/v1/namespaces/kube-public/configmaps/cluster-info', why);
      await expect
        .poll(() => readyOf(it.health), { timeout: 10_000 })
        .toEqual({ status: 'not ready', reason: `clusterInfo.apiEndpoint is not set, and ${why}` });
      cluster.forbidden.clear();
      expect(it.server.lines.filter(({ msg }) => /ConfigMap could not be read$/.test(msg))).toMatchObject([
        { err: { message: expect.stringMatching(/does not exist$/) }, hints: [expect.stringMatching(/caData/)] },
        { err: { message: why } },
      ]);
      const { cert } = await makeCertificates('api.example.com');
      const authority = Buffer.from(cert).toString('base64');
      const inKubeconfig = { server: 'https://api.example.com:6443', 'certificate-authority-data': authority };
      // As kubeadm writes it.
      cluster.objects.set('/api/v1/namespaces/kube-public/configmaps/cluster-info', {
        data: { kubeconfig: stringify({ clusters: [{ cluster: inKubeconfig, name: '' }] }) },
      });
      await expect
        .poll(() => readyOf(it.health), { timeout: 10_000 })
        .toEqual({ status: 'ready', reason: 'the API is served' });
      expect(JSON.parse((await ask(it.url)).body)).toMatchObject({
        server_url: inKubeconfig.server,
        ca_data: authority,
      });
      cluster.stop();
    },
  );
});

test('a login that sends endless requests has to wait, and the log and the metrics show it', async () => {
  await using it = await serving();
  // Sixty wait for three seconds; more than that are refused sooner or later.
  let [served, refused] = [0, undefined as Answer | undefined];
  const askOn = async (): Promise<void> => {
    while (refused === undefined) {
      const answer = await ask(it.url);
      if (answer.status === 200) served++;
      // A busy machine may answer 503 to callers that wait to be identified: they retry.
      else if (answer.status !== 503) refused ??= answer;
    }
  };
  await Promise.all(Array.from({ length: 100 }, askOn));
  expect(served).toBeGreaterThanOrEqual(90);
  expect(refused?.status).toBe(429);
  expect(refused?.headers['retry-after']).toBe('1');
  expect(JSON.parse(refused?.body ?? '')).toMatchObject({ message: 'too many requests' });
  await expect
    .poll(() => it.server.lines.find((line) => line.status === 429))
    .toMatchObject({ msg: 'request', refusal: 'too many requests', level: 'info' });
  const { body } = await ask(`http://127.0.0.1:${it.health}/metrics`);
  expect(body).toMatch(/^tka_server_requests_total\{.*status="429"\} \d+$/m);
});

test('idle connections over the limit do not keep other callers out', async () => {
  // Without a timeout, so that only the number counts.
  const server = { host: '127.0.0.1', readHeaderTimeout: '1m', readTimeout: '1m', writeTimeout: '1m' };
  await using it = await serving({ config: { server } });
  const sockets: Socket[] = [];
  try {
    for (let opened = 0; opened < 1_100; opened++) {
      const socket = connect(it.port, '127.0.0.1').on('error', () => undefined);
      sockets.push(socket);
      await once(socket, 'connect');
    }
    expect((await ask(it.url)).status).toBe(200);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
});

describe('the end', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)('%s: finishes pending requests, and exits with 0', async (signal) => {
    await using it = await serving();
    const held = Promise.withResolvers<void>();
    it.tailscaled.fault.hold = held.promise;
    const answer = ask(it.url);
    await it.tailscaled.seen(1, 'whois');
    it.server.child.kill(signal);
    await it.server.said(/^tka-server stops$/);
    while (await listens('127.0.0.1', it.port)) await delay(10);
    expect(it.server.child.exitCode).toBe(null);
    held.resolve();
    expect(await answer).toMatchObject({ status: 200 });
    expect(await it.server.ended).toEqual({ status: 0, signal: null });
    expect(it.server.lines.at(-1)?.msg).toBe('tka-server has stopped');
  });

  test('probes get "not ready" while it finishes', async () => {
    await using it = await serving();
    const held = Promise.withResolvers<void>();
    it.tailscaled.fault.hold = held.promise;
    const answer = ask(it.url);
    await it.tailscaled.seen(1, 'whois');
    it.server.child.kill('SIGTERM');
    await it.server.said(/^tka-server stops$/);
    expect(await ask(`http://127.0.0.1:${it.health}/ready`)).toMatchObject({
      status: 503,
      body: '{"status":"not ready","reason":"the server is stopping"}',
    });
    held.resolve();
    await answer;
    await it.server.ended;
  });

  test('an idle connection delays nothing', async () => {
    await using it = await serving();
    const { Agent } = await import('node:http');
    const agent = new Agent({ keepAlive: true });
    expect((await ask(it.url, { agent })).status).toBe(200);
    it.server.child.kill('SIGTERM');
    expect((await it.server.ended).status).toBe(0);
    agent.destroy();
  });

  test('a second signal ends it at once', async () => {
    await using it = await serving();
    it.tailscaled.fault.hold = new Promise(() => {});
    const answer = ask(it.url).catch((error) => error);
    await it.tailscaled.seen(1, 'whois');
    it.server.child.kill('SIGTERM');
    await it.server.said(/^tka-server stops$/);
    it.server.child.kill('SIGTERM');
    expect(await it.server.ended).toEqual({ status: 143, signal: null });
    expect(await answer).toBeInstanceOf(Error);
  });

  test('ends while it waits for tailscaled', async () => {
    const health = { host: '127.0.0.1', port: await freePort('127.0.0.1') };
    await using server = new TkaServerProcess({ clusterInfo, health }, { TS_SOCKET: '/none/tailscaled.sock' });
    await server.said(/^waiting for tailscaled/);
    server.child.kill('SIGTERM');
    expect(await server.ended).toEqual({ status: 0, signal: null });
  });
});

test('traces of requests go to the collector, the last ones at the end', async () => {
  const { createServer } = await import('node:http');
  const { json } = await import('node:stream/consumers');
  const got: { path: string | undefined; body: unknown }[] = [];
  const collector = createServer(async (request, response) => {
    got.push({ path: request.url, body: await json(request) });
    response.setHeader('Content-Type', 'application/json');
    response.end('{}');
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const otel = { endpoint: `http://127.0.0.1:${(collector.address() as { port: number }).port}` };
  await using it = await serving({ config: { otel } });
  const { headers } = await ask(it.url);
  it.server.child.kill('SIGTERM');
  expect((await it.server.ended).status).toBe(0);
  await new Promise((resolve) => collector.close(resolve));
  expect(got.map(({ path }) => path)).toEqual(['/v1/traces']);
  const text = JSON.stringify(got);
  for (const part of ['"GET /api/v1alpha1/cluster-info"', `"${headers['x-request-id']}"`, '"tka-server"']) {
    expect(text).toContain(part);
  }
});

// Needs root, or a machine that lets every user do it. No other process listens on such an address.
const address443 = `127.${randomInt(64, 128)}.${randomInt(256)}.${randomInt(1, 255)}`;
const may443 = manyLoopbacks && (await isFree443());
async function isFree443(): Promise<boolean> {
  const { createServer } = await import('node:net');
  const server = createServer();
  return await new Promise((resolve) => {
    server.once('error', () => resolve(false)).listen(443, address443, () => server.close(() => resolve(true)));
  });
}

test.runIf(may443)('on port 443 with a certificate from tailscaled, renewed without a restart', async () => {
  const name = 'tka.example.ts.net';
  const make = (seconds: number) =>
    makeCertificates(name, { notBefore: new Date(), notAfter: new Date(Date.now() + seconds * 1000) });
  let pair = await make(12);
  const addresses = [address443];
  await using tailscaled = await startTailscaled({
    tun: true,
    self: { hostName: 'tka', addresses },
    whois: () => alice,
    certificate: (asked) => (asked === name ? pair : undefined),
  });
  const health = { host: address443, port: await freePort(address443) };
  await using server = new TkaServerProcess({ clusterInfo, health }, { TS_SOCKET: tailscaled.socketPath });
  await server.said(/listening for the API/);
  const url = `https://${address443}/api/v1alpha1/cluster-info`;
  const get = () => ask(url, { servername: name, ca: pair.ca, headers: { host: name } });
  const first = await get();
  expect(first.status).toBe(200);
  // The certificate has already shown which server it is.
  const renamed = { servername: name, ca: pair.ca, headers: { host: 'tka.company.example' } };
  expect((await ask(url, renamed)).status).toBe(200);
  pair = await make(3600);
  // It fails in between, which is logged and retried.
  tailscaled.fault.answer = { status: 500, body: 'acme: rate limited' };
  const line = await server.said(/^could not get a certificate$/);
  expect(JSON.stringify(line)).toContain(`tailscaled has no certificate for ${name}: acme: rate limited`);
  delete tailscaled.fault.answer;
  await server.said(/^renewed the certificate$/);
  const second = await get();
  expect(second.status).toBe(200);
  expect(second.serialNumber).not.toBe(first.serialNumber);
});
