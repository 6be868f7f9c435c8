// Widths of texts in terminal columns.

let segmenter: Intl.Segmenter | undefined;
// East Asian Wide and Fullwidth (Unicode Standard Annex 11), and characters that are drawn as emoji.
const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1b000}-\u{1b2ff}\u{20000}-\u{3fffd}]|\ufe0f|\p{Emoji_Presentation}/u;
const invisible = /^[\p{M}\p{Cf}\p{Cc}]+$/u;
const plain = /^[ -~]*$/;

// The segmenter is created on first use, because most texts are plain.
function graphemes(text: string): Iterable<Intl.SegmentData> {
  segmenter ??= new Intl.Segmenter(undefined, { granularity: 'grapheme' });
  return segmenter.segment(text);
}

function graphemeWidth(grapheme: string): number {
  if (invisible.test(grapheme)) return 0;
  return wide.test(grapheme) ? 2 : 1;
}

/** Returns the width of a text in columns. Control characters have no width. */
export function displayWidth(text: string): number {
  if (plain.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes(text)) width += graphemeWidth(segment);
  return width;
}

/** Returns a text cut to `columns`, with `…` at the end if something is missing. */
export function shorten(text: string, columns: number): string {
  if (columns <= 0) return '';
  if (plain.test(text)) return text.length <= columns ? text : `${text.slice(0, columns - 1)}…`;
  let width = 0;
  // The text to return if the whole text is too long.
  let kept = '';
  let whole = '';
  for (const { segment } of graphemes(text)) {
    width += graphemeWidth(segment);
    if (width > columns) return `${kept}…`;
    whole += segment;
    if (width < columns) kept = whole;
  }
  return text;
}

/** Returns a text in exactly `columns`: cut, or padded with spaces. */
export function fitTo(text: string, columns: number): string {
  const fitted = shorten(text, columns);
  return fitted + ' '.repeat(Math.max(0, columns - displayWidth(fitted)));
}
