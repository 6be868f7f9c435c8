import { cell, shortDuration, table } from '../terminal.ts';
import { shorten } from '../width.ts';
import { type Columns, cellsOf, headingsOf, type Listed } from './clusters-rows.ts';

/** What the picture of --watch is made of. */
export interface Picture {
  readonly rows: readonly Listed[];
  readonly columns: Columns;
  /** When the last good answer came, in milliseconds of the epoch; undefined for never. */
  readonly goodAt: number | undefined;
  /** Nobody answers: this is the last good list. */
  readonly stale: boolean;
  readonly remarks: readonly string[];
  /** What to say where there are no rows. */
  readonly empty: string;
}

/** Lines for a terminal, each fitting its width; `marked` is the line to be seen first. */
export interface Frame {
  readonly lines: readonly string[];
  readonly marked: number;
}

const remarkLimit = 3;

/** Draws a list into so many rows and columns: when it is from, remarks, and of the table what fits. */
export function frameOf(picture: Picture, size: { rows: number; columns: number }, now = Date.now()): Frame {
  const { rows, columns, stale } = picture;
  const remarks = picture.remarks.slice(0, Math.min(remarkLimit, Math.max(0, size.rows - 4)));
  const lines = [heading(picture, now), ...remarks.map(cell)];
  const room = size.rows - lines.length - 1;
  if (rows.length === 0) lines.push(picture.empty);
  else {
    // The last line tells of those that do not fit.
    const fitting = rows.length <= room ? rows.length : Math.max(0, room - 1);
    const shown = rows.slice(0, fitting);
    const cells = shown.map((row) => cellsOf(row, columns, now));
    if (shown.length > 0) lines.push(...table(headingsOf(columns), cells).trimEnd().split('\n'));
    if (fitting < rows.length) lines.push(moreOf(rows.slice(fitting)));
  }
  // The last column stays free: there some terminals wrap, or clear what was just written.
  const width = Math.max(1, size.columns - 1);
  return { lines: lines.slice(0, size.rows).map((line) => shorten(line, width)), marked: stale ? 0 : -1 };
}

function heading({ rows, goodAt, stale }: Picture, now: number): string {
  const count = `${rows.length} ${rows.length === 1 ? 'cluster' : 'clusters'}`;
  if (goodAt === undefined) return `! NOT UP TO DATE: ${count}, no answer yet`;
  const stamp = `${new Date(goodAt).toISOString().slice(11, 19)} UTC`;
  if (!stale) return `${count}, as of ${stamp}`;
  return `! NOT UP TO DATE: ${count}, last answer ${stamp}, ${shortDuration(now - goodAt)} ago`;
}

function moreOf(rows: readonly Listed[]): string {
  const states = new Map<string, number>();
  for (const { row } of rows) states.set(row.state, (states.get(row.state) ?? 0) + 1);
  return `… and ${rows.length} more: ${[...states].map(([state, count]) => `${count} ${state}`).join(', ')}`;
}
