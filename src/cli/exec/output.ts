import * as fs from 'node:fs';
import { displayWidth } from '../../terminal/width.ts';

const newline = 0x0a;

/**
 * Cuts a stream of bytes into lines. What is held is bounded: a line over `limit` bytes comes in pieces, no piece
 * ending within a UTF-8 character. Lines are given without their newline.
 */
export class LineSplitter {
  readonly #limit: number;
  readonly #line: (line: Buffer) => void;
  readonly #tooLong: () => void;
  #held: Buffer[] = [];
  #size = 0;

  constructor(options: { limit: number; line: (line: Buffer) => void; tooLong?: () => void }) {
    this.#limit = options.limit;
    this.#line = options.line;
    this.#tooLong = options.tooLong ?? (() => {});
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      this.#hold(chunk.subarray(start, end));
      this.#flush();
      start = end + 1;
    }
    if (start < chunk.length) this.#hold(chunk.subarray(start));
  }

  /** What is left when the stream ends without a newline is a line too. */
  end(): void {
    if (this.#size > 0) this.#flush();
  }

  #hold(part: Buffer): void {
    let rest = part;
    while (this.#size + rest.length > this.#limit) {
      const piece = Buffer.concat([...this.#held, rest.subarray(0, this.#limit - this.#size)]);
      const cut = characterStart(piece);
      this.#tooLong();
      this.#line(piece.subarray(0, cut));
      this.#held = cut < piece.length ? [piece.subarray(cut)] : [];
      rest = rest.subarray(this.#limit - this.#size);
      this.#size = piece.length - cut;
    }
    if (rest.length === 0) return;
    // A copy: a small rest must not keep its whole chunk alive.
    this.#held.push(Buffer.from(rest));
    this.#size += rest.length;
  }

  #flush(): void {
    const line = this.#held.length === 1 ? (this.#held[0] as Buffer) : Buffer.concat(this.#held);
    this.#held = [];
    this.#size = 0;
    this.#line(line);
  }
}

// Where a UTF-8 character begins that is not complete at the end of the bytes; their length if there is none.
function characterStart(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length - 1); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return bytes.length;
    if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Keeps the first bytes of a stream; a budget is shared by all streams that are given it. */
export class Capture {
  readonly #parts: Buffer[] = [];
  readonly #budget: { left: number };
  #room: number;
  cut = false;

  constructor(limit: number, budget: { left: number }) {
    this.#room = limit;
    this.#budget = budget;
  }

  push(chunk: Buffer): void {
    const part = chunk.subarray(0, Math.max(0, Math.min(this.#room, this.#budget.left)));
    this.cut ||= part.length < chunk.length;
    // Once cut, what comes later must not follow on.
    if (this.cut) this.#room = 0;
    else this.#room -= part.length;
    this.#budget.left -= part.length;
    if (part.length > 0) this.#parts.push(Buffer.from(part));
  }

  text(): string {
    const bytes = Buffer.concat(this.#parts);
    return bytes.toString('utf8', 0, this.cut ? characterStart(bytes) : bytes.length);
  }
}

/** Prefixes of one width: `prod-us | `. */
export function prefixes(names: readonly string[]): string[] {
  const width = Math.max(0, ...names.map(displayWidth).filter((w) => w <= 40));
  return names.map((name) => `${name}${' '.repeat(Math.max(0, width - displayWidth(name)))} | `);
}

/** Writes bytes to stdout or stderr to the last one. Throws the system's error (EPIPE: nobody reads any more). */
export function writeBytes(fd: 1 | 2, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      // Somebody made the pipe non-blocking, and it is full for the moment.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}
