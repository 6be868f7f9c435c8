// Makes node_modules/.bin/node the pinned Node if it is not: npm 9 does not link it, and on Linux it does not start without
// libatomic. Then it becomes a copy next to the libraries of the archives. `npm run build` runs this if necessary.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { setRpath } from './elf.ts';
import { libraries } from './libraries.ts';
import { Failed, nodeFile, nodeFolder, ownTarget, root, type Target } from './targets.ts';

const bin = path.join(root, 'node_modules', '.bin');
const own = path.join(root, 'node_modules', '.cache', 'tka-node', 'own');

async function ownNode(): Promise<void> {
  const target = ownTarget();
  if (target === undefined) throw new Failed(`no Node available for ${process.platform} on ${process.arch}`);
  const pinned = path.join(await nodeFolder(target), nodeFile(target));
  const node = starts(pinned) ? pinned : await withLibraries(target, pinned);
  const link = path.join(bin, 'node');
  fs.rmSync(link, { force: true });
  fs.symlinkSync(path.relative(bin, node), link);
}

const starts = (node: string) => spawnSync(node, ['--version']).status === 0;

async function withLibraries(target: Target, pinned: string): Promise<string> {
  process.stderr.write(
    'The pinned Node does not start on this machine. Downloading the libraries that it needs into this folder.\n',
  );
  const node = path.join(own, 'node');
  const beside = await libraries(target);
  const elf = fs.readFileSync(pinned);
  setRpath(elf, '$ORIGIN');
  fs.mkdirSync(own, { recursive: true });
  for (const { name, data } of beside) fs.writeFileSync(path.join(own, name), data);
  fs.writeFileSync(`${node}.new`, elf, { mode: 0o755 });
  fs.renameSync(`${node}.new`, node);
  if (!starts(node)) throw new Failed('the pinned Node does not start, even with these libraries');
  return node;
}

try {
  await ownNode();
} catch (error) {
  if (!(error instanceof Failed)) throw error;
  process.stderr.write(new Failed(error.message, 'install libatomic: apt-get install libatomic1').told());
  process.exitCode = 1;
}
