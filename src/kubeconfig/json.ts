import { escapeForYaml } from './render.ts';
import type { Layout } from './source.ts';
import { eol, unsafe } from './text.ts';
import type { Plain, PlainMap } from './value.ts';

/** Returns the value of a file that is JSON; undefined for any other text. */
export function parseJson({ text }: Pick<Layout, 'text'>): Plain | undefined {
  try {
    return JSON.parse(text.replace('\ufeff', ''));
  } catch {
    return undefined;
  }
}

/**
 * Prints a JSON file anew: indented as it is, else by two spaces, with its line ends and what is around it. Throws
 * TkaError for a number that would not stay as it is written, such as one with twenty digits.
 */
export function printJson(source: Layout, value: PlainMap): string {
  const { text } = source;
  const tokens = text.match(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\w.+-]*/gs) ?? [];
  const changed = tokens.find((token) => !token.startsWith('"') && String(Number(token)) !== token);
  if (changed !== undefined) throw unsafe(source, text.indexOf(changed), `the number ${changed} would change`);
  const [head, tail] = [text.slice(0, -text.trimStart().length), text.slice(text.trimEnd().length)];
  const indent = /^\{[ \t\r]*\n([ \t]+)/.exec(text.trimStart())?.[1] ?? '  ';
  return head + escapeForYaml(JSON.stringify(value, null, indent)).replaceAll('\n', eol(source)) + tail;
}
