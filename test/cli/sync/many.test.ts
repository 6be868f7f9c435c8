// A thousand clusters and a long kubeconfig; and the cost of hostile lists.
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import { Fixture } from './fixture.ts';

const count = 1000;
let servers: Server[];
let fixture: Fixture;
let asked: { now: number; most: number; last: number };
let ca: string;

beforeEach(async () => {
  asked = { now: 0, most: 0, last: 0 };
  ca = Buffer.from((await makeCertificates('127.0.0.1')).ca).toString('base64');
  const port = (server: Server) => (server.address() as AddressInfo).port;
  const endpoint = (server: Server) => `https://api-${servers.indexOf(server)}.example.com:6443`;
  const rows = () =>
    servers.map((server, i) => ({
      apiEndpoint: endpoint(server),
      apiPort: port(server),
      labels: { environment: 'production', index: String(i) },
      name: `cluster-${i}`,
      server: `http://127.0.0.1:${port(server)}`,
      state: 'healthy',
      lastSeen: '2026-11-21T09:00:00Z',
    }));
  servers = Array.from({ length: count }, () => {
    const server = createServer((request, response) => {
      asked.now++;
      asked.most = Math.max(asked.most, asked.now);
      const info = { server_url: endpoint(server), insecure_skip_tls_verify: false, ca_data: ca, labels: {} };
      const answer = request.url?.endsWith('/memberlist') ? rows() : info;
      // Delayed by a turn, so that simultaneous requests are counted as such.
      setImmediate(() => {
        asked.now--;
        asked.last = performance.now();
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(answer));
      });
    });
    return server;
  });
  await Promise.all(servers.map((server) => once(server.listen(0, '127.0.0.1'), 'listening')));
  fixture = new Fixture(`http://127.0.0.1:${port(servers[0] as Server)}`);
});
afterEach(async () => {
  fixture.remove();
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
});

/** Returns a kubeconfig with this many lines, with comments and without managed entries. */
function longKubeconfig(lines: number): string {
  const each = Math.ceil(lines / 23);
  const section = (key: string, entry: (i: number) => string) =>
    `${key}:\n${Array.from({ length: each }, (_, i) => entry(i)).join('')}`;
  return [
    'apiVersion: v1\nkind: Config\n# the long file of somebody who never cleans up\n',
    section(
      'clusters',
      (i) =>
        `# cluster ${i}\n- cluster:\n    certificate-authority-data: ${'QUJD'.repeat(300)}\n    # reached by VPN\n    server: https://old-${i}.example.com\n  name: old-${i}\n`,
    ),
    section(
      'contexts',
      (i) => `- context:\n    cluster: old-${i}\n    namespace: default\n    user: old-${i}\n  name: old-${i}\n\n`,
    ),
    'current-context: old-7\n',
    section(
      'users',
      (i) =>
        `- name: old-${i}\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      args:\n      - get-token # ${i}\n      - --cluster\n      - old-${i}\n      command: somebody\n      interactiveMode: Never\n      env: null\n`,
    ),
  ].join('');
}

it('adds a thousand clusters to a kubeconfig of 5,000 lines in one quick write, asking 32 servers at a time', async () => {
  const text = longKubeconfig(5000);
  expect(text.split('\n').length).toBeGreaterThan(5000);
  fixture.write(text);
  const took: number[] = [];
  const timed = async (flags = {}) => {
    const said = await fixture.sync(flags);
    took.push(performance.now() - asked.last);
    expect(said.error).toBeUndefined();
    return said;
  };
  const dry = await timed({ diff: true });
  expect(dry.stdout.split('\n').length).toBeGreaterThan(30_000);
  expect(asked.most).toBe(32);
  const first = await timed();
  expect(first.stdout).toMatch(/^1000 added: cluster-0, cluster-1, .* and 980 more\.\n$/);
  const lines = new Set(fixture.read().split('\n'));
  expect(text.split('\n').filter((line) => !lines.has(line))).toEqual([]);
  const before = fixture.stamp();
  expect((await timed()).stdout).toBe('1000 unchanged.\n');
  expect(fixture.stamp() === before).toBe(true);
  expect((await timed({ contextTemplate: '{labels.environment}-{labels.index}' })).stdout).toMatch(/^1000 renamed: /);
  // It takes half a second; a quadratic edit takes minutes.
  expect(took[1]).toBeLessThan(20_000);
});
