// Finds the texts in the code that people read: errors, hints, warnings, notices and the rest.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parseAst } from 'vitest/node';

/** A text in the code; values that are only known when it is printed are names in capitals. */
export interface Message {
  readonly kind: 'error' | 'hint' | 'warning' | 'notice' | 'text';
  readonly text: string;
}

interface Node {
  readonly type: string;
  readonly [key: string]: unknown;
}

const isNode = (value: unknown): value is Node => typeof (value as Node | null)?.type === 'string';

function children(node: Node): Node[] {
  return Object.values(node).flat().filter(isNode);
}

/** Returns the name of a value as people read it: `problem.message` is MESSAGE. */
function placeholder(node: Node): string {
  let name: unknown;
  if (node.type === 'Identifier') ({ name } = node);
  else if (node.type === 'MemberExpression') return placeholder(node.property as Node);
  else if (node.type === 'CallExpression') return placeholder((node.arguments as Node[])[0] ?? (node.callee as Node));
  else if (node.type === 'TSNonNullExpression' || node.type === 'TSAsExpression')
    return placeholder(node.expression as Node);
  if (typeof name !== 'string') return '…';
  return name.replace(/[a-z](?=[A-Z])/g, '$&_').toUpperCase();
}

/** Returns the text of a literal, a template or a sum of both; undefined for all else. */
function textOf(node: Node): string | undefined {
  if (node.type === 'Literal') return typeof node.value === 'string' ? node.value : undefined;
  if (node.type === 'TemplateLiteral') {
    const values = node.expressions as Node[];
    const parts = (node.quasis as { value: { cooked: string } }[]).map(({ value }) => value.cooked);
    return parts.map((part, i) => (i === 0 ? '' : placeholder(values[i - 1] as Node)) + part).join('');
  }
  if (node.type !== 'BinaryExpression' || node.operator !== '+') return undefined;
  const [left, right] = [node.left as Node, node.right as Node].map((side) => textOf(side) ?? undefined);
  if (left === undefined && right === undefined) return undefined;
  return (left ?? placeholder(node.left as Node)) + (right ?? placeholder(node.right as Node));
}

/** Returns the values inside a template or a sum, where a text is one of its own. */
function insides(node: Node): Node[] {
  if (node.type === 'TemplateLiteral') return node.expressions as Node[];
  if (node.type !== 'BinaryExpression') return [];
  return [node.left as Node, node.right as Node].flatMap((side) => (textOf(side) === undefined ? side : insides(side)));
}

function calleeName(node: Node): string {
  const callee = node.callee as Node;
  return String((callee.type === 'MemberExpression' ? (callee.property as Node) : callee).name);
}

// Debug lines and what the program itself reads.
const unread = /^(?:log|test|RegExp|join|split|startsWith|endsWith|includes|replace|replaceAll|match|matchAll)$/;

/** Returns the texts of one file that have at least two words, in their order. */
export function messagesOf(code: string): Message[] {
  const found: Message[] = [];
  const visit = (node: Node, kind: Message['kind']): void => {
    if (/^(?:Import|TS)/.test(node.type) && node.type !== 'TSAsExpression' && node.type !== 'TSSatisfiesExpression')
      return;
    // Code for a browser.
    if (node.type === 'TaggedTemplateExpression') return;
    const text = textOf(node);
    if (text !== undefined) {
      const clean = text.replace(/\s+/g, ' ').trim();
      // Markup is read in a browser.
      const isMarkup = /<\/|<!DOCTYPE|<meta |<link |<[a-z]+\[?[A-Z]/.test(clean);
      if (!isMarkup && /\p{L}\S* \S*\p{L}/u.test(clean)) found.push({ kind, text: clean });
      for (const inside of insides(node)) visit(inside, kind);
      return;
    }
    if (node.type === 'Property') {
      const name = String((node.key as Node).name ?? (node.key as Node).value);
      visit(node.value as Node, /^(?:hints?|fix)$/.test(name) ? 'hint' : kind);
      return;
    }
    if (node.type === 'NewExpression' || node.type === 'CallExpression') {
      const name = calleeName(node);
      if (unread.test(name)) {
        visit(node.callee as Node, kind);
        return;
      }
      const inner =
        node.type === 'NewExpression' && name !== 'Option'
          ? 'error'
          : ({ warn: 'warning', notice: 'notice', hint: 'hint' } as const)[name];
      for (const child of children(node)) visit(child, child === node.callee ? kind : (inner ?? kind));
      return;
    }
    for (const child of children(node)) visit(child, kind);
  };
  visit(parseAst(code, { lang: 'ts' }) as unknown as Node, 'text');
  return found;
}

/** Returns the page of all messages below these folders of `src`. */
export function messagesPage(root: string, folders: readonly string[]): string {
  const sections = folders.flatMap((folder) => {
    const files = fs.readdirSync(path.join(root, 'src', folder), { recursive: true, encoding: 'utf8' });
    const messages = files
      .filter((file) => file.endsWith('.ts'))
      .sort()
      .flatMap((file) => messagesOf(fs.readFileSync(path.join(root, 'src', folder, file), 'utf8')));
    const lines = [...new Set(messages.map(({ kind, text }) => `${kind}: ${text}`))];
    return lines.length === 0 ? [] : [`## ${folder}\n\n\`\`\`text\n${lines.join('\n')}\n\`\`\`\n`];
  });
  return sections.join('\n');
}
