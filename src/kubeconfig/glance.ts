import * as fs from 'node:fs';
import type { KubeconfigFiles } from './files.ts';

/** Name of the extension that marks an entry as managed by kubectl-tka. */
export const markName = 'tka.specht-labs.de';

const markLine = /^(?:- +)?name: *["']?tka\.specht-labs\.de["']?\s*$/;
const sizeLimit = 16 * 1024 * 1024;

/** A context. */
export interface GlancedContext {
  readonly name: string;
  /** The canonical URL of its TKA server; undefined if the context is not managed. */
  readonly server: string | undefined;
}

/**
 * Returns the managed contexts, or all with `others`, for completion. Reads only the layouts that kubectl and we write (block
 * YAML, or JSON that begins with a brace), line by line, and misses any other: to load and run a YAML parser takes too
 * long for a TAB. Never throws, and never blocks on a pipe.
 */
export function glanceContexts({ files }: Pick<KubeconfigFiles, 'files'>, others = false): GlancedContext[] {
  const contexts = files.flatMap((file) => {
    try {
      const stat = fs.statSync(file);
      if (!stat.isFile() || stat.size > sizeLimit) return [];
      const text = fs.readFileSync(file, 'utf8');
      return /^\s*\{/.test(text) ? inJson(text, others) : inBlocks(text, others);
    } catch {
      return [];
    }
  });
  // As in kubectl, the first file that has a name counts.
  const byName = new Map(contexts.toReversed().map((context) => [context.name, context]));
  return [...byName.values()].reverse();
}

interface JsonContext {
  name?: unknown;
  context?: { extensions?: { name?: unknown; extension?: { server?: unknown } }[] };
}

function inJson(text: string, others: boolean): GlancedContext[] {
  return JSON.parse(text).contexts.flatMap(({ name, context }: JsonContext): GlancedContext[] => {
    const mark = context?.extensions?.find((extension) => extension.name === markName);
    if ((mark === undefined && !others) || typeof name !== 'string') return [];
    const server = mark?.extension?.server;
    return [{ name, server: typeof server === 'string' ? server : undefined }];
  });
}

/** Returns the lines of the contexts section. The rest of the file is many times as long and is not parsed. */
function contextLines(text: string): string[] {
  const heading = /^["']?contexts["']?:[ \t]*(?:#.*)?\r?$/m.exec(text);
  if (heading === null) return [];
  const rest = text.slice(heading.index + heading[0].length);
  const end = /^[^\s#-]/m.exec(rest)?.index;
  return rest.slice(0, end).split(/\r?\n/);
}

function inBlocks(text: string, others: boolean): GlancedContext[] {
  const found: GlancedContext[] = [];
  // The current item: the columns of its dash and its keys, its name, the last server in it, and whether it has our mark.
  let dash = -1;
  let column = -1;
  let name: string | undefined;
  let server: string | undefined;
  let ours = false;
  const close = () => {
    if ((ours || others) && name !== undefined) found.push({ name, server });
    name = undefined;
    server = undefined;
    ours = false;
  };
  for (const line of contextLines(text)) {
    let at = line.search(/[^ ]/);
    if (at < 0) continue;
    let rest = line.slice(at);
    const item = /^- +/.exec(rest);
    if (item !== null && (dash < 0 || at === dash)) {
      close();
      dash = at;
      at += item[0].length;
      column = at;
      rest = rest.slice(item[0].length);
    }
    if (at === column) name = /^name: *(.*)$/.test(rest) ? scalar(rest.slice(5).trim()) : name;
    else if (markLine.test(rest)) ours = true;
    else if (rest.startsWith('server: ')) server = scalar(rest.slice(8).trim());
  }
  close();
  return found;
}

function scalar(text: string): string | undefined {
  try {
    if (text.startsWith('"')) return String(JSON.parse(text));
  } catch {
    return undefined;
  }
  if (text.startsWith("'")) return text.endsWith("'") ? text.slice(1, -1).replaceAll("''", "'") : undefined;
  return /^[|>&*!{[]/.test(text) ? undefined : text.replace(/\s#.*$/, '').trimEnd();
}
