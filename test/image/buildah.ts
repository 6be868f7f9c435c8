// buildah with a separate store, so that images of the machine are neither used nor changed.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';

export class Buildah {
  /** The environment that makes buildah use this store. */
  readonly env: NodeJS.ProcessEnv;

  /** `folder` is for the store. */
  constructor(folder: string) {
    const [store, run, storage] = ['store', 'run', 'storage.conf'].map((name) => path.join(folder, name));
    fs.writeFileSync(storage ?? '', `[storage]\ndriver = "vfs"\ngraphroot = "${store}"\nrunroot = "${run}"\n`);
    this.env = { ...process.env, CONTAINERS_STORAGE_CONF: storage, BUILDAH_ISOLATION: 'chroot' };
  }

  /** Runs buildah and returns its stdout. */
  run(...args: readonly string[]): string {
    return execFileSync('buildah', args, { encoding: 'utf8', env: this.env, maxBuffer: 64e6, stdio: 'pipe' }).trim();
  }

  /** Puts the files of a folder into an image with this name, for an architecture. */
  imageOf(name: string, from: string, architecture = 'amd64'): void {
    const container = this.run('from', '--arch', architecture, 'scratch');
    this.run('copy', container, from, '/');
    this.run('config', '--arch', architecture, container);
    this.run('commit', container, name);
    this.run('rm', container);
  }
}
