import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { foldersIn, isExecutable, placesOnPath, searchPathOf } from '../../src/util/search-path.ts';
import { testFolder } from '../fixtures/temporary.ts';

it('reads PATH, else Path, and leaves out empty entries', () => {
  expect(searchPathOf({ PATH: '/a', Path: '/b' })).toBe('/a');
  expect(searchPathOf({ Path: 'C:\\b' })).toBe('C:\\b');
  expect(searchPathOf({})).toBe('');
  expect(foldersIn('/a::/b:', 'linux')).toEqual(['/a', '/b']);
  expect(foldersIn('C:\\a;;D:\\b', 'win32')).toEqual(['C:\\a', 'D:\\b']);
});

it('looks for all names in a folder before the next folder', () => {
  const [a, b] = [path.resolve('/a'), path.resolve('/b')];
  expect(placesOnPath(['x.exe', 'x'], [a, b].join(path.delimiter))).toEqual([
    path.join(a, 'x.exe'),
    path.join(a, 'x'),
    path.join(b, 'x.exe'),
    path.join(b, 'x'),
  ]);
});

it.skipIf(process.platform === 'win32')('a program is a file with the execute permission', () => {
  const folder = testFolder();
  const [program, text] = [path.join(folder, 'program'), path.join(folder, 'text')];
  fs.writeFileSync(program, '', { mode: 0o755 });
  fs.writeFileSync(text, '', { mode: 0o644 });
  expect([program, text, folder, path.join(folder, 'gone')].map(isExecutable)).toEqual([true, false, false, false]);
});
