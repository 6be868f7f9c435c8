// Reads a configuration file of the client or the server: YAML with case-insensitive keys.
import * as fs from 'node:fs';
import type { Node, YAMLMap } from 'yaml';
import { systemCode } from '../util/errors.ts';
import { cleanText } from '../util/text.ts';

// A hostile file can make a YAML parser use a thousand times its size in memory. No real configuration needs 64 KiB.
export const configLimit = 64 * 1024;

/** What a file may contain. */
export interface ConfigSchema<Key extends string, Value> {
  /** All known keys, with dots: `tailscale.port`. */
  readonly keys: readonly Key[];
  /**
   * Returns the value of a key, or a problem (`must be …`). `value` is an array for a list and an object for a map,
   * both of texts as they are written in the file; undefined for anything that cannot be either.
   */
  readonly read: (key: Key, value: unknown) => { readonly value: Value } | { readonly problem: string };
  /** Receives each unknown key with its place: `/etc/tka/config.yaml:3`, or `:3:5` with `columns`. */
  readonly unknown?: (dotted: string, place: string) => void;
  /** Reads as much as possible of a file that is not valid YAML. */
  readonly lenient?: true;
  /** Adds the column to the line in messages: `/etc/tka/config.yaml:3:5`. */
  readonly columns?: true;
}

/**
 * Returns the text of a configuration file; undefined if it is missing or unreadable. Adds a problem if it is
 * unreadable, or missing while `required`.
 */
export function readConfigText(path: string, required: boolean, problems: string[]): string | undefined {
  let fd: number | undefined;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) problems.push(`${path}: is not a file`);
    else if (stat.size > configLimit) problems.push(`${path}: is larger than ${configLimit >> 10} KiB`);
    else return fs.readFileSync(fd, 'utf8');
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      if (required) problems.push(`${path}: no such file`);
    } else problems.push(`${path}: cannot be read (${code})`);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
  return undefined;
}

/** A value in a configuration file. */
export interface FileValue<Value> {
  readonly value: Value;
  /** Line of the key, counted from 1. */
  readonly line: number;
}

/** Returns the values in a configuration file's text. Adds problems with their line to `problems`. */
export async function parseConfigText<Key extends string, Value>(
  path: string,
  text: string,
  schema: ConfigSchema<Key, Value>,
  problems: string[],
): Promise<Map<Key, FileValue<Value>>> {
  const { isMap, isScalar, isSeq, isAlias, LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  // Pretty errors quote the text, and each takes time in proportion to its length.
  const options = { version: '1.1', schema: 'yaml-1.1', uniqueKeys: true, prettyErrors: false } as const;
  const document = parseDocument(text, { ...options, lineCounter: lines });
  const line = (offset: number | undefined) => lines.linePos(offset ?? 0).line;
  const placeOf = (offset: number | undefined) => {
    const place = `${path}:${line(offset)}`;
    return schema.columns === true ? `${place}:${lines.linePos(offset ?? 0).col}` : place;
  };
  const values = new Map<Key, FileValue<Value>>();
  for (const error of document.errors) {
    // The parser's own message is the JavaScript engine's.
    const what = error.code === 'RESOURCE_EXHAUSTION' ? 'nested too deeply' : cleanText(error.message);
    const problem = `${placeOf(error.pos[0])}: ${what}`;
    if (problem !== problems.at(-1)) problems.push(problem);
  }
  const isBroken = document.errors.length > 0;
  if (document.contents === null || (isBroken && schema.lenient !== true)) return values;
  // Further problems of a broken file only follow from the first ones.
  const further = isBroken ? [] : problems;
  const top = document.contents;
  if (isScalar(top) && top.value === null) return values;
  if (!isMap(top)) {
    further.push(`${placeOf(top.range?.[0])}: must be a map of settings`);
    return values;
  }
  const resolved = (node: unknown) => (isAlias(node) ? node.resolve(document) : (node as Node | null | undefined));
  // Returns the text as written in the file: `1.10` must not become the number 1.1 where a text is expected.
  const written = (node: unknown): unknown => {
    const scalar = resolved(node);
    return isScalar(scalar) ? (scalar.source ?? String(scalar.value ?? '')) : undefined;
  };
  const plain = (node: Node | undefined): unknown => {
    if (isScalar(node)) return node.value;
    if (isSeq(node)) return node.items.map(written);
    if (!isMap(node)) return undefined;
    return Object.fromEntries(node.items.map(({ key, value }) => [String(written(key)), written(value)]));
  };
  const byLowerCase = new Map(schema.keys.map((key) => [key.toLowerCase(), key]));
  const visit = (map: YAMLMap, prefix: string) => {
    for (const { key, value } of map.items) {
      if (!isScalar(key)) continue;
      const dotted = `${prefix}${key.value}`;
      const place = placeOf(key.range?.[0]);
      const at = `${place}: ${cleanText(dotted)}`;
      const node = resolved(value);
      const known = byLowerCase.get(dotted.toLowerCase());
      const isParent = schema.keys.some((k) => k.toLowerCase().startsWith(`${dotted.toLowerCase()}.`));
      // Undefined: an alias without an anchor.
      const isEmpty = node === null || (isScalar(node) && node.value === null);
      if (isParent && isMap(node)) visit(node, `${dotted}.`);
      else if (isParent && !isEmpty) further.push(`${at} must be a map`);
      else if (known === undefined && !isParent && !isBroken) schema.unknown?.(dotted, place);
      if (known === undefined || isEmpty) continue;
      if (values.has(known)) {
        further.push(`${at} is set twice`);
        continue;
      }
      const read = schema.read(known, plain(node));
      if ('problem' in read) further.push(`${at} ${read.problem}`);
      else values.set(known, { value: read.value, line: line(key.range?.[0]) });
    }
  };
  visit(top, '');
  return values;
}
