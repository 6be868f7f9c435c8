// The picker as a prompt of @inquirer/core, which reads keys, edits the query and redraws. Loaded only when needed.
export { ExitPromptError } from '@inquirer/core';

import { styleText } from 'node:util';
import { createPrompt, useEffect, useKeypress, useMemo, useRef, useState } from '@inquirer/core';
import {
  cleanRow,
  listHeight,
  matchingRows,
  type PickerRow,
  type PickerStyle,
  pickerLines,
  pickerWidths,
  scrolledTo,
} from './picker-list.ts';
import type { Size } from './size.ts';

/** The input of the prompt. */
export interface PickerConfig {
  readonly rows: readonly PickerRow[];
  readonly coloured: boolean;
  /** Returns the current size of the window. */
  readonly size: () => Size;
  /** Registers `redraw`, which is called after the window changes its size and is cleared. */
  readonly onResize: (redraw: () => void) => void;
}

/** A key event of node:readline. The library's type does not say that some keys have no name. */
interface Key {
  readonly name?: string;
  readonly ctrl: boolean;
}

/** Maximum length of the query, in characters. */
const queryLimit = 200;

/** Resolves to the index of the chosen row, or to undefined for Esc, Ctrl-D, Ctrl-G and the end of input. */
export const pickerPrompt = createPrompt<number | undefined, PickerConfig>((config, done) => {
  const rows = useMemo(() => config.rows.map(cleanRow), []);
  const [size, setSize] = useState(config.size);
  const [{ query, selected }, setState] = useState({ query: '', selected: 0 });
  const matches = useMemo(() => matchingRows(rows, query), [query]);
  const widths = useMemo(() => pickerWidths(rows), []);
  const top = useRef(0);
  top.current = scrolledTo(selected, top.current, matches.length, listHeight(size));

  useEffect((rl) => {
    // Keys that were typed before the first drawing.
    if (rl.line !== '') setState({ query: queryIn(rl.line), selected: 0 });
    const cancel = () => done(undefined);
    if ('closed' in rl && rl.closed === true) cancel();
    rl.on('close', cancel);
    // Without a listener the error would crash the process.
    rl.on('error', cancel);
    // Ctrl-Z: without a listener, readline would suspend the process and leave the alternate screen on.
    rl.on('SIGTSTP', () => {});
    config.onResize(() => setSize(config.size()));
  }, []);

  useKeypress((key: Key, rl) => {
    if (isCancel(key)) return done(undefined);
    const isEnter = key.name === 'return' || key.name === 'enter';
    const chosen = matches[selected];
    if (isEnter && chosen !== undefined) return done(rows.indexOf(chosen));
    const target = targetOf(key, selected, matches.length, listHeight(size));
    const next = isEnter || target !== undefined ? query : queryIn(rl.line);
    if (rl.line !== next || target !== undefined) {
      // Restore readline's line: Enter empties it, Tab adds to it, and arrow keys replace it from the history.
      rl.clearLine(0);
      rl.write(next);
    }
    const last = Math.max(0, matches.length - 1);
    const at = target === undefined ? selected : Math.max(0, Math.min(target, last));
    setState({ query: next, selected: next === query ? at : 0 });
  });

  const styled = (style: PickerStyle, text: string) =>
    config.coloured ? styleText(style, text, { validateStream: false }) : text;
  const view = { size, query, matches, widths, total: rows.length, selected, top: top.current, styled };
  const [line, below] = pickerLines(view);
  return [line, below.join('\n')];
});

function queryIn(line: string): string {
  return [...line.replace(/\p{C}/gu, '')].slice(0, queryLimit).join('');
}

function isCancel({ name, ctrl }: Key): boolean {
  return name === 'escape' || (ctrl && (name === 'd' || name === 'g'));
}

/** Returns the index that a key moves the selection to, possibly out of range; undefined if the key moves nothing. */
function targetOf({ name = '', ctrl }: Key, selected: number, count: number, height: number): number | undefined {
  const next = selected + 1;
  const previous = selected - 1;
  const targets: Readonly<Record<string, number>> = ctrl
    ? { n: next, p: previous }
    : { down: next, up: previous, pagedown: selected + height, pageup: selected - height, home: 0, end: count - 1 };
  return targets[name];
}
