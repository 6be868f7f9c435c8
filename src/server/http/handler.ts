// The TKA API over node:http: passes a request to its route, sends the answer, and reports it for logs and metrics.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { cleanText } from '../../util/text.ts';
import { jsonAnswer, messagesOf, notFound, type RouteAnswer, refusalAnswer, requestId, textAnswer } from './answers.ts';
import {
  type Caller,
  type HandlerOptions,
  type JoinedAccess,
  type Origin,
  Refusal,
  type RefusalReason,
} from './contract.ts';
import { apiRoutes, openRoutes, type Served } from './routes.ts';

// Requests of the API have an empty body. Some bytes are allowed, for clients that send `{}`.
const bodyLimit = 4096;

// The name of a joined cluster is a DNS label.
const joinedPath = /^\/clusters\/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(\/.*)$/;

/** What a request asks for. */
interface Target {
  /** The path of the route. */
  readonly path: string;
  /** The joined cluster whose API it is; undefined for that of the server's own cluster. */
  readonly cluster?: string;
}

/** What is known about a request so far. */
interface Known {
  caller?: Caller;
  origin: Origin;
}

/** Returns the TKA API as a request listener. */
export function createHandler(options: HandlerOptions): RequestListener {
  const { identity, limits, onError, onRequest, onDecided } = options;
  const retryAfter = { 'Retry-After': String(options.retryAfterSeconds ?? 1) };

  async function answerTo(
    request: IncomingMessage,
    { path, cluster }: Target,
    id: string,
    signal: AbortSignal,
    known: Known,
  ): Promise<RouteAnswer> {
    // A single line would be HTTP/0.9. Other programs can be tricked into sending one, and that must not sign anybody
    // in.
    if (request.httpVersionMajor !== 1) {
      return textAnswer(400, '400 HTTP/1.1 required', { Connection: 'close' });
    }
    const api = apiRoutes.get(path);
    const open = cluster === undefined ? openRoutes.get(path) : undefined;
    const methods = api ?? open;
    const { method = '' } = request;
    const route = api !== undefined && Object.hasOwn(api, method) ? api[method] : undefined;
    if (route === undefined) await limits?.anonymous(signal);
    if (methods === undefined) return notFound;
    if (!Object.hasOwn(methods, method)) {
      return textAnswer(405, '405 method not allowed', { Allow: Object.keys(methods).join(', ') });
    }
    if (!(await drain(request))) {
      return jsonAnswer(413, { message: 'request body too large' }, { Connection: 'close' });
    }
    const told = open?.[method]?.(request, options);
    if (told !== undefined) return told;
    const named = (origin: Origin): void => {
      known.origin = origin;
    };
    const joined = cluster === undefined ? undefined : options.joined?.({ cluster, id, signal });
    const asking = { signal, named, ...(joined !== undefined && { cluster: joined }) };
    const admit = async (): Promise<void> => {};
    const caller = await (limits?.whoIs(identity, request, asking) ?? identity.whoIs(request, { ...asking, admit }));
    known.caller = caller;
    const end = await limits?.turn(caller.login, signal);
    try {
      signal.throwIfAborted();
      return (await route?.({ caller, request, options: optionsFor(joined), signal, retryAfter })) ?? notFound;
    } finally {
      end?.();
    }
  }

  /** Returns the target of a path. Only a login server has paths of joined clusters. */
  function targetOf(path: string): Target {
    const [, cluster, rest] = (options.joined !== undefined && joinedPath.exec(path)) || [];
    return cluster === undefined || rest === undefined ? { path } : { path: rest, cluster };
  }

  /** Returns the options for the routes: those of a joined cluster, if the request is for one. */
  function optionsFor(joined: JoinedAccess | undefined): Served {
    if (joined === undefined) return options;
    return { ...options, signIns: joined.signIns, clusterInfo: (caller) => joined.clusterInfo(caller) };
  }

  return (request, response) => {
    // Skip requests that arrived together with one for which the connection was closed.
    if (request.socket.destroyed) return;
    const started = performance.now();
    const id = requestId(request.headers['x-request-id']);
    const path = (request.url ?? '/').split('?', 1)[0] as string;
    const target = targetOf(path);
    const { cluster } = target;
    const known: Known = { origin: {} };
    let refused: string | undefined;
    let reason: RefusalReason | undefined;
    const { method = '', socket } = request;
    // Read them now: a closed socket no longer has them.
    const { remoteAddress: address, remotePort: port } = socket;
    response.setHeader('X-Request-Id', id);
    response.setHeader('X-Content-Type-Options', 'nosniff');
    if (onRequest !== undefined) {
      const route = routeOf(target);
      response.once('close', () => {
        const status = response.writableFinished ? response.statusCode : undefined;
        const ms = performance.now() - started;
        onRequest({
          id,
          method,
          route,
          path: cleanText(path, 200),
          status,
          refusal: refused,
          reason,
          ms,
          caller: known.caller,
          address,
          port,
        });
      });
    }
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    answerTo(request, target, id, gone.signal, known)
      .catch((error: unknown) => {
        // A caller that hung up is not a failure of this server.
        if (!(error instanceof Refusal) && socket.destroyed) {
          refused = 'the client closed the connection';
          return { status: 499 };
        }
        if (!(error instanceof Refusal)) onError?.(error, request, id);
        const refusal = error instanceof Refusal ? error : new Refusal(500, { message: 'internal error' });
        refused = messagesOf(refusal.body);
        reason = refusal.reason;
        return refusalAnswer(refusal, target.path, retryAfter);
      })
      .then((answer) => {
        if (onDecided !== undefined && Object.hasOwn(apiRoutes.get(target.path) ?? {}, method)) {
          const { status, access } = answer;
          const { caller, origin } = known;
          const route = target.path;
          onDecided({ id, method, route, cluster, status, refusal: refused, caller, origin, address, access });
        }
        if (limits?.knows(request.socket) === false) response.shouldKeepAlive = false;
        send(response, answer);
      })
      .catch(() => response.destroy());
  };
}

/** Returns the route for logs, metrics and traces, which must not grow with the number of clusters. */
function routeOf({ path, cluster }: Target): string | undefined {
  if (cluster === undefined) return apiRoutes.has(path) || openRoutes.has(path) ? path : undefined;
  return apiRoutes.has(path) ? `/clusters/{cluster}${path}` : undefined;
}

function send(response: ServerResponse, { status, headers = {}, body = '' }: RouteAnswer): void {
  if (response.destroyed) return;
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.end(body);
}

/** Reads and drops the body. Returns false if it is larger than the API accepts. */
async function drain(request: IncomingMessage): Promise<boolean> {
  if (Number(request.headers['content-length'] ?? 0) > bodyLimit) return false;
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += (chunk as Buffer).length;
    if (size > bodyLimit) return false;
  }
  return true;
}
