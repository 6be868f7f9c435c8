// Changes single settings in the text of a configuration file and keeps all other text.
import type { Document, Pair } from 'yaml';
import { parseConfig } from './file.ts';
import type { SettingKey, SettingValue } from './keys.ts';

/**
 * Returns the text of a configuration file with a setting changed or added; undefined if that is not possible without
 * changing something else. Keeps comments, order and spelling.
 */
export async function textWith(text: string, key: SettingKey, value: SettingValue): Promise<string | undefined> {
  const { isScalar, Scalar } = await import('yaml');
  const isRight = async (after: string) =>
    (await parseConfig('', after, [])).values.get(key) === value && (await isSameBut(key, text, after));
  const document = await parsed(text);
  if (document === undefined) return undefined;
  const keys = (await findPair(document, key)).keys;
  const old = document.getIn(keys, true);
  // The Go CLI reads YAML 1.1, where an unquoted `no` is a boolean.
  const scalarText = typeof value === 'string' ? JSON.stringify(value) : String(value);
  if (isScalar(old) && old.range && old.type !== 'BLOCK_FOLDED' && old.type !== 'BLOCK_LITERAL') {
    const [start, end] = old.range;
    const after = text.slice(0, start) + scalarText + text.slice(end);
    if (start < end && (await isRight(after))) return after;
  }
  const scalar = new Scalar(value);
  if (typeof value === 'string') scalar.type = 'QUOTE_DOUBLE';
  if (isScalar(old))
    Object.assign(scalar, { comment: old.comment, commentBefore: old.commentBefore, spaceBefore: old.spaceBefore });
  const after = written(document, () => document.setIn(keys, scalar));
  return after !== undefined && (await isRight(after)) ? after : undefined;
}

/**
 * Returns the text of a configuration file without a key, which may be unknown (`tailscale.hostnam`); the same text if it
 * does not have the key, and undefined if the key cannot be removed without changing something else.
 */
export async function textWithout(text: string, dotted: string): Promise<string | undefined> {
  let rest = text;
  for (;;) {
    const document = await parsed(rest);
    if (document === undefined) return undefined;
    const { pair, keys } = await findPair(document, dotted);
    if (pair === undefined) return rest;
    const isShorter = (after: string) => after.length < rest.length;
    const candidates = [withoutLines(rest, pair), written(document, () => document.deleteIn(keys))];
    let next: string | undefined;
    for (const after of candidates) {
      const isUsable = after !== undefined && isShorter(after) && (await isSameBut(dotted, rest, after));
      if (isUsable) next ??= after;
    }
    if (next === undefined) return undefined;
    // A key can be there twice, in different spellings.
    rest = next;
  }
}

/** Changes a document and returns its text; undefined if that is not possible, as with an alias without its anchor. */
function written(document: Document, change: () => void): string | undefined {
  try {
    change();
    return document.toString({ lineWidth: 0 });
  } catch {
    return undefined;
  }
}

async function parsed(text: string): Promise<Document.Parsed | undefined> {
  const { parseDocument } = await import('yaml');
  const document = parseDocument(text, { prettyErrors: false });
  return document.errors.length === 0 ? document : undefined;
}

/**
 * Finds a key in any case. Returns its spelling in the document, because the Go CLI writes keys in lower case, and the
 * documented one for the parts that are not there.
 */
async function findPair(document: Document, dotted: string): Promise<{ pair: Pair | undefined; keys: string[] }> {
  const { isMap, isScalar } = await import('yaml');
  const keys: string[] = [];
  let pair: Pair | undefined;
  let node: unknown = document.contents;
  let parts = dotted.split('.');
  while (parts.length > 0) {
    // `tailscale.port: 443` is the same as a map in a map.
    const find = (name: string) =>
      isMap(node)
        ? node.items.find(({ key }) => isScalar(key) && String(key.value).toLowerCase() === name.toLowerCase())
        : undefined;
    const whole = find(parts.join('.'));
    const [part = '', ...rest] = whole === undefined ? parts : [parts.join('.')];
    pair = whole ?? find(part);
    keys.push(isScalar(pair?.key) ? String(pair.key.value) : part);
    node = pair?.value;
    parts = rest;
  }
  return { pair, keys };
}

/** Returns the text without the lines of a key in block style, and with the comments around them; else undefined. */
function withoutLines(text: string, { key }: Pair): string | undefined {
  const start = (key as { readonly range?: readonly number[] }).range?.[0];
  if (start === undefined) return undefined;
  const lines = text.split(/(?<=\n)/);
  const first = text.slice(0, start).split('\n').length - 1;
  const indent = (line: string) => line.search(/[^ ]|$/);
  const column = indent(lines[first] ?? '');
  if (text.lastIndexOf('\n', start - 1) + 1 + column !== start) return undefined;
  let last = first;
  for (let at = first + 1; at < lines.length; at++) {
    const line = lines[at] ?? '';
    if (/^\s*(?:#|$)/.test(line)) continue;
    // A list may be as far left as its key.
    const isOfKey = indent(line) > column || (indent(line) === column && /^ *-(?:\s|$)/.test(line));
    if (!isOfKey) break;
    last = at;
  }
  return lines.toSpliced(first, last - first + 1).join('');
}

/** Returns whether two texts have the same settings except for one key, and no new problems. */
async function isSameBut(dotted: string, before: string, after: string): Promise<boolean> {
  const [[old, earlier], [now, left]] = await Promise.all([before, after].map(contentsOf) as [Contents, Contents]);
  const rest = (lines: readonly string[]) => lines.filter((line) => !isOf(dotted, line)).join('\n');
  return left <= earlier && rest(old) === rest(now);
}

type Contents = Promise<readonly [lines: readonly string[], problems: number]>;

async function contentsOf(text: string): Contents {
  const problems: string[] = [];
  const { values, unused, unknown } = await parseConfig('', text, problems);
  const pairs = [...values, ...unused].map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
  return [[...pairs, ...unknown.map((key) => `${key}:`)].sort(), problems.length];
}

function isOf(dotted: string, line: string): boolean {
  const text = line.toLowerCase();
  return text.startsWith(`${dotted.toLowerCase()}:`) || text.startsWith(`${dotted.toLowerCase()}.`);
}
