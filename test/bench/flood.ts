// One user with many connections and endless requests. Runs in a thread of its own, so that it does not slow the
// measurement.
import { Agent, request } from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

/** Its parameters. */
export interface Flood {
  /** The API's base URL. */
  readonly url: string;
  readonly localAddress: string;
  readonly connections: number;
}

const { url, localAddress, connections } = workerData as Flood;
const agent = new Agent({ keepAlive: true, maxSockets: connections });
const counts: Record<string, number> = {};

function ask(method: string, route: string): Promise<void> {
  return new Promise((resolve) => {
    const count = (what: string): void => {
      counts[what] = (counts[what] ?? 0) + 1;
      resolve();
    };
    request(`${url}${route}`, { method, agent, localAddress }, (response) => {
      response.resume().once('end', () => count(String(response.statusCode)));
    })
      .on('error', (error: NodeJS.ErrnoException) => count(error.code ?? 'error'))
      .end();
  });
}

async function flood(): Promise<void> {
  for (;;) {
    await ask('POST', '/login');
    await ask('GET', '/kubeconfig');
  }
}

for (let i = 0; i < connections; i++) void flood();
parentPort?.on('message', () => parentPort?.postMessage(counts));
