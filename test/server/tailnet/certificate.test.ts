import { expect, test } from 'vitest';
import { untilNext } from '../../../src/server/tailnet/certificate.ts';

const hour = 3_600_000;
const day = 24 * hour;

test.each<[name: string, left: number, of: number, ms: number]>([
  ['a fresh certificate of 90 days is checked each day', 90 * day, 90 * day, day],
  ['an hour before a third is left', 30 * day + 2 * hour, 90 * day, 2 * hour],
  ['within the last third, each hour', 20 * day, 90 * day, hour],
  ['more often towards the end', 5 * hour, 90 * day, hour / 2],
  ['at most every second', 500, 90 * day, 1_000],
  ['an expired certificate', -day, 90 * day, 1_000],
  ['a certificate of a few seconds', 6_000, 6_000, 4_000],
])('%s', (_, left, of, ms) => {
  const now = 1_795_000_000_000;
  expect(Math.round(untilNext({ from: now + left - of, until: now + left }, now))).toBe(ms);
});
