// Edits YAML as text: every YAML package that prints a whole document changes the user's comments and quotes.

import { type CST, isAlias, isMap, isSeq, type Node, type YAMLMap } from 'yaml';
import { shellWord } from './damage.ts';
import { findPair, type Layout } from './source.ts';
import {
  afterOwnComments,
  column,
  eol,
  insertLines,
  itemEnd,
  itemStart,
  lastSign,
  lineStart,
  nextLine,
  requirePrivate,
  type TextEdit,
  tokenEnd,
  unsafe,
  type YamlItem,
  type YamlPair,
} from './text.ts';
import { blockItems, blockPair, flow, flowPair, type Plain, type PlainMap } from './value.ts';

// --- fields ----------------------------------------------------------------------------------------------------------

/**
 * Returns the edits that replace the value of a key. Throws TkaError if other parts of the file refer to the old value.
 */
export function replaceValue(source: Layout, pair: YamlPair, value: Plain): TextEdit[] {
  const node = pair.value;
  if (node && !isAlias(node)) requirePrivate(source, node);
  const item = pair.srcToken as YamlItem | undefined;
  const token = item?.value;
  const until = tokenEnd(token);
  if (token && until !== undefined) {
    const from =
      token.type === 'block-seq'
        ? ((token.items[0]?.start ?? []).find((t) => t.type === 'seq-item-ind')?.offset ?? token.offset)
        : token.offset;
    if (token.type !== 'block-seq' || !Array.isArray(value)) return [{ start: from, end: until, text: flow(value) }];
    const indent = ' '.repeat(column(source, from));
    const text = blockItems(value, indent).slice(indent.length, -1).replaceAll('\n', eol(source));
    return [{ start: from, end: until, text }];
  }
  const behind = lastSign(item?.sep);
  if (behind === undefined) throw unsafe(source, node?.range?.[0] ?? 0, 'a key without a colon');
  return [{ start: behind, end: behind, text: ` ${flow(value)}` }];
}

function replaceItem(source: Layout, node: Node | null | undefined, value: Plain): TextEdit {
  const token = node?.srcToken;
  const end = tokenEnd(token);
  if (!node || !token || end === undefined) throw unsafe(source, node?.range?.[0] ?? 0, 'an empty list item');
  if (!isAlias(node)) requirePrivate(source, node);
  return { start: token.offset, end, text: flow(value) };
}

function addPairs(source: Layout, map: YAMLMap, pairs: readonly [string, Plain][]): TextEdit[] {
  const token = map.srcToken;
  if (token?.type === 'flow-collection') {
    return [insertFlow(source, token, () => pairs.map(([key, value]) => flowPair(key, value)))];
  }
  const first = token?.type === 'block-map' ? token.items.find((item) => item.key) : undefined;
  const end = tokenEnd(token);
  if (!first?.key || end === undefined) throw unsafe(source, map.range?.[0] ?? 0, 'a map in an unusual form');
  const depth = column(source, itemStart(first));
  const text = pairs.map(([key, value]) => blockPair(key, value, ' '.repeat(depth))).join('');
  return [insertLines(source, afterOwnComments(source, end, depth), text)];
}

/** A field by its path below an entry, and its new value. */
export type Field = readonly [path: readonly (string | number)[], value: Plain];

function nest(fields: readonly Field[]): Plain {
  const [path, value] = fields[0] as Field;
  if (path.length === 0) return value;
  const out: PlainMap = {};
  for (const [key, group] of groups(fields)) out[key] = nest(group);
  return out;
}

function groups(fields: readonly Field[]): Map<string | number, Field[]> {
  const out = new Map<string | number, Field[]>();
  for (const [[key, ...rest], value] of fields) {
    if (key === undefined) continue;
    const group = out.get(key);
    if (group) group.push([rest, value]);
    else out.set(key, [[rest, value]]);
  }
  return out;
}

/**
 * Returns the edits that set fields below `node`. They replace the text of an old value, and add a missing field as a
 * line after its siblings. Throws TkaError if an alias, an anchor in use or an unusual form is in the way.
 */
export function setFields(source: Layout, node: Node | null | undefined, fields: readonly Field[]): TextEdit[] {
  const offset = node?.range?.[0] ?? 0;
  if (node) requirePrivate(source, node);
  const edits: TextEdit[] = [];
  const added: [string, Plain][] = [];
  for (const [key, group] of groups(fields)) {
    if (typeof key === 'number') {
      if (!isSeq(node)) throw unsafe(source, offset, 'a list that is defined elsewhere');
      const item = node.items[key] as Node | null | undefined;
      const whole = group.find(([rest]) => rest.length === 0);
      if (whole) edits.push(replaceItem(source, item, whole[1]));
      else edits.push(...setFields(source, item, group));
      continue;
    }
    if (!isMap(node)) throw unsafe(source, offset, 'a map that is defined elsewhere');
    const pair = findPair(node, key);
    const deeper = group.every(([rest]) => rest.length > 0);
    if (pair?.value && deeper && (isMap(pair.value) || isSeq(pair.value) || isAlias(pair.value))) {
      edits.push(...setFields(source, pair.value, group));
      continue;
    }
    // Only missing maps are created. A list without text here comes from a merge.
    if (group.some(([rest]) => rest.some((part) => typeof part === 'number'))) {
      throw unsafe(source, offset, `${key} comes from a merge (<<)`);
    }
    if (pair) edits.push(...replaceValue(source, pair, nest(group)));
    else added.push([key, nest(group)]);
  }
  return added.length > 0 ? [...edits, ...addPairs(source, node as YAMLMap, added)] : edits;
}

// --- list items ------------------------------------------------------------------------------------------------------

/** Number of new items at each end of a long run that verification parses. All items have the same shape. */
export const probed = 8;

/** Returns the items of a long run that verification parses. */
export function probeOf<T>(items: readonly T[]): readonly T[] {
  return items.length <= 2 * probed ? items : [...items.slice(0, probed), ...items.slice(-probed)];
}

const probeValue = (value: Plain): Plain => (Array.isArray(value) ? [...probeOf(value)] : value);

/**
 * Returns the edits that remove items (by index) from a section and add new ones at its end. The section must be in the
 * text. Throws TkaError if that is not safe.
 */
export function editSection(
  source: Layout,
  pair: YamlPair,
  removed: ReadonlySet<number>,
  created: readonly PlainMap[],
): TextEdit[] {
  const node = pair.value;
  const offset = node?.range?.[0] ?? 0;
  if (node) requirePrivate(source, node);
  const item = pair.srcToken as YamlItem | undefined;
  const colon = lastSign(item?.sep);
  if (!item?.key || colon === undefined) throw unsafe(source, offset, 'a section in an unusual form');
  const token = item.value;
  const end = tokenEnd(token);
  if (token?.type === 'flow-collection' && !isEmptyOnOneLine(source, token)) {
    const edits = removed.size > 0 ? removeFlow(source, token, removed) : [];
    const render = (probe: boolean) => (probe ? probeOf(created) : created).map((each) => flow(each));
    return created.length === 0 ? edits : [...edits, insertFlow(source, token, render)];
  }
  if (!token || end === undefined || token.type !== 'block-seq') {
    // The section is empty: remove its `[]` or `null`, keep a comment behind it, and add the items below.
    if (created.length === 0) return [];
    const indent = ' '.repeat(column(source, itemStart(item)));
    const edits: TextEdit[] = end === undefined ? [] : [{ start: colon, end, text: '' }];
    const at = nextLine(source, end ?? colon);
    return [...edits, insertItems(source, Math.min(at, source.end), indent, created)];
  }
  const items = token.items.filter((i) => i.start.some((t) => t.type === 'seq-item-ind'));
  if (!isSeq(node) || items.length !== node.items.length) throw unsafe(source, offset, 'a list in an unusual form');
  const edits = removeLines(
    source,
    items.filter((_, index) => removed.has(index)),
  );
  if (created.length > 0) {
    const dash = column(source, dashOf(items[0] as YamlItem));
    edits.push(insertItems(source, afterOwnComments(source, end, dash + 1), ' '.repeat(dash), created));
  } else if (removed.size > 0 && removed.size === items.length) {
    edits.unshift({ start: colon, end: colon, text: ' []' });
  }
  return edits;
}

const dashOf = (item: YamlItem): number => item.start.find((t) => t.type === 'seq-item-ind')?.offset ?? 0;

function isEmptyOnOneLine(source: Layout, token: CST.FlowCollection): boolean {
  return /^\[[ \t]*\]$/.test(source.lines.slice(token.offset, lastSign(token.end)));
}

function insertItems(source: Layout, at: number, indent: string, items: readonly PlainMap[]): TextEdit {
  return insertLines(source, at, blockItems(items, indent), blockItems(probeOf(items), indent));
}

// Removes the whole lines of items, from the dash to the last token. Comments above and below stay.
function removeLines(source: Layout, items: readonly YamlItem[]): TextEdit[] {
  const ranges: { start: number; end: number; text: string }[] = [];
  for (const item of items) {
    const dash = dashOf(item);
    const start = lineStart(source, dash);
    if (source.lines.slice(start, dash).trim() !== '')
      throw unsafe(source, dash, 'a list item that begins within a line');
    const end = nextLine(source, itemEnd(item) ?? dash);
    const last = ranges.at(-1);
    if (last?.end === start) last.end = end;
    else ranges.push({ start, end, text: '' });
  }
  const last = ranges.at(-1);
  // At the end of a file without a final line end, remove the line end before the item instead.
  if (last && last.start > 0 && source.lines[last.end - 1] !== '\n') {
    last.start -= source.lines.slice(0, last.start).endsWith('\r\n') ? 2 : 1;
  }
  return ranges;
}

/** Returns the edit that adds top-level pairs. Throws TkaError if that is not safe. */
export function addTopLevel(source: Layout, pairs: readonly (readonly [string, Plain])[]): TextEdit[] {
  const { root } = source;
  const token = root?.srcToken;
  if (root) requirePrivate(source, root);
  const end = tokenEnd(token) ?? 0;
  if (end > 0 && token?.type !== 'block-map')
    throw unsafe(source, root?.range?.[0] ?? 0, 'an empty value in place of a map');
  const first = token?.type === 'block-map' ? token.items.find((item) => item.key) : undefined;
  const indent = ' '.repeat(first ? column(source, itemStart(first)) : 0);
  const body = source.lines.slice(0, source.end);
  // Insert after the last comment and before blank lines, but never inside the last value.
  const at = Math.max(end > 0 ? nextLine(source, end) : 0, nextLine(source, body.trimEnd().length - 1));
  const render = (list: (value: Plain) => Plain) =>
    pairs.map(([key, value]) => blockPair(key, list(value), indent)).join('');
  const probe = render(probeValue);
  const full = render((value) => value);
  const bare = body.replace('\ufeff', '').trim() === '';
  const where = bare ? source.end : Math.min(at, source.end);
  return [insertLines(source, where, full, probe)];
}

const hasContent = (item: YamlItem): boolean => Boolean(item.key || item.value || item.sep);

/** Returns the items of a flow collection on one line, and where it closes. Throws TkaError if it has several lines. */
function onOneLine(source: Layout, collection: CST.FlowCollection): { items: YamlItem[]; close: number } {
  const { offset } = collection.start;
  const close = collection.end[0]?.offset ?? offset + 1;
  if (!source.lines.slice(offset, close).includes('\n')) {
    return { items: (collection.items as YamlItem[]).filter(hasContent), close };
  }
  throw unsafe(source, offset, 'a list or map in brackets over several lines', [asBlocks(source.file)]);
}

/** Returns the hint with the command that writes a file in block form. */
export function asBlocks(file: string): string {
  const [from, to] = [shellWord(file), shellWord(`${file}.new`)];
  return `write the file in block form: (umask 077; kubectl config view --raw --kubeconfig ${from} >${to}) && mv ${to} ${from}`;
}

/** Returns the edit that adds parts at the end of a flow collection. Throws TkaError if it has several lines. */
export function insertFlow(
  source: Layout,
  collection: CST.FlowCollection,
  render: (probe: boolean) => readonly string[],
): TextEdit {
  const last = onOneLine(source, collection).items.at(-1);
  const at = last === undefined ? collection.start.offset + 1 : (itemEnd(last) as number);
  const comma = last === undefined ? '' : ', ';
  const text = (probe: boolean) => comma + render(probe).join(', ');
  return { start: at, end: at, text: text(false), probe: text(true) };
}

/** Returns the edits that remove items (by index) from a flow list. Throws TkaError if it has several lines. */
export function removeFlow(source: Layout, collection: CST.FlowCollection, gone: ReadonlySet<number>): TextEdit[] {
  const { items, close } = onOneLine(source, collection);
  const indexes = [...items.keys()];
  const last = indexes.findLast((i) => !gone.has(i));
  if (last === undefined) return [{ start: collection.start.offset + 1, end: close, text: '' }];
  const startOf = (i: number) => itemStart(items[i] as YamlItem);
  const edits = indexes
    .filter((i) => i < last && gone.has(i))
    .map((i): TextEdit => ({ start: startOf(i), end: startOf(i + 1), text: '' }));
  if (last === items.length - 1) return edits;
  const endOf = (i: number) => itemEnd(items[i] as YamlItem) as number;
  return [...edits, { start: endOf(last), end: endOf(items.length - 1), text: '' }];
}
