// How the program speaks. stdout carries the answer and nothing else; everything said to a person goes to stderr.
// An error is `error: <one lower-case line>`, then `hint: <what to type next>` lines; only a configuration with several
// problems has several such lines. No stack trace, no token, and no control character of anybody else's reaches either
// stream.
import { inspect } from 'node:util';
import { writeAll } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import { displayWidth } from './width.ts';

export type OutputFormat = 'table' | 'wide' | 'json' | 'yaml' | 'name';

export interface Terminal {
  /** Data for stdout; ends with a newline. */
  out(text: string): void;
  /** What a person may like to know; silent with --quiet. */
  notice(line: string): void;
  warn(line: string): void;
  hint(line: string): void;
  /** Only with --debug or TKA_DEBUG=1. */
  log(line: string): void;
}

// What a terminal obeys, or shows otherwise than it is: controls but for newlines and tabs, and invisible characters.
const controls =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Text without control characters (but for newlines and tabs) and without anything that looks like a token. */
export function presentable(text: string): string {
  return text
    .replace(/\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}/g, '[redacted token]')
    .replace(/(\bbearer\s+)[^\s"',]+/gi, '$1[redacted token]')
    .replace(controls, '');
}

/** The same, on one line. */
function presentableLine(text: string): string {
  return presentable(linesOf(text).join(' '));
}

// Not by `/\s*[\n\r]\s*/`, which takes time in proportion to the square of a run of spaces.
function linesOf(text: string): string[] {
  return text.replace(/\s+/g, (run) => (/[\n\r]/.test(run) ? '\n' : run)).split('\n');
}

const hex = (code: number, digits: number) => code.toString(16).padStart(digits, '0');
const escapedInJson = (c: string) => c.replace(/[\s\S]/g, (unit) => `\\u${hex(unit.charCodeAt(0), 4)}`);
// Go's YAML refuses surrogates.
const escapedInYaml = (c: string) => (c.length === 1 ? escapedInJson(c) : `\\U${hex(c.codePointAt(0) ?? 0, 8)}`);

function write(fd: 1 | 2, text: string): void {
  try {
    writeAll(fd, text);
  } catch (error) {
    // The reader has gone (`| head`): nobody is left to be told.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

// Several failures may have one remedy, which need not be told twice.
const hinted = new Set<string>();

function sayHint(line: string): void {
  hinted.add(line);
  write(2, `hint: ${presentableLine(line)}\n`);
}

/** A terminal on this process's streams. */
export function openTerminal(options: { debug: boolean; quiet: boolean }): Terminal {
  const say = (line: string) => write(2, `${presentableLine(line)}\n`);
  // Not looked at but for --debug: Node loads its clock when it is first asked.
  const started = options.debug ? performance.now() : 0;
  return {
    out: (text) => write(1, text.replace(controls, '')),
    notice: (line) => {
      if (!options.quiet) say(line);
    },
    warn: (line) => say(`warning: ${line}`),
    hint: (line) => {
      if (!hinted.has(line)) sayHint(line);
    },
    log: (line) => {
      if (options.debug) say(`debug: ${(performance.now() - started).toFixed(0)} ms: ${line}`);
    },
  };
}

/**
 * Says an error, each of its lines as one, and its hints on stderr; `lastResort` where it has none. With `debug` also
 * where it came from. `named` puts names of clusters into hints. Returns the exit status.
 */
export function sayError(
  error: unknown,
  debug: boolean,
  lastResort?: string,
  named: (hint: string) => string = (hint) => hint,
): number {
  const known = error instanceof TkaError;
  if (known && error.heard && !debug) return error.exitCode;
  const message = error instanceof Error ? error.message : inspect(error);
  const text = known ? message : `unexpected: ${message.split('\n', 1)[0]}`;
  for (const line of linesOf(text).filter((part, i) => part !== '' || i === 0))
    write(2, `error: ${presentable(line)}\n`);
  const own = known ? error.hints : ['run it again with --debug, and report what it says'];
  const hints = (own.length > 0 ? own : [lastResort ?? []].flat()).map(named);
  const fresh = hints.filter((hint) => !hinted.has(hint));
  // An error is never without a hint.
  for (const hint of fresh.length > 0 ? fresh : hints) sayHint(hint);
  for (let e = error, depth = 0; debug && e instanceof Error && depth < 8; e = e.cause, depth++) {
    write(2, presentable(`debug: ${depth === 0 ? '' : 'caused by '}${e.stack ?? e.message}\n`));
  }
  return known ? error.exitCode : 1;
}

/** A text from elsewhere as one cell of a table, or one line of a list. */
export function cell(text: string): string {
  return text.replace(/\s+/g, ' ').replace(controls, '');
}

/** Rows under headings, columns three spaces apart as kubectl prints them; '' for no rows. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  return new TableLines(headings).add(rows);
}

/** A table that grows: what comes later stands in the columns of what was there, which only get wider. */
export class TableLines {
  readonly #headings: readonly string[];
  #widths: readonly number[] | undefined;

  constructor(headings: readonly string[]) {
    this.#headings = headings;
  }

  /** More rows as lines, the first ones under the headings; '' for no rows. */
  add(rows: readonly (readonly string[])[]): string {
    if (rows.length === 0) return '';
    const cells = rows.map((row) => row.map(cell));
    const lines = this.#widths === undefined ? [this.#headings, ...cells] : cells;
    const before = this.#widths ?? [];
    const widths = this.#headings.map((_, column) =>
      lines.reduce((width, line) => Math.max(width, displayWidth(line[column] ?? '')), before[column] ?? 0),
    );
    this.#widths = widths;
    const pad = (text: string, column: number) =>
      column === widths.length - 1 ? text : text + ' '.repeat((widths[column] ?? 0) - displayWidth(text) + 3);
    return `${lines.map((line) => line.map(pad).join('').trimEnd()).join('\n')}\n`;
  }
}

/** One document of data in the given format; what a terminal would obey is escaped in it. */
export async function structured(format: 'json' | 'yaml', data: unknown): Promise<string> {
  if (format === 'json') return `${JSON.stringify(data, null, 2).replace(controls, escapedInJson)}\n`;
  const { Document, visit } = await import('yaml');
  const document = new Document(data, { version: '1.1' });
  visit(document, {
    Scalar: (_, node) => {
      // Only there are escapes known.
      if (typeof node.value === 'string' && node.value.search(controls) >= 0) node.type = 'QUOTE_DOUBLE';
    },
  });
  return document.toString({ lineWidth: 0 }).replace(controls, escapedInYaml);
}

/** A time as a person reads it: `2026-11-21 09:30:05 UTC, in 29m`. */
export function when(time: number, now = Date.now()): string {
  const stamp = `${new Date(time).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
  const distance = shortDuration(Math.abs(time - now));
  return time >= now ? `${stamp}, in ${distance}` : `${stamp}, ${distance} ago`;
}

/** A duration as kubectl prints ages: `45s`, `29m`, `7h30m`, `3d`. */
export function shortDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours}h` : `${hours}h${minutes % 60}m`;
  return `${Math.floor(hours / 24)}d`;
}
