import type { Cluster } from '../../discovery/clusters.ts';
import { readKubeconfig } from '../../kubeconfig/index.ts';
import { structured } from '../../terminal/output.ts';
import { progressBar, writesSoFar } from '../../terminal/progress.ts';
import { hintsOf, TkaError, UsageError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { KubectlAccess } from '../exec/access.ts';
import { findKubectl, kubectlArgs, parallelism, readsStdin, timeout } from '../exec/args.ts';
import { Child } from '../exec/child.ts';
import { confirmChange } from '../exec/confirm.ts';
import { Capture } from '../exec/output.ts';
import { type CaptureLimits, GroupedOutput, PrefixedOutput } from '../exec/report.ts';
import { Runner } from '../exec/runner.ts';
import { isChanging, needsCluster } from '../exec/verbs.ts';
import { chooseClusters } from '../target/by-name.ts';
import { clustersToUse } from '../target/clusters.ts';

const MiB = 1024 * 1024;
/** How much output -o json and --group keep. */
const captureLimits = (): CaptureLimits => ({ perStream: 16 * MiB, budget: { left: 128 * MiB } });
const stdinLimit = 64 * MiB;

interface ExecFlags {
  readonly selector?: string;
  readonly parallel?: string;
  readonly output?: 'json';
  readonly group?: boolean;
  readonly timeout?: string;
  readonly yes?: boolean;
}

/** Runs `exec [-l SELECTOR | NAME…] -- COMMAND`: runs kubectl for each cluster, several at once. */
export async function exec(
  context: Context,
  names: readonly string[],
  flags: ExecFlags,
  rest: readonly string[] | undefined,
): Promise<void> {
  const args = kubectlArgs(rest);
  const parallel = parallelism(flags.parallel ?? '8');
  const limit = flags.timeout === undefined ? undefined : timeout(flags.timeout);
  if (names.length > 0 && flags.selector !== undefined) throw new UsageError('names and a selector cannot be combined');
  const kubectl = findKubectl(context.env);
  const view = await readKubeconfig(context.kubeconfig);
  const all = await clustersToUse(context, view);
  const clusters = chooseClusters(all, names, flags.selector, view, 'exec');
  const labels = labelsOf(clusters);
  if (clusters.length > 1 && flags.yes !== true && isChanging(args)) await confirmChange(args, labels);
  const input = readsStdin(args) ? await readStdin() : undefined;
  const runner = new Runner(new KubectlAccess(context, view, all, needsCluster(args)), limit, (access, sink) => {
    const env = { ...context.env, KUBECONFIG: access.kubeconfig };
    return new Child(kubectl, [...access.flags, ...args], { env, input, ...sink });
  });
  const run = { runner, clusters, labels, parallel };
  const inText = flags.group === true ? inGroups : inLines;
  const failed = await whileSilent(context, run, () => (flags.output === 'json' ? inJson : inText)(context, run));
  if (failed.length > 0) throw failure(failed, clusters.length);
}

interface Run {
  readonly runner: Runner;
  readonly clusters: readonly Cluster[];
  readonly labels: readonly string[];
  readonly parallel: number;
}

/** Shows how many clusters are done, until the first output. */
function whileSilent<T>({ terminal }: Context, { runner, labels }: Run, task: () => Promise<T>): Promise<T> {
  const before = writesSoFar();
  const text = () => {
    if (writesSoFar() !== before) return '';
    return labels.length === 1 ? `running on ${labels[0]}` : `running ${progressBar(runner.done, labels.length)}`;
  };
  return terminal.waiting(text, task);
}

/** Prints lines as they arrive. Returns the labels of the clusters that failed. */
async function inLines(context: Context, { runner, clusters, labels, parallel }: Run) {
  const output = new PrefixedOutput(labels, () => runner.end('EPIPE'), context.terminal.warn);
  const codes = await runner.run(clusters, (_, i) => output.sink(i), parallel);
  return labels.filter((_, i) => codes[i] !== 0);
}

/** Prints one block per cluster, in the order in which they end. Returns the labels of the clusters that failed. */
async function inGroups(context: Context, { runner, clusters, labels, parallel }: Run) {
  const output = new GroupedOutput(labels, () => runner.end('EPIPE'), captureLimits());
  const codes = await runner.run(clusters, (_, i) => output.sink(i), parallel);
  return failedOrCut(context, labels, codes, output.cut);
}

/** Prints one JSON list at the end. Returns the labels of the clusters that failed. */
async function inJson(context: Context, { runner, clusters, labels, parallel }: Run) {
  const { perStream, budget } = captureLimits();
  const captures = clusters.map(() => [new Capture(perStream, budget), new Capture(perStream, budget)] as const);
  const sinkOf = (_: Cluster, i: number) => {
    const [stdout, stderr] = captures[i] as (typeof captures)[number];
    return { stdout: (chunk: Buffer) => stdout.push(chunk), stderr: (chunk: Buffer) => stderr.push(chunk), end() {} };
  };
  const codes = await runner.run(clusters, sinkOf, parallel);
  const rows = captures.map(([stdout, stderr], i) => {
    return { cluster: labels[i], exitCode: codes[i], stdout: stdout.text(), stderr: stderr.text() };
  });
  context.terminal.out(await structured('json', rows));
  const cut = labels.filter((_, i) => captures[i]?.some((capture) => capture.cut));
  return failedOrCut(context, labels, codes, cut);
}

/** Warns about output that was cut, which counts as a failure. */
function failedOrCut(context: Context, labels: readonly string[], codes: readonly number[], cut: readonly string[]) {
  for (const label of cut) context.terminal.warn(`${label}: output truncated`);
  return labels.filter((label, i) => codes[i] !== 0 || cut.includes(label));
}

function failure(failed: readonly string[], total: number): TkaError {
  const shown = failed.slice(0, 8).join(', ');
  const more = failed.length > 8 ? ` and ${failed.length - 8} more` : '';
  return new TkaError(`failed on ${failed.length} of ${total} clusters: ${shown}${more}`, {
    hints: hintsOf(new TkaError(''), failed[0]),
  });
}

/** Returns a cleaned, unique label for each cluster. */
export function labelsOf(clusters: readonly Cluster[]): string[] {
  const names = clusters.map(({ name }) => cleanText(name, 100) || '?');
  const counts = Map.groupBy(names, (name) => name);
  const taken = new Set<string>();
  return clusters.map(({ server, apiEndpoint }, i) => {
    const name = names[i] as string;
    const alike = (counts.get(name)?.length ?? 0) > 1;
    const label = alike ? `${name} (${cleanText(new URL(server ?? apiEndpoint).host)})` : name;
    const unique = taken.has(label) ? `${label} #${i + 1}` : label;
    taken.add(unique);
    return unique;
  });
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > stdinLimit) throw new TkaError('the input is larger than 64 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
