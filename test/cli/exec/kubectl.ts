// Stand-ins that do what a real kubectl does rarely.
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Home } from '../../fixtures/home.ts';
import type { Env } from '../../fixtures/program.ts';

/** Returns an environment in which a shell script is the kubectl. */
export function withKubectl(home: Home, script: string): Env {
  const folder = path.join(home.root, 'kubectl');
  home.write(path.join(folder, 'kubectl'), `#!/bin/sh\n${script}\n`, 0o755);
  const [own, ...others] = (home.env.PATH ?? '').split(path.delimiter);
  return { PATH: [own, folder, ...others].join(path.delimiter) };
}

/** Returns the command lines of the processes with this HOME. */
export function processesOf(home: Home): string[] {
  const read = (file: string) => {
    try {
      return fs.readFileSync(file, 'latin1');
    } catch {
      return '';
    }
  };
  const ids = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const ours = ids.filter((id) => read(`/proc/${id}/environ`).split('\0').includes(`HOME=${home.dir}`));
  // A process that has ended but is not reaped yet has no command line.
  return ours.map((id) => read(`/proc/${id}/cmdline`).replaceAll('\0', ' ')).filter((line) => line !== '');
}
