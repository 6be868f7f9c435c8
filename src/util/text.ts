// C0 and C1 controls, DEL, line and paragraph separators, bidirectional overrides, zero-width and tag characters, lone
// surrogates: everything that can move a cursor, hide or reorder text, or end a line.
const unsafe =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\p{Cs}\u{e0000}-\u{e007f}]/gu;

const asciiName = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/;
// Letters and digits with up to four marks each, flags, and emoji. No character can match two of the alternatives, so
// the time is linear.
const sign = String.raw`(?:(?!\p{ExtPict})[\p{L}\p{N}](?:(?!\ufe0f)\p{M}){0,4}|\p{RI}|\p{ExtPict}\ufe0f?\p{EMod}?)`;
const anyName = new RegExp(`^${sign}(?:[._-]*${sign})*$`, 'u');
// Variation selectors, fillers and other characters that are not drawn: two names that look the same could differ.
const undrawn = /(?!\ufe0f)\p{DI}/u;
// A word of two alphabets that share the looks of letters: `рrod` with a Cyrillic first letter.
const mixed = (word: string) => /\p{sc=Latn}/u.test(word) && /[\p{sc=Cyrl}\p{sc=Grek}]/u.test(word);

/**
 * Returns whether a text is a valid name of a server or a cluster. Such a name becomes a context's name, an argument
 * and a completion, so it is like a DNS name, in any script: `prod-us`, `zürich`, `東京`.
 */
export function isPlainName(text: string): boolean {
  if (asciiName.test(text)) return true;
  return text.length <= 253 && anyName.test(text) && !undrawn.test(text) && !text.split(/[._-]/).some(mixed);
}

/**
 * Returns a text in the form in which names are compared (Unicode NFC): an `ü` can be one character, or a `u` and a
 * mark.
 */
export function composed(text: string): string {
  return /^[ -~]*$/.test(text) ? text : text.normalize('NFC');
}

/**
 * Returns an untrusted text in a form that is safe for a terminal, a file name or a kubeconfig. Runs of white space and
 * control characters become one space, other invisible characters are removed, and the text is cut to `limit`
 * characters.
 */
export function cleanText(text: string, limit = 256): string {
  // The usual case needs no change.
  if (text.length <= limit && /^[!-~]*$/.test(text)) return text;
  const bounded = text.length > limit * 8 ? text.slice(0, limit * 8) : text;
  const plain = bounded
    .replace(/[\s\u0000-\u001f]+/gu, ' ')
    .replace(unsafe, '')
    .trim();
  const points = [...plain];
  return points.length > limit ? `${points.slice(0, limit - 1).join('')}…` : plain;
}

/** Returns an untrusted text in double quotes on one line, cleaned and cut to `limit` characters. */
export function quoted(text: string, limit?: number): string {
  return JSON.stringify(cleanText(text, limit));
}
