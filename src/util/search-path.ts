// Finds programs by name, as shells and kubectl do.
import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';

/** Returns PATH from an environment; Windows spells it `Path`. */
export function searchPathOf(env: Readonly<Record<string, string | undefined>>): string {
  return env.PATH ?? env.Path ?? '';
}

/** Returns the folders in a PATH, without empty entries. */
export function foldersIn(searchPath: string, platform: NodeJS.Platform = process.platform): string[] {
  return searchPath.split(platform === 'win32' ? ';' : ':').filter((folder) => folder !== '');
}

/** Returns the paths at which files with these names can be, in order of search. */
export function placesOnPath(names: readonly string[], searchPath: string): string[] {
  return foldersIn(searchPath).flatMap((folder) => names.map((name) => resolve(folder, name)));
}

/** Returns whether a path is a file that this user can execute. Never throws. */
export function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
