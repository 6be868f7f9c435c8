import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { mutants, mutate } from './rules.ts';

const root = path.join(import.meta.dirname, '../..');

test.each(mutants.map((mutant) => [mutant.name, mutant] as const))('the rule "%s" applies', (_, mutant) => {
  const text = fs.readFileSync(path.join(root, mutant.file), 'utf8');
  expect(mutate(text, mutant)).not.toBe(text);
  for (const file of mutant.tests) expect(fs.existsSync(path.join(root, file)), file).toBe(true);
});

test('all rules have different names', () => {
  expect(mutants.map(({ name }) => name)).toEqual([...new Set(mutants.map(({ name }) => name))]);
});
