// A separate network with an address in the tailnet's range, as a pod's network may have. It cannot reach this
// machine's other networks; sockets in the file system are shared.
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';

const command = [
  '--net',
  '--map-root-user',
  'sh',
  '-ec',
  'ip link set lo up; ip addr add 100.64.0.9/32 dev lo; echo up; exec cat',
];

/** Whether this machine can make one. */
export const hasPods = process.platform === 'linux' && spawnSync('unshare', command, { input: '' }).status === 0;

export class Pod implements AsyncDisposable {
  /** Its address besides loopback. */
  readonly address = '100.64.0.9';
  // It ends when its stdin closes, and so with this process.
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async make(): Promise<Pod> {
    const holder = spawn('unshare', command, { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(holder.stdout, 'data');
    return new Pod(holder);
  }

  /** Returns the command prefix that runs a command there. */
  get within(): readonly string[] {
    return ['nsenter', '--target', String(this.#holder.pid), '--user', '--net', '--preserve-credentials'];
  }

  /** Runs a Node script there. */
  start(script: string): ChildProcess {
    const [nsenter, ...args] = this.within as [string, ...string[]];
    return spawn(nsenter, [...args, process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  }

  /** Returns the status of the answer to a request from there; its source is the address that it goes to. */
  async status(url: string, method = 'GET'): Promise<number> {
    const [nsenter, ...args] = this.within as [string, ...string[]];
    const code = `fetch(${JSON.stringify(url)}, { method: '${method}' }).then(({ status }) => console.log(status))`;
    const { stdout } = await promisify(execFile)(nsenter, [...args, process.execPath, '-e', code]);
    return Number(stdout);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#holder, 'close');
    this.#holder.kill('SIGKILL');
    await closed;
  }
}
