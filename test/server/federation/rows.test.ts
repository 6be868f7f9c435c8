import { expect, test } from 'vitest';
import type { JoinedCluster, Tunnel } from '../../../src/server/federation/contract.ts';
import { joinedRows } from '../../../src/server/federation/rows.ts';

const seen = Date.UTC(2026, 7, 2, 10);
const cluster = (name: string, more: Partial<JoinedCluster> = {}): JoinedCluster => ({
  name,
  labels: {},
  suspended: false,
  conflict: undefined,
  apiEndpoint: `https://api.${name}.example.com`,
  statement: undefined,
  lastSeen: undefined,
  direct: false,
  tunnels: [],
  ...more,
});
const rowsOf = (...clusters: JoinedCluster[]) =>
  joinedRows({ all: () => clusters, get: (name) => clusters.find((each) => each.name === name) });

test('a connected cluster is healthy; an administrator’s label wins over what the cluster states', () => {
  const labels = { env: 'prod', region: 'eu' };
  const statement = { version: '1.4.0', apiEndpoint: 'https://other.example.com', labels: { env: 'lies', own: 'x' } };
  const tunnels = [{ id: 't' } as Tunnel];
  expect(rowsOf(cluster('a', { labels, statement, tunnels, lastSeen: seen, direct: true }))).toEqual([
    {
      cluster: 'a',
      // The endpoint that was fixed when the cluster joined.
      apiEndpoint: 'https://api.a.example.com',
      labels: { env: 'prod', region: 'eu', own: 'x' },
      state: 'healthy',
      version: '1.4.0',
      direct: true,
    },
  ]);
});

test('a cluster without a tunnel is dead since it was last seen', () => {
  const away = { labels: {}, state: 'dead' };
  expect(rowsOf(cluster('a', { lastSeen: seen }), cluster('b', { suspended: true }))).toEqual([
    { cluster: 'a', apiEndpoint: 'https://api.a.example.com', ...away, lastSeen: '2026-08-02T10:00:00.000Z' },
    { cluster: 'b', apiEndpoint: 'https://api.b.example.com', ...away },
  ]);
});

test('a cluster in conflict has no row, so that it does not take the name of another one', () => {
  expect(rowsOf(cluster('a', { conflict: 'the member tka-a has this name' }))).toEqual([]);
});
