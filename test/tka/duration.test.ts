import { expect, it } from 'vitest';
import { formatGoDuration, goDuration } from '../../src/tka/duration.ts';

it.each([
  [28_800_000, '8h0m0s'],
  [600_000, '10m0s'],
  [5_445_500, '1h30m45.5s'],
  [1_500, '1.5s'],
  [0, '0s'],
])('%d ms is %s, as Go prints it, and back', (ms, text) => {
  expect(formatGoDuration(ms)).toBe(text);
  expect(goDuration(text)).toBe(ms);
});
