import { painter } from '../../terminal/colour.ts';
import { systemCode } from '../../util/errors.ts';
import { Capture, isOneStream, LineSplitter, newline, prefixes, writeBytes } from './output.ts';
import type { Sink } from './runner.ts';

/** In bytes. Longer lines are printed in pieces. */
const lineLimit = 1024 * 1024;

/** How many bytes of output to keep: per stream, and what is left for all of them. */
export interface CaptureLimits {
  readonly perStream: number;
  readonly budget: { left: number };
}

/** Writes to stdout and stderr until their readers close them. */
class Streams {
  readonly #gone: () => void;
  readonly #dead = new Set<number>();

  /** `gone` is called when the reader of stdout has closed it. */
  constructor(gone: () => void) {
    this.#gone = gone;
  }

  write(fd: 1 | 2, bytes: Buffer): void {
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

/** Prints the output of commands line by line, each line with its cluster's name as a prefix. */
export class PrefixedOutput {
  /** For stdout and for stderr: one of them can be a file. */
  readonly #prefixes: Readonly<Record<1 | 2, readonly Buffer[]>>;
  readonly #labels: readonly string[];
  readonly #streams: Streams;
  readonly #warn: (line: string) => void;

  constructor(labels: readonly string[], gone: () => void, warn: (line: string) => void) {
    this.#labels = labels;
    const prefixesOn = (fd: 1 | 2) => prefixes(labels, painter(fd)).map((prefix) => Buffer.from(prefix));
    this.#prefixes = { 1: prefixesOn(1), 2: prefixesOn(2) };
    this.#streams = new Streams(gone);
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
        if (ready.length > 0) this.#streams.write(fd, Buffer.concat(ready));
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
}

/**
 * Prints the output of each command as one block under a heading when the command ends. On one terminal, file or pipe a
 * block has both streams, in the order of their arrival; otherwise a block goes to each.
 */
export class GroupedOutput {
  readonly #labels: readonly string[];
  readonly #streams: Streams;
  readonly #captures: CaptureLimits;
  readonly #isOne = isOneStream();
  /** Labels whose output was cut. */
  readonly cut: string[] = [];

  constructor(labels: readonly string[], gone: () => void, captures: CaptureLimits) {
    this.#labels = labels;
    this.#streams = new Streams(gone);
    this.#captures = captures;
  }

  sink(number: number): Sink {
    const { perStream, budget } = this.#captures;
    const label = this.#labels[number] as string;
    const stdout = new Capture(perStream, budget);
    const stderr = this.#isOne ? stdout : new Capture(perStream, budget);
    // Whole lines, because the streams of one block arrive in pieces.
    const lines = [stdout, stderr].map((capture) => {
      const line = (bytes: Buffer) => capture.push(Buffer.concat([bytes, Buffer.from('\n')]));
      return new LineSplitter({ limit: perStream, line });
    });
    return {
      stdout: (chunk) => lines[0]?.push(chunk),
      stderr: (chunk) => lines[1]?.push(chunk),
      end: () => {
        for (const each of lines) each.end();
        // A command without output has ended, too.
        this.#print(1, label, stdout.bytes());
        if (stderr !== stdout && stderr.bytes().length > 0) this.#print(2, label, stderr.bytes());
        if (stdout.cut || stderr.cut) this.cut.push(label);
        stdout.release();
        stderr.release();
      },
    };
  }

  #print(fd: 1 | 2, label: string, bytes: Buffer): void {
    const end = bytes.length === 0 || bytes.at(-1) === newline ? '' : '\n';
    const heading = painter(fd)('bold', `==> ${label} <==`);
    this.#streams.write(fd, Buffer.concat([Buffer.from(`${heading}\n`), bytes, Buffer.from(end)]));
  }
}
