import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Capture, LineSplitter, prefixes } from '../../../src/cli/exec/output.ts';

function split(chunks: readonly Buffer[], limit = 1000): { lines: string[]; tooLong: number } {
  const lines: string[] = [];
  let tooLong = 0;
  const splitter = new LineSplitter({
    limit,
    line: (line) => lines.push(line.toString('utf8')),
    tooLong: () => tooLong++,
  });
  for (const chunk of chunks) splitter.push(chunk);
  splitter.end();
  return { lines, tooLong };
}

/** Splits a text into chunks whose sizes come from a fixed sequence. */
function chunksOf(bytes: Buffer, seed: number, largest: number): Buffer[] {
  const chunks: Buffer[] = [];
  let state = seed;
  for (let at = 0; at < bytes.length; ) {
    state = (state * 1103515245 + 12345) % 2147483648;
    const size = 1 + (state % largest);
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

describe('LineSplitter', () => {
  it.each([
    ['', []],
    ['a', ['a']],
    ['a\n', ['a']],
    ['a\nb', ['a', 'b']],
    ['\n', ['']],
    ['\n\na\n\n', ['', '', 'a', '']],
    ['a\r\nb\r\n', ['a\r', 'b\r']],
    ['höhe\n日本\n', ['höhe', '日本']],
  ])('%j', (text, expected) => expect(split([Buffer.from(text)]).lines).toEqual(expected));

  it('gives the same lines for any chunk sizes', () => {
    const text = Array.from({ length: 300 }, (_, i) => '日本é🙂x'.repeat(i % 17) + i).join('\n');
    for (let seed = 1; seed <= 50; seed++)
      expect(split(chunksOf(Buffer.from(text), seed, 1 + (seed % 40))).lines).toEqual(text.split('\n'));
  });

  it('gives no line before it is complete', () => {
    const lines: string[] = [];
    const splitter = new LineSplitter({ limit: 100, line: (line) => lines.push(String(line)) });
    splitter.push(Buffer.from('hal'));
    expect(lines).toEqual([]);
    splitter.push(Buffer.from('f\nwhole'));
    expect(lines).toEqual(['half']);
  });

  it.each([1, 2, 3, 7, 64])(
    'splits a line over the limit into pieces without cutting a character (chunks of %d)',
    (size) => {
      const text = `${'🙂é日x'.repeat(50)}\nshort\n`;
      const bytes = Buffer.from(text);
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
        bytes.subarray(i * size, (i + 1) * size),
      );
      const { lines, tooLong } = split(chunks, 64);
      expect(tooLong).toBeGreaterThan(5);
      expect(lines.join('')).toBe(text.replaceAll('\n', ''));
      for (const line of lines) expect(Buffer.byteLength(line)).toBeLessThanOrEqual(64);
      expect(lines.at(-1)).toBe('short');
    },
  );

  it('keeps a line of exactly the limit whole', () => {
    expect(split([Buffer.from('a'.repeat(64)), Buffer.from('\nb\n')], 64)).toEqual({
      lines: ['a'.repeat(64), 'b'],
      tooLong: 0,
    });
  });

  it('passes invalid UTF-8 on unchanged', () => {
    const lines: Buffer[] = [];
    const splitter = new LineSplitter({ limit: 4, line: (line) => lines.push(line) });
    const bytes = Buffer.from([0xff, 0xfe, 0x80, 0x80, 0x80, 0x80, 0x80, 0xc3, 0x0a]);
    splitter.push(bytes);
    expect(Buffer.concat(lines)).toEqual(bytes.subarray(0, -1));
  });

  it('limits its memory: 200 MiB without a newline are not buffered', () => {
    let pieces = 0;
    let longest = 0;
    const splitter = new LineSplitter({
      limit: 1024 * 1024,
      line: (line) => {
        pieces++;
        longest = Math.max(longest, line.length);
      },
    });
    const chunk = Buffer.alloc(64 * 1024, 'x');
    for (let i = 0; i < 3200; i++) splitter.push(chunk);
    splitter.end();
    expect(pieces).toBe(200);
    expect(longest).toBe(1024 * 1024);
  });
});

describe('prefixes', () => {
  it('have the same width; a wide character counts as two', () => {
    expect(prefixes(['prod-us', 'eu', '東京'])).toEqual(['prod-us | ', 'eu      | ', '東京    | ']);
  });
  it('leave a very long name out of the width', () => {
    expect(prefixes(['a', 'bb', 'c'.repeat(60)])).toEqual(['a  | ', 'bb | ', `${'c'.repeat(60)} | `]);
  });
});

describe('Capture', () => {
  it('keeps the beginning, up to its own limit and the common one, and reports the cut', () => {
    const budget = { left: 10 };
    const [a, b] = [new Capture(6, budget), new Capture(6, budget)];
    a.push(Buffer.from('abc'));
    a.push(Buffer.from('defghi'));
    a.push(Buffer.from('jkl'));
    b.push(Buffer.from('123'));
    expect(b.cut).toBe(false);
    b.push(Buffer.from('45'));
    b.push(Buffer.from('6'));
    expect([a.text(), a.cut, b.text(), b.cut]).toEqual(['abcdef', true, '1234', true]);
  });
  it('cuts between characters', () => {
    const capture = new Capture(5, { left: 100 });
    capture.push(Buffer.from('日本語'));
    expect(capture.text()).toBe('日');
  });
});

it.skipIf(process.platform === 'win32')(
  'a full non-blocking pipe is waited for without a busy loop, and loses nothing',
  async () => {
    const size = 4_000_000;
    const child = spawn(process.execPath, [path.join(import.meta.dirname, 'full-pipe.ts'), String(size)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const told = text(child.stderr);
    // From the start: a child that fails ends before it is read.
    const closed = once(child, 'close');
    await once(child.stderr, 'readable');
    // Milliseconds without a reader.
    const pause = 1500;
    await delay(pause);
    let read = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      read += chunk.length;
    });
    await closed;
    expect(read).toBe(size);
    expect(child.exitCode).toBe(0);
    const { tries, ms } = JSON.parse((await told).split('\n')[1] ?? '');
    expect(tries).toBeGreaterThan(0);
    // At most every 2 ms; a busy loop would try thousands of times.
    expect(tries).toBeLessThan(ms);
  },
);
