import { describe, expect, it } from 'vitest';
import { parseSelector } from '../../src/util/selector.ts';

describe('parseSelector', () => {
  const labels = new Map([
    ['environment', 'production'],
    ['region', 'us-west-2'],
    ['tier', '3'],
    ['example.com/owner', ''],
  ]);
  it.each([
    ['', true],
    ['environment=production', true],
    ['environment==production', true],
    ['environment = production', true],
    ['environment=staging', false],
    ['environment!=staging', true],
    ['absent!=x', true],
    ['environment!=production', false],
    ['region in (us-west-2,eu-central-1)', true],
    ['region in (eu-central-1)', false],
    ['region notin (eu-central-1, us-east-1)', true],
    ['absent notin (x)', true],
    ['region notin (us-west-2)', false],
    ['environment', true],
    ['absent', false],
    ['!absent', true],
    ['!environment', false],
    ['example.com/owner=', true],
    ['example.com/owner', true],
    ['tier>2', true],
    ['tier>3', false],
    ['tier<10', true],
    ['region>1', false],
    ['environment=production,region in (us-west-2,x),!absent', true],
    ['environment=production,region=x', false],
  ])('%s', (selector, expected) => expect(parseSelector(selector)(labels)).toBe(expected));

  it.each([
    '=',
    'a=b=c',
    'a in b',
    'a in (b',
    'a,,b',
    ',',
    'a b',
    '-a',
    'a=$',
    'a>x',
    'a in (b))',
    '!',
    'a!b',
    'a=b;c',
    '\u001b=x',
    'a/b/c=d',
  ])('%j is a usage error', (selector) => {
    expect(() => parseSelector(selector)).toThrow(/label selector/);
  });

  it('takes linear time', () => {
    expect(() => parseSelector(','.repeat(1e6))).toThrow(/label selector/);
    expect(() => parseSelector(`a in (${'b,'.repeat(1e6)}`)).toThrow(/label selector/);
  });
});
