import { expect, it } from 'vitest';
import { table } from '../../src/terminal/output.ts';

it('aligns columns by display width, not by characters', () => {
  const rows = [
    ['東京', 'é', 'x'],
    ['prod-us', 'e\u0301', 'y'],
  ];
  expect(table(['NAME', 'A', 'B'], rows)).toBe('NAME      A   B\n東京      é   x\nprod-us   e\u0301   y\n');
});
