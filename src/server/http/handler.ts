// The TKA API over node:http: routes, status codes and headers as the Go server answers them.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { stringify } from 'yaml';
import { apiPath, type LoginAnswer } from '../../tka/types.ts';
import { type Caller, type HandlerOptions, Refusal } from './contract.ts';

const json = 'application/json; charset=utf-8';
const yamlTypes = new Set(['application/yaml', 'text/yaml', 'application/x-yaml']);
// Every request of the API has an empty body; a little is forgiven to clients that send `{}`.
const bodyLimit = 4096;

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}
type Route = (caller: Caller, request: IncomingMessage) => Promise<Answer>;

const jsonAnswer = (status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): Answer => ({
  status,
  headers: { 'Content-Type': json, ...headers },
  body: JSON.stringify(value),
});
const textAnswer = (status: number, body: string, headers: Readonly<Record<string, string>> = {}): Answer => ({
  status,
  headers: { 'Content-Type': 'text/plain', ...headers },
  body,
});
const notFound = textAnswer(404, '404 page not found');

const loginBody = ({ username, role, until }: LoginAnswer): LoginAnswer => ({ username, role, until });

function notSignedIn(status: 401 | 404, { username }: Caller): Refusal {
  return new Refusal(status, {
    message: 'User not signed in',
    advice: ["run 'tka login' to sign in first"],
    cause: { message: `TkaSignin.tka.specht-labs.de "tka-user-${username}" not found` },
  });
}

/** The TKA API as one request listener, given who calls, the sign-ins and the members. */
export function createHandler(options: HandlerOptions): RequestListener {
  const { identity, signIns, members, clusterInfo, onError } = options;
  const retryAfter = { 'Retry-After': String(options.retryAfterSeconds ?? 1) };

  const routes = new Map<string, Readonly<Record<string, Route>>>([
    [
      '/login',
      {
        POST: async (caller) => {
          if (caller.problem !== undefined) throw caller.problem;
          return jsonAnswer(202, loginBody(await signIns.signIn(caller)));
        },
        GET: async (caller) => {
          const found = await signIns.get(caller);
          if (found === undefined) throw notSignedIn(401, caller);
          const { answer, provisioned } = found;
          return provisioned ? jsonAnswer(200, loginBody(answer)) : jsonAnswer(202, loginBody(answer), retryAfter);
        },
      },
    ],
    [
      '/kubeconfig',
      {
        GET: async (caller, request) => {
          const answer = await signIns.kubeconfig(caller);
          if (answer === undefined) throw notSignedIn(401, caller);
          if (answer === 'pending') return { status: 202, headers: retryAfter };
          const chunked = { 'Transfer-Encoding': 'chunked', 'Cache-Control': 'no-store' };
          if (!yamlTypes.has(request.headers.accept ?? '')) return jsonAnswer(200, answer, chunked);
          // YAML 1.1 is what kubectl reads: there `no` and `on` must be quoted.
          const body = stringify(answer, { version: '1.1', sortMapEntries: true, lineWidth: 0 });
          return { status: 200, headers: { 'Content-Type': 'application/yaml', ...chunked }, body };
        },
      },
    ],
    [
      '/logout',
      {
        POST: async (caller) => {
          const answer = await signIns.signOut(caller);
          if (answer === undefined) throw notSignedIn(404, caller);
          return jsonAnswer(200, loginBody(answer));
        },
      },
    ],
    ['/cluster-info', { GET: async () => jsonAnswer(200, await clusterInfo()) }],
    [
      '/memberlist',
      {
        GET: async () => {
          const rows = members?.();
          return rows === undefined ? notFound : jsonAnswer(200, rows);
        },
      },
    ],
  ]);

  async function answerTo(request: IncomingMessage, path: string): Promise<Answer> {
    const methods = path.startsWith(apiPath) ? routes.get(path.slice(apiPath.length)) : undefined;
    if (methods === undefined) return notFound;
    const route = Object.hasOwn(methods, request.method ?? '') ? methods[request.method ?? ''] : undefined;
    if (route === undefined) {
      return textAnswer(405, '405 method not allowed', { Allow: Object.keys(methods).join(', ') });
    }
    if (!(await drain(request))) {
      return jsonAnswer(413, { message: 'request body too large' }, { Connection: 'close' });
    }
    return route(await identity.whoIs(request), request);
  }

  return (request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0] as string;
    answerTo(request, path)
      .catch((error: unknown) => {
        // A caller who hung up is no error of ours.
        if (!(error instanceof Refusal) && !request.socket.destroyed) onError?.(error, request);
        const refusal = error instanceof Refusal ? error : new Refusal(500, { message: 'internal error' });
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
      .then((answer) => send(response, answer))
      .catch(() => response.destroy());
  };
}

function send(response: ServerResponse, { status, headers = {}, body = '' }: Answer): void {
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
