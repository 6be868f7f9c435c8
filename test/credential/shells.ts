// Renders the front and installs it beside a stand-in for the program, in a private HOME; lists the shells of this
// machine that can run it.
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
// Prints each argument followed by a NUL; on request the umask and the environment as well.
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
export /** HOME at the start of the test. */
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
  /** undefined: not installed on this machine. */
  readonly file: string | undefined;
  /** Arguments before those of the front. */
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

/** Without a PATH the front finds no other program. */
export const environment = (call: Call): Record<string, string> =>
  Object.fromEntries(
    Object.entries({ HOME: home, PATH: '', ...call.env }).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    ),
  );

/** Returns why a shell's tests are skipped, as a suffix for their name; empty if they run. */
export const missing = (shell: Shell) =>
  process.platform === 'win32'
    ? ' (skipped: Windows has no front)'
    : shell.file === undefined
      ? ' (skipped: not installed)'
      : '';

/** Runs the front as a context calls it, or with the arguments and environment of `call`. */
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
