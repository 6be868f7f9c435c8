import { TkaError } from '../util/errors.ts';
import type { FileChange } from './change.ts';
import { maxBytes, shown, tooLarge } from './damage.ts';
import { parseJson, printJson } from './json.ts';
import {
  findPair,
  type KubeconfigEntry,
  type Layout,
  layoutOf,
  parseLayout,
  type SectionKey,
  type Source,
  sectionKeys,
} from './source.ts';
import { addTopLevel, asBlocks, editSection, type Field, probeOf, replaceValue, setFields } from './splice.ts';
import { applyEdits, type TextEdit, unsafe } from './text.ts';
import { isPlainMap, type Plain, type PlainMap } from './value.ts';

/**
 * Returns a file's text with a change spliced in. Keeps all text that the change does not concern; a JSON file is
 * printed again. Then reads the result again and verifies its meaning. Throws TkaError if the change is not safe.
 */
export function rewrite(read: Source, change: FileChange): string {
  if (parseJson(read.lines) !== undefined) {
    return ofUsableSize(read, printJson(read, valueAfter(read.value, change)));
  }
  const source = layoutOf(read);
  if (!equal(source.value, read.value)) throw unsafe(source, 0, 'it could be read in two ways');
  if (source.secondDocument !== undefined) {
    throw unsafe(source, source.secondDocument, 'a second YAML document, which kubectl does not read');
  }
  if (source.root?.srcToken?.type === 'flow-collection') {
    const start = source.root.range?.[0] ?? 0;
    throw unsafe(source, start, 'it is in brackets, but is not JSON', [asBlocks(source.file)]);
  }
  const removal: FileChange = { ...unchanged, remove: change.remove };
  const edits = sectionKeys.flatMap((key) => removalFrom(source, key, change.remove[key]));
  const removed = edits.length === 0 ? source : verified(source, edits, removal).parsed;
  const addition: FileChange = { ...change, remove: unchanged.remove };
  const more = additionTo(removed, addition);
  return more.length === 0 ? removed.text : verified(removed, more, addition).after;
}

const none = { clusters: [], contexts: [], users: [] };
const nothing = { clusters: new Set<string>(), contexts: new Set<string>(), users: new Set<string>() };
const unchanged: FileChange = { remove: nothing, update: [], create: none, current: undefined };

/**
 * Returns a file's value after a change. With `probe`, it contains only those new items that verification reads again.
 */
function valueAfter(value: PlainMap | null, change: FileChange, probe = false): PlainMap {
  const after: PlainMap = Object.assign(Object.create(null), value ?? { apiVersion: 'v1', kind: 'Config' });
  const updated = updatesOf(change);
  for (const key of sectionKeys) {
    const items = (after[key] ?? []) as PlainMap[];
    const kept = items
      .filter((item) => !change.remove[key].has(item.name as string))
      .map((item) => {
        const fields = updated.get(`${key} ${item.name}`) ?? [];
        return fields.reduce<Plain>((before, [path, to]) => withField(before, path, to), item);
      });
    const created = probe ? probeOf(change.create[key]) : change.create[key];
    if (items.length > 0 || created.length > 0) after[key] = [...kept, ...created];
  }
  if (change.current !== undefined) after['current-context'] = change.current;
  return after;
}

function updatesOf({ update }: FileChange) {
  return new Map(update.map(({ entry, fields }) => [`${entry.section} ${entry.name}`, fields]));
}

function sectionPair(source: Layout, key: SectionKey) {
  const pair = findPair(source.root, key);
  if (!pair && source.value?.[key] !== undefined) throw unsafe(source, 0, `${key} comes from a merge (<<)`);
  return pair;
}

function removalFrom(source: Layout, key: SectionKey, names: ReadonlySet<string>): TextEdit[] {
  const pair = names.size > 0 ? sectionPair(source, key) : undefined;
  if (!pair) return [];
  const gone = source.entries[key].filter((entry) => names.has(entry.name)).map((entry) => entry.index);
  return editSection(source, pair, new Set(gone), []);
}

/** Returns the edits that set fields of an entry. Throws TkaError if other parts of the file refer to it. */
export function updateOf(source: Layout, { section, name }: KubeconfigEntry, fields: readonly Field[]): TextEdit[] {
  if (fields.length === 0) return [];
  // An anchor may share the list itself. An edit of nothing checks that.
  const pair = sectionPair(source, section);
  if (pair) editSection(source, pair, new Set(), []);
  return setFields(source, source.entries[section].find((each) => each.name === name)?.node, fields);
}

function additionTo(source: Layout, change: FileChange): TextEdit[] {
  const edits: TextEdit[] = [];
  const updated = updatesOf(change);
  for (const key of sectionKeys) {
    for (const entry of source.entries[key]) {
      const fields = updated.get(`${key} ${entry.name}`);
      if (!fields) continue;
      edits.push(...updateOf(source, entry, fields));
    }
  }
  const missing: [string, Plain][] = [];
  for (const key of sectionKeys) {
    if (change.create[key].length === 0) continue;
    const pair = sectionPair(source, key);
    if (pair) edits.push(...editSection(source, pair, new Set(), change.create[key]));
    else missing.push([key, change.create[key]]);
  }
  if (change.current !== undefined) {
    const pair = findPair(source.root, 'current-context');
    if (pair) edits.push(...replaceValue(source, pair, change.current));
    else missing.push(['current-context', change.current]);
  }
  if (source.value === null && missing.length > 0) missing.push(['apiVersion', 'v1'], ['kind', 'Config']);
  // kubectl sorts keys by name.
  missing.sort(([a], [b]) => (a < b ? -1 : 1));
  return missing.length > 0 ? [...edits, ...addTopLevel(source, missing)] : edits;
}

function withField(value: Plain | undefined, path: readonly (string | number)[], to: Plain): Plain {
  const [key, ...rest] = path;
  if (key === undefined) return to;
  if (typeof key === 'number') return (value as Plain[]).with(key, withField((value as Plain[])[key], rest, to));
  const map = isPlainMap(value) ? value : {};
  return { ...map, [key]: withField(map[key], rest, to) };
}

// Reads the spliced text again. Of many new items, which differ only in their quoted strings, it reads the first and
// last few: to parse all of them takes ten times as long as splicing.
function verified(source: Layout, edits: readonly TextEdit[], change: FileChange) {
  const after = ofUsableSize(source, applyEdits(source.text, edits));
  const probe = applyEdits(source.text, edits, true);
  const refuse = (why: string, cause?: unknown) =>
    new TkaError(`${shown(source.file)}: cannot edit this safely: ${why}`, {
      hints: ['edit it by hand, or use another file: --kubeconfig FILE'],
      cause,
    });
  let parsed: Layout;
  try {
    parsed = parseLayout(source.file, probe);
  } catch (cause) {
    throw refuse('the result would not be valid YAML', cause);
  }
  if (parsed.secondDocument !== undefined || !equal(parsed.value, valueAfter(source.value, change, true))) {
    throw refuse('the result would have another meaning');
  }
  return { after, parsed };
}

function ofUsableSize({ file }: Source, text: string): string {
  if (Buffer.byteLength(text) <= maxBytes) return text;
  throw tooLarge(`${shown(file)} would become larger than ${maxBytes >> 20} MiB`);
}

function equal(a: Plain | undefined, b: Plain | undefined): boolean {
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, i) => equal(item, b[i]));
  if (!isPlainMap(a)) return Object.is(a, b);
  if (!isPlainMap(b)) return false;
  if (a === b) return true;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]));
}
