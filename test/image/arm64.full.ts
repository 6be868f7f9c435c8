// npm run test:full: builds the image for the other architecture without running a command of that architecture before
// the start.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { nodeFile, nodeFolder, root, targets } from '../../krew/targets.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { debian, named, obstacle, start } from './pod.ts';

const lacks = obstacle('qemu-aarch64-static') ?? (process.arch === 'x64' ? undefined : 'only on amd64');

it.skipIf(lacks)(named('the image for arm64 starts under emulation', lacks), async () => {
  const target = targets.find(({ name }) => name === 'linux-arm64') ?? expect.unreachable('no target');
  const folder = testFolder('tka-image-');
  const [system, dist, image] = ['system', 'dist', 'image'].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  debian(system, 'arm64', ['dash', 'coreutils', 'libc6', 'libatomic1', 'libstdc++6', 'libgcc-s1'], 'extract');
  fs.cpSync(path.join(root, 'dist'), dist, { recursive: true, filter: (file) => !file.endsWith('/lib/node') });
  fs.copyFileSync(path.join(await nodeFolder(target), nodeFile(target)), path.join(dist, 'lib/node'));
  execFileSync('sh', [path.join(root, 'deploy/rootfs.sh'), dist, image, system], { stdio: 'pipe' });
  const emulator = execFileSync('sh', ['-c', 'command -v qemu-aarch64-static'], { encoding: 'utf8' }).trim();
  fs.copyFileSync(emulator, path.join(image, 'bin/qemu'));
  await start(image, 18_190, ['/bin/qemu', '/opt/tka/lib/node', '/opt/tka/lib/tka-server.cjs']);
});
