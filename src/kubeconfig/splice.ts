import { type CST, isAlias, isMap, isSeq, type Node, type Pair, type YAMLMap } from 'yaml';
import { TkaError } from '../errors.ts';
import { blockItems, blockPair, type FlowLayout, flow, flowPair } from './render.ts';
import { damage, findPair, type Plain, type PlainMap, type Source } from './source.ts';

/** Text to stand in place of a range. `probe`, where given, is a shorter text of the same shape, for verification. */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
  readonly probe?: string;
}

type AnyPair = Pair<Node | null, Node | null>;
type Item = CST.CollectionItem;

/** The error for a place that cannot be spliced. */
export function unsafe(source: Source, offset: number, why: string): TkaError {
  const { message, hints } = damage(source, offset, `cannot edit this safely: ${why}`);
  return new TkaError(message, {
    hints: ['write that part out in plain form, or use another file: --kubeconfig FILE', ...hints],
  });
}

/** Edits applied, in order of place; where several begin at one place, in the order given. Throws for overlaps. */
export function applyEdits(text: string, edits: readonly Edit[], probe = false): string {
  const parts: string[] = [];
  let done = 0;
  for (const edit of edits.toSorted((a, b) => a.start - b.start || a.end - b.end)) {
    if (edit.start < done) throw new TkaError('the changes to the kubeconfig overlap');
    parts.push(text.slice(done, edit.start), probe ? (edit.probe ?? edit.text) : edit.text);
    done = edit.end;
  }
  parts.push(text.slice(done));
  return parts.join('');
}

// --- where things end ------------------------------------------------------------------------------------------------

const blank = new Set(['space', 'newline', 'comment', 'comma']);

function lastSign(tokens: readonly CST.SourceToken[] | undefined): number | undefined {
  const token = tokens?.findLast((t) => !blank.has(t.type));
  return token && token.offset + token.source.length;
}

// Node ranges leave out `- ` and anchors and swallow comments behind empty values, so ends are read off the tokens.
function itemEnd(item: Item): number | undefined {
  return tokenEnd(item.value) ?? lastSign(item.sep) ?? tokenEnd(item.key) ?? lastSign(item.start);
}

function tokenEnd(token: CST.Token | null | undefined): number | undefined {
  if (!token) return undefined;
  switch (token.type) {
    case 'alias':
    case 'scalar':
    case 'single-quoted-scalar':
    case 'double-quoted-scalar':
      return token.source === '' ? undefined : token.offset + token.source.length;
    case 'block-scalar': {
      const header = token.props.reduce((end, prop) => ('source' in prop ? prop.offset + prop.source.length : end), 0);
      const all = (token.props.at(-1) as CST.SourceToken | undefined)?.source + token.source;
      return header + token.source.length - (/\r?\n$/.exec(all)?.[0].length ?? 0);
    }
    case 'flow-collection':
      return lastSign(token.end);
    case 'block-map':
    case 'block-seq':
      for (let i = token.items.length - 1; i >= 0; i--) {
        const end = itemEnd(token.items[i] as Item);
        if (end !== undefined) return end;
      }
      return undefined;
    default:
      return undefined;
  }
}

// --- lines -----------------------------------------------------------------------------------------------------------

const lineStart = (source: Source, offset: number): number => {
  const begin = source.lines.lastIndexOf('\n', offset - 1) + 1;
  return begin === 0 && source.lines.startsWith('\ufeff') ? 1 : begin;
};

const nextLine = (source: Source, offset: number): number =>
  source.lines.indexOf('\n', offset) + 1 || source.text.length;

const indentOf = (source: Source, offset: number): string =>
  /^[ \t]*/.exec(source.lines.slice(lineStart(source, offset), offset))?.[0] ?? '';

const column = (source: Source, offset: number): number => offset - lineStart(source, offset);

// The line after the one of `offset`, and after comments from column `depth` on: these belong to what ends here.
function afterOwnComments(source: Source, offset: number, depth: number): number {
  let result = nextLine(source, offset);
  for (let at = result; at < source.end; at = nextLine(source, at)) {
    const line = source.lines.slice(at, nextLine(source, at));
    const indent = /^ *(?=#)/.exec(line)?.[0].length;
    if (indent !== undefined && indent >= depth) result = nextLine(source, at);
    else if (line.trim() !== '') break;
  }
  return Math.min(result, source.end);
}

/** The line end that the file uses. */
export function eol(source: Source): string {
  return /\r\n|\n|\r/.exec(source.text)?.[0] ?? '\n';
}

// Whole lines inserted at the start of a line; at the end of a file without a final line end, that stays so.
function insertLines(source: Source, at: number, text: string, probe?: string): Edit {
  const end = eol(source);
  const open = at > lineStart(source, at);
  const whole = (t: string) => (open ? end + t.slice(0, -1).replaceAll('\n', end) : t.replaceAll('\n', end));
  return { start: at, end: at, text: whole(text), ...(probe !== undefined && { probe: whole(probe) }) };
}

// --- anchors ---------------------------------------------------------------------------------------------------------

function requirePrivate(source: Source, node: Node): void {
  const offset = node.range?.[0] ?? 0;
  if (isAlias(node)) throw unsafe(source, offset, `alias *${node.source} stands where the change must go`);
  const anchor = (node as YAMLMap).anchor;
  if (anchor !== undefined && source.shared.has(anchor)) {
    throw unsafe(source, offset, `other parts of the file refer to it as *${anchor}`);
  }
}

// --- flow collections ------------------------------------------------------------------------------------------------

const hasContent = (item: Item): boolean => Boolean(item.key || item.value || item.sep);

// How a multi-line flow collection indents; undefined where all of it stands on one line.
function layoutOf(source: Source, collection: CST.FlowCollection): FlowLayout | undefined {
  const first = collection.items.find(hasContent);
  const begin = first && (first.key ?? first.value)?.offset;
  const open = collection.start.offset;
  if (begin !== undefined) {
    const indent = indentOf(source, begin);
    if (lineStart(source, begin) + indent.length !== begin) return undefined;
    const outer = indentOf(source, open);
    return { indent, step: indent.startsWith(outer) && indent > outer ? indent.slice(outer.length) : '  ' };
  }
  // Empty: laid out as the whole file is, where that is a multi-line flow map (JSON).
  const root = source.root?.srcToken;
  if (root?.type !== 'flow-collection' || root === collection) return undefined;
  const whole = layoutOf(source, root);
  return whole && { indent: indentOf(source, open) + whole.step, step: whole.step };
}

function insertFlow(
  source: Source,
  collection: CST.FlowCollection,
  count: number,
  render: (index: number, layout: FlowLayout | undefined) => string,
): Edit[] {
  const layout = layoutOf(source, collection);
  const end = eol(source);
  const tall =
    collection === source.root?.srcToken ||
    !collection.items.some(hasContent) ||
    collection.items.some((item) => {
      const from = (item.key ?? item.value)?.offset ?? 0;
      return source.lines.slice(from, itemEnd(item as Item)).includes('\n');
    });
  const rendered = Array.from({ length: count }, (_, i) => render(i, tall ? layout : undefined).replaceAll('\n', end));
  const separator = layout ? `,${end}${layout.indent}` : ', ';
  const text = rendered.join(separator);
  const at = collection.items.findLastIndex(hasContent);
  if (at < 0) {
    const from = collection.start.offset + 1;
    const close = collection.end[0]?.offset ?? from;
    const empty = source.lines.slice(from, close).trim() === '';
    const outer = layout && `${end}${layout.indent.slice(0, layout.indent.length - layout.step.length)}`;
    if (!layout || !empty) return [{ start: from, end: from, text }];
    return [{ start: from, end: close, text: `${end}${layout.indent}${text}${outer}` }];
  }
  const last = itemEnd(collection.items[at] as Item) as number;
  const comma = collection.items
    .slice(at + 1)
    .flatMap((item) => item.start)
    .find((t) => t.type === 'comma');
  const edits: Edit[] = comma ? [] : [{ start: last, end: last, text: layout ? ',' : ', ' }];
  let from = comma ? comma.offset + 1 : last;
  if (!layout) return [...edits, { start: from, end: from, text: comma ? ` ${text}` : text }];
  // A comment behind the last item stays behind it.
  const rest = /^[ \t]*#.*/.exec(source.lines.slice(from, nextLine(source, from)));
  if (rest) from += rest[0].replace(/\r$/, '').length;
  return [...edits, { start: from, end: from, text: `${end}${layout.indent}${text}` }];
}

function removeFlow(source: Source, collection: CST.FlowCollection, gone: ReadonlySet<number>): Edit[] {
  const items = collection.items.filter(hasContent) as Item[];
  const commas = collection.items.map((item) => item.start.find((t) => t.type === 'comma'));
  const inner: [number, number] = [collection.start.offset + 1, collection.end[0]?.offset ?? 0];
  const commented = collection.items.some((item) => item.start.some((t) => t.type === 'comment'));
  if (gone.size === items.length && !commented) return [{ start: inner[0], end: inner[1], text: '' }];
  const firstKept = items.findIndex((_, i) => !gone.has(i));
  return [...gone]
    .toSorted((a, b) => a - b)
    .flatMap((i) => {
      const item = items[i] as Item;
      const from = item.start.find((t) => !blank.has(t.type))?.offset ?? (item.key ?? item.value)?.offset ?? 0;
      const until = itemEnd(item) as number;
      // Before the first item that stays, the comma behind goes along; else the one in front.
      const behind = firstKept < 0 || i < firstKept;
      const comma = commas[behind ? i + 1 : i];
      if (!comma) return [{ start: from, end: until, text: '' }];
      const between = behind ? source.lines.slice(until, comma.offset) : source.lines.slice(comma.offset + 1, from);
      if (between.trim() !== '') {
        return [
          { start: from, end: until, text: '' },
          { start: comma.offset, end: comma.offset + 1, text: '' },
        ];
      }
      if (!behind) return [{ start: comma.offset, end: until, text: '' }];
      const gap = /^\s*/.exec(source.lines.slice(comma.offset + 1))?.[0].length ?? 0;
      return [{ start: from, end: comma.offset + 1 + gap, text: '' }];
    });
}

// --- fields ----------------------------------------------------------------------------------------------------------

/** Edits that put another value behind a key. Throws TkaError where other parts of the file refer to the old one. */
export function replaceValue(source: Source, pair: AnyPair, value: Plain): Edit[] {
  const node = pair.value;
  if (node && !isAlias(node)) requirePrivate(source, node);
  const item = pair.srcToken as Item | undefined;
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

function replaceItem(source: Source, node: Node | null | undefined, value: Plain): Edit {
  const token = node?.srcToken;
  const end = tokenEnd(token);
  if (!node || !token || end === undefined) throw unsafe(source, node?.range?.[0] ?? 0, 'an empty list item');
  if (!isAlias(node)) requirePrivate(source, node);
  return { start: token.offset, end, text: flow(value) };
}

function addPairs(source: Source, map: YAMLMap, pairs: readonly [string, Plain][]): Edit[] {
  const token = map.srcToken;
  if (token?.type === 'flow-collection') {
    return insertFlow(source, token, pairs.length, (i, layout) => flowPair(...(pairs[i] as [string, Plain]), layout));
  }
  const first = token?.type === 'block-map' ? token.items.find((item) => item.key) : undefined;
  const end = tokenEnd(token);
  if (!first?.key || end === undefined) throw unsafe(source, map.range?.[0] ?? 0, 'a map in an unusual form');
  const depth = column(source, first.key.offset);
  const text = pairs.map(([key, value]) => blockPair(key, value, ' '.repeat(depth))).join('');
  return [insertLines(source, afterOwnComments(source, end, depth), text)];
}

/** A field by its path below an entry, and what it is to be. */
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
 * Edits that give fields below `node` their values: an old value's text is replaced, a missing field becomes a line
 * behind its siblings. Throws TkaError where an alias, an anchor in use or an unusual form is in the way.
 */
export function setFields(source: Source, node: Node | null | undefined, fields: readonly Field[]): Edit[] {
  const offset = node?.range?.[0] ?? 0;
  if (node) requirePrivate(source, node);
  const edits: Edit[] = [];
  const added: [string, Plain][] = [];
  for (const [key, group] of groups(fields)) {
    if (typeof key === 'number') {
      if (!isSeq(node)) throw unsafe(source, offset, 'a list that stands elsewhere');
      const item = node.items[key] as Node | null | undefined;
      const whole = group.find(([rest]) => rest.length === 0);
      if (whole) edits.push(replaceItem(source, item, whole[1]));
      else edits.push(...setFields(source, item, group));
      continue;
    }
    if (!isMap(node)) throw unsafe(source, offset, 'a map that stands elsewhere');
    const pair = findPair(node, key);
    const deeper = group.every(([rest]) => rest.length > 0);
    if (pair?.value && deeper && (isMap(pair.value) || isSeq(pair.value) || isAlias(pair.value))) {
      edits.push(...setFields(source, pair.value, group));
      continue;
    }
    // Only maps are made on the way: a list that has no text here was merged in from elsewhere.
    if (group.some(([rest]) => rest.some((part) => typeof part === 'number'))) {
      throw unsafe(source, offset, `${key} comes from a merge (<<)`);
    }
    if (pair) edits.push(...replaceValue(source, pair, nest(group)));
    else added.push([key, nest(group)]);
  }
  return added.length > 0 ? [...edits, ...addPairs(source, node as YAMLMap, added)] : edits;
}

// --- list items ------------------------------------------------------------------------------------------------------

/** How many new items at each end of a long run are parsed again. They are all of one shape. */
export const probed = 8;

/** What of a long run is verified. */
export function probeOf<T>(items: readonly T[]): readonly T[] {
  return items.length <= 2 * probed ? items : [...items.slice(0, probed), ...items.slice(-probed)];
}

/**
 * Edits that take items (by index) out of a section and put new ones at its end. The section must be in the text.
 * Throws TkaError where that cannot be done safely.
 */
export function editSection(
  source: Source,
  pair: AnyPair,
  removed: ReadonlySet<number>,
  created: readonly PlainMap[],
): Edit[] {
  const node = pair.value;
  const offset = node?.range?.[0] ?? 0;
  if (node) requirePrivate(source, node);
  const item = pair.srcToken as Item | undefined;
  const colon = lastSign(item?.sep);
  if (!item?.key || colon === undefined) throw unsafe(source, offset, 'a section in an unusual form');
  const token = item.value;
  const end = tokenEnd(token);
  const inBlock = source.root?.srcToken?.type === 'block-map';
  if (token?.type === 'flow-collection' && !(inBlock && isEmptyOnOneLine(source, token))) {
    const edits = removed.size > 0 ? removeFlow(source, token, removed) : [];
    if (created.length === 0) return edits;
    return [
      ...edits,
      ...insertFlow(source, token, created.length, (i, layout) => flow(created[i] as PlainMap, layout)),
    ];
  }
  if (!token || end === undefined || token.type !== 'block-seq') {
    // Nothing in it yet: what stands for nothing goes, the items go below, a comment behind stays.
    if (created.length === 0) return [];
    if (!inBlock) return [{ start: colon, end: end ?? colon, text: ` ${flow([...created])}` }];
    const indent = ' '.repeat(column(source, item.key.offset));
    const edits: Edit[] = end === undefined ? [] : [{ start: colon, end, text: '' }];
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
    const dash = column(source, dashOf(items[0] as Item));
    edits.push(insertItems(source, afterOwnComments(source, end, dash + 1), ' '.repeat(dash), created));
  } else if (removed.size > 0 && removed.size === items.length) {
    edits.unshift({ start: colon, end: colon, text: ' []' });
  }
  return edits;
}

const dashOf = (item: Item): number => item.start.find((t) => t.type === 'seq-item-ind')?.offset ?? 0;

function isEmptyOnOneLine(source: Source, token: CST.FlowCollection): boolean {
  return /^\[[ \t]*\]$/.test(source.lines.slice(token.offset, lastSign(token.end)));
}

function insertItems(source: Source, at: number, indent: string, items: readonly PlainMap[]): Edit {
  return insertLines(source, at, blockItems(items, indent), blockItems(probeOf(items), indent));
}

// An item's lines go whole, from its dash to its last word; comments above and below stay.
function removeLines(source: Source, items: readonly Item[]): Edit[] {
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
  // At the end of a file without a final line end, the one before goes instead.
  if (last && last.start > 0 && source.lines[last.end - 1] !== '\n') {
    last.start -= source.lines.slice(0, last.start).endsWith('\r\n') ? 2 : 1;
  }
  return ranges;
}

/** An edit that adds top-level pairs (block form) or entries of a top-level flow map. Throws TkaError where unsafe. */
export function addTopLevel(source: Source, pairs: readonly (readonly [string, Plain])[]): Edit[] {
  const { root } = source;
  const token = root?.srcToken;
  if (root) requirePrivate(source, root);
  if (token?.type === 'flow-collection') {
    return insertFlow(source, token, pairs.length, (i, layout) => flowPair(...(pairs[i] as [string, Plain]), layout));
  }
  const end = tokenEnd(token) ?? 0;
  if (end > 0 && token?.type !== 'block-map')
    throw unsafe(source, root?.range?.[0] ?? 0, 'an empty value in place of a map');
  const first = token?.type === 'block-map' ? token.items.find((item) => item.key)?.key : undefined;
  const indent = ' '.repeat(first ? column(source, first.offset) : 0);
  const body = source.lines.slice(0, source.end);
  // Behind the last comment, before blank lines; never inside a last value.
  const at = Math.max(end > 0 ? nextLine(source, end) : 0, nextLine(source, body.trimEnd().length - 1));
  const render = (list: (value: Plain) => Plain) =>
    pairs.map(([key, value]) => blockPair(key, list(value), indent)).join('');
  const probe = render((value) => (Array.isArray(value) ? [...probeOf(value)] : value));
  const full = render((value) => value);
  const bare = body.replace('\ufeff', '').trim() === '';
  const where = bare ? source.end : Math.min(at, source.end);
  return [insertLines(source, where, full, probe)];
}
