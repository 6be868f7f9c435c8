// What the entry point calls: as little as there must be before the command is known.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { sayError } from '../terminal/output.ts';
import { hintsOf, TkaError } from '../util/errors.ts';
import { placesOnPath, searchPathOf } from '../util/search-path.ts';

/** Runs a command line (without program and script), says what goes wrong, and returns the exit status. */
export async function run(args: readonly string[], command: string, env: NodeJS.ProcessEnv): Promise<number> {
  try {
    // kubectl waits for this one, and scripts for `version`: they need none of the others' flags and help.
    if (args[0] === 'credential' && !args.some((arg) => arg === '--help' || arg === '-h')) {
      const { credential } = await import('./commands/credential.ts');
      await credential(args.slice(1), env);
      return 0;
    }
    if (args.length === 1 && args[0] === 'version') {
      const { version } = await import('./commands/version.ts');
      await version(undefined);
      return 0;
    }
    const { runCommand } = await import('./main.ts');
    return await runCommand(args, command, env);
  } catch (error) {
    return crashed(error, args, env, await clusterNames(error, args, env));
  }
}

/** What puts names of clusters into the hints of an error; undefined where none has a URL. Never throws. */
async function clusterNames(
  error: unknown,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<((hint: string) => string) | undefined> {
  if (!(error instanceof TkaError)) return undefined;
  // The last lists may be long.
  if (![...error.hints, lastResort(error, args)].some((hint) => hint.includes('://'))) return undefined;
  try {
    const [{ findPaths }, { ListMemory }, { RememberedClusters }] = await Promise.all([
      import('../settings/paths.ts'),
      import('../discovery/memory.ts'),
      import('./context/remembered.ts'),
    ]);
    const clusters = new RememberedClusters(new ListMemory((await findPaths(env)).state));
    return (hint) => clusters.inHint(hint);
  } catch {
    return undefined;
  }
}

/** Says what nobody caught; returns the exit status. `named` puts names of clusters into hints. */
export function crashed(
  error: unknown,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  named?: (hint: string) => string,
): number {
  const debug = args.includes('--debug') || /^(?:1|t|true)$/i.test(env.TKA_DEBUG ?? '');
  return sayError(error, debug, lastResort(error, args), named);
}

/** What to type after an error that has no hint of its own. */
function lastResort(error: unknown, [command = '', name, server]: readonly string[]): string {
  const isCommand = /^[a-z]+$/.test(command);
  if (!(error instanceof TkaError) || error.exitCode > 2) return 'run it again';
  if (error.exitCode === 2) return `kubectl tka ${isCommand ? `${command} ` : ''}--help`;
  if (command === 'doctor') return 'run it again with --debug';
  const takesName = /^(?:login|logout|forget|use|exec)$/.test(command);
  // As a context calls it: credential --server URL --api-server URL.
  const about = command === 'credential' && name === '--server' ? server : takesName ? name : undefined;
  return hintsOf(error, about?.startsWith('-') === false ? about : undefined)[0] ?? '';
}

/** The absolute path by which this program was started, links unresolved: looked up on PATH where it is a bare name. */
export function startedAs(started: string, env: NodeJS.ProcessEnv): string {
  if (path.basename(started) !== started) return path.resolve(started);
  // On Windows a name is typed without its suffix.
  const names = process.platform === 'win32' ? [started, `${started}.exe`] : [started];
  return placesOnPath(names, searchPathOf(env)).find((file) => fs.existsSync(file)) ?? path.resolve(started);
}
