// The front, rendered and installed beside a stand-in for the program, in a private HOME; and the shells that this machine
// has to run it.
import { type SpawnSyncOptions, type SpawnSyncReturns, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeEach } from 'vitest';
import { launcher } from '../../build.ts';
import { entryName } from '../../src/credential/entry.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { type Call, entry, type Fixture, server, whole } from './cases.ts';

export const root = fileFolder();
const platform = process.platform === 'darwin' ? 'darwin' : 'linux';

const installed = path.join(root, 'it\'s "installed" $here');
export const front = path.join(installed, 'kubectl-tka');
fs.mkdirSync(path.join(installed, 'lib'), { recursive: true });
fs.writeFileSync(front, launcher(platform, 'executable'), { mode: 0o755 });
// Each argument with a NUL behind it; asked for, the umask and the environment as well.
const standIn = `#!/bin/sh
printf '%s\\0' "$@"
[ -z "\${TELL_ALL-}" ] || { umask; exec /usr/bin/env -0; }
`;
fs.writeFileSync(path.join(installed, 'lib', 'kubectl-tka'), standIn, { mode: 0o755 });

export const home = path.join(root, 'home of alice');
const folder = path.join(home, platform === 'darwin' ? 'Library/Caches' : '.cache', 'kubectl-tka');
export const fixture: Fixture = {
  home,
  folder,
  file: path.join(folder, entryName(server) ?? ''),
  put: (text = whole, mtime = entry.freshUntil, file = fixture.file) => {
    fs.writeFileSync(file, text, { mode: 0o600 });
    fs.utimesSync(file, mtime, mtime);
  },
};
export /** HOME as it is at the start. */
function makeHome(): void {
  fs.rmSync(home, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  fs.mkdirSync(path.join(home, 'cwd'));
}
beforeEach(makeHome);
export const cwd = path.join(home, 'cwd');
export const usual = ['credential', '--server', server];

export interface Shell {
  readonly name: string;
  /** undefined: this machine lacks it. */
  readonly file: string | undefined;
  /** Before what the front is called with. */
  readonly args: readonly string[];
  readonly argv0?: string;
}
export const inBin = (name: string) =>
  ['/bin', '/usr/bin', '/usr/local/bin'].map((dir) => path.join(dir, name)).find((file) => fs.existsSync(file));
export const shells: readonly Shell[] = [
  { name: 'the system’s sh', file: front, args: [] },
  { name: 'dash', file: inBin('dash'), args: [front] },
  { name: 'bash', file: inBin('bash'), args: [front] },
  { name: 'bash as sh', file: inBin('bash'), args: [front], argv0: 'sh' },
  { name: 'busybox ash', file: inBin('busybox'), args: ['sh', front] },
  { name: 'zsh as sh', file: inBin('zsh'), args: ['--emulate', 'sh', front] },
  { name: 'ksh', file: inBin('ksh'), args: [front] },
  { name: 'mksh', file: inBin('mksh'), args: [front] },
];

/** Without a PATH the front has no other program. */
export const environment = (call: Call): Record<string, string> =>
  Object.fromEntries(
    Object.entries({ HOME: home, PATH: '', ...call.env }).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    ),
  );

/** Why a shell's tests are skipped, for their name; empty where they are not. */
export const missing = (shell: Shell) =>
  process.platform === 'win32'
    ? ' (skipped: Windows has no front)'
    : shell.file === undefined
      ? ' (skipped: not installed)'
      : '';

/** Runs the front as a context calls it, or otherwise. */
export function run(shell: Shell, call: Call = {}, options: SpawnSyncOptions = {}): SpawnSyncReturns<string> {
  return spawnSync(shell.file ?? '', [...shell.args, ...(call.args ?? usual)], {
    ...(shell.argv0 !== undefined && { argv0: shell.argv0 }),
    env: environment(call),
    cwd,
    encoding: 'utf8',
    timeout: 20_000,
    killSignal: 'SIGKILL',
    ...options,
  }) as SpawnSyncReturns<string>;
}
