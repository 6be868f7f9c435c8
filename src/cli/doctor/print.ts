import { painter, type Style } from '../../terminal/colour.ts';
import { cell, structured } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import type { Check, Verdict } from './check.ts';

/** The result of `doctor` for one cluster. */
export interface Diagnosis {
  /** null if no cluster could be chosen. */
  readonly cluster: string | null;
  readonly checks: readonly Check[];
}

type Marks = Readonly<Record<Verdict['status'], string>>;

const marks: Marks = { ok: '✓', warning: '!', failed: '✗', skipped: '-' };
const plainMarks: Marks = { ok: '+', warning: '!', failed: 'x', skipped: '-' };

const markStyles: Readonly<Record<Verdict['status'], Style>> = {
  ok: 'green',
  warning: 'yellow',
  failed: 'red',
  skipped: 'dim',
};

/** Prints a report. Throws TkaError if one of its checks failed. */
export async function showReport(
  { terminal, env }: Pick<Context, 'terminal' | 'env'>,
  report: Diagnosis,
  output: 'json' | undefined,
): Promise<void> {
  if (output === 'json') terminal.out(await structured('json', [report]));
  else terminal.outPainted(checksTable(report, env));
  const failed = report.checks.filter(({ status }) => status === 'failed');
  if (failed.length === 0) return;
  const names = failed.map(({ name }) => name).join(', ');
  const hints = failed.flatMap(({ hint }) => hint ?? []).slice(0, 1);
  throw new TkaError(`${failed.length} of ${report.checks.length} checks failed: ${names}`, { hints });
}

/** Formats a report for people: one line per check, with its hint below. */
function checksTable({ cluster, checks }: Diagnosis, env: NodeJS.ProcessEnv): string {
  const paint = painter(1, env);
  const symbols = speaksUtf8(env) ? marks : plainMarks;
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = rowsOf(checks).flatMap(({ name, status, detail, hint }) => [
    `${paint(markStyles[status], symbols[status])} ${name.padEnd(width)}   ${cell(detail)}`,
    ...(hint === null ? [] : [`${' '.repeat(width + 5)}${paint('dim', 'hint:')} ${cell(hint)}`]),
  ]);
  return `${[`cluster: ${cluster === null ? 'none' : cell(cluster)}`, ...lines].join('\n')}\n`;
}

interface Row extends Verdict {
  readonly name: string;
}

/** Returns the rows of the table: one row for all checks that are skipped because of the same check, or alike. */
function rowsOf(checks: readonly Check[]): Row[] {
  const because = (check: Check): string | undefined => {
    if (check.status !== 'skipped' || check.hint !== null) return undefined;
    // Either it says so, or it repeats the reason of the check that has the hint.
    const reason =
      /^depends on (\S+)$/.exec(check.detail)?.[1] ?? checks.find((other) => isReasonOf(other, check))?.name;
    return reason === undefined ? check.detail : `because of ${reason}`;
  };
  const groups = Map.groupBy(checks, because);
  return checks.flatMap((check): Row[] => {
    const reason = because(check);
    if (reason === undefined) return [check];
    const skipped = groups.get(reason) ?? [];
    if (skipped.length === 1) return [check];
    if (skipped[0] !== check) return [];
    return [{ ...check, name: 'skipped', detail: `${reason}: ${skipped.map(({ name }) => name).join(', ')}` }];
  });
}

const isReasonOf = (other: Check, check: Check) =>
  other !== check && other.hint !== null && other.detail === check.detail;

function speaksUtf8(env: NodeJS.ProcessEnv): boolean {
  if (env.TERM === 'dumb') return false;
  // On other systems the locale decides. Without one it is C.
  if (process.platform === 'win32' || process.platform === 'darwin') return true;
  return /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
}
