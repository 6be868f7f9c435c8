// Measures what sign-ins cost a TKA server, on a real API server on the same machine.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { paths } from '../../src/server/provisioner/objects.ts';
import { newSignIn } from '../../src/server/provisioner/sign-in.ts';
import { startApiServer, startEtcd } from '../cluster/api-server.ts';
import { findAssets } from '../cluster/assets.ts';
import { Fixture } from '../cluster/fixture.ts';
import { startReplica } from '../cluster/replica.ts';

const logins = 300;
const kept = 10_000;
const atOnce = 20;
// By then the leader has handled what the other replica did.
const afterMs = 3_000;

/** Runs `work` for 0 to `count` - 1, in parallel; returns the seconds it took. */
async function each(count: number, work: (i: number) => Promise<unknown>): Promise<number> {
  const start = performance.now();
  let next = 0;
  const run = async (): Promise<void> => {
    for (let i = next++; i < count; i = next++) await work(i);
  };
  await Promise.all(Array.from({ length: atOnce }, run));
  return (performance.now() - start) / 1000;
}

const caller = (name: string) => ({
  username: name,
  login: `${name}@example.com`,
  ownDomain: true,
  device: 'laptop',
  role: 'cluster-admin',
  periodMs: 3_600_000,
});
const ms = (seconds: number): string => `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const megabytes = (): number => {
  collect();
  return process.memoryUsage().heapUsed / 1e6;
};

/** Counts the calls to API servers while `work` runs, except those of the election and the watches. */
async function counting(work: () => Promise<void>): Promise<number> {
  let calls = 0;
  const count = (message: unknown): void => {
    const { path } = (message as { readonly request: { readonly path: string } }).request;
    if (!path.includes('/leases') && !path.includes('watch=true')) calls++;
  };
  subscribe('undici:request:create', count);
  await work();
  unsubscribe('undici:request:create', count);
  return calls;
}

/** Measures the cost of one kind of request for two replicas together; the one that gets it is not the leader. */
async function costOf(what: string, ask: (i: number) => Promise<unknown>): Promise<string> {
  let seconds = 0;
  const used = process.cpuUsage();
  const calls = await counting(async () => {
    seconds = await each(logins, ask);
    await delay(afterMs);
  });
  const { user, system } = process.cpuUsage(used);
  return [
    what.padEnd(28),
    `${(calls / logins).toFixed(1)} calls`.padStart(11),
    `${(logins / seconds).toFixed(0)} a second`.padStart(14),
    `${ms((user + system) / 1e6 / logins)} of CPU`.padStart(16),
  ].join('');
}

/** Returns the lines of the report; one line with the reason if there is no API server. */
export async function signInCosts(): Promise<string[]> {
  const assets = await findAssets((line) => process.stderr.write(`${line}\n`));
  if (typeof assets === 'string') return [`left out: ${assets}`];
  const etcd = await startEtcd(assets);
  const server = await startApiServer(assets, etcd, '127.0.0.15');
  const fixture = await Fixture.make(server);
  const { kube } = fixture;
  const leader = await startReplica(fixture.replicaOptions());
  while (!leader.provisioner.leading()) await delay(10);
  const replica = await startReplica(fixture.replicaOptions());
  const { signIns } = replica.provisioner;
  const signIn = async (name: string): Promise<void> => {
    await signIns.signIn(caller(name));
    const answer = await signIns.kubeconfig(caller(name));
    if (typeof answer !== 'object') throw new Error(`no token: ${answer}`);
  };
  try {
    // Warms up.
    await each(50, (i) => signIn(`first-${i}`));
    const one = await each(1, () => signIns.signIn(caller('second')));
    const lines = [
      `one sign-in, until it is provisioned: ${ms(one)}`,
      `for each of ${logins}, ${atOnce} at once, by two replicas together:`,
      await costOf('  a new sign-in and its token', (i) => signIn(`many-${i}`)),
      await costOf('  a repeated one', (i) => signIn(`many-${i}`)),
      await costOf('  a logout', (i) => signIns.signOut(caller(`many-${i}`))),
    ];

    // While the other replica leads, this one stores sign-ins but does not provision them.
    const other = await Fixture.make(server);
    await kube.create(paths.leases(other.namespace), {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: 'controller.tka.specht-labs.de' },
      spec: { holderIdentity: 'nobody', leaseDurationSeconds: 3600 },
    });
    const before = megabytes();
    const follower = await startReplica(other.replicaOptions());
    await each(kept, (i) =>
      kube.create(paths.signIns(other.namespace), newSignIn(`tka-user-${i}`, caller(`${i}`), Date.now())),
    );
    const last = await follower.provisioner.signIns.signIn(caller('last'));
    if (last.role !== 'cluster-admin') throw new Error('it does not serve');
    const heap = megabytes() - before;
    await follower.stop();
    other.kube.close();
    return [...lines, `heap of a replica with ${kept} sign-ins: ${heap.toFixed(0)} MB`];
  } finally {
    await replica.stop();
    await leader.stop();
    kube.close();
    await server.stop();
    await etcd.stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const line of await signInCosts()) process.stdout.write(`${line}\n`);
}
