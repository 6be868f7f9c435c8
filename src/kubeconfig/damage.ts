import { TkaError } from '../util/errors.ts';
import { cleanText } from '../util/text.ts';

/** Maximum size of a kubeconfig file, in bytes. */
export const maxBytes = 16 * 1024 * 1024;

/** Returns the error for a change that does not fit into a kubeconfig. */
export function tooLarge(message: string): TkaError {
  return new TkaError(message, { hints: ['write fewer contexts at a time: kubectl tka sync -l KEY=VALUE'] });
}

/** Returns a path, cleaned for a message. */
export const shown = (path: string): string => cleanText(path, 4096);

/** Returns a text as one shell word, quoted if needed, for the command in a hint. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${shown(text).replaceAll("'", `'\\''`)}'`;
}

/**
 * Returns the error for a problem at an offset of a file: `path:line:column: what`, and a hint that checks the file.
 */
export function damage(source: { file: string; lines: string }, offset: number, what: string): TkaError {
  const before = source.lines.slice(0, offset);
  const line = before.split('\n').length;
  const column = [...before.slice(before.lastIndexOf('\n') + 1).replace('\ufeff', '')].length + 1;
  const file = shown(source.file);
  return new TkaError(`${file}:${line}:${column}: ${what}`, {
    hints: [`fix the file, then check it: kubectl config view --kubeconfig ${shellWord(source.file)}`],
  });
}
