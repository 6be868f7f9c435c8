import { describe, expect, it } from 'vitest';
import { matchesGlob } from '../../src/util/glob.ts';

describe('matchesGlob', () => {
  it.each<[string, string, boolean]>([
    ['prod-us', 'prod-*', true],
    ['prod-us', '*-us', true],
    ['prod-us', '*', true],
    ['prod-us', 'p*d*s', true],
    ['prod-us', 'prod-us*', true],
    ['prod-us', 'prod-**us', true],
    ['prod-us', 'rod-*', false],
    ['prod-us', '*-u', false],
    ['prod-us', 'prod-us-*', false],
    ['prod-us', 'p*x*s', false],
    // The text before and after the asterisk must not overlap.
    ['aba', 'ab*ba', false],
    ['aXbXc', 'a*X*X*c', true],
    ['aXc', 'a*X*X*c', false],
    // Nothing else is special.
    ['prod.us', 'prod?u*', false],
    ['prodxus', 'prod.u*', false],
    ['(a+)+', '(a+)*', true],
  ])('%s %s: %s', (name, glob, is) => expect(matchesGlob(name, glob)).toBe(is));

  it('takes linear time for a hostile name and glob', () => {
    const started = performance.now();
    expect(matchesGlob('a'.repeat(1e6), `${'a*'.repeat(5000)}b`)).toBe(false);
    expect(matchesGlob('a'.repeat(1e5), `*${'a*'.repeat(5000)}b*`)).toBe(false);
    expect(performance.now() - started).toBeLessThan(1000);
  });
});
