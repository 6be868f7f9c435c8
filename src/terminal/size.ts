import { WriteStream } from 'node:tty';

/** Of a terminal's window. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** The size of the terminal at a file descriptor, as it is now; `otherwise` where it cannot be told. */
export function terminalSize(fd: 1 | 2, otherwise: Size): Size {
  try {
    // A stream asks once, when it is made.
    const terminal = new WriteStream(fd);
    const { columns, rows } = terminal;
    terminal.destroy();
    // A pseudo-terminal that nobody has measured says 0.
    return { columns: columns || otherwise.columns, rows: rows || otherwise.rows };
  } catch {
    return otherwise;
  }
}
