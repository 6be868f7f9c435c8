// The image cannot be built here; what its file copies and runs can be.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { testFolder } from '../fixtures/temporary.ts';
import { deploy } from './render.ts';

const root = path.join(deploy, '..');
const steps = fs
  .readFileSync(path.join(deploy, 'Containerfile'), 'utf8')
  .replace(/\\\n\s*/g, '')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line): [string, string[]] => {
    const [word = '', ...rest] = line.split(' ');
    return [word, rest];
  });
const second = steps.findLastIndex(([word]) => word === 'FROM');

it('builds from what it copies, and runs what it built', () => {
  const source = testFolder();
  for (const [word, args] of steps.slice(0, second)) {
    const line = args.join(' ');
    if (word === 'COPY') {
      const into = path.join(source, args.at(-1) ?? '');
      for (const from of args.slice(0, -1)) {
        const file = path.join(root, from);
        fs.cpSync(file, fs.statSync(file).isDirectory() ? into : path.join(into, from), { recursive: true });
      }
    } else if (line.startsWith('npm ci ')) {
      fs.symlinkSync(path.join(root, 'node_modules'), path.join(source, 'node_modules'));
    } else if (word === 'RUN') execFileSync('/bin/sh', ['-c', line], { cwd: source, stdio: 'pipe' });
  }
  const image = path.join(source, 'image');
  for (const [word, args] of steps.slice(second)) {
    if (word !== 'COPY') continue;
    const [stage, ...files] = args;
    expect(stage).toBe('--from=build');
    for (const file of files.slice(0, -1)) {
      const into = path.join(image, files.at(-1) ?? '', path.basename(file));
      fs.cpSync(path.join(source, path.posix.relative('/src', file)), into);
    }
  }
  const [program = ''] = JSON.parse(last('ENTRYPOINT').join(' '));
  const said = execFileSync(path.join(image, program), ['serve', '--help'], { encoding: 'utf8' });
  expect(said).toContain('--config');
});

it('runs as the user that tailscaled lets ask for the certificate', () => {
  const [user = ''] = last('USER');
  const manifest = fs.readFileSync(path.join(deploy, 'chart/files/server.yaml'), 'utf8');
  expect(manifest).toContain(`runAsUser: ${user.split(':')[0]}\n`);
});

function last(word: string): string[] {
  return steps.findLast(([first]) => first === word)?.[1] ?? [];
}
