// The picker's content: which rows match, which of them fit into the window, and their lines. Pure: no keys, no
// terminal.
import { cleanText } from '../util/text.ts';
import type { Size } from './size.ts';
import { displayWidth, fitTo, shorten } from './width.ts';

/** One row to choose from. */
export interface PickerRow {
  readonly name: string;
  readonly state: string;
  readonly labels: string;
  /** The current context, marked with `*`. */
  readonly current: boolean;
}

/** The state of the picker when it draws. */
export interface PickerView {
  readonly size: Size;
  readonly query: string;
  readonly matches: readonly PickerRow[];
  /** Widths over all rows, not only the matches, so that columns do not move while the user types. */
  readonly widths: PickerWidths;
  readonly total: number;
  /** Index of the selected match. */
  readonly selected: number;
  /** Index of the first match in the window. */
  readonly top: number;
  readonly styled: (style: 'inverse' | 'dim', line: string) => string;
}

/** Widths in terminal columns. */
export interface PickerWidths {
  readonly name: number;
  readonly state: number;
}

/** Maximum number of characters of a row's labels. */
const labelsLimit = 4096;
const label = 'Cluster: ';
const help = 'type to filter, Enter to choose, Esc to leave';
const gap = '   ';

/** Returns a row that is safe for a terminal: names and labels come from the network. */
export function cleanRow({ name, state, labels, current }: PickerRow): PickerRow {
  return { name: cleanText(name), state: cleanText(state), labels: cleanText(labels, labelsLimit), current };
}

/** Returns the rows whose name or labels contain every word of the query, in any case and order. */
export function matchingRows(rows: readonly PickerRow[], query: string): readonly PickerRow[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return rows;
  return rows.filter(({ name, labels }) => {
    // A query contains no line break, so no match spans the name and the labels.
    const text = `${name}\n${labels}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** Returns how many rows a window shows: its lines without those of the query and the help, at least one. */
export function listHeight({ rows }: Size): number {
  return Math.max(1, rows - 2);
}

/**
 * Returns the index of the first row to show: as close to `top` as possible with the selection in the window and the
 * window full.
 */
export function scrolledTo(selected: number, top: number, total: number, height: number): number {
  const lowest = Math.max(0, total - height);
  return Math.min(lowest, Math.max(selected - height + 1, Math.min(top, selected)));
}

/** Returns the widths of the name and state columns. */
export function pickerWidths(rows: readonly PickerRow[]): PickerWidths {
  const widest = (text: (row: PickerRow) => string) => rows.reduce((w, row) => Math.max(w, displayWidth(text(row))), 0);
  return { name: widest((row) => row.name), state: widest((row) => row.state) };
}

/**
 * Returns the line with the cursor, and the lines below it: no more lines than the window has, and none wider. A window
 * of one line shows only the selected row; a window of two lines has no help.
 */
export function pickerLines(view: PickerView): readonly [string, readonly string[]] {
  const { size, query, matches, total, selected, top, styled } = view;
  const width = Math.max(1, size.columns - 1);
  const rows = matches.slice(top, top + listHeight(size)).map((row, i) => {
    const isSelected = top + i === selected;
    const line = shorten(rowLine(row, isSelected, view.widths, width), width);
    return isSelected ? styled('inverse', line) : line;
  });
  if (rows.length === 0) rows.push(shorten('  no cluster matches', width));
  if (size.rows < 2) return [rows[0] ?? '', []];
  if (size.rows > 2) {
    const count = matches.length === total ? total : `${matches.length} of ${total}`;
    rows.push(styled('dim', shorten(`${count} - ${help}`, width)));
  }
  return [promptLine(query, width), rows];
}

/** Returns the label and the end of the query, as much as fits: the user types at its end. */
function promptLine(query: string, width: number): string {
  const room = Math.max(1, width - label.length - 1);
  let shown = query;
  while (displayWidth(shown) > room) shown = [...shown].slice(1).join('');
  return shorten(`${label}${shown}`, width);
}

function rowLine({ name, state, labels, current }: PickerRow, selected: boolean, widths: PickerWidths, width: number) {
  const nameWidth = Math.min(widths.name, Math.max(8, Math.floor(width / 2)));
  const marks = `${selected ? '>' : ' '} ${current ? '*' : ' '} `;
  return `${marks}${fitTo(name, nameWidth)}${gap}${fitTo(state, widths.state)}${gap}${labels}`.trimEnd();
}
