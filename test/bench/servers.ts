// The servers of the benchmark, in a process of their own: a mesh of 20 clusters, and a thousand TKA servers that only
// say which cluster they belong to. Prints where they are as one line of JSON, and stays until its stdin ends.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startMesh } from '../../src/sandbox/mesh.ts';

const members = 1000;
const clusters = Array.from({ length: 20 }, (_, i) => ({ name: `cluster-${String(i).padStart(2, '0')}` }));
const mesh = await startMesh({ clusters });

const answers: (() => unknown)[] = [];
const servers = Array.from({ length: members }, (_, i) =>
  createServer((request, response) => {
    const info = {
      server_url: `https://api-${i}.example.com:6443`,
      insecure_skip_tls_verify: false,
      ca_data: '',
      labels: {},
    };
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(request.url?.endsWith('/memberlist') ? answers[0]?.() : info));
  }),
);
await Promise.all(servers.map((server) => once(server.listen(0, '127.0.0.1'), 'listening')));
const ports = servers.map((server) => (server.address() as AddressInfo).port);
const url = (i: number) => `http://127.0.0.1:${ports[i]}`;
answers[0] = () =>
  servers.map((_, i) => ({
    name: `member-${i}`,
    server: url(i),
    apiEndpoint: `https://api-${i}.example.com:6443`,
    apiPort: Number(new URL(url(i)).port),
    labels: { index: String(i) },
    state: 'healthy',
    lastSeen: new Date().toISOString(),
  }));

const [first] = mesh.clusters;
process.stdout.write(`${JSON.stringify({ server: first?.server, apiServer: first?.apiServer, thousand: url(0) })}\n`);
process.stdin.on('end', () => process.exit(0)).resume();
