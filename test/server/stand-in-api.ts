// An API server on loopback with sign-ins (or TkaClusters) and little else, over plain http, which answers lists and
// watches as the test says.
import * as fs from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';
import type { TkaCluster } from '../../src/server/federation/objects.ts';
import type { TkaSignin } from '../../src/server/provisioner/objects.ts';
import { TemporaryFolder } from '../fixtures/temporary.ts';

/** The path of a namespace that every cluster has, and its UID here. */
export const kubeSystem = '/api/v1/namespaces/kube-system';
export const kubeSystemUid = '6d0a3bb1-7a1e-4f2c-9f0b-1f6a4c1d2e3f';

type Listed = readonly [status: number, body: unknown];

/** The objects of one collection, as an API server lists and watches them, and the open watches. */
export class StandInApi {
  items: (TkaSignin | TkaCluster)[] = [];
  version = 1;
  /** Replace the answers to the next lists, in this order. */
  readonly lists: Listed[] = [];
  /** Replace the answers to the next watches, in this order. */
  readonly watches: ((response: ServerResponse) => void)[] = [];
  readonly open = new Set<ServerResponse>();
  /** The query of each request. */
  readonly asked: URLSearchParams[] = [];
  /** Objects of other collections, by path. */
  readonly objects = new Map<string, unknown>([[kubeSystem, { metadata: { uid: kubeSystemUid } }]]);
  /** Paths that are refused with 403, with the reason. */
  readonly forbidden = new Map<string, string>();
  /** Number of requests for missing objects. */
  missed = 0;
  readonly #server: Server;
  #folder: TemporaryFolder | undefined;
  #port = 0;
  #seen: (() => void)[] = [];

  constructor(collection: 'tkasignins' | 'tkaclusters' = 'tkasignins') {
    this.#server = createServer((request, response) => {
      const { searchParams: query, pathname } = new URL(request.url ?? '', 'http://x');
      if (!pathname.endsWith(`/${collection}`)) {
        const reason = this.forbidden.get(pathname);
        if (reason !== undefined) {
          response.statusCode = 403;
          response.end(JSON.stringify({ kind: 'Status', message: reason }));
          return;
        }
        const object = this.objects.get(pathname);
        if (object === undefined) this.missed++;
        for (const seen of this.#seen.splice(0)) seen();
        response.statusCode = object === undefined ? 404 : 200;
        response.end(JSON.stringify(object ?? { message: 'not found' }));
        return;
      }
      this.asked.push(query);
      for (const seen of this.#seen.splice(0)) seen();
      if (query.get('watch') !== 'true') {
        const metadata = { resourceVersion: String(this.version) };
        const [status, body] = this.lists.shift() ?? [200, { items: this.items, metadata }];
        response.statusCode = status;
        response.end(JSON.stringify(body));
        return;
      }
      const special = this.watches.shift();
      if (special !== undefined) return special(response);
      this.open.add(response);
      response.once('close', () => this.open.delete(response));
      response.writeHead(200);
      response.flushHeaders();
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Listens; after a stop on the same port. */
  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Returns a kubeconfig file for it. */
  kubeconfig(): string {
    this.#folder ??= new TemporaryFolder();
    const file = path.join(this.#folder.path, 'kubeconfig');
    const cluster = { server: this.url, 'insecure-skip-tls-verify': true };
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'x', cluster }],
      users: [{ name: 'x', user: { token: 'none' } }],
      contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
      'current-context': 'x',
    };
    fs.writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
    return file;
  }

  /** Drops every connection, and stops listening. */
  stop(): void {
    this.#folder?.[Symbol.dispose]();
    this.#server.close();
    this.#server.closeAllConnections();
  }

  /** Resolves once `holds` returns true after a request. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#seen.push(resolve));
  }

  /** Resolves once a watch is open. */
  async watched(): Promise<void> {
    while (this.open.size === 0) await new Promise((resolve) => setImmediate(resolve));
  }

  tell(type: string, object: unknown): void {
    for (const response of this.open) response.write(`${JSON.stringify({ type, object })}\n`);
  }

  put(name: string): TkaSignin {
    const signIn = signInOf(name, ++this.version);
    this.items = [...this.items.filter(({ metadata }) => metadata.name !== name), signIn];
    return signIn;
  }
}

const signInOf = (name: string, version: number): TkaSignin => ({
  metadata: { name, namespace: 'tka', uid: `uid-${name}`, resourceVersion: String(version) },
  spec: { username: name, role: 'view', validity_period: '1h' },
});
