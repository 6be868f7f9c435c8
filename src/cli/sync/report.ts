import type { Cluster } from '../../discovery/clusters.ts';
import { messageAfterName } from '../../discovery/clusters.ts';
import { painter } from '../../terminal/colour.ts';
import { cell } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import { placeOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { sayInShell } from '../contexts/in-shell.ts';
import type { ContextsByCluster } from '../target/contexts.ts';
import type { SyncProblem } from './plan.ts';
import type { WrittenSync } from './write.ts';

const mostNames = 20;
const mostHints = 8;
/** A list can hold ten thousand members that never answer. */
const mostLines = 100;
/** Clusters with the same problem share a line if they are at least so many. */
const fewestAlike = 4;

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
  /** The managed contexts of all clusters before the sync. */
  readonly before: ContextsByCluster;
  /** With `plan` and `diff`, nothing was written. */
  readonly shows: 'result' | 'plan' | 'diff';
}

/**
 * Prints the result of a sync: the summary, the plan or the diff on stdout, the rest on stderr. Returns the final error
 * if a cluster could not be synced.
 */
export function reportSync(context: Context, report: SyncReport): TkaError | undefined {
  const { terminal, settings } = context;
  const { written, chosen, problems, shows } = report;
  const { plan } = written;
  for (const notice of plan.notices) terminal.notice(notice);
  const hint = (text: string) => settings.quiet || terminal.hint(text);
  for (const text of plan.hints.slice(0, mostHints)) hint(text);
  const kept = sayProblems(context, report);
  if (plan.spared.length > 0) {
    const names = listed(plan.spared.map(({ name }) => name));
    terminal.notice(`not removed, because no known memberlist has listed their servers: ${names}`);
    hint('to remove one: kubectl tka forget NAME');
  }

  if (shows === 'result') {
    const summary = summaryOf(written, kept, problems.length > 0);
    if (!settings.quiet && summary !== '') terminal.out(`${summary}\n`);
    sayInShell(context);
    if (written.previousContext !== undefined && written.currentContext === undefined) {
      terminal.notice(`no current context any more (was "${written.previousContext}")`);
      hint('kubectl config use-context NAME');
    }
  } else {
    if (shows === 'plan') terminal.outPainted(planText(written, kept, `${problems.length} of ${chosen.length}`));
    else terminal.out(written.diff);
    terminal.notice('dry run: nothing is written');
  }
  const failed = problems.filter(({ expected }) => !expected);
  if (failed.length === 0) return undefined;
  const names = [...new Set(failed.map(({ cluster }) => cluster.name))];
  const hints = new Set(failed.flatMap(({ error }) => error.hints));
  return new TkaError(`${failed.length} of ${chosen.length} clusters could not be synced: ${listed(names)}`, {
    hints: [...hints].slice(0, mostHints),
  });
}

/**
 * Prints why clusters could not be synced, and what became of their contexts. Clusters with the same reason share a
 * line. Returns the contexts that stay as they are.
 */
function sayProblems({ terminal }: Context, { problems, before, written }: SyncReport): string[] {
  const contextsOf = contextsBy(before);
  const removed = new Set(written.plan.pruned.map(({ name }) => name));
  const all = problems.map(({ cluster, error }) => {
    const names = contextsOf(cluster).filter((name) => !removed.has(name));
    const message = messageAfterName(error);
    // Without the servers' addresses, many failures are the same.
    const servers = [cluster.server, ...cluster.servers.map(({ server }) => server)].filter((each) => each !== null);
    const reason = servers
      .flatMap((server) => [placeOf(server), server])
      .reduce((text, place) => text.replaceAll(place, 'its TKA server'), message);
    return { name: cluster.name, names, message, reason };
  });
  const groups = Map.groupBy(all, ({ reason, names }) => `${names.length > 0} ${reason}`).values();
  const lines = [...groups].flatMap((alike) => {
    const [first] = alike;
    if (first !== undefined && alike.length >= fewestAlike) {
      const what = first.names.length === 0 ? 'no contexts are written' : 'their contexts are unchanged';
      return [`${alike.length} clusters: ${first.reason}; ${what}: ${listed(alike.map(({ name }) => name))}`];
    }
    return alike.map(({ name, names, message }) => {
      const what = names.length === 0 ? 'no context is written' : `context ${listed(names)} is unchanged`;
      return `${name}: ${message}; ${what}`;
    });
  });
  for (const line of lines.slice(0, mostLines)) terminal.warn(line);
  if (lines.length > mostLines) terminal.warn(`and ${lines.length - mostLines} more`);
  return [...new Set(all.flatMap(({ names }) => names))];
}

/** Returns a plan for people, one line per change and a summary. `failed`: `57 of 60` clusters could not be asked. */
function planText({ plan, changedFiles }: WrittenSync, kept: readonly string[], failed: string): string {
  const paint = painter(1);
  const endpoints = new Map(plan.change.upsert.map(({ name, apiServer }) => [name, apiServer]));
  const mark = (sign: '+' | '~' | '-', text: string) => `${paint(signStyles[sign], sign)} ${cell(text)}`;
  const accessLines = (name: string) =>
    (plan.changes.get(name) ?? []).map(({ what, from, to }) =>
      mark('~', `${what === 'API server' ? 'endpoint' : what} ${name}: ${from} → ${to}`),
    );
  const lines = [
    ...plan.added.map((name) => mark('+', `add ${name} (${endpoints.get(name)})`)),
    ...plan.renamed.flatMap(({ from, to }) => [mark('~', `rename ${from} → ${to}`), ...accessLines(to)]),
    ...plan.updated.flatMap((name) => {
      const access = accessLines(name);
      return access.length > 0 ? access : [mark('~', `update ${name}: how kubectl calls this program`)];
    }),
    ...plan.pruned.map(({ name }) => mark('-', `remove ${name}`)),
  ];
  if (lines.length === 0 && changedFiles.length > 0) lines.push(mark('~', 'repair details of managed entries'));
  const counts: [number, string][] = [
    [plan.added.length, 'to add'],
    [plan.renamed.length, 'to rename'],
    [plan.updated.length, 'to update'],
    [plan.pruned.length, 'to remove'],
    [plan.unchanged.length, 'unchanged'],
    [kept.length, 'kept unchanged'],
  ];
  const said = counts.flatMap(([count, what]) => (count === 0 ? [] : [`${count} ${what}`]));
  const isComplete = failed.startsWith('0 ');
  const nothing = isComplete && lines.length === 0 ? 'nothing to do' : 'no context changes';
  const failures = isComplete ? '' : `; ${failed} clusters failed`;
  return `${[...lines, `Plan: ${said.join(', ') || nothing}${failures}.`].join('\n')}\n`;
}

const signStyles = { '+': 'green', '~': 'yellow', '-': 'red' } as const;

/**
 * Returns a function that names the contexts of a cluster. It may have another of its servers than in `contexts`, as
 * that of an answer does.
 */
function contextsBy(contexts: ContextsByCluster): (cluster: Cluster) => string[] {
  const byServer = new Map(
    [...contexts].flatMap(([{ servers }, ours]) => servers.map(({ server }) => [server, ours] as const)),
  );
  return (cluster) => {
    const ours = contexts.get(cluster) ?? (cluster.server === null ? undefined : byServer.get(cluster.server));
    return (ours ?? []).map(({ name }) => name);
  };
}

function summaryOf({ plan, changedFiles }: WrittenSync, kept: readonly string[], isIncomplete: boolean): string {
  const parts: [readonly string[], string][] = [
    [plan.added, 'added'],
    [plan.renamed.map(({ from, to }) => `${from} to ${to}`), 'renamed'],
    [plan.updated, 'updated'],
    [plan.pruned.map(({ name }) => name), 'removed'],
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
