import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, it } from 'vitest';

it('many processes make one folder at once', async () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'files-'));
  const module = path.join(import.meta.dirname, '../src/files.ts');
  const script = `const { makeFolder } = await import(process.argv[1]); for (let i = 0; i < 300; i++) makeFolder(process.argv[2] + '/' + i + '/a/b/c');`;
  try {
    const args = ['--input-type=module', '-e', script, module, root];
    const children = Array.from({ length: 4 }, () => spawn(process.execPath, args, { stdio: 'ignore' }));
    const ends = await Promise.all(children.map((child) => once(child, 'close')));
    expect(ends.map(([status]) => status)).toEqual([0, 0, 0, 0]);
  } finally {
    fs.rmSync(root, { recursive: true });
  }
});
