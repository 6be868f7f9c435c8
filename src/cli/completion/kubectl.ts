// Completes a kubectl command line by asking kubectl, as its own scripts do: `kubectl __complete WORD... CURRENT`.
import { spawnSync } from 'node:child_process';
import { devNull } from 'node:os';
import { findKubectl } from '../exec/args.ts';
import { verbOf } from '../exec/verbs.ts';
import type { Completion } from './known.ts';

/** In milliseconds. kubectl may ask the cluster. */
const patience = 5000;

/** kubectl's answer. */
interface Answer {
  readonly candidates: readonly Completion[];
  /** Bits of cobra's ShellCompDirective. */
  readonly directive: number;
}

// Bits of cobra's ShellCompDirective: an error, nospace, nofiles, and candidates that are endings of file names.
const failed = 1;
const passedOn = 2 | 4;
const fileEndings = 8 | 16;

// Names from a cluster are untrusted: none that a shell would evaluate or split.
const plain = /^(?:--?)?[\p{L}\p{N}_./][\p{L}\p{N}_.:@/+,-]*=?$/u;

/**
 * Returns kubectl's candidates for the last word; undefined for names of files, or without kubectl. `context` is the
 * context to complete with; without one, kubectl knows of no cluster, because those of the current context would be
 * wrong.
 */
export function askKubectl(
  words: readonly string[],
  context: string | undefined,
  kubeconfig: string | undefined,
  env: NodeJS.ProcessEnv,
): Answer | undefined {
  const given = words[0] === 'kubectl' && words.length > 1 ? words.slice(1) : words;
  const verb = verbOf(given.slice(0, -1));
  const isPlaced = context !== undefined && verb !== undefined;
  // Not before the command: `kubectl __complete --context X ge` fails.
  const at = (verb?.at ?? 0) + 1;
  const args = isPlaced ? [...given.slice(0, at), `--context=${context}`, ...given.slice(at)] : given;
  const file = kubectlOf(env);
  if (file === undefined) return undefined;
  const config = isPlaced ? kubeconfig : devNull;
  const { stdout, status } = spawnSync(file, ['__complete', ...args], {
    encoding: 'utf8',
    env: config === undefined ? env : { ...env, KUBECONFIG: config },
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: patience,
    killSignal: 'SIGKILL',
    windowsHide: true,
  });
  const lines = status === 0 ? stdout.split('\n').slice(0, -1) : [];
  const directive = Number(/^:(\d+)$/.exec(lines.pop() ?? '')?.[1] ?? Number.NaN);
  if (Number.isNaN(directive) || (directive & (failed | fileEndings)) !== 0) return undefined;
  const rows = lines.map((line): Completion => {
    const [text = '', about = ''] = line.split('\t');
    return [text, about];
  });
  const candidates = rows.filter(([text]) => plain.test(text) && !text.startsWith('_activeHelp_'));
  return { candidates, directive: directive & passedOn };
}

function kubectlOf(env: NodeJS.ProcessEnv): string | undefined {
  try {
    return findKubectl(env);
  } catch {
    return undefined;
  }
}
