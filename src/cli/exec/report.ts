import { painter } from '../../terminal/colour.ts';
import { systemCode } from '../../util/errors.ts';
import { LineSplitter, prefixes, writeBytes } from './output.ts';
import type { Sink } from './runner.ts';

/** In bytes. Longer lines are printed in pieces. */
const lineLimit = 1024 * 1024;

/** Prints the output of commands line by line, each line with its cluster's name as a prefix. */
export class PrefixedOutput {
  /** For stdout and for stderr: one of them can be a file. */
  readonly #prefixes: Readonly<Record<1 | 2, readonly Buffer[]>>;
  readonly #labels: readonly string[];
  readonly #gone: () => void;
  readonly #warn: (line: string) => void;
  #dead = new Set<number>();

  constructor(labels: readonly string[], gone: () => void, warn: (line: string) => void) {
    this.#labels = labels;
    const prefixesOn = (fd: 1 | 2) => prefixes(labels, painter(fd)).map((prefix) => Buffer.from(prefix));
    this.#prefixes = { 1: prefixesOn(1), 2: prefixesOn(2) };
    this.#gone = gone;
    this.#warn = warn;
  }

  sink(number: number): Sink {
    let warned = false;
    const newline = Buffer.from('\n');
    const stream = (fd: 1 | 2) => {
      const prefix = this.#prefixes[fd][number] as Buffer;
      let ready: Buffer[] = [];
      const splitter = new LineSplitter({
        limit: lineLimit,
        line: (line) => ready.push(prefix, line, newline),
        tooLong: () => {
          if (!warned) this.#warn(`${this.#labels[number]}: a line longer than 1 MiB is printed in pieces`);
          warned = true;
        },
      });
      const print = () => {
        if (ready.length > 0) this.#write(fd, Buffer.concat(ready));
        ready = [];
      };
      return {
        push(chunk: Buffer) {
          splitter.push(chunk);
          print();
        },
        end() {
          splitter.end();
          print();
        },
      };
    };
    const [stdout, stderr] = [stream(1), stream(2)];
    return {
      stdout: stdout.push,
      stderr: stderr.push,
      end() {
        stdout.end();
        stderr.end();
      },
    };
  }

  #write(fd: 1 | 2, bytes: Buffer): void {
    if (this.#dead.has(fd)) return;
    try {
      writeBytes(fd, bytes);
    } catch (error) {
      if (systemCode(error) !== 'EPIPE') throw error;
      this.#dead.add(fd);
      if (fd === 1) this.#gone();
    }
  }
}
