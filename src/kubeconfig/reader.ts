import { isAlias, isMap, isScalar, isSeq, type Node, type Scalar, type YAMLMap } from 'yaml';
import { quoted } from '../util/text.ts';
import { damage } from './damage.ts';
import { isPlainMap, type Plain, type PlainMap, plainValue } from './value.ts';

/** Maximum number of nodes that aliases may expand to. kubectl's own limit is of this order. */
const maxExpansion = 1_000_000;

/** Returns the offset at which a node begins; 0 without a node. */
export const startOf = (node: unknown): number => (node as Node | null | undefined)?.range?.[0] ?? 0;

function scalarValue(node: Scalar): Plain {
  const text = String(node.value ?? '');
  const resolved = node.type === undefined || node.type === 'PLAIN';
  const core = /^tag:yaml\.org,2002:(?:bool|int|float|null)$/.test(node.tag ?? '');
  return !core && (!resolved || node.tag !== undefined) ? text : plainValue(text);
}

/** Converts nodes to values in document order, as go-yaml does: anchors, merges, duplicate keys, limit on expansion. */
export class NodeReader {
  readonly shared = new Set<string>();
  readonly #at: { file: string; lines: string };
  readonly #anchors = new Map<string, { value: Plain; size: number } | undefined>();
  #size = 0;
  #expanded = 0;

  constructor(at: { file: string; lines: string }) {
    this.#at = at;
  }

  value(node: Node | null): Plain {
    if (node === null) return null;
    if (isAlias(node)) return this.#alias(node.source, startOf(node));
    const before = this.#size++;
    const anchor = (node as Scalar).anchor;
    if (anchor !== undefined) this.#anchors.set(anchor, undefined);
    let value: Plain;
    if (isMap(node)) value = this.#map(node as YAMLMap<Node | null, Node | null>);
    else if (isSeq(node)) value = node.items.map((item) => this.value(item as Node | null));
    else value = scalarValue(node as Scalar);
    if (anchor !== undefined) this.#anchors.set(anchor, { value, size: this.#size - before });
    return value;
  }

  #alias(name: string, offset: number): Plain {
    const target = this.#anchors.get(name);
    const label = quoted(name, 60);
    if (!target) {
      const why = this.#anchors.has(name) ? `anchor ${label} contains itself` : `no anchor ${label} for this alias`;
      throw damage(this.#at, offset, why);
    }
    this.shared.add(name);
    this.#size += target.size;
    this.#expanded += target.size;
    if (this.#expanded > maxExpansion) throw damage(this.#at, offset, 'aliases expand to too much');
    return target.value;
  }

  #map(map: YAMLMap<Node | null, Node | null>): PlainMap {
    const out: PlainMap = Object.create(null);
    const seen = new Set<string>();
    for (const { key, value } of map.items) {
      const offset = startOf(key ?? map);
      if (isScalar(key) && key.value === '<<' && key.type === 'PLAIN') {
        // A merge that follows an explicit key overrides it. That is odd, but kubectl reads the file this way.
        this.#merge(out, this.value(value), offset);
        continue;
      }
      const plain = this.value(key);
      if (typeof plain === 'object' && plain !== null) throw damage(this.#at, offset, 'a key that is a list or a map');
      const name = String(plain);
      if (seen.has(name)) throw damage(this.#at, offset, `duplicate key ${quoted(name, 60)}`);
      seen.add(name);
      out[name] = this.value(value);
    }
    return out;
  }

  #merge(out: PlainMap, from: Plain, offset: number): void {
    const maps = Array.isArray(from) ? from.toReversed() : [from];
    for (const map of maps) {
      if (!isPlainMap(map)) throw damage(this.#at, offset, 'a merge (<<) of something that is not a map');
      Object.assign(out, map);
    }
  }
}
