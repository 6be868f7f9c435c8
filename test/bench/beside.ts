// Measures what one user with many connections costs another: the time of a login, alone and beside them. Can also run
// alone.
import { once } from 'node:events';
import * as fs from 'node:fs';
import { Agent, request } from 'node:http';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { stringify } from 'yaml';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { startApiServer, startEtcd } from '../cluster/api-server.ts';
import { findAssets } from '../cluster/assets.ts';
import { Fixture } from '../cluster/fixture.ts';
import { freePort } from '../fixtures/ports.ts';
import { TemporaryFolder } from '../fixtures/temporary.ts';
import { TkaServerProcess } from '../server/program.ts';
import type { Flood } from './flood.ts';

const connections = 64;
const logins = 20;
const rounds = 3;
const host = '127.0.0.61';

/** Sends one request and returns its status. */
function ask(url: string, method: string, agent: Agent, localAddress: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request(url, { method, agent, localAddress }, (response) => {
      response.resume().once('end', () => resolve(response.statusCode ?? 0));
    })
      .once('error', reject)
      .end();
  });
}

/** Returns the milliseconds of a new user's login, as the plugin does it: signs in, and polls for the token. */
export async function login(url: string, localAddress: string): Promise<number> {
  const agent = new Agent({ keepAlive: true });
  const start = performance.now();
  const status = await ask(`${url}/login`, 'POST', agent, localAddress);
  if (status !== 202) throw new Error(`POST /login: ${status}`);
  for (let token = 202; token !== 200; ) {
    token = await ask(`${url}/kubeconfig`, 'GET', agent, localAddress);
    if (token !== 200 && token !== 202) throw new Error(`GET /kubeconfig: ${token}`);
  }
  agent.destroy();
  return performance.now() - start;
}

const sorted = (times: readonly number[]): number[] => times.toSorted((a, b) => a - b);
/** Returns the time that a part of all times is below: 0.5 for the median. */
export const at = (times: readonly number[], part: number): number =>
  sorted(times)[Math.floor(times.length * part)] ?? 0;

/** Returns the lines of the report; one line with the reason if there is no API server. */
export async function loginBesideFlood(): Promise<string[]> {
  const assets = await findAssets((line) => process.stderr.write(`${line}\n`));
  if (typeof assets === 'string') return [`left out: ${assets}`];
  const etcd = await startEtcd(assets);
  const api = await startApiServer(assets, etcd, '127.0.0.16');
  const fixture = await Fixture.make(api);
  using temporary = new TemporaryFolder();
  const folder = temporary.path;
  const rules = [{ role: await fixture.role(), period: '1h', priority: 1 }];
  await using tailscaled = await startTailscaled({
    whois: (address) => ({
      login: `u${address.replaceAll('.', '-')}@example.com`,
      capabilities: { 'specht-labs.de/cap/tka': rules },
    }),
  });
  const kubeconfig = path.join(folder, 'kubeconfig');
  const ca = Buffer.from(api.ca).toString('base64');
  const cluster = { server: api.server, 'certificate-authority-data': ca };
  const text = stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user: { token: fixture.token } }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'c',
  });
  fs.writeFileSync(kubeconfig, text, { mode: 0o600 });
  const port = await freePort(host);
  const config = {
    tailscale: { port },
    server: { host },
    health: { port: await freePort(host) },
    operator: { namespace: fixture.namespace },
    clusterInfo: { apiEndpoint: api.server, caData: ca },
  };
  const env = { KUBECONFIG: kubeconfig, TS_SOCKET: tailscaled.socketPath };
  await using server = new TkaServerProcess(config, env);
  try {
    await server.said(/^started leading$/);
    const url = `http://${host}:${port}/api/v1alpha1`;
    let person = 0;
    const measure = async (times: number[]): Promise<void> => {
      for (let i = 0; i < logins; i++)
        times.push(await login(url, `127.0.${1 + (person >> 7)}.${1 + (person++ & 127)}`));
    };
    await measure([]);
    const alone: number[] = [];
    const beside: number[] = [];
    const answered = new Map<string, number>();
    let seconds = 0;
    for (let round = 0; round < rounds; round++) {
      await measure(alone);
      // A new user each time, with a full request allowance.
      const workerData: Flood = { url, localAddress: `127.0.99.${round + 1}`, connections };
      const flood = new Worker(new URL('./flood.ts', import.meta.url), { workerData });
      await once(flood, 'online');
      const start = performance.now();
      await measure(beside);
      seconds += (performance.now() - start) / 1000;
      flood.postMessage('counts');
      const [counts] = await once(flood, 'message');
      await flood.terminate();
      for (const [status, count] of Object.entries<number>(counts)) {
        answered.set(status, (answered.get(status) ?? 0) + count);
      }
    }
    const line = (name: string, times: readonly number[]): string => {
      const [median, most] = [at(times, 0.5), at(times, 0.9)];
      const ratios = `${(median / at(alone, 0.5)).toFixed(2)}   ${(most / at(alone, 0.9)).toFixed(2)}`;
      return `${name.padEnd(40)} ${median.toFixed(0).padStart(5)} ms ${most.toFixed(0).padStart(5)} ms   ${ratios}`;
    };
    const rates = [...answered].map(([status, count]) => `${(count / seconds).toFixed(0)} × ${status}`);
    return [
      `${'a login'.padEnd(40)} ${'median'.padStart(8)} ${'9 of 10'.padStart(8)}   ÷ alone`,
      line('alone', alone),
      line(`beside one user with ${connections} connections`, beside),
      `who is answered, each second: ${rates.join(', ')}`,
    ];
  } finally {
    fixture.kube.close();
    await api.stop();
    await etcd.stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const line of await loginBesideFlood()) process.stdout.write(`${line}\n`);
}
