import type { CST } from 'yaml';
import type { FlowLayout } from './render.ts';
import type { Layout } from './source.ts';
import { type Edit, eol, type Item, indentOf, itemEnd, itemStart, lineStart, nextLine } from './text.ts';

const hasContent = (item: Item): boolean => Boolean(item.key || item.value || item.sep);

// How a multi-line flow collection indents; undefined where all of it stands on one line.
function layoutOf(source: Layout, collection: CST.FlowCollection): FlowLayout | undefined {
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

/** Edits that add parts behind the last one of a flow collection, laid out as the others are. */
export function insertFlow(
  source: Layout,
  collection: CST.FlowCollection,
  render: (probe: boolean, layout: FlowLayout | undefined) => readonly string[],
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
  const separator = layout ? `,${end}${layout.indent}` : ', ';
  const joined = (probe: boolean) =>
    render(probe, tall ? layout : undefined)
      .map((part) => part.replaceAll('\n', end))
      .join(separator);
  const insert = (start: number, until: number, before: string, after: string): Edit => ({
    start,
    end: until,
    text: before + joined(false) + after,
    probe: before + joined(true) + after,
  });
  const at = collection.items.findLastIndex(hasContent);
  if (at < 0) {
    const from = collection.start.offset + 1;
    const close = collection.end[0]?.offset ?? from;
    const empty = source.lines.slice(from, close).trim() === '';
    const outer = layout && `${end}${layout.indent.slice(0, layout.indent.length - layout.step.length)}`;
    if (!layout || !empty) return [insert(from, from, '', '')];
    return [insert(from, close, `${end}${layout.indent}`, outer ?? '')];
  }
  const last = itemEnd(collection.items[at] as Item) as number;
  const comma = collection.items
    .slice(at + 1)
    .flatMap((item) => item.start)
    .find((t) => t.type === 'comma');
  const edits: Edit[] = comma ? [] : [{ start: last, end: last, text: layout ? ',' : ', ' }];
  let from = comma ? comma.offset + 1 : last;
  if (!layout) return [...edits, insert(from, from, comma ? ' ' : '', comma ? ',' : '')];
  // A comment behind the last item stays behind it.
  const rest = /^[ \t]*#.*/.exec(source.lines.slice(from, nextLine(source, from)));
  if (rest) from += rest[0].replace(/\r$/, '').length;
  return [...edits, insert(from, from, `${end}${layout.indent}`, comma ? ',' : '')];
}

/** Edits that take items (by index) and their commas out of a flow list; comments between them stay. */
export function removeFlow(source: Layout, collection: CST.FlowCollection, gone: ReadonlySet<number>): Edit[] {
  const items = (collection.items.filter(hasContent) as Item[]).map((item) => ({
    from: itemStart(item),
    until: itemEnd(item) as number,
  }));
  const commas = collection.items.map((item) => item.start.find((t) => t.type === 'comma')?.offset);
  const bare = (from: number, until: number) => /^[\s,]*$/.test(source.lines.slice(from, until));
  const open = collection.start.offset + 1;
  const close = collection.end[0]?.offset ?? open;
  const ends = [open, ...items.map(({ until }) => until)];
  const starts = [...items.map(({ from }) => from), close];
  if (gone.size === items.length && starts.every((from, i) => bare(ends[i] as number, from))) {
    return [{ start: open, end: close, text: '' }];
  }
  const firstKept = items.findIndex((_, i) => !gone.has(i));
  const trailing = commas.slice(items.length).some((comma) => comma !== undefined);
  const edits: Edit[] = [];
  for (let i = 0; i < items.length; i++) {
    if (!gone.has(i)) continue;
    const { from } = items[i] as { from: number };
    const first = i;
    while (gone.has(i + 1) && bare(ends[i + 1] as number, starts[i + 1] as number)) i++;
    const until = ends[i + 1] as number;
    // The comma behind goes along where each item has one, or before the first item that stays; else the one in front.
    const behind = trailing || firstKept < 0 || i < firstKept;
    const comma = commas[behind ? i + 1 : first];
    if (comma === undefined) edits.push(wholeLines(source, from, until));
    else if (behind && bare(until, comma)) edits.push(wholeLines(source, from, comma + 1));
    else if (!behind && bare(comma, from)) edits.push({ start: comma, end: until, text: '' });
    else edits.push({ start: comma, end: comma + 1, text: '' }, wholeLines(source, from, until));
  }
  return edits;
}

// Takes a range out, with its lines where nothing else stands on them, else with the spaces behind it.
function wholeLines(source: Layout, start: number, end: number): Edit {
  const begin = lineStart(source, start);
  const rest = /^[ \t]*\r?(\n?)/.exec(source.lines.slice(end)) as RegExpExecArray;
  if (rest[1] === '') return { start, end: end + rest[0].length, text: '' };
  if (source.lines.slice(begin, start).trim() !== '') return { start, end, text: '' };
  return { start: begin, end: end + rest[0].length, text: '' };
}
