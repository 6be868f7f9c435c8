import { composed } from './text.ts';

/**
 * Returns whether a name matches a glob, in which `*` stands for any text. Names are untrusted, so this is not a regular
 * expression: each part of the glob is searched once.
 */
export function matchesGlob(stated: string, glob: string): boolean {
  const name = composed(stated);
  const [first = '', ...parts] = composed(glob).split('*');
  const last = parts.pop();
  if (last === undefined) return name === first;
  if (!name.startsWith(first) || !name.endsWith(last)) return false;
  let from = first.length;
  for (const part of parts) {
    const at = name.indexOf(part, from);
    if (at < 0) return false;
    from = at + part.length;
  }
  return from + last.length <= name.length;
}
