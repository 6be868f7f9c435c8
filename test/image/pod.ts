// Shared by the image tests: Debian's packages as a root, and a start as in the pod.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, expect } from 'vitest';
import { stringify } from 'yaml';

const release = 'trixie';
const tools = ['mmdebstrap', 'unshare', 'readelf', 'strip'];

/** Returns why the image cannot be made or started here; undefined if it can. */
export function obstacle(...more: string[]): string | undefined {
  if (process.platform !== 'linux') return 'only on Linux';
  if (process.getuid?.() !== 0) return 'root is required';
  const missing = [...tools, ...more].filter((tool) => spawnSync(tool, ['--version']).status !== 0);
  return missing.length > 0 ? `no ${missing.join(', ')}` : undefined;
}

/** Returns the name of a test, with the reason if it is skipped. */
export const named = (what: string, why: string | undefined) => (why === undefined ? what : `${what} (${why})`);
/** Makes a Debian system of an architecture and some packages in a folder that does not exist yet. */
export function debian(into: string, architecture: string, packages: readonly string[], variant: string): void {
  const args = [
    `--architectures=${architecture}`,
    `--variant=${variant}`,
    `--include=${packages.join(',')}`,
    '--dpkgopt=force-unsafe-io',
  ];
  execFileSync('mmdebstrap', [...args, release, into], { stdio: 'pipe' });
}

const running: ChildProcess[] = [];
afterAll(() => {
  for (const { pid } of running) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
});

/** Starts the server in a read-only root, as the image's user, and waits until /healthz answers. */
export async function start(image: string, port: number, program: readonly string[]): Promise<void> {
  const etc = path.join(image, 'etc/tka');
  fs.mkdirSync(etc, { recursive: true });
  const cluster = { server: 'https://127.0.0.1:1', 'certificate-authority-data': '' };
  const kubeconfig = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'it', cluster }],
    users: [{ name: 'it', user: { token: 'none' } }],
    contexts: [{ name: 'it', context: { cluster: 'it', user: 'it' } }],
    'current-context': 'it',
  };
  fs.writeFileSync(path.join(etc, 'kubeconfig'), stringify(kubeconfig));
  fs.writeFileSync(
    path.join(etc, 'config.yaml'),
    stringify({
      clusterInfo: { apiEndpoint: 'https://api.example.com' },
      server: { host: '127.0.0.1' },
      tailscale: { port: port + 1 },
      health: { port },
    }),
  );
  const script = [
    'mount --bind "$0" "$0" && mkdir -p "$0/proc" "$0/dev" && mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev"',
    'mount -o remount,ro,bind "$0"',
    'exec chroot --userspec=65532:65532 "$0" "$@"',
  ].join(' && ');
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', KUBECONFIG: '/etc/tka/kubeconfig' };
  const args = ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script, image, ...program];
  const child = spawn('unshare', [...args, 'serve', '--config', '/etc/tka/config.yaml'], {
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.push(child);
  let said = '';
  const ended = once(child, 'exit').then(() => Promise.reject(new Error(`it ended\n${said}`)));
  const listening = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (text) => {
        said += text;
        if (said.includes('listening for probes')) resolve();
      });
    }
  });
  await Promise.race([listening, ended]);
  const answer = await fetch(`http://127.0.0.1:${port}/healthz`);
  expect(answer.status).toBe(200);
  const user = execFileSync('ps', ['-o', 'uid=', '--ppid', String(child.pid)], { encoding: 'utf8' });
  expect(user.trim()).toBe('65532');
}
