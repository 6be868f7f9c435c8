// The image cannot be built here; what its file copies and runs can be.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, it } from 'vitest';
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

// There is nothing to run in it before there is a server.
const noServer = !fs.existsSync(path.join(root, 'cmd/tka-server.ts'));

it.skipIf(noServer)('builds from what it copies, and runs what it built', () => {
  const source = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), 'tka-image-'));
  try {
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
    const image = new Map<string, string>();
    for (const [word, args] of steps.slice(second)) {
      if (word !== 'COPY') continue;
      const [stage, from = '', into = ''] = args;
      expect(stage).toBe('--from=build');
      const built = path.join(source, from.replace(/^\/src\//, ''));
      expect(fs.existsSync(built), from).toBe(true);
      image.set(fs.statSync(built).isDirectory() ? into : path.posix.join(into, path.basename(built)), built);
    }
    const [program = ''] = JSON.parse(last('ENTRYPOINT').join(' '));
    const { mode } = fs.statSync(image.get(program) ?? '');
    expect(mode & 0o555).toBe(0o555);
    expect(execFileSync(image.get(program) ?? '', ['serve', '--help'], { encoding: 'utf8' })).toContain('--config');
  } finally {
    fs.rmSync(source, { recursive: true });
  }
});

it('runs as the user that tailscaled lets ask for the certificate', () => {
  const [user = ''] = last('USER');
  const manifest = fs.readFileSync(path.join(deploy, 'base/server.yaml'), 'utf8');
  expect(manifest).toContain(`runAsUser: ${user.split(':')[0]}\n`);
});

function last(word: string): string[] {
  return steps.findLast(([first]) => first === word)?.[1] ?? [];
}
