// A diff of our own, because packages show whole lines. It must hide other people's tokens near a change, and handle
// files of tens of thousands of lines with many repeats. The format is that of `diff -u`, which `patch` reads.

const context = 3;
/** Up to this many table cells, finds the shortest difference; larger blocks are shown as replaced. */
const tableLimit = 1_000_000;

/** A range of lines in the old file and the range that replaces it in the new file. */
interface Change {
  readonly from: number;
  readonly to: number;
  readonly newFrom: number;
  readonly newTo: number;
}

export interface DiffOptions {
  /** Returns true for lines that may hold a secret. The context of a hunk ends before them. */
  readonly secret?: (line: string) => boolean;
  /** Removes the secrets of an added or removed line. */
  readonly redact?: (line: string) => string;
}

/**
 * Returns a unified diff with file names and three lines of context; '' if nothing differs. `before` is undefined for a
 * file that does not exist yet.
 */
export function unifiedDiff(
  file: string,
  before: string | undefined,
  after: string,
  options: DiffOptions = {},
): string {
  const a = linesOf(before ?? '');
  const b = linesOf(after);
  const changes: Change[] = [];
  compare(a, b, { from: 0, to: a.length, newFrom: 0, newTo: b.length }, changes, 0);
  if (changes.length === 0) return '';
  // `patch` needs a tab after a file name with spaces.
  const name = /\s/.test(file) ? `${file}\t` : file;
  const head = `--- ${before === undefined ? '/dev/null' : name}\n+++ ${name}\n`;
  return head + hunksOf(changes, a, b, options).join('');
}

// Keeps the line feeds, so that a last line with and without one differ.
function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

/**
 * Adds the differences within a range, in order. Cuts off equal lines at both ends, then splits at lines that are
 * unique on both sides.
 */
function compare(a: readonly string[], b: readonly string[], range: Change, found: Change[], depth: number): void {
  let { from, to, newFrom, newTo } = range;
  while (from < to && newFrom < newTo && a[from] === b[newFrom]) {
    from++;
    newFrom++;
  }
  while (from < to && newFrom < newTo && a[to - 1] === b[newTo - 1]) {
    to--;
    newTo--;
  }
  const rest: Change = { from, to, newFrom, newTo };
  if (from === to || newFrom === newTo) {
    if (from !== to || newFrom !== newTo) add(found, rest);
    return;
  }
  const pairs = depth > 40 ? [] : uniquePairs(a, b, rest);
  if (pairs.length === 0) {
    compareSmall(a, b, rest, found);
    return;
  }
  let [at, newAt] = [from, newFrom];
  for (const [i, j] of [...pairs, [to, newTo] as const]) {
    compare(a, b, { from: at, to: i, newFrom: newAt, newTo: j }, found, depth + 1);
    [at, newAt] = [i + 1, j + 1];
  }
}

function add(found: Change[], change: Change): void {
  const last = found.at(-1);
  if (last?.to !== change.from || last.newTo !== change.newFrom) found.push(change);
  else found[found.length - 1] = { ...last, to: change.to, newTo: change.newTo };
}

/**
 * Returns pairs of lines that occur once on each side of the range: the longest series in the same order on both sides.
 */
function uniquePairs(a: readonly string[], b: readonly string[], range: Change): (readonly [number, number])[] {
  const once = (lines: readonly string[], from: number, to: number) => {
    const places = new Map<string, number>();
    for (let i = from; i < to; i++) {
      const line = lines[i] as string;
      places.set(line, places.has(line) ? -1 : i);
    }
    return places;
  };
  const places = once(b, range.newFrom, range.newTo);
  const pairs: [number, number][] = [];
  for (const [line, i] of once(a, range.from, range.to)) {
    const j = places.get(line) ?? -1;
    if (i >= 0 && j >= 0) pairs.push([i, j]);
  }
  pairs.sort(([i], [k]) => i - k);
  // Patience sorting finds the longest increasing series of places in b.
  const tops: number[] = [];
  const before: number[] = [];
  for (const [index, [, j]] of pairs.entries()) {
    let [low, high] = [0, tops.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((pairs[tops[middle] as number] as [number, number])[1] < j) low = middle + 1;
      else high = middle;
    }
    before[index] = tops[low - 1] ?? -1;
    tops[low] = index;
  }
  const run: [number, number][] = [];
  for (let index = tops.at(-1) ?? -1; index >= 0; index = before[index] as number) {
    run.push(pairs[index] as [number, number]);
  }
  return run.reverse();
}

/** Adds the shortest difference of a small range; replaces a large one as a whole. */
function compareSmall(a: readonly string[], b: readonly string[], range: Change, found: Change[]): void {
  const { from, newFrom } = range;
  const rows = range.to - from;
  const columns = range.newTo - newFrom;
  if (rows * columns > tableLimit) {
    add(found, range);
    return;
  }
  const width = columns + 1;
  const common = new Uint16Array((rows + 1) * width);
  const at = (i: number, j: number) => common[i * width + j] as number;
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      common[i * width + j] =
        a[from + i] === b[newFrom + j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  for (let i = 0, j = 0; i < rows || j < columns; ) {
    if (i < rows && j < columns && a[from + i] === b[newFrom + j]) {
      i++;
      j++;
      continue;
    }
    const down = i < rows && (j === columns || at(i + 1, j) >= at(i, j + 1));
    const [x, y] = [from + i, newFrom + j];
    add(found, { from: x, to: down ? x + 1 : x, newFrom: y, newTo: down ? y : y + 1 });
    if (down) i++;
    else j++;
  }
}

function hunksOf(
  changes: readonly Change[],
  a: readonly string[],
  b: readonly string[],
  { secret = () => false, redact = (line) => line }: DiffOptions,
): string[] {
  const groups: Change[][] = [];
  for (const change of changes) {
    const group = groups.at(-1);
    const end = group?.at(-1)?.to ?? 0;
    const near = group !== undefined && change.from - end <= 2 * context && !a.slice(end, change.from).some(secret);
    if (near) group.push(change);
    else groups.push([change]);
  }
  let end = 0;
  return groups.map((group, g) => {
    const first = group[0] as Change;
    const last = group.at(-1) as Change;
    const next = groups[g + 1]?.[0]?.from ?? a.length;
    const open = (line: string | undefined) => line !== undefined && !secret(line);
    let [lead, trail] = [0, 0];
    while (lead < context && first.from - lead > end && open(a[first.from - lead - 1])) lead++;
    while (trail < context && last.to + trail < next && open(a[last.to + trail])) trail++;
    // If only one side has less context, `patch` takes the hunk for the start or end of the file. So shorten both.
    const room = Math.min(
      context,
      first.from - lead === 0 ? context : lead,
      last.to + trail === a.length ? context : trail,
    );
    [lead, trail] = [Math.min(lead, room), Math.min(trail, room)];
    end = last.to + trail;
    const from = first.from - lead;
    const newFrom = first.newFrom - lead;
    const newEnd = last.newTo + trail;
    const out: string[] = [];
    let at = from;
    for (const { from: i, to, newFrom: j, newTo } of group) {
      for (; at < i; at++) out.push(` ${a[at]}`);
      for (; at < to; at++) out.push(`-${redact(a[at] as string)}`);
      for (let k = j; k < newTo; k++) out.push(`+${redact(b[k] as string)}`);
    }
    for (; at < end; at++) out.push(` ${a[at]}`);
    const text = out.map((line) => (line.endsWith('\n') ? line : `${line}\n\\ No newline at end of file\n`)).join('');
    return `@@ -${place(from, end)} +${place(newFrom, newEnd)} @@\n${text}`;
  });
}

// The diff format gives an empty range the number of the line before it.
function place(from: number, to: number): string {
  const count = to - from;
  if (count === 1) return `${from + 1}`;
  return `${count === 0 ? from : from + 1},${count}`;
}
