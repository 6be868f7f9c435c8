import type { CST } from 'yaml';
import { shellWord } from './damage.ts';
import type { Layout } from './source.ts';
import { itemEnd, itemStart, type TextEdit, unsafe, type YamlItem } from './text.ts';

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

/** Returns the edits that take items (by index) out of a flow list. Throws TkaError if it has several lines. */
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
