// Runs the built tka-server as separate processes on loopback, and sends requests to it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import * as net from 'node:net';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import type { TLSSocket } from 'node:tls';
import { stringify } from 'yaml';
import { TemporaryFolder } from '../fixtures/temporary.ts';

export const program = path.join(import.meta.dirname, '../../dist/tka-server');

/** A line of its log. */
export type Line = Readonly<Record<string, unknown>> & { readonly msg: string; readonly level: string };

/** Returns whether something listens there. */
export async function listens(host: string, port: number): Promise<boolean> {
  const socket = net.connect({ host, port });
  return await new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  }).then((answer) => {
    socket.destroy();
    return answer as boolean;
  });
}

/** A running tka-server. */
export class TkaServerProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly lines: Line[] = [];
  stdout = '';
  stderr = '';
  /** Resolves when it has ended, to its status or signal. */
  readonly ended: Promise<{ readonly status: number | null; readonly signal: NodeJS.Signals | null }>;
  readonly #folder = new TemporaryFolder();
  readonly #env: Readonly<Record<string, string>>;

  /**
   * `config` is its file; TKA_*, KUBE* and TS_* of this process are removed. `within` is a command that runs the
   * program, such as `unshare`.
   */
  constructor(
    config: object | string,
    env: Readonly<Record<string, string>> = {},
    args?: readonly string[],
    within: readonly string[] = [],
  ) {
    const folder = this.#folder.path;
    const file = path.join(folder, 'config.yaml');
    fs.writeFileSync(file, typeof config === 'string' ? config : stringify(config));
    const kubeconfig = path.join(folder, 'kubeconfig');
    fs.writeFileSync(kubeconfig, nowhere);
    const [command = program, ...words] = [...within, program, ...(args ?? ['serve', '--config', file])];
    this.#env = { PATH: process.env.PATH ?? '', HOME: folder, TMPDIR: folder, KUBECONFIG: kubeconfig, ...env };
    this.child = spawn(command, words, {
      env: this.#env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    let rest = '';
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      const parts = (rest + text).split('\n');
      rest = parts.pop() ?? '';
      for (const line of parts) if (line.startsWith('{')) this.lines.push(JSON.parse(line));
      this.child.emit('said');
    });
    this.ended = once(this.child, 'close').then(([status, signal]) => {
      this.child.emit('said');
      return { status, signal };
    });
  }

  /** Resolves with the first line of its log whose message matches; rejects if it ends without one. */
  async said(what: RegExp): Promise<Line> {
    for (;;) {
      const found = this.lines.find((line) => what.test(line.msg));
      if (found !== undefined) return found;
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        await this.ended;
        const last = this.lines.find((line) => what.test(line.msg));
        if (last !== undefined) return last;
        throw new Error(`it ended without saying ${what}:\n${this.stderr}`);
      }
      await once(this.child, 'said');
    }
  }

  /** Runs the program beside it, as `kubectl exec` would: with the same environment and configuration. */
  async exec(...args: readonly string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
    const file = path.join(this.#folder.path, 'config.yaml');
    const child = spawn(program, [...args, '--config', file], { env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] });
    const [stdout, stderr, [status]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    return { status, stdout, stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.ended;
    this.#folder[Symbol.dispose]();
  }
}

// An unreachable cluster: nothing listens on port 2 of loopback (fetch refuses some ports, such as 9).
const nowhere = stringify({
  apiVersion: 'v1',
  kind: 'Config',
  clusters: [{ name: 'x', cluster: { server: 'https://127.0.0.1:2' } }],
  users: [{ name: 'x', user: { token: 'none' } }],
  contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
  'current-context': 'x',
});

export interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  /** Of the server's certificate. */
  readonly serialNumber: string | undefined;
}

/** Sends one request on a separate connection. */
export async function ask(url: string, options: RequestOptions = {}): Promise<Answer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = url.startsWith('https:') ? httpsRequest : httpRequest;
    request(url, { agent: false, ...options }, resolve)
      .on('error', reject)
      .end();
  });
  const certificate = (response.socket as Partial<TLSSocket>).getPeerCertificate?.();
  const { statusCode: status, headers } = response;
  return { status, headers, body: await text(response), serialNumber: certificate?.serialNumber };
}
