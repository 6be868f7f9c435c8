import { isatty } from 'node:tty';
import type { Terminal } from './output.ts';

/** Reports the progress of a long task. */
export interface Progress {
  done: number;
  end(): void;
}

/**
 * Prints a line every second if stderr is a terminal and not --quiet. `tell` returns the line for the number of items
 * done.
 */
export function progressOf(
  {
    terminal,
    settings,
  }: { readonly terminal: Pick<Terminal, 'notice'>; readonly settings: { readonly quiet: boolean } },
  tell: (done: number) => string,
): Progress {
  const progress = { done: 0, end: () => clearInterval(timer) };
  const say = () => terminal.notice(tell(progress.done));
  const timer = settings.quiet || !isatty(2) ? undefined : setInterval(say, 1000);
  return progress;
}
