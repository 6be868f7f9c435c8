import { dirname, resolve } from 'node:path';
import { foldersIn, isExecutable } from '../util/search-path.ts';

/**
 * Whether kubectl could run this exec command: a bare name is looked for on PATH, one with a separator is taken from the
 * kubeconfig's folder, as client-go does. Never throws.
 */
export function usableCommand(command: string, file: string, searchPath = process.env.PATH): boolean {
  const windows = process.platform === 'win32';
  const suffixes = windows ? ['', ...(process.env.PATHEXT ?? '.EXE;.CMD;.BAT').split(';')] : [''];
  const placed = command.includes('/') || (windows && command.includes('\\'));
  const folders = placed ? [dirname(file)] : foldersIn(searchPath ?? '');
  return folders.some((folder) => suffixes.some((suffix) => isExecutable(resolve(folder, command + suffix))));
}
