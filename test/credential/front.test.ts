// The front (cmd/kubectl-tka.sh) under every shell that this machine has, and the program's own cached path: both by one
// table of cases. Whoever has no entry to give hands over to the program, here a stand-in that tells how it was called.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import fsItself, * as fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { launcher } from '../../build.ts';
import { entryName, execCredential } from '../../src/credential/entry.ts';
import { serveCached } from '../../src/credential/fast.ts';
import { api, type Call, type Case, cases, entry, type Ground, server, whole } from './cases.ts';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'front '));
afterAll(() => fs.rmSync(root, { recursive: true }));
const platform = process.platform === 'darwin' ? 'darwin' : 'linux';

const installed = path.join(root, 'it\'s "installed" $here');
const front = path.join(installed, 'kubectl-tka');
fs.mkdirSync(path.join(installed, 'lib'), { recursive: true });
fs.writeFileSync(front, launcher(platform, 'executable'), { mode: 0o755 });
// Each argument with a NUL behind it; asked for, the umask and the environment as well.
const standIn = `#!/bin/sh
printf '%s\\0' "$@"
[ -z "\${TELL_ALL-}" ] || { umask; exec /usr/bin/env -0; }
`;
fs.writeFileSync(path.join(installed, 'lib', 'kubectl-tka'), standIn, { mode: 0o755 });

const home = path.join(root, 'home of alice');
const folder = path.join(home, platform === 'darwin' ? 'Library/Caches' : '.cache', 'kubectl-tka');
const ground: Ground = {
  home,
  folder,
  file: path.join(folder, entryName(server) ?? ''),
  put: (text = whole, mtime = entry.freshUntil, file = ground.file) => {
    fs.writeFileSync(file, text, { mode: 0o600 });
    fs.utimesSync(file, mtime, mtime);
  },
};
function makeHome(): void {
  fs.rmSync(home, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  fs.mkdirSync(path.join(home, 'cwd'));
}
beforeEach(makeHome);
const cwd = path.join(home, 'cwd');
const usual = ['credential', '--server', server];

interface Shell {
  readonly name: string;
  /** undefined: this machine lacks it. */
  readonly file: string | undefined;
  readonly args: readonly string[];
  readonly argv0?: string;
}
const inBin = (name: string) =>
  ['/bin', '/usr/bin', '/usr/local/bin'].map((dir) => path.join(dir, name)).find((file) => fs.existsSync(file));
const shells: readonly Shell[] = [
  { name: 'the system’s sh', file: front, args: [] },
  { name: 'dash', file: inBin('dash'), args: [front] },
  { name: 'bash', file: inBin('bash'), args: [front] },
  { name: 'bash as sh', file: inBin('bash'), args: [front], argv0: 'sh' },
  { name: 'busybox ash', file: inBin('busybox'), args: ['sh', front] },
  { name: 'zsh as sh', file: inBin('zsh'), args: [front], argv0: 'sh' },
  { name: 'ksh', file: inBin('ksh'), args: [front] },
  { name: 'mksh', file: inBin('mksh'), args: [front] },
];

// Without a PATH the front has no other program.
const environment = (call: Call): Record<string, string> =>
  Object.fromEntries(
    Object.entries({ HOME: home, PATH: '', ...call.env }).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    ),
  );

function run(shell: Shell, call: Call = {}): SpawnSyncReturns<string> {
  return spawnSync(shell.file ?? '', [...shell.args, ...(call.args ?? usual)], {
    ...(shell.argv0 !== undefined && { argv0: shell.argv0 }),
    env: environment(call),
    cwd,
    encoding: 'utf8',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  });
}

/** What the program's own cached path prints; undefined where it hands over. */
function program(call: Call): string | undefined {
  let printed = '';
  const write = fsItself.writeSync;
  vi.spyOn(fsItself, 'writeSync').mockImplementation(((fd: number, data: Buffer, ...rest: []) => {
    if (fd !== 1) return write(fd, data, ...rest);
    printed += data.toString();
    return data.length;
  }) as typeof fs.writeSync);
  vi.spyOn(process, 'cwd').mockReturnValue(cwd);
  syncBuiltinESMExports();
  try {
    return serveCached(call.args ?? usual, environment(call), process.pid) ? printed : undefined;
  } finally {
    vi.restoreAllMocks();
    syncBuiltinESMExports();
  }
}

/** Everything under HOME but the notes of whom an entry was served to. */
function files(): string[] {
  const all = fs.readdirSync(home, { recursive: true, encoding: 'utf8' }).filter((name) => !/\+served$/.test(name));
  return all.sort().map((name) => {
    const { mode, size } = fs.lstatSync(path.join(home, name));
    const text =
      (mode & fs.constants.S_IFMT) === fs.constants.S_IFREG ? fs.readFileSync(path.join(home, name), 'latin1') : '';
    return `${name} ${mode} ${size} ${text.slice(0, 5000)}`;
  });
}

const handedOver = (call: Call) => ['--started-as', front, ...(call.args ?? usual), ''].join('\0');

const callOf = (arranged: unknown): Call => (typeof arranged === 'object' && arranged !== null ? arranged : {});

const printed = new Map<string, string | undefined>();
/** What the program prints of a case. */
function byProgram({ name, arrange }: Case): string | undefined {
  if (!printed.has(name)) {
    printed.set(name, program(callOf(arrange(ground))));
    makeHome();
  }
  return printed.get(name);
}

const table = cases.filter(({ skip }) => skip !== true).map((one) => [one.name, one] as const);

it('no two cases have one name', () => expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length));

describe('the program', () => {
  it.each(table)('%s', (_, one) => {
    expect(byProgram(one) !== undefined).toBe(one.served !== false && one.served !== 'front');
  });
});

for (const shell of shells) {
  const missing = shell.file === undefined ? ' (skipped: not installed)' : '';
  describe.skipIf(missing)(`the front under ${shell.name}${missing}`, () => {
    it.each(table)('%s', (_, one) => {
      const expected = one.served === 'front' ? execCredential(`${api}v1`, entry) : byProgram(one);
      const call = callOf(one.arrange(ground));
      const before = files();
      const ran = run(shell, call);
      expect(ran).toMatchObject({ status: 0, signal: null, stderr: '' });
      const answers = {
        true: [expected],
        front: [expected],
        either: [expected, handedOver(call)],
        program: [handedOver(call)],
        false: [handedOver(call)],
      };
      expect(ran.stdout).toBeOneOf(answers[`${one.served}`]);
      expect(files()).toEqual(before);
    });
  });
}
