import type { Cluster } from '../../discovery/clusters.ts';
import { messageAfterName } from '../../discovery/clusters.ts';
import type { OurContext } from '../../kubeconfig/index.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import type { SyncProblem } from './plan.ts';
import type { WrittenSync } from './write.ts';

const mostNames = 20;
const mostHints = 8;
/** A list can hold ten thousand members that never answer. */
const mostLines = 100;

/** Returns `a, b, c`, with a count instead of the names beyond twenty. */
export function listed(names: readonly string[]): string {
  const more = names.length - mostNames;
  return names.slice(0, mostNames).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

export interface SyncReport {
  readonly written: WrittenSync;
  /** All clusters to sync. */
  readonly chosen: readonly Cluster[];
  readonly problems: readonly SyncProblem[];
  /** The managed contexts before the sync. */
  readonly before: readonly OurContext[];
  readonly dryRun: boolean;
}

/**
 * Prints the result of a sync: the diff or the summary on stdout, the rest on stderr. Returns the final error if a
 * cluster could not be synced.
 */
export function reportSync(context: Context, report: SyncReport): TkaError | undefined {
  const { terminal, settings } = context;
  const { written, chosen, problems, dryRun } = report;
  const { plan } = written;
  for (const notice of plan.notices) terminal.notice(notice);
  const hint = (text: string) => settings.quiet || terminal.hint(text);
  for (const text of plan.hints.slice(0, mostHints)) hint(text);
  const kept = new Set<string>();
  const contextsOf = contextsBy(report.before);
  for (const [i, { cluster, error }] of problems.entries()) {
    const names = contextsOf(cluster);
    for (const name of names) kept.add(name);
    if (i >= mostLines) continue;
    const what = names.length === 0 ? 'no context is written' : `context ${listed(names)} is unchanged`;
    terminal.warn(`${cluster.name}: ${messageAfterName(error)}; ${what}`);
  }
  if (problems.length > mostLines) terminal.warn(`and ${problems.length - mostLines} more`);
  if (plan.spared.length > 0) {
    const names = listed(plan.spared.map(({ name }) => name));
    terminal.notice(`not pruned, because no known memberlist has listed their servers: ${names}`);
    hint('to remove one: kubectl tka forget NAME');
  }

  const failed = problems.filter(({ expected }) => !expected);
  const summary = summaryOf(written, [...kept], failed.length > 0);
  if (dryRun) {
    terminal.out(written.diff);
    terminal.notice(`dry run: nothing is written${summary === '' ? '' : `: ${summary}`}`);
  } else {
    if (!settings.quiet && summary !== '') terminal.out(`${summary}\n`);
    if (written.previousContext !== undefined && written.currentContext === undefined) {
      terminal.notice(`no current context any more (was "${written.previousContext}")`);
      hint('kubectl config use-context NAME');
    }
  }
  if (failed.length === 0) return undefined;
  const names = [...new Set(failed.map(({ cluster }) => cluster.name))];
  const hints = new Set(failed.flatMap(({ error }) => error.hints));
  return new TkaError(`${failed.length} of ${chosen.length} clusters could not be synced: ${listed(names)}`, {
    hints: [...hints].slice(0, mostHints),
  });
}

function contextsBy(ours: readonly OurContext[]): (cluster: Cluster) => string[] {
  const byServer = Map.groupBy(ours, ({ server }) => server);
  const byEndpoint = Map.groupBy(ours, ({ apiServer }) => apiServer);
  return ({ server, servers, apiEndpoint }) => {
    const all = new Set([server, ...servers.map((each) => each.server)]);
    const own = [...all].flatMap((each) => byServer.get(each ?? '') ?? []);
    return (own.length > 0 ? own : (byEndpoint.get(apiEndpoint) ?? [])).map(({ name }) => name);
  };
}

function summaryOf({ plan, changedFiles }: WrittenSync, kept: readonly string[], isIncomplete: boolean): string {
  const parts: [readonly string[], string][] = [
    [plan.added, 'added'],
    [plan.renamed.map(({ from, to }) => `${from} to ${to}`), 'renamed'],
    [plan.updated, 'updated'],
    [plan.pruned.map(({ name }) => name), 'pruned'],
    [kept, 'kept unchanged'],
  ];
  const said = parts.flatMap(([names, what]) =>
    names.length === 0 ? [] : [`${names.length} ${what}: ${listed(names)}.`],
  );
  const counted = said.length - (kept.length > 0 ? 1 : 0);
  const { length } = plan.unchanged;
  // The change can be outside the contexts, for instance in an exec user that was edited by hand.
  const mended = counted === 0 && changedFiles.length > 0 ? `, except for details that were repaired` : '';
  if (length > 0) said.push(`${length} unchanged${mended}.`);
  return said.length === 0 && !isIncomplete ? 'Nothing to do.' : said.join(' ');
}
