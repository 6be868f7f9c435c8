import * as fs from 'node:fs';
import { distinctStyles, type Paint } from '../../terminal/colour.ts';
import { clearProgress } from '../../terminal/progress.ts';
import { displayWidth } from '../../terminal/width.ts';

export const newline = 0x0a;

/**
 * Splits a stream of bytes into lines, without their newlines. Memory is bounded: a line longer than `limit` bytes is
 * passed on in pieces, and no piece ends within a UTF-8 character.
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

  /** Passes on the rest of a stream that does not end with a newline. */
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
    // Copy it, or a small rest would keep its whole chunk in memory.
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

// Returns where the incomplete UTF-8 character at the end of the bytes starts; the length of the bytes if there is
// none.
function characterStart(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length - 1); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return bytes.length;
    if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Keeps the first bytes of a stream. Several streams can share one budget. */
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
    // After a cut, drop all later chunks, or the text would have a gap.
    if (this.cut) this.#room = 0;
    else this.#room -= part.length;
    this.#budget.left -= part.length;
    if (part.length > 0) this.#parts.push(Buffer.from(part));
  }

  /** Returns what it kept, without an incomplete character after a cut. */
  bytes(): Buffer {
    const bytes = Buffer.concat(this.#parts);
    return this.cut ? bytes.subarray(0, characterStart(bytes)) : bytes;
  }

  text(): string {
    return this.bytes().toString('utf8');
  }

  /** Drops what it kept and gives its room in the budget back. */
  release(): void {
    for (const part of this.#parts.splice(0)) this.#budget.left += part.length;
  }
}

/** Returns prefixes of equal width, each in a colour of its own: `prod-us | `. */
export function prefixes(names: readonly string[], paint: Paint = (_, text) => text): string[] {
  const styles = distinctStyles(names);
  const width = Math.max(0, ...names.map(displayWidth).filter((w) => w <= 40));
  return names.map((name, i) => {
    const padding = ' '.repeat(Math.max(0, width - displayWidth(name)));
    return `${paint(styles[i], `${name}${padding} |`)} `;
  });
}

/** Returns whether stdout and stderr are the same terminal, file or pipe. */
export function isOneStream(): boolean {
  const [out, err] = [1, 2].map((fd) => {
    try {
      return fs.fstatSync(fd);
    } catch {
      return undefined;
    }
  });
  // On Windows, pipes and consoles have no number.
  return out !== undefined && out.ino !== 0 && out.ino === err?.ino && out.dev === err.dev && out.rdev === err.rdev;
}

/** Writes all bytes to stdout or stderr. Throws the system's error; EPIPE means that the reader is gone. */
export function writeBytes(fd: 1 | 2, bytes: Buffer): void {
  clearProgress();
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      // Another process made the pipe non-blocking, and the pipe is full.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}
