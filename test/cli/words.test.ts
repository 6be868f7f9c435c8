import { describe, expect, it } from 'vitest';
import { hasFlag, readLine, withoutAlias } from '../../src/cli/words.ts';

const valued = new Set(['-o', '--output', '-l', '--selector', '-n']);
const read = (...args: string[]) => readLine(args, (flag) => valued.has(flag));

describe('readLine', () => {
  it.each<[string, string[], string[]]>([
    ['takes one equals sign from the value of a short flag', ['-l=a=b'], ['-la=b']],
    ['takes no second one', ['-l==b'], ['-l=b']],
    ['finds the flag with a value among several', ['-qwo=json'], ['-qwojson']],
    ['leaves a value without an equals sign', ['-la=b', '-ojson'], ['-la=b', '-ojson']],
    ['leaves an empty value', ['-o=', 'json'], ['-o=', 'json']],
    ['leaves the value of the flag before', ['-l', '-o=x'], ['-l', '-o=x']],
    ['leaves the value of a long flag before', ['--selector', '-o=x'], ['--selector', '-o=x']],
    ['reads on after a long flag with a value', ['--selector=a', '-o=x'], ['--selector=a', '-ox']],
    ['leaves what follows --', ['-o=x', '--', '-o=x'], ['-ox', '--', '-o=x']],
    ['leaves long flags', ['--output=x'], ['--output=x']],
    ['leaves a flag without a value', ['-q=true'], ['-q=true']],
  ])('%s', (_, args, words) => expect(read(...args).words).toEqual(words));

  it('finds the operands', () => {
    expect(read('-o', 'x', 'get', '--selector', 'y', '-', '-q', 'clusters', '--', 'z').operands).toEqual([2, 5, 7]);
  });

  it('reads a long line in linear time', () => {
    const started = performance.now();
    read(`-${'q'.repeat(1e5)}`, ...Array.from({ length: 1e4 }, () => '-o=x'));
    expect(performance.now() - started).toBeLessThan(1000);
  });
});

describe('withoutAlias', () => {
  const commands = [
    { name: 'clusters', aliases: ['ls', 'get clusters'] },
    { name: 'use', aliases: ['ctx'] },
  ];
  it.each<[string, string[], string[]]>([
    ['one word', ['-q', 'ls', '-o', 'name'], ['-q', 'clusters', '-o', 'name']],
    ['two words', ['get', 'clusters', 'x'], ['clusters', 'x']],
    ['two words with a flag between', ['get', '-o', 'clusters', 'clusters'], ['clusters', '-o', 'clusters']],
    ['the first word alone', ['get', 'ls'], ['get', 'ls']],
    ['an alias that is an argument', ['login', 'ls'], ['login', 'ls']],
    ['an alias after --', ['--', 'ls'], ['--', 'ls']],
  ])('%s', (_, args, words) => expect(withoutAlias(read(...args), commands).words).toEqual(words));

  it('finds the operands that are left', () =>
    expect(withoutAlias(read('get', '-q', 'clusters', 'x', 'y'), commands).operands).toEqual([0, 2, 3]));
});

it('hasFlag looks at the words before --', () => {
  expect(hasFlag(['a', '-h'], '-h', '--help')).toBe(true);
  expect(hasFlag(['a', '--', '-h'], '-h', '--help')).toBe(false);
});
