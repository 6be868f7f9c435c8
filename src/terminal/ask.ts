import { createInterface } from 'node:readline';
import { isatty } from 'node:tty';
import { writeAll } from '../credential/entry.ts';
import { presentable } from './output.ts';

/** Returns whether there is a person to ask: stdin and stderr are terminals. */
export function canAsk(): boolean {
  return isatty(0) && isatty(2);
}

/** Asks on the terminal and returns true only for `y` or `yes`. End of input means no. */
export async function askYesNo(question: string): Promise<boolean> {
  writeAll(2, `${presentable(question)} [y/N] `);
  const lines = createInterface({ input: process.stdin, terminal: false });
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
  process.stdin.pause();
  return yes;
}
