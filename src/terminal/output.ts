// How the program speaks. This file prints every line that a person reads.
//
// - stdout gets only the answer. With `-o json|yaml` that is exactly one document.
// - Messages go to stderr: notices (silent with --quiet), warnings (`warning: …`), debug lines.
// - An error is `error: <one lower-case line>`, then at least one `hint: <what to type next>`. Only a configuration with
//   several problems has several `error:` lines. The same hint is printed once.
// - No stack traces without --debug. Never a token, and never a control character from outside.
// - A reader that closes the pipe (`| head`) is not an error.
// - Colour only repeats what the words say, and never is in data for programs.
import { inspect } from 'node:util';
import { writeAll } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import { shortDuration } from '../util/time.ts';
import { type Paint, painter, type Style } from './colour.ts';
import { clearProgress, type WaitText, withProgress } from './progress.ts';
import { displayWidth } from './width.ts';

export type OutputFormat = 'table' | 'wide' | 'json' | 'yaml' | 'name';

export interface Terminal {
  /** Data for stdout; ends with a newline. */
  out(text: string): void;
  /** Data for stdout that is clean already, such as a table: its colours stay. */
  outPainted(text: string): void;
  /** Information; silent with --quiet. */
  notice(line: string): void;
  warn(line: string): void;
  hint(line: string): void;
  /** Only with --debug or TKA_DEBUG=1. */
  log(line: string): void;
  /** Runs a task and returns its result. Says on a terminal what the program waits for, if it takes long. */
  waiting<T>(text: WaitText, task: () => Promise<T>): Promise<T>;
}

// Characters that a terminal obeys or does not show: controls except newlines and tabs, and invisible characters.
const controls =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Returns the text without tokens and without control characters, except newlines and tabs. */
export function presentable(text: string): string {
  return text
    .replace(/\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}/g, '[redacted token]')
    .replace(/(\bbearer\s+)[^\s"',]+/gi, '$1[redacted token]')
    .replace(controls, '');
}

/** Returns presentable() of a text, joined into one line. */
function presentableLine(text: string): string {
  return presentable(linesOf(text).join(' '));
}

// `/\s*[\n\r]\s*/` would take quadratic time on a run of spaces.
function linesOf(text: string): string[] {
  return text.replace(/\s+/g, (run) => (/[\n\r]/.test(run) ? '\n' : run)).split('\n');
}

const hex = (code: number, digits: number) => code.toString(16).padStart(digits, '0');
const escapedInJson = (c: string) => c.replace(/[\s\S]/g, (unit) => `\\u${hex(unit.charCodeAt(0), 4)}`);
// Go's YAML parser refuses surrogates.
const escapedInYaml = (c: string) => (c.length === 1 ? escapedInJson(c) : `\\U${hex(c.codePointAt(0) ?? 0, 8)}`);

function write(fd: 1 | 2, text: string): void {
  clearProgress();
  try {
    writeAll(fd, text);
  } catch (error) {
    // The reader has closed the pipe.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

const onStderr = painter(2);
const labels = { error: ['bold', 'red'], warning: ['bold', 'yellow'], hint: 'dim' } as const;
const labelled = (label: keyof typeof labels, line: string) => `${onStderr(labels[label], `${label}:`)} ${line}\n`;

// Hints printed so far: several failures may have the same hint.
const hinted = new Set<string>();

function sayHint(line: string): void {
  hinted.add(line);
  write(2, labelled('hint', presentableLine(line)));
}

/**
 * Returns a terminal that prints to this process's stdout and stderr. `progress` allows a line that says what the
 * program waits for.
 */
export function openTerminal(options: { debug: boolean; quiet: boolean; progress?: boolean }): Terminal {
  const showsProgress = options.progress === true && !options.debug && !options.quiet;
  const say = (line: string) => write(2, `${presentableLine(line)}\n`);
  // Only for --debug: Node loads its clock on first use.
  const started = options.debug ? performance.now() : 0;
  return {
    out: (text) => write(1, text.replace(controls, '')),
    outPainted: (text) => write(1, text),
    notice: (line) => {
      if (!options.quiet) say(line);
    },
    warn: (line) => write(2, labelled('warning', presentableLine(line))),
    hint: (line) => {
      if (!hinted.has(line)) sayHint(line);
    },
    log: (line) => {
      if (options.debug) say(`debug: ${(performance.now() - started).toFixed(0)} ms: ${line}`);
    },
    waiting: (text, task) => (showsProgress ? withProgress(text, task) : task()),
  };
}

/**
 * Prints an error and its hints to stderr; `lastResort` is the hint for an error without any. `debug` adds stacks and
 * causes. `named` puts names of clusters into hints. Returns the exit status.
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
    write(2, labelled('error', presentable(line)));
  const own = known ? error.hints : ['run it again with --debug, and report what it says'];
  const hints = (own.length > 0 ? own : [lastResort ?? []].flat()).map(named);
  const fresh = hints.filter((hint) => !hinted.has(hint));
  // Never print an error without a hint.
  for (const hint of fresh.length > 0 ? fresh : hints) sayHint(hint);
  for (let e = error, depth = 0; debug && e instanceof Error && depth < 8; e = e.cause, depth++) {
    write(2, presentable(`debug: ${depth === 0 ? '' : 'caused by '}${e.stack ?? e.message}\n`));
  }
  return known ? error.exitCode : 1;
}

/** Returns an untrusted text as one table cell, or one line of a list. */
export function cell(text: string): string {
  return text.replace(/\s+/g, ' ').replace(controls, '');
}

/** A cell of a table: a text, or one with a style. */
export type Cell = string | { readonly text: string; readonly style: Style | undefined };

export interface TableOptions {
  /** False with --no-headers. */
  readonly showsHeadings?: boolean | undefined;
  /** Paints styled cells; for stdout by default. */
  readonly paint?: Paint;
}

/** Returns rows under headings, columns three spaces apart as kubectl prints them; '' for no rows. */
export function table(
  headings: readonly string[],
  rows: readonly (readonly Cell[])[],
  options: TableOptions = {},
): string {
  return new TableLines(headings, options).add(rows);
}

/** A table that grows. Later rows use the columns of the earlier ones, which only get wider. */
export class TableLines {
  readonly #headings: readonly string[];
  readonly #paint: Paint;
  #widths: readonly number[] | undefined;

  readonly #showsHeadings: boolean;

  constructor(headings: readonly string[], { showsHeadings = true, paint = painter(1) }: TableOptions = {}) {
    this.#headings = headings;
    this.#showsHeadings = showsHeadings;
    this.#paint = paint;
  }

  /** Returns more rows as lines; the first call also returns the headings. Returns '' for no rows. */
  add(rows: readonly (readonly Cell[])[]): string {
    if (rows.length === 0) return '';
    const cells = rows.map((row) =>
      row.map((each) => {
        const { text, style } = typeof each === 'string' ? { text: each, style: undefined } : each;
        return { text: cell(text), style };
      }),
    );
    const headings = this.#headings.map((text) => ({ text, style: undefined }));
    const lines = this.#widths === undefined && this.#showsHeadings ? [headings, ...cells] : cells;
    const before = this.#widths ?? [];
    const widths = this.#headings.map((_, column) =>
      lines.reduce((width, line) => Math.max(width, displayWidth(line[column]?.text ?? '')), before[column] ?? 0),
    );
    this.#widths = widths;
    // Pad the plain text: colours have no width.
    const pad = ({ text, style }: (typeof cells)[number][number], column: number) => {
      const padding = column === widths.length - 1 ? 0 : (widths[column] ?? 0) - displayWidth(text) + 3;
      return this.#paint(text === '' ? undefined : style, text) + ' '.repeat(padding);
    };
    return `${lines.map((line) => line.map(pad).join('').trimEnd()).join('\n')}\n`;
  }
}

/** Returns one document of data in the given format, control characters escaped. */
export async function structured(format: 'json' | 'yaml', data: unknown): Promise<string> {
  if (format === 'json') return `${JSON.stringify(data, null, 2).replace(controls, escapedInJson)}\n`;
  const { Document, visit } = await import('yaml');
  const document = new Document(data, { version: '1.1' });
  visit(document, {
    Scalar: (_, node) => {
      // In YAML, only double-quoted scalars have escapes.
      if (typeof node.value === 'string' && node.value.search(controls) >= 0) node.type = 'QUOTE_DOUBLE';
    },
  });
  return document.toString({ lineWidth: 0 }).replace(controls, escapedInYaml);
}

/** Returns a time for a server's admin, whose time zone a pod does not know: `2026-11-21 09:30:05 UTC, in 29m`. */
export function when(time: number, now = Date.now()): string {
  const stamp = `${new Date(time).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
  const distance = shortDuration(Math.abs(time - now));
  return time >= now ? `${stamp}, in ${distance}` : `${stamp}, ${distance} ago`;
}
