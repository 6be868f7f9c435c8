// Connections to the API server of a kubeconfig: a pool, with the credentials as they are on disk now.
import type { RequestOptions } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import type { KubeConfig } from '@kubernetes/client-node';
import { buildConnector, type Dispatcher, Pool } from 'undici';
import { parseProxy } from '../../network/environment.ts';
import { destinationOf } from '../../network/plain.ts';
import { throughProxy } from '../../network/proxy.ts';
import { defaultContext } from '../../network/tls.ts';
import { dispatcherOptions, type OutgoingRequest, send } from '../outgoing.ts';

// More calls than these wait for a connection. A watch keeps one for itself.
export const connectionLimit = 32;
// Below the idle timeout of load balancers (60 s) and of the API server (90 s).
const idleMs = 30_000;

/** A response, and what the connections are told about it. */
export interface Received {
  readonly response: Dispatcher.ResponseData;
  /** To be called when more of the response has come. */
  heard(): void;
  /** To be called when the response did not come to its end in time. */
  timedOut(): void;
}

interface Open {
  readonly pool: Pool;
  readonly tls: Trust;
  /** When something last came through one of its connections. */
  heardAt: number;
}

/** The connections to one API server. */
export class Connections {
  /** URL of the API server, without a slash at the end. */
  readonly base: string;
  readonly #kubeConfig: KubeConfig;
  readonly #connectMs: number;
  #open: Open | undefined;

  /** `connectMs` limits how long a connection may take. Throws where the kubeconfig has no current cluster. */
  constructor(kubeConfig: KubeConfig, connectMs: number) {
    const cluster = kubeConfig.getCurrentCluster();
    if (!cluster) throw new Error('the kubeconfig has no current cluster');
    this.base = cluster.server.replace(/\/+$/, '');
    this.#kubeConfig = kubeConfig;
    this.#connectMs = connectMs;
  }

  /** Sends a request. Resolves when the response begins. Rejects with the signal's reason if `late` or `signal` aborts. */
  async send(request: OutgoingRequest, late: AbortSignal, signal: AbortSignal): Promise<Received> {
    const began = performance.now();
    const credentials: RequestOptions = {};
    // For each request, because tokens and certificates change on disk.
    await this.#kubeConfig.applyToHTTPSOptions(credentials);
    const open = this.#opened(credentials);
    const timedOut = (): void => this.#dropDead(open, began);
    const heard = (): void => {
      open.heardAt = performance.now();
    };
    const url = new URL(`${this.base}${request.path}`);
    const { authorization, ...others } = headersOf(credentials);
    const headers = { ...request.headers, ...others, ...(authorization !== undefined && { authorization }) };
    try {
      const ends = AbortSignal.any([late, signal]);
      const response = await send(open.pool, { ...request, path: `${url.pathname}${url.search}`, headers }, ends);
      heard();
      return { response, heard, timedOut };
    } catch (error) {
      if (late.aborted && !signal.aborted) timedOut();
      throw error;
    }
  }

  /** Ends all connections, and what is under way on them. */
  close(): void {
    this.#open?.pool.destroy(new Error('the server is stopping')).catch(() => undefined);
    this.#open = undefined;
  }

  /** Returns the pool; a new one where the certificates have changed. */
  #opened(credentials: RequestOptions): Open {
    const tls = trustOf(credentials);
    if (this.#open !== undefined && isDeepStrictEqual(this.#open.tls, tls)) return this.#open;
    // What is under way may end.
    this.#open?.pool.close().catch(() => undefined);
    const proxy = this.#kubeConfig.getCurrentCluster()?.proxyUrl;
    const connect = connector(tls, proxy, this.#connectMs);
    const options = { ...dispatcherOptions, connect, connections: connectionLimit, keepAliveTimeout: idleMs };
    this.#open = { pool: new Pool(new URL(this.base).origin, options), tls, heardAt: 0 };
    return this.#open;
  }

  /**
   * Drops all connections if nothing has come through any of them since a call began that got no response: where packets
   * are lost without a word, each connection would cost one more call its whole time limit. A watch on them ends, too.
   */
  #dropDead(open: Open, began: number): void {
    if (open.heardAt >= began) return;
    if (this.#open === open) this.#open = undefined;
    open.pool.destroy(new Error('the connection to the API server was dead')).catch(() => undefined);
  }
}

function headersOf({ headers, auth }: RequestOptions): Readonly<Record<string, string>> {
  const basic = auth == null ? undefined : `Basic ${Buffer.from(auth).toString('base64')}`;
  const given = Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), String(value)]);
  return { ...(basic !== undefined && { authorization: basic }), ...Object.fromEntries(given) };
}

type Trust = Pick<
  ConnectionOptions,
  'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'rejectUnauthorized' | 'servername'
>;

function trustOf({ ca, cert, key, pfx, passphrase, rejectUnauthorized, servername }: RequestOptions): Trust {
  const given = Object.entries({ ca, cert, key, pfx, passphrase, rejectUnauthorized, servername });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

/** Returns undici's connector: directly, or through the proxy that the kubeconfig's `proxy-url` names. */
function connector(tls: Trust, proxyUrl: string | undefined, timeout: number): buildConnector.connector {
  const direct = buildConnector({ ...tls, keepAlive: true, keepAliveInitialDelay: idleMs, allowH2: false, timeout });
  if (proxyUrl === undefined) return direct;
  const proxy = parseProxy('proxy-url', proxyUrl);
  const trust = () => defaultContext(undefined);
  return (options, callback) => {
    const { protocol, host } = options;
    throughProxy(
      proxy,
      destinationOf(`${protocol}//${host}`),
      { log: () => {} },
      trust,
      AbortSignal.timeout(timeout),
    ).then(
      (socket) => {
        if (protocol === 'https:') direct({ ...options, httpSocket: socket }, callback);
        else callback(null, socket);
      },
      (error) => callback(error, null),
    );
  };
}
