import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type HtmlRow, parseMemberlistHtml } from '../../src/discovery/html.ts';
import { memberId } from '../../src/discovery/resolution.ts';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { peerOf, startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { tailnetStatus } from '../../src/tailscale/localapi.ts';
import { ask } from './helpers.ts';

let mesh: SandboxMesh;
let us: SandboxCluster;
let eu: SandboxCluster;
beforeAll(async () => {
  mesh = await startMesh({
    samePort: true,
    clusters: [
      { name: 'prod-us', host: '127.0.0.11', labels: { region: 'us-west-2' } },
      { name: 'prod-eu', host: '127.0.0.12' },
    ],
  });
  us = mesh.cluster('prod-us');
  eu = mesh.cluster('prod-eu');
});
afterAll(() => mesh.close());
beforeEach(() => {
  for (const cluster of mesh.clusters) {
    cluster.clearFaults();
    cluster.faults.memberlist = 'go-json';
    for (const key of Object.keys(cluster.gossip)) delete cluster.gossip[key as keyof typeof cluster.gossip];
  }
});

const page = async (cluster = us): Promise<readonly HtmlRow[] | undefined> => {
  const answer = await ask(cluster, 'GET', '/memberlist', { accept: 'text/html' });
  expect(answer.headers['content-type']).toBe('text/html; charset=utf-8');
  return parseMemberlistHtml(answer.body)?.rows;
};
const json = async (cluster = us) =>
  JSON.parse((await ask(cluster, 'GET', '/memberlist', { accept: 'application/json' })).body);

test('servers with their own addresses share a port', () => {
  const [a, b] = [new URL(us.server), new URL(eu.server)];
  expect([a.hostname, b.hostname]).toEqual(['127.0.0.11', '127.0.0.12']);
  expect(a.port).toBe(b.port);
  expect(new URL(us.apiServer).hostname).toBe('127.0.0.1');
});

test('the page shows IDs, addresses and states', async () => {
  const row = {
    id: memberId('prod-us', 7946),
    address: '127.0.0.11',
    gossipPort: 7946,
    apiEndpoint: us.apiServer,
    labels: new Map([['region', 'us-west-2']]),
    state: 'healthy',
    lastSeenSeconds: 0,
    isLocal: true,
  };
  const other = { ...row, id: memberId('prod-eu', 7946), address: '127.0.0.12', labels: new Map(), isLocal: false };
  const rows = await page();
  expect(rows).toHaveLength(2);
  expect(rows).toContainEqual(row);
  expect(rows).toContainEqual({ ...other, apiEndpoint: eu.apiServer });
  expect((await page(eu))?.find(({ isLocal }) => isLocal)?.id).toBe(other.id);
});

test('a member may state any address and labels, in both forms', async () => {
  Object.assign(eu.gossip, { hostName: 'tka-prod-eu', address: ':7946', state: 'suspected', lastSeenSeconds: 70 });
  Object.assign(eu.gossip, { apiEndpoint: us.apiServer, labels: { a: '<b>' } });
  expect(await page()).toContainEqual({
    id: '++Y4u1Yo2CU8bi1HgebCQg==',
    address: undefined,
    gossipPort: 7946,
    apiEndpoint: us.apiServer,
    labels: new Map([['a', '<b>']]),
    state: 'suspected',
    lastSeenSeconds: 70,
    isLocal: false,
  });
  expect(await json()).toContainEqual({
    apiEndpoint: us.apiServer,
    apiPort: Number(new URL(us.apiServer).port),
    labels: { a: '<b>' },
  });
});

test('an ID contains the port of the address', async () => {
  Object.assign(eu.gossip, { hostName: 'tka-prod-eu', address: ':17946' });
  expect(await page()).toContainEqual(
    expect.objectContaining({ id: memberId('tka-prod-eu', 17_946), address: undefined, gossipPort: 17_946 }),
  );
});

test('a stopped member is suspected, then removed when the others forget it', async () => {
  await eu.stop();
  try {
    expect((await page())?.map(({ state }) => state).sort()).toEqual(['healthy', 'suspected']);
    eu.gossip.listed = false;
    expect((await page())?.map(({ isLocal }) => isLocal)).toEqual([true]);
    expect(await json()).toHaveLength(1);
    us.faults.memberlist = 'ours';
    expect(await json()).toHaveLength(1);
  } finally {
    await eu.start();
  }
});

test('a user without a grant gets neither form', async () => {
  const { user } = us;
  us.user = null;
  try {
    for (const accept of ['text/html', 'application/json']) {
      const answer = await ask(us, 'GET', '/memberlist', { accept });
      expect(answer).toMatchObject({ status: 403, headers: { 'content-type': 'application/json; charset=utf-8' } });
    }
  } finally {
    us.user = user;
  }
});

test('a server without a page answers every request with JSON', async () => {
  us.faults.memberlist = 'go-json-only';
  const answer = await ask(us, 'GET', '/memberlist', { accept: 'text/html' });
  expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
  expect(JSON.parse(answer.body)).toHaveLength(2);
});

test('the mesh lists the tailnet of its servers as tailscaled would', async () => {
  us.gossip.hostName = 'tka-prod-us';
  await using tailscaled = await startTailscaled({ peers: [peerOf(us), peerOf(eu, { tags: [], online: false })] });
  const env = { TS_SOCKET: tailscaled.socketPath };
  const { peers } = await tailnetStatus({ env, timeout: 5000, log: () => {} });
  expect(peers).toMatchObject([
    { self: true },
    { dnsName: 'prod-eu.example.ts.net', addresses: ['127.0.0.12'], tags: [], online: false },
    { dnsName: 'tka-prod-us.example.ts.net', addresses: ['127.0.0.11'], tags: ['tag:tka'], online: true },
  ]);
  const ids = new Set((await page())?.map(({ id }) => id));
  expect(ids).toEqual(new Set(peers.filter(({ self }) => !self).map(({ hostName }) => memberId(hostName, 7946))));
});

test('a host of a cluster must be loopback too', async () => {
  await expect(startMesh({ clusters: [{ name: 'a', host: '192.0.2.1' }] })).rejects.toThrow('loopback addresses only');
});
