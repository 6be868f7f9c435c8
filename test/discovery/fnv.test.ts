import { expect, test } from 'vitest';
import { memberId } from '../../src/discovery/resolution.ts';
import { cpuTime } from '../fixtures/cpu.ts';

test.each([
  ['tka-prod-us', 'lejHRrwo2CU8N7ll0rIBbA=='],
  ['tka-prod-eu', '++Y4u1Yo2CU8bi1HgebCQg=='],
  ['tka-staging', 'p7uOzkGZ3G4XgQg1+OPM+Q=='],
])('%s:7946 has the same ID as on the Go server', (name, id) => {
  expect(memberId(name, 7946)).toBe(id);
});

test('depends on the port and on every byte of the name', () => {
  const ids = [memberId('a', 1), memberId('a', 2), memberId('b', 1), memberId('', 0), memberId('ü', 1)];
  expect(new Set(ids).size).toBe(5);
  for (const id of ids) expect(Buffer.from(id, 'base64')).toHaveLength(16);
});

test('hashes 20,000 candidates quickly', async () => {
  const hash = () => {
    for (let i = 0; i < 20_000; i++) memberId(`some-rather-long-host-name-${i}`, 7946);
  };
  expect(await cpuTime(hash, 1000)).toBeLessThan(1000);
});
