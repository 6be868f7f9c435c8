// Makes one executable from the program and a Node, for any platform on any platform: stripped, filled by pkg, signed.
// Uses no tool of the machine, so that the bytes are the same everywhere.
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import * as path from 'node:path';
import { log } from '@yao-pkg/pkg/lib-es5/log.js';
import type { SeaOptions } from '@yao-pkg/pkg/lib-es5/sea.js';
import { setRpath, stripElf } from './elf.ts';
import { signMachO, stripMachO } from './macho.ts';
import { unsignPe } from './pe.ts';
import { nodeFile, nodeFolder, type Target } from './targets.ts';

// pkg's simple mode, which its command line starts without any of a blob's settings.
const { default: sea }: typeof import('@yao-pkg/pkg/lib-es5/sea.js') = createRequire(import.meta.url)(
  '@yao-pkg/pkg/lib-es5/sea.js',
);

/** The changes to a system's Node before the blob is injected, and to the executable afterwards. */
const steps: Record<Target['os'], { before(node: Buffer): Buffer; after(executable: Buffer): Buffer }> = {
  linux: {
    before: stripElf,
    // Set the path after the injection, which moves the data that it refers to.
    after: (elf) => {
      setRpath(elf, '$ORIGIN');
      return elf;
    },
  },
  darwin: { before: stripMachO, after: (macho) => signMachO(macho, 'kubectl-tka') },
  windows: { before: unsignPe, after: unsignPe },
};

/**
 * Writes the executable of a program (one CommonJS text) for a target to `file`. Its bytes do not depend on the machine
 * or the folder.
 */
export async function makeExecutable(target: Target, program: string, file: string): Promise<void> {
  const node = path.join(await nodeFolder(target), nodeFile(target));
  const work = fs.mkdtempSync(`${file}-`);
  try {
    fs.writeFileSync(path.join(work, 'kubectl-tka.cjs'), program);
    prepare(work, target, steps[target.os].before(fs.readFileSync(node)));
    await inject(work, target, file);
    fs.writeFileSync(file, steps[target.os].after(fs.readFileSync(file)));
    fs.chmodSync(file, 0o755);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

// Prepares pkg's cache in a private HOME, as if pkg had downloaded this Node. pkg asks for the version that it runs on
// itself, and makes the blob with it.
function prepare(home: string, target: Target, node: Buffer): void {
  const name = `node-${process.version}-${platform(target)}-${architecture(target)}`;
  const cache = path.join(home, '.pkg-cache', 'sea');
  const windows = target.os === 'windows';
  const archive = path.join(cache, `${name}.${windows ? 'zip' : 'tar.gz'}`);
  const binary = windows ? path.join(cache, `${name}.exe`) : path.join(cache, name, 'bin', 'node');
  fs.mkdirSync(path.dirname(binary), { recursive: true });
  fs.writeFileSync(binary, node, { mode: 0o755 });
  for (const empty of [archive, `${archive}.ok`, `${binary}.ok`]) fs.writeFileSync(empty, '');
}

function platform(target: Target): string {
  return target.os === 'windows' ? 'win' : target.os;
}

function architecture(target: Target): 'x64' | 'arm64' {
  return target.arch === 'amd64' ? 'x64' : 'arm64';
}

async function inject(work: string, target: Target, output: string): Promise<void> {
  // pkg makes its temporary folder in `work`. The blob contains the file's name, so use a relative one, which is the same
  // everywhere. On Unix the launcher script decides which NODE_OPTIONS the program gets; an .exe has no launcher script.
  const seaConfig = {
    disableExperimentalSEAWarning: true,
    useSnapshot: false,
    useCodeCache: false,
    main: '../kubectl-tka.cjs',
    execArgvExtension: target.os === 'windows' ? 'none' : 'env',
  };
  const options = {
    targets: [
      {
        nodeRange: `node${process.versions.node}`,
        platform: target.os === 'darwin' ? 'macos' : platform(target),
        arch: architecture(target),
        output,
      },
    ],
    signature: false,
    seaConfig,
  };
  log.info = () => {};
  const before = { ...process.env };
  Object.assign(process.env, { HOME: work, USERPROFILE: work, TMPDIR: work, TEMP: work, TMP: work });
  try {
    await sea(path.join(work, 'kubectl-tka.cjs'), options as SeaOptions);
  } finally {
    for (const name of ['HOME', 'USERPROFILE', 'TMPDIR', 'TEMP', 'TMP']) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}
