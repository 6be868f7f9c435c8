import { cell } from '../terminal.ts';
import type { Report } from './doctor.ts';
import type { Verdict } from './doctor-check.ts';

type Marks = Readonly<Record<Verdict['status'], string>>;

const marks: Marks = { ok: '✓', warning: '!', failed: '✗', skipped: '-' };
const plainMarks: Marks = { ok: '+', warning: '!', failed: 'x', skipped: '-' };

/** A report for people: a line for each check, its hint below it. */
export function checksTable({ cluster, checks }: Report, env: NodeJS.ProcessEnv): string {
  const symbols = speaksUtf8(env) ? marks : plainMarks;
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, status, detail, hint }) => [
    `${symbols[status]} ${name.padEnd(width)}   ${cell(detail)}`,
    ...(hint === null ? [] : [`${' '.repeat(width + 5)}hint: ${cell(hint)}`]),
  ]);
  return `${[`cluster: ${cluster === null ? 'none' : cell(cluster)}`, ...lines].join('\n')}\n`;
}

function speaksUtf8(env: NodeJS.ProcessEnv): boolean {
  if (env.TERM === 'dumb') return false;
  // Elsewhere than on these two the locale decides, and without one it is C.
  if (process.platform === 'win32' || process.platform === 'darwin') return true;
  return /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
}
