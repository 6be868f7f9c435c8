// Colour for people. It never carries meaning alone: without it, every line says the same.
import { isatty, WriteStream } from 'node:tty';
import { styleText } from 'node:util';

/** A style of Node's styleText: `red`, `dim`, `['bold', 'green']`. */
export type Style = Parameters<typeof styleText>[0];

/** Returns a text in a style, or the text alone if there is no style or no colour. */
export type Paint = (style: Style | undefined, text: string) => string;

/**
 * Returns whether a stream shows colour, as Node decides it: FORCE_COLOR, then NO_COLOR, NODE_DISABLE_COLORS and
 * TERM=dumb, and otherwise whether the stream is a terminal. stdout and stderr can differ.
 */
export function showsColour(fd: 1 | 2, env: NodeJS.ProcessEnv): boolean {
  const isForced = env.FORCE_COLOR !== undefined;
  if (!isForced && !isatty(fd)) return false;
  // Node prints a warning about variables that FORCE_COLOR overrides.
  const { NO_COLOR, NODE_DISABLE_COLORS, ...others } = env;
  if (WriteStream.prototype.getColorDepth(isForced ? others : env) <= 2) return false;
  // On Windows, opening the console as a stream makes it obey escape sequences, also those written to the descriptor.
  if (process.platform === 'win32' && isatty(fd)) new WriteStream(fd).destroy();
  return true;
}

/** Returns how to paint for a stream. */
export function painter(fd: 1 | 2, env: NodeJS.ProcessEnv = process.env): Paint {
  let shows: boolean | undefined;
  return (style, text) => {
    if (style === undefined || text === '') return text;
    shows ??= showsColour(fd, env);
    return shows ? styleText(style, text, { validateStream: false }) : text;
  };
}

// Without red, which is for errors.
const palette = ['cyan', 'yellow', 'green', 'magenta', 'blue', 'cyanBright', 'yellowBright', 'greenBright'] as const;

/**
 * Returns a style for each of several unique names. A name has the same style in every run, unless another name has
 * taken it; styles repeat only when all are taken.
 */
export function distinctStyles(names: readonly string[]): Style[] {
  const styles = new Map<string, Style>();
  let free = new Set<Style>();
  for (const name of [...names].sort()) {
    if (free.size === 0) free = new Set(palette);
    let at = [...name].reduce((hash, character) => (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0, 7);
    while (!free.has(palette[at % palette.length] as Style)) at++;
    const style = palette[at % palette.length] as Style;
    free.delete(style);
    styles.set(name, style);
  }
  return names.map((name) => styles.get(name) as Style);
}
