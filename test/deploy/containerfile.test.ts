// The content of the image. test/image builds it.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { testFolder } from '../fixtures/temporary.ts';
import { deploy } from './render.ts';

const root = path.join(deploy, '..');
const containerfile = fs.readFileSync(path.join(deploy, 'Containerfile'), 'utf8');
const missing = ['readelf', 'strip', 'unshare'].find((tool) => spawnSync(tool, ['--version']).status !== 0);
const obstacle = process.platform === 'linux' ? missing && `no ${missing}` : 'not Linux';

it.skipIf(obstacle)(`the image’s root has all files that the server needs${obstacle ? ` (${obstacle})` : ''}`, () => {
  const image = path.join(testFolder(), 'root');
  execFileSync('sh', [path.join(deploy, 'rootfs.sh'), path.join(root, 'dist'), image], { stdio: 'pipe' });
  const [program = ''] = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(containerfile)?.[1] ?? '[]');
  const args = ['--user', '--map-root-user', 'chroot', image, program, 'serve', '--help'];
  expect(execFileSync('unshare', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })).toContain('--config');
  const size = execFileSync('du', ['-sm', image], { encoding: 'utf8' });
  expect(Number.parseInt(size, 10)).toBeLessThan(180);
});

it('runs as the user that tailscaled allows to fetch certificates', () => {
  const [, user = ''] = /^USER (\d+):/m.exec(containerfile) ?? [];
  const manifest = fs.readFileSync(path.join(deploy, 'chart/files/server.yaml'), 'utf8');
  expect(manifest).toContain(`runAsUser: ${user}\n`);
});
