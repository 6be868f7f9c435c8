import { isatty } from 'node:tty';
import type { Context } from './context.ts';

/** Tells how far a long work has come. */
export interface Progress {
  done: number;
  end(): void;
}

/** A line a second on stderr, and only for a person who waits; `tell` makes it of how many are done. */
export function progressOf({ terminal, settings }: Context, tell: (done: number) => string): Progress {
  const progress = { done: 0, end: () => clearInterval(timer) };
  const say = () => terminal.notice(tell(progress.done));
  const timer = settings.quiet || !isatty(2) ? undefined : setInterval(say, 1000);
  return progress;
}
