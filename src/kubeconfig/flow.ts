import type { CST } from 'yaml';
import type { FlowLayout } from './render.ts';
import type { Source } from './source.ts';
import { blank, type Edit, eol, type Item, indentOf, itemEnd, lineStart, nextLine } from './text.ts';

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

export function insertFlow(
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
    collection.items.filter(hasContent).some((item) => {
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
  if (!layout) return [...edits, { start: from, end: from, text: comma ? ` ${text},` : text }];
  // A comment behind the last item stays behind it.
  const rest = /^[ \t]*#.*/.exec(source.lines.slice(from, nextLine(source, from)));
  if (rest) from += rest[0].replace(/\r$/, '').length;
  return [...edits, { start: from, end: from, text: `${end}${layout.indent}${text}${comma ? ',' : ''}` }];
}

export function removeFlow(source: Source, collection: CST.FlowCollection, gone: ReadonlySet<number>): Edit[] {
  const items = collection.items.filter(hasContent) as Item[];
  const commas = collection.items.map((item) => item.start.find((t) => t.type === 'comma'));
  const inner: [number, number] = [collection.start.offset + 1, collection.end[0]?.offset ?? 0];
  const commented = collection.items.some((item) => item.start.some((t) => t.type === 'comment'));
  if (gone.size === items.length && !commented) return [{ start: inner[0], end: inner[1], text: '' }];
  const firstKept = items.findIndex((_, i) => !gone.has(i));
  const trailing = commas.slice(items.length).some((comma) => comma);
  return [...gone]
    .sort((a, b) => a - b)
    .flatMap((i) => {
      const item = items[i] as Item;
      const from = item.start.find((t) => !blank.has(t.type))?.offset ?? (item.key ?? item.value)?.offset ?? 0;
      const until = itemEnd(item) as number;
      // The comma behind goes along where each item has one, or before the first item that stays; else the one in front.
      const behind = trailing || firstKept < 0 || i < firstKept;
      const comma = commas[behind ? i + 1 : i]?.offset;
      if (comma === undefined) return [wholeLines(source, from, until)];
      const between = behind ? source.lines.slice(until, comma) : source.lines.slice(comma + 1, from);
      if (between.trim() !== '') {
        return [wholeLines(source, from, until), { start: comma, end: comma + 1, text: '' }];
      }
      return [behind ? wholeLines(source, from, comma + 1) : { start: comma, end: until, text: '' }];
    });
}

// Takes a range out, with its lines where nothing else stands on them, else with the spaces behind it.
function wholeLines(source: Source, start: number, end: number): Edit {
  const begin = lineStart(source, start);
  const rest = /^[ \t]*\r?(\n?)/.exec(source.lines.slice(end)) as RegExpExecArray;
  if (rest[1] === '') return { start, end: end + rest[0].length, text: '' };
  if (source.lines.slice(begin, start).trim() !== '') return { start, end, text: '' };
  return { start: begin, end: end + rest[0].length, text: '' };
}
