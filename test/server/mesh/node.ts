// One member as a separate process for tests: options as JSON on the command line, events as JSON lines on stdout. On
// SIGTERM it leaves.
import type { Socket } from 'node:net';
import { startMesh } from '../../../src/server/mesh/mesh.ts';

const say = (what: unknown) => process.stdout.write(`${JSON.stringify(what)}\n`);
const { name, host, port, key, peers, ...pace } = JSON.parse(process.argv[2] ?? '{}');
const mesh = await startMesh({
  name,
  record: {
    server: `http://${host}:8123`,
    apiEndpoint: `https://api.${name}.example.com:6443`,
    labels: { pid: String(process.pid) },
    version: '0.1.0',
  },
  hosts: [host],
  port,
  key,
  bootstrapPeers: peers,
  ...pace,
  onChange: (row) => say({ member: row.name, state: row.state, pid: row.labels?.pid }),
});
process.once('SIGTERM', () => mesh.leave().then(() => say({ left: true })));
// The parent process has ended. Nothing else keeps this process alive once it has left the mesh.
process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL')).resume();
(process.stdin as unknown as Socket).unref();
say({ port: mesh.port });
