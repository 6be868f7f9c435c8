import type { Cluster } from '../discovery/clusters.ts';
import { parseSelector } from '../discovery/selector.ts';
import { type KubeconfigView, readKubeconfig } from '../kubeconfig/index.ts';
import { timeLeft } from '../session/store.ts';
import { type OutputFormat, shortDuration, structured, table } from '../terminal.ts';
import type { Context } from './context.ts';
import { allClusters } from './directory.ts';
import { contextOf } from './target.ts';

interface ClustersFlags {
  readonly selector?: string;
  readonly output?: OutputFormat;
}

/** `clusters`: all members that the entry server knows. */
export async function clusters(context: Context, _: readonly string[], flags: ClustersFlags): Promise<void> {
  const { terminal, settings } = context;
  const matches = parseSelector(flags.selector ?? '');
  const view = await readKubeconfig(context.kubeconfig);
  const all = await allClusters(context, view);
  const rows = all.filter((cluster) => matches(cluster.labels)).map((cluster) => rowOf(cluster, context, view));
  const format = flags.output ?? (settings.long ? 'wide' : 'table');
  if (format === 'json' || format === 'yaml') return terminal.out(await structured(format, rows));
  if (format === 'name') return terminal.out(rows.map((row) => `${row.name}\n`).join(''));
  if (rows.length === 0)
    return terminal.notice(all.length === 0 ? 'no clusters found' : 'no cluster matches the selector');
  const cells = rows.map((row) => {
    const session =
      row.session === null ? '-' : `${row.session.username} (${row.session.role}), ${shortDuration(row.left)}`;
    const labels = Object.entries(row.labels).map(([key, value]) => `${key}=${value}`);
    const short = [row.name, row.state, row.context ?? '-', session, labels.join(',') || '-'];
    return format === 'wide' ? [...short, row.server ?? '-', row.apiEndpoint, row.lastSeen ?? '-'] : short;
  });
  const headings = ['NAME', 'STATE', 'CONTEXT', 'SESSION', 'LABELS'];
  terminal.out(table(format === 'wide' ? [...headings, 'TKA SERVER', 'API ENDPOINT', 'LAST SEEN'] : headings, cells));
  for (const row of rows) if (row.reason !== null) terminal.notice(`${row.name}: ${row.reason}`);
}

function rowOf(cluster: Cluster, context: Context, view: KubeconfigView) {
  const { server, apiEndpoint } = cluster;
  const known = server === null ? undefined : context.sessions.store.read(server);
  const left = known === undefined ? 0 : timeLeft(known);
  const session =
    known === undefined || left <= 0 ? null : { username: known.username, role: known.role, until: known.until };
  const byServer = server === null ? undefined : contextOf(view, server);
  const row = {
    name: cluster.name,
    server,
    apiEndpoint,
    state: cluster.state,
    reason: cluster.reason,
    lastSeen: cluster.lastSeen,
    labels: Object.fromEntries(cluster.labels),
    context: (byServer ?? view.ours.find((c) => c.apiServer === apiEndpoint))?.name ?? null,
    session,
  };
  // For people only: not part of what scripts rely on.
  return Object.defineProperty(row as typeof row & { left: number }, 'left', { value: left, enumerable: false });
}
