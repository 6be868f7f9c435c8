// The login server's end of a tunnel: an HTTP/2 client on a connection that the joined server has opened. The joined
// server is not trusted: whatever it sends, a request ends in time, and takes no more memory than its limits allow.
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { seconds } from '../../network/failure.ts';
import {
  type ClusterStatement,
  type Tunnel,
  type TunnelAnswer,
  TunnelError,
  type TunnelRequest,
  tunnelBodyLimit,
  tunnelHeaders,
  tunnelPaths,
} from './contract.ts';
import { type EndCode, headerLimit, Link, sessionOptions, streamLimit } from './link.ts';
import { newsPayload } from './news.ts';
import type { TunnelTimes } from './options.ts';

// Interim answers (1xx) are ignored. There is no reason for many.
const interimLimit = 8;
const headerValueLimit = 1024;
// Not the name of the cluster: some DNS labels are no hosts of a URL (`99999999999`).
const authority = 'https://joined-cluster.invalid';
const assertionLimit = 8 * 1024;
// Megabytes. Bodies do not count, because they are read at once.
const loginOptions = { ...sessionOptions, maxSessionMemory: 4 };

export interface LoginTunnelOptions {
  readonly id: string;
  readonly cluster: string;
  readonly replica: string;
  readonly statement: ClusterStatement;
  readonly keys: readonly string[];
  readonly times: Required<TunnelTimes>;
  /** Returns how many replicas the login server has, and its public keys. */
  readonly news: () => { readonly replicas: number; readonly keys: readonly string[] };
  readonly onEnd: (tunnel: LoginTunnel, code: EndCode, reason: string) => void;
}

/** A tunnel at the login server. */
export class LoginTunnel implements Tunnel {
  readonly id: string;
  readonly cluster: string;
  readonly replica: string;
  readonly statement: ClusterStatement;
  readonly keys: readonly string[];
  readonly since = Date.now();
  readonly #session: ClientHttp2Session;
  readonly #link: Link;
  readonly #requestMs: number;
  #running = 0;

  constructor(socket: TLSSocket, options: LoginTunnelOptions) {
    const { id, cluster, replica, statement, keys, times, news, onEnd } = options;
    this.id = id;
    this.cluster = cluster;
    this.replica = replica;
    this.statement = statement;
    this.keys = keys;
    this.#requestMs = times.requestMs;
    this.#session = connect(authority, { ...loginOptions, createConnection: () => socket });
    this.#link = new Link(this.#session, socket, {
      times,
      payload: () => newsPayload(news()),
      onEnd: (code, reason) => onEnd(this, code, reason),
    });
    this.#session.on('stream', (stream) => {
      stream.on('error', () => {});
      this.#link.end('protocol', 'the joined server pushes an answer that was not asked for');
    });
    this.#session.on('altsvc', () => this.#link.end('protocol', 'the joined server names other servers'));
    this.#session.on('origin', () => this.#link.end('protocol', 'the joined server names other servers'));
  }

  /**
   * Resolves when the joined server has accepted the limits of this session, which count from then on. Rejects if the
   * signal aborts first, or the tunnel ends.
   */
  async ready(signal: AbortSignal): Promise<void> {
    await once(this.#session, 'localSettings', { signal });
  }

  lastSeen(): number {
    return this.#link.lastSeen;
  }

  get isOpen(): boolean {
    return this.#link.isOpen;
  }

  close(reason: string): void {
    this.leave('closed', reason).catch(() => {});
  }

  /** Closes the tunnel at once. */
  end(code: EndCode, reason: string): void {
    this.#link.end(code, reason);
  }

  /** Closes the tunnel after the open requests. */
  leave(code: EndCode, reason: string, ms?: number): Promise<void> {
    return this.#link.leave(code, reason, ms);
  }

  async request(request: TunnelRequest, signal: AbortSignal): Promise<TunnelAnswer> {
    const { method, path, assertion, id } = request;
    const isKnown = tunnelPaths.some((known) => known === path) && (method === 'GET' || method === 'POST');
    if (!isKnown) throw new TunnelError(`${method} ${path} is not for a tunnel`);
    if (assertion.length > assertionLimit) throw new TunnelError('the assertion is too long');
    if (!/^[\w.:-]{1,64}$/.test(id)) throw new TunnelError('the ID of the request is invalid');
    if (!this.#link.isOpen) throw new TunnelError('the tunnel is closed');
    if (this.#running >= streamLimit) throw new TunnelError(`there are ${streamLimit} requests already`);
    if (signal.aborted) throw new TunnelError(whyAborted(signal));
    this.#running++;
    this.#link.expect(headerLimit);
    const headers = { ':method': method, ':path': path, 'tka-assertion': assertion, 'tka-request': id };
    const stream = this.#session.request(headers, { endStream: true });
    stream.once('close', () => this.#running--);
    const answer = await this.#answer(stream, signal);
    this.#link.seen();
    return answer;
  }

  /** Reads the answer. Ends the tunnel if the joined server breaks a rule, and else only the request. */
  #answer(stream: ClientHttp2Stream, signal: AbortSignal): Promise<TunnelAnswer> {
    return new Promise((resolve, reject) => {
      const give = (why: string): void => {
        reject(new TunnelError(why));
        stream.close(constants.NGHTTP2_CANCEL);
      };
      const broken = (why: string): void => {
        reject(new TunnelError(why));
        this.#link.end('protocol', why);
      };
      const late = setTimeout(() => give(`no complete answer within ${seconds(this.#requestMs)}`), this.#requestMs);
      const abort = (): void => give(whyAborted(signal));
      signal.addEventListener('abort', abort, { once: true });
      let head: Pick<TunnelAnswer, 'status' | 'headers'> | undefined;
      let expected: number | undefined;
      let interim = 0;
      const chunks: Buffer[] = [];
      let length = 0;
      stream.on('headers', () => {
        if (++interim > interimLimit) broken('the joined server sends interim answers without end');
      });
      stream.on('response', (headers) => {
        if (head !== undefined) return broken('the joined server answers twice');
        head = headOf(headers);
        expected = /^\d{1,7}$/.test(headers['content-length'] ?? '') ? Number(headers['content-length']) : undefined;
        if (head === undefined) broken('the joined server answers with an invalid status or header');
        else if (expected === undefined) broken('the joined server answers without a length');
        else if (expected > tunnelBodyLimit) broken(`the joined server answers more than ${tunnelBodyLimit} bytes`);
      });
      stream.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > tunnelBodyLimit) return broken(`the joined server answers more than ${tunnelBodyLimit} bytes`);
        this.#link.expect(chunk.length);
        chunks.push(chunk);
      });
      stream.on('end', () => {
        if (head === undefined || length !== expected) return;
        const body = textOf(Buffer.concat(chunks, length));
        if (body === undefined) broken('the joined server answers with a text that is not UTF-8');
        else resolve({ ...head, body });
      });
      // The stream is closed as well, with or without an error.
      stream.on('error', () => {});
      stream.once('close', () => {
        clearTimeout(late);
        signal.removeEventListener('abort', abort);
        // Without effect after a complete answer.
        reject(new TunnelError('the joined server ended the request without a complete answer'));
      });
    });
  }
}

/** Returns why a request is given up: AbortSignal.timeout has a reason of its own. */
const whyAborted = ({ reason }: AbortSignal): string =>
  reason instanceof Error && reason.name === 'TimeoutError' ? 'no complete answer in time' : 'the caller is gone';

const utf8 = new TextDecoder('utf-8', { fatal: true });

function textOf(bytes: Buffer): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Returns the head of an answer; undefined if its status or one of its headers is invalid. Redirects are invalid. */
function headOf(given: IncomingHttpHeaders): Pick<TunnelAnswer, 'status' | 'headers'> | undefined {
  const status = Number(given[':status']);
  if (!Number.isInteger(status) || status < 200 || status > 599 || (status >= 300 && status < 400)) return undefined;
  const headers: Record<string, string> = {};
  for (const name of tunnelHeaders) {
    const value = given[name];
    if (value === undefined) continue;
    if (typeof value !== 'string' || value.length > headerValueLimit || !/^[ -~]*$/.test(value)) return undefined;
    headers[name] = value;
  }
  return { status, headers };
}
