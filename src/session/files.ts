// How this room reads, lists and removes its files.
import * as fs from 'node:fs';
import { serverOfEntry } from '../credential/entry.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { readOwn } from '../util/files.ts';
import { isObject, type Json, parseJson } from '../util/json.ts';
import { LostLock } from './held-lock.ts';

export const noHome = 'the environment names no home folder (HOME is unset)';

/** Returns the object in a JSON file of this user; undefined for anything else, and for a file over `limit` bytes. */
export function readObject(file: string, limit = 64 * 1024): Json | undefined {
  const value = parseJson(readOwn(file, limit) ?? '');
  return isObject(value) ? value : undefined;
}

/** The servers whose files are in a folder, sorted. */
export function serversIn(folder: string): string[] {
  try {
    return fs
      .readdirSync(folder)
      .sort()
      .flatMap((name) => serverOfEntry(name) ?? []);
  } catch {
    return [];
  }
}

/** Removes whatever is at a path. Throws the system's error. */
export function remove(file: string): void {
  fs.rmSync(file, { recursive: true, force: true });
}

/** Runs `act`; throws its system errors as a TkaError about `what`. */
export function explained(what: string, act: () => void): void {
  try {
    act();
  } catch (cause) {
    if (cause instanceof TkaError || cause instanceof LostLock) throw cause;
    throw new TkaError(`${what}: ${systemCode(cause) ?? 'cannot be written'}`, { cause });
  }
}
