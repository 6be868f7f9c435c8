import { type Cluster, messageAfterName } from '../../discovery/clusters.ts';
import { presentable } from '../../terminal/output.ts';
import { hintsOf, systemCode, TkaError } from '../../util/errors.ts';
import type { KubectlAccess, KubectlConfig } from './access.ts';
import { type Child, takeSignals } from './child.ts';

/** Milliseconds that commands get to end after a signal, before they are killed. */
const grace = 2000;
const statuses = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

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
  readonly #start: (access: KubectlConfig, sink: Sink) => Child;
  readonly #running = new Set<Child>();
  readonly #ended = Promise.withResolvers<never>();
  #why: Signal | 'EPIPE' | undefined;

  constructor(access: KubectlAccess, start: (access: KubectlConfig, sink: Sink) => Child) {
    this.#access = access;
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
        ? new TkaError('the output was closed; the commands were stopped', { hints: ['run it again'] })
        : new TkaError(why === 'SIGINT' ? 'interrupted' : `stopped by ${why}`, { exitCode: statuses[why] });
    // Reject only after the last output.
    Promise.all(children.map((child) => child.ended)).then(() => setImmediate(() => this.#ended.reject(error)));
  }

  async #one(cluster: Cluster, number: number, sink: Sink): Promise<number> {
    try {
      if (this.#why !== undefined) return 1;
      const access = await this.#access.of(cluster, number, (line) => say(sink, [`warning: ${line}`]));
      // A signal arrived in the meantime.
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
      return 1;
    }
  }
}

function say(sink: Sink, lines: readonly string[]): void {
  sink.stderr(Buffer.from(lines.map((line) => `${presentable(line)}\n`).join('')));
}
