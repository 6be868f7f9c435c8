import { damage } from './damage.ts';
import { escapeForYaml, isPlainMap, type Plain, type PlainMap } from './value.ts';

/** Matches a number, or a string with the colon behind it if it is a key. */
const token = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|-?\d[\w.+-]*/gs;

/** Returns the value of a JSON object without duplicate keys; undefined for any other text. Never throws. */
export function parseJson(text: string): PlainMap | undefined {
  if (!text.trimStart().startsWith('{')) return undefined;
  try {
    const value: Plain = JSON.parse(text.replace(/^\ufeff/, ''));
    let keys = 0;
    for (const [, colon] of text.matchAll(token)) if (colon !== undefined) keys++;
    return isPlainMap(value) && keysOf(value) === keys ? value : undefined;
  } catch {
    return undefined;
  }
}

function keysOf(value: Plain): number {
  if (typeof value !== 'object' || value === null) return 0;
  const values = Object.values(value);
  return values.reduce((sum: number, each) => sum + keysOf(each), isPlainMap(value) ? values.length : 0);
}

/**
 * Prints a JSON file with a new value. Keeps its indentation (two spaces if it has none), its line ends, and the white
 * space around it. Throws TkaError for a number that would not stay as written, such as one with twenty digits.
 */
export function printJson(
  source: { readonly file: string; readonly text: string; readonly lines: string },
  value: PlainMap,
): string {
  const { text } = source;
  for (const { 0: found, index } of text.matchAll(token)) {
    if (found.startsWith('"') || String(Number(found)) === found) continue;
    throw damage(source, index, `cannot edit this safely: the number ${found} would change`);
  }
  const [head, tail] = [text.slice(0, -text.trimStart().length), text.slice(text.trimEnd().length)];
  const indent = /^\{[ \t\r]*\n([ \t]+)/.exec(text.trimStart())?.[1] ?? '  ';
  return (
    head +
    escapeForYaml(JSON.stringify(value, null, indent)).replaceAll('\n', text.includes('\r\n') ? '\r\n' : '\n') +
    tail
  );
}
