import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import type { ContextSpec, KubeconfigFiles } from '../../src/kubeconfig/index.ts';
import { TkaError } from '../../src/util/errors.ts';
import { testFolder } from '../fixtures/temporary.ts';

/** Writes a file in a folder of its own and returns its path. */
export function kubeconfig(text: string | Uint8Array): string {
  const file = join(testFolder('tka-'), 'config');
  writeFileSync(file, text, { mode: 0o640 });
  return file;
}

export const only = (file: string): KubeconfigFiles => ({ files: [file], defaultFile: file, explicit: true });

export const chain = (...files: string[]): KubeconfigFiles => ({
  files,
  defaultFile: files.find((file) => existsSync(file)) ?? (files.at(-1) as string),
  explicit: false,
});

export const spec = (name: string, more: Partial<ContextSpec> = {}): ContextSpec => ({
  name,
  server: 'https://tka.example.ts.net',
  apiServer: 'https://api.example.com:6443',
  caData: 'LS0tLS1CRUdJTg==',
  command: '/bin/sh',
  installHint: 'kubectl krew install tka # no: "quotes"\nsecond line',
  ...more,
});

/** Lists every file below a folder with its kind, mode, mtime and content, to show that nothing changed. */
export function census(path: string): Record<string, string> {
  const out: Record<string, string> = {};
  for (const name of readdirSync(path, { recursive: true }) as string[]) {
    const file = join(path, name);
    const stat = lstatSync(file, { bigint: true });
    const content = stat.isFile()
      ? createHash('sha256').update(readFileSync(file)).digest('hex')
      : stat.isSymbolicLink()
        ? readlinkSync(file)
        : '';
    out[name] = `${stat.mode.toString(8)} ${stat.mtimeNs} ${stat.ino} ${content}`;
  }
  return out;
}

/** Returns the error that a promise rejects with. The error must be presentable to a user. */
export async function refusal(promise: Promise<unknown>): Promise<TkaError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof TkaError)) throw new Error('not refused with a TkaError', { cause: error });
  const shape = /^(?:API |[^A-Z\n])(?:[^\n](?!\[object))*$/;
  if (!shape.test(error.message) || error.message.length > 600) throw new Error(`bad message: ${error.message}`);
  if (error.hints.some((hint) => hint.includes('\n'))) throw new Error('bad hints');
  return error;
}

const found = spawnSync('sh', ['-c', 'command -v kubectl'], { encoding: 'utf8' }).stdout.trim();
export const kubectl = found === '' ? undefined : found;

/** This machine's kubectl and any other versions beside it. */
export const kubectls: readonly string[] = kubectl
  ? [
      kubectl,
      ...readdirSync(dirname(realpathSync(kubectl)))
        .filter((name) => /^kubectl\.1\.(27|30|33)$/.test(name))
        .map((name) => join(dirname(realpathSync(kubectl)), name)),
    ]
  : [];

export interface KubectlView {
  readonly clusters: readonly { name: string; cluster: Record<string, unknown> }[] | null;
  readonly users: readonly { name: string; user: Record<string, unknown> }[] | null;
  readonly contexts: readonly { name: string; context: Record<string, unknown> }[] | null;
  readonly 'current-context': string;
}

/** Runs kubectl with a KUBECONFIG value. Throws an error with kubectl's message. */
export function runKubectl(args: readonly string[], env: Record<string, string>, program = kubectl): string {
  return execFileSync(program as string, [...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: '/nonexistent', ...env },
  });
}

/** Returns the merged view as kubectl reads it. */
export function kubectlView(paths: string, program = kubectl): KubectlView {
  return JSON.parse(runKubectl(['config', 'view', '--raw', '-o', 'json'], { KUBECONFIG: paths }, program));
}

/** Returns a generator of numbers in [0, 1), the same in every run. */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
