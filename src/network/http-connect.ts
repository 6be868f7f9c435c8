import { isIP, type Socket } from 'node:net';
import { cleanText } from '../util/text.ts';
import type { ProxyServer } from './environment.ts';
import { HandshakeError, readHead } from './wire.ts';

const headLimit = 32 * 1024;

/** Asks an HTTP proxy for a tunnel (CONNECT). Throws HandshakeError if the proxy does not open one. */
export async function httpConnect(socket: Socket, proxy: ProxyServer, host: string, port: number): Promise<void> {
  const authority = authorityOf(host, port);
  socket.write(
    `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nUser-Agent: kubectl-tka\r\n${authorization(proxy)}\r\n`,
    'latin1',
  );
  let head: string;
  let status: number;
  let interim = 0;
  do {
    if (++interim > 16) throw new HandshakeError('sends too many interim responses');
    head = await readHead(socket, headLimit);
    const found = /^HTTP\/1\.[01] ([1-9][0-9]{2})(?: |\r|$)/.exec(head);
    if (found === null) throw new HandshakeError('does not speak HTTP');
    status = Number(found[1]);
  } while (status < 200 && status !== 101);
  if (status >= 200 && status < 300) return;
  if (status === 407) {
    throw new HandshakeError(
      proxy.credentials === undefined
        ? 'requires credentials (HTTP 407)'
        : 'rejected the user name and password (HTTP 407)',
      { credentials: true },
    );
  }
  const said = cleanText(head.split('\r\n', 1)[0]?.slice('HTTP/1.1 '.length) ?? '', 80);
  const noTunnel = [403, 405, 501].includes(status);
  // tailscaled gives the reason in its own header, always with status 500.
  const why = /^tailscale-connect-error:(.*)$/im.exec(head)?.[1];
  throw new HandshakeError(
    `answered HTTP ${said} to CONNECT ${authority}${why === undefined ? '' : `: ${cleanText(why, 200)}`}`,
    {
      byAddress: [502, 503, 504].includes(status) || why !== undefined,
      noTunnel,
      patience: status >= 500 && !noTunnel ? 5000 : 0,
    },
  );
}

function authorityOf(host: string, port: number): string {
  return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

function authorization({ credentials }: ProxyServer): string {
  if (credentials === undefined) return '';
  const { user, password } = credentials;
  return `Proxy-Authorization: Basic ${Buffer.from(`${user}:${password}`).toString('base64')}\r\n`;
}
