// Finds kube-apiserver and etcd: in KUBEBUILDER_ASSETS (the convention of controller-runtime's envtest), else in a
// folder of the user's cache, else builds them there once with Go.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import envPaths from 'env-paths';
import lockfile from 'proper-lockfile';
import { note } from './processes.ts';

const kubernetes = '1.35.4';
const etcd = '3.6.16';

const exe = process.platform === 'win32' ? '.exe' : '';

/** The two programs. */
export interface Assets {
  readonly apiServer: string;
  readonly etcd: string;
}

/** Programs by name that are built once and kept. */
type Programs<Name extends string> = Readonly<Record<Name, string>>;

export interface Build<Name extends string> {
  /** Their folder in the user's cache; its name contains their versions. */
  readonly folder: string;
  readonly names: readonly Name[];
  /** Their description: "kube-apiserver 1.35.4 and etcd 3.6.16". */
  readonly what: string;
  /** Builds all of them into the folder `bin`; `work` is for temporary files. Throws if a build fails. */
  make(bin: string, work: string): Promise<void>;
}

function programsIn<Name extends string>(folder: string, names: readonly Name[]): Programs<Name> | undefined {
  const files = names.map((name) => path.join(folder, `${name}${exe}`));
  if (!files.every((file) => fs.existsSync(file))) return undefined;
  return Object.fromEntries(names.map((name, i) => [name, files[i]])) as Programs<Name>;
}

const cache = envPaths('tka-envtest', { suffix: '' }).cache;
const folderOf = ({ folder }: Build<string>): string =>
  path.join(cache, `${folder}-${process.platform}-${process.arch}`);

/** Returns the programs if they are already built. */
export const findBuilt = <Name extends string>(build: Build<Name>): Programs<Name> | undefined =>
  programsIn(folderOf(build), build.names);

/** Returns the programs, and builds missing ones. Throws if a build fails. */
export async function buildOnce<Name extends string>(
  build: Build<Name>,
  say: (line: string) => void,
): Promise<Programs<Name>> {
  const cached = findBuilt(build);
  if (cached !== undefined) return cached;
  fs.mkdirSync(cache, { recursive: true });
  const folder = folderOf(build);
  // A build takes minutes, and two at a time take twice as long.
  const options = { lockfilePath: `${folder}.lock`, realpath: false, stale: 30_000, onCompromised: () => {} };
  const release = await lockfile.lock(folder, { ...options, retries: { forever: true, maxTimeout: 1000 } });
  try {
    return findBuilt(build) ?? (await make(build, folder, say));
  } finally {
    await release().catch(() => {});
  }
}

async function make<Name extends string>(
  build: Build<Name>,
  folder: string,
  say: (line: string) => void,
): Promise<Programs<Name>> {
  sweep();
  const work = fs.mkdtempSync(path.join(cache, '.build-'));
  note(work);
  try {
    say(`building ${build.what} into ${folder}, once; this takes minutes`);
    const bin = path.join(work, 'bin');
    fs.mkdirSync(bin);
    await build.make(bin, work);
    // Whole or not at all. A process that lost the lock, because the machine slept, built the same.
    try {
      fs.renameSync(bin, folder);
    } catch (error) {
      if (findBuilt(build) === undefined) throw error;
    }
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
  const built = findBuilt(build);
  if (built === undefined) throw new Error(`the build left nothing in ${folder}`);
  return built;
}

// Removes what remains of a build on a machine that was switched off.
function sweep(): void {
  for (const name of fs.readdirSync(cache)) {
    const leftover = path.join(cache, name);
    if (name.startsWith('.build-') && fs.statSync(leftover).mtimeMs < Date.now() - 86_400_000) {
      fs.rmSync(leftover, { recursive: true, force: true });
    }
  }
}

const build: Build<'kube-apiserver' | 'etcd'> = {
  folder: `kubernetes-${kubernetes}-etcd-${etcd}`,
  names: ['kube-apiserver', 'etcd'],
  what: `kube-apiserver ${kubernetes} and etcd ${etcd}`,
  async make(bin, work) {
    await buildEtcd(path.join(work, 'etcd'), path.join(bin, `etcd${exe}`));
    await buildApiServer(path.join(work, 'kube-apiserver'), path.join(bin, `kube-apiserver${exe}`));
  },
};

/** Finds or builds the programs; returns the reason as a string if neither is possible. Throws if a build fails. */
export async function findAssets(say: (line: string) => void): Promise<Assets | string> {
  const obstacle = await assetsObstacle();
  if (obstacle !== undefined) return obstacle;
  const named = process.env.KUBEBUILDER_ASSETS;
  const found = named ? programsIn(named, build.names) : await buildOnce(build, say);
  if (found === undefined) throw new Error(`KUBEBUILDER_ASSETS=${named} has no kube-apiserver and etcd`);
  return { apiServer: found['kube-apiserver'], etcd: found.etcd };
}

/** Returns why there are no programs and they cannot be built; undefined if `findAssets` can succeed. */
export async function assetsObstacle(): Promise<string | undefined> {
  if (process.env.KUBEBUILDER_ASSETS || findBuilt(build) !== undefined) return undefined;
  return await go(['version'], { cwd: os.tmpdir() }).then(
    () => undefined,
    () => 'no KUBEBUILDER_ASSETS, and no go on PATH to build kube-apiserver and etcd with',
  );
}

export interface GoOptions {
  readonly cwd: string;
  /** Default: mod. */
  readonly mod?: 'mod' | 'readonly';
}

/** Runs go and returns its stdout. Builds run at a low priority. */
export async function go(args: readonly string[], { cwd, mod = 'mod' }: GoOptions): Promise<string> {
  let output = '';
  let problem = '';
  const child = execFile('go', args, {
    cwd,
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: `-mod=${mod} -buildvcs=false`, GOWORK: 'off' },
    maxBuffer: 64 * 1024 * 1024,
  });
  const { pid } = child;
  if (pid !== undefined) {
    os.setPriority(pid, os.constants.priority.PRIORITY_LOW);
    note(`+${pid}`);
    child.once('exit', () => note(`-${pid}`));
  }
  child.stdout?.on('data', (text) => {
    output += text;
  });
  child.stderr?.on('data', (text) => {
    problem = (problem + text).slice(-4000);
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`go ${args[0]} failed with exit status ${code}\n${problem}`);
  return output;
}

function module(folder: string, requires: string, main: string): void {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'go.mod'), `module example.com/throwaway\n\ngo 1.25\n\nrequire ${requires}\n`);
  fs.writeFileSync(path.join(folder, 'main.go'), main);
}

async function buildEtcd(folder: string, target: string): Promise<void> {
  module(
    folder,
    `go.etcd.io/etcd/server/v3 v${etcd}`,
    'package main\n\nimport (\n\t"os"\n\n\t"go.etcd.io/etcd/server/v3/etcdmain"\n)\n\nfunc main() { etcdmain.Main(os.Args) }\n',
  );
  await go(['mod', 'tidy'], { cwd: folder });
  await go(['build', '-trimpath', '-ldflags', '-s -w', '-o', target, '.'], { cwd: folder });
}

async function buildApiServer(folder: string, target: string): Promise<void> {
  module(
    folder,
    `k8s.io/kubernetes v${kubernetes}`,
    `package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
`,
  );
  // Its go.mod replaces these modules with folders beside it; every dependent has to undo this by name.
  const { GoMod } = JSON.parse(
    await go(['mod', 'download', '-json', `k8s.io/kubernetes@v${kubernetes}`], { cwd: folder }),
  );
  const { Replace } = JSON.parse(await go(['mod', 'edit', '-json', GoMod], { cwd: folder })) as {
    readonly Replace: readonly { readonly Old: { readonly Path: string }; readonly New: { readonly Path: string } }[];
  };
  const staging = Replace.filter(({ New }) => New.Path.startsWith('./staging/')).map(({ Old }) => Old.Path);
  const version = kubernetes.replace(/^1/, '0');
  await go(['mod', 'edit', ...staging.map((name) => `-replace=${name}=${name}@v${version}`)], { cwd: folder });
  await go(['mod', 'tidy'], { cwd: folder });
  const [major, minor] = kubernetes.split('.');
  // Without these its version is v0.0.0-master, which clients with a minimum version refuse.
  const set = Object.entries({ gitVersion: `v${kubernetes}`, gitMajor: major, gitMinor: minor })
    .map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`)
    .join(' ');
  await go(['build', '-trimpath', '-ldflags', `-s -w ${set}`, '-o', target, '.'], { cwd: folder });
}
