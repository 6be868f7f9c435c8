// Replicas in separate processes, and the lease that they share.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'vitest';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { survey } from '../../src/server/provisioner/reconciler.ts';
import { note } from './processes.ts';
import type { ReplicaOptions } from './replica.ts';
import { type Fixture, until } from './support.ts';

/** Returns the lease in a namespace. Throws if there is none. */
export async function lease(fixture: Fixture): Promise<Lease & { readonly spec: NonNullable<Lease['spec']> }> {
  const found = await fixture.kube.get<Lease>(paths.leases(fixture.namespace, leaseName));
  if (found?.spec === undefined) throw new Error('there is no lease');
  return { ...found, spec: found.spec };
}

/** Resolves when the leader is a replica of this name, or a holder that matches. */
export const led = (fixture: Fixture, by: string | RegExp): Promise<void> =>
  until<Lease>(fixture.access, paths.leases(fixture.namespace), leaseName, (found) =>
    typeof by === 'string'
      ? found?.spec?.holderIdentity === `tka-server/${by}`
      : by.test(found?.spec?.holderIdentity ?? '-'),
  );

/** Keeps every replica in this namespace from leading: another holder has the lease and does nothing. */
export async function leaderless(fixture: Fixture): Promise<void> {
  const spec = { holderIdentity: 'tka-server/nobody', leaseDurationSeconds: 3600 };
  const object = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: leaseName }, spec };
  await fixture.kube.create(paths.leases(fixture.namespace), object);
}

let sentinels = 0;

/**
 * Creates a sign-in by hand, which the leader provisions at once. Returns a function that deletes it and resolves when
 * the leader has cleaned it up: by then it has also handled all earlier changes.
 */
export async function sentinel(fixture: Fixture, role: string): Promise<() => Promise<void>> {
  const name = `tka-user-sentinel-${++sentinels}`;
  const collection = paths.signIns(fixture.namespace);
  const made = await fixture.kube.create<TkaSignin>(collection, {
    apiVersion: 'tka.specht-labs.de/v1alpha1',
    kind: 'TkaSignin',
    metadata: { name },
    spec: { username: 'sentinel', role, validity_period: '30m0s' },
  });
  await until<TkaSignin>(fixture.access, collection, name, (found) => found?.status?.provisioned);
  return async () => {
    await fixture.kube.remove(`${collection}/${name}`, { uid: made.metadata.uid });
    await fixture.gone(name);
  };
}

/** A replica in a separate process, which ends with the test. */
export async function spawnReplica(options: ReplicaOptions) {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'replica.ts')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  // Also if the test is aborted while the process is suspended.
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

/** Expects accounts and bindings for exactly the sign-ins of these names. */
export async function onlyHas(fixture: Fixture, ...signIns: readonly { readonly name: string }[]): Promise<void> {
  for await (const name of survey(fixture.kube, fixture.namespace)) throw new Error(`${name} is not as it should be`);
  const names: string[] = [];
  for await (const { metadata } of fixture.kube.list<{ metadata: { name: string } }>(paths.accounts(fixture.namespace)))
    names.push(metadata.name);
  expect(names.filter((name) => name.startsWith('tka-user-')).sort()).toEqual(signIns.map(({ name }) => name).sort());
}
