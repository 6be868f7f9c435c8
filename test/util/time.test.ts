import { afterEach, beforeEach, expect, it } from 'vitest';
import { localTime, shortDuration } from '../../src/util/time.ts';

const zone = process.env.TZ;
beforeEach(() => {
  process.env.TZ = 'Europe/Berlin';
});
afterEach(() => {
  if (zone === undefined) delete process.env.TZ;
  else process.env.TZ = zone;
});

const now = Date.parse('2026-11-22T14:00:00Z');

it.each([
  ['2026-11-22T14:29:00Z', 'in 29m (15:29)'],
  ['2026-11-22T17:12:00Z', 'in 3h12m (18:12)'],
  ['2026-11-22T14:00:00Z', 'in 0s (15:00)'],
  ['2026-11-22T13:59:15Z', '45s ago (14:59)'],
  ['2026-11-22T08:00:00Z', '6h ago (09:00)'],
  // Another day in Berlin, but not in UTC.
  ['2026-11-22T23:30:00Z', 'in 9h30m (2026-11-23 00:30)'],
  ['2026-11-21T14:00:00Z', '24h ago (2026-11-21 15:00)'],
  ['2027-01-05T14:00:00Z', 'in 44d (2027-01-05 15:00)'],
])('%s is %s in Berlin', (time, text) => {
  expect(localTime(Date.parse(time), now)).toBe(text);
});

it('follows daylight saving time', () => {
  expect(localTime(Date.parse('2026-07-01T10:00:00Z'), Date.parse('2026-07-01T09:00:00Z'))).toBe('in 1h (12:00)');
});

it.each([
  [0, '0s'],
  [119_499, '119s'],
  [119_500, '2m'],
  [59 * 60_000 + 59_000, '59m'],
  [60 * 60_000, '1h'],
  [47 * 3_600_000 + 60_000, '47h1m'],
  [48 * 3_600_000, '2d'],
])('%d ms is %s', (ms, text) => {
  expect(shortDuration(ms)).toBe(text);
});
