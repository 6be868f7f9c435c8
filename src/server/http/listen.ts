import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';

/** How long a connection may take for each part; 0 is without limit. */
export interface Limits {
  readonly readTimeoutMs?: number;
  readonly readHeaderTimeoutMs?: number;
  readonly writeTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
}

/** An HTTP server with the API's limits on headers and time. */
export function createTkaServer(handler: RequestListener, limits: Limits = {}): Server {
  const server = createServer(
    {
      maxHeaderSize: 16 * 1024,
      requestTimeout: limits.readTimeoutMs ?? 10_000,
      headersTimeout: limits.readHeaderTimeoutMs ?? 5_000,
      keepAliveTimeout: limits.idleTimeoutMs ?? 120_000,
      // The default looks at connections every 30 s only, six times the header timeout.
      connectionsCheckingInterval: 1_000,
    },
    handler,
  );
  server.timeout = limits.writeTimeoutMs ?? 20_000;
  return server;
}

// Every open socket of a listening server: also those that are still in their TLS handshake, which closeAllConnections
// does not know and close() would wait for.
const open = new WeakMap<NetServer, Set<Socket>>();

/** Starts to listen; resolves to the port. */
export async function listen(server: NetServer, host: string, port: number): Promise<number> {
  if (!open.has(server)) {
    const sockets = new Set<Socket>();
    open.set(server, sockets);
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    });
  }
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
    for (const socket of open.get(server) ?? []) socket.destroy();
  });
}
