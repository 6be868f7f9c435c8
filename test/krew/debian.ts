// Makes roots from Debian's packages once, keeps them in the user's cache, and runs commands in them.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { debianMirror } from '../../krew/libraries.ts';
import { type Ran, start } from '../fixtures/program.ts';
import { onPath } from './packages.ts';

/** What this machine lacks to make roots and run commands in them; undefined if nothing. */
export const needsRoots =
  process.platform !== 'linux'
    ? 'Linux'
    : process.getuid?.() !== 0
      ? 'root'
      : ['mmdebstrap', 'unshare', 'chroot'].find((name) => !onPath(name));

// Debian 11 has glibc 2.31, the closest to 2.28 among the releases that mirrors have.
const oldest = 'bullseye';

/** Makes a root of the oldest Debian once, and returns its path. The root must stay unchanged. */
export function debianRoot(arch: 'amd64' | 'arm64', ...options: readonly string[]): Promise<string> {
  return rootOf(oldest, arch, `${oldest}-${arch}`, options);
}

/**
 * Makes a root of a release of Debian once, and returns its path: `~/.cache/tka-roots/NAME`. The root must stay
 * unchanged.
 */
export async function rootOf(
  suite: string,
  arch: 'amd64' | 'arm64',
  name: string,
  options: readonly string[],
): Promise<string> {
  const folder = path.join(os.homedir(), '.cache', 'tka-roots', name);
  if (fs.existsSync(folder)) return folder;
  fs.mkdirSync(path.dirname(folder), { recursive: true });
  const work = fs.mkdtempSync(`${folder}.`);
  try {
    const source = `deb ${await debianMirror()} ${suite} main`;
    await promisify(execFile)('mmdebstrap', [...options, `--architectures=${arch}`, suite, work, source]);
    fs.chmodSync(work, 0o755);
    fs.renameSync(work, folder);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

export interface Place {
  readonly root: string;
  /** The folder to mount at /opt. */
  readonly opt: string;
  /** The folder to mount at /root, the HOME. */
  readonly home: string;
  /** Shell commands that change the root, whose path is $root, for this run only. */
  readonly prepare?: string;
  /** Time limit of a command in milliseconds; default two minutes. */
  readonly longest?: number;
}

/** Runs a command in a root, with its own mounts and process IDs and this machine's network. */
export function runIn({ root, opt, home, prepare = '', longest }: Place, ...command: readonly string[]): Promise<Ran> {
  const script = `
set -e
root=$1 opt=$2 home=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$opt" "$root/opt"
mount --bind "$home" "$root/root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
${prepare}
exec chroot "$root" "$@"`;
  const own = ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script, 'sh', root, opt, home, ...command];
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', NO_PROXY: '127.0.0.1', no_proxy: '127.0.0.1' };
  return start('unshare', own, env, longest === undefined ? {} : { longest }).ran;
}
