import { type Cluster, messageAfterName } from '../../discovery/clusters.ts';
import { presentable } from '../../terminal/output.ts';
import { formatGoDuration } from '../../util/duration.ts';
import { hintsOf, systemCode, TkaError } from '../../util/errors.ts';
import type { KubectlAccess, KubectlConfig } from './access.ts';
import { type Child, takeSignals } from './child.ts';

/** Milliseconds that commands get to end after a signal, before they are killed. */
const grace = 2000;
const statuses = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
/** What a shell reports for a program whose reader closed the pipe: 128 + SIGPIPE. */
const brokenPipe = 141;
/** The exit status of a command that ran out of time, as in timeout(1). */
const timedOut = 124;

/** Receives the output of one cluster's command. */
export interface Sink {
  stdout(chunk: Buffer): void;
  stderr(chunk: Buffer): void;
  end(): void;
}

type Signal = keyof typeof statuses;

/** Runs a command for each cluster, several at once. Ends all of them on a signal or end(). */
export class Runner {
  readonly #access: KubectlAccess;
  readonly #timeout: number | undefined;
  readonly #start: (access: KubectlConfig, sink: Sink) => Child;
  /** The number of clusters that are done. */
  done = 0;
  readonly #running = new Set<Child>();
  readonly #ended = Promise.withResolvers<never>();
  #why: Signal | 'EPIPE' | undefined;

  /** `timeout` is the limit for one cluster, sign-in included, in milliseconds. */
  constructor(access: KubectlAccess, timeout: number | undefined, start: (access: KubectlConfig, sink: Sink) => Child) {
    this.#access = access;
    this.#timeout = timeout;
    this.#start = start;
  }

  /**
   * Returns the exit statuses in the order of the clusters. After a signal or end(), throws TkaError once all have
   * ended.
   */
  async run(
    clusters: readonly Cluster[],
    sinkOf: (cluster: Cluster, number: number) => Sink,
    parallel: number,
  ): Promise<number[]> {
    const giveBack = takeSignals((signal) => this.end(signal));
    // Covers every end of this process except SIGKILL.
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
        this.done++;
      }
    };
    try {
      const all = Promise.all(Array.from({ length: Math.min(parallel, clusters.length) }, work));
      await Promise.race([all, this.#ended.promise]);
      // All commands may have ended by themselves between end() and its rejection.
      if (this.#why !== undefined) await this.#ended.promise;
      return codes;
    } finally {
      last();
      process.off('exit', last);
      giveBack();
    }
  }

  /** Ends all commands, after a signal or because stdout is closed. A second call kills them. */
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
        ? new TkaError('the reader of the output closed it', { exitCode: brokenPipe, heard: true })
        : new TkaError(why === 'SIGINT' ? 'interrupted' : `stopped by ${why}`, { exitCode: statuses[why] });
    // Reject only after the last output.
    Promise.all(children.map((child) => child.ended)).then(() => setImmediate(() => this.#ended.reject(error)));
  }

  async #one(cluster: Cluster, number: number, sink: Sink): Promise<number> {
    const limit = new Limit(this.#timeout);
    try {
      if (this.#why !== undefined) return 1;
      const warn = (line: string) => limit.isOver || say(sink, [`warning: ${line}`]);
      const access = await Promise.race([this.#access.of(cluster, number, warn), limit.passed]);
      // A signal arrived in the meantime.
      if (this.#why !== undefined) return 1;
      const child = this.#start(access, sink);
      this.#running.add(child);
      limit.ends(child);
      try {
        const status = await child.ended;
        // Its last output is printed before the error.
        return limit.isOver ? await limit.passed : status;
      } finally {
        this.#running.delete(child);
      }
    } catch (error) {
      if (this.#why !== undefined) return 1;
      const known =
        error instanceof TkaError
          ? error
          : new TkaError(`cannot run kubectl: ${systemCode(error)}`, {
              hints: ['kubectl tka doctor'],
            });
      if (known !== error && systemCode(error) === undefined) throw error;
      say(sink, [
        `error: ${messageAfterName(known)}`,
        ...hintsOf(known, cluster.name).map((hint) => `hint: ${this.#access.inHint(hint)}`),
      ]);
      return limit.isOver ? timedOut : 1;
    } finally {
      limit.clear();
    }
  }
}

/** The time limit of one cluster. */
class Limit {
  /** Rejects with a TkaError when the time is over. */
  readonly passed: Promise<never>;
  isOver = false;
  readonly #timers: NodeJS.Timeout[] = [];
  #child: Child | undefined;

  /** `ms` is undefined for no limit. */
  constructor(ms: number | undefined) {
    const { promise, reject } = Promise.withResolvers<never>();
    this.passed = promise;
    promise.catch(() => {});
    if (ms === undefined) return;
    const over = () => {
      this.isOver = true;
      this.#child?.kill('SIGTERM');
      this.#timers.push(setTimeout(() => this.#child?.kill('SIGKILL'), grace));
      reject(new TkaError(`timed out after ${formatGoDuration(ms)}`, { hints: ['allow more time with --timeout'] }));
    };
    this.#timers.push(setTimeout(over, ms));
  }

  /** Ends this command when the time is over. */
  ends(child: Child): void {
    this.#child = child;
    if (this.isOver) child.kill('SIGTERM');
  }

  clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}

function say(sink: Sink, lines: readonly string[]): void {
  sink.stderr(Buffer.from(lines.map((line) => `${presentable(line)}\n`).join('')));
}
