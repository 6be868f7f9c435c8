// Processes that cannot outlive the test process, and a folder for them.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { TemporaryFolder } from '../fixtures/temporary.ts';

let reaper: ChildProcess | undefined;

/** `+PID` and `/FOLDER` are killed and removed when this process ends; `-PID` cancels the first. */
export function note(line: string): void {
  if (reaper === undefined) {
    // In its own process group, so that Ctrl-C does not stop it.
    const script = path.join(import.meta.dirname, 'reaper.ts');
    reaper = spawn(process.execPath, [script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    reaper.stdin?.on('error', () => undefined);
    reaper.unref();
    (reaper.stdin as unknown as { unref(): void }).unref();
  }
  reaper.stdin?.write(`${line}\n`);
}

/** Makes a folder that is removed when this process ends. */
export function makeFolder(): string {
  const folder = new TemporaryFolder('tka-cluster-').path;
  note(folder);
  return folder;
}

/** A started process, with its output in a file. */
export interface Running {
  readonly pid: number;
  /** Rejects with the last of its output if it ends before it is stopped. */
  readonly ended: Promise<never>;
  /** Stops it; resolves when it has ended. Default: SIGTERM, and SIGKILL after 10 s. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts a program, which ends with this process at the latest. */
export function start(program: string, args: readonly string[], logFile: string): Running {
  const log = fs.openSync(logFile, 'a');
  const child = spawn(program, args, { stdio: ['ignore', log, log] });
  fs.closeSync(log);
  const { pid } = child;
  if (pid === undefined) throw new Error(`${program} did not start`);
  note(`+${pid}`);
  const exited = once(child, 'exit').then(() => note(`-${pid}`));
  let stopping = false;
  const ended = exited.then((): never => {
    const output = fs.readFileSync(logFile, 'utf8').slice(-4000);
    throw new Error(`${path.basename(program)} ended${stopping ? '' : ' by itself'}\n${stopping ? '' : output}`);
  });
  ended.catch(() => undefined);
  return {
    pid,
    ended,
    async stop(signal = 'SIGTERM') {
      stopping = true;
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      const hard = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await exited;
      clearTimeout(hard);
    },
  };
}
