// Connections through a userspace tailscaled use SOCKS5 (ALL_PROXY). Node does not support it, and undici takes too
// long to start.

import { isIP, type Socket } from 'node:net';
import type { ProxyServer } from './environment.ts';
import { HandshakeError, readBytes } from './wire.ts';

const version = 5;
const noAuthentication = 0;
const userAndPassword = 2;

// RFC 1928, section 6. tailscaled sends only reply 1, for all failures.
const replies: Readonly<Record<number, { what: string; byAddress?: boolean; patience: number }>> = {
  1: { what: 'failed to connect to', byAddress: true, patience: 2000 },
  2: { what: 'is not allowed to connect to', patience: 0 },
  3: { what: 'has no network route to', byAddress: true, patience: 500 },
  4: { what: 'cannot reach', byAddress: true, patience: 500 },
  5: { what: 'was refused a connection to', patience: 2000 },
  6: { what: 'has too many hops to', patience: 500 },
  7: { what: 'does not support CONNECT to', patience: 0 },
  8: { what: 'does not support the address type of', patience: 0 },
};

/** Asks a SOCKS5 proxy (RFC 1928, 1929) for a connection; the proxy resolves names. Throws HandshakeError. */
export async function socks5Connect(socket: Socket, proxy: ProxyServer, host: string, port: number): Promise<void> {
  const { credentials } = proxy;
  const methods = credentials === undefined ? [noAuthentication] : [noAuthentication, userAndPassword];
  socket.write(Buffer.from([version, methods.length, ...methods]));
  const [spoken, method] = await readBytes(socket, 2);
  if (spoken !== version) throw new HandshakeError('does not speak SOCKS5');
  if (method === userAndPassword && credentials !== undefined) {
    const [user, password] = [Buffer.from(credentials.user), Buffer.from(credentials.password)];
    if (user.length === 0 || user.length > 255 || password.length > 255) {
      throw new HandshakeError('accepts user names of 1 to 255 bytes and passwords of up to 255 bytes', {
        credentials: true,
      });
    }
    socket.write(Buffer.concat([Buffer.from([1, user.length]), user, Buffer.from([password.length]), password]));
    const [, status] = await readBytes(socket, 2);
    if (status !== 0) {
      throw new HandshakeError('rejected the user name and password', { credentials: true });
    }
  } else if (method !== noAuthentication) {
    throw new HandshakeError(
      credentials === undefined
        ? 'requires credentials'
        : 'accepts neither a user name and password nor no authentication',
      { credentials: true },
    );
  }

  socket.write(Buffer.concat([Buffer.from([version, 1, 0]), addressBytes(host), Buffer.from([port >> 8, port & 255])]));
  const [answered, reply = 0, , type] = await readBytes(socket, 4);
  if (answered !== version) throw new HandshakeError('does not speak SOCKS5');
  if (reply !== 0) {
    const { what, ...more } = replies[reply] ?? { what: `answered with the unknown code ${reply} for`, patience: 0 };
    throw new HandshakeError(`${what} ${host}:${port} (SOCKS reply ${reply})`, more);
  }
  // Skip the address that the proxy connected from.
  const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? (await readBytes(socket, 1))[0] : undefined;
  if (length === undefined) throw new HandshakeError('does not speak SOCKS5');
  await readBytes(socket, length + 2);
}

function addressBytes(host: string): Buffer {
  if (isIP(host) === 4) return Buffer.from([1, ...host.split('.').map(Number)]);
  if (isIP(host) === 6) return Buffer.from([4, ...ipv6Bytes(host)]);
  const name = Buffer.from(host);
  if (name.length > 255) throw new HandshakeError('accepts names of up to 255 bytes');
  return Buffer.concat([Buffer.from([3, name.length]), name]);
}

function ipv6Bytes(address: string): number[] {
  // URL replaces a dotted IPv4 part at the end of the address by hexadecimal groups.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const groups = (text: string) => text.split(':').flatMap((g) => (g === '' ? [] : [Number.parseInt(g, 16)]));
  const [first, last] = [groups(head), groups(tail ?? '')];
  const zeros = new Array<number>(8 - first.length - last.length).fill(0);
  return [...first, ...zeros, ...last].flatMap((group) => [group >> 8, group & 255]);
}
