import { createServer, type Server } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { Refusal, type RefusalReason, refusalReasons } from '../../../src/server/http/contract.ts';
import { close, listen } from '../../../src/server/http/listen.ts';
import type { WatchedResource, WatchState } from '../../../src/server/provisioner/provisioner.ts';
import type { JoinedClusterCounts, LoginServerCounts } from '../../../src/server/telemetry/federation-metrics.ts';
import { createHealth } from '../../../src/server/telemetry/health.ts';
import { createMetrics, type Metrics, type MetricsSources } from '../../../src/server/telemetry/metrics.ts';
import { alice, api, ask, members, serve, signedIn } from '../support.ts';

const quiet: MetricsSources = {
  version: '1.2.3',
  commit: 'abc',
  ready: () => true,
  members: () => undefined,
  certificateUntil: () => undefined,
  cluster: () => undefined,
};
let server: Server | undefined;
let healthPort = 0;
let unready: string | undefined;
afterEach(async () => {
  if (server) await close(server);
  unready = undefined;
});

async function watched(sources: Partial<MetricsSources> = {}): Promise<Metrics> {
  const metrics = createMetrics({ ...quiet, ...sources });
  server = createServer(createHealth({ unready: () => unready, metrics }));
  healthPort = await listen(server, '127.0.0.1', 0);
  return metrics;
}

const get = (path: string, method = 'GET') => ask(method, path, {}, '', healthPort);

/** Returns the lines of one metric. */
async function lines(name: string, path = '/metrics'): Promise<string[]> {
  const { status, headers, body } = await get(path);
  expect(status).toBe(200);
  expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
  return body.split('\n').filter((line) => line.startsWith(name) && /[ {]/.test(line.slice(name.length)[0] ?? ''));
}

/** Calls the API this often, and waits until all of it was counted. */
async function counted(metrics: Metrics, requests: readonly [string, string][], options = {}): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let left = requests.length;
  await serve({
    members: () => members,
    ...options,
    onRequest: (answered) => {
      metrics.request(answered);
      if (--left === 0) resolve();
    },
  });
  for (const [method, path] of requests) await ask(method, path);
  await promise;
}

describe('requests', () => {
  test('are counted by method, route and status; an unknown path is not a label', async () => {
    const metrics = await watched();
    const strange = Array.from({ length: 50 }, (_, i): [string, string] => ['GET', `/nothing/${i}`]);
    await counted(metrics, [
      ['GET', `${api}/login`],
      ['GET', `${api}/login?a=1`],
      ['POST', `${api}/logout`],
      ['DELETE', `${api}/login`],
      ['PROPFIND', `${api}/login`],
      ...strange,
    ]);
    expect((await lines('tka_server_requests_total')).sort()).toEqual([
      `tka_server_requests_total{method="GET",route="${api}/login",status="200"} 2`,
      'tka_server_requests_total{method="GET",route="other",status="404"} 50',
      `tka_server_requests_total{method="POST",route="${api}/logout",status="200"} 1`,
      `tka_server_requests_total{method="other",route="${api}/login",status="405"} 2`,
    ]);
    expect(await lines('tka_server_request_duration_seconds_count')).toContain(
      `tka_server_request_duration_seconds_count{method="GET",route="${api}/login"} 2`,
    );
    expect(await lines('tka_server_identity_failures_total')).toEqual([]);
  });

  test('sign-ins are counted by outcome, unknown callers by status', async () => {
    const metrics = await watched();
    const login: [string, string] = ['POST', `${api}/login`];
    await counted(metrics, [login, login]);
    const refuse = (status: number, reason: RefusalReason) => () => {
      throw new Refusal(status, { message: 'no' }, { reason });
    };
    await counted(metrics, [login, ['GET', `${api}/cluster-info`]], { identity: { whoIs: refuse(403, 'no_grant') } });
    await counted(metrics, [login], { signIns: { ...signedIn, signIn: refuse(422, 'blocked') } });
    expect((await lines('tka_login_attempts_total')).sort()).toEqual([
      'tka_login_attempts_total{cluster_role="",outcome="forbidden"} 1',
      'tka_login_attempts_total{cluster_role="viewer",outcome="error"} 1',
      'tka_login_attempts_total{cluster_role="viewer",outcome="success"} 2',
    ]);
    expect(await lines('tka_server_identity_failures_total')).toEqual([
      'tka_server_identity_failures_total{status="403"} 2',
    ]);
    const refused = await lines('tka_sign_ins_refused_total');
    expect(refused).toHaveLength(refusalReasons.length);
    expect(refused.filter((line) => !line.endsWith(' 0')).sort()).toEqual([
      'tka_sign_ins_refused_total{reason="blocked"} 1',
      'tka_sign_ins_refused_total{reason="no_grant"} 1',
    ]);
    expect((await get('/metrics')).body).not.toContain(alice.username);
  });
});

test('members are counted by state at the time of the request', async () => {
  let counts: Readonly<Record<string, number>> | undefined;
  await watched({ members: () => counts });
  expect(await lines('tka_mesh_members')).toEqual([]);
  counts = { healthy: 3, suspected: 0, dead: 1 };
  expect(await lines('tka_mesh_members')).toEqual([
    'tka_mesh_members{state="healthy"} 3',
    'tka_mesh_members{state="suspected"} 0',
    'tka_mesh_members{state="dead"} 1',
  ]);
  counts = undefined;
  expect(await lines('tka_mesh_members')).toEqual([]);
});

test('the end of the certificate is exported, with TLS only', async () => {
  let until: number | undefined;
  await watched({ certificateUntil: () => until });
  const name = 'tka_certificate_expiry_timestamp_seconds';
  expect(await lines(name)).toEqual([]);
  until = Date.UTC(2026, 11, 24);
  expect(await lines(name)).toEqual([`${name} 1798070400`]);
  until = undefined;
  expect(await lines(name)).toEqual([]);
});

test('the login server exports its joined clusters by state, and their tunnels', async () => {
  const cluster = (name: string, tunnels: number, more: Partial<JoinedClusterCounts> = {}): JoinedClusterCounts => ({
    name,
    suspended: false,
    conflict: undefined,
    tunnels: { length: tunnels },
    ...more,
  });
  let joined: JoinedClusterCounts[] | undefined;
  const metrics = await watched({ joinedClusters: () => joined });
  for (const name of ['clusters', 'cluster_tunnels', 'joins_total']) {
    expect(await lines(`tka_federation_${name}`)).toEqual([]);
  }
  joined = [
    ...[cluster('a', 2), cluster('b', 0), cluster('c', 1)],
    ...[cluster('d', 1, { suspended: true }), cluster('e', 0, { suspended: true, conflict: 'another has its name' })],
  ];
  expect(await lines('tka_federation_clusters')).toEqual([
    'tka_federation_clusters{state="connected"} 2',
    'tka_federation_clusters{state="disconnected"} 1',
    'tka_federation_clusters{state="suspended"} 1',
    'tka_federation_clusters{state="conflict"} 1',
  ]);
  expect(await lines('tka_federation_cluster_tunnels')).toEqual(
    [2, 0, 1, 1, 0].map((count, i) => `tka_federation_cluster_tunnels{joined_cluster="${'abcde'[i]}"} ${count}`),
  );
  metrics.join('joined');
  metrics.join('rejected');
  metrics.join('rejected');
  expect(await lines('tka_federation_joins_total')).toEqual([
    'tka_federation_joins_total{outcome="joined"} 1',
    'tka_federation_joins_total{outcome="rejected"} 2',
  ]);
  // A cluster that is evicted leaves no series behind, and there are never more than 1,000.
  joined = Array.from({ length: 1_200 }, (_, i) => cluster(`site-${i}`, 1));
  expect(await lines('tka_federation_cluster_tunnels')).toHaveLength(1_000);
  expect(await lines('tka_federation_clusters')).toContain('tka_federation_clusters{state="connected"} 1200');
});

test('a joined cluster exports its tunnels, its status and the assertions', async () => {
  let counts: LoginServerCounts | undefined;
  const metrics = await watched({ loginServer: () => counts });
  for (const name of ['tunnels', 'join_status', 'assertions_total']) {
    expect(await lines(`tka_federation_${name}`)).toEqual([]);
  }
  counts = { status: 'Joined', tunnels: 2 };
  const request = { id: 'x', method: 'GET', path: '/', route: `${api}/login`, ms: 1, refusal: undefined };
  const origin = { reason: undefined, address: undefined, port: undefined };
  const asked = (status: number, caller?: typeof alice, through: object = { through: 'hub' }) =>
    metrics.request({ ...request, ...origin, ...through, status, caller });
  asked(200, alice);
  asked(401, alice);
  asked(202);
  asked(401);
  asked(503);
  asked(401, undefined, {});
  expect(await lines('tka_federation_tunnels')).toEqual(['tka_federation_tunnels 2']);
  expect(await lines('tka_federation_join_status')).toEqual([
    'tka_federation_join_status{status="Joining"} 0',
    'tka_federation_join_status{status="Joined"} 1',
    'tka_federation_join_status{status="Rejected"} 0',
  ]);
  expect(await lines('tka_federation_assertions_total')).toEqual([
    'tka_federation_assertions_total{outcome="accepted"} 3',
    'tka_federation_assertions_total{outcome="rejected"} 1',
  ]);
  counts = undefined;
  expect(await lines('tka_federation_tunnels')).toEqual([]);
});

test('the controller exports reconciliations, accounts, sessions, leadership and watches', async () => {
  let sessions = new Map([
    ['view', 2],
    ['say "hi"\n', 1],
  ]);
  const of = { connected: true, silentMs: 1500 };
  const late = { connected: false, silentMs: 60_000 };
  const cluster = {
    sessions: () => sessions,
    leading: () => true,
    goLeading: () => false,
    watches: () =>
      new Map<WatchedResource, WatchState>([
        ['tkasignins', of],
        ['serviceaccounts', late],
      ]),
    queue: () => ({ waiting: 3, failing: 2 }),
  };
  let given: typeof cluster | undefined;
  const metrics = await watched({ cluster: () => given });
  const path = '/metrics/controller';
  expect(await lines('controller_runtime_reconcile_errors_total', path)).toEqual([
    'controller_runtime_reconcile_errors_total{controller="tkasignin"} 0',
  ]);
  expect(await lines('tka_watch_connected', path)).toEqual([
    'tka_watch_connected{resource="tkasignins"} 0',
    'tka_watch_connected{resource="serviceaccounts"} 0',
    'tka_watch_connected{resource="clusterrolebindings"} 0',
  ]);
  given = cluster;
  const pass = {
    name: 'tka-user-alice',
    namespace: 'tka-system',
    ms: 20,
    failed: false,
    again: false,
    signedIn: undefined,
  };
  metrics.reconcile(pass);
  metrics.reconcile({ ...pass, signedIn: { username: 'alice', role: 'view' } });
  metrics.reconcile({ ...pass, failed: true });
  metrics.reconcile({ ...pass, again: true });
  metrics.watchBroke('serviceaccounts');
  for (const what of ['created', 'created', 'deleted'] as const) metrics.account(what);
  expect(await lines('controller_runtime_reconcile_total', path)).toEqual([
    'controller_runtime_reconcile_total{controller="tkasignin",result="success"} 2',
    'controller_runtime_reconcile_total{controller="tkasignin",result="error"} 1',
    'controller_runtime_reconcile_total{controller="tkasignin",result="requeue"} 1',
  ]);
  expect(await lines('controller_runtime_reconcile_errors_total', path)).toEqual([
    'controller_runtime_reconcile_errors_total{controller="tkasignin"} 1',
  ]);
  expect(await lines('controller_runtime_reconcile_time_seconds_sum', path)).toEqual([
    'controller_runtime_reconcile_time_seconds_sum{controller="tkasignin"} 0.08',
  ]);
  expect(await lines('workqueue_depth', path)).toEqual(['workqueue_depth{name="tkasignin"} 3']);
  expect(await lines('tka_sign_ins_failing', path)).toEqual(['tka_sign_ins_failing 2']);
  expect(await lines('tka_user_signins_total', path)).toEqual(['tka_user_signins_total{cluster_role="view"} 1']);
  expect(await lines('tka_service_accounts_created_total', path)).toEqual(['tka_service_accounts_created_total 2']);
  expect(await lines('tka_service_accounts_deleted_total', path)).toEqual(['tka_service_accounts_deleted_total 1']);
  expect(await lines('tka_watch_errors_total', path)).toContain('tka_watch_errors_total{resource="serviceaccounts"} 1');
  expect(await lines('tka_watch_connected', path)).toEqual([
    'tka_watch_connected{resource="tkasignins"} 1',
    'tka_watch_connected{resource="serviceaccounts"} 0',
    'tka_watch_connected{resource="clusterrolebindings"} 0',
  ]);
  expect(await lines('tka_watch_age_seconds', path)).toEqual([
    'tka_watch_age_seconds{resource="tkasignins"} 1.5',
    'tka_watch_age_seconds{resource="serviceaccounts"} 60',
  ]);
  expect(await lines('tka_active_user_sessions', path)).toEqual([
    'tka_active_user_sessions{cluster_role="view"} 2',
    'tka_active_user_sessions{cluster_role="say \\"hi\\""} 1',
  ]);
  expect(await lines('leader_election_master_status', path)).toEqual([
    'leader_election_master_status{name="controller.tka.specht-labs.de"} 1',
  ]);
  expect(await lines('tka_go_server_leading', path)).toEqual(['tka_go_server_leading 0']);
  sessions = new Map();
  expect(await lines('tka_active_user_sessions', path)).toEqual([]);
  expect((await get(path)).body).not.toContain('alice');
});

test('a policy with ever new roles creates at most 101 series', async () => {
  const metrics = await watched();
  const pass = { name: 'x', namespace: 'y', ms: 1, failed: false, again: false };
  for (let i = 0; i < 300; i++) metrics.reconcile({ ...pass, signedIn: { username: 'alice', role: `role-${i}` } });
  const series = await lines('tka_user_signins_total', '/metrics/controller');
  expect(series).toHaveLength(101);
  expect(series).toContain('tka_user_signins_total{cluster_role="other"} 200');
});

test('the health port', async () => {
  await watched();
  expect(await get('/healthz')).toMatchObject({ status: 200, body: '{"status":"ok"}' });
  expect((await get('/ready')).status).toBe(200);
  unready = 'the server is stopping';
  expect(await get('/ready')).toMatchObject({
    status: 503,
    body: '{"status":"not ready","reason":"the server is stopping"}',
  });
  expect((await get('/healthz')).status).toBe(200);
  expect(await get('/metrics', 'HEAD')).toMatchObject({ status: 200, body: '' });
  expect(await lines('process_resident_memory_bytes')).toHaveLength(1);
  expect(await lines('tka_build_info')).toEqual(['tka_build_info{version="1.2.3",commit="abc"} 1']);
  for (const [method, path, status] of [
    ['POST', '/metrics', 405],
    ['GET', '/metrics/', 404],
    ['GET', `${api}/login`, 404],
  ] as const) {
    expect((await get(path, method)).status).toBe(status);
  }
});

test('an error while collecting metrics is answered without details', async () => {
  await watched({
    members() {
      throw new Error('secret');
    },
  });
  expect(await get('/metrics')).toMatchObject({ status: 500, body: '{"message":"internal error"}' });
});
