import { type ChildProcess, spawn } from 'node:child_process';
import { constants, userInfo } from 'node:os';
import { systemCode, TkaError } from '../../util/errors.ts';
import { isExecutable, placesOnPath, searchPathOf } from '../../util/search-path.ts';
import { takeSignals } from '../exec/child.ts';

/** Milliseconds that a shell gets to end after a signal, before it is killed. */
const grace = 2000;
const windows = process.platform === 'win32';

/** Returns the user's shell: $SHELL, else that of the user database; on Windows PowerShell, else the command prompt. */
export function userShell(env: NodeJS.ProcessEnv): string {
  if (windows) {
    const found = placesOnPath(['pwsh.exe', 'powershell.exe'], searchPathOf(env)).find(isExecutable);
    return found ?? (env.ComSpec || 'cmd.exe');
  }
  if (env.SHELL) return env.SHELL;
  try {
    return userInfo().shell || '/bin/sh';
  } catch {
    return '/bin/sh';
  }
}

/**
 * Runs a program on this terminal and returns its exit status; 128 + number after a signal. `isShell` means an
 * interactive shell. Throws TkaError if it cannot be started.
 */
export async function runOnTerminal(
  [file = '', ...args]: readonly string[],
  env: NodeJS.ProcessEnv,
  isShell: boolean,
): Promise<number> {
  let child: ChildProcess | undefined;
  // Ctrl-C and Ctrl-\ reach the program by the terminal. Before it starts: a shell that outlives us would keep the terminal.
  const giveBack = takeSignals((signal) => {
    if (signal === 'SIGINT') return;
    // Interactive shells ignore SIGTERM.
    child?.kill(isShell && !windows ? 'SIGHUP' : signal);
    setTimeout(() => child?.kill('SIGKILL'), grace).unref();
  });
  const ignore = () => {};
  if (!windows) process.on('SIGQUIT', ignore);
  try {
    const started = spawn(file, args, { env, stdio: 'inherit' });
    child = started;
    return await new Promise((resolve, reject) => {
      started.on('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
      started.on('error', (cause) => {
        // Node also reports a failed kill here.
        if (started.pid !== undefined) return;
        const hints = [isShell ? 'set SHELL to the path of a shell' : 'give the path of a program after the --'];
        reject(new TkaError(`cannot start ${file}: ${systemCode(cause) ?? cause.message}`, { cause, hints }));
      });
    });
  } finally {
    giveBack();
    if (!windows) process.off('SIGQUIT', ignore);
  }
}
