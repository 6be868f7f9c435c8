import { acceptHint } from '../../discovery/trust.ts';
import { readKubeconfig } from '../../kubeconfig/index.ts';
import { type OutputFormat, structured, table } from '../../terminal/output.ts';
import { parseSelector } from '../../util/selector.ts';
import { cellsOf, headingsOf, lister, withProbe } from '../clusters/rows.ts';
import type { Context } from '../context/context.ts';
import { listed } from '../sync/report.ts';
import { listClustersTold } from '../target/clusters.ts';

export interface ClustersFlags {
  readonly selector?: string;
  readonly output?: OutputFormat;
  readonly probe?: boolean;
  readonly watch?: boolean;
  readonly headers?: boolean;
}

/** Runs `clusters`: lists all known clusters; with --watch, until interrupted. */
export async function clusters(context: Context, _: readonly string[], flags: ClustersFlags): Promise<void> {
  const { terminal, settings } = context;
  const matches = parseSelector(flags.selector ?? '');
  const format = flags.output ?? (settings.long ? 'wide' : 'table');
  const columns = { wide: format === 'wide', probe: flags.probe === true && format !== 'name' };
  if (flags.watch === true) {
    return (await import('../clusters/watch.ts')).watchClusters(context, {
      matches,
      columns,
      format,
      headers: flags.headers,
    });
  }
  const { rows, total } = await list(context, matches, columns.probe);
  if (rows.length === 0) terminal.notice(total === 0 ? 'no clusters found' : 'no cluster matches the selector');
  if (format === 'json' || format === 'yaml') {
    const plain = rows.map(({ row }) => row);
    return terminal.out(await structured(format, plain));
  }
  if (format === 'name') return terminal.out(rows.map(({ row }) => `${row.name}\n`).join(''));
  if (rows.length === 0) return;
  const cells = rows.map((row) => cellsOf(row, columns));
  terminal.outPainted(table(headingsOf(columns), cells, { showsHeadings: flags.headers }));
  // One cause can affect every row, so print it once.
  const reasons = Map.groupBy(rows, ({ row }) => row.reason);
  for (const [reason, alike] of reasons)
    if (reason !== null) terminal.notice(`${listed(alike.map(({ row }) => row.name))}: ${reason}`);
  if (rows.some(({ row }) => row.server === null))
    terminal.hint('if you know the host name of the TKA server, use it: kubectl tka login HOST');
  const untrusted = rows.find(({ row }) => row.server !== null && row.reason !== null && row.state !== 'missing');
  if (untrusted?.row.server != null) terminal.hint(acceptHint(untrusted.row.server));
}

async function list(context: Context, matches: ReturnType<typeof parseSelector>, probe: boolean) {
  const view = await readKubeconfig(context.kubeconfig);
  const { clusters: all, at } = await listClustersTold(context, view);
  const chosen = all.filter((cluster) => matches(cluster.labels));
  const rows = chosen.map(lister(context, { clusters: all, view, at }));
  if (!probe) return { rows, total: all.length };
  const { probeClusters } = await import('../clusters/probe.ts');
  const probes = await probeClusters(context, chosen);
  const withProbes = rows.map((row, i) => {
    const probed = probes[i];
    return probed === undefined ? row : withProbe(row, probed);
  });
  return { rows: withProbes, total: all.length };
}
