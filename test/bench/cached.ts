// The cached path, whole process: the front under each shell, compared with other programs that print a file or a
// cached token.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, formatEntry } from '../../src/credential/entry.ts';

export interface Fixture {
  readonly env: Readonly<Record<string, string>> & { readonly HOME: string; readonly PATH: string };
  readonly front: string;
  /** The cache folder. */
  readonly folder: string;
}

const server = 'https://tka-prod-us.example.ts.net';
const apiServer = 'https://api.prod-us.example.com:6443';
// As long as the tokens that a kube-apiserver signs.
const token = `eyJh.${'x'.repeat(1290)}.c2ln`;

const calls = 20;
const quoted = (words: readonly string[]) => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');

/**
 * Commands by name, each as a script that makes `calls` calls from one small shell. Before each call the shell notes
 * that the entry was served to another process, since a second call by one parent means a refused token.
 */
export function cachedScripts(fixture: Fixture): { calls: number; scripts: [name: string, script: string][] } {
  const { env, front, folder } = fixture;
  const entry = path.join(folder, entryName(server) ?? '');
  const freshUntil = Math.floor(Date.now() / 1000) + 36_000;
  const details = JSON.stringify({ caData: 'x'.repeat(1500) });
  const whole = { server, apiServer, token, freshUntil, details, expirationTimestamp: '2099-01-01T00:00:00Z' };
  fs.writeFileSync(entry, formatEntry(whole), { mode: 0o600 });
  fs.utimesSync(entry, freshUntil, freshUntil);
  const find = (name: string) =>
    env.PATH.split(path.delimiter)
      .map((folder) => path.join(folder, name))
      .find((file) => fs.existsSync(file));
  const args = [front, 'credential', '--server', server, '--api-server', apiServer];
  const commands: [string, (string | undefined)[]][] = [
    ['cat of the entry', [find('cat'), entry]],
    ['gke-gcloud-auth-plugin', [gkePlugin(fixture, find('gke-gcloud-auth-plugin'))]],
    ['sh that does nothing', ['/bin/sh', '-c', ':']],
    ['front under sh', args],
    ['front under dash', [find('dash'), ...args]],
    ['front under bash', [find('bash'), '--posix', ...args]],
    ['front under busybox ash', [find('busybox'), 'sh', ...args]],
    ['front under zsh', [find('zsh'), '--emulate', 'sh', ...args]],
    ['front under ksh', [find('ksh'), ...args]],
    ['front under mksh', [find('mksh'), ...args]],
  ];
  const script = (command: readonly string[]) =>
    `unset KUBECONFIG; n=${calls}; while [ $n -gt 0 ]; do n=$((n - 1)); ` +
    `echo '0 - - -' 1<>${quoted([`${entry}+served`])}; ${quoted(command)} >/dev/null || exit; done`;
  const there = commands.filter((command): command is [string, string[]] => !command[1].includes(undefined));
  return { calls, scripts: there.map(([name, command]) => [name, script(command)]) };
}

/**
 * Returns the plugin's command, its cache in the private HOME filled with our token; undefined if it is missing or
 * would ask Google.
 */
function gkePlugin({ env }: Fixture, file: string | undefined): string | undefined {
  if (file === undefined) return undefined;
  const cache = path.join(env.HOME, '.kube', 'gke_gcloud_auth_plugin_cache');
  const text = { current_context: '', access_token: token, token_expiry: '2099-01-01T00:00:00Z', extra_args: '' };
  fs.mkdirSync(path.dirname(cache), { recursive: true });
  fs.writeFileSync(cache, JSON.stringify(text), { mode: 0o600 });
  try {
    const options = { env: { HOME: env.HOME }, timeout: 10_000, stdio: 'pipe' } as const;
    return execFileSync(file, options).includes(token) ? file : undefined;
  } catch {
    return undefined;
  }
}
