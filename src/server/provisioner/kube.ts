// A cluster's API as the provisioner uses it: @kubernetes/client-node knows where it is, how to authenticate and how to
// trust it; this adds what every call needs here: pooled connections, a time limit, and errors that can be told.
import { type HttpMethod, IsomorphicFetchHttpLibrary, type KubeConfig, RequestContext } from '@kubernetes/client-node';

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

/** One cluster's API. Every call throws a KubeError. */
export interface Kube {
  /** undefined when there is none. */
  get<T>(path: string): Promise<T | undefined>;
  /** All objects of a collection, read in pages from one state of it. */
  list<T>(path: string): AsyncGenerator<T, string>;
  create<T>(path: string, object: unknown): Promise<T>;
  replace<T>(path: string, object: unknown): Promise<T>;
  /** A JSON merge patch (RFC 7396); `metadata.resourceVersion` in it is a precondition (409). */
  patch<T>(path: string, patch: unknown): Promise<T>;
  /** False when it is gone already, or is not what the preconditions say. */
  remove(path: string, preconditions: Preconditions): Promise<boolean>;
  /** Ends what is under way. */
  close(): void;
}

const timeoutMs = 8_000;
// Certificates may change on disk: connections are made anew now and then.
const poolMs = 5 * 60_000;
const pageSize = 500;

/** One name as a part of a path. Throws a KubeError (404) for what no object can be called. */
export function segment(name: string): string {
  if (/^\.{0,2}$|[/%]/.test(name)) throw new KubeError(`no object is called "${name}"`, 404);
  return encodeURIComponent(name);
}

/** The API of the kubeconfig's current cluster. Throws when there is none. */
export function connectKube(kubeConfig: KubeConfig): Kube {
  const cluster = kubeConfig.getCurrentCluster();
  if (!cluster) throw new Error('the kubeconfig has no current cluster');
  const base = cluster.server.replace(/\/+$/, '');
  const http = new IsomorphicFetchHttpLibrary();
  const closing = new AbortController();
  let pool: { dispatcher: NonNullable<ReturnType<RequestContext['getDispatcher']>>; since: number } | undefined;

  // client-node makes a connection pool for each request, so that each would open a connection of its own.
  function share(context: RequestContext): void {
    const fresh = context.getDispatcher();
    if (fresh === undefined) return;
    if (pool === undefined || performance.now() - pool.since > poolMs) {
      pool?.dispatcher.close().catch(() => undefined);
      pool = { dispatcher: fresh, since: performance.now() };
    }
    context.setDispatcher(pool.dispatcher);
  }

  async function call<T>(method: HttpMethod, path: string, body?: unknown, type = 'application/json'): Promise<T> {
    const url = `${base}${path}`;
    let status: number;
    let text: string;
    try {
      const context = new RequestContext(url, method);
      await kubeConfig.applySecurityAuthentication(context);
      share(context);
      context.setHeaderParam('Accept', 'application/json');
      context.setHeaderParam('User-Agent', 'tka-server');
      if (body !== undefined) {
        context.setHeaderParam('Content-Type', type);
        context.setBody(JSON.stringify(body));
      }
      context.setSignal(AbortSignal.any([closing.signal, AbortSignal.timeout(timeoutMs)]));
      const response = await http.send(context).toPromise();
      status = response.httpStatusCode;
      text = await response.body.text();
    } catch (error) {
      throw new KubeError(
        `${method[0]}${method.slice(1).toLowerCase()} "${url}": ${reasonOf(error)}`,
        undefined,
        error,
      );
    }
    const answer = parse(text);
    if (status >= 200 && status < 300) {
      if (answer === undefined) throw new KubeError(`${method} "${url}": the answer is not JSON`);
      return answer as T;
    }
    const { message } = (answer ?? {}) as { readonly message?: unknown };
    throw new KubeError(typeof message === 'string' && message !== '' ? message : `${url} answered ${status}`, status);
  }

  return {
    async get<T>(path: string) {
      try {
        return await call<T>('GET', path);
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
    create: (path, object) => call('POST', path, object),
    replace: (path, object) => call('PUT', path, object),
    patch: (path, patch) => call('PATCH', path, patch, 'application/merge-patch+json'),
    async remove(path, preconditions) {
      try {
        await call('DELETE', path, { apiVersion: 'v1', kind: 'DeleteOptions', preconditions });
        return true;
      } catch (error) {
        if (isStatus(error, 404, 409)) return false;
        throw error;
      }
    },
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

// undici says "fetch failed", and why only in its cause.
function reasonOf(error: unknown): string {
  let innermost: unknown = error;
  while (innermost instanceof Error && innermost.cause instanceof Error) innermost = innermost.cause;
  if (innermost instanceof AggregateError && innermost.errors.length > 0) return reasonOf(innermost.errors[0]);
  return innermost instanceof Error ? innermost.message : String(innermost);
}
