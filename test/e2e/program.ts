// The built program in a private HOME, and the callers that run it. TKA_E2E_BIN names another folder with a
// `kubectl-tka` to test than dist/.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { entryName } from '../../src/credential/entry.ts';
import { makeHome } from '../../src/sandbox/home.ts';

/** The folder of the program under test. */
export const bin = path.resolve(process.env.TKA_E2E_BIN || fileURLToPath(new URL('../../dist', import.meta.url)));
export const program = path.join(bin, 'kubectl-tka');
if (!fs.existsSync(program))
  throw new Error(`there is no ${program}: npm run build, or name its folder in TKA_E2E_BIN`);
/** The folder that it is installed in, behind links. */
export const installed = path.dirname(fs.realpathSync(program));
/** Whether a shell script starts the program: then `hooked` works. */
export const launched = fs.existsSync(path.join(installed, 'lib'));
/** The bundle in dist/, whatever program is under test, and the Node beside it. */
const dist = fileURLToPath(new URL('../../dist/lib', import.meta.url));
export const bundle = { script: path.join(dist, 'kubectl-tka.cjs'), node: path.join(dist, 'node') };

/**
 * Copies all of the program to a folder, and returns the copy's path; its Node takes no second room where the file
 * system can spare it.
 */
export function copyProgram(folder: string): string {
  for (const entry of fs.readdirSync(installed, { recursive: true, withFileTypes: true })) {
    const from = path.join(entry.parentPath, entry.name);
    const to = path.join(folder, path.relative(installed, from));
    if (!entry.isFile()) continue;
    fs.mkdirSync(path.dirname(to), { recursive: true });
    try {
      if (fs.statSync(from).size < 10e6) throw new Error('small');
      fs.linkSync(from, to);
    } catch {
      fs.copyFileSync(from, to);
    }
  }
  return path.join(folder, 'kubectl-tka');
}

export interface Ran {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Milliseconds from start to end. */
  readonly took: number;
}

/** undefined takes a variable away. */
export type Env = Readonly<Record<string, string | undefined>>;

export interface RunOptions {
  readonly env?: Env;
  readonly input?: string;
  readonly cwd?: string;
  /** A command that runs the program, with its arguments: `nsenter … env -C FOLDER`. */
  readonly within?: readonly string[];
}

/** A program that runs: `ran` settles when it has ended and its streams are closed. */
export interface Running {
  readonly child: ChildProcess;
  readonly ran: Promise<Ran>;
}

const longest = 120_000;

/** Every error says what to do next. */
function expectHint(args: readonly string[], status: number | null, stderr: string): void {
  const lines = stderr.split('\n');
  const error = lines.findLastIndex((line) => line.startsWith('error: '));
  if (status === null || error < 0 || lines.slice(error).some((line) => line.startsWith('hint: '))) return;
  throw new Error(`${args.join(' ')}: an error without a hint: ${lines[error]}`);
}

/** Starts a program. One that does not end within two minutes is killed, and shows as `signal: 'SIGKILL'`. */
export function start(file: string, args: readonly string[], env: Env, options: RunOptions = {}): Running {
  const defined = Object.fromEntries(Object.entries({ ...env, ...options.env }).filter(([, v]) => v !== undefined));
  const started = performance.now();
  const [first, ...rest] = [...(options.within ?? []), file, ...args] as [string, ...string[]];
  const child = spawn(first, rest, {
    env: defined as Record<string, string>,
    cwd: options.cwd,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    timeout: longest,
    killSignal: 'SIGKILL',
  });
  child.stdin?.on('error', () => {}).end(options.input);
  const texts = ['', ''];
  for (const [i, stream] of [child.stdout, child.stderr].entries()) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      texts[i] += text;
      child.emit('said', texts.join(''));
    });
  }
  const ran = once(child, 'close').then(([status, signal]): Ran => {
    const [stdout = '', stderr = ''] = texts;
    if (file === program) expectHint(args, status, stderr);
    return { status, signal, stdout, stderr, took: performance.now() - started };
  });
  // Who kills a child may never ask how it ended.
  ran.catch(() => {});
  return { child, ran };
}

/** The environment that makes the program under test load test/e2e/preload.cjs and do what that can do. */
export function hooked(...what: readonly string[]): Env {
  const preload = fileURLToPath(new URL('./preload.cjs', import.meta.url));
  const options = `--require ${JSON.stringify(preload)}`;
  // The launcher hands on the second, and takes away the first, which is for who runs the bundle without it.
  return { NODE_OPTIONS: options, TKA_NODE_OPTIONS: options, TKA_E2E_HOOK: JSON.stringify(what) };
}

const words = (args: string | readonly string[]): readonly string[] =>
  typeof args === 'string' ? args.split(' ').filter((word) => word !== '') : args;

/** A private HOME with an environment of its own: nothing of XDG_*, TKA_*, KUBE* or proxies, our program first on PATH. */
export class Home {
  /** Above HOME: for files of a test that are not the user's. */
  readonly root: string;
  readonly dir: string;
  readonly env: Env;
  readonly kubeconfig: string;
  readonly cache: string;
  readonly state: string;
  readonly config: string;

  private constructor(root: string, env: Readonly<Record<string, string>>) {
    const { KUBECONFIG: _, TKA_TAILSCALE_HOSTNAME: __, PATH = '', ...rest } = env;
    this.root = root;
    this.dir = path.join(root, 'home of alice');
    fs.mkdirSync(this.dir);
    const [, ...folders] = PATH.split(path.delimiter);
    this.env = { ...rest, HOME: this.dir, USERPROFILE: this.dir, PATH: [bin, ...folders].join(path.delimiter) };
    this.kubeconfig = path.join(this.dir, '.kube', 'config');
    this.cache = path.join(this.dir, '.cache', 'kubectl-tka');
    this.state = path.join(this.dir, '.local', 'state', 'kubectl-tka');
    this.config = path.join(this.dir, '.config', 'tka', 'config.yaml');
  }

  /** `server` becomes the configured one. */
  static async make(server?: string): Promise<Home> {
    const made = await makeHome('');
    const home = new Home(made.dir, made.env);
    if (server !== undefined) home.write(home.config, `tailscale:\n  hostname: "${server}"\n`);
    return home;
  }

  remove(): void {
    fs.rmSync(this.root, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Writes a file and the folders above it. */
  write(file: string, text: string, mode = 0o600): void {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text, { mode });
  }

  start(args: string | readonly string[], options: RunOptions & { program?: string } = {}): Running {
    return start(options.program ?? program, words(args), this.env, { cwd: this.dir, ...options });
  }

  /** Runs our program. */
  run(args: string | readonly string[], options: RunOptions & { program?: string } = {}): Promise<Ran> {
    return this.start(args, options).ran;
  }

  /**
   * `credential` for a server (and its API server, as a context has it), called `times` times by one parent of its own,
   * as one kubectl would: two calls of one parent say that the API server refused the token.
   */
  credential(
    cluster: { readonly server: string; readonly apiServer?: string },
    options: RunOptions & { args?: readonly string[]; times?: number } = {},
  ): Promise<Ran> {
    const api = cluster.apiServer === undefined ? [] : ['--api-server', cluster.apiServer];
    const args = ['credential', '--server', cluster.server, ...api, ...(options.args ?? [])];
    return this.byShell(`${'"$0" "$@" && '.repeat((options.times ?? 1) - 1)}"$0" "$@"; exit $?`, args, options);
  }

  /** Runs our program as `"$0" "$@"` of a shell script. */
  byShell(script: string, args: string | readonly string[], options: RunOptions = {}): Promise<Ran> {
    const all = ['-c', script, program, ...words(args)];
    return start('/bin/sh', all, this.env, { cwd: this.dir, ...options }).ran;
  }

  /** Runs kubectl (that of the machine, or another version of it). */
  kubectl(args: string | readonly string[], options: RunOptions & { kubectl?: string } = {}): Promise<Ran> {
    return start(options.kubectl ?? kubectl ?? 'kubectl', words(args), this.env, { cwd: this.dir, ...options }).ran;
  }

  /** The path of a server's cache entry, or of a file beside it (`+served`, `+lock`). */
  entry(cluster: { readonly server: string }, suffix = ''): string {
    return path.join(this.cache, `${entryName(cluster.server)}${suffix}`);
  }

  /** The token that is kept for a server. */
  token(cluster: { readonly server: string }): string {
    return fs.readFileSync(this.entry(cluster), 'utf8').split('\n')[4] ?? '';
  }

  /** Forgets everything: sessions, state and kubeconfig. */
  forget(): void {
    for (const place of [this.cache, this.state, path.dirname(this.kubeconfig)])
      fs.rmSync(place, { recursive: true, force: true });
  }

  /** Names in the cache folder. */
  cached(): string[] {
    return fs.existsSync(this.cache) ? fs.readdirSync(this.cache).sort() : [];
  }

  /**
   * Every file under HOME (and every empty folder), by its path: mode and content. Two of them are equal when nothing
   * has changed. Left out are kubectl's own cache, and our memory of which clusters the servers listed.
   */
  files(except?: RegExp): Record<string, string> {
    const found: Record<string, string> = {};
    const walk = (folder: string) => {
      for (const name of fs.readdirSync(folder).sort()) {
        const file = path.join(folder, name);
        const key = path.relative(this.dir, file);
        if (/^(?:\.kube\/cache|\.local\/state\/kubectl-tka\/(?:clusters|away))$/.test(key) || except?.test(key))
          continue;
        const stat = fs.lstatSync(file);
        const mode = (stat.mode & 0o7777).toString(8);
        if (stat.isDirectory()) {
          if (fs.readdirSync(file).length === 0) found[`${key}/`] = mode;
          walk(file);
        } else if (stat.isSymbolicLink()) found[key] = `-> ${fs.readlinkSync(file)}`;
        else found[key] = `${mode} ${stat.isFile() ? fs.readFileSync(file, 'latin1') : 'no regular file'}`;
      }
    };
    walk(this.dir);
    return found;
  }
}

const onPath = (process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, 'kubectl'));

/** The machine's kubectl. */
export const kubectl = process.env.TKA_E2E_NO_KUBECTL === '1' ? undefined : onPath.find((file) => fs.existsSync(file));

/** The other versions of kubectl that Google's SDK keeps beside its own, oldest first. */
export const kubectls: readonly string[] =
  kubectl === undefined ? [] : versionsIn(path.dirname(fs.realpathSync(kubectl)));

function versionsIn(folder: string): string[] {
  const minor = (name: string) => Number(name.split('.').at(-1));
  const names = fs.readdirSync(folder).filter((name) => /^kubectl\.1\.\d+$/.test(name));
  return names.sort((a, b) => minor(a) - minor(b)).map((name) => path.join(folder, name));
}

/** Why tests that need kubectl itself are skipped, for their name. */
export const needsKubectl = kubectl === undefined ? ' (skipped: no kubectl on PATH)' : '';

/** Who asks the cluster and runs our program for its token. */
export interface Caller {
  readonly name: string;
  readonly absent: boolean;
  /** Whether it passes on what our program says on stderr, also where all went well. */
  readonly passesStderr: boolean;
  /** `get namespaces`, `get pods -A`, `auth whoami`, `--context X get nodes`. */
  call(home: Home, args: string | readonly string[], options?: RunOptions): Promise<Ran>;
}

// As one file client-node loads in a third of the time. It stays where other tools keep their caches.
async function bundledCaller(): Promise<string> {
  const source = fileURLToPath(new URL('../../src/sandbox/caller.ts', import.meta.url));
  const lock = fileURLToPath(new URL('../../package-lock.json', import.meta.url));
  const made = fileURLToPath(new URL('../../node_modules/.cache/tka-e2e/caller.mjs', import.meta.url));
  const age = fs.statSync(made, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (age > Math.max(fs.statSync(source).mtimeMs, fs.statSync(lock).mtimeMs)) return made;
  const fresh = `${made}.${process.pid}`;
  const { build } = await import('esbuild');
  await build({
    entryPoints: [source],
    outfile: fresh,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node26',
    logLevel: 'error',
    banner: { js: "import{createRequire as __r}from'node:module';const require=__r(import.meta.url);" },
  });
  fs.renameSync(fresh, made);
  return made;
}
let callerFile: Promise<string> | undefined;

const clientNode: Caller = {
  name: '@kubernetes/client-node',
  absent: false,
  passesStderr: false,
  call: async (home, args, options = {}) => {
    callerFile ??= bundledCaller();
    const all = [await callerFile, ...words(args)];
    return start(process.execPath, all, home.env, { cwd: home.dir, ...options }).ran;
  },
};

export const callers: readonly Caller[] = [
  {
    name: `kubectl${needsKubectl}`,
    absent: kubectl === undefined,
    passesStderr: true,
    call: (home, args, options) => home.kubectl(args, options),
  },
  clientNode,
];

/** The nth copies of a thing, at once. */
export function times<T>(count: number, act: (i: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, i) => act(i)));
}

/** Waits for what no event tells; fails after `within` milliseconds. */
export async function until(what: string, holds: () => boolean, within = 90_000): Promise<void> {
  for (const deadline = performance.now() + within; !holds(); await delay(2)) {
    if (performance.now() > deadline) throw new Error(`in vain waited for: ${what}`);
  }
}

/** A promise to hold a server's answer with, and its end. */
export function gate(): { readonly shut: Promise<void>; readonly open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { shut: promise, open: resolve };
}

export const lines = (text: string): string[] => text.split('\n').slice(0, -1);

/** Anything that looks like a token. */
export const jwt = /eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+/;
