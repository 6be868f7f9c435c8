// A private home in which `sync` runs in the test's own process.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { sync } from '../../../src/cli/commands/sync.ts';
import { type Context, openContext } from '../../../src/cli/context/context.ts';
import type { SyncFlags } from '../../../src/cli/sync/sync.ts';
import { type OurContext, readKubeconfig } from '../../../src/kubeconfig/index.ts';
import { TkaError } from '../../../src/util/errors.ts';
import { TemporaryFolder } from '../../fixtures/temporary.ts';

export interface Said {
  readonly stdout: string;
  readonly stderr: string;
  /** The error that sync ended with; undefined for success. */
  readonly error: TkaError | undefined;
}

export class Fixture {
  readonly #folder = new TemporaryFolder();
  readonly dir: string;
  readonly kubeconfig: string;
  readonly state: string;
  #server: string;

  constructor(server: string) {
    this.#server = server;
    this.dir = this.#folder.path;
    this.kubeconfig = path.join(this.dir, '.kube', 'config');
    this.state = path.join(this.dir, 'state', 'kubectl-tka');
  }

  remove(): void {
    this.#folder[Symbol.dispose]();
  }

  /** A context whose terminal collects the messages. */
  async context(said: string[][], options: { server?: string } = {}): Promise<Context> {
    const env = {
      HOME: this.dir,
      XDG_STATE_HOME: path.join(this.dir, 'state'),
      PATH: process.env.PATH,
      TS_SOCKET: path.join(this.dir, 'no.sock'),
      TKA_TIMEOUT: '5',
    };
    const context = await openContext({ server: options.server ?? this.#server }, '/bin/sh', env);
    const [out, err] = [(text: string) => said[0]?.push(text), (text: string) => said[1]?.push(`${text}\n`)];
    const terminal = {
      ...context.terminal,
      out,
      outPainted: out,
      notice: err,
      warn: (line: string) => err(`warning: ${line}`),
      hint: (line: string) => err(`hint: ${line}`),
      log: () => {},
    };
    return { ...context, terminal };
  }

  async sync(flags: SyncFlags = {}, options: { server?: string } = {}): Promise<Said> {
    return this.run((context) => sync(context, [], flags), options);
  }

  async run(act: (context: Context) => Promise<void>, options: { server?: string } = {}): Promise<Said> {
    const said: string[][] = [[], []];
    const context = await this.context(said, options);
    let error: TkaError | undefined;
    try {
      await act(context);
    } catch (cause) {
      if (!(cause instanceof TkaError)) throw cause;
      error = cause;
    }
    return { stdout: said[0]?.join('') ?? '', stderr: said[1]?.join('') ?? '', error };
  }

  write(text: string): void {
    fs.mkdirSync(path.dirname(this.kubeconfig), { recursive: true });
    fs.writeFileSync(this.kubeconfig, text, { mode: 0o600 });
  }

  read(): string {
    return fs.readFileSync(this.kubeconfig, 'utf8');
  }

  /** Returns content and time of the kubeconfig, to show that nothing changed. */
  stamp(): string {
    return `${fs.statSync(this.kubeconfig, { bigint: true }).mtimeNs} ${this.read()}`;
  }

  async ours(): Promise<readonly OurContext[]> {
    const files = { files: [this.kubeconfig], defaultFile: this.kubeconfig, explicit: true };
    return (await readKubeconfig(files)).ours;
  }

  async names(): Promise<string[]> {
    return (await this.ours()).map(({ name }) => name).sort();
  }

  /** Forgets unlisted members, as after seven days. */
  forgetMissing(): void {
    fs.rmSync(path.join(this.state, 'clusters'), { recursive: true });
  }
}
