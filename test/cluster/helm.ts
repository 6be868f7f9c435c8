// Helm as a program: from PATH if it is version 4, else built once with Go.
import { execFile, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import type { KubernetesObject } from '@kubernetes/client-node';
import { parseAllDocuments, stringify } from 'yaml';
import { deploy } from '../deploy/render.ts';
import { type Build, buildOnce, go } from './assets.ts';
import { makeFolder } from './processes.ts';

const version = '4.3.1';

const build: Build<'helm'> = {
  folder: `helm-${version}`,
  names: ['helm'],
  what: `helm ${version}`,
  async make(bin, work) {
    fs.writeFileSync(
      path.join(work, 'go.mod'),
      `module example.com/throwaway\n\ngo 1.26\n\nrequire helm.sh/helm/v4 v${version}\n\ntool helm.sh/helm/v4/cmd/helm\n`,
    );
    await go(['mod', 'tidy'], { cwd: work });
    const target = path.join(bin, process.platform === 'win32' ? 'helm.exe' : 'helm');
    await go(['build', '-trimpath', '-ldflags', '-s -w', '-o', target, 'helm.sh/helm/v4/cmd/helm'], { cwd: work });
  },
};

/** The chart's folder. */
export const chart = path.join(deploy, 'chart');

/** Values of a chart. */
export type Values = Readonly<Record<string, unknown>>;

/** Finds or builds the program, and returns its path. Throws if the build fails. */
export async function helmProgram(): Promise<string> {
  const onPath = spawnSync('helm', ['version', '--short'], { encoding: 'utf8' });
  if (onPath.status === 0 && onPath.stdout.startsWith('v4.')) return 'helm';
  return (await buildOnce(build, (line) => void process.stderr.write(`${line}\n`))).helm;
}

export class Helm {
  readonly #file: string;
  readonly #folder = makeFolder();

  private constructor(file: string) {
    this.#file = file;
  }

  /** Finds or builds Helm. Throws if the build fails. */
  static async find(): Promise<Helm> {
    return new Helm(await helmProgram());
  }

  /** Runs Helm with a kubeconfig, if any. Returns stdout; throws an Error with its stderr. */
  async run(args: readonly string[], values: Values = {}, kubeconfig?: object): Promise<string> {
    const [valuesFile, kubeconfigFile] = ['values.yaml', 'kubeconfig'].map((name) => path.join(this.#folder, name));
    fs.writeFileSync(valuesFile ?? '', stringify(values));
    fs.writeFileSync(kubeconfigFile ?? '', JSON.stringify(kubeconfig ?? {}), { mode: 0o600 });
    const env = {
      PATH: process.env.PATH,
      HOME: this.#folder,
      KUBECONFIG: kubeconfigFile,
      HELM_NAMESPACE: 'tka-system',
    };
    const takesValues = /^(?:template|lint|upgrade|install)$/.test(args[0] ?? '');
    const all = takesValues ? [...args, '--values', valuesFile ?? ''] : args;
    const { stdout } = await promisify(execFile)(this.#file, all, { env, encoding: 'utf8', maxBuffer: 64e6 });
    return stdout;
  }

  /** Returns the objects that the chart renders for values, without the hooks of `helm test`. */
  async render(values: Values): Promise<KubernetesObject[]> {
    return objectsIn(await this.run(['template', 'tka', chart, '--skip-tests'], values));
  }
}

/** Returns the Kubernetes objects of a YAML text with several documents. */
export function objectsIn(text: string): KubernetesObject[] {
  return parseAllDocuments(text)
    .map((document) => document.toJS() as KubernetesObject | null)
    .filter((object) => object !== null);
}
