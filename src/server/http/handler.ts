// The TKA API over node:http: from a request to its route's answer, and the word about it to whoever logs and counts.
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { apiPath, type ErrorBody } from '../../tka/types.ts';
import { cleanText } from '../../util/text.ts';
import { jsonAnswer, notFound, type RouteAnswer, textAnswer } from './answers.ts';
import { type Caller, type HandlerOptions, type Origin, Refusal, type RefusalReason } from './contract.ts';
import { apiRoutes, openRoutes } from './routes.ts';

// Every request of the API has an empty body; a little is forgiven to clients that send `{}`.
const bodyLimit = 4096;

/** The TKA API as one request listener, given who calls, the sign-ins and the members. */
export function createHandler(options: HandlerOptions): RequestListener {
  const { identity, limits, onError, onRequest, onDecided } = options;
  const retryAfter = { 'Retry-After': String(options.retryAfterSeconds ?? 1) };

  async function answerTo(
    request: IncomingMessage,
    path: string,
    signal: AbortSignal,
    known: { caller?: Caller; origin: Origin },
  ): Promise<RouteAnswer> {
    // A line alone would be HTTP/0.9: what makes somebody else's program send one must not sign anybody in.
    if (request.httpVersionMajor !== 1) {
      return textAnswer(400, '400 HTTP/1.1 is meant', { Connection: 'close' });
    }
    const [api, open] = [apiRoutes.get(path), openRoutes.get(path)];
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
    const admit = async (): Promise<void> => {};
    const caller = await (limits?.whoIs(identity, request, { signal, named }) ??
      identity.whoIs(request, { signal, named, admit }));
    known.caller = caller;
    const end = await limits?.turn(caller.login, signal);
    try {
      signal.throwIfAborted();
      return (await route?.({ caller, request, options, signal, retryAfter })) ?? notFound;
    } finally {
      end?.();
    }
  }

  return (request, response) => {
    // The rest of what came in one piece, on a connection that was closed for it.
    if (request.socket.destroyed) return;
    const started = performance.now();
    const id = idOf(request);
    const path = (request.url ?? '/').split('?', 1)[0] as string;
    const known: { caller?: Caller; origin: Origin } = { origin: {} };
    let refused: string | undefined;
    let reason: RefusalReason | undefined;
    const { method = '', socket } = request;
    // They are gone by the time that it is over.
    const { remoteAddress: address, remotePort: port } = socket;
    response.setHeader('X-Request-Id', id);
    response.setHeader('X-Content-Type-Options', 'nosniff');
    if (onRequest !== undefined) {
      const route = apiRoutes.has(path) || openRoutes.has(path) ? path : undefined;
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
    answerTo(request, path, gone.signal, known)
      .catch((error: unknown) => {
        // A caller that hung up is not a failure of this server.
        if (!(error instanceof Refusal) && socket.destroyed) {
          refused = 'the caller hung up';
          return { status: 499 };
        }
        if (!(error instanceof Refusal)) onError?.(error, request, id);
        const refusal = error instanceof Refusal ? error : new Refusal(500, { message: 'internal error' });
        refused = wholeOf(refusal.body);
        reason = refusal.reason;
        // The Go server sends Retry-After with this route's 401 and 500 as well.
        const again = path === `${apiPath}/kubeconfig` && (refusal.status === 401 || refusal.status === 500);
        const headers =
          refusal.retryAfterSeconds !== undefined
            ? { 'Retry-After': String(refusal.retryAfterSeconds) }
            : again
              ? retryAfter
              : {};
        return jsonAnswer(refusal.status, refusal.body, headers);
      })
      .then((answer) => {
        if (onDecided !== undefined && Object.hasOwn(apiRoutes.get(path) ?? {}, method)) {
          const { status, access } = answer;
          const { caller, origin } = known;
          onDecided({ id, method, route: path, status, refusal: refused, caller, origin, address, access });
        }
        if (limits?.knows(request.socket) === false) response.shouldKeepAlive = false;
        send(response, answer);
      })
      .catch(() => response.destroy());
  };
}

/** The ID that the caller gave the request, if it can be no harm in a log, or a new one. */
function idOf({ headers }: IncomingMessage): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,64}$/.test(given) ? given : randomUUID();
}

/** What is wrong and why, in a line: whoever reads the log must mend what the caller is only told of. */
function wholeOf(body: ErrorBody): string {
  const messages: string[] = [];
  for (let at: ErrorBody | undefined = body; at && messages.length < 5; at = at.cause) messages.push(at.message);
  return cleanText(messages.join(': '), 1000);
}

function send(response: ServerResponse, { status, headers = {}, body = '' }: RouteAnswer): void {
  if (response.destroyed) return;
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.end(body);
}

/** Reads and drops the body; false when it is larger than anything the API takes. */
async function drain(request: IncomingMessage): Promise<boolean> {
  if (Number(request.headers['content-length'] ?? 0) > bodyLimit) return false;
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += (chunk as Buffer).length;
    if (size > bodyLimit) return false;
  }
  return true;
}
