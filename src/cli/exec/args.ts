import { goDuration } from '../../util/duration.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { isExecutable, placesOnPath, searchPathOf } from '../../util/search-path.ts';
import { quoted } from '../../util/text.ts';

const example = 'kubectl tka exec -l environment=production -- get pods -A';

// `-s` can follow flags without a value: `-As`.
const astray = /^(?:--(?:context|kubeconfig|server|token|user|cluster)(?:=|$)|-[AhLRiqtw]*s)/;

/**
 * Returns the arguments for kubectl: everything after `--` on our command line. Throws UsageError if there is no
 * command, or if a flag of kubectl would select another cluster.
 */
export function kubectlArgs(rest: readonly string[] | undefined): readonly string[] {
  if (rest === undefined) throw new UsageError('exec requires -- followed by a kubectl command', { hints: [example] });
  const args = rest[0] === 'kubectl' ? rest.slice(1) : rest;
  if (args.length === 0) throw new UsageError('no kubectl command after --', { hints: [example] });
  const inner = args.indexOf('--');
  const own = inner < 0 ? args : args.slice(0, inner);
  const flag = own.find((arg) => astray.test(arg) && !(isUserFlag(arg) && grantsToUsers(own)));
  if (flag === undefined) return args;
  const name = flag.startsWith('--') ? flag.replace(/=.*/s, '') : '-s';
  throw new UsageError(`${name} cannot be used: exec sets the cluster itself`, {
    hints: ['select clusters by name or with -l, before the --'],
  });
}

const isUserFlag = (arg: string): boolean => /^--user(?:=|$)/.test(arg);

// In these commands, `--user` is the user who gets the role.
function grantsToUsers(args: readonly string[]): boolean {
  const words = args.filter((arg) => !arg.startsWith('-'));
  return words.some((word, i) => /^(?:create (?:cluster)?rolebinding|set subject)$/.test(`${word} ${words[i + 1]}`));
}

/** Returns whether kubectl reads from stdin: `apply -f -`. */
export function readsStdin(args: readonly string[]): boolean {
  const inner = args.indexOf('--');
  const own = inner < 0 ? args : args.slice(0, inner);
  return own.some((arg) => /^(?:-|-f=?-|--filename=-)$/.test(arg));
}

/** Parses --parallel, the maximum number of concurrent commands (1 to 100). Throws UsageError. */
export function parallelism(text: string): number {
  const number = /^[0-9]{1,3}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= 100) return number;
  throw new UsageError('--parallel must be a number from 1 to 100');
}

/** Parses --timeout, a Go duration, and returns milliseconds. Throws UsageError. */
export function timeout(text: string): number {
  const ms = goDuration(text);
  // Node's timers take at most 2^31 - 1 milliseconds.
  if (ms !== undefined && ms > 0 && ms < 2 ** 31) return ms;
  throw new UsageError(`invalid --timeout ${quoted(text, 40)}`, { hints: ['a duration: 30s, 5m, 1h30m'] });
}

/** Returns the path of the kubectl on PATH. Throws TkaError if there is none. */
export function findKubectl(env: NodeJS.ProcessEnv): string {
  const windows = process.platform === 'win32';
  const names = windows ? ['kubectl.exe', 'kubectl.com'] : ['kubectl'];
  const found = placesOnPath(names, searchPathOf(env)).find(isExecutable);
  if (found !== undefined) return found;
  throw new TkaError('kubectl is not on PATH', { hints: ['install it: https://kubernetes.io/docs/tasks/tools/'] });
}
