// The joined server's end of a tunnel: an HTTP/2 server on a connection that this server has opened. It answers the
// requests of the login server, a few at a time.
import { constants, type IncomingHttpHeaders, performServerHandshake, type ServerHttp2Stream } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { type OwnTunnel, type TunnelAnswer, type TunnelRequest, tunnelBodyLimit, tunnelPaths } from './contract.ts';
import { type EndCode, headerLimit, Link, sessionOptions } from './link.ts';
import { readNews } from './news.ts';
import type { KeepTunnelsOptions, TunnelTimes } from './options.ts';

export interface OwnEndOptions {
  readonly tunnel: OwnTunnel;
  readonly answer: KeepTunnelsOptions['answer'];
  readonly times: Required<TunnelTimes>;
  /** Called with what the login server tells with its pings: how many replicas it has, and whether its keys changed. */
  readonly onNews: (replicas: number, hasNewKeys: boolean) => void;
  readonly onEnd: (code: EndCode, reason: string) => void;
  /** Called when an answer failed. */
  readonly onError: (error: unknown, request: TunnelRequest) => void;
}

const ownOptions = {
  ...sessionOptions,
  // Megabytes: 64 of the largest answers that wait for the network are 16.
  maxSessionMemory: 32,
  // A login server ends a request early whenever its caller is gone, so this may be often.
  streamResetBurst: 2_000,
  streamResetRate: 500,
};

/** Serves the requests of a tunnel. Resolves with its link when the login server has begun to speak HTTP/2. */
export function serveTunnel(
  socket: TLSSocket,
  options: OwnEndOptions,
): { readonly link: Link; readonly up: Promise<void> } {
  const { tunnel, times, onNews, onEnd } = options;
  const session = performServerHandshake(socket, ownOptions);
  const link = new Link(session, socket, {
    times,
    onPing(payload) {
      const { replicas, isSame } = readNews(payload, tunnel.keys);
      onNews(replicas, !isSame);
    },
    onEnd,
  });
  session.on('stream', (stream, headers, flags) => {
    // The login server is gone; the stream is closed as well.
    stream.on('error', () => {});
    const request = requestOf(headers);
    if (request === undefined || (flags & constants.NGHTTP2_FLAG_END_STREAM) === 0) {
      return link.end('protocol', 'the login server sends a request that is not for a tunnel');
    }
    link.expect(headerLimit);
    respond(stream, request, options).catch((error) => options.onError(error, request));
  });
  const up = new Promise<void>((resolve) => {
    session.once('localSettings', () => resolve());
  });
  return { link, up };
}

async function respond(
  stream: ServerHttp2Stream,
  request: TunnelRequest,
  { answer, tunnel, times, onError }: OwnEndOptions,
): Promise<void> {
  const gone = new AbortController();
  const late = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), times.requestMs);
  stream.once('close', () => {
    clearTimeout(late);
    gone.abort();
  });
  let { status, headers, body }: TunnelAnswer = { status: 500, headers: {}, body: '' };
  try {
    ({ status, headers, body } = await answer(request, tunnel, gone.signal));
    if (Buffer.byteLength(body) > tunnelBodyLimit) throw new Error(`the answer has more than ${tunnelBodyLimit} bytes`);
  } catch (error) {
    if (gone.signal.aborted) return;
    onError(error, request);
    [status, headers, body] = [500, { 'content-type': 'application/json' }, '{"message":"internal error"}'];
  }
  if (stream.closed || stream.destroyed) return;
  stream.respond({ ...headers, ':status': status, 'content-length': Buffer.byteLength(body) });
  stream.end(body);
}

function requestOf(headers: IncomingHttpHeaders): TunnelRequest | undefined {
  const { ':method': method, ':path': path, 'tka-assertion': assertion, 'tka-request': id } = headers;
  if (method !== 'GET' && method !== 'POST') return undefined;
  if (path === undefined || !tunnelPaths.some((known) => known === path)) return undefined;
  if (typeof assertion !== 'string' || assertion === '' || typeof id !== 'string' || !/^[\w.:-]{1,64}$/.test(id))
    return undefined;
  return { method, path, assertion, id };
}
