import * as http from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';

export interface HttpRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Ends the request and its answer with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** The head of an answer. The body arrives while it is read; to stop reading closes the connection. */
export interface HttpAnswer {
  readonly statusCode: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Readable;
}

/** An HTTP client for one origin, which sends one request at a time over one connection. */
export interface Client {
  /** Rejects with the error of the connection, of the signal, or ClientDestroyed. */
  request(request: HttpRequest): Promise<HttpAnswer>;
  /** Ends the requests, the connection, and an attempt to connect. */
  destroy(): Promise<void>;
}

/** A request whose client was destroyed. */
export class ClientDestroyed extends Error {
  override readonly name = 'ClientDestroyed';
  readonly code = 'ERR_CLIENT_DESTROYED';

  constructor() {
    super('the connection was given up');
  }
}

/** The value of the Host header, and how to connect. `closed` is aborted when the client is destroyed. */
export interface HttpOptions {
  readonly host: string;
  readonly connect: (closed: AbortSignal) => Promise<Socket>;
}

/** Returns a client on node:http. undici would have to be compiled at every start: half the time of a sign-in. */
export function httpClient({ host, connect }: HttpOptions): Client {
  const closed = new AbortController();
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  agent.createConnection = (_, callback) => {
    connect(closed.signal).then(
      (socket) => callback?.(null, socket),
      // Node itself calls it so, with the error alone.
      (error) => (callback as ((error: Error) => void) | undefined)?.(error),
    );
    return undefined;
  };

  return {
    request: ({ method, path, headers, body, signal }) =>
      new Promise((resolve, reject) => {
        const request = http.request({ agent, method, path, headers: { host, ...headers }, maxHeaderSize: 32 * 1024 });
        let answer: http.IncomingMessage | undefined;
        const give = (reason: Error) => {
          reject(reason);
          (answer ?? request).destroy(reason);
        };
        const abort = () => give(signal?.reason);
        const close = () => give(new ClientDestroyed());
        const settled = () => {
          signal?.removeEventListener('abort', abort);
          closed.signal.removeEventListener('abort', close);
        };
        request.once('close', () => {
          settled();
          // An unexpected answer, such as a change of protocols, ends a request without an error.
          reject(Object.assign(new Error('the connection was closed'), { code: 'ECONNRESET' }));
        });
        request.on('error', (error) => {
          settled();
          reject(error);
        });
        request.once('response', (message) => {
          answer = message;
          // The reader of the body gets the error.
          message.on('error', () => {});
          resolve({ statusCode: message.statusCode ?? 0, headers: message.headers, body: message });
        });
        if (signal?.aborted) return abort();
        if (closed.signal.aborted) return close();
        signal?.addEventListener('abort', abort, { once: true });
        closed.signal.addEventListener('abort', close, { once: true });
        request.end(body);
      }),
    async destroy() {
      closed.abort();
      agent.destroy();
    },
  };
}
