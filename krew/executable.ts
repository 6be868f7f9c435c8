// One executable from the program and a Node, for any platform on any other: stripped, filled by pkg, signed.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import * as path from 'node:path';
import { log } from '@yao-pkg/pkg/lib-es5/log.js';
import type { SeaOptions } from '@yao-pkg/pkg/lib-es5/sea.js';
import { Failed, nodeFile, nodeFolder, ownTarget, type Target } from './targets.ts';

// pkg's simple mode, which its command line starts without any of a blob's settings.
const { default: sea }: typeof import('@yao-pkg/pkg/lib-es5/sea.js') = createRequire(import.meta.url)(
  '@yao-pkg/pkg/lib-es5/sea.js',
);

/** A target cannot be made on this machine: the message says why, the hint what to install. */
export class Unavailable extends Error {
  readonly hint: string;
  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

function onPath(name: string): boolean {
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter((folder) => folder !== '');
  const names = process.platform === 'win32' ? [`${name}.exe`, `${name}.cmd`] : [name];
  return folders.some((folder) => names.some((file) => fs.existsSync(path.join(folder, file))));
}

function run([file = '', ...args]: readonly string[]): void {
  const { status, error, stderr } = spawnSync(file, args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' });
  if (status !== 0) throw new Failed(`${file} failed: ${error?.message ?? stderr.trim()}`);
}

/** The tool that strips an executable for a target, as a command line without the file's name; undefined: none here. */
export function stripper(target: Target): readonly string[] | undefined {
  // For macOS only what dyld does not look at: local symbols.
  const what = target.os === 'darwin' ? ['-x'] : [];
  // Any but LLVM's knows the system and architecture only that it was built for.
  const own = target === ownTarget() ? ['strip'] : [];
  const gnu = { amd64: ['x86_64-linux-gnu-strip'], arm64: ['aarch64-linux-gnu-strip'] }[target.arch];
  const found = [...own, ...(target.os === 'linux' ? gnu : []), 'llvm-strip'].find(onPath);
  return found === undefined ? undefined : [found, ...what];
}

/** The tool that signs for macOS ad hoc, as a command line without the file's name; undefined where there is none. */
export function signer(): readonly string[] | undefined {
  const known = [
    ['codesign', '--force', '--sign', '-', '--identifier', 'kubectl-tka'],
    ['rcodesign', 'sign', '--binary-identifier', 'kubectl-tka'],
    ['ldid', '-Cadhoc', '-Ikubectl-tka', '-S'],
  ];
  return known.find(([name]) => onPath(name ?? ''));
}

/**
 * Writes the executable of a program (one CommonJS text) for a target to `file`. Throws Unavailable where a tool is
 * missing that this target needs. Nothing in it depends on the machine or the folder that it is made in.
 */
export async function makeExecutable(target: Target, program: string, file: string): Promise<void> {
  const strip = target.os === 'windows' ? undefined : stripper(target);
  if (target.os !== 'windows' && strip === undefined) {
    throw new Unavailable('nothing here strips its executable', 'install llvm, or binutils for that system');
  }
  const sign = target.os === 'darwin' ? signer() : undefined;
  if (target.name === 'darwin-arm64' && sign === undefined) {
    throw new Unavailable(
      'nothing here signs its executable, and macOS kills one that is not signed',
      'install rcodesign (apple-codesign) or ldid',
    );
  }
  const node = path.join(await nodeFolder(target), nodeFile(target));
  const work = fs.mkdtempSync(`${file}-`);
  try {
    fs.writeFileSync(path.join(work, 'kubectl-tka.cjs'), program);
    const base = prepare(work, target, node);
    // Before the blob goes in: what is stripped afterwards crashes.
    if (strip !== undefined) run([...strip, base]);
    await inject(work, target, file);
    if (sign !== undefined) run([...sign, file]);
    fs.chmodSync(file, 0o755);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

// pkg's cache in a HOME of its own, as if pkg had downloaded this Node. It asks for the version that it runs on, and
// makes the blob with that.
function prepare(home: string, target: Target, node: string): string {
  const name = `node-${process.version}-${platform(target)}-${architecture(target)}`;
  const cache = path.join(home, '.pkg-cache', 'sea');
  const windows = target.os === 'windows';
  const archive = path.join(cache, `${name}.${windows ? 'zip' : 'tar.gz'}`);
  const binary = windows ? path.join(cache, `${name}.exe`) : path.join(cache, name, 'bin', 'node');
  fs.mkdirSync(path.dirname(binary), { recursive: true });
  fs.copyFileSync(node, binary);
  fs.chmodSync(binary, 0o755);
  for (const empty of [archive, `${archive}.ok`, `${binary}.ok`]) fs.writeFileSync(empty, '');
  return binary;
}

function platform(target: Target): string {
  return target.os === 'windows' ? 'win' : target.os;
}

function architecture(target: Target): 'x64' | 'arm64' {
  return target.arch === 'amd64' ? 'x64' : 'arm64';
}

async function inject(work: string, target: Target, output: string): Promise<void> {
  // pkg makes its temporary folder in `work`: a name relative to it is the same everywhere, and goes into the blob.
  // On Unix the front decides which NODE_OPTIONS the program gets; an .exe has no front.
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
