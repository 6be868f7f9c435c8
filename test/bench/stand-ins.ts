// Stand-ins for the TKA servers of many clusters, in one process: each has a key and a tunnel of its own, and all keep
// their sign-ins in one namespace. Prints a line of JSON with their public keys; reads one with the login server's keys
// and connects; prints one with the seconds that it took. Runs until its stdin ends.
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { keepTunnels } from '../../src/server/federation/dialer.ts';
import { JoinedApi } from '../../src/server/federation/joined-api.ts';
import { newKey } from '../../src/server/federation/keys.ts';
import type { Log } from '../../src/server/log/log.ts';
import { type ReplicaOptions, startReplica } from '../cluster/replica.ts';

/** The first line of its input. */
export interface StandIns {
  /** Their names. */
  readonly clusters: readonly string[];
  readonly replica: ReplicaOptions;
}

/** The second line of its input. */
export interface LoginServerAddress {
  readonly endpoint: string;
  readonly caFile: string;
  readonly primary: string;
  readonly keys: readonly string[];
}

/** The API endpoint that a stand-in states. */
export const apiEndpointOf = (cluster: string): string => `https://${cluster}.example.com`;

// From one address the listener takes 32 handshakes at the same time.
const atOnce = 16;

async function run(): Promise<void> {
  const lines = createInterface({ input: process.stdin });
  lines.once('close', () => process.exit(0));
  const read = async <T>(): Promise<T> => JSON.parse((await once(lines, 'line'))[0]);
  const say = (what: unknown): void => void process.stdout.write(`${JSON.stringify(what)}\n`);

  const { clusters, replica } = await read<StandIns>();
  const { access, namespace } = replica;
  const { provisioner } = await startReplica(replica);
  const silent = (): void => {};
  const complain: Log['error'] = ({ err }, message) => process.stderr.write(`${message}: ${err}\n`);
  const log: Log = { debug: silent, info: silent, warn: silent, error: complain };
  const api = new JoinedApi({
    signIns: provisioner.signIns,
    clusterInfo: provisioner.clusterInfo,
    endAllThrough: provisioner.endAllThrough,
    roles: [],
    maxPeriodMs: 8 * 3_600_000,
    onEvicted: silent,
    log,
  });
  const keys = clusters.map(() => newKey());
  say(keys.map(({ publicKey }) => publicKey));

  const { primary, keys: loginKeys, ...address } = await read<LoginServerAddress>();
  const dial = (cluster: string, key: (typeof keys)[number]): Promise<void> =>
    new Promise((resolve) => {
      const apiEndpoint = apiEndpointOf(cluster);
      keepTunnels({
        ...address,
        env: {},
        cluster,
        replica: `${namespace}-0`,
        key,
        log: { ...log, info: (_, message) => void (message === 'connected to the login server' && resolve()) },
        statement: () => ({ version: '0.2.0', apiEndpoint, labels: {} }),
        primary,
        keys: loginKeys,
        // A kubeconfig must name the endpoint that the cluster joined with.
        answer: async (request, tunnel, signal) => {
          const answer = await api.answer(request, tunnel, signal);
          return { ...answer, body: answer.body.replaceAll(access.server, apiEndpoint) };
        },
      });
    });
  const started = performance.now();
  const waiting = clusters.map((cluster, i) => [cluster, keys[i]] as const);
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [cluster, key] = next;
      if (key !== undefined) await dial(cluster, key);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  say((performance.now() - started) / 1000);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await run();
