import { type CST, isAlias, type Node, type Pair, type YAMLMap } from 'yaml';
import { TkaError } from '../util/errors.ts';
import { damage } from './damage.ts';
import type { Layout } from './source.ts';

/** Replaces a range with a text. `probe` is a shorter text of the same shape, for verification. */
export interface TextEdit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
  readonly probe?: string;
}

export type YamlPair = Pair<Node | null, Node | null>;
export type YamlItem = CST.CollectionItem;

/** Returns the error for a place that cannot be spliced; `what` replaces the usual hints. */
export function unsafe(source: Layout, offset: number, why: string, what?: readonly string[]): TkaError {
  const { message, hints } = damage(source, offset, `cannot edit this safely: ${why}`);
  const usual = ['write that part in block form, or use another file: --kubeconfig FILE', ...hints];
  return new TkaError(message, { hints: what ?? usual });
}

/**
 * Returns the text with edits applied, in order of position; edits at the same place keep their order. Throws TkaError
 * if edits overlap.
 */
export function applyEdits(text: string, edits: readonly TextEdit[], probe = false): string {
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

/** Types of tokens without content. */
export const blank = new Set(['space', 'newline', 'comment', 'comma']);

/** Returns where the last token with content ends; undefined if there is none. */
export function lastSign(tokens: readonly CST.SourceToken[] | undefined): number | undefined {
  const token = tokens?.findLast((t) => !blank.has(t.type));
  return token && token.offset + token.source.length;
}

// Ends come from tokens, because node ranges leave out `- ` and anchors, and include comments behind empty values.
/** Returns where the text of a list item or a pair ends, without comments and line end. */
export function itemEnd(item: YamlItem): number | undefined {
  return tokenEnd(item.value) ?? lastSign(item.sep) ?? tokenEnd(item.key) ?? lastSign(item.start);
}

/** Returns where the text of a key or a list item begins, with anchors and `?`. */
export function itemStart(item: YamlItem): number {
  return item.start.find((t) => !blank.has(t.type))?.offset ?? (item.key ?? item.value)?.offset ?? 0;
}

/** Returns where a token's text ends, without comments and line end; undefined if it has no text. */
export function tokenEnd(token: CST.Token | null | undefined): number | undefined {
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
        const end = itemEnd(token.items[i] as YamlItem);
        if (end !== undefined) return end;
      }
      return undefined;
    default:
      return undefined;
  }
}

// --- lines -----------------------------------------------------------------------------------------------------------

/** Returns where the line of an offset begins, after a byte order mark. */
export const lineStart = (source: Layout, offset: number): number => {
  const begin = source.lines.lastIndexOf('\n', offset - 1) + 1;
  return begin === 0 && source.lines.startsWith('\ufeff') ? 1 : begin;
};

/** Returns where the line after that of an offset begins; the end of the text if there is none. */
export const nextLine = (source: Layout, offset: number): number =>
  source.lines.indexOf('\n', offset) + 1 || source.text.length;

/** Returns the column of an offset, counted from 0. */
export const column = (source: Layout, offset: number): number => offset - lineStart(source, offset);

/**
 * Returns where the first line after `offset` and its own comments begins. Comments that follow with an indentation of
 * at least `depth` belong to the text that ends at `offset`.
 */
export function afterOwnComments(source: Layout, offset: number, depth: number): number {
  let result = nextLine(source, offset);
  for (let at = result; at < source.end; at = nextLine(source, at)) {
    const line = source.lines.slice(at, nextLine(source, at));
    const indent = /^ *(?=#)/.exec(line)?.[0].length;
    if (indent !== undefined && indent >= depth) result = nextLine(source, at);
    else if (line.trim() !== '') break;
  }
  return Math.min(result, source.end);
}

/** Returns the line end that the file uses. */
export function eol(source: Pick<Layout, 'text'>): string {
  return /\r\n|\n|\r/.exec(source.text)?.[0] ?? '\n';
}

/** Returns an edit that adds whole lines where a line begins. A file without a final line end keeps none. */
export function insertLines(source: Layout, at: number, text: string, probe?: string): TextEdit {
  const end = eol(source);
  const open = at > lineStart(source, at);
  const whole = (t: string) => (open ? end + t.slice(0, -1).replaceAll('\n', end) : t.replaceAll('\n', end));
  return { start: at, end: at, text: whole(text), ...(probe !== undefined && { probe: whole(probe) }) };
}

// --- anchors ---------------------------------------------------------------------------------------------------------

/** Throws TkaError if a node is an alias, or has an anchor that other parts of the file refer to. */
export function requirePrivate(source: Layout, node: Node): void {
  const offset = node.range?.[0] ?? 0;
  if (isAlias(node)) throw unsafe(source, offset, `alias *${node.source} is where the change must go`);
  const anchor = (node as YAMLMap).anchor;
  if (anchor !== undefined && source.shared.has(anchor)) {
    throw unsafe(source, offset, `other parts of the file refer to it as *${anchor}`);
  }
}
