// The fixtures of the cluster tests.
import { test as base, inject } from 'vitest';
import { Fixture } from './fixture.ts';
import { type Replica, startReplica } from './replica.ts';

export * from './fixture.ts';
export * from './people.ts';

/** Why there are no clusters here; undefined if there are. */
export const absent = typeof inject('assets') === 'string' ? String(inject('assets')) : undefined;

/** A test with a namespace on the first API server, and a replica there that is the leader. */
export const test = base.extend<{ fixture: Fixture; replica: Replica; role: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  fixture: async ({}, use) => {
    const [access] = inject('clusters');
    if (access === undefined) throw new Error(absent);
    const fixture = await Fixture.make(access);
    await use(fixture);
    fixture.kube.close();
  },
  replica: async ({ fixture }, use) => {
    const replica = await startReplica(fixture.replicaOptions());
    await use(replica);
    await replica.stop();
  },
  role: async ({ fixture }, use) => use(await fixture.role()),
});
