// What both ends of a tunnel do with its HTTP/2 session: ping, notice when the other side is gone or sends too much,
// and close.
import type { ClientHttp2Session, Http2Session, ServerHttp2Session } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { seconds } from '../../network/failure.ts';
import { systemCode } from '../../util/errors.ts';
import type { TunnelTimes } from './options.ts';

/**
 * Why a tunnel ended. `silent`: no answer to a ping. `protocol`: the other side broke a rule. `goodbye`: it said that it
 * closes. `replaced`: there is a newer tunnel. `broken`: the connection failed. `closed`: this side closed it.
 */
export type EndCode = 'silent' | 'protocol' | 'goodbye' | 'replaced' | 'broken' | 'closed';

export const defaultTimes: Required<TunnelTimes> = {
  handshakeMs: 10_000,
  pingMs: 5_000,
  silenceMs: 10_000,
  requestMs: 20_000,
  redialMs: [1_000, 30_000],
};

/** Maximum size of the headers of a request or an answer, in bytes. */
export const headerLimit = 16 * 1024;

/** Maximum number of requests at once on a tunnel. */
export const streamLimit = 64;

/** Settings of both ends. `maxSessionMemory` (in MB) differs. */
export const sessionOptions = {
  maxHeaderListPairs: 64,
  maxOutstandingPings: 2,
  maxSettings: 16,
  maxSessionInvalidFrames: 16,
  maxSessionRejectedStreams: 16,
  maxReservedRemoteStreams: 0,
  peerMaxConcurrentStreams: streamLimit,
  settings: { enablePush: false, maxHeaderListSize: headerLimit, maxConcurrentStreams: streamLimit },
} as const;

// What the other side may send besides requests and answers, in bytes per second: pings, settings, interim answers,
// frames without data. Without a limit it could keep this process busy.
const idleRate = 64 * 1024;
const rateMs = 1_000;
// Maximum number of bytes that the other side may save up.
const creditLimit = 16 * 1024 * 1024;

export interface LinkOptions {
  readonly times: Required<TunnelTimes>;
  /** Returns the 8 bytes of the next ping. */
  readonly payload?: () => Buffer;
  /** Receives the 8 bytes of each ping of the other side. */
  readonly onPing?: (payload: Uint8Array) => void;
  /** Called once, as soon as the tunnel is of no use for further requests. */
  readonly onEnd: (code: EndCode, reason: string) => void;
}

/** An HTTP/2 session over a TLS connection, from its handshake to its end. */
export class Link {
  readonly #session: Http2Session;
  readonly #socket: TLSSocket;
  readonly #options: LinkOptions;
  readonly #rate: NodeJS.Timeout;
  #timer: NodeJS.Timeout | undefined;
  #end: { readonly code: EndCode; readonly reason: string } | undefined;
  #lastSeen = Date.now();
  #credit = 0;
  /** Resolves when the connection is closed. */
  readonly closed: Promise<void>;

  constructor(session: ClientHttp2Session | ServerHttp2Session, socket: TLSSocket, options: LinkOptions) {
    this.#session = session;
    this.#socket = socket;
    this.#options = options;
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        // The session may have closed it, and tells why right after this event.
        setImmediate(() => {
          this.end('broken', 'the connection was closed');
          resolve();
        });
      });
    });
    // The reason is that of the first event. Node closes the session after each of these.
    session.on('error', (error) => {
      const broke = systemCode(error)?.startsWith('ERR_HTTP2_') ? 'protocol' : 'broken';
      this.end(broke, error.message);
    });
    session.on('goaway', (code) => {
      if (code === 0) this.#leave('goodbye', 'the other side closes it');
      else this.end('protocol', `the other side reports the HTTP/2 error ${code}`);
    });
    session.on('frameError', (type, code) => this.end('protocol', `HTTP/2 frame ${type} failed with ${code}`));
    session.on('close', () => this.end('broken', 'the connection was closed'));
    if (options.onPing !== undefined) session.on('ping', options.onPing);
    this.#rate = this.#limitRate();
    this.#ping();
  }

  /** True as long as the tunnel can be used for further requests. */
  get isOpen(): boolean {
    return this.#end === undefined;
  }

  /** Unix time in milliseconds of the last answer or ping. */
  get lastSeen(): number {
    return this.#lastSeen;
  }

  /** Notes that the other side has just answered. */
  seen(): void {
    this.#lastSeen = Date.now();
  }

  /** Allows the other side to send this many bytes more: the headers of a request or an answer, or a body. */
  expect(bytes: number): void {
    this.#credit = Math.min(this.#credit + bytes, creditLimit);
  }

  /** Closes the tunnel at once. */
  end(code: EndCode, reason: string): void {
    this.#finish(code, reason);
    clearTimeout(this.#timer);
    clearInterval(this.#rate);
    if (!this.#session.destroyed) this.#session.destroy();
    // The session first sends what is written, which never ends if the other side does not read.
    if (code === 'silent' || code === 'protocol') this.#socket.destroy();
    else if (!this.#socket.destroyed) setTimeout(() => this.#socket.destroy(), 1_000).unref();
  }

  /** Closes the tunnel when the open requests are answered, at the latest after `ms`. */
  leave(code: EndCode, reason: string, ms = this.#options.times.requestMs): Promise<void> {
    if (this.isOpen) {
      this.#leave(code, reason, ms);
      // Says goodbye, and ends after the last request.
      this.#session.close();
    }
    return this.closed;
  }

  #leave(code: EndCode, reason: string, ms = this.#options.times.requestMs): void {
    if (!this.isOpen) return;
    this.#finish(code, reason);
    const late = setTimeout(() => this.end(code, reason), ms);
    this.#socket.once('close', () => clearTimeout(late));
  }

  #finish(code: EndCode, reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = { code, reason };
    this.#options.onEnd(code, reason);
  }

  /** Pings after each pause, as long as the other side answers. */
  #ping(): void {
    const { payload, times } = this.#options;
    if (this.#session.destroyed) return;
    let isAnswered = false;
    // Returns false only if the session is about to close.
    this.#session.ping(payload?.() ?? Buffer.alloc(8), (error) => {
      if (error !== null || this.#session.destroyed) return;
      isAnswered = true;
      this.seen();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#ping(), times.pingMs);
    });
    this.#timer = setTimeout(() => {
      // This process may have been suspended: the answer may be here already, so it is read first.
      setImmediate(() => {
        if (!isAnswered) this.end('silent', `no answer to a ping for ${seconds(times.silenceMs)}`);
      });
    }, times.silenceMs);
  }

  /** Ends the tunnel if the other side sends more than it may. */
  #limitRate(): NodeJS.Timeout {
    let before = this.#socket.bytesRead;
    let at = performance.now();
    return setInterval(() => {
      // It waits for the other side to read what is written, which may never happen.
      if (this.#session.destroyed) return this.end('broken', 'the HTTP/2 session has ended');
      const now = performance.now();
      const sent = this.#socket.bytesRead - before;
      const allowed = idleRate * Math.max(1, (now - at) / 1_000);
      before += sent;
      at = now;
      // What was expected and has not come yet may come later.
      const excess = sent - this.#credit;
      this.#credit = Math.max(0, -excess);
      if (excess > allowed) this.end('protocol', `the other side sends too much: ${Math.round(excess / 1024)} KiB`);
    }, rateMs);
  }
}
