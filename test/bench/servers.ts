// The servers of the benchmark, in a separate process: a mesh of 20 clusters, a thousand TKA servers that only state
// their cluster, and one that lists ten thousand clusters. Prints their addresses as one line of JSON, and runs until
// its stdin ends.
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

const many = createServer((_, response) => {
  const list = Array.from({ length: 10_000 }, (_, i) => ({
    name: `member-${i}`,
    server: `https://tka-member-${i}.example.ts.net`,
    apiEndpoint: `https://api-${i}.example.com:6443`,
    labels: { environment: i % 3 === 0 ? 'staging' : 'production', region: `region-${i % 7}`, index: String(i) },
    state: 'healthy',
    lastSeen: new Date().toISOString(),
  }));
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(list));
});
await once(many.listen(0, '127.0.0.1'), 'listening');
const tenThousand = `http://127.0.0.1:${(many.address() as AddressInfo).port}`;

const [first] = mesh.clusters;
const { server, apiServer } = first ?? {};
process.stdout.write(`${JSON.stringify({ server, apiServer, thousand: url(0), tenThousand })}\n`);
process.stdin.on('end', () => process.exit(0)).resume();
