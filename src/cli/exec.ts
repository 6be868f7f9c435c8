import type { Cluster } from '../discovery/clusters.ts';
import { systemCode, TkaError, UsageError } from '../errors.ts';
import { readKubeconfig } from '../kubeconfig/index.ts';
import { presentable, structured } from '../terminal.ts';
import { cleanText } from '../tka/text.ts';
import type { Context } from './context.ts';
import { allClusters, chooseClusters } from './directory.ts';
import { ClusterAccess } from './exec-access.ts';
import { findKubectl, kubectlArgs, needsCluster, parallelism, readsStdin } from './exec-args.ts';
import { Child, takeSignals } from './exec-child.ts';
import { Capture, LineSplitter, prefixes, writeBytes } from './exec-output.ts';

const MiB = 1024 * 1024;
/** A line that is longer comes in pieces. */
const lineLimit = MiB;
/** What -o json keeps of one stream, and of all together. */
const captureLimit = 16 * MiB;
const captureBudget = 128 * MiB;
const stdinLimit = 64 * MiB;
/** So long a command may take to end after a signal. */
const grace = 2000;
const statuses = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

interface ExecFlags {
  readonly selector?: string;
  readonly parallel?: string;
  readonly output?: 'json';
}

/** What becomes of what one cluster's command prints. */
interface Sink {
  stdout(chunk: Buffer): void;
  stderr(chunk: Buffer): void;
  end(): void;
}

/** `exec [-l SELECTOR | NAME…] -- COMMAND`: runs kubectl against each cluster, several at once. */
export async function exec(
  context: Context,
  names: readonly string[],
  flags: ExecFlags,
  rest: readonly string[] | undefined,
): Promise<void> {
  const args = kubectlArgs(rest);
  const parallel = parallelism(flags.parallel ?? '8');
  if (names.length > 0 && flags.selector !== undefined) throw new UsageError('give either names or a selector');
  const kubectl = findKubectl(context.env);
  const view = await readKubeconfig(context.kubeconfig);
  const clusters = chooseClusters(await allClusters(context, view), names, flags.selector);
  const input = readsStdin(args) ? await readStdin() : undefined;
  const labels = labelsOf(clusters);
  const fleet = new Fleet(new ClusterAccess(context, view, needsCluster(args)), (access, sink) => {
    const env = { ...context.env, KUBECONFIG: access.kubeconfig };
    return new Child(kubectl, [...access.flags, ...args], { env, input, ...sink });
  });
  if (flags.output !== 'json') {
    const report = new Report(labels, () => fleet.end('EPIPE'), context.terminal.warn);
    const codes = await fleet.run(clusters, (_, i) => report.sink(i), parallel);
    const failed = labels.filter((_, i) => codes[i] !== 0);
    if (failed.length > 0) throw failure(failed, labels.length);
    return;
  }
  const budget = { left: captureBudget };
  const captures = clusters.map(() => [new Capture(captureLimit, budget), new Capture(captureLimit, budget)] as const);
  const codes = await fleet.run(
    clusters,
    (_, i) => {
      const [stdout, stderr] = captures[i] as (typeof captures)[number];
      return { stdout: (chunk) => stdout.push(chunk), stderr: (chunk) => stderr.push(chunk), end: () => {} };
    },
    parallel,
  );
  const rows = captures.map(([stdout, stderr], i) => {
    return { cluster: labels[i], exitCode: codes[i], stdout: stdout.text(), stderr: stderr.text() };
  });
  context.terminal.out(await structured('json', rows));
  const cut = labels.filter((_, i) => captures[i]?.some((capture) => capture.cut));
  for (const label of cut) context.terminal.warn(`${label}: its output is cut: it is more than is kept`);
  const failed = labels.filter((label, i) => codes[i] !== 0 || cut.includes(label));
  if (failed.length > 0) throw failure(failed, labels.length);
}

function failure(failed: readonly string[], total: number): TkaError {
  const shown = failed.slice(0, 8).join(', ');
  const more = failed.length > 8 ? ` and ${failed.length - 8} more` : '';
  return new TkaError(`failed on ${failed.length} of ${total} clusters: ${shown}${more}`);
}

/** What clusters are called, clean, and no two alike. */
export function labelsOf(clusters: readonly Cluster[]): string[] {
  const names = clusters.map(({ name }) => cleanText(name, 100) || '?');
  const longer = clusters.map(({ server, apiEndpoint }, i) => {
    const alike = names.filter((name) => name === names[i]).length > 1;
    return alike ? `${names[i]} (${cleanText(new URL(server ?? apiEndpoint).host)})` : (names[i] as string);
  });
  return longer.map((label, i) => (longer.indexOf(label) === i ? label : `${label} #${i + 1}`));
}

/** Prints what commands say, line by line, each with its cluster's name before it. */
class Report {
  readonly #prefixes: readonly Buffer[];
  readonly #labels: readonly string[];
  readonly #gone: () => void;
  readonly #warn: (line: string) => void;
  #dead = new Set<number>();

  constructor(labels: readonly string[], gone: () => void, warn: (line: string) => void) {
    this.#labels = labels;
    this.#prefixes = prefixes(labels).map((prefix) => Buffer.from(prefix));
    this.#gone = gone;
    this.#warn = warn;
  }

  sink(number: number): Sink {
    let warned = false;
    const prefix = this.#prefixes[number] as Buffer;
    const newline = Buffer.from('\n');
    const stream = (fd: 1 | 2) => {
      let ready: Buffer[] = [];
      const splitter = new LineSplitter({
        limit: lineLimit,
        line: (line) => ready.push(prefix, line, newline),
        tooLong: () => {
          if (!warned) this.#warn(`${this.#labels[number]}: a line is longer than 1 MiB: it is printed in pieces`);
          warned = true;
        },
      });
      const print = () => {
        if (ready.length > 0) this.#write(fd, Buffer.concat(ready));
        ready = [];
      };
      return {
        push(chunk: Buffer) {
          splitter.push(chunk);
          print();
        },
        end() {
          splitter.end();
          print();
        },
      };
    };
    const [stdout, stderr] = [stream(1), stream(2)];
    return {
      stdout: stdout.push,
      stderr: stderr.push,
      end() {
        stdout.end();
        stderr.end();
      },
    };
  }

  #write(fd: 1 | 2, bytes: Buffer): void {
    if (this.#dead.has(fd)) return;
    try {
      writeBytes(fd, bytes);
    } catch (error) {
      if (systemCode(error) !== 'EPIPE') throw error;
      this.#dead.add(fd);
      if (fd === 1) this.#gone();
    }
  }
}

type Signal = keyof typeof statuses;

/** Runs a command for each cluster, several at once, and ends them all when it is told to end. */
class Fleet {
  readonly #access: ClusterAccess;
  readonly #start: (access: Awaited<ReturnType<ClusterAccess['of']>>, sink: Sink) => Child;
  readonly #running = new Set<Child>();
  readonly #ended = Promise.withResolvers<never>();
  #why: Signal | 'EPIPE' | undefined;

  constructor(access: ClusterAccess, start: (access: Awaited<ReturnType<ClusterAccess['of']>>, sink: Sink) => Child) {
    this.#access = access;
    this.#start = start;
  }

  /** The exit statuses, in the clusters' order. Throws TkaError once all are ended, where it was told to end. */
  async run(
    clusters: readonly Cluster[],
    sinkOf: (cluster: Cluster, number: number) => Sink,
    parallel: number,
  ): Promise<number[]> {
    const giveBack = takeSignals((signal) => this.end(signal));
    // However this process ends, short of SIGKILL.
    const last = () => {
      for (const child of this.#running) child.kill('SIGKILL');
      this.#access.remove();
    };
    process.on('exit', last);
    const codes: number[] = [];
    const queue = clusters.entries();
    const work = async () => {
      for (const [i, cluster] of queue) {
        const sink = sinkOf(cluster, i);
        codes[i] = await this.#one(cluster, i, sink);
        sink.end();
      }
    };
    try {
      const all = Promise.all(Array.from({ length: Math.min(parallel, clusters.length) }, work));
      await Promise.race([all, this.#ended.promise]);
      // Told to end, they may all have ended by themselves before that is told.
      if (this.#why !== undefined) await this.#ended.promise;
      return codes;
    } finally {
      last();
      process.off('exit', last);
      giveBack();
    }
  }

  /** Ends all commands, for a signal or because nobody reads what they print; for a second time, at once. */
  end(why: Signal | 'EPIPE'): void {
    if (this.#why !== undefined) {
      for (const child of this.#running) child.kill('SIGKILL');
      return;
    }
    this.#why = why;
    const children = [...this.#running];
    for (const child of children) child.kill(why === 'EPIPE' ? 'SIGTERM' : why);
    setTimeout(() => {
      for (const child of children) child.kill('SIGKILL');
    }, grace).unref();
    const error =
      why === 'EPIPE'
        ? new TkaError('nobody reads the output any more: the commands are ended')
        : new TkaError(why === 'SIGINT' ? 'interrupted' : `ended by ${why}`, { exitCode: statuses[why] });
    // What they said last is printed before.
    Promise.all(children.map((child) => child.ended)).then(() => setImmediate(() => this.#ended.reject(error)));
  }

  async #one(cluster: Cluster, number: number, sink: Sink): Promise<number> {
    try {
      if (this.#why !== undefined) return 1;
      const access = await this.#access.of(cluster, number, (line) => say(sink, [`warning: ${line}`]));
      // A signal came meanwhile.
      if (this.#why !== undefined) return 1;
      const child = this.#start(access, sink);
      this.#running.add(child);
      try {
        return await child.ended;
      } finally {
        this.#running.delete(child);
      }
    } catch (error) {
      if (this.#why !== undefined) return 1;
      const known = error instanceof TkaError ? error : new TkaError(`kubectl cannot be run: ${systemCode(error)}`);
      if (known !== error && systemCode(error) === undefined) throw error;
      say(sink, [`error: ${known.message}`, ...known.hints.map((hint) => `hint: ${hint}`)]);
      return 1;
    }
  }
}

function say(sink: Sink, lines: readonly string[]): void {
  sink.stderr(Buffer.from(lines.map((line) => `${presentable(line)}\n`).join('')));
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
