import { emitKeypressEvents } from 'node:readline';
import { Writable } from 'node:stream';
import { isatty } from 'node:tty';
import { writeAll } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import { showsColour } from './colour.ts';
import type { PickerRow } from './picker-list.ts';
import { terminalSize } from './size.ts';

/** Milliseconds after which an escape character counts as the Escape key, not as the start of another key. */
const escapeTime = 60;
// Turns off wrapping at the right edge: terminals and width tables disagree about some characters.
const alternateScreen = '\x1b[?1049h\x1b[?7l';
const cleared = '\x1b[H\x1b[J';
const normalScreen = '\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l';

/** Returns whether a person can choose: stdin is a terminal, and stderr is a terminal that can move its cursor. */
export function canPick(env: NodeJS.ProcessEnv): boolean {
  return isatty(0) && isatty(2) && env.TERM !== 'dumb';
}

/**
 * Lets the user choose a row, and returns its index. Draws on stderr and reads keys from stdin. Restores the terminal
 * however the process ends, except by SIGKILL. Throws TkaError (exit 130) if nothing is chosen.
 */
export async function pick(rows: readonly PickerRow[], env: NodeJS.ProcessEnv): Promise<number> {
  const { ExitPromptError, pickerPrompt } = await import('./picker-prompt.ts');
  const keys = process.stdin;
  let isOver = false;
  const write = (text: string) => {
    try {
      if (!isOver) writeAll(2, text);
    } catch {
      // The terminal is gone. Its keys end too, and with them the prompt.
    }
  };
  const output = new Writable({
    decodeStrings: false,
    write(text, _, written) {
      write(String(text));
      written();
    },
  });
  // The picker fits its lines to the window itself, so that nothing scrolls in a small or resized one. This keeps the
  // library from wrapping them again.
  Object.assign(output, { columns: Number.MAX_SAFE_INTEGER });

  let redraw = () => {};
  const onResize = () => {
    write(cleared);
    redraw();
  };
  const onContinue = () => {
    keys.setRawMode(true);
    write(alternateScreen);
    onResize();
  };
  const restore = () => {
    write(normalScreen);
    isOver = true;
    if (keys.isTTY) keys.setRawMode(false);
  };

  process.on('exit', restore);
  // Restore the terminal before the error is printed, otherwise the error vanishes with the alternate screen.
  process.on('uncaughtExceptionMonitor', restore);
  process.on('SIGWINCH', onResize);
  process.on('SIGCONT', onContinue);
  // Only the first call for a stream has an effect. The types accept an Interface only, but this option is the
  // Interface's.
  emitKeypressEvents(keys, { escapeCodeTimeout: escapeTime } as never);
  try {
    write(alternateScreen);
    const config = {
      rows,
      coloured: showsColour(2, env),
      size: () => terminalSize(2, { columns: 80, rows: 24 }),
      onResize: (listener: () => void) => {
        redraw = listener;
      },
    };
    const chosen = await pickerPrompt(config, { input: keys, output, clearPromptOnDone: true }).catch((error) => {
      // Ctrl-C.
      if (error instanceof ExitPromptError) return undefined;
      throw error;
    });
    if (chosen !== undefined) return chosen;
    throw new TkaError('cancelled', { exitCode: 130, hints: ['give the name: kubectl tka use NAME'] });
  } finally {
    restore();
    process.off('exit', restore).off('uncaughtExceptionMonitor', restore);
    process.off('SIGWINCH', onResize).off('SIGCONT', onContinue);
  }
}
