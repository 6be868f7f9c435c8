// A client for the Kubernetes API with pooled connections, timeouts and readable errors.
import type { KubeConfig } from '@kubernetes/client-node';
import { systemCode } from '../../util/errors.ts';
import { Connections, type Received } from './connections.ts';
import { isStatus, KubeError, reasonOf, refusalOf } from './errors.ts';
import { eventsOf, parseJson, type WatchEvent } from './watch-stream.ts';

/** Preconditions of a deletion. They protect a newer object of the same name. */
export interface Preconditions {
  readonly uid: string;
  readonly resourceVersion?: string;
}

/** The API of one cluster. All calls throw a KubeError. A signal aborts a call whose result is no longer needed. */
export interface Kube {
  /** Returns undefined if the object does not exist. */
  get<T>(path: string, signal?: AbortSignal): Promise<T | undefined>;
  /** As `get`, but throws if something before the API server answers 404: a proxy. */
  getSurely<T>(path: string): Promise<T | undefined>;
  /** Yields all objects of a collection, read in pages from one version of it. Returns that version. */
  list<T>(path: string): AsyncGenerator<T, string>;
  create<T>(path: string, object: unknown, signal?: AbortSignal): Promise<T>;
  replace<T>(path: string, object: unknown): Promise<T>;
  /** Sends a JSON merge patch (RFC 7396). `metadata.resourceVersion` in it is a precondition (409). */
  patch<T>(path: string, patch: unknown): Promise<T>;
  /** Deletes an object. Returns false if it is gone, or if a precondition fails. */
  remove(path: string, preconditions: Preconditions): Promise<boolean>;
  /**
   * Watches a collection from a version. Resolves when the API server has accepted the watch. The events end when the
   * server ends the watch, after at most 20 s. They throw a KubeError if the connection breaks, if the watch lasts
   * longer than the requested time, or if the server reports an error (410: the version is too old).
   */
  watch<T>(path: string, resourceVersion: string, signal: AbortSignal): Promise<AsyncIterable<WatchEvent<T>>>;
  /**
   * Returns the time of the API server's clock, to about a second (Unix time in milliseconds). Before its first answer,
   * returns the time of this machine's clock.
   */
  now(): number;
  /** Aborts running calls and closes the connections. */
  close(): void;
}

/** In milliseconds. */
export interface KubeTimes {
  /**
   * Timeout of a call with its answer. Default 8 s. Reads of one object have at most 5 s: they usually take
   * milliseconds.
   */
  readonly timeoutMs?: number;
  /**
   * How long the API server keeps a watch open; a multiple of 1000. Default 20 s. This is short because a quiet watch
   * transfers data only at its start and end, and these show that the connection is alive.
   */
  readonly watchMs?: number;
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

interface CallOptions {
  readonly body?: unknown;
  readonly type?: string;
  readonly signal?: AbortSignal | undefined;
  readonly ms?: number;
}

const getMs = 5_000;
const pageSize = 500;

/** Returns a name as one segment of a path. Throws a KubeError (404) for a text that is not a possible name. */
export function segment(name: string): string {
  if (/^\.{0,2}$|[/%]/.test(name)) throw new KubeError(`invalid object name "${name}"`, 404);
  return encodeURIComponent(name);
}

/** Returns a client for the kubeconfig's current cluster. Throws if there is none. */
export function connectKube(kubeConfig: KubeConfig, { timeoutMs = 8_000, watchMs = 20_000 }: KubeTimes = {}): Kube {
  const connections = new Connections(kubeConfig, timeoutMs);
  const closing = new AbortController();
  // The API server's clock minus this machine's, in milliseconds.
  let clockOffsetMs = 0;

  /** Sends a request. Resolves when the response begins. `late` is the timeout. */
  async function send(method: Method, path: string, late: AbortSignal, options: CallOptions = {}) {
    const { body, type = 'application/json', signal } = options;
    const url = `${connections.base}${path}`;
    const ends = signal === undefined ? closing.signal : AbortSignal.any([closing.signal, signal]);
    const failed = (error: unknown, received?: Received): KubeError => {
      if (late.aborted && !ends.aborted) received?.timedOut();
      return new KubeError(
        `${method[0]}${method.slice(1).toLowerCase()} "${url}": ${reasonOf(error)}`,
        undefined,
        error,
      );
    };
    const headers = {
      accept: 'application/json',
      'user-agent': 'tka-server',
      ...(body !== undefined && { 'content-type': type }),
    };
    const request = { method, path, headers, ...(body !== undefined && { body: JSON.stringify(body) }) };
    try {
      const received = await connections.send(request, late, ends);
      // The header is in whole seconds.
      const date = Date.parse(String(received.response.headers.date));
      if (!Number.isNaN(date)) clockOffsetMs = date + 500 - Date.now();
      return { ...received, url, failed: (error: unknown) => failed(error, received) };
    } catch (error) {
      throw failed(error);
    }
  }

  async function call<T>(method: Method, path: string, options: CallOptions = {}): Promise<T> {
    const late = AbortSignal.timeout(options.ms ?? timeoutMs);
    const { response, heard, failed, url } = await send(method, path, late, options).catch((error: unknown) => {
      // Retry like Go's client: the server may have closed an idle connection while the request was sent.
      if (method !== 'GET' || !isReset(error)) throw error;
      return send(method, path, late, options);
    });
    const text = await response.body.text().catch((error: unknown) => {
      throw failed(error);
    });
    heard();
    const parsed = parseJson(text);
    const { statusCode } = response;
    if (statusCode < 200 || statusCode > 299) throw refusalOf(parsed, statusCode, url);
    if (parsed === undefined) throw new KubeError(`${method} "${url}": the answer is not JSON`);
    return parsed as T;
  }

  async function watch<T>(path: string, resourceVersion: string, signal: AbortSignal) {
    const query = new URLSearchParams({
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion,
      timeoutSeconds: String(watchMs / 1000),
    });
    const silence = new AbortController();
    const isSilent = (): void => silence.abort(new Error('the API server does not respond'));
    let timer = setTimeout(isSilent, timeoutMs);
    /** Opens the watch. Also reads the whole body of a refusal within the same timeout. */
    async function open() {
      const opened = await send('GET', `${path}?${query}`, silence.signal, { signal });
      const { response, url } = opened;
      if (response.statusCode === 200) return opened;
      throw refusalOf(parseJson(await response.body.text().catch(() => '')), response.statusCode, url);
    }
    const { response, heard, failed, url } = await open().finally(() => clearTimeout(timer));
    timer = setTimeout(isSilent, watchMs * 1.25);
    return (async function* () {
      try {
        yield* eventsOf<T>(response.body, url, heard);
      } catch (error) {
        throw error instanceof KubeError ? error : failed(error);
      } finally {
        clearTimeout(timer);
      }
    })();
  }

  return {
    async get<T>(path: string, signal?: AbortSignal) {
      try {
        return await call<T>('GET', path, { signal, ms: Math.min(timeoutMs, getMs) });
      } catch (error) {
        if (isStatus(error, 404)) return undefined;
        throw error;
      }
    },
    async getSurely<T>(path: string) {
      try {
        return await call<T>('GET', path, { ms: Math.min(timeoutMs, getMs) });
      } catch (error) {
        if (isStatus(error, 404) && error instanceof KubeError && error.isStatusObject) return undefined;
        throw error;
      }
    },
    async *list<T>(path: string) {
      let next = '';
      let version = '';
      do {
        const query = `limit=${pageSize}${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`;
        const page = await call<{
          readonly items: readonly T[];
          readonly metadata: { readonly continue?: string; readonly resourceVersion?: string };
        }>('GET', `${path}?${query}`);
        yield* page.items;
        next = page.metadata.continue ?? '';
        version = page.metadata.resourceVersion ?? '';
      } while (next !== '');
      return version;
    },
    create: (path, body, signal) => call('POST', path, { body, signal }),
    replace: (path, body) => call('PUT', path, { body }),
    patch: (path, body) => call('PATCH', path, { body, type: 'application/merge-patch+json' }),
    async remove(path, preconditions) {
      try {
        await call('DELETE', path, { body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions } });
        return true;
      } catch (error) {
        if (isStatus(error, 404, 409)) return false;
        throw error;
      }
    },
    watch,
    now: () => Date.now() + clockOffsetMs,
    close() {
      closing.abort(new Error('the server is stopping'));
      connections.close();
    },
  };
}

/** Returns whether a call failed because its connection was closed or reset. */
const isReset = (error: unknown): boolean =>
  error instanceof KubeError && /^(?:UND_ERR_SOCKET|ECONNRESET|EPIPE)$/.test(systemCode(error.cause) ?? '');
