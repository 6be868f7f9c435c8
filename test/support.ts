// What the end-to-end tests stand on: the built program, and for each test a mesh and a private HOME of its own.
import { test as base } from 'vitest';
import { type Cluster, type Mesh, startMesh } from '../src/sandbox/mesh.ts';
import { Home } from './e2e/program.ts';

export * from './e2e/program.ts';

/** A test with a mesh of three clusters and a HOME whose configured server is the first of them. */
export const test = base.extend<{ mesh: Mesh; home: Home; us: Cluster; eu: Cluster }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  mesh: async ({}, use) => {
    await using mesh = await startMesh();
    await use(mesh);
  },
  us: async ({ mesh }, use) => use(mesh.cluster('prod-us')),
  eu: async ({ mesh }, use) => use(mesh.cluster('prod-eu')),
  home: async ({ us }, use) => {
    const home = await Home.make(us.server);
    try {
      await use(home);
    } finally {
      home.remove();
    }
  },
});
