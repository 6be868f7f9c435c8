import { expect, test } from 'vitest';
import { untilNext } from '../../../src/server/tailnet/certificate.ts';

const hour = 3_600_000;
const day = 24 * hour;

test.each<[name: string, left: number, of: number, ms: number]>([
  ['a fresh one of 90 days: looked at each day', 90 * day, 90 * day, day],
  ['an hour before a third is left', 30 * day + 2 * hour, 90 * day, 2 * hour],
  ['within the last third: each hour', 20 * day, 90 * day, hour],
  ['ever sooner towards the end', 5 * hour, 90 * day, hour / 2],
  ['each second at most', 500, 90 * day, 1_000],
  ['one that has ended', -day, 90 * day, 1_000],
  ['one of a few seconds', 6_000, 6_000, 4_000],
])('%s', (_, left, of, ms) => {
  const now = 1_795_000_000_000;
  expect(Math.round(untilNext({ from: now + left - of, until: now + left }, now))).toBe(ms);
});
