// Suggests names for a mistyped one: commands, flags, clusters, contexts and settings.

/** Maximum number of differences. With more, it is another word. */
const furthest = 3;
const mostShown = 3;
/** Maximum length of names to compare, because the work grows with the product of both lengths. */
const longest = 100;

/** Returns the candidates nearest to a word, at most three, in their order; none if all are too different. */
export function nearest(word: string, candidates: Iterable<string>): string[] {
  let best = furthest;
  let found: string[] = [];
  for (const candidate of new Set(candidates)) {
    if (candidate.length < 2) continue;
    const distance = distanceOf(word.toLowerCase(), candidate.toLowerCase());
    // Nearly all short words are within three changes of each other, so limit the proportion too.
    if (distance > best || distance >= Math.max(word.length, candidate.length) * 0.6) continue;
    if (distance < best) found = [];
    best = distance;
    found.push(candidate);
  }
  return found.slice(0, mostShown);
}

/** Returns the commands or flags nearest to the unknown one in an error message of Commander; none for other messages. */
export function nearestFor(message: string, commands: readonly string[], flags: readonly string[]): string[] {
  const [, kind, word = ''] = /unknown (command|option) '([^']*)'/.exec(message) ?? [];
  if (kind === 'command') return nearest(word, commands);
  return kind === 'option' && word.startsWith('--') ? nearest(word.split('=', 1)[0] ?? '', flags) : [];
}

/** Returns `; did you mean "prod-us"?` for the end of an error message, or '' if no candidate is near. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const found = nearest(word, candidates).map((name) => JSON.stringify(name));
  const last = found.pop();
  if (last === undefined) return '';
  return `; did you mean ${found.length === 0 ? last : `${found.join(', ')} or ${last}`}?`;
}

/**
 * Returns how many characters must be added, dropped, replaced or swapped with a neighbour. A swap counts slightly
 * less, because it is the likeliest mistake.
 */
function distanceOf(a: string, b: string): number {
  if (a.length > longest || b.length > longest) return furthest + 1;
  // A part of a name is near it: `prod-us` for `tka-prod-us`.
  const contained = a.length >= 3 && b.includes(a) ? 1.5 : furthest + 1;
  if (Math.abs(a.length - b.length) > furthest) return contained;
  let [before, last]: number[][] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row[j] = Math.min(
        (last?.[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        (last?.[j - 1] ?? 0) + same,
        swapped ? (before?.[j - 2] ?? 0) + 0.9 : Number.POSITIVE_INFINITY,
      );
    }
    [before, last] = [last, row];
  }
  return Math.min(contained, last?.[b.length] ?? contained);
}
