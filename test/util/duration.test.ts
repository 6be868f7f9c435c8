import { expect, it } from 'vitest';
import { formatGoDuration, goDuration } from '../../src/util/duration.ts';

it.each([
  [28_800_000, '8h0m0s'],
  [600_000, '10m0s'],
  [5_445_500, '1h30m45.5s'],
  [1_500, '1.5s'],
  [0, '0s'],
])('%d ms prints as %s, as in Go, and parses back', (ms, text) => {
  expect(formatGoDuration(ms)).toBe(text);
  expect(goDuration(text)).toBe(ms);
});

it.each([
  ['1.1h', 3_960_000, '1h6m0s'],
  ['2.3h', 8_280_000, '2h18m0s'],
  ['0.7m', 42_000, '42s'],
  ['33.3333ms', 33, '0.033s'],
  ['1m59.9999s', 120_000, '2m0s'],
])('%s parses as a whole number of milliseconds', (text, ms, printed) => {
  expect(goDuration(text)).toBe(ms);
  expect(formatGoDuration(ms)).toBe(printed);
});

it('prints and parses back any period in tenths of an hour', () => {
  for (let tenths = 1; tenths <= 2400; tenths++) {
    const ms = goDuration(`${tenths / 10}h`) ?? Number.NaN;
    expect(ms).toBe(tenths * 360_000);
    expect(goDuration(formatGoDuration(ms))).toBe(ms);
  }
});
