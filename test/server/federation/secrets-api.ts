// The Secrets of the namespace tka-federation, as an API server stores them: over plain http, with versions, conflicts
// and merge patches.
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';
import { dataOf, type Secret, textsOf } from '../../../src/server/federation/objects.ts';

const root = '/api/v1/namespaces/tka-federation/secrets';

type Stored = Secret & { readonly data: Readonly<Record<string, string>> };

export class SecretsApi implements AsyncDisposable {
  readonly #secrets = new Map<string, Stored>();
  /** Every change: `tka-join-status Joined`, and `tka-cluster-info` with the keys that it has. */
  readonly changes: string[] = [];
  /**
   * Decides about a request: `refuse` answers 503, `forbid` 403, `mislead` 404 as a proxy does, `lose` does what it says and drops
   * the connection without an answer.
   */
  fault: ((method: string, name: string) => 'refuse' | 'forbid' | 'mislead' | 'lose' | undefined) | undefined;
  #version = 0;
  readonly #server = createServer(
    (request, response) =>
      void this.#answer(request).then(
        ({ status, body }) => {
          response.statusCode = status;
          response.end(JSON.stringify(body));
        },
        () => response.destroy(),
      ),
  );

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
  }

  kubeConfig(): KubeConfig {
    const { port } = this.#server.address() as AddressInfo;
    const config = new KubeConfig();
    config.loadFromClusterAndUser(
      { name: 'test', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
      { name: 'test', token: 'none' },
    );
    return config;
  }

  /** Returns the values of a Secret, or undefined if it does not exist. */
  values(name: string): Readonly<Record<string, string>> | undefined {
    const secret = this.#secrets.get(name);
    return secret && Object.fromEntries(textsOf(secret));
  }

  labels(name: string): Readonly<Record<string, string>> | undefined {
    return this.#secrets.get(name)?.metadata.labels;
  }

  /** Sets a Secret, as an administrator would. Undefined deletes it. */
  set(name: string, values: Readonly<Record<string, string>> | undefined, labels = {}): void {
    if (values === undefined) this.#secrets.delete(name);
    else this.#store(name, { metadata: { name, uid: name, labels, resourceVersion: '' }, data: dataOf(values) });
  }

  #store(name: string, secret: Stored): Stored {
    const stored = { ...secret, metadata: { ...secret.metadata, resourceVersion: String(++this.#version) } };
    this.#secrets.set(name, stored);
    return stored;
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: unknown }> {
    const { method = '', url = '' } = request;
    const body = method === 'GET' ? {} : ((await json(request)) as Partial<Stored>);
    const name = url.slice(root.length + 1) || (body.metadata?.name ?? '');
    const fault = this.fault?.(method, name);
    if (fault === 'forbid') return refusal(403, 'secrets is forbidden');
    if (fault === 'mislead') return { status: 404, body: 'page not found' };
    if (fault === 'refuse') return refusal(503, 'the API server is busy');
    const answer = url.startsWith(root) ? this.#change(method, name, body) : refusal(404, 'not found');
    if (fault === 'lose') throw new Error('lost');
    return answer;
  }

  #change(method: string, name: string, body: Partial<Stored>): { status: number; body: unknown } {
    const old = this.#secrets.get(name);
    if (method === 'POST') {
      if (old !== undefined) return refusal(409, `secrets "${name}" already exists`);
      return this.#changed(name, { ...body, metadata: { uid: name, ...body.metadata } } as Stored, 201);
    }
    if (old === undefined) return refusal(404, `secrets "${name}" not found`);
    if (method === 'GET') return { status: 200, body: old };
    const version = body.metadata?.resourceVersion;
    if (version !== undefined && version !== old.metadata.resourceVersion)
      return refusal(409, 'the object has been modified');
    const data = { ...old.data, ...body.data };
    for (const [key, value] of Object.entries(data)) if (value === null) delete (data as Record<string, string>)[key];
    const annotations = { ...old.metadata.annotations, ...body.metadata?.annotations };
    return this.#changed(name, { ...old, metadata: { ...old.metadata, annotations }, data }, 200);
  }

  #changed(name: string, secret: Stored, status: number): { status: number; body: unknown } {
    const stored = this.#store(name, secret);
    const values = this.values(name) ?? {};
    this.changes.push(`${name} ${values.status ?? Object.keys(values).sort().join(',')}`);
    return { status, body: stored };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const refusal = (status: number, message: string) => ({ status, body: { kind: 'Status', code: status, message } });
