// Words on the command line that stand for several names: a list (`prod-eu,prod-us`), a glob (`prod-*`), or both.
import { TkaError, UsageError } from '../../util/errors.ts';
import { matchesGlob } from '../../util/glob.ts';
import { cleanText, quoted } from '../../util/text.ts';

const mostShown = 10;

/** Returns whether a word may stand for several names. A URL never does. */
export const isPattern = (word: string): boolean => !word.includes('://') && /[,*]/.test(word);

/** Returns whether a word needs the names of all clusters. */
export const isGlob = (word: string): boolean => isPattern(word) && word.includes('*');

/** A name as typed, or something that a glob matched. */
export interface Expanded<T> {
  readonly name: string;
  /** What the glob matched; undefined for a name. */
  readonly match?: T;
}

/** What the words of a command line may stand for. */
export interface Names<T> {
  /** Everything that a glob can match, by its names. */
  readonly all: readonly (readonly [name: string, value: T])[];
  /** Returns whether a word is a name, whatever characters it has. */
  readonly isName: (word: string) => boolean;
  /** What has these names: `cluster`. */
  readonly what: string;
}

/**
 * Expands lists and globs, in their order, and returns each name and each match once. A word that is a name stands for
 * itself. Throws UsageError for a list with an empty name, TkaError for a glob that matches nothing.
 */
export function expandNames<T>(words: readonly string[], names: Names<T>): Expanded<T>[] {
  const { isName } = names;
  const found = new Map<string | T, Expanded<T>>();
  for (const word of words) {
    const parts = isPattern(word) && !isName(word) ? word.split(',').map((part) => part.trim()) : [word];
    if (parts.length > 1 && parts.includes('')) throw new UsageError(`empty name in ${quoted(word)}`);
    for (const part of parts) {
      if (!isGlob(part) || isName(part)) found.set(part, { name: part });
      else for (const [name, match] of matchesOf(part, names)) found.set(match, { name, match });
    }
  }
  return [...found.values()];
}

function matchesOf<T>(glob: string, { all, what }: Names<T>): Names<T>['all'] {
  const matches = all.filter(([name]) => matchesGlob(name, glob));
  if (matches.length > 0) return matches;
  const names = [...new Set(all.map(([name]) => cleanText(name)))].sort();
  const more = names.length > mostShown ? `, and ${names.length - mostShown} more` : '';
  throw new TkaError(`no ${what} matches ${quoted(glob)}`, {
    hints: [
      names.length === 0 ? 'kubectl tka clusters' : `the names are ${names.slice(0, mostShown).join(', ')}${more}`,
    ],
  });
}
