// Checks that the dashboard is valid for Grafana and describes its panels. test/server/exported.test.ts checks its
// metrics.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Ajv } from 'ajv';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { testFolder } from '../fixtures/temporary.ts';
import { namesIn } from './promql.ts';
import { deploy } from './render.ts';

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly datasource?: { readonly uid: string };
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[];
}

const file = path.join(deploy, 'chart/files/monitoring/dashboard.json');
const dashboard = JSON.parse(fs.readFileSync(file, 'utf8'));
const panels: readonly Panel[] = dashboard.panels;
const shown = panels.filter(({ type }) => type !== 'row');
const noPromtool = spawnSync('promtool', ['--version']).status === 0 ? undefined : 'no promtool';

describe('the dashboard', () => {
  it('is valid for Grafana', () => {
    const schema = JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'grafana-dashboard.schema.json'), 'utf8'));
    const valid = new Ajv({ allErrors: true, strict: false }).compile(schema);
    expect(valid(dashboard), JSON.stringify(valid.errors)).toBe(true);
    expect(valid({ ...dashboard, panels: [{ ...panels[1], gridPos: 'left' }] })).toBe(false);
  });

  it('lets users choose the data source, clusters, namespaces and instances', () => {
    const variables: readonly { name: string; type: string; allValue?: string }[] = dashboard.templating.list;
    expect(variables.map(({ name }) => name)).toEqual(['datasource', 'cluster', 'namespace', 'instance']);
    // `.*` also matches a missing label: most Prometheus servers add no cluster.
    for (const { allValue } of variables.slice(1)) expect(allValue).toBe('.*');
    const sources = shown.flatMap(({ datasource, targets = [] }) => [datasource, ...targets.map((t) => t.datasource)]);
    for (const source of sources) expect(source?.uid).toMatch(/^\$\{datasource\}$/);
  });

  it('has rows by subject, and each panel has a description and a unit', () => {
    expect(panels.filter(({ type }) => type === 'row').map(({ title }) => title)).toEqual([
      'Overview',
      'API requests',
      'Sign-ins',
      'Reconciliation',
      'Watches on the API server',
      'Mesh and certificate',
      'Federation',
      'Resources',
    ]);
    for (const { title, description, fieldConfig } of shown) {
      expect(description, title).toMatch(/\.$/);
      expect(fieldConfig?.defaults.unit, title).toMatch(/^[a-z]+$/);
    }
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  });

  it('has panels that do not overlap', () => {
    const taken = new Map<string, string>();
    for (const { title, gridPos } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x} ${y}`), title).toBeUndefined();
          taken.set(`${x} ${y}`, title);
        }
    }
  });

  const queries = shown.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const));

  it.each(queries)('%s: %s uses the chosen variables', (_, expr) => {
    for (const { metric, labels } of namesIn(expr).selected)
      expect(labels, metric).toEqual(expect.arrayContaining(['cluster', 'namespace', 'pod']));
  });

  it.skipIf(noPromtool)(`has valid Prometheus queries${noPromtool === undefined ? '' : ` (${noPromtool})`}`, () => {
    const rules = queries.map(([, expr], i) => ({
      record: `query:${i}`,
      expr: expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$(?:cluster|namespace|instance)/g, '.*'),
    }));
    const checked = path.join(testFolder(), 'queries.yaml');
    fs.writeFileSync(checked, stringify({ groups: [{ name: 'queries', rules }] }));
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', checked], { encoding: 'utf8' });
    expect({ status, said: `${stdout}${stderr}` }).toEqual({
      status: 0,
      said: expect.stringContaining(`SUCCESS: ${queries.length} rules found`),
    });
  });
});
