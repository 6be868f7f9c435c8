import { describe, expect, it } from 'vitest';
import { expandNames, isPattern } from '../../../src/cli/target/patterns.ts';

describe('expandNames', () => {
  const all = ['prod-eu', 'prod-us', 'staging', 'a,b', 'x*', 'xy'].map((name): [string, number] => [name, name.length]);
  const clusters = all.map(([name]): [string, { name: string }] => [name, { name }]);
  const names = { all: clusters, isName: (word: string) => all.some(([name]) => name === word), what: 'cluster' };
  const expand = (...words: string[]) => expandNames(words, names).map(({ name }) => name);

  it.each<[string, string[], string[]]>([
    ['a list', ['prod-us,prod-eu'], ['prod-us', 'prod-eu']],
    ['a list with spaces', ['prod-us, prod-eu'], ['prod-us', 'prod-eu']],
    ['a glob', ['prod-*'], ['prod-eu', 'prod-us']],
    [
      'a list with a glob, each match once',
      ['staging,prod-*', '*'],
      ['staging', 'prod-eu', 'prod-us', 'staging', 'a,b', 'x*', 'xy'],
    ],
    ['a name with a comma', ['a,b'], ['a,b']],
    ['a name with an asterisk', ['x*'], ['x*']],
    ['a name with an asterisk in a list', ['x*,staging'], ['x*', 'staging']],
    ['an unknown name', ['nowhere'], ['nowhere']],
    ['a URL', ['https://a,b*'], ['https://a,b*']],
    ['an empty word', [''], ['']],
  ])('%s', (_, words, found) => expect(expand(...words)).toEqual(found));

  it.each(['a,', ',', 'a,,b', ' ,a'])('refuses an empty name: %s', (word) =>
    expect(() => expand(word)).toThrow(
      expect.objectContaining({ exitCode: 2, message: `empty name in ${JSON.stringify(word.trim())}` }),
    ),
  );

  it('lists the names if a glob matches nothing', () =>
    expect(() => expand('dev-*')).toThrow(
      expect.objectContaining({
        message: 'no cluster matches "dev-*"',
        hints: ['the names are a,b, prod-eu, prod-us, staging, x*, xy'],
      }),
    ));
});

it('a URL is not a pattern', () => {
  expect(isPattern('https://*,b')).toBe(false);
  expect(isPattern('a*')).toBe(true);
});
