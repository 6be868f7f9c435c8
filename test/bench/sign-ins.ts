// What sign-ins cost a TKA server, on a real API server with which it shares this machine.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { newSignIn, paths } from '../../src/server/provisioner/objects.ts';
import { startApiServer, startEtcd } from '../cluster/api-server.ts';
import { findAssets } from '../cluster/assets.ts';
import { Ground } from '../cluster/ground.ts';
import { startReplica } from '../cluster/replica.ts';

const logins = 300;
const kept = 10_000;
const atOnce = 20;

/** Runs `work` for 0 to `count` - 1, so many at a time; answers the seconds it took. */
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
  role: 'cluster-admin',
  periodMs: 3_600_000,
});
const ms = (seconds: number): string => `${(seconds * 1000).toFixed(0)} ms`;
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const megabytes = (): number => {
  collect();
  return process.memoryUsage().heapUsed / 1e6;
};

/** Lines that say it; one that says why not, where there is no API server to be had. */
export async function signInCosts(): Promise<string[]> {
  const assets = await findAssets((line) => process.stderr.write(`${line}\n`));
  if (typeof assets === 'string') return [`left out: ${assets}`];
  const etcd = await startEtcd(assets);
  const server = await startApiServer(assets, etcd, '127.0.0.15');
  const ground = await Ground.make(server);
  const { kube } = ground;
  const replica = await startReplica(ground.replicaOptions());
  const { signIns, leading } = replica.provisioner;
  try {
    await signIns.signIn(caller('first'));
    while (!leading()) await signIns.signIn(caller('first'));
    const one = await each(1, async () => signIns.signIn(caller('second')));
    const used = process.cpuUsage();
    const many = await each(logins, async (i) => {
      await signIns.signIn(caller(`many-${i}`));
      const answer = await signIns.kubeconfig(caller(`many-${i}`));
      if (typeof answer !== 'object') throw new Error(`no token: ${answer}`);
    });
    const { user, system } = process.cpuUsage(used);

    // Where somebody else leads, it keeps sign-ins and does nothing about them.
    const other = await Ground.make(server);
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
    return [
      `one sign-in, until it is provisioned     ${ms(one)}`,
      `sign-in and token, ${atOnce} at once           ${(logins / many).toFixed(0)} a second`,
      `the server's own CPU for each            ${ms((user + system) / 1e6 / logins)}`,
      `heap of a replica with ${kept} sign-ins  ${heap.toFixed(0)} MB`,
    ];
  } finally {
    await replica.stop();
    kube.close();
    await server.stop();
    await etcd.stop();
  }
}
