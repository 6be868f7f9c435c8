import * as fs from 'node:fs';
import { writeFileAtomic } from '../util/files.ts';
import { cleanText } from '../util/text.ts';
import { readObject, remove } from './files.ts';
import type { EntryLock } from './held-lock.ts';

/** How an attempt ended that others were waiting for. */
export interface FailureNote {
  /** Milliseconds of the epoch. */
  readonly at: number;
  readonly message: string;
  readonly hints: readonly string[];
  /** The API server that a token was asked for. */
  readonly apiServer: string | undefined;
  /** The process that asked, by callerOf(); undefined if that is unknown. */
  readonly caller: string | undefined;
  /** It only ran out of its time. */
  readonly outOfTime: boolean;
  /** No other answer is to be expected soon: the server refused, or what it gives must not be used. */
  readonly final: boolean;
  /** When a caller was last told, in milliseconds of the epoch. */
  readonly toldAt: number;
}

/** The notes of failures beside the entries: `~/.cache/kubectl-tka/https+tka.example.ts.net+failed`. */
export class FailureNotes {
  readonly #entryFile: (server: string) => string | undefined;

  constructor(entryFile: (server: string) => string | undefined) {
    this.#entryFile = entryFile;
  }

  /** How the last attempt for a server ended, if it failed. */
  read(server: string): FailureNote | undefined {
    const file = this.#path(server);
    const value = file === undefined ? undefined : readObject(file);
    if (file === undefined || typeof value?.at !== 'number' || typeof value.message !== 'string') return undefined;
    // All waiters would believe a note from the future (the clock was set back) until then.
    if (value.at > Date.now()) return undefined;
    const hints = Array.isArray(value.hints) ? value.hints.filter((hint) => typeof hint === 'string') : [];
    const text = (line: string) => cleanText(line, 2000);
    return {
      at: value.at,
      message: text(value.message),
      hints: hints.map(text),
      apiServer: typeof value.apiServer === 'string' ? value.apiServer : undefined,
      caller: typeof value.caller === 'string' ? value.caller : undefined,
      outOfTime: value.outOfTime === true,
      final: value.final === true,
      toldAt: fs.lstatSync(file, { throwIfNoEntry: false })?.mtimeMs ?? value.at,
    };
  }

  /** Notes how an attempt ended, for the processes that wait for it. Never throws. */
  write(server: string, note: Omit<FailureNote, 'toldAt'>, lock: EntryLock | undefined): void {
    this.#change(server, lock, (file) => writeFileAtomic(file, JSON.stringify(note), { within: lock?.folder }));
  }

  /** Removes the note. Never throws. */
  remove(server: string, lock: EntryLock | undefined): void {
    this.#change(server, lock, remove);
  }

  /** Notes that a failure was told once more. Never throws. */
  touch(server: string): void {
    const now = Date.now() / 1000;
    this.#change(server, undefined, (file) => fs.utimesSync(file, now, now));
  }

  #path(server: string): string | undefined {
    const entry = this.#entryFile(server);
    return entry === undefined ? undefined : `${entry}+failed`;
  }

  #change(server: string, lock: EntryLock | undefined, act: (file: string) => void): void {
    const file = this.#path(server);
    if (file === undefined || lock?.held() === false) return;
    try {
      act(file);
    } catch {
      // Best effort: without the note, the server is asked once more.
    }
  }
}
