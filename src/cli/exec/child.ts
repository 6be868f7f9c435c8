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

/** Runs a program in a process group of its own, so that a signal also reaches its child processes. */
export class Child {
  /** Resolves to the exit status once the program has ended and its streams are closed; 128 + number after a signal. */
  readonly ended: Promise<number>;
  readonly #child: ChildProcess;
  #over = false;
  #killed = false;

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
    // A program can end before it has read all of its input; without a listener, the EPIPE would crash this process.
    child.stdin?.on('error', () => {}).end(options.input);
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => {
        // Node also reports a failed kill here.
        if (child.pid !== undefined) return;
        this.#over = true;
        options.stderr(Buffer.from(`error: cannot run kubectl: ${systemCode(error) ?? error.message}\n`));
        resolve(126);
      });
      child.on('exit', () => this.#killed && this.#closeOutput());
      child.on('close', (code, signal) => {
        this.#over = true;
        resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
      });
    });
  }

  /** Sends a signal to the program and its child processes. */
  kill(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (this.#over || pid === undefined) return;
    if (signal === 'SIGKILL') {
      this.#killed = true;
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) this.#closeOutput();
    }
    try {
      if (posix) process.kill(-pid, signal);
      else this.#child.kill(signal);
    } catch {
      // The program has just ended.
    }
  }

  // A process that left the group can hold the pipes open for ever.
  #closeOutput(): void {
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream?.destroy();
  }
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Replaces the listeners for the signals that end a program. Returns a function that restores them. */
export function takeSignals(act: (signal: (typeof signals)[number]) => void): () => void {
  const before = signals.map((signal) => [signal, process.listeners(signal)] as const);
  // Without any listener, even for a moment, a signal would end this process.
  for (const [signal, listeners] of before) {
    process.on(signal, act);
    for (const listener of listeners) process.removeListener(signal, listener);
  }
  return () => {
    for (const [signal, listeners] of before) {
      for (const listener of listeners) process.on(signal, listener);
      process.removeListener(signal, act);
    }
  };
}
