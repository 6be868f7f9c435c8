import { createServer, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import { isLoopback } from '../../util/address.ts';

/** How long each part of a connection may take (0 means no limit), and how many connections there may be. */
export interface Limits {
  readonly readTimeoutMs?: number;
  readonly readHeaderTimeoutMs?: number;
  readonly writeTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
  /** Maximum number of open connections; more are closed at once. Default 1,024. */
  readonly connections?: number;
  /** Maximum number of open connections from one address. Default 128. */
  readonly connectionsPerAddress?: number;
  /**
   * Returns whether several callers share an address. Default: loopback, because a userspace tailscaled connects from
   * there for everybody.
   */
  readonly isShared?: (address: string) => boolean;
  /**
   * Returns whether the caller of a connection is known. If set, connections of unknown callers make room for new ones.
   */
  readonly isKnown?: ((socket: Socket) => boolean) | undefined;
}

/** A server's certificate and key, in PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

export function createTkaServer(handler: RequestListener, limits?: Limits): Server;
export function createTkaServer(handler: RequestListener, limits: Limits, pair: KeyPair): HttpsServer;
/** Creates an HTTP server with the API's limits on headers and time. With a key pair it serves TLS. */
export function createTkaServer(handler: RequestListener, limits: Limits = {}, pair?: KeyPair): Server | HttpsServer {
  const options = {
    maxHeaderSize: 16 * 1024,
    requestTimeout: limits.readTimeoutMs ?? 10_000,
    headersTimeout: limits.readHeaderTimeoutMs ?? 5_000,
    keepAliveTimeout: limits.idleTimeoutMs ?? 120_000,
    // Node checks connections only every 30 s by default: six times the header timeout.
    connectionsCheckingInterval: 1_000,
  };
  const server =
    pair === undefined
      ? createServer(options, handler)
      : createHttpsServer({ ...options, ...pair, handshakeTimeout: options.headersTimeout || 120_000 }, handler);
  server.timeout = limits.writeTimeoutMs ?? 20_000;
  server.maxConnections = limits.connections ?? 1_024;
  limitPipelines(server);
  if (limits.isKnown !== undefined) limitStrangers(server, server.maxConnections, limits.isKnown);
  limitAddresses(server, limits.connectionsPerAddress ?? 128, limits.isShared ?? isLoopback);
  return server;
}

/**
 * Closes a connection that keeps sending requests before earlier ones are answered, because each request takes memory.
 */
function limitPipelines(server: Server): void {
  const waiting = new WeakMap<Socket, number>();
  server.prependListener('request', ({ socket }, response) => {
    const count = (waiting.get(socket) ?? 0) + 1;
    if (count > pipelineLimit) socket.destroy();
    waiting.set(socket, count);
    response.once('close', () => waiting.set(socket, (waiting.get(socket) ?? 1) - 1));
  });
}

/** Closes connections of one address beyond its share, so that one device cannot hold all connections. */
function limitAddresses(server: NetServer, most: number, isShared: (address: string) => boolean): void {
  const counts = new Map<string, number>();
  server.on('connection', (socket: Socket) => {
    const { remoteAddress: address } = socket;
    if (address === undefined || isShared(address)) return;
    const count = (counts.get(address) ?? 0) + 1;
    if (count > most) {
      socket.destroy();
      return;
    }
    counts.set(address, count);
    socket.once('close', () => {
      const left = (counts.get(address) ?? 1) - 1;
      if (left === 0) counts.delete(address);
      else counts.set(address, left);
    });
  });
}

/**
 * When there are many connections, closes the oldest one of an unknown caller for each new one. Behind a userspace
 * tailscaled all callers have the same address, so one device could otherwise hold all connections.
 */
function limitStrangers(server: NetServer, most: number, isKnown: (socket: Socket) => boolean): void {
  // By address and port, because with TLS a request has another socket object than the accepted connection.
  const strangers = new Map<string, { readonly accepted: Socket; socket: Socket }>();
  const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;
  let open = 0;
  server.on('connection', (accepted: Socket) => {
    if (accepted.destroyed) return;
    const key = keyOf(accepted);
    open++;
    strangers.set(key, { accepted, socket: accepted });
    accepted.once('close', () => {
      open--;
      if (strangers.get(key)?.accepted === accepted) strangers.delete(key);
    });
    for (const [oldest, stranger] of strangers) {
      if (open <= most * 0.75 || strangers.size <= most / 8) return;
      strangers.delete(oldest);
      if (isKnown(stranger.socket)) continue;
      stranger.accepted.destroy();
      return;
    }
  });
  server.prependListener('request', ({ socket }: { readonly socket: Socket }) => {
    const stranger = strangers.get(keyOf(socket));
    if (stranger !== undefined) stranger.socket = socket;
  });
}

// Few clients send a request before the previous one is answered. Ours never do.
const pipelineLimit = 16;

interface Traffic {
  /**
   * Includes sockets in their TLS handshake: closeAllConnections() does not know them, and close() would wait for them.
   */
  readonly sockets: Set<Socket>;
  /** Responses that are not finished yet. */
  readonly answers: Set<ServerResponse>;
}

const traffic = new WeakMap<NetServer, Traffic>();

function watch(server: NetServer): void {
  if (traffic.has(server)) return;
  const sockets = new Set<Socket>();
  const answers = new Set<ServerResponse>();
  traffic.set(server, { sockets, answers });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('request', (_, response: ServerResponse) => {
    answers.add(response);
    response.once('close', () => answers.delete(response));
  });
}

/** Starts to listen. Resolves with the port. */
export async function listen(server: NetServer, host: string, port: number): Promise<number> {
  watch(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  return (server.address() as AddressInfo).port;
}

/** Stops listening and drops every connection. */
export async function close(server: NetServer): Promise<void> {
  if (!server.listening) return;
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    for (const socket of traffic.get(server)?.sockets ?? []) socket.destroy();
  });
}

/** Stops listening, waits at most `ms` milliseconds for open requests to be answered, then drops every connection. */
export async function drain(server: NetServer, ms: number): Promise<void> {
  const { sockets, answers } = traffic.get(server) ?? {
    sockets: new Set<Socket>(),
    answers: new Set<ServerResponse>(),
  };
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const late = setTimeout(() => {
    for (const socket of sockets) socket.destroy();
  }, ms);
  await Promise.all([...answers].map((response) => new Promise((resolve) => response.once('close', resolve))));
  // destroySoon() first sends what is already written.
  for (const socket of sockets) socket.destroySoon();
  await closed;
  clearTimeout(late);
}
