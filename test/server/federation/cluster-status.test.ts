import { expect, it } from 'vitest';
import { nextStatus, type Seen } from '../../../src/server/federation/cluster-status.ts';
import type { TkaCluster, TkaClusterStatus } from '../../../src/server/federation/objects.ts';

const now = Date.parse('2026-01-02T03:04:05Z');
const at = (ms: number): string => new Date(now + ms).toISOString().replace('.000Z', 'Z');
const quiet: Seen = { connected: false, lastSeen: undefined, news: undefined, conflict: undefined };
const open: Seen = { ...quiet, connected: true, lastSeen: now };
const statement = { version: '1.2.3', apiEndpoint: 'https://api.example.com', labels: {} };

const cluster = (status?: TkaClusterStatus, suspended = false): TkaCluster => ({
  metadata: { name: 'a', uid: 'u', resourceVersion: '1', generation: 1 },
  spec: { publicKey: 'p', apiEndpoint: 'https://api.example.com', suspended },
  ...(status && { status }),
});

/** Returns the next status as replica `tka-0` sees it at `now` + `ms`. */
const next = (of: TkaCluster, seen: Seen, { ms = 0, replica = 'tka-0', alive = ['tka-0', 'tka-1'] } = {}) =>
  nextStatus(of, seen, { replica, isAlive: (name) => alive.includes(name), now: now + ms, refreshMs: 60_000 });

const condition = (status: TkaClusterStatus | undefined, wanted: string) =>
  status?.conditions?.find(({ type }) => type === wanted);

/** Returns the cluster with this status written. */
const written = (status: TkaClusterStatus | undefined): TkaCluster => {
  expect(status).toBeDefined();
  return cluster(status);
};

it('says that a cluster is connected, and what it said about itself', () => {
  const status = next(cluster(), { ...open, news: statement });
  expect(status).toMatchObject({
    connected: true,
    lastSeen: at(0),
    version: '1.2.3',
    endpoint: 'https://api.example.com',
    replicas: [{ name: 'tka-0', connected: true, lastSeen: at(0) }],
  });
  expect(condition(status, 'Connected')).toMatchObject({ status: 'True', lastTransitionTime: at(0) });
});

it('has nothing to write while nothing changes, for a minute', () => {
  const first = written(next(cluster(), open));
  expect(next(first, { ...open, lastSeen: now + 59_000 }, { ms: 59_000 })).toBeUndefined();
  const refreshed = next(first, { ...open, lastSeen: now + 60_000 }, { ms: 60_000 });
  expect(refreshed?.lastSeen).toBe(at(60_000));
  expect(condition(refreshed, 'Connected')?.lastTransitionTime).toBe(at(0));
  // The other replica sees that the first one has just written, and leaves it at that.
  const both = written(next(first, open, { replica: 'tka-1' }));
  const seen = { ...open, lastSeen: now + 60_000 };
  const again = written(next(both, seen, { ms: 60_000 }));
  expect(next(again, seen, { ms: 61_000, replica: 'tka-1' })).toBeUndefined();
});

it('is connected as long as any replica that runs has a tunnel', () => {
  const both = written(next(written(next(cluster(), open)), open, { replica: 'tka-1' }));
  const gone: Seen = { ...quiet, lastSeen: now + 5_000 };
  const half = written(next(both, gone, { ms: 6_000 }));
  expect(half.status).toMatchObject({ connected: true, lastSeen: at(5_000) });
  expect(next(half, gone, { ms: 7_000, alive: ['tka-0'] })).toMatchObject({
    connected: false,
    replicas: [{ name: 'tka-0', connected: false }],
  });
  const none = next(half, gone, { ms: 7_000, replica: 'tka-1' });
  expect(none?.connected).toBe(false);
  expect(condition(none, 'Connected')).toMatchObject({ status: 'False', lastTransitionTime: at(7_000) });
});

it('the replicas do not write against each other when a cluster states different things to them', () => {
  const first = written(next(cluster(), { ...open, news: statement }));
  const other = { ...open, news: { ...statement, version: '1.2.4' } };
  const second = written(next(first, other, { replica: 'tka-1' }));
  expect(second.status?.version).toBe('1.2.4');
  // Their news are written: neither has anything to add.
  expect(next(second, open)).toBeUndefined();
  expect(next(second, open, { replica: 'tka-1' })).toBeUndefined();
});

it('says nothing about replicas that never had a tunnel', () => {
  expect(next(cluster(), quiet)?.replicas).toEqual([]);
});

it('has conditions for suspension and conflict, and keeps those of others', () => {
  const theirs = { type: 'Theirs', status: 'True', reason: 'R', message: '', lastTransitionTime: at(0) } as const;
  const conflict = { reason: 'NameTaken', message: 'taken' } as const;
  const status = next(cluster({ conditions: [theirs] }, true), { ...quiet, conflict });
  expect(condition(status, 'Theirs')).toEqual(theirs);
  expect(condition(status, 'Suspended')).toMatchObject({ status: 'True', observedGeneration: 1 });
  expect(condition(status, 'Conflict')).toMatchObject({ status: 'True', reason: 'NameTaken', message: 'taken' });
  const resolved = next(written(status), quiet, { ms: 1_000 });
  expect(condition(resolved, 'Conflict')).toMatchObject({ status: 'False', lastTransitionTime: at(1_000) });
});

it('writes no endpoint that the API server refuses', () => {
  const apiEndpoint = `https://api.example.com/${'a'.repeat(2_000)}`;
  expect(next(cluster(), { ...open, news: { ...statement, apiEndpoint } })?.endpoint).toHaveLength(1_024);
});
