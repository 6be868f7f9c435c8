import { describe, expect, it } from 'vitest';
import { contextNames, shortName } from '../../src/discovery/clusters.ts';
import { parseSelector } from '../../src/discovery/selector.ts';

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
});

describe('context names', () => {
  it.each([
    ['https://tka-prod-us.example.ts.net', '', 'tka-prod-us'],
    ['https://tka.corp.example.com', 'corp.example.com', 'tka'],
    ['https://tka.corp.example.com', '', 'tka.corp.example.com'],
    ['http://127.0.0.11:8123', 'example.ts.net', '127.0.0.11'],
    ['http://[fd7a:115c:a1e0::1]:8123', '', 'fd7a:115c:a1e0::1'],
  ])('%s on %j is %s', (server, tailnet, name) => expect(shortName(server, tailnet)).toBe(name));

  it('use the cluster’s name first, if known', () => {
    expect(contextNames('http://127.0.0.1:8123', '', 'prod-us').slice(0, 2)).toEqual(['prod-us', '127.0.0.1']);
    expect(contextNames('https://tka-a.example.ts.net', '', 'prod-us').slice(0, 2)).toEqual(['prod-us', 'tka-a']);
    expect(contextNames('https://prod-us.example.ts.net', '', 'prod-us')[1]).toBe('prod-us.example.ts.net');
  });

  it('continue with longer forms until two servers differ', () => {
    expect(contextNames('https://tka.one.ts.net:8443', '')).toEqual([
      'tka',
      'tka.one.ts.net',
      'tka.one.ts.net-8443',
      'https-tka.one.ts.net-8443',
    ]);
  });
});
