import { expect, it } from 'vitest';
import { distinctStyles, painter, showsColour } from '../../src/terminal/colour.ts';
import { table } from '../../src/terminal/output.ts';
import { displayWidth } from '../../src/terminal/width.ts';

// stdout and stderr of a test are pipes.
it.each([
  [{}, false],
  [{ FORCE_COLOR: '1' }, true],
  [{ FORCE_COLOR: '' }, true],
  [{ FORCE_COLOR: '3' }, true],
  [{ FORCE_COLOR: '0' }, false],
  [{ FORCE_COLOR: 'false' }, false],
  [{ FORCE_COLOR: '1', NO_COLOR: '1', NODE_DISABLE_COLORS: '1', TERM: 'dumb' }, true],
])('a pipe with %o: colour is %s', (env, shown) => {
  expect(showsColour(1, env)).toBe(shown);
  expect(showsColour(2, env)).toBe(shown);
  expect(painter(1, env)('red', 'x')).toBe(shown ? '\x1b[31mx\x1b[39m' : 'x');
});

it('paints nothing without a style', () => {
  expect(painter(1, { FORCE_COLOR: '1' })(undefined, 'x')).toBe('x');
});

it('pads the cells of a table by their text, not by their colours', () => {
  const rows = [
    [{ text: 'dead', style: 'red' }, 'a'],
    [{ text: 'healthy', style: 'green' }, 'b'],
    [{ text: '', style: 'green' }, 'c'],
  ] as const;
  const [plain, coloured] = [{}, { FORCE_COLOR: '1' }].map((env) =>
    table(['STATE', 'NAME'], rows, { paint: painter(1, env) }),
  );
  expect(plain).toBe('STATE     NAME\ndead      a\nhealthy   b\n          c\n');
  expect(coloured).toContain('\x1b[31mdead\x1b[39m      a\n\x1b[32mhealthy\x1b[39m   b\n');
  expect(coloured?.replace(/\x1b\[\d*m/g, '')).toBe(plain);
  expect(displayWidth('healthy')).toBe(7);
});

it('removes foreign escape sequences from a cell', () => {
  expect(table(['A'], [['\x1b[31mred\x1b[0m']], { paint: painter(1, { FORCE_COLOR: '1' }) })).toBe('A\n[31mred[0m\n');
});

it('gives a cluster the same style whatever the other clusters, and each its own', () => {
  const names = ['prod-eu', 'prod-us', 'staging', 'dev', 'a', 'b', 'c', 'd'];
  const styles = distinctStyles(names);
  expect(new Set(styles).size).toBe(8);
  expect(distinctStyles([...names].reverse())).toEqual([...styles].reverse());
  expect(distinctStyles(['prod-eu', 'prod-us'])).toEqual(distinctStyles(['prod-us', 'prod-eu']).reverse());
  expect(distinctStyles(Array.from({ length: 100 }, (_, i) => `c${i}`))).toHaveLength(100);
});
