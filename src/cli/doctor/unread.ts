import * as fs from 'node:fs';
import { findPaths, type Paths } from '../../settings/paths.ts';
import { badConfiguration } from '../../settings/settings.ts';
import { openTerminal } from '../../terminal/output.ts';
import type { TkaError } from '../../util/errors.ts';
import { askTailnet } from '../context/connect.ts';
import type { CommonFlags } from '../context/context.ts';
import { Checks, checkNames, dependsOn, failed } from './check.ts';
import { checkCache, checkKubectl, checkPath, checkTailscaled } from './machine.ts';
import { type Diagnosis, showReport } from './print.ts';

/**
 * Runs `doctor` without settings; `problem` says why they cannot be read. Always throws TkaError, as that check fails.
 */
export async function doctorWithoutSettings(
  problem: TkaError,
  flags: CommonFlags & { readonly output?: 'json' },
  command: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const terminal = openTerminal({ debug: flags.debug === true, quiet: flags.quiet === true });
  const paths = await findPaths(env);
  const report = await examineWithoutSettings(problem, { paths, command, env, file: flags.config, log: terminal.log });
  await showReport({ terminal, env }, report, flags.output);
}

/** Runs the checks that need no settings. */
export async function examineWithoutSettings(
  problem: TkaError,
  machine: {
    readonly paths: Paths;
    readonly command: string;
    readonly env: NodeJS.ProcessEnv;
    /** The value of --config. */
    readonly file?: string | undefined;
    readonly log: (line: string) => void;
  },
): Promise<Diagnosis> {
  const { paths, command, env, log } = machine;
  const checks = new Checks();
  const kubectl = checkKubectl(env);
  checks.set('configuration', failed(inOneLine(problem), problem.hints[0] ?? mend(problem, machine.file, paths)));
  checks.set('tailscaled', await checkTailscaled(() => askTailnet(env, { log }), 'tag:tka'));
  checks.set('kubectl', await kubectl);
  checks.set('path', checkPath(env, command));
  checks.set('cache', checkCache(paths, env));
  checks.setRest(checkNames, dependsOn('configuration'));
  return { cluster: null, checks: checks.list() };
}

// Drops the words that the check's name already says.
function inOneLine({ message }: TkaError): string {
  return message
    .split('\n')
    .map((line) => (line.startsWith(badConfiguration) ? line.slice(badConfiguration.length) : line))
    .join('; ');
}

function mend({ message }: TkaError, named: string | undefined, paths: Paths): string | undefined {
  const variable = /: (TKA_[A-Z_]+)=/.exec(message)?.[1];
  if (variable !== undefined) return `unset ${variable}`;
  const file = named ?? paths.configs.find((each) => fs.existsSync(each));
  return file && `"$EDITOR" ${JSON.stringify(file)}`;
}
