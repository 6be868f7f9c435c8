import { execFile } from 'node:child_process';
import * as path from 'node:path';
import { foldersIn, isExecutable, searchPathOf } from '../util/search-path.ts';
import { cleanText } from '../util/text.ts';
import { startHint, TailscaleError } from './problem.ts';
import { absentError, type LocalOptions } from './request.ts';

/** Returns the output of `tailscale status --json`: the last resort if no socket answers. Throws TailscaleError. */
export async function statusByCommand(options: LocalOptions & { limit: number }): Promise<string> {
  const { platform = process.platform, timeout, limit, env, log } = options;
  const program = findTailscale(options);
  if (program === undefined) throw absentError(platform);
  log(`running ${program} status --json`);
  return await new Promise((resolve, reject) => {
    const child = execFile(
      program,
      ['status', '--json'],
      {
        // The macOS app acts as a command-line program only with this variable.
        env: { ...env, TAILSCALE_BE_CLI: '1' },
        timeout: Math.max(1, Math.ceil(timeout)),
        killSignal: 'SIGKILL',
        maxBuffer: limit,
        windowsHide: true,
      },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        log(`tailscale status: ${cleanText(stderr || error.message)}`);
        reject(failure(error, timeout, limit, platform));
      },
    );
    // If the program ends without reading stdin, this pipe reports an error.
    child.stdin?.on('error', () => {}).end();
  });
}

function failure(
  error: Error & { code?: unknown; killed?: boolean },
  timeout: number,
  limit: number,
  platform: NodeJS.Platform,
): TailscaleError {
  const hints = ['check it: tailscale status'];
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') {
    return new TailscaleError('unreadable', `tailscale status printed more than ${limit >> 20} MiB`, hints, error);
  }
  if (error.killed) {
    const seconds = Math.round(timeout / 100) / 10;
    return new TailscaleError('no-answer', `tailscale status did not end within ${seconds} s`, hints, error);
  }
  return new TailscaleError(
    'not-running',
    'tailscale is installed, but not running',
    [`start it: ${startHint(platform)}`],
    error,
  );
}

function findTailscale({ env, platform = process.platform, root = '/' }: LocalOptions): string | undefined {
  const windows = platform === 'win32';
  const candidates = foldersIn(searchPathOf(env), platform)
    // A relative entry would run a program from the current folder.
    .filter((folder) => (windows ? path.win32 : path.posix).isAbsolute(folder))
    .map((folder) => path.join(folder, windows ? 'tailscale.exe' : 'tailscale'));
  if (platform === 'darwin') candidates.push(path.join(root, 'Applications/Tailscale.app/Contents/MacOS/Tailscale'));
  return candidates.find(isExecutable);
}
