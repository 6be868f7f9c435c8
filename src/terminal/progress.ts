// One line on stderr that says what the program waits for, and for how long. It appears after 400 ms, only on a
// terminal, and is removed before anything else is printed. `credential` has none: kubectl prints to the same terminal.
import { isatty } from 'node:tty';
import { writeAll } from '../credential/entry.ts';
import { terminalSize } from './size.ts';
import { displayWidth, shorten } from './width.ts';

/** Milliseconds without output before the line appears. */
const patience = 400;
/** Milliseconds between two drawings. */
const interval = 100;

/** What the program waits for; a function for a text that changes. The line disappears while the text is empty. */
export type WaitText = string | (() => string);

interface Wait {
  readonly text: WaitText;
  readonly since: number;
}

class StatusLine {
  /** The number of writes to the terminal, without the line's own. */
  writes = 0;
  readonly #waits = new Set<Wait>();
  #timer: NodeJS.Timeout | undefined;
  /** When the current silence began, on the clock of performance.now(). */
  #silentSince: number | undefined;
  #drawn = '';
  #isWatched = false;

  begin(text: WaitText): () => void {
    const since = performance.now();
    const wait = { text, since };
    this.#waits.add(wait);
    this.#silentSince ??= since;
    // Does not keep the process alive.
    this.#timer ??= setInterval(() => this.#draw(), interval).unref();
    return () => {
      this.#waits.delete(wait);
      if (this.#waits.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#erase();
    };
  }

  /** Removes the line, because something else is about to be printed. It comes back after another 400 ms. */
  clear(): void {
    this.writes++;
    this.#erase();
    this.#silentSince = this.#waits.size > 0 ? performance.now() : undefined;
  }

  #draw(): void {
    const now = performance.now();
    // The outermost wait knows most: `asking 60 clusters` rather than one of them.
    const [wait] = this.#waits;
    if (wait === undefined || now - (this.#silentSince ?? now) < patience) return;
    const text = typeof wait.text === 'string' ? wait.text : wait.text();
    if (text === '' || !isatty(2)) {
      this.#erase();
      return;
    }
    const elapsed = ` (${Math.floor((now - wait.since) / 1000)} s)`;
    const { columns } = terminalSize(2, { columns: 80, rows: 24 });
    const line = shorten(text, columns - displayWidth(elapsed) - 1) + elapsed;
    if (line === this.#drawn) return;
    if (!this.#isWatched) process.once('exit', () => this.#erase());
    this.#isWatched = true;
    this.#write(`\r\x1b[K${line}`);
    this.#drawn = line;
  }

  #erase(): void {
    if (this.#drawn === '') return;
    this.#drawn = '';
    this.#write('\r\x1b[K');
  }

  #write(text: string): void {
    try {
      writeAll(2, text);
    } catch {
      // The terminal is gone.
    }
  }
}

const statusLine = new StatusLine();

/** Removes the line. Every write to the terminal calls it first. */
export function clearProgress(): void {
  statusLine.clear();
}

/** Returns how often this process has written to the terminal, for a text that disappears with the first output. */
export function writesSoFar(): number {
  return statusLine.writes;
}

/** Runs a task with a line that says what it waits for, and returns its result. */
export async function withProgress<T>(text: WaitText, task: () => Promise<T>): Promise<T> {
  const end = statusLine.begin(text);
  try {
    return await task();
  } finally {
    end();
  }
}

const barWidth = 20;

/** Returns a bar with numbers: `[#####---------------] 12/60`. */
export function progressBar(done: number, total: number): string {
  const filled = total === 0 ? barWidth : Math.floor((done / total) * barWidth);
  return `[${'#'.repeat(filled)}${'-'.repeat(barWidth - filled)}] ${done}/${total}`;
}
