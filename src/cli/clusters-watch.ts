import { isatty } from 'node:tty';
import { writeAll } from '../credential/entry.ts';
import type { Cluster } from '../discovery/clusters.ts';
import { probeOf, probeTargets } from '../discovery/probe.ts';
import { systemCode } from '../errors.ts';
import { presentable, table } from '../terminal.ts';
import { type Feed, feedClusters } from './clusters-feed.ts';
import { frameOf } from './clusters-frame.ts';
import { probeConnections } from './clusters-probe.ts';
import { ProbeRounds } from './clusters-rounds.ts';
import { type Columns, cellsOf, headingsOf, type Listed, substanceOf, withProbe } from './clusters-rows.ts';
import { LiveScreen } from './clusters-screen.ts';
import type { Context } from './context.ts';

const interval = 2000;
/** Pictures follow each other no sooner, in milliseconds, however many answers come in. */
const frameTime = 100;
/** Without a terminal, the first table waits so long for the first answers of all probes. */
const firstProbes = 10_000;

interface WatchOptions {
  readonly matches: (labels: Cluster['labels']) => boolean;
  readonly columns: Columns;
}

/** `clusters --watch`: in place on a terminal; elsewhere the table again whenever it has changed. Ends by a signal. */
export async function watchClusters(context: Context, options: WatchOptions): Promise<void> {
  // --debug writes to the same terminal.
  const live = isatty(1) && context.env.TERM !== 'dumb' && !context.settings.debug;
  await (live ? watchLive : watchLog)(context, options);
}

/** The rows of a feed, with what the probes have found so far. */
function rowsOf({ rows }: Feed, rounds: ProbeRounds | undefined): Listed[] {
  return rows.map(({ cluster, listed }) => {
    const answer = rounds?.results.get(cluster.server ?? '');
    if (rounds === undefined || (answer === undefined && cluster.server !== null)) return listed;
    return withProbe(listed, probeOf(cluster, answer));
  });
}

function roundsFor(context: Context, { columns }: WatchOptions, changed: () => void): ProbeRounds | undefined {
  return columns.probe ? new ProbeRounds(probeConnections(context), interval, changed) : undefined;
}

const targetsOf = (feed: Feed) => probeTargets(feed.rows.map(({ cluster }) => cluster));
const emptyWords = ({ all }: Feed) => (all.length === 0 ? 'no clusters found' : 'no cluster matches the selector');

async function watchLive(context: Context, options: WatchOptions): Promise<void> {
  let feed: Feed | undefined;
  let due: NodeJS.Timeout | undefined;
  const draw = () => {
    clearTimeout(due);
    due = undefined;
    if (feed === undefined) return;
    const { goodAt, stale, remarks } = feed;
    const rows = rowsOf(feed, rounds);
    screen.draw(
      frameOf({ rows, columns: options.columns, goodAt, stale, remarks, empty: emptyWords(feed) }, screen.size),
    );
  };
  const soon = () => {
    due ??= setTimeout(draw, frameTime);
  };
  const rounds = roundsFor(context, options, soon);
  const screen = new LiveScreen(context.env, draw);
  // The age of a list that is not up to date goes on.
  const clock = setInterval(soon, interval);
  try {
    await feedClusters(context, {
      matches: options.matches,
      interval,
      show: (next) => {
        const isFirst = feed === undefined;
        feed = next;
        rounds?.follow(targetsOf(next));
        if (isFirst) screen.open();
        else draw();
        return !screen.lost;
      },
    });
  } finally {
    clearInterval(clock);
    clearTimeout(due);
    rounds?.stop();
    screen.close();
  }
}

/** Tables one after the other, `---` between them; remarks go to stderr when they are new. */
async function watchLog(context: Context, options: WatchOptions): Promise<void> {
  const { terminal } = context;
  const { columns } = options;
  const started = performance.now();
  let feed: Feed | undefined;
  let printed: string | undefined;
  let said = '';
  let gone = false;
  const print = () => {
    if (feed === undefined || gone) return;
    if (rounds !== undefined && rounds.pending > 0 && performance.now() - started < firstProbes) return;
    const rows = rowsOf(feed, rounds);
    const substance = JSON.stringify(rows.map(substanceOf));
    if (substance === printed) return;
    const cells = rows.map((row) => cellsOf(row, columns));
    const text = cells.length === 0 ? `${headingsOf(columns).join('   ')}\n` : table(headingsOf(columns), cells);
    try {
      writeAll(1, presentable(`${printed === undefined ? '' : '---\n'}${text}`));
    } catch (error) {
      if (systemCode(error) !== 'EPIPE') throw error;
      // As for `kubectl get -w | head`.
      gone = true;
    }
    printed = substance;
  };
  // Later on, changes that probes find wait for the next list: not each gets a table.
  const rounds = roundsFor(context, options, () => {
    if (printed === undefined) print();
  });
  try {
    await feedClusters(context, {
      matches: options.matches,
      interval,
      show: (next) => {
        feed = next;
        rounds?.follow(targetsOf(next));
        const remarks = [...next.remarks, ...(next.rows.length === 0 ? [emptyWords(next)] : [])];
        // Ages within a remark make no new one.
        const key = remarks.join('\n').replace(/\(\d+ \w+ ago\)/g, '');
        for (const remark of key === said ? [] : remarks) {
          const [, problem] = /^(?:error|warning): (.*)$/s.exec(remark) ?? [];
          if (problem === undefined) terminal.notice(remark);
          else terminal.warn(problem);
        }
        said = key;
        print();
        return !gone;
      },
    });
  } finally {
    rounds?.stop();
  }
}
