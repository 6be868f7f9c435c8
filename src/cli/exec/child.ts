import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { systemCode } from '../../util/errors.ts';

const posix = process.platform !== 'win32';

export interface ChildOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly input: Buffer | undefined;
  readonly stdout: (chunk: Buffer) => void;
  readonly stderr: (chunk: Buffer) => void;
}

/** A program in a process group of its own, so that all that it starts can be ended with it. */
export class Child {
  /** The exit status once the program has ended and its streams are closed; 128 and the number for a signal. */
  readonly ended: Promise<number>;
  readonly #child: ChildProcess;
  #over = false;

  constructor(file: string, args: readonly string[], options: ChildOptions) {
    const child = spawn(file, args, {
      env: options.env,
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      detached: posix,
      windowsHide: true,
    });
    this.#child = child;
    child.stdout?.on('data', options.stdout);
    child.stderr?.on('data', options.stderr);
    // A program may end without reading all of its input.
    child.stdin?.on('error', () => {}).end(options.input);
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => {
        // A kill that fails is reported here too.
        if (child.pid !== undefined) return;
        this.#over = true;
        options.stderr(Buffer.from(`error: cannot run kubectl: ${systemCode(error) ?? error.message}\n`));
        resolve(126);
      });
      child.on('close', (code, signal) => {
        this.#over = true;
        resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
      });
    });
  }

  /** Sends a signal to the program and all that it has started. */
  kill(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (this.#over || pid === undefined) return;
    try {
      if (posix) process.kill(-pid, signal);
      else this.#child.kill(signal);
    } catch {
      // It has just ended.
    }
  }
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Replaces the listeners of the signals that end a program; returns what restores them. */
export function takeSignals(act: (signal: (typeof signals)[number]) => void): () => void {
  const before = signals.map((signal) => [signal, process.listeners(signal)] as const);
  for (const signal of signals) process.removeAllListeners(signal).on(signal, act);
  return () => {
    for (const [signal, listeners] of before) {
      process.removeListener(signal, act);
      for (const listener of listeners) process.on(signal, listener);
    }
  };
}
