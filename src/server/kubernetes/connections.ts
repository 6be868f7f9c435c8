// A connection pool for the API server of a kubeconfig. Reads the current credentials from disk for each request.
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

// Further calls wait for a connection. Each watch occupies one.
export const connectionLimit = 32;
// Below the idle timeout of load balancers (60 s) and of the API server (90 s).
const idleMs = 30_000;

/** A response, with callbacks that report its progress. */
export interface Received {
  readonly response: Dispatcher.ResponseData;
  /** Call this when more of the response has arrived. */
  heard(): void;
  /** Call this if the response did not end in time. */
  timedOut(): void;
}

interface Open {
  readonly pool: Pool;
  readonly tls: Trust;
  /** When data last arrived on any of its connections (performance.now()). */
  heardAt: number;
}

export class Connections {
  /** URL of the API server, without a slash at the end. */
  readonly base: string;
  readonly #kubeConfig: KubeConfig;
  readonly #connectMs: number;
  #open: Open | undefined;

  /** `connectMs` is the timeout for opening a connection. Throws if the kubeconfig has no current cluster. */
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
    // Read them for each request, because tokens and certificates change on disk.
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

  /** Closes all connections and aborts running requests. */
  close(): void {
    this.#open?.pool.destroy(new Error('the server is stopping')).catch(() => undefined);
    this.#open = undefined;
  }

  /** Returns the pool. Makes a new one if the certificates have changed. */
  #opened(credentials: RequestOptions): Open {
    const tls = trustOf(credentials);
    if (this.#open !== undefined && isDeepStrictEqual(this.#open.tls, tls)) return this.#open;
    // Let running requests finish.
    this.#open?.pool.close().catch(() => undefined);
    const proxy = this.#kubeConfig.getCurrentCluster()?.proxyUrl;
    const connect = connector(tls, proxy, this.#connectMs);
    const options = { ...dispatcherOptions, connect, connections: connectionLimit, keepAliveTimeout: idleMs };
    this.#open = { pool: new Pool(new URL(this.base).origin, options), tls, heardAt: 0 };
    return this.#open;
  }

  /**
   * Closes all connections if none of them has received data since `began`, the start of a call without a response. If
   * the network drops packets silently, each dead connection would otherwise cost another call its whole timeout. This
   * also ends the watches on these connections.
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

/** Returns undici's connector, direct or through the kubeconfig's `proxy-url`. */
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
