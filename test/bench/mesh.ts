// The mesh of the benchmark, in a process of its own: prints where the servers are, runs until stdin closes.
import { startMesh } from '../../src/sandbox/mesh.ts';

await using mesh = await startMesh();
const clusters = mesh.clusters.map(({ name, server, apiServer }) => ({ name, server, apiServer }));
process.stdout.write(`${JSON.stringify(clusters)}\n`);
for await (const _ of process.stdin);
