// C0 and C1 controls, DEL, line and paragraph separators, bidirectional overrides, zero-width and tag characters, lone
// surrogates: everything that can move a cursor, hide or reorder text, or end a line.
const unsafe =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\p{Cs}\u{e0000}-\u{e007f}]/gu;

/**
 * Returns whether a text is a valid name of a server or a cluster. Such a name becomes a context's name, an argument
 * and a completion, so it must be DNS-like: `prod-us`.
 */
export const isDnsLike = (text: string): boolean => /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/.test(text);

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
