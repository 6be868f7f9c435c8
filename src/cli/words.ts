// Rewrites a command line before Commander parses it: spellings of kubectl that Commander does not know, and aliases.

/** A command line in the form that Commander takes. */
export interface CommandLine {
  readonly words: readonly string[];
  /** The places in `words` of the command and its arguments, up to `--`. */
  readonly operands: readonly number[];
}

/**
 * Returns the command line without the `=` between a short flag and its value: `-o=json` becomes `-ojson`. `takesValue`
 * says which flags (`-o`, `--output`) have a value. Words after `--` and values that are words of their own stay as they
 * are.
 */
export function readLine(args: readonly string[], takesValue: (flag: string) => boolean): CommandLine {
  const words = [...args];
  const operands: number[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? '';
    if (word === '--') break;
    if (word.startsWith('--')) {
      // A long flag without `=` takes the next word.
      if (takesValue(word)) i++;
    } else if (!word.startsWith('-') || word === '-') operands.push(i);
    else {
      const letters = [...word];
      const at = letters.findIndex((letter, place) => place > 0 && takesValue(`-${letter}`));
      if (at < 0) continue;
      const [before, value] = [letters.slice(0, at + 1).join(''), letters.slice(at + 1).join('')];
      if (value === '') i++;
      // Without a value, `-o` would take the next word for it.
      else if (value.startsWith('=') && value !== '=') words[i] = before + value.slice(1);
    }
  }
  return { words, operands };
}

/** A command with the other names that people type for it. */
export interface Named {
  readonly name: string;
  /** One or two words: `ls`, `get clusters`. */
  readonly aliases?: readonly string[];
}

/** Returns the command line with a command's own name instead of an alias. */
export function withoutAlias({ words, operands }: CommandLine, commands: readonly Named[]): CommandLine {
  const [first = -1, second = -1] = operands;
  for (const { name, aliases = [] } of commands) {
    for (const alias of aliases) {
      const [word, next] = alias.split(' ');
      if (words[first] !== word || (next !== undefined && words[second] !== next)) continue;
      const named = words.with(first, name);
      if (next === undefined) return { words: named, operands };
      const later = operands.slice(2).map((place) => place - 1);
      return { words: named.toSpliced(second, 1), operands: [first, ...later] };
    }
  }
  return { words, operands };
}

/** Returns whether a flag is among the words before `--`. */
export function hasFlag(words: readonly string[], ...flags: readonly string[]): boolean {
  const end = words.indexOf('--');
  return words.slice(0, end < 0 ? words.length : end).some((word) => flags.includes(word));
}
