// Where kube-apiserver and etcd are: KUBEBUILDER_ASSETS (the convention of controller-runtime's envtest), else a folder
// of the user's cache, else built into it, once, with Go.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import envPaths from 'env-paths';
import { note } from './processes.ts';

const kubernetes = '1.35.4';
const etcd = '3.6.16';

const exe = process.platform === 'win32' ? '.exe' : '';

/** The two programs. */
export interface Assets {
  readonly apiServer: string;
  readonly etcd: string;
}

function assetsIn(folder: string): Assets | undefined {
  const assets = {
    apiServer: path.join(folder, `kube-apiserver${exe}`),
    etcd: path.join(folder, `etcd${exe}`),
  };
  return fs.existsSync(assets.apiServer) && fs.existsSync(assets.etcd) ? assets : undefined;
}

/** Finds or builds the programs; the reason, as a string, where neither is possible. Throws when a build fails. */
export async function findAssets(say: (line: string) => void): Promise<Assets | string> {
  const named = process.env.KUBEBUILDER_ASSETS;
  if (named !== undefined && named !== '') {
    const assets = assetsIn(named);
    if (assets === undefined) throw new Error(`KUBEBUILDER_ASSETS=${named} has no kube-apiserver and etcd`);
    return assets;
  }
  const cache = envPaths('tka-envtest', { suffix: '' }).cache;
  const folder = path.join(cache, `kubernetes-${kubernetes}-etcd-${etcd}-${process.platform}-${process.arch}`);
  const cached = assetsIn(folder);
  if (cached !== undefined) return cached;
  try {
    await go(['version'], os.tmpdir());
  } catch {
    return 'no KUBEBUILDER_ASSETS, and no go on PATH to build kube-apiserver and etcd with';
  }
  fs.mkdirSync(cache, { recursive: true });
  sweep(cache);
  const work = fs.mkdtempSync(path.join(cache, '.build-'));
  note(work);
  try {
    say(`building kube-apiserver ${kubernetes} and etcd ${etcd} into ${folder}, once; this takes minutes`);
    const built = path.join(work, 'bin');
    fs.mkdirSync(built);
    await buildEtcd(path.join(work, 'etcd'), path.join(built, `etcd${exe}`));
    await buildApiServer(path.join(work, 'kube-apiserver'), path.join(built, `kube-apiserver${exe}`));
    // Whole or not at all: whoever else built it meanwhile has the same.
    try {
      fs.renameSync(built, folder);
    } catch (error) {
      if (assetsIn(folder) === undefined) throw error;
    }
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
  const assets = assetsIn(folder);
  if (assets === undefined) throw new Error(`the build left nothing in ${folder}`);
  return assets;
}

// What is left of a build on a machine that was switched off.
function sweep(cache: string): void {
  for (const name of fs.readdirSync(cache)) {
    const leftover = path.join(cache, name);
    if (name.startsWith('.build-') && fs.statSync(leftover).mtimeMs < Date.now() - 86_400_000) {
      fs.rmSync(leftover, { recursive: true, force: true });
    }
  }
}

/** Runs go and answers with its stdout. A build yields to whatever else the machine does. */
async function go(args: readonly string[], cwd: string): Promise<string> {
  let output = '';
  let problem = '';
  const child = execFile('go', args, {
    cwd,
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=mod -buildvcs=false', GOWORK: 'off' },
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
  await go(['mod', 'tidy'], folder);
  await go(['build', '-trimpath', '-ldflags', '-s -w', '-o', target, '.'], folder);
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
  // Its go.mod takes these modules from folders beside it, which whoever depends on it has to undo by name.
  const { GoMod } = JSON.parse(await go(['mod', 'download', '-json', `k8s.io/kubernetes@v${kubernetes}`], folder));
  const { Replace } = JSON.parse(await go(['mod', 'edit', '-json', GoMod], folder)) as {
    readonly Replace: readonly { readonly Old: { readonly Path: string }; readonly New: { readonly Path: string } }[];
  };
  const staging = Replace.filter(({ New }) => New.Path.startsWith('./staging/')).map(({ Old }) => Old.Path);
  const version = kubernetes.replace(/^1/, '0');
  await go(['mod', 'edit', ...staging.map((name) => `-replace=${name}=${name}@v${version}`)], folder);
  await go(['mod', 'tidy'], folder);
  const [major, minor] = kubernetes.split('.');
  // Without these it calls itself v0.0.0-master, which clients that ask for a minimum version refuse.
  const set = Object.entries({ gitVersion: `v${kubernetes}`, gitMajor: major, gitMinor: minor })
    .map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`)
    .join(' ');
  await go(['build', '-trimpath', '-ldflags', `-s -w ${set}`, '-o', target, '.'], folder);
}
