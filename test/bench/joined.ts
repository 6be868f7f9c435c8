// Measures a login server with 500 joined clusters: its memory and its idle CPU, the time until all are connected, and
// what a login through a tunnel costs beside one at its own cluster. Can also run alone.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { readKeys } from '../../src/server/federation/keys.ts';
import {
  apiVersion,
  federationPaths,
  type Secret,
  type TkaCluster,
  textsOf,
} from '../../src/server/federation/objects.ts';
import { kubeconfigFile, startApiServer, startEtcd } from '../cluster/api-server.ts';
import { findAssets } from '../cluster/assets.ts';
import { applyManifests, established, Fixture } from '../cluster/fixture.ts';
import { freePort } from '../fixtures/ports.ts';
import { TemporaryFolder } from '../fixtures/temporary.ts';
import { TkaServerProcess } from '../server/program.ts';
import { at, login } from './beside.ts';
import { apiEndpointOf, type LoginServerAddress, type StandIns } from './stand-ins.ts';

const host = '127.0.0.62';
const count = 500;
const logins = 30;
// At least one ping of each tunnel, to each side.
const idleMs = 6_000;
// For all stand-ins to connect.
const connectMs = 30_000;
const clusters = Array.from({ length: count }, (_, i) => `joined-${i}`);

/** What the server's metrics say about its process and its joined clusters. */
interface Reading {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
  readonly known: number;
  readonly connected: number;
}

async function read(metrics: string): Promise<Reading> {
  const text = await (await fetch(metrics)).text();
  const value = (name: string): number => {
    const line = text.split('\n').find((line) => line.startsWith(`${name} `));
    if (line === undefined) throw new Error(`there is no metric ${name}`);
    return Number(line.slice(name.length + 1));
  };
  const connected = value('tka_federation_clusters{state="connected"}');
  return {
    cpuSeconds: value('process_cpu_seconds_total'),
    residentBytes: value('process_resident_memory_bytes'),
    heapBytes: value('nodejs_heap_size_used_bytes') + value('nodejs_external_memory_bytes'),
    known: connected + value('tka_federation_clusters{state="disconnected"}'),
    connected,
  };
}

/** Returns a reading that passes, as soon as there is one. */
async function reading(metrics: string, passes: (found: Reading) => boolean): Promise<Reading> {
  for (const late = performance.now() + connectMs; performance.now() < late; await delay(50)) {
    const found = await read(metrics);
    if (passes(found)) return found;
  }
  throw new Error('the login server does not know or reach all joined clusters in time');
}

/** Returns the CPU milliseconds per second of a server that nobody asks, and its memory. */
async function idle(metrics: string): Promise<{ cpuMs: number; resident: number; heap: number }> {
  const first = await read(metrics);
  const started = performance.now();
  await delay(idleMs);
  const last = await read(metrics);
  const seconds = (performance.now() - started) / 1000;
  return {
    cpuMs: ((last.cpuSeconds - first.cpuSeconds) * 1000) / seconds,
    resident: Math.min(first.residentBytes, last.residentBytes),
    heap: Math.min(first.heapBytes, last.heapBytes),
  };
}

/** Waits until the status of each TkaCluster says that it is connected. The login server writes them after the dials. */
async function allWritten(kube: Fixture['kube']): Promise<void> {
  for (const late = performance.now() + connectMs; performance.now() < late; await delay(200)) {
    let written = 0;
    for await (const found of kube.list<TkaCluster>(federationPaths.clusters())) if (found.status?.connected) written++;
    if (written === count) return;
  }
  throw new Error('the login server does not write the status of all joined clusters in time');
}

/** Runs `work` for each item, 20 at a time. */
async function each<T>(items: readonly T[], work: (item: T, i: number) => Promise<unknown>): Promise<void> {
  const entries = items.entries();
  const run = async (): Promise<void> => {
    for (const [i, item] of entries) await work(item, i);
  };
  await Promise.all(Array.from({ length: 20 }, run));
}

/** Returns the lines of the report; one line with the reason if there is no API server. */
export async function joinedClusters(): Promise<string[]> {
  const assets = await findAssets((line) => process.stderr.write(`${line}\n`));
  if (typeof assets === 'string') return [`left out: ${assets}`];
  const etcd = await startEtcd(assets);
  const api = await startApiServer(assets, etcd, '127.0.0.17');
  const access = { server: api.server, ca: api.ca, token: api.token };
  const own = await Fixture.make(access, 'tka-system');
  const theirs = await Fixture.make(access);
  const { kube } = own;
  const crd = ['namespace.yaml', 'login-server/crd.yaml', 'login-server/rbac.yaml'];
  await applyManifests(kube, ...crd.map((file) => path.join('federation', file)));
  await established(access, 'tkaclusters.tka.specht-labs.de');
  using temporary = new TemporaryFolder();
  const { ca, cert, key } = await makeCertificates(host);
  const file = (name: string, text: string): string => {
    const written = path.join(temporary.path, name);
    fs.writeFileSync(written, text, { mode: 0o600 });
    return written;
  };
  const rule = { role: await own.role(), period: '1h', priority: 1 };
  await using tailscaled = await startTailscaled({
    whois: (address) => ({
      login: `u${address.replaceAll('.', '-')}@example.com`,
      capabilities: {
        'specht-labs.de/cap/tka': [rule],
        'specht-labs.de/cap/tka-federation': [{ ...rule, clusters: ['joined-*'] }],
      },
    }),
  });
  const [port, health, tunnels] = [await freePort(host), await freePort(host), await freePort(host)];
  const primary = 'login';
  const config = {
    tailscale: { port },
    server: { host },
    health: { host, port: health },
    operator: { clusterName: primary, namespace: own.namespace },
    clusterInfo: { apiEndpoint: api.server, caData: Buffer.from(api.ca).toString('base64') },
    federation: {
      listen: `${host}:${tunnels}`,
      endpoint: `https://${host}:${tunnels}`,
      certFile: file('tls.crt', cert),
      keyFile: file('tls.key', key),
    },
  };
  const env = { KUBECONFIG: kubeconfigFile(access, own.token), TS_SOCKET: tailscaled.socketPath };
  await using server = new TkaServerProcess(config, env);
  const helper = fileURLToPath(new URL('./stand-ins.ts', import.meta.url));
  const standIns = spawn(process.execPath, [helper], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: standIns.stdout });
  const tell = async <T>(what: StandIns | LoginServerAddress): Promise<T> => {
    standIns.stdin.write(`${JSON.stringify(what)}\n`);
    return JSON.parse((await once(lines, 'line', { signal: AbortSignal.timeout(connectMs) }))[0]);
  };
  try {
    const publicKeys = await tell<string[]>({ clusters, replica: theirs.replicaOptions() });
    await server.said(/^started leading$/);
    await server.said(/^listens for the tunnels of joined clusters$/);
    const root = `http://${host}:${port}`;
    const metrics = `http://${host}:${health}/metrics`;
    let person = 0;
    const timed = async (url: string): Promise<number> => {
      person++;
      return await login(`${url}/api/v1alpha1`, `127.0.${1 + (person >> 7)}.${1 + (person & 127)}`);
    };
    const through = (i: number): string => `${root}/clusters/${clusters[i % count]}`;
    // Warms up.
    for (let i = 0; i < logins; i++) await timed(root);
    const before = await idle(metrics);

    await each(clusters, (name, i) =>
      kube.create(federationPaths.clusters(), {
        apiVersion,
        kind: 'TkaCluster',
        metadata: { name },
        spec: { publicKey: publicKeys[i], apiEndpoint: apiEndpointOf(name) },
      }),
    );
    await reading(metrics, ({ known }) => known === count);
    const secret = await kube.get<Secret>(federationPaths.secrets('signing-key'));
    const keys = readKeys(textsOf(secret ?? {}).get('keys.pem') ?? '').map(({ publicKey }) => publicKey);
    const started = await read(metrics);
    const seconds = await tell<number>({
      endpoint: config.federation.endpoint,
      caFile: file('ca.crt', ca),
      primary,
      keys,
    });
    const connected = await reading(metrics, (found) => found.connected === count);
    const handshakeMs = ((connected.cpuSeconds - started.cpuSeconds) * 1000) / count;
    for (let i = 0; i < logins; i++) await timed(through(i));
    await allWritten(kube);
    const after = await idle(metrics);

    const [direct, tunneled]: [number[], number[]] = [[], []];
    for (let i = 0; i < logins; i++) {
      direct.push(await timed(root));
      // Another cluster each time.
      tunneled.push(await timed(through(i * 7)));
    }
    const line = (name: string, times: readonly number[]): string => {
      const [median, most] = [at(times, 0.5), at(times, 0.9)];
      const ratios = `${(median / at(direct, 0.5)).toFixed(2)}   ${(most / at(direct, 0.9)).toFixed(2)}`;
      return `${name.padEnd(40)} ${median.toFixed(1).padStart(5)} ms ${most.toFixed(1).padStart(5)} ms   ${ratios}`;
    };
    const mb = (bytes: number): string => (bytes / 1e6).toFixed(0);
    const perTunnel = (more: number): string => `${(more / count / 1e3).toFixed(0)} kB`;
    const state = (name: string, { resident, heap, cpuMs }: typeof before): string =>
      `${name.padEnd(13)} ${mb(resident)} MB resident, ${mb(heap)} MB used, ${cpuMs.toFixed(0)} ms of CPU a second without requests`;
    return [
      `all connected after ${seconds.toFixed(1)} s; ${handshakeMs.toFixed(1)} ms of the login server's CPU for each`,
      state('no tunnels', before),
      state(`${count} tunnels`, after),
      `for each tunnel ${perTunnel(after.resident - before.resident)} resident, ${perTunnel(after.heap - before.heap)} used`,
      `${'a login'.padEnd(40)} ${'median'.padStart(8)} ${'9 of 10'.padStart(8)}   ÷ own cluster`,
      line("at the login server's own cluster", direct),
      line('at joined clusters, through tunnels', tunneled),
    ];
  } finally {
    standIns.stdin.end();
    kube.close();
    theirs.kube.close();
    await api.stop();
    await etcd.stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const line of await joinedClusters()) process.stdout.write(`${line}\n`);
}
