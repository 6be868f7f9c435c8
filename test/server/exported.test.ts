// Checks that a running server exports what docs/reference/metrics.md lists, and everything that dashboard and alerts
// use.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test as base, describe, expect } from 'vitest';
import { parse } from 'yaml';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { namesIn } from '../deploy/promql.ts';
import { deploy } from '../deploy/render.ts';
import { freePort } from '../fixtures/ports.ts';
import { ask, TkaServerProcess } from './program.ts';
import { StandInApi } from './stand-in-api.ts';

/** The labels of a metric, and its type. */
interface Family {
  readonly type: string;
  readonly labels: Set<string>;
}

type Families = Map<string, Family>;

// These come from kubelet and kube-state-metrics; the others from the server.
const others = new Map([
  ['kube_pod_status_ready', ['condition']],
  ['kube_pod_container_status_restarts_total', []],
  ['container_memory_working_set_bytes', []],
]);
// Labels that Prometheus and its operator add to each series, and that expressions add themselves.
const added = new Set(['cluster', 'namespace', 'pod', 'container', 'job', 'metrics_path', 'statefulset', 'le']);

const scraped = base.extend<{ $file: { readonly families: Families } }>({
  families: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    async ({}, use) => {
      const alice = {
        login: 'alice@example.com',
        capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h', priority: 1 }] },
      };
      const tailscaled = await startTailscaled({ whois: () => alice });
      const api = new StandInApi();
      await api.start();
      const { metadata, spec } = api.put('tka-user-bob');
      const until = new Date(Date.now() + 3_600_000).toISOString();
      const status = { provisioned: true, signed_in: until, valid_until: until };
      api.items = [{ metadata, spec, status }];
      const [port, health, gossip] = [
        await freePort('127.0.0.1'),
        await freePort('127.0.0.1'),
        await freePort('127.0.0.1'),
      ];
      const config = {
        clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
        server: { host: '127.0.0.1' },
        tailscale: { port },
        health: { host: '127.0.0.1', port: health },
        operator: { namespace: 'tka' },
        gossip: { enabled: true, port: gossip, key: 'a shared key of at least 32 characters' },
      };
      const env = { TS_SOCKET: tailscaled.socketPath, KUBECONFIG: api.kubeconfig() };
      const server = new TkaServerProcess(config, env);
      try {
        await server.said(/listens for gossip/);
        await api.watched();
        // Nothing can be created there, so the sign-in fails.
        await ask(`http://127.0.0.1:${port}/api/v1alpha1/login`, { method: 'POST' });
        await server.said(/^request$/);
        const families: Families = new Map();
        for (const where of ['/metrics', '/metrics/controller'])
          read((await ask(`http://127.0.0.1:${health}${where}`)).body, families);
        await use(families);
      } finally {
        await server[Symbol.asyncDispose]();
        api.stop();
        await tailscaled.close();
      }
    },
    { scope: 'file' },
  ],
});

/** Parses Prometheus' text format: each metric with the labels of its samples. */
function read(text: string, into: Families): void {
  for (const [, name = '', type = ''] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm))
    into.set(name, { type, labels: new Set() });
  for (const [, sample = '', labels = ''] of text.matchAll(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$/gm)) {
    const family = familyOf(sample, into);
    if (family === undefined) throw new Error(`a sample of no metric: ${sample}`);
    for (const [, label = ''] of labels.matchAll(/(?:^|,)(\w+)="/g)) family.labels.add(label);
  }
}

/** Returns the metric of a series, which may be part of a histogram. */
function familyOf(series: string, families: Families): Family | undefined {
  const whole = families.get(series);
  if (whole !== undefined) return whole;
  const family = families.get(series.replace(/_(?:bucket|sum|count)$/, ''));
  return family?.type === 'histogram' ? family : undefined;
}

/** Returns what the page lists. */
function listed(): Families {
  const page = fs.readFileSync(path.join(deploy, '../docs/reference/metrics.md'), 'utf8');
  return new Map(
    [...page.matchAll(/^\| `(\S+)` \| (\w+) \| (.*?) \|/gm)].map(([, name = '', type = '', labels = '']) => [
      name,
      { type, labels: new Set([...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label)) },
    ]),
  );
}

const rules: readonly { readonly alert: string; readonly expr: string }[] = parse(
  fs.readFileSync(path.join(deploy, 'chart/files/monitoring/rules.yaml'), 'utf8'),
).spec.groups.flatMap((group: { rules: unknown }) => group.rules);
const dashboard = JSON.parse(fs.readFileSync(path.join(deploy, 'chart/files/monitoring/dashboard.json'), 'utf8'));
const queries: (readonly [string, string])[] = [
  ...rules.map(({ alert, expr }) => [alert, expr] as const),
  ...dashboard.panels.flatMap(({ title, targets = [] }: { title: string; targets?: { expr: string }[] }) =>
    targets.map(({ expr }) => [title, expr] as const),
  ),
  ...dashboard.templating.list.flatMap(({ name, query }: { name: string; query: { query?: string } }) => {
    const [, metric] = /^label_values\((.*), \w+\)$/.exec(query.query ?? '') ?? [];
    return metric === undefined ? [] : [[`$${name}`, metric] as const];
  }),
];

// Other systems report less about a process.
describe.skipIf(process.platform !== 'linux')('metrics', () => {
  scraped('are those that the page lists', ({ families }) => {
    const page = listed();
    const typed = (of: Families) => [...of].map(([name, { type }]) => `${name} ${type}`).sort();
    expect(typed(families)).toEqual(typed(page));
    for (const [name, { labels }] of families)
      for (const label of labels)
        if (label !== 'le') expect([...(page.get(name)?.labels ?? [])], name).toContain(label);
  });

  scraped('of a server have values from the start', ({ families }) => {
    const silent = [...families].filter(([, { labels }]) => labels.size === 0).map(([name]) => name);
    // This server is on neither side of a federation.
    const labelled = [...listed()]
      .filter(([name, { labels }]) => labels.size > 0 && !/^(nodejs|tka_federation)_/.test(name))
      .map(([name]) => name);
    // Counted as they happen, by labels that are not known before.
    expect(labelled.filter((name) => silent.includes(name)).sort()).toEqual([
      'controller_runtime_reconcile_time_seconds',
      'tka_server_identity_failures_total',
      'tka_user_signins_total',
    ]);
  });

  scraped.for(queries)('of "%s" are exported: %s', ([, expr], { families }) => {
    const page = listed();
    const { selected, grouped } = namesIn(expr);
    expect(selected.length).toBeGreaterThan(0);
    const known = new Set(added);
    for (const { metric, labels } of selected) {
      if (metric === 'up') continue;
      const other = others.get(metric);
      const family = other === undefined ? familyOf(metric, families) : undefined;
      expect(other ?? family, metric).toBeDefined();
      const own = [...(other ?? familyOf(metric, page)?.labels ?? [])];
      for (const label of own) known.add(label);
      for (const label of labels) expect([...own, ...added], `${metric}{${label}}`).toContain(label);
    }
    for (const label of grouped) expect([...known], expr).toContain(label);
  });

  scraped('of an expression are found, with their labels', () => {
    const names = (expr: string) => namesIn(expr).selected.map(({ metric }) => metric);
    expect(
      names('sum by (pod) (rate(a_total{x="y{z}"}[5m])) / on (b) group_left (c) d > 7 * 86400 or absent(up)'),
    ).toEqual(['a_total', 'd', 'up']);
    expect(namesIn('a{b="c", d=~"e"} offset 2h').selected).toEqual([{ metric: 'a', labels: ['b', 'd'] }]);
    expect(namesIn('max without (x, y) (a)').grouped).toEqual(['x', 'y']);
  });
});
