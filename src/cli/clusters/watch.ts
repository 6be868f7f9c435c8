import { writeAll } from '../../credential/entry.ts';
import type { Cluster } from '../../discovery/clusters.ts';
import { cell, type OutputFormat, structured, TableLines } from '../../terminal/output.ts';
import { clearProgress } from '../../terminal/progress.ts';
import { systemCode } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { type Feed, feedClusters } from './feed.ts';
import {
  connectionProbes,
  probeAll,
  probeBudget,
  probeOf,
  probeTargets,
  type ServerProbe,
  serversToProbe,
} from './probe.ts';
import { type Columns, cellsOf, headingsOf, type Listed, lister, substanceOf, withProbe } from './rows.ts';

/** Milliseconds between the starts of two polls. */
const interval = 2000;

interface WatchOptions {
  readonly matches: (labels: Cluster['labels']) => boolean;
  readonly columns: Columns;
  readonly format: OutputFormat;
  /** False with --no-headers. */
  readonly headers: boolean | undefined;
}

/**
 * Runs `clusters --watch`, like `kubectl get --watch`: prints all clusters once, then each changed one as a line or a
 * document. Prints new messages about the list to stderr. Ends on a signal, or when stdout is closed.
 */
export async function watchClusters(context: Context, options: WatchOptions): Promise<void> {
  const changes = new Changes(options);
  const remarks = new Remarks(context);
  await feedClusters(context, interval, async (feed) => {
    const chosen = feed.clusters.filter((cluster) => options.matches(cluster.labels));
    remarks.say(feed, chosen.length);
    if (options.columns.probe) await probe(context, feed, chosen, changes);
    else await changes.show(chosen.map(lister(context, feed)));
    await changes.leave(chosen);
    return !changes.closed;
  });
}

/**
 * Probes all servers and shows each cluster as soon as its servers have answered; on the first run, shows all at once.
 */
async function probe(context: Context, feed: Feed, chosen: readonly Cluster[], changes: Changes): Promise<void> {
  const list = lister(context, feed);
  const rows = chosen.map((cluster) => ({ cluster, servers: serversToProbe(cluster), listed: list(cluster) }));
  const isFirst = changes.isEmpty;
  const show = (some: typeof rows, found: ReadonlyMap<string, ServerProbe>) =>
    changes.show(some.map(({ cluster, listed }) => withProbe(listed, probeOf(cluster, found))));
  let shown = Promise.resolve();
  const found = await probeAll(probeTargets(chosen), {
    open: connectionProbes(context),
    budget: probeBudget,
    onDone: (answers, server) => {
      if (isFirst) return;
      const done = rows.filter(({ servers }) => servers.includes(server) && servers.every((each) => answers.has(each)));
      shown = shown.then(() => show(done, answers));
    },
  });
  await shown;
  // Clusters whose servers were not reached in time stay as they were.
  await show(
    rows.filter(({ servers }) => isFirst || servers.every((server) => found.has(server))),
    found,
  );
}

const keyOf = ({ name, apiEndpoint }: Pick<Cluster, 'name' | 'apiEndpoint'>) => `${name} ${apiEndpoint}`;

/** Remembers what was last printed for each cluster, and prints only differences. */
class Changes {
  /** True once the reader of stdout is gone. */
  closed = false;
  readonly #printed = new Map<string, { readonly row: Listed; readonly substance: string }>();
  readonly #options: WatchOptions;
  readonly #lines: TableLines;
  #isFirst = true;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#lines = new TableLines(headingsOf(options.columns), { showsHeadings: options.headers });
  }

  /** True until something is printed. */
  get isEmpty(): boolean {
    return this.#printed.size === 0;
  }

  /** Prints the rows that are new or have changed. */
  async show(rows: readonly Listed[]): Promise<void> {
    const changed = rows.filter((row) => {
      const substance = JSON.stringify(substanceOf(row, this.#options.format));
      const key = keyOf(row.row);
      if (this.#printed.get(key)?.substance === substance) return false;
      this.#printed.set(key, { row, substance });
      return true;
    });
    await this.#print(changed);
  }

  /** Prints clusters that have left the list one last time, as missing. */
  async leave(clusters: readonly Cluster[]): Promise<void> {
    const here = new Set(clusters.map(keyOf));
    const gone = [...this.#printed].filter(([key]) => !here.has(key));
    for (const [key] of gone) this.#printed.delete(key);
    await this.#print(
      gone.map(([, { row }]): Listed => {
        return { ...row, row: { ...row.row, state: 'missing', reason: 'no longer in this list' } };
      }),
    );
  }

  async #print(rows: readonly Listed[]): Promise<void> {
    if (rows.length === 0 || this.closed) return;
    const text = await this.#textOf(rows);
    clearProgress();
    try {
      writeAll(1, text);
    } catch (error) {
      if (systemCode(error) !== 'EPIPE') throw error;
      // The reader has closed the pipe, as in `kubectl get -w | head`.
      this.closed = true;
    }
  }

  async #textOf(rows: readonly Listed[]): Promise<string> {
    const { format, columns } = this.#options;
    if (format === 'name') return rows.map(({ row }) => `${cell(row.name)}\n`).join('');
    if (format === 'table' || format === 'wide') return this.#lines.add(rows.map((row) => cellsOf(row, columns)));
    const documents: string[] = [];
    for (const { row } of rows) {
      // YAML separates documents with this line.
      if (format === 'yaml' && !this.#isFirst) documents.push('---\n');
      documents.push(await structured(format, row));
      this.#isFirst = false;
    }
    return documents.join('');
  }
}

/** Prints messages about the list to stderr whenever they change. */
class Remarks {
  readonly #terminal: Context['terminal'];
  #said = '';
  #wasStale = false;

  constructor({ terminal }: Context) {
    this.#terminal = terminal;
  }

  say({ clusters, stale, remarks }: Feed, chosen: number): void {
    const { notice, warn } = this.#terminal;
    const empty = clusters.length === 0 ? 'no clusters found' : 'no cluster matches the selector';
    const lines = [...remarks, ...(chosen === 0 ? [empty] : [])];
    // A changed age alone does not make a message new.
    const key = lines.join('\n').replace(/\b\w+ ago\b/g, '');
    if (key !== this.#said) {
      for (const line of lines) {
        const [, problem] = /^(?:error|warning): (.*)$/s.exec(line) ?? [];
        if (problem === undefined) notice(line);
        else warn(problem);
      }
    }
    if (this.#wasStale && !stale) notice('the list is up to date again');
    this.#said = key;
    this.#wasStale = stale;
  }
}
