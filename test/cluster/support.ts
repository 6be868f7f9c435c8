// What the cluster tests stand on.
import { test as base, inject } from 'vitest';
import { Ground } from './ground.ts';
import { type Replica, startReplica } from './replica.ts';

export * from './ground.ts';
export * from './people.ts';

/** Why there are no clusters here; undefined where there are. */
export const absent = typeof inject('assets') === 'string' ? String(inject('assets')) : undefined;

/** A test with a ground on the first API server, and a replica there that leads. */
export const test = base.extend<{ ground: Ground; replica: Replica; role: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  ground: async ({}, use) => {
    const [access] = inject('clusters');
    if (access === undefined) throw new Error(absent);
    const ground = await Ground.make(access);
    await use(ground);
    ground.kube.close();
  },
  replica: async ({ ground }, use) => {
    const replica = await startReplica(ground.replicaOptions());
    await use(replica);
    await replica.stop();
  },
  role: async ({ ground }, use) => use(await ground.role()),
});
