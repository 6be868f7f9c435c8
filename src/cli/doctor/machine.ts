// Checks of this machine alone.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { defaultContext } from '../../network/tls.ts';
import type { Paths } from '../../settings/paths.ts';
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import { systemCode } from '../../util/errors.ts';
import { isExecutable, placesOnPath, searchPathOf } from '../../util/search-path.ts';
import type { Context } from '../context/context.ts';
import { findKubectl } from '../exec/args.ts';
import { configuredServer } from '../target/seeds.ts';
import { failed, failedBy, ok, skipped, type Verdict, warning } from './check.ts';

type Environment = NodeJS.ProcessEnv;

/** Checks what only using the settings can show: they are valid here. */
export async function checkConfiguration(context: Context): Promise<Verdict> {
  const { settings } = context;
  let server: string | undefined;
  try {
    server = await configuredServer(context);
  } catch (error) {
    return failedBy(error, 'kubectl tka config tailscale.hostname HOST');
  }
  try {
    if (settings.caFile !== undefined) defaultContext(settings.caFile);
  } catch (error) {
    return failedBy(error, 'kubectl tka config tls.caFile FILE');
  }
  const source = settings.values.get('tailscale.hostname')?.source ?? 'default';
  const from = settings.configFile ?? 'there is no configuration file';
  const named = server === undefined ? 'no server is configured' : `the server is ${server} (${source})`;
  return ok(source === from ? `${from}: the server is ${server}` : `${from}; ${named}`);
}

/** Checks tailscaled on this machine. */
export async function checkTailscaled(tailnet: () => Promise<TailnetStatus>, tag: string): Promise<Verdict> {
  try {
    const { self, peers } = await tailnet();
    const tagged = peers.filter(({ tags }) => tags.includes(tag)).length;
    const devices = peers.length === 1 ? '1 device' : `${peers.length} devices`;
    return ok(`running: this is ${self.dnsName || 'a device without a name'}; ${devices}, ${tagged} with ${tag}`);
  } catch (error) {
    return failedBy(error);
  }
}

const installKubectl = 'install a newer one: https://kubernetes.io/docs/tasks/tools/';

/** Checks the version of the kubectl on PATH. Exec credentials of apiVersion v1 need 1.22. */
export async function checkKubectl(env: Environment): Promise<Verdict> {
  let kubectl: string;
  try {
    kubectl = findKubectl(env);
  } catch (error) {
    return failedBy(error);
  }
  let version: string;
  try {
    version = await versionOf(kubectl, env);
  } catch (error) {
    return failed(`${kubectl} does not print its version: ${systemCode(error) ?? 'it failed'}`, installKubectl);
  }
  const [, major, minor] = /^v?(\d{1,4})\.(\d{1,4})(?:\D|$)/.exec(version) ?? [];
  if (major === undefined) return warning(`${kubectl} prints a version that cannot be read`, installKubectl);
  const known = Number(major) * 10_000 + Number(minor);
  if (known >= 1 * 10_000 + 22) return ok(`${kubectl}, ${version}`);
  return failed(`${kubectl} is ${version}: exec credentials need 1.22 or newer`, installKubectl);
}

function versionOf(kubectl: string, env: Environment): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      kubectl,
      ['version', '--client', '-o', 'json'],
      // A damaged kubeconfig must not affect this check.
      {
        env: { ...env, KUBECONFIG: os.devNull, KUBECTL_KUBERC: 'false' },
        timeout: 10_000,
        killSignal: 'SIGKILL',
        maxBuffer: 1 << 20,
        windowsHide: true,
      },
      (error, stdout) => {
        if (error !== null) return reject(error);
        try {
          resolve(String(JSON.parse(stdout).clientVersion.gitVersion));
        } catch {
          resolve('');
        }
      },
    );
    child.stdin?.on('error', () => {}).end();
  });
}

/** Checks whether `kubectl tka` is this program: kubectl runs the first `kubectl-tka` on PATH. */
export function checkPath(env: Environment, command: string): Verdict {
  const windows = process.platform === 'win32';
  const suffixes = windows ? (env.PATHEXT ?? '.EXE;.CMD;.BAT').split(';') : [''];
  const names = suffixes.map((suffix) => `kubectl-tka${suffix.toLowerCase()}`);
  const files = [...new Set(placesOnPath(names, searchPathOf(env)))].filter(
    (file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile() === true,
  );
  const first = files.find(isExecutable);
  const prepend = `export PATH="${path.dirname(command)}:$PATH"`;
  if (first === undefined) {
    const [blunt] = files;
    return blunt === undefined
      ? failed('kubectl-tka is not on PATH, so kubectl tka does not work', prepend)
      : failed(`${blunt} is not executable, so kubectl tka does not work`, `chmod +x ${shellQuoted(blunt)}`);
  }
  if (realpath(first) !== realpath(command)) {
    return warning(`${first} comes first on PATH, so kubectl tka runs it instead of ${command}`, prepend);
  }
  const others = files.filter((file) => realpath(file) !== realpath(first));
  return ok(others.length === 0 ? first : `${first}, before ${others.join(', ')}`);
}

function realpath(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch {
    return file;
  }
}

/** Returns a word quoted for a shell. */
export const shellQuoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

/** Returns the command that puts the token folder where this user can write. */
function elsewhereFor(home: string | undefined, env: Environment): string {
  if (isWritable(home)) return 'export TKA_CACHE_DIR="$HOME/.kubectl-tka"';
  if (isWritable(env.XDG_RUNTIME_DIR)) return 'export TKA_CACHE_DIR="$XDG_RUNTIME_DIR/kubectl-tka"';
  return 'export TKA_CACHE_DIR="$(mktemp -d)"';
}

function isWritable(folder: string | undefined): boolean {
  if (!folder) return false;
  try {
    fs.accessSync(folder, fs.constants.W_OK | fs.constants.X_OK);
    return hasSpace(folder);
  } catch {
    return false;
  }
}

function hasSpace(folder: string): boolean {
  const { blocks, bavail, files, ffree } = fs.statfsSync(folder);
  // Some file systems state no numbers.
  return (blocks === 0 || bavail > 0) && (files === 0 || ffree > 0);
}

/** Checks that the token folder belongs to this user, is closed to others, and is writable. */
export function checkCache({ cache, home }: Pick<Paths, 'cache' | 'home'>, env: Environment): Verdict {
  const elsewhere = elsewhereFor(env.HOME, env);
  if (cache === undefined)
    return failed('no home directory: HOME is not set', isWritable(home) ? 'export HOME=~' : elsewhere);
  let stat: fs.Stats | undefined;
  try {
    stat = fs.statSync(cache, { throwIfNoEntry: false });
  } catch (error) {
    return failed(`${cache} cannot be read: ${systemCode(error)}`, elsewhere);
  }
  if (stat === undefined) return notThereYet(cache, elsewhere);
  if (!stat.isDirectory()) return failed(`${cache} is not a folder`, `rm ${shellQuoted(cache)}`);
  const shared = process.getuid !== undefined && (stat.uid !== process.getuid() || (stat.mode & 0o1000) !== 0);
  if (shared) return failed(`${cache} is shared with other users: no token is kept there`, elsewhere);
  const mode = (stat.mode & 0o777).toString(8).padStart(4, '0');
  const mend = `chmod 700 ${shellQuoted(cache)}`;
  if (process.getuid !== undefined && (stat.mode & 0o700) !== 0o700) {
    return failed(`${cache} has the mode ${mode}: no token can be kept there`, mend);
  }
  try {
    fs.accessSync(cache, fs.constants.R_OK | fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    return failed(`${cache} cannot be written to: ${systemCode(error)}`, elsewhere);
  }
  if (!hasSpace(cache)) return failed(`${cache} is on a full disk: no token can be kept there`, elsewhere);
  if (process.getuid !== undefined && (stat.mode & 0o077) !== 0) {
    return warning(`${cache} is open to other users (mode ${mode})`, mend);
  }
  return ok(process.getuid === undefined ? cache : `${cache}, mode ${mode}`);
}

function notThereYet(cache: string, elsewhere: string): Verdict {
  let above = path.dirname(cache);
  while (!fs.existsSync(above) && path.dirname(above) !== above) above = path.dirname(above);
  try {
    fs.accessSync(above, fs.constants.W_OK | fs.constants.X_OK);
    if (!fs.statSync(above).isDirectory())
      return failed(`${cache} cannot be created: ${above} is not a folder`, elsewhere);
    if (hasSpace(above)) return skipped(`${cache} does not exist yet; the first sign-in creates it`);
    return failed(`${cache} cannot be created: the disk is full`, elsewhere);
  } catch (error) {
    return failed(`${cache} cannot be created: ${above} cannot be written to (${systemCode(error)})`, elsewhere);
  }
}

const setClock: Readonly<Partial<Record<NodeJS.Platform, string>>> = {
  darwin: 'sudo sntp -sS time.apple.com',
  win32: 'w32tm /resync',
};

/** The command that sets this machine's clock. */
export const clockHint = setClock[process.platform] ?? 'sudo timedatectl set-ntp true';

/** Compares this machine's clock with a server's, which is `skew` milliseconds ahead. */
export function checkClock(skew: number | undefined): Verdict {
  if (skew === undefined) return skipped('no server reported its time');
  const seconds = Math.round(Math.abs(skew) / 1000);
  // The Date header has whole seconds, and an answer takes time, so ignore differences below 2 s.
  if (seconds < 2) return ok('in sync with the server');
  const distance = `this machine's clock is ${seconds} s ${skew > 0 ? 'behind' : 'ahead of'} the server's`;
  if (seconds > 300) return failed(distance, clockHint);
  return seconds > 30 ? warning(distance, clockHint) : ok(distance);
}
