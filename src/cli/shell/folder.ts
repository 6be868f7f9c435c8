// The folder of a shell's kubeconfig: `~/.local/state/kubectl-tka/shells/4711.0a1b2c3d.5e6f708192a3`. Not in TMPDIR,
// which systems clean after some days, while a shell can be open for weeks.
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { systemCode, TkaError } from '../../util/errors.ts';
import { ensurePrivateFolder, uniqueName } from '../../util/files.ts';
import { fateOf, thisProcess } from '../../util/processes.ts';
import type { Context } from '../context/context.ts';
import { fileName, folderShape, inTemporary } from '../contexts/in-shell.ts';

/** Milliseconds after which the folder of a process on another machine or before a reboot is removed. */
const longest = 30 * 24 * 3_600_000;

/** Makes a private folder and returns the path for the kubeconfig in it. Throws TkaError. */
export function makeShellFolder({ paths, terminal }: Pick<Context, 'paths' | 'terminal'>): string {
  const folder = paths.state === undefined ? undefined : path.join(paths.state, 'shells');
  if (folder !== undefined && !folder.includes(path.delimiter)) {
    try {
      ensurePrivateFolder(path.dirname(folder));
      ensurePrivateFolder(folder);
      removeLeftovers(folder);
      const { pid, space } = thisProcess();
      const own = path.join(folder, `${pid}.${space || '00000000'}.${uniqueName()}`);
      fs.mkdirSync(own, { mode: 0o700 });
      return path.join(own, fileName);
    } catch (error) {
      terminal.log(`cannot write to ${folder}: ${systemCode(error) ?? error}`);
    }
  }
  return path.join(temporaryFolder(), fileName);
}

function temporaryFolder(): string {
  const parent = os.tmpdir();
  // KUBECONFIG is a list of paths.
  if (parent.includes(path.delimiter)) {
    throw new TkaError(`the kubeconfig of a shell needs a path without ${JSON.stringify(path.delimiter)}`, {
      hints: ['set TMPDIR'],
    });
  }
  try {
    return fs.mkdtempSync(path.join(parent, inTemporary));
  } catch (cause) {
    throw new TkaError(`no directory for temporary files: ${systemCode(cause)}`, { cause, hints: ['set TMPDIR'] });
  }
}

/** Removes the folders of killed processes. */
function removeLeftovers(folder: string): void {
  for (const name of fs.readdirSync(folder)) {
    const [, pid, space = ''] = folderShape.exec(name) ?? [];
    if (pid === undefined) continue;
    const leftover = path.join(folder, name);
    const fate = fateOf({ space, pid: Number(pid), start: undefined });
    try {
      const isOld = fate === 'unknown' && Date.now() - fs.lstatSync(leftover).mtimeMs > longest;
      if (fate === 'gone' || isOld) fs.rmSync(leftover, { recursive: true, force: true });
    } catch {
      // Best effort: another shell may be removing it.
    }
  }
}

/** Removes the kubeconfig of a shell and its folder. Never throws. */
export function removeShellFolder(file: string): void {
  try {
    fs.rmSync(path.dirname(file), { recursive: true, force: true });
  } catch {
    // The next shell removes it. It holds no secret.
  }
}
