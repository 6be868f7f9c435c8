// tailscaled and the tailnet's control plane, from the Go module in this folder.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type Build, buildOnce, findBuilt, go } from '../cluster/assets.ts';

const folder = import.meta.dirname;
const sources = ['go.mod', 'go.sum', 'main.go'];

// `tailscale` is the same program under TS_BE_CLI. Without unneeded features it builds in half the time.
const tags = [
  'ts_include_cli',
  ...[
    ...['appconnectors', 'aws', 'bird', 'captiveportal', 'capture', 'clientupdate', 'cloud', 'completion'],
    ...['completion_scripts', 'conn25', 'desktop_sessions', 'drive', 'identityfederation', 'kube', 'linkspeed'],
    ...['networkmanager', 'qrcodes', 'relayserver', 'resolved', 'sdnotify', 'ssh', 'synology', 'syspolicy', 'systray'],
    ...['taildrop', 'tap', 'tpm', 'wakeonlan', 'webbrowser', 'webclient'],
  ].map((feature) => `ts_omit_${feature}`),
];

const hash = createHash('sha256').update(tags.join());
for (const name of sources) hash.update(fs.readFileSync(path.join(folder, name)));

const build: Build<'tailscaled' | 'tailnet-control'> = {
  folder: `tailnet-${hash.digest('hex').slice(0, 12)}`,
  names: ['tailscaled', 'tailnet-control'],
  what: 'tailscaled and a control plane',
  async make(bin) {
    const flags = ['-trimpath', '-ldflags', '-s -w', '-tags', tags.join()];
    const packages = ['tailscale.com/cmd/tailscaled', '.'];
    await go(['build', ...flags, '-o', `${bin}${path.sep}`, ...packages], { cwd: folder, mod: 'readonly' });
  },
};

/** Finds or builds the programs. Throws if a build fails. */
export const tailnetAssets = (say: (line: string) => void) => buildOnce(build, say);

/** Returns why the programs are missing and cannot be built. */
export async function tailnetAssetsObstacle(): Promise<string | undefined> {
  if (findBuilt(build) !== undefined) return undefined;
  try {
    // Fails if go is older than go.mod requires.
    await go(['list', '-m'], { cwd: folder, mod: 'readonly' });
    return undefined;
  } catch (error) {
    const why = (error as Error).message.trim().split('\n').at(-1) ?? '';
    return `no tailscaled, and no go to build it with (${why})`;
  }
}
