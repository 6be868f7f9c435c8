// A pseudo-terminal without any other program or package: libc's posix_openpt through node:ffi. The program under test
// gets it as its controlling terminal, and what it draws is kept by a small emulator of a terminal.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import type { Readable } from 'node:stream';
import { ReadStream } from 'node:tty';
import { VirtualScreen } from './pty-screen.ts';

interface Libc {
  posix_openpt(flags: number): number;
  grantpt(fd: number): number;
  unlockpt(fd: number): number;
  ptsname(fd: number): bigint;
}

interface Ffi {
  readonly libc: Libc;
  readonly text: (pointer: bigint) => string;
}

async function loadLibc(): Promise<Ffi | undefined> {
  if (process.platform === 'win32') return undefined;
  try {
    const ffi = await import('node:ffi');
    const number = { arguments: ['i32'], return: 'i32' } as const;
    const { functions } = ffi.dlopen(null, {
      posix_openpt: number,
      grantpt: number,
      unlockpt: number,
      ptsname: { arguments: ['i32'], return: 'pointer' },
    } as never);
    return { libc: functions as unknown as Libc, text: (pointer) => ffi.toString(pointer) ?? '' };
  } catch {
    return undefined;
  }
}

// No child must hold it open.
const closeOnExec = process.platform === 'linux' ? 0o2000000 : 0;
const loaded = await loadLibc();
/** Why there is no pseudo-terminal here, for the names of tests that are skipped; empty where there is one. */
export const needsPty = loaded === undefined || !fs.existsSync('/dev/ptmx') ? ' (needs node:ffi and /dev/ptmx)' : '';
export const hasPty = needsPty === '';

/** Milliseconds that something may take to show. On an idle machine all of it takes less than one second. */
const patience = 90_000;

export interface PtyOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly rows?: number;
  readonly columns?: number;
  /** False for a program that draws more than the screen here understands: its output is in `raw` alone. */
  readonly drawn?: boolean;
}

/** A program on a pseudo-terminal: stdin and stderr are the terminal, stdout is a pipe. */
export class Pty {
  readonly screen: VirtualScreen;
  /** All that was written to the terminal. */
  raw = '';
  stdout = '';
  readonly child: ChildProcess;
  /** The exit status, or the signal's name; all output is there by then. */
  readonly ended: Promise<number | string>;
  readonly #master: number;
  readonly #path: string;
  readonly #reader: ReadStream;
  #notes = '';
  #waiting: (() => void)[] = [];

  constructor(file: string, args: readonly string[], options: PtyOptions) {
    if (loaded === undefined) throw new Error('there are no pseudo-terminals here');
    const { libc, text } = loaded;
    this.#master = libc.posix_openpt(fs.constants.O_RDWR | fs.constants.O_NOCTTY | closeOnExec);
    if (this.#master < 0 || libc.grantpt(this.#master) !== 0 || libc.unlockpt(this.#master) !== 0)
      throw new Error('no pseudo-terminal');
    this.#path = text(libc.ptsname(this.#master));
    // Without anybody on the other side, reading would end at once.
    const held = fs.openSync(this.#path, fs.constants.O_RDWR | fs.constants.O_NOCTTY);
    const { rows = 24, columns = 80, drawn = true } = options;
    this.screen = new VirtualScreen(rows, columns);
    this.#stty('rows', String(rows), 'cols', String(columns));
    this.#reader = new ReadStream(this.#master);
    const closed = new Promise<void>((resolve) => {
      // Linux says EIO once nobody has the other side open.
      this.#reader.on('error', () => resolve()).on('end', () => resolve());
    });
    this.#reader.setEncoding('utf8').on('data', (chunk) => {
      this.raw += chunk;
      if (drawn) this.screen.write(String(chunk));
      this.#tell();
    });
    // The leader of a session gets the first terminal that it opens as its controlling one. It outlives the program, so
    // that the terminal can be looked at afterwards.
    const script = `exec 4<>"$PTY"; stty -a <&4 >&3; sh -c 'echo "pid $$" >&3; exec "$@" 3>&-' sh "$@" <&4 2>&4 4<&-
status=$?; echo after >&3; stty -a <&4 >&3; exit $status`;
    this.child = spawn('/bin/sh', ['-c', script, 'sh', file, ...args], {
      env: { ...options.env, PTY: this.#path } as Record<string, string>,
      cwd: options.cwd,
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
    });
    this.child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      this.stdout += chunk;
    });
    (this.child.stdio[3] as Readable).setEncoding('utf8').on('data', (chunk: string) => {
      if (this.#notes === '') fs.closeSync(held);
      this.#notes += chunk;
    });
    this.ended = Promise.all([once(this.child, 'close'), closed]).then(([[code, signal]]) => code ?? signal);
  }

  /** The process ID of the program, once it shows anything. */
  get pid(): number {
    return Number(/^pid (\d+)$/m.exec(this.#notes)?.[1]);
  }

  /** The terminal's settings before and after the program, as `stty -a` tells them. */
  settings(): { readonly before: string | undefined; readonly after: string | undefined } {
    const [before, after] = this.#notes.split(/^pid \d+\nafter\n/m);
    return { before, after };
  }

  /** Types, as a person would. */
  type(keys: string): void {
    fs.writeSync(this.#master, keys);
  }

  resize(rows: number, columns: number): void {
    this.screen.resize(rows, columns);
    this.#stty('rows', String(rows), 'cols', String(columns));
  }

  /** Whether it is in raw mode now. */
  isRaw(): boolean {
    return this.#stty('-a').includes('-icanon');
  }

  /** Waits until the screen shows what is looked for; fails with what it shows after `within` milliseconds. */
  async shows(what: RegExp | ((screen: VirtualScreen) => boolean), within = patience): Promise<void> {
    await this.#until(what, () => (what instanceof RegExp ? what.test(this.screen.text()) : what(this.screen)), within);
  }

  /** Waits until what is looked for was written to the terminal after its first `from` characters; returns the match. */
  async wrote(what: RegExp, from = 0, within = patience): Promise<RegExpExecArray> {
    let match: RegExpExecArray | null = null;
    const holds = () => {
      match = what.exec(this.raw.slice(from));
      return match !== null;
    };
    await this.#until(what, holds, within);
    return match as unknown as RegExpExecArray;
  }

  async #until(what: unknown, holds: () => boolean, within: number): Promise<void> {
    const deadline = AbortSignal.timeout(within);
    while (!holds()) {
      await Promise.race([
        new Promise<void>((resolve) => this.#waiting.push(resolve)),
        once(deadline, 'abort'),
        this.ended,
      ]);
      if (holds()) return;
      if (deadline.aborted || this.child.exitCode !== null || this.child.signalCode !== null)
        throw new Error(
          `in vain waited for ${what}; the screen is\n${this.screen.text()}\nand all output ${JSON.stringify(this.raw)}`,
        );
    }
  }

  /** Ends what still runs. */
  async close(): Promise<void> {
    const { exitCode, signalCode, pid = 0 } = this.child;
    if (exitCode === null && signalCode === null) {
      // A shell with job control has a process group of its own. The hang-up alone does not always end it.
      for (const target of [-this.pid, this.pid, -pid]) {
        try {
          if (Number.isInteger(target) && target !== 0) process.kill(target, 'SIGKILL');
        } catch {
          // It is gone already, or leads no group.
        }
      }
    }
    await this.ended;
    this.#reader.destroy();
  }

  #tell(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #stty(...args: string[]): string {
    const flag = process.platform === 'darwin' ? '-f' : '-F';
    return spawnSync('stty', [flag, this.#path, ...args], { encoding: 'utf8' }).stdout;
  }
}
