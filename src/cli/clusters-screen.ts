import { writeAll } from '../credential/entry.ts';
import type { Frame } from './clusters-frame.ts';
import { type Size, terminalSize } from './terminal-size.ts';

const enter = '\x1b[?1049h\x1b[?7l\x1b[?25l';
const leave = '\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l';

/**
 * A screen of its own on the terminal at stdout. However this process ends, short of SIGKILL, the terminal is as it was
 * before, with the last picture below what was there.
 */
export class LiveScreen {
  /** True once the terminal is gone. */
  lost = false;
  /** Of the window, as it is now. */
  size: Size = { columns: 80, rows: 24 };
  readonly #coloured: boolean;
  readonly #redraw: () => void;
  #open = false;
  #drawn = '';
  #last: Frame | undefined;

  /** `redraw` is called whenever the picture must be made anew. */
  constructor(env: NodeJS.ProcessEnv, redraw: () => void) {
    this.#coloured = !env.NO_COLOR;
    this.#redraw = redraw;
  }

  open(): void {
    process.on('exit', this.#restore);
    // Before whoever tells of it, on a screen that would vanish.
    process.on('uncaughtExceptionMonitor', this.#restore);
    process.on('SIGWINCH', this.#repaint);
    process.on('SIGTSTP', this.#suspend);
    process.on('SIGCONT', this.#resume);
    this.#resume();
  }

  close(): void {
    process.off('exit', this.#restore).off('uncaughtExceptionMonitor', this.#restore);
    process.off('SIGWINCH', this.#repaint).off('SIGTSTP', this.#suspend).off('SIGCONT', this.#resume);
    this.#restore();
  }

  /** Shows a picture, in place of the one before. */
  draw(frame: Frame): void {
    if (!this.#open) return;
    const styled = frame.lines.map((line, i) =>
      this.#coloured && i === frame.marked ? `\x1b[7m${line}\x1b[0m` : line,
    );
    const text = styled.map((line) => `${line}\x1b[K`).join('\r\n');
    this.#last = frame;
    if (text === this.#drawn) return;
    this.#drawn = text;
    // The cursor waits at the top, where a newline that is typed scrolls nothing away.
    this.#write(`\x1b[H${text}\x1b[J\x1b[H`);
  }

  readonly #restore = () => {
    if (!this.#open) return;
    this.#open = false;
    this.#write(`${leave}${this.#last?.lines.map((line) => `${line}\n`).join('') ?? ''}`);
  };

  readonly #resume = () => {
    if (!this.#open) this.#write(enter);
    this.#open = true;
    this.#repaint();
  };

  readonly #repaint = () => {
    this.size = terminalSize(1, this.size);
    this.#drawn = '';
    this.#redraw();
  };

  readonly #suspend = () => {
    this.#restore();
    // The signal itself would come here again.
    process.kill(process.pid, 'SIGSTOP');
  };

  #write(text: string): void {
    try {
      writeAll(1, text);
    } catch {
      this.lost = true;
    }
  }
}
