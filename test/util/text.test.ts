import { expect, it } from 'vitest';
import { cleanText, composed, isPlainName } from '../../src/util/text.ts';

it.each([
  'prod-us',
  'zürich',
  'zu\u0308rich',
  '東京',
  'prod-é',
  'prod-москва',
  'שלום',
  'القاهرة',
  'नमस्ते',
  'ไทย',
  '🚀',
  'prod-🚀-1',
  '❤\ufe0f',
  '👍🏽',
  '🇩🇪',
  'é'.repeat(253),
])('%s is a name, shown as it is', (name) => {
  expect(isPlainName(name)).toBe(true);
  expect(cleanText(name)).toBe(name);
});

it.each<[string, string]>([
  ['an empty text', ''],
  ['a space', 'a b'],
  ['a control character', 'a\u0007é'],
  ['a bidirectional override', 'é\u202eb'],
  ['a bidirectional mark', 'é\u200fb'],
  ['a zero-width space', 'é\u200bb'],
  ['a joiner', '👩\u200d💻'],
  ['a byte order mark', '\ufeffé'],
  ['a letter that is not drawn', 'é\u3164'],
  ['a mark that is not drawn', 'é\u034fb'],
  ['a variation selector after a letter', 'é\ufe0f'],
  ['tag characters', 'é\u{e0061}'],
  ['a mark alone', '\u0308a'],
  ['five marks', 'e\u0301\u0301\u0301\u0301\u0301'],
  ['a lone surrogate', 'é\ud800'],
  ['a flag', '-é'],
  ['a dash at the end', 'é-'],
  ['a path', 'é/b'],
  ['a shell’s character', 'é$b'],
  ['another dash', 'a\u2010b'],
  ['a Latin word with a Cyrillic letter', 'eu-\u0440rod'],
  ['254 letters', 'é'.repeat(254)],
])('%s makes no name', (_, text) => {
  expect(isPlainName(text)).toBe(false);
});

it.each([
  ['thumbs', '👍🏽'.repeat(63)],
  ['letters that are also emoji', 'ℹ'.repeat(252)],
  ['marks', 'e\u0301'.repeat(126)],
  ['dashes', 'é'.padEnd(252, '-')],
  ['flags', '🇩'.repeat(126)],
])('%s that end wrong are refused in linear time', (_, text) => {
  const started = performance.now();
  for (let i = 0; i < 100; i++) expect(isPlainName(`${text}!`)).toBe(false);
  expect(performance.now() - started).toBeLessThan(2000);
});

it('composes what can be written in two ways', () => {
  expect(composed('zu\u0308rich')).toBe('z\u00fcrich');
  expect(composed('prod-us')).toBe('prod-us');
});
