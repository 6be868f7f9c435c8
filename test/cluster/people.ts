// Callers of a TKA server, and what they do with its answers.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { stringify } from 'yaml';
import type { Caller } from '../../src/server/http/contract.ts';
import { connectKube } from '../../src/server/kubernetes/kube.ts';
import type { KubeconfigAnswer } from '../../src/tka/types.ts';
import { type Access, kubeConfigFor } from './api-server.ts';
import { makeFolder } from './processes.ts';

/** An answer of the TKA API. */
export interface Answered<T> {
  readonly status: number;
  readonly body: T;
}

/** A user who calls a replica. */
export class Person {
  readonly caller: Caller;
  readonly #url: () => string;

  constructor(url: string | (() => string), caller: Partial<Caller> & Pick<Caller, 'role'>) {
    const username = caller.username ?? `u${randomBytes(4).toString('hex')}`;
    this.caller = { username, login: `${username}@example.com`, ownDomain: true, periodMs: 1_800_000, ...caller };
    this.#url = typeof url === 'string' ? () => url : url;
  }

  /** Returns the same user with another grant, or at another replica. */
  granted(caller: Partial<Caller>, url?: string): Person {
    return new Person(url ?? this.#url, { ...this.caller, ...caller });
  }

  get name(): string {
    return `tka-user-${this.caller.username}`;
  }

  login = (): Promise<Answered<{ username: string; role: string; until: string }>> => this.#call('POST', '/login');
  status = (): Promise<Answered<{ username: string; role: string; until: string }>> => this.#call('GET', '/login');
  logout = (): Promise<Answered<{ username: string; role: string; until: string }>> => this.#call('POST', '/logout');
  clusterInfo = (): Promise<Answered<unknown>> => this.#call('GET', '/cluster-info');
  kubeconfig = (): Promise<Answered<KubeconfigAnswer>> => this.#call('GET', '/kubeconfig');

  /** Signs in and returns the token. */
  async token(): Promise<string> {
    const answered = await this.login();
    if (answered.status !== 202) throw new Error(`POST /login: ${answered.status} ${JSON.stringify(answered.body)}`);
    return this.freshToken();
  }

  /** Returns the token of an existing sign-in. */
  async freshToken(): Promise<string> {
    const { status, body } = await this.kubeconfig();
    const token = status === 200 ? body.users[`tka-user-${this.caller.username}`]?.token : undefined;
    if (token === undefined) throw new Error(`GET /kubeconfig: ${status} ${JSON.stringify(body)}`);
    return token;
  }

  async #call<T>(method: string, route: string): Promise<Answered<T>> {
    const response = await fetch(`${this.#url()}${route}`, {
      method,
      headers: { 'x-caller': inAscii(this.caller) },
    });
    const text = await response.text();
    return { status: response.status, body: (text === '' ? undefined : JSON.parse(text)) as T };
  }
}

// Headers are Latin-1.
const inAscii = (value: unknown): string =>
  JSON.stringify(value).replace(/[^ -~]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);

let folder: string | undefined;

/** Runs the machine's kubectl with the answer of `GET /kubeconfig`. */
export async function kubectl(
  answer: KubeconfigAnswer,
  ...args: readonly string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  folder ??= makeFolder();
  const list = (map: object, kind: string): object[] => Object.entries(map).map(([name, it]) => ({ name, [kind]: it }));
  const file = path.join(folder, `${randomBytes(6).toString('hex')}.yaml`);
  const config = {
    ...answer,
    clusters: list(answer.clusters, 'cluster'),
    users: list(answer.users, 'user'),
    contexts: list(answer.contexts, 'context'),
  };
  fs.writeFileSync(file, stringify(config), { mode: 0o600 });
  let stdout = '';
  let stderr = '';
  const child = execFile('kubectl', args, { env: { ...process.env, KUBECONFIG: file, HOME: folder } });
  child.stdout?.on('data', (text) => {
    stdout += text;
  });
  child.stderr?.on('data', (text) => {
    stderr += text;
  });
  const [status] = await once(child, 'close');
  return { status: status as number, stdout, stderr };
}

/** Returns the API server's status for a token: 200, 401 or 403 for a list of namespaces. */
export async function statusFor(access: Access, token: string, path = '/api/v1/namespaces'): Promise<number> {
  const kube = connectKube(kubeConfigFor(access, token));
  try {
    await kube.get(path);
    return 200;
  } catch (error) {
    const status = (error as { readonly status?: number }).status;
    if (status === undefined) throw error;
    return status;
  } finally {
    kube.close();
  }
}

/** Returns what the promise resolves to. Throws if it takes longer than `ms` milliseconds. */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  const start = performance.now();
  const value = await promise;
  const took = performance.now() - start;
  if (took >= ms) throw new Error(`it took ${Math.round(took)} ms, not ${ms} at most`);
  return value;
}
