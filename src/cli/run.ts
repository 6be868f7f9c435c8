// The code behind the entry point. It imports as little as possible before the command is known.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { sayError } from '../terminal/output.ts';
import { hintsOf, TkaError } from '../util/errors.ts';
import { placesOnPath, searchPathOf } from '../util/search-path.ts';

/** Runs a command line (without program and script), prints errors, and returns the exit status. */
export async function run(args: readonly string[], command: string, env: NodeJS.ProcessEnv): Promise<number> {
  let words = args;
  try {
    // kubectl waits for `credential`, and scripts for `version`: skip loading the other commands' flags and help.
    if (args[0] === 'credential' && !args.some((arg) => arg === '--help' || arg === '-h')) {
      const { credential } = await import('./commands/credential.ts');
      await credential(args.slice(1), env);
      return 0;
    }
    if (args.length === 1 && (args[0] === 'version' || args[0] === '--version')) {
      const { version } = await import('./commands/version.ts');
      await version(undefined);
      return 0;
    }
    const { commandLine, runCommand } = await import('./main.ts');
    words = commandLine(args).words;
    return await runCommand(args, command, env);
  } catch (error) {
    return crashed(error, words, env, await clusterNames(error, words, env));
  }
}

/**
 * Returns a function that puts cluster names into the hints of an error; undefined if no hint has a URL. Never throws.
 */
async function clusterNames(
  error: unknown,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<((hint: string) => string) | undefined> {
  if (!(error instanceof TkaError)) return undefined;
  // Read the last lists only if they are needed: they can be long.
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

/** Prints an uncaught error and returns the exit status. `named` puts cluster names into hints. */
export function crashed(
  error: unknown,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  named?: (hint: string) => string,
): number {
  const debug = args.includes('--debug') || /^(?:1|t|true)$/i.test(env.TKA_DEBUG ?? '');
  return sayError(error, debug, lastResort(error, args), named);
}

/** Returns the hint for an error that has none of its own. */
function lastResort(error: unknown, [command = '', name, server]: readonly string[]): string {
  const isCommand = /^[a-z]+$/.test(command);
  if (!(error instanceof TkaError) || error.exitCode > 2) return 'run it again';
  if (error.exitCode === 2) return `kubectl tka ${isCommand ? `${command} ` : ''}--help`;
  if (command === 'doctor') return 'run it again with --debug';
  const takesName = /^(?:login|logout|forget|use|exec|shell)$/.test(command);
  // Contexts call it as: credential --server URL --api-server URL.
  const about = command === 'credential' && name === '--server' ? server : takesName ? name : undefined;
  return hintsOf(error, about?.startsWith('-') === false ? about : undefined)[0] ?? '';
}

/** Returns the absolute path this program was started with, symlinks unresolved. Looks a bare name up on PATH. */
export function startedAs(started: string, env: NodeJS.ProcessEnv): string {
  if (path.basename(started) !== started) return path.resolve(started);
  // On Windows, users type the name without its suffix.
  const names = process.platform === 'win32' ? [started, `${started}.exe`] : [started];
  return placesOnPath(names, searchPathOf(env)).find((file) => fs.existsSync(file)) ?? path.resolve(started);
}
