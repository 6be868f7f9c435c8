import { emitKeypressEvents } from 'node:readline';
import { isatty } from 'node:tty';
import { writeAll } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import { type Item, type Key, PickerList, type Screen } from './picker-list.ts';
import { terminalSize } from './size.ts';

export type { Item } from './picker-list.ts';

/** Milliseconds after which an escape character is the Escape key, and not the beginning of another key. */
const escapeTime = 60;
const alternateScreen = '\x1b[?1049h\x1b[?7l';
const backAgain = '\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l';

/** Whether there is a person to ask: keys come from a terminal, and stderr goes to one that can move its cursor. */
export function canPick(env: NodeJS.ProcessEnv): boolean {
  return isatty(0) && isatty(2) && env.TERM !== 'dumb';
}

/**
 * Lets a person choose an item on the terminal: drawn on stderr, keys from stdin. The terminal is as before afterwards,
 * however this process ends, short of SIGKILL. Throws TkaError (exit 130) where nothing is chosen.
 */
export async function pick(items: readonly Item[], env: NodeJS.ProcessEnv): Promise<number> {
  const coloured = !env.NO_COLOR;
  const list = new PickerList(items, size());
  const keys = process.stdin;
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const cancelled = new TkaError('cancelled', { exitCode: 130, hints: ['name it instead: kubectl tka use NAME'] });

  let due = false;
  let over = false;
  // A paste is many keys, and one picture.
  const draw = () => {
    if (due) return;
    due = true;
    setImmediate(() => {
      due = false;
      if (!over) write(paint(list.screen(), coloured));
    });
  };
  const onKey = (_: unknown, key: Key) => {
    const outcome = list.press(key);
    if (outcome === 'cancelled') reject(cancelled);
    else if (outcome !== undefined) resolve(outcome);
    else draw();
  };
  const onResize = () => {
    list.resize(size());
    draw();
  };
  const onContinue = () => {
    keys.setRawMode(true);
    write(alternateScreen);
    onResize();
  };
  const onEnd = () => reject(cancelled);
  const restore = () => {
    if (over) return;
    over = true;
    write(backAgain);
    if (keys.isTTY) keys.setRawMode(false);
  };

  process.on('exit', restore);
  // Before whoever tells of it, on a screen that would vanish.
  process.on('uncaughtExceptionMonitor', restore);
  process.on('SIGWINCH', onResize);
  process.on('SIGCONT', onContinue);
  // Its types know no such options, which are those of an Interface.
  emitKeypressEvents(keys, { escapeCodeTimeout: escapeTime } as never);
  keys.on('keypress', onKey).on('end', onEnd).on('error', onEnd);
  try {
    keys.setRawMode(true);
    write(alternateScreen);
    draw();
    keys.resume();
    return await promise;
  } finally {
    restore();
    keys.off('keypress', onKey).off('end', onEnd).off('error', onEnd).pause();
    process.off('exit', restore).off('uncaughtExceptionMonitor', restore);
    process.off('SIGWINCH', onResize).off('SIGCONT', onContinue);
  }
}

const size = () => terminalSize(2, { columns: 80, rows: 24 });

function paint({ lines, selected, remark, cursor }: Screen, coloured: boolean): string {
  const styled = lines.map((line, i) => {
    const style = !coloured ? '' : i === selected ? '7' : i === remark ? '2' : '';
    return style === '' ? line : `\x1b[${style}m${line}\x1b[0m`;
  });
  const text = styled.map((line) => `${line}\x1b[K`).join('\r\n');
  return `\x1b[?25l\x1b[H${text}\x1b[J\x1b[${cursor.line + 1};${cursor.column + 1}H\x1b[?25h`;
}

function write(text: string): void {
  try {
    writeAll(2, text);
  } catch {
    // The terminal is gone: so are the keys, which is what ends this.
  }
}
