// What probes and Prometheus ask: whether this process is alive, whether it is ready, and its metrics. This is not on
// the port of the API, because a kubelet is not a device of the tailnet.
import type { RequestListener } from 'node:http';
import type { Metrics } from './metrics.ts';

export interface HealthOptions {
  /** Returns why the server is not ready (yet, or any more), or undefined if it is ready. */
  readonly unready: () => string | undefined;
  readonly metrics: Pick<Metrics, 'server' | 'controller'>;
}

/**
 * Returns the request listener for `/healthz`, `/ready` (as the Go server answers it), `/metrics` and
 * `/metrics/controller`.
 */
export function createHealth({ unready, metrics }: HealthOptions): RequestListener {
  return (request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0];
    const json = (status: number, value: unknown) => {
      response.statusCode = status;
      response.setHeader('Content-Type', 'application/json; charset=utf-8');
      response.end(JSON.stringify(value));
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      return json(405, { message: 'method not allowed' });
    }
    if (path === '/healthz') return json(200, { status: 'ok' });
    const registry =
      path === '/metrics' ? metrics.server : path === '/metrics/controller' ? metrics.controller : undefined;
    if (registry !== undefined) {
      registry.metrics().then(
        (text) => {
          response.setHeader('Content-Type', registry.contentType);
          response.end(text);
        },
        () => json(500, { message: 'internal error' }),
      );
      return;
    }
    if (path !== '/ready') return json(404, { message: 'not found' });
    const reason = unready();
    if (reason === undefined) json(200, { status: 'ready', reason: 'the API is served' });
    else json(503, { status: 'not ready', reason });
  };
}
