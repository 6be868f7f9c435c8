import * as http from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';

export interface HttpRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Aborts the request and the reading of its body, with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** The head of an answer. The body streams while it is read; a reader that stops early closes the connection. */
export interface HttpAnswer {
  readonly statusCode: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Readable;
}

/** An HTTP client for one origin. It sends one request at a time over one connection. */
export interface Client {
  /** Rejects with the connection's error, the signal's reason, or ClientDestroyed. */
  request(request: HttpRequest): Promise<HttpAnswer>;
  /** Ends all requests, the connection, and any attempt to connect. */
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

/** The value of the Host header, and how to connect. `closed` aborts when the client is destroyed. */
export interface HttpOptions {
  readonly host: string;
  readonly connect: (closed: AbortSignal) => Promise<Socket>;
}

/**
 * Returns a client based on node:http. undici would have to be compiled at every start, which takes half the time of a
 * sign-in.
 */
export function httpClient({ host, connect }: HttpOptions): Client {
  const closed = new AbortController();
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  agent.createConnection = (_, callback) => {
    connect(closed.signal).then(
      (socket) => callback?.(null, socket),
      // Node itself calls it with the error alone.
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
          // The reader of the body gets the error; without a listener it would crash the process.
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
