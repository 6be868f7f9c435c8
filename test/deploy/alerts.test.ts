// Tests the alerts with promtool: each fires when it should, and none fires without a problem.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { testFolder } from '../fixtures/temporary.ts';
import { deploy } from './render.ts';

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: Readonly<Record<string, string>>;
}

const { spec } = parse(fs.readFileSync(path.join(deploy, 'chart/files/monitoring/rules.yaml'), 'utf8'));
const alerts: readonly Alert[] = spec.groups.flatMap(({ rules }: { rules: Alert[] }) => rules);
const noPromtool = spawnSync('promtool', ['--version']).status === 0 ? undefined : 'no promtool';

const minutes = 180;
/** The values of a series, one for each minute. */
type Values = string;
const always = (value: number | string): Values => `${value}x${minutes}`;
/** A value until a minute, then another one. */
const from = (minute: number, before: number, after: number): Values =>
  `${before}x${minute - 1} ${after}x${minutes - minute}`;
/** A value, except for some minutes in which the server is not scraped. */
const without = (minute: number, length: number, value: number): Values =>
  `${value}x${minute - 1} stale ${length > 1 ? `_x${length - 2} ` : ''}${value}x${minutes - minute - length}`;
/** Up, except for some minutes. */
const down = (minute: number, length: number): Values =>
  `1x${minute - 1} 0x${length - 1} 1x${minutes - minute - length}`;
/** A counter that grows by `perMinute`; by `then` from a minute on. */
const growing = (perMinute: number, minute = minutes, then = perMinute): Values =>
  minute === minutes
    ? `0+${perMinute}x${minutes}`
    : `0+${perMinute}x${minute} ${perMinute * minute + then}+${then}x${minutes - minute - 1}`;

type Series = Record<string, Values>;

const server = (pod: string) => `namespace="tka-system",pod="${pod}"`;
const lease = 'name="controller.tka.specht-labs.de"';

/** Returns the series of these pods without a problem, with the given changes. */
function wellWith(pods: readonly string[], change: Series = {}): Series {
  const series: Series = {};
  for (const pod of pods) {
    const target = (path: string) => `job="tka-server",metrics_path="${path}",${server(pod)}`;
    const [api, controller] = [target('/metrics'), target('/metrics/controller')];
    Object.assign(series, {
      [`up{${api}}`]: always(1),
      [`up{${controller}}`]: always(1),
      [`tka_server_ready{${api}}`]: always(1),
      [`kube_pod_status_ready{condition="true",${server(pod)}}`]: always(1),
      [`kube_pod_status_ready{condition="false",${server(pod)}}`]: always(0),
      [`tka_server_requests_total{status="200",${api}}`]: growing(60),
      [`tka_sign_ins_refused_total{reason="no_grant",${api}}`]: growing(1),
      [`tka_sign_ins_refused_total{reason="error",${api}}`]: growing(0),
      [`tka_certificate_expiry_timestamp_seconds{${api}}`]: always(60 * 86_400),
      [`process_resident_memory_bytes{${api}}`]: always(150e6),
      [`tka_memory_limit_bytes{${api}}`]: always(512e6),
      [`leader_election_master_status{${lease},${controller}}`]: always(pod === pods[0] ? 1 : 0),
      [`tka_go_server_leading{${controller}}`]: always(0),
      [`tka_sign_ins_failing{${controller}}`]: always(0),
    });
    for (const resource of ['tkasignins', 'serviceaccounts', 'clusterrolebindings'])
      series[`tka_watch_connected{resource="${resource}",${controller}}`] = always(1);
    for (const [state, count] of [
      ['healthy', 4],
      ['suspected', 0],
      ['dead', 0],
      ['left', 1],
    ] as const)
      series[`tka_mesh_members{state="${state}",${api}}`] = always(count);
  }
  return { ...series, ...change };
}

/** Returns the same values for each series whose text matches. */
function where(series: Series, pattern: RegExp, values: Values): Series {
  const found = Object.keys(series).filter((name) => pattern.test(name));
  if (found.length === 0) throw new Error(`no series matches ${pattern}`);
  return { ...series, ...Object.fromEntries(found.map((name) => [name, values])) };
}

const lacking = (series: Series, pattern: RegExp): Series =>
  Object.fromEntries(Object.entries(series).filter(([name]) => !pattern.test(name)));

/** Returns the series of a pod that is replaced: absent, and not ready, for some minutes. */
function restarted(series: Series, pod: string, minute: number, length: number): Series {
  let changed = where(series, new RegExp(`^(?!up\\{|kube_).*"${pod}"`), '');
  for (const name of Object.keys(changed)) {
    const [, before = '', first = '0'] = /^((\d+)x\d+|\d.*)$/.exec(series[name] ?? '') ?? [];
    if (changed[name] !== '') continue;
    const isCounter = before.includes('+');
    // A counter starts again.
    changed[name] = isCounter
      ? `${before.split('x')[0]}x${minute - 1} stale _x${length - 2} ${growing(0)}`
      : without(minute, length, Number(first));
  }
  changed = where(changed, new RegExp(`^up\\{.*"${pod}"`), down(minute, length));
  return where(changed, new RegExp(`^kube_pod_status_ready\\{condition="true".*"${pod}"`), down(minute, length));
}

const two = ['tka-0', 'tka-1'];

/** Checks with promtool which alerts fire at some time in three hours: name, severity, and subject. */
function fired(series: Series, expected: readonly string[]): string {
  const folder = testFolder();
  fs.writeFileSync(path.join(folder, 'rules.yaml'), stringify(spec));
  const about = 'alertname, severity, pod, resource, reason, state, joined_cluster';
  const test = {
    rule_files: ['rules.yaml'],
    evaluation_interval: '1m',
    tests: [
      {
        interval: '1m',
        input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
        promql_expr_test: [
          {
            expr: `group by (${about}) (max_over_time(ALERTS{alertstate="firing"}[3h]))`,
            eval_time: `${minutes}m`,
            exp_samples: expected.map((labels) => ({ labels: `{${labels}}`, value: 1 })),
          },
        ],
      },
    ],
  };
  fs.writeFileSync(path.join(folder, 'test.yaml'), stringify(test));
  const { stdout, stderr } = spawnSync('promtool', ['test', 'rules', path.join(folder, 'test.yaml')], {
    encoding: 'utf8',
  });
  return `${stdout}${stderr}`.replace(/^Unit Testing: .*\n/, '').trim();
}

const firing = (alert: string, severity: string, about = '') =>
  `alertname="${alert}",severity="${severity}"${about === '' ? '' : `,${about}`}`;

describe.skipIf(noPromtool)(`alerts${noPromtool === undefined ? '' : ` (${noPromtool})`}`, () => {
  it('are valid rules for Prometheus', () => {
    const file = path.join(testFolder(), 'rules.yaml');
    fs.writeFileSync(file, stringify(spec));
    expect(execFileSync('promtool', ['check', 'rules', file], { encoding: 'utf8' })).toContain(
      `SUCCESS: ${alerts.length} rules found`,
    );
  });

  const well = wellWith(two);
  const tunnels = (cluster: string, pod: string, values: Values): Series => ({
    [`tka_federation_cluster_tunnels{joined_cluster="${cluster}",${server(pod)}}`]: values,
  });
  const joins = (outcome: string, values: Values): Series => ({
    [`tka_federation_joins_total{outcome="${outcome}",${server('tka-0')}}`]: values,
  });
  /** A login server with two joined clusters, of which the first is connected to one replica only. */
  const login: Series = {
    ...{ ...well, ...tunnels('a', 'tka-0', always(0)), ...tunnels('a', 'tka-1', always(2)) },
    ...{ ...tunnels('b', 'tka-0', always(1)), ...tunnels('b', 'tka-1', always(1)) },
    ...{ ...joins('joined', always(0)), ...joins('rejected', always(0)) },
  };
  const joinedTo = (first: Values, second: Values): Series => ({
    ...well,
    [`tka_federation_tunnels{${server('tka-0')}}`]: first,
    [`tka_federation_tunnels{${server('tka-1')}}`]: second,
  });
  const meshless = lacking(well, /^tka_mesh_members/);
  const go = where(where(well, /^leader_/, always(0)), /^tka_go_server_leading/, always(1));
  it.each<[string, Series]>([
    ['two replicas', well],
    ['a single replica', wellWith(['tka-0'])],
    ['a server without a mesh, TLS and a memory limit', lacking(meshless, /^tka_(certificate|memory)_/)],
    ['a Prometheus without kube-state-metrics', lacking(well, /^kube_/)],
    [
      'a rolling upgrade of two replicas',
      restarted(where(restarted(well, 'tka-1', 30, 4), /^leader_/, always(1)), 'tka-0', 35, 4),
    ],
    ['a rolling upgrade of a single replica', restarted(wellWith(['tka-0']), 'tka-0', 30, 4)],
    [
      'a few errors in a quiet hour',
      {
        ...where(well, /^tka_server_requests_total/, growing(0)),
        'tka_server_requests_total{status="500",namespace="tka-system"}': '0x60 1x60 2x60',
      },
    ],
    ['a Go server that leads', go],
    ['a member that is unreachable for ten minutes', where(well, /^tka_mesh_members\{state="dead"/, `0x60 1x10 0x110`)],
    ['a member that left', where(well, /^tka_mesh_members\{state="left"/, always(7))],
    ['a login server and its joined clusters', login],
    [
      'a joined cluster that is disconnected for nine minutes',
      { ...login, ...tunnels('b', 'tka-1', '1x60 0x8 1x112') },
    ],
    [
      'a joined cluster that is evicted',
      { ...login, ...tunnels('a', 'tka-0', '0x60 stale'), ...tunnels('a', 'tka-1', '2x60 stale') },
    ],
    ['a cluster whose join is rejected', { ...login, ...joins('rejected', from(60, 0, 1)) }],
    ['a joined cluster with tunnels of one replica', joinedTo(always(0), always(2))],
    ['a joined cluster without a tunnel for nine minutes', joinedTo(always(0), '2x60 0x8 2x112')],
    ['users without a grant who try as often as usual', where(well, /^tka_sign_ins_refused.*no_grant/, growing(5))],
    [
      'another program’s lease without a holder',
      { ...well, 'leader_election_master_status{name="x",job="tka-server"}': always(0) },
    ],
  ])('no alert fires: %s', (_, series) => {
    expect(fired(series, [])).toBe('SUCCESS');
  });

  const allDown = two.reduce((series, pod) => restarted(series, pod, 60, 30), well);
  const unready = (pod: string) => new RegExp(`^tka_server_ready\\{.*"${pod}"`);
  const notWatching = firing('TKAWatchNotConnected', 'warning', 'pod="tka-1",resource="serviceaccounts"');
  it.each<[string, Series, string[]]>([
    [
      'all replicas are down',
      allDown,
      [
        firing('TKAServerDown', 'critical'),
        ...two.map((pod) => firing('TKAServerReplicaDown', 'warning', `pod="${pod}"`)),
      ],
    ],
    ['nothing is scraped', {}, [firing('TKAServerDown', 'critical')]],
    [
      'all replicas answer and none is ready',
      where(well, /^tka_server_ready/, from(60, 1, 0)),
      [
        firing('TKAServerDown', 'critical'),
        ...two.map((pod) => firing('TKAServerReplicaDown', 'warning', `pod="${pod}"`)),
      ],
    ],
    [
      'one replica is down',
      restarted(well, 'tka-1', 60, 30),
      [firing('TKAServerReplicaDown', 'warning', 'pod="tka-1"')],
    ],
    [
      'one replica is not ready',
      where(well, unready('tka-1'), from(60, 1, 0)),
      [firing('TKAServerReplicaDown', 'warning', 'pod="tka-1"')],
    ],
    [
      'one pod has no address',
      where(lacking(well, /^(?!kube_).*"tka-1"/), /^kube_pod_status_ready\{condition="true".*"tka-1"/, from(60, 1, 0)),
      [firing('TKAServerReplicaDown', 'warning', 'pod="tka-1"')],
    ],
    [
      'one request of ten fails',
      { ...well, 'tka_server_requests_total{status="500",namespace="tka-system"}': growing(0, 60, 15) },
      [firing('TKAHighErrorRate', 'warning')],
    ],
    ['there is no leader', where(well, /^leader_/, from(60, 1, 0)), [firing('TKANoLeader', 'critical')]],
    [
      'a watch is broken',
      where(well, /^tka_watch_connected\{resource="serviceaccounts".*"tka-1"/, from(60, 1, 0)),
      [notWatching],
    ],
    [
      'a sign-in fails repeatedly',
      where(well, /^tka_sign_ins_failing.*"tka-0"/, from(60, 0, 2)),
      [firing('TKAReconcileFailing', 'warning')],
    ],
    [
      'ten times more refusals than usual',
      where(well, /^tka_sign_ins_refused.*no_grant/, growing(1, 140, 10)),
      [firing('TKASignInsRefused', 'warning', 'reason="no_grant"')],
    ],
    [
      'a member is dead',
      where(well, /^tka_mesh_members\{state="dead".*"tka-0"/, from(60, 0, 1)),
      [firing('TKAMeshMemberDown', 'warning', 'state="dead"')],
    ],
    [
      'a member stays suspected',
      where(well, /^tka_mesh_members\{state="suspected".*"tka-0"/, from(60, 0, 1)),
      [firing('TKAMeshMemberDown', 'warning', 'state="suspected"')],
    ],
    [
      'a joined cluster is disconnected',
      { ...login, ...tunnels('a', 'tka-1', from(60, 2, 0)) },
      [firing('TKAJoinedClusterDisconnected', 'warning', 'joined_cluster="a"')],
    ],
    ['a cluster joins', { ...login, ...joins('joined', from(60, 0, 1)) }, [firing('TKAClusterJoined', 'info')]],
    [
      'a joined cluster has no tunnel to its login server',
      joinedTo(from(60, 2, 0), always(0)),
      [firing('TKALoginServerDisconnected', 'warning')],
    ],
    [
      'a certificate ends in six days',
      where(well, /^tka_certificate.*"tka-1"/, always(6 * 86_400)),
      [firing('TKACertificateExpiring', 'warning', 'pod="tka-1"')],
    ],
    [
      'a certificate ends today',
      where(well, /^tka_certificate.*"tka-1"/, always(20 * 3_600)),
      ['warning', 'critical'].map((severity) => firing('TKACertificateExpiring', severity, 'pod="tka-1"')),
    ],
    [
      'memory use is near the limit',
      where(well, /^process_resident.*"tka-1"/, from(60, 150e6, 480e6)),
      [firing('TKAMemoryNearLimit', 'warning', 'pod="tka-1"')],
    ],
  ])('the alert fires: %s', (_, series, expected) => {
    expect(fired(series, expected)).toBe('SUCCESS');
  });

  it('a wrong expectation fails', () => {
    expect(fired(well, [firing('TKANoLeader', 'critical')])).toContain('FAILED');
    expect(fired(allDown, [])).toContain('FAILED');
  });
});

describe('runbooks', () => {
  const page = 'docs/runbooks/README.md';
  const text = fs.readFileSync(path.join(deploy, '..', page), 'utf8');
  const sections = text.split(/^## /m).slice(1);
  const titles = sections.map((section) => section.split('\n', 1)[0] ?? '').filter((title) => title.startsWith('TKA'));
  const names = [...new Set(alerts.map(({ alert }) => alert))];

  it('exist for each alert, and for nothing else', () => {
    expect(titles).toEqual(names);
    const overview = fs.readFileSync(path.join(deploy, '../docs/monitoring.md'), 'utf8');
    expect([...overview.matchAll(/^\| \[(\w+)\]\(runbooks/gm)].map(([, name]) => name)).toEqual(names);
  });

  it.each(alerts)('$alert has a severity, a meaning and a link to its runbook', ({ alert, labels, annotations }) => {
    expect(labels.severity).toMatch(/^(?:critical|warning|info)$/);
    const { summary, description, runbook_url: url, ...others } = annotations;
    expect(others).toEqual({});
    expect(summary).toMatch(/\S/);
    expect(description).toMatch(/\.$/);
    const homepage = JSON.parse(fs.readFileSync(path.join(deploy, '../package.json'), 'utf8')).homepage;
    expect(url).toBe(`${homepage}/blob/main/${page}#${alert.toLowerCase()}`);
  });

  it.each(names)('%s: what it means, what people notice, how to find the cause, how to fix it', (name) => {
    const section = sections.find((one) => one.startsWith(`${name}\n`)) ?? '';
    const parts = [...section.matchAll(/^\*\*(.+?)\*\*/gm)].map(([, title]) => title);
    expect(parts).toEqual(['Meaning.', 'Effect on users.', 'Find the cause.', 'Fix it.']);
    expect(section).toMatch(/```sh\n/);
  });
});
