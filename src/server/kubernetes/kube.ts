// A cluster's API as the provisioner uses it: @kubernetes/client-node knows where it is, how to authenticate and how to
// trust it; this adds what every call needs here: pooled connections, a time limit, and errors that can be told.
import { HttpMethod, IsomorphicFetchHttpLibrary, type KubeConfig, RequestContext } from '@kubernetes/client-node';

/** A call that the API server refused (`status` is then set), or that never reached it. */
export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly status: number | undefined;

  constructor(message: string, status?: number, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
  }
}

/** Whether an error is one of these answers of the API server. */
export const isStatus = (error: unknown, ...statuses: readonly number[]): boolean =>
  error instanceof KubeError && error.status !== undefined && statuses.includes(error.status);

/** What a deletion must still find, so that nothing newer of the same name goes. */
export interface Preconditions {
  readonly uid: string;
  readonly resourceVersion?: string;
}

/** A change of an object, or a bookmark: there was no change up to its version. */
export interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

/** Connections to the API server, shared by all calls. */
interface Pool {
  readonly dispatcher: NonNullable<ReturnType<RequestContext['getDispatcher']>>;
  readonly since: number;
  /** When something last came through it. */
  heardAt: number;
}

/** One cluster's API. Every call throws a KubeError. A signal ends a call whose answer is of no use any more. */
export interface Kube {
  /** undefined when there is none. */
  get<T>(path: string, signal?: AbortSignal): Promise<T | undefined>;
  /** All objects of a collection, read in pages from one state of it. */
  list<T>(path: string): AsyncGenerator<T, string>;
  create<T>(path: string, object: unknown, signal?: AbortSignal): Promise<T>;
  replace<T>(path: string, object: unknown): Promise<T>;
  /** A JSON merge patch (RFC 7396); `metadata.resourceVersion` in it is a precondition (409). */
  patch<T>(path: string, patch: unknown): Promise<T>;
  /** False when it is gone already, or is not what the preconditions say. */
  remove(path: string, preconditions: Preconditions): Promise<boolean>;
  /**
   * Follows a collection from this version of it. Resolves when the API server has accepted the watch. The events end when
   * the server ends it, 20 s later at most. They throw a KubeError if the connection breaks, if the watch lasts longer than
   * the server was told, and if the server reports an error (410: the version is too old).
   */
  watch<T>(path: string, resourceVersion: string, signal: AbortSignal): Promise<AsyncIterable<WatchEvent<T>>>;
  /** Ends what is under way. */
  close(): void;
}

/** In milliseconds. */
export interface KubeTimes {
  /** For a call and its answer. Default 8 s, and 5 s for one object, which is read in milliseconds. */
  readonly timeoutMs?: number;
  /**
   * How long the API server keeps a watch open, in whole seconds. Default 20 s, which is short: the beginning and the end
   * are all that is heard of a quiet watch, and they show that its connection is alive.
   */
  readonly watchMs?: number;
}

interface CallOptions {
  readonly type?: string;
  readonly signal?: AbortSignal | undefined;
  readonly ms?: number;
}

const getMs = 5_000;
// The API server takes objects of 3 MiB at most.
const eventLimit = 4 * 1024 * 1024;
// Certificates may change on disk: connections are made anew now and then.
const poolMs = 5 * 60_000;
const pageSize = 500;

/** One name as a part of a path. Throws a KubeError (404) for what no object can be called. */
export function segment(name: string): string {
  if (/^\.{0,2}$|[/%]/.test(name)) throw new KubeError(`no object is called "${name}"`, 404);
  return encodeURIComponent(name);
}

/** The API of the kubeconfig's current cluster. Throws when there is none. */
export function connectKube(kubeConfig: KubeConfig, { timeoutMs = 8_000, watchMs = 20_000 }: KubeTimes = {}): Kube {
  const cluster = kubeConfig.getCurrentCluster();
  if (!cluster) throw new Error('the kubeconfig has no current cluster');
  const base = cluster.server.replace(/\/+$/, '');
  const http = new IsomorphicFetchHttpLibrary();
  const closing = new AbortController();
  let pool: Pool | undefined;

  // client-node makes a connection pool for each request, so that each would open a connection of its own.
  function share(context: RequestContext): Pool | undefined {
    const dispatcher = context.getDispatcher();
    if (dispatcher === undefined) return undefined;
    if (pool === undefined || performance.now() - pool.since > poolMs) {
      pool?.dispatcher.close().catch(() => undefined);
      pool = { dispatcher, since: performance.now(), heardAt: 0 };
    }
    context.setDispatcher(pool.dispatcher);
    return pool;
  }

  /**
   * Drops connections through which nothing has come since this call began. All calls share one HTTP/2 session where the
   * server speaks it; if its packets are lost, no call on it is ever answered. A watch on it ends, too.
   */
  function dropDead(used: Pool | undefined, began: number): void {
    if (used === undefined || used.heardAt >= began) return;
    if (pool === used) pool = undefined;
    used.dispatcher.destroy(new Error('the connection to the API server was dead')).catch(() => undefined);
  }

  /** Sends a request; resolves when the answer begins. `heard` is to be called for what follows. `late` is the time limit. */
  async function send(context: RequestContext, late: AbortSignal, signal?: AbortSignal) {
    const began = performance.now();
    let used: Pool | undefined;
    const heard = (): void => {
      if (used !== undefined) used.heardAt = performance.now();
    };
    const failed = (error: unknown): KubeError => {
      // One that was given up says nothing of the connection.
      if (!signal?.aborted && !closing.signal.aborted) dropDead(used, began);
      const method = context.getHttpMethod();
      const what = `${method[0]}${method.slice(1).toLowerCase()} "${context.getUrl()}"`;
      return new KubeError(`${what}: ${reasonOf(error)}`, undefined, error);
    };
    try {
      await kubeConfig.applySecurityAuthentication(context);
      used = share(context);
      context.setHeaderParam('Accept', 'application/json');
      context.setHeaderParam('User-Agent', 'tka-server');
      context.setSignal(AbortSignal.any([closing.signal, late, ...(signal === undefined ? [] : [signal])]));
      const response = await http.send(context).toPromise();
      heard();
      return { response, heard, failed };
    } catch (error) {
      throw failed(error);
    }
  }

  async function call<T>(
    method: HttpMethod,
    path: string,
    body?: unknown,
    { type = 'application/json', signal, ms = timeoutMs }: CallOptions = {},
  ): Promise<T> {
    const context = new RequestContext(`${base}${path}`, method);
    if (body !== undefined) {
      context.setHeaderParam('Content-Type', type);
      context.setBody(JSON.stringify(body));
    }
    const { response, heard, failed } = await send(context, AbortSignal.timeout(ms), signal);
    const text = await response.body.text().catch((error: unknown) => {
      throw failed(error);
    });
    heard();
    const answer = parse(text);
    const { httpStatusCode: status } = response;
    if (status < 200 || status > 299) throw refusalOf(answer, status, context);
    if (answer === undefined) throw new KubeError(`${method} "${context.getUrl()}": the answer is not JSON`);
    return answer as T;
  }

  async function watch<T>(path: string, resourceVersion: string, signal: AbortSignal) {
    const query = new URLSearchParams({
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion,
      timeoutSeconds: String(watchMs / 1000),
    });
    const context = new RequestContext(`${base}${path}?${query}`, HttpMethod.GET);
    const silence = new AbortController();
    const isSilent = (): void => silence.abort(new Error('the API server is silent'));
    let timer = setTimeout(isSilent, timeoutMs);
    /** Also reads a refusal to its end, within the same time limit. */
    async function open() {
      const opened = await send(context, silence.signal, signal);
      const { response } = opened;
      if (response.httpStatusCode === 200) return opened;
      throw refusalOf(parse(await response.body.text().catch(() => '')), response.httpStatusCode, context);
    }
    const { response, heard, failed } = await open().finally(() => clearTimeout(timer));
    timer = setTimeout(isSilent, watchMs * 1.25);
    return (async function* () {
      try {
        for await (const line of linesOf(response.body.stream() ?? new ReadableStream<Uint8Array>(), heard)) {
          yield eventIn<T>(line, context);
        }
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
        return await call<T>('GET', path, undefined, { signal, ms: Math.min(timeoutMs, getMs) });
      } catch (error) {
        if (isStatus(error, 404)) return undefined;
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
    create: (path, object, signal) => call('POST', path, object, { signal }),
    replace: (path, object) => call('PUT', path, object),
    patch: (path, patch) => call('PATCH', path, patch, { type: 'application/merge-patch+json' }),
    async remove(path, preconditions) {
      try {
        await call('DELETE', path, { apiVersion: 'v1', kind: 'DeleteOptions', preconditions });
        return true;
      } catch (error) {
        if (isStatus(error, 404, 409)) return false;
        throw error;
      }
    },
    watch,
    close() {
      closing.abort(new Error('the server is stopping'));
      pool?.dispatcher.close().catch(() => undefined);
    },
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refusalOf(answer: unknown, status: number, context: RequestContext): KubeError {
  const { message } = (answer ?? {}) as { readonly message?: unknown };
  const isSaid = typeof message === 'string' && message !== '';
  return new KubeError(isSaid ? message : `${context.getUrl()} answered ${status}`, status);
}

/** The lines of a stream without those that are empty; `heard` is called whenever something comes. */
async function* linesOf(stream: AsyncIterable<Uint8Array>, heard: () => void): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    heard();
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > eventLimit) throw new Error(`an event of the watch is longer than ${eventLimit >> 20} MiB`);
    for (const line of lines) if (line !== '') yield line;
  }
}

function eventIn<T>(line: string, context: RequestContext): WatchEvent<T> {
  const { type, object } = (parse(line) ?? {}) as { readonly type?: unknown; readonly object?: unknown };
  const { code, metadata } = (object ?? {}) as { readonly code?: unknown; readonly metadata?: unknown };
  const isEvent = type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED' || type === 'BOOKMARK';
  if (isEvent && typeof metadata === 'object' && metadata !== null) return { type, object: object as T };
  if (type === 'ERROR' && typeof code === 'number') throw refusalOf(object, code, context);
  throw new KubeError(`Get "${context.getUrl()}": the watch cannot be read`);
}

// undici says "fetch failed", and why only in its cause.
function reasonOf(error: unknown): string {
  let innermost: unknown = error;
  while (innermost instanceof Error && innermost.cause instanceof Error) innermost = innermost.cause;
  if (innermost instanceof AggregateError && innermost.errors.length > 0) return reasonOf(innermost.errors[0]);
  return innermost instanceof Error ? innermost.message : String(innermost);
}
