// npm run test:tailnet: runs vitest in separate namespaces, where tests can build networks that no packet leaves. The
// kernel ends all processes in them and removes the networks as soon as vitest or this process ends in any way.
// `--obstacle` prints why the tests cannot run here, or nothing.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { assetsObstacle, findAssets } from '../cluster/assets.ts';
import { makeFolder, note } from '../cluster/processes.ts';
import { tailnetAssets, tailnetAssetsObstacle } from './assets.ts';

// `--kill-child`: the end of this process ends the first process in the namespaces, and that ends all others.
const unshare = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];

// Milliseconds. The tests take less than three minutes; a busy machine needs more.
const longest = 900_000;

/** Returns why the tests cannot run here. */
async function findObstacle(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'network namespaces are a feature of Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  // Every kind of network device that the tests create.
  const probe =
    'ip link add tka0 type bridge && ip link add tka1 type veth peer name tka2 && ip tuntap add tka3 mode tun';
  for (const [program, args, missing] of [
    ['ip', ['-V'], 'no ip command (Debian: iproute2)'],
    ['kubectl', ['version', '--client'], 'no kubectl'],
    ['nsenter', ['--version'], 'no nsenter command (Debian: util-linux)'],
    ['unshare', [...unshare, 'true'], 'no network namespaces'],
    ['unshare', [...unshare, 'sh', '-c', probe], 'no bridge, veth or /dev/net/tun in a network namespace'],
    ['unshare', [...unshare, 'mount', '-t', 'tmpfs', 'tailnet', os.tmpdir()], 'no mounts in a mount namespace'],
    ['test', ['-e', '/etc/resolv.conf'], 'no /etc/resolv.conf'],
  ] as const) {
    try {
      execFileSync(program, args, { stdio: 'pipe' });
    } catch (error) {
      const why = String((error as { readonly stderr?: Buffer }).stderr ?? '').trim();
      return why === '' ? missing : `${missing} (${why.split('\n').at(-1)})`;
    }
  }
  return (await assetsObstacle()) ?? (await tailnetAssetsObstacle());
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function run(args: readonly string[]): Promise<number> {
  const obstacle = await findObstacle();
  if (args[0] === '--obstacle') {
    if (obstacle !== undefined) process.stdout.write(`${obstacle}\n`);
    return 0;
  }
  if (obstacle !== undefined) {
    say(`\nTHE TAILNET TESTS ARE SKIPPED: ${obstacle}\n`);
    return 0;
  }
  await findAssets(say);
  await tailnetAssets(say);
  const folder = makeFolder();
  const vitest = path.join(import.meta.dirname, '../../node_modules/vitest/vitest.mjs');
  const config = path.join(import.meta.dirname, 'vitest.config.ts');
  const command = [process.execPath, vitest, 'run', '--config', config, ...args];
  // Temporary files are in memory and disappear with the namespaces, so killed processes leave none behind.
  const script = 'mount -t tmpfs tailnet "$TMPDIR" && exec "$@"';
  const child = spawn('unshare', [...unshare, 'sh', '-c', script, 'sh', ...command], {
    stdio: 'inherit',
    env: { ...process.env, TMPDIR: folder },
  });
  note(`+${child.pid}`);
  const late = setTimeout(() => child.kill('SIGKILL'), longest);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill('SIGKILL'));
  const [status, signal] = await once(child, 'exit');
  clearTimeout(late);
  note(`-${child.pid}`);
  fs.rmSync(folder, { recursive: true, force: true });
  return status ?? 128 + os.constants.signals[signal as NodeJS.Signals];
}

process.exitCode = await run(process.argv.slice(2));
