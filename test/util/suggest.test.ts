import { describe, expect, it } from 'vitest';
import { didYouMean, nearest } from '../../src/util/suggest.ts';

describe('nearest', () => {
  const clusters = ['prod-us', 'prod-eu', 'staging', 'tka-dev-1'];
  it.each([
    // Two swapped letters are likelier than one replaced.
    ['prod-su', ['prod-us']],
    ['prod-uu', ['prod-us', 'prod-eu']],
    ['Prod-Us', ['prod-us']],
    ['stagin', ['staging']],
    ['stgaing', ['staging']],
    ['dev-1', ['tka-dev-1']],
    ['nowhere', []],
    ['us', []],
    ['', []],
  ])('%s: %j', (word, names) => expect(nearest(word, clusters)).toEqual(names));

  it('skips words that are too long for a name', () => expect(nearest('x'.repeat(1e6), ['x'.repeat(1e6)])).toEqual([]));

  it('returns at most three names, without duplicates', () => {
    expect(nearest('node-0', ['node-1', 'node-1', 'node-2', 'node-3', 'node-4'])).toEqual([
      'node-1',
      'node-2',
      'node-3',
    ]);
  });

  it('compares ten thousand names within a second', () => {
    const names = Array.from({ length: 10_000 }, (_, i) => `cluster-in-some-region-${i}`);
    const started = performance.now();
    expect(nearest('cluster-in-some-regoin-77', names)).toEqual(['cluster-in-some-region-77']);
    expect(performance.now() - started).toBeLessThan(1000);
  });
});

it.each([
  ['prod-su', '; did you mean "prod-us"?'],
  ['prod-uu', '; did you mean "prod-us" or "prod-eu"?'],
  ['nowhere', ''],
])('didYouMean(%s) is %j', (word, text) => expect(didYouMean(word, ['prod-us', 'prod-eu', 'staging'])).toBe(text));
