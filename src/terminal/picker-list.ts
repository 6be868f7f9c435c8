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
  readonly styled: (style: PickerStyle, text: string) => string;
}

/** `inverse` is the selected row, `underline` what matches the query. */
export type PickerStyle = 'inverse' | 'dim' | 'underline';

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

/**
 * Returns the rows whose name or labels contain every word of the query, in any case and order. Rows that are named
 * like the query come first, then those whose name starts with it, then those whose name contains it, then the others.
 */
export function matchingRows(rows: readonly PickerRow[], query: string): readonly PickerRow[] {
  const words = wordsOf(query);
  if (words.length === 0) return rows;
  const wanted = words.join(' ');
  const ranked: PickerRow[][] = [[], [], [], []];
  for (const row of rows) {
    const name = folded(row.name);
    // A query contains no line break, so no match spans the name and the labels.
    const text = `${name}\n${folded(row.labels)}`;
    if (!words.every((word) => text.includes(word))) continue;
    const isInName = words.every((word) => name.includes(word));
    ranked[name === wanted ? 0 : name.startsWith(wanted) ? 1 : isInName ? 2 : 3]?.push(row);
  }
  return ranked.flat();
}

const folded = (text: string) => text.normalize('NFC').toLowerCase();
const wordsOf = (query: string) => folded(query).split(/\s+/).filter(Boolean);

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
  const found = matchPattern(query);
  const rows = matches.slice(top, top + listHeight(size)).map((row, i) => {
    const isSelected = top + i === selected;
    const parts = rowParts(row, isSelected, view.widths, width);
    const line = highlighted(parts, shorten(parts.join('').trimEnd(), width), found, styled);
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

/** Returns a row in parts: the marks, the name, the state, the labels. */
function rowParts({ name, state, labels, current }: PickerRow, selected: boolean, widths: PickerWidths, width: number) {
  const nameWidth = Math.min(widths.name, Math.max(8, Math.floor(width / 2)));
  const marks = `${selected ? '>' : ' '} ${current ? '*' : ' '} `;
  return [marks, fitTo(name, nameWidth), `${gap}${fitTo(state, widths.state)}${gap}`, labels] as const;
}

/** Returns a pattern for the words of a query; undefined for an empty query. */
function matchPattern(query: string): RegExp | undefined {
  // A name can be stated in either form.
  const words = new Set(wordsOf(query).flatMap((word) => [word, word.normalize('NFD')]));
  const longestFirst = [...words].sort((a, b) => b.length - a.length);
  const source = longestFirst.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|');
  return source === '' ? undefined : new RegExp(source, 'giu');
}

/** Returns a line with the matches in its name and its labels highlighted. `line` is the parts, cut at the end. */
function highlighted(
  parts: readonly string[],
  line: string,
  found: RegExp | undefined,
  styled: PickerView['styled'],
): string {
  if (found === undefined) return line;
  let at = 0;
  const shown = parts.map((part, i) => {
    const text = line.slice(at, at + part.length);
    at += part.length;
    return i % 2 === 0 ? text : text.replace(found, (match) => styled('underline', match));
  });
  // The mark of a cut can come after the last part.
  return shown.join('') + line.slice(at);
}
