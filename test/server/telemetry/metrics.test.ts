import { createServer, type Server } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { Refusal } from '../../../src/server/http/contract.ts';
import { close, listen } from '../../../src/server/http/listen.ts';
import { createHealth } from '../../../src/server/telemetry/health.ts';
import { createMetrics, type Metrics, type MetricsSources } from '../../../src/server/telemetry/metrics.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
import { alice, api, ask, members, serve, signedIn } from '../support.ts';

const quiet: MetricsSources = {
  version: '1.2.3',
  members: () => undefined,
  sessions: () => undefined,
  leading: () => undefined,
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

/** The lines of one metric. */
async function lines(name: string, path = '/metrics'): Promise<string[]> {
  const { status, headers, body } = await get(path);
  expect(status).toBe(200);
  expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
  return body.split('\n').filter((line) => line.startsWith(name) && /[ {]/.test(line.slice(name.length)[0] ?? ''));
}

/** Asks the API this often, and waits until all of it was counted. */
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
  test('are counted by method, route and status; no path that is made up is a label', async () => {
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

  test('sign-ins by outcome, strangers by status', async () => {
    const metrics = await watched();
    const login: [string, string] = ['POST', `${api}/login`];
    await counted(metrics, [login, login]);
    const refuse = (status: number) => () => {
      throw new Refusal(status, { message: 'no' });
    };
    await counted(metrics, [login, ['GET', `${api}/cluster-info`]], { identity: { whoIs: refuse(403) } });
    await counted(metrics, [login], { signIns: { ...signedIn, signIn: refuse(422) } });
    expect((await lines('tka_login_attempts_total')).sort()).toEqual([
      'tka_login_attempts_total{cluster_role="",outcome="forbidden"} 1',
      'tka_login_attempts_total{cluster_role="viewer",outcome="error"} 1',
      'tka_login_attempts_total{cluster_role="viewer",outcome="success"} 2',
    ]);
    expect(await lines('tka_server_identity_failures_total')).toEqual([
      'tka_server_identity_failures_total{status="403"} 2',
    ]);
    expect((await get('/metrics')).body).not.toContain(alice.username);
  });
});

test('members by state, as they are at that moment', async () => {
  let rows: readonly MemberRow[] | undefined;
  await watched({ members: () => rows });
  expect(await lines('tka_mesh_members')).toEqual([]);
  rows = members;
  expect(await lines('tka_mesh_members')).toEqual([
    'tka_mesh_members{state="healthy"} 1',
    'tka_mesh_members{state="suspected"} 1',
    'tka_mesh_members{state="dead"} 1',
  ]);
  rows = members.slice(0, 1);
  expect(await lines('tka_mesh_members')).toContain('tka_mesh_members{state="dead"} 0');
});

test('the controller: passes, sessions, leadership, broken watches', async () => {
  let sessions = new Map([
    ['view', 2],
    ['say "hi"\n', 1],
  ]);
  let leading = false;
  const metrics = await watched({ sessions: () => sessions, leading: () => leading });
  const path = '/metrics/controller';
  expect(await lines('controller_runtime_reconcile_errors_total', path)).toEqual([
    'controller_runtime_reconcile_errors_total{controller="tkasignin"} 0',
  ]);
  const pass = { name: 'tka-user-alice', namespace: 'tka-system', ms: 20, failed: false, signedIn: undefined };
  metrics.reconcile(pass);
  metrics.reconcile({ ...pass, signedIn: { username: 'alice', role: 'view' } });
  metrics.reconcile({ ...pass, failed: true });
  metrics.watchBroke();
  leading = true;
  expect(await lines('controller_runtime_reconcile_total', path)).toEqual([
    'controller_runtime_reconcile_total{controller="tkasignin",result="success"} 2',
    'controller_runtime_reconcile_total{controller="tkasignin",result="error"} 1',
  ]);
  expect(await lines('tka_reconciler_duration_sum', path)).toEqual([
    'tka_reconciler_duration_sum{reconciler="tkasignin",namespace="tka-system"} 60000',
  ]);
  expect(await lines('tka_user_signins_total', path)).toEqual(['tka_user_signins_total{cluster_role="view"} 1']);
  expect(await lines('tka_watch_errors_total', path)).toEqual(['tka_watch_errors_total 1']);
  expect(await lines('tka_active_user_sessions', path)).toEqual([
    'tka_active_user_sessions{cluster_role="view"} 2',
    'tka_active_user_sessions{cluster_role="say \\"hi\\""} 1',
  ]);
  expect(await lines('leader_election_master_status', path)).toEqual([
    'leader_election_master_status{name="controller.tka.specht-labs.de"} 1',
  ]);
  sessions = new Map();
  expect(await lines('tka_active_user_sessions', path)).toEqual([]);
  expect((await get(path)).body).not.toContain('alice');
});

test('the health port', async () => {
  await watched();
  expect(await get('/healthz')).toMatchObject({ status: 200, body: '{"status":"ok"}' });
  expect((await get('/ready')).status).toBe(200);
  unready = 'the server stops';
  expect(await get('/ready')).toMatchObject({
    status: 503,
    body: '{"status":"not ready","reason":"the server stops"}',
  });
  expect((await get('/healthz')).status).toBe(200);
  expect(await get('/metrics', 'HEAD')).toMatchObject({ status: 200, body: '' });
  expect(await lines('process_resident_memory_bytes')).toHaveLength(1);
  expect(await lines('tka_server_info')).toEqual(['tka_server_info{version="1.2.3"} 1']);
  for (const [method, path, status] of [
    ['POST', '/metrics', 405],
    ['GET', '/metrics/', 404],
    ['GET', `${api}/login`, 404],
  ] as const) {
    expect((await get(path, method)).status).toBe(status);
  }
});

test('metrics that cannot be had are an error without a story', async () => {
  await watched({
    members() {
      throw new Error('secret');
    },
  });
  expect(await get('/metrics')).toMatchObject({ status: 500, body: '{"message":"internal error"}' });
});
