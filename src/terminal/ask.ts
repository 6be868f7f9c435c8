import * as fs from 'node:fs';
import { createInterface } from 'node:readline';
import { isatty, ReadStream } from 'node:tty';
import { writeAll } from '../credential/entry.ts';
import { presentable } from './output.ts';
import { clearProgress } from './progress.ts';

/** Returns whether there is a person to ask: stdin and stderr are terminals. */
export function canAsk(): boolean {
  return isatty(0) && isatty(2);
}

/**
 * Returns the terminal that a person answers on: stdin, or `/dev/tty` where stdin is redirected because it is data.
 * Returns undefined if there is none, or if stderr does not show the question.
 */
export function terminalToAsk({ stdinIsData }: { stdinIsData: boolean }): ReadStream | undefined {
  if (canAsk()) return process.stdin;
  if (!isatty(2) || !stdinIsData || process.platform === 'win32') return undefined;
  try {
    return new ReadStream(fs.openSync('/dev/tty', 'r'));
  } catch {
    return undefined;
  }
}

/** Asks on the terminal and returns true only for `y` or `yes`. End of input means no. */
export async function askYesNo(question: string, input: ReadStream = process.stdin): Promise<boolean> {
  clearProgress();
  writeAll(2, `${presentable(question)} [y/N] `);
  const lines = createInterface({ input, terminal: false });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let answered = false;
  lines.once('line', (line) => {
    answered = true;
    resolve(/^\s*y(?:es)?\s*$/i.test(line));
  });
  lines.once('close', () => {
    // Ctrl-D prints nothing, so the cursor is still on the line of the question.
    if (!answered) writeAll(2, '\n');
    resolve(false);
  });
  const yes = await promise;
  lines.close();
  if (input === process.stdin) input.pause();
  else input.destroy();
  return yes;
}
