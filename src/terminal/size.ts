import { WriteStream } from 'node:tty';

/** The size of a terminal's window, in characters. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/**
 * Returns the current size of the terminal at a file descriptor; `otherwise` if there is no terminal or its size is
 * unknown.
 */
export function terminalSize(fd: 1 | 2, otherwise: Size): Size {
  try {
    // A stream reads the size only once, when it is created.
    const terminal = new WriteStream(fd);
    const { columns, rows } = terminal;
    terminal.destroy();
    // A pseudo-terminal without a size reports 0.
    return { columns: columns || otherwise.columns, rows: rows || otherwise.rows };
  } catch {
    return otherwise;
  }
}
