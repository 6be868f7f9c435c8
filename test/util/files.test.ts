import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { removeLeftovers } from '../../src/util/files.ts';
import { thisProcess } from '../../src/util/processes.ts';
import { testFolder } from '../fixtures/temporary.ts';

it('several processes create the same folders at once', async () => {
  const root = testFolder();
  const module = path.join(import.meta.dirname, '../../src/util/files.ts');
  const script = `const { makeFolder } = await import(process.argv[1]); for (let i = 0; i < 300; i++) makeFolder(process.argv[2] + '/' + i + '/a/b/c');`;
  const args = ['--input-type=module', '-e', script, module, root];
  const children = Array.from({ length: 4 }, () => spawn(process.execPath, args, { stdio: 'ignore' }));
  const ends = await Promise.all(children.map((child) => once(child, 'close')));
  expect(ends.map(([status]) => status)).toEqual([0, 0, 0, 0]);
});

it('removes files of killed writers, but not one that another process is about to rename', () => {
  const root = testFolder();
  const file = path.join(root, 'file');
  const { space, pid } = thisProcess();
  const gone = 2 ** 23 + 1;
  const left = (name: string, ago = 0) => {
    fs.writeFileSync(`${file}+${name}+tmp`, '');
    const at = Date.now() / 1000 - ago;
    fs.utimesSync(`${file}+${name}+tmp`, at, at);
    return `file+${name}+tmp`;
  };
  const kept = [
    left(`${pid}.${space}.0123456789ab`),
    // Another container, whose processes are unknown.
    left(`${gone}.00000001.0123456789ab`, 3600),
    left('something else'),
    left('1.2'),
  ];
  left(`${gone}.${space}.0123456789ab`);
  left(`${gone}.0123456789ab`);
  left(`${gone}.00000001.0123456789ac`, 2 * 86_400);
  left(`${pid}.${space}.0123456789ac`, 2 * 86_400);
  removeLeftovers(file);
  expect(fs.readdirSync(root).sort()).toEqual(kept.sort());
});
