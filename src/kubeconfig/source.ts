import { Composer, type Document, isMap, isScalar, isSeq, type Node, type Pair, Parser, type YAMLMap } from 'yaml';
import { cleanText, quoted } from '../util/text.ts';
import { damage } from './damage.ts';
import { parseJson } from './json.ts';
import { readPlain } from './plain.ts';
import { NodeReader, startOf } from './reader.ts';
import { isPlainMap, type Plain, type PlainMap } from './value.ts';

export const sectionKeys = ['clusters', 'contexts', 'users'] as const;

export type SectionKey = (typeof sectionKeys)[number];

/** The key beside `name` that holds an entry's fields. */
export const bodyKey = { clusters: 'cluster', contexts: 'context', users: 'user' } as const;

/** One named item of a section. */
export interface KubeconfigEntry {
  readonly section: SectionKey;
  readonly name: string;
  readonly index: number;
  readonly value: PlainMap;
  readonly body: PlainMap;
}

interface EntryLayout extends KubeconfigEntry {
  /** The list item: an alias if the file has one there, undefined if the whole section comes from a merge. */
  readonly node: Node | undefined;
}

/** A kubeconfig file's text, and its meaning to kubectl. */
export interface Source {
  readonly file: string;
  readonly text: string;
  /** The text with each YAML 1.1 line break, except CR LF, replaced by a line feed. Same length as `text`. */
  readonly lines: string;
  readonly value: PlainMap | null;
  readonly entries: Readonly<Record<SectionKey, readonly KubeconfigEntry[]>>;
  readonly currentContext: string;
}

/** A source with the positions of its parts in the text. */
export interface Layout extends Source {
  readonly root: Node | null;
  readonly entries: Readonly<Record<SectionKey, readonly EntryLayout[]>>;
  /** Names of the anchors that aliases refer to. */
  readonly shared: ReadonlySet<string>;
  /** Offset of the end of the (first) document: its `...`, else the end of the text. */
  readonly end: number;
  /** The offset of a second document; undefined if there is none. */
  readonly secondDocument: number | undefined;
}

/**
 * Reads a kubeconfig's text as kubectl does: YAML 1.1 scalars, first document only, no duplicate names. Unlike kubectl,
 * also refuses duplicate keys and items without a name. Throws TkaError (`path:line:column`) for any damage.
 */
export function parseSource(file: string, bytes: Uint8Array): Source {
  const at = checked(file, decode(file, bytes));
  const value = readPlain(at.lines) ?? parseJson(at.lines);
  if (value === undefined) return laidOut(at);
  try {
    return { ...at, value, ...readSections(at, null, value) };
  } catch {
    // Only nodes know the position of the damage.
    return laidOut(at);
  }
}

/** Parses a kubeconfig's text with the positions of its parts. Throws TkaError as parseSource does. */
export function parseLayout(file: string, text: string): Layout {
  return laidOut(checked(file, text));
}

/** Returns a source with the positions of its parts; parses it again if needed. Throws TkaError as parseSource does. */
export function layoutOf(source: Source): Layout {
  return isLayout(source) ? source : laidOut(source);
}

function isLayout(source: Source): source is Layout {
  return 'root' in source;
}

/** Returns whether the file has anchors that aliases refer to. */
export function hasAliases(source: Source): source is Layout {
  return isLayout(source) && source.shared.size > 0;
}

interface Text {
  readonly file: string;
  readonly text: string;
  readonly lines: string;
}

function checked(file: string, text: string): Text {
  const lines = text.replace(/\r(?!\n)|[\u0085\u2028\u2029]/g, '\n');
  const at = { file, text, lines };
  const control = lines.search(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]/);
  if (control >= 0) {
    const code = lines.charCodeAt(control).toString(16).padStart(4, '0').toUpperCase();
    throw damage(at, control, `control character U+${code} in the file`);
  }
  return at;
}

function laidOut(at: Text): Layout {
  try {
    return read(at);
  } catch (error) {
    if (error instanceof RangeError) throw damage(at, 0, 'nested too deeply to be a kubeconfig');
    throw error;
  }
}

function decode(file: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
      throw damage({ file, lines: '' }, 0, 'the file is UTF-16: save it as UTF-8');
    }
    const loose = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
    const again = new TextEncoder().encode(loose);
    const wrong = again.findIndex((byte, i) => byte !== bytes[i]);
    const before = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes.subarray(0, wrong));
    throw damage({ file, lines: before }, before.length, 'not UTF-8');
  }
}

function read(at: Text): Layout {
  let end = at.text.length;
  let documents = 0;
  const tokens = [];
  for (const token of new Parser().parse(at.lines)) {
    tokens.push(token);
    if (token.type === 'document') documents++;
    else if (token.type === 'doc-end' && documents <= 1) end = Math.min(end, token.offset);
  }
  // NodeReader resolves plain scalars by kubectl's rules, so use the schema that resolves nothing.
  const composer = new Composer({
    schema: 'failsafe',
    keepSourceTokens: true,
    uniqueKeys: false,
    prettyErrors: false,
  });
  const [document, second] = [...composer.compose(tokens, true, at.text.length)] as Document.Parsed[];
  const error = document?.errors[0];
  if (error) {
    const marker = /^(?:<{7}|={7}|>{7}|\|{7})(?: |\r?$)/m.exec(at.lines);
    if (marker) throw damage(at, marker.index, `conflict marker ${JSON.stringify(marker[0].trim())}`);
    const what = cleanText(error.message.replace(/^[A-Z](?![A-Z])/, (c) => c.toLowerCase()));
    throw damage(at, Math.min(error.pos[0], at.text.length), what);
  }
  const yaml = document?.directives?.yaml;
  if (yaml?.explicit && yaml.version !== '1.1')
    throw damage(at, 0, `%YAML ${yaml.version}: kubectl reads YAML 1.1 only`);
  const root = document?.contents ?? null;
  const reader = new NodeReader(at);
  const value = reader.value(root);
  if (value !== null && !isPlainMap(value))
    throw damage(at, startOf(root), `expected a kubeconfig, found ${kind(value)}`);
  return {
    ...at,
    root,
    value,
    ...readSections(at, root, value ?? {}),
    shared: reader.shared,
    end,
    secondDocument: second && (second.range?.[0] ?? at.text.length),
  };
}

function kind(value: Plain | undefined): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  return { string: 'text', number: 'a number', boolean: 'true or false', object: 'a map' }[typeof value as 'string'];
}

/** Returns the pair of a key in a map's own text, without merges; undefined if there is none. */
export function findPair(map: Node | null | undefined, key: string): Pair<Node | null, Node | null> | undefined {
  if (!isMap(map)) return undefined;
  const items = (map as YAMLMap<Node | null, Node | null>).items;
  return items.find((pair) => isScalar(pair.key) && pair.key.value === key);
}

function readSections(at: { file: string; lines: string }, root: Node | null, value: PlainMap) {
  // Returns the offset of a bad value in the file itself, or of the node that merges or aliases it in.
  const place = (node: Node | null | undefined, key: string) =>
    startOf(findPair(node, key)?.value ?? findPair(node, key)?.key ?? node ?? root);
  for (const [key, wanted] of [
    ['apiVersion', 'v1'],
    ['kind', 'Config'],
  ] as const) {
    const found = value[key] ?? '';
    if (found === '' || found === wanted) continue;
    const what = typeof found === 'string' ? quoted(found, 60) : kind(found);
    throw damage(at, place(root, key), `not a kubeconfig: ${key} is ${what}, not ${wanted}`);
  }
  const currentContext = value['current-context'] ?? '';
  if (typeof currentContext !== 'string') {
    throw damage(at, place(root, 'current-context'), `current-context is ${kind(currentContext)}, not text: quote it`);
  }
  const section = (key: SectionKey): EntryLayout[] => {
    const list = value[key] ?? null;
    if (list === null) return [];
    if (!Array.isArray(list)) throw damage(at, place(root, key), `${key} is ${kind(list)}, not a list`);
    const node = findPair(root, key)?.value;
    const seen = new Set<string>();
    return list.map((item, index) => {
      const itemNode = (isSeq(node) ? node.items[index] : node) as Node | undefined;
      const which = `item ${index + 1} of ${key}`;
      if (!isPlainMap(item)) throw damage(at, startOf(itemNode ?? root), `${which} is ${kind(item)}, not a map`);
      const name = item.name ?? null;
      if (name === null) throw damage(at, startOf(itemNode ?? root), `${which} has no name`);
      const named = place(itemNode, 'name');
      if (typeof name !== 'string')
        throw damage(at, named, `the name of ${which} is ${kind(name)}, not text: quote it`);
      if (seen.has(name)) throw damage(at, named, `duplicate name ${quoted(name)} in ${key}`);
      seen.add(name);
      const body = item[bodyKey[key]] ?? {};
      if (!isPlainMap(body)) {
        throw damage(at, place(itemNode, bodyKey[key]), `${bodyKey[key]} of ${which} is ${kind(body)}, not a map`);
      }
      for (const field of key === 'contexts' ? (['cluster', 'user'] as const) : []) {
        const found = body[field] ?? '';
        if (typeof found === 'string') continue;
        const inner = findPair(itemNode, 'context')?.value ?? itemNode;
        throw damage(at, place(inner, field), `${field} of ${which} is ${kind(found)}, not text: quote it`);
      }
      return { section: key, name, index, node: itemNode, value: item, body };
    });
  };
  const entries = { clusters: section('clusters'), contexts: section('contexts'), users: section('users') };
  return { currentContext, entries };
}
