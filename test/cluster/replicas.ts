// Replicas in processes of their own, and the lease that they share.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { paths } from '../../src/server/provisioner/objects.ts';
import { note } from './processes.ts';
import type { ReplicaOptions } from './replica.ts';
import { type Ground, until } from './support.ts';

/** The lease of a ground, which must be there. */
export async function lease(ground: Ground): Promise<Lease & { readonly spec: NonNullable<Lease['spec']> }> {
  const found = await ground.kube.get<Lease>(paths.leases(ground.namespace, leaseName));
  if (found?.spec === undefined) throw new Error('there is no lease');
  return { ...found, spec: found.spec };
}

/** Resolves when a replica of this name leads, or a holder that matches. */
export const led = (ground: Ground, by: string | RegExp): Promise<void> =>
  until<Lease>(ground.access, paths.leases(ground.namespace), leaseName, (found) =>
    typeof by === 'string'
      ? found?.spec?.holderIdentity === `tka-server/${by}`
      : by.test(found?.spec?.holderIdentity ?? '-'),
  );

/** A replica in a process of its own, which ends with the test. */
export async function spawnReplica(options: ReplicaOptions) {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'replica.ts')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  // Also where the test is cut off, and the process suspended.
  note(`+${child.pid}`);
  child.once('exit', () => note(`-${child.pid}`));
  child.stdin.end(JSON.stringify(options));
  const [url] = await once(createInterface(child.stdout), 'line');
  return {
    url: url as string,
    pause: () => child.kill('SIGSTOP'),
    wake: () => child.kill('SIGCONT'),
    async kill(signal: NodeJS.Signals = 'SIGKILL') {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      await once(child, 'exit');
    },
  };
}
