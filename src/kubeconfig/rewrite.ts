import { TkaError } from '../util/errors.ts';
import type { FileChange } from './plan.ts';
import {
  findPair,
  KubeconfigTooLarge,
  type Layout,
  layoutOf,
  maxBytes,
  parseLayout,
  type SectionKey,
  type Source,
  sectionKeys,
  shown,
} from './source.ts';
import { addTopLevel, editSection, probeOf, replaceValue, setFields } from './splice.ts';
import { applyEdits, type Edit, unsafe } from './text.ts';
import { isPlainMap, type Plain, type PlainMap } from './value.ts';

/**
 * A file's text with a change spliced in, read again and compared with what it must mean now before it is returned. All
 * text that the change does not concern is kept as it is. Throws TkaError where that cannot be done safely.
 */
export function rewrite(read: Source, change: FileChange): string {
  const source = layoutOf(read);
  if (!equal(source.value, read.value)) throw unsafe(source, 0, 'it was understood in two ways');
  if (source.secondDocument !== undefined) {
    throw unsafe(source, source.secondDocument, 'a second YAML document, which kubectl does not read');
  }
  let current = source;
  if (sectionKeys.some((key) => change.remove[key].size > 0)) {
    const edits = sectionKeys.flatMap((key) => removal(current, key, change.remove[key]));
    current = verified(current, edits, (value) => {
      for (const key of sectionKeys) {
        if (change.remove[key].size === 0) continue;
        value[key] = (value[key] as PlainMap[]).filter((item) => !change.remove[key].has(item.name as string));
      }
    }).parsed;
  }
  if (
    change.current !== undefined ||
    change.update.length > 0 ||
    sectionKeys.some((key) => change.create[key].length)
  ) {
    return addition(current, change);
  }
  return current.text;
}

function sectionPair(source: Layout, key: SectionKey) {
  const pair = findPair(source.root, key);
  if (!pair && source.value?.[key] !== undefined) throw unsafe(source, 0, `${key} comes from a merge (<<)`);
  return pair;
}

function removal(source: Layout, key: SectionKey, names: ReadonlySet<string>): Edit[] {
  const pair = names.size > 0 ? sectionPair(source, key) : undefined;
  if (!pair) return [];
  const gone = source.entries[key].filter((entry) => names.has(entry.name)).map((entry) => entry.index);
  return editSection(source, pair, new Set(gone), []);
}

function addition(source: Layout, change: FileChange): string {
  const edits: Edit[] = [];
  const updated = new Map(change.update.map(({ entry, fields }) => [`${entry.section} ${entry.name}`, fields]));
  for (const key of sectionKeys) {
    for (const entry of source.entries[key]) {
      const fields = updated.get(`${key} ${entry.name}`);
      if (!fields) continue;
      // The list itself may be shared by an anchor: an edit of nothing checks that.
      const pair = sectionPair(source, key);
      if (pair) editSection(source, pair, new Set(), []);
      edits.push(...setFields(source, entry.node, fields));
    }
  }
  const fresh = source.value === null;
  const missing: [string, Plain][] = fresh ? Object.entries({ apiVersion: 'v1', kind: 'Config' }) : [];
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
  // In kubectl's order.
  missing.sort(([a], [b]) => (a < b ? -1 : 1));
  if (missing.length > 0) edits.push(...addTopLevel(source, missing));
  return verified(source, edits, (value) => {
    if (fresh) Object.assign(value, { apiVersion: 'v1', kind: 'Config' });
    for (const key of sectionKeys) {
      const items = (value[key] ?? []) as PlainMap[];
      const kept = items.map((item) => {
        const fields = updated.get(`${key} ${item.name}`) ?? [];
        return fields.reduce<Plain>((before, [path, to]) => withField(before, path, to), item);
      });
      const created = change.create[key];
      if (kept.length > 0 || created.length > 0) value[key] = [...kept, ...probeOf(created)];
    }
    if (change.current !== undefined) value['current-context'] = change.current;
  }).after;
}

function withField(value: Plain | undefined, path: readonly (string | number)[], to: Plain): Plain {
  const [key, ...rest] = path;
  if (key === undefined) return to;
  if (typeof key === 'number') return (value as Plain[]).with(key, withField((value as Plain[])[key], rest, to));
  const map = isPlainMap(value) ? value : {};
  return { ...map, [key]: withField(map[key], rest, to) };
}

// Reads the spliced text again. Of a long run of new items, which differ in their quoted strings alone, the first and
// last few are read: parsing all would cost ten times what splicing does.
function verified(source: Layout, edits: readonly Edit[], expect: (value: PlainMap) => void) {
  const after = applyEdits(source.text, edits);
  const probe = applyEdits(source.text, edits, true);
  const refuse = (why: string, cause?: unknown) =>
    new TkaError(`${shown(source.file)}: cannot edit this safely: ${why}`, {
      hints: ['edit it by hand, or use another file: --kubeconfig FILE'],
      cause,
    });
  if (Buffer.byteLength(after) > maxBytes) {
    throw new KubeconfigTooLarge(`${shown(source.file)} would become larger than ${maxBytes >> 20} MiB`);
  }
  let parsed: Layout;
  try {
    parsed = parseLayout(source.file, probe);
  } catch (cause) {
    throw refuse('the result would not be readable', cause);
  }
  const expected: PlainMap = Object.assign(Object.create(null), source.value);
  expect(expected);
  if (parsed.secondDocument !== undefined || !equal(parsed.value, expected)) {
    throw refuse('the result would not mean what it should');
  }
  return { after, parsed };
}

function equal(a: Plain | undefined, b: Plain | undefined): boolean {
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, i) => equal(item, b[i]));
  if (!isPlainMap(a)) return Object.is(a, b);
  if (!isPlainMap(b)) return false;
  if (a === b) return true;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]));
}
