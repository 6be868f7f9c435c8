import type { Socket } from 'node:net';

/** A proxy did not open a tunnel. */
export class HandshakeError extends Error {
  override readonly name = 'HandshakeError';
  /** Follows the proxy's name in a message: `requires credentials`. */
  readonly what: string;
  /** The proxy may be unable to resolve the name, so a retry by address may work. */
  readonly byAddress: boolean;
  /** The proxy does not allow CONNECT to this target. */
  readonly noTunnel: boolean;
  readonly patience: number;
  readonly credentials: boolean;

  constructor(
    what: string,
    more: { byAddress?: boolean; noTunnel?: boolean; patience?: number; credentials?: boolean } = {},
  ) {
    super(what);
    this.what = what;
    this.byAddress = more.byAddress ?? false;
    this.noTunnel = more.noTunnel ?? false;
    this.patience = more.patience ?? 0;
    this.credentials = more.credentials ?? false;
  }
}

/** Reads `count` bytes and leaves the following bytes in the socket. */
export function readBytes(socket: Socket, count: number): Promise<Buffer> {
  return readTo(socket, (bytes) => (bytes.length >= count ? count : undefined));
}

/**
 * Reads up to and including an empty line, and leaves the following bytes in the socket. Returns the text before it.
 */
export async function readHead(socket: Socket, limit: number): Promise<string> {
  const head = await readTo(socket, (bytes) => {
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0 && bytes.length > limit) throw new HandshakeError('sent a response that is too long');
    return end < 0 ? undefined : end + 4;
  });
  return head.toString('latin1', 0, head.length - 4);
}

/**
 * Reads up to the end that `endOf` finds in the bytes so far, and leaves the following bytes in the socket. Rejects with
 * what `endOf` throws, and with HandshakeError or the socket's error if the connection ends before.
 */
export async function readTo(socket: Socket, endOf: (bytes: Buffer) => number | undefined): Promise<Buffer> {
  let bytes = Buffer.alloc(0);
  for (;;) {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) {
      await arrival(socket);
      continue;
    }
    bytes = Buffer.concat([bytes, chunk]);
    const end = endOf(bytes);
    if (end === undefined) continue;
    // All available bytes have been read, because 'readable' would fire again and again for the unread ones.
    if (end < bytes.length) socket.unshift(bytes.subarray(end));
    return bytes.subarray(0, end);
  }
}

// Without a 'data' listener, because the bytes after the handshake must stay in the socket for TLS or HTTP.
function arrival(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const off = () => {
      socket.off('readable', readable).off('end', ended).off('close', ended).off('error', failed);
    };
    const readable = () => {
      off();
      resolve();
    };
    const ended = () => {
      off();
      reject(socket.errored ?? new HandshakeError('closed the connection', { patience: 5000 }));
    };
    const failed = (error: Error) => {
      off();
      reject(error);
    };
    if (socket.readableEnded || socket.destroyed) return ended();
    socket.on('readable', readable).on('end', ended).on('close', ended).on('error', failed);
  });
}
