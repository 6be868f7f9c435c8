import { isIP } from 'node:net';

/**
 * The short name of a TKA server: its host without the tailnet's suffix. A server that is reached by an address has no
 * host name; there the name that it gave itself does, where it is known.
 */
export function shortName(server: string, tailnet: string, memberName: string | null = null): string {
  const host = new URL(server).hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) !== 0 || host === 'localhost') return memberName ?? host;
  if (tailnet !== '' && host.endsWith(`.${tailnet}`)) return host.slice(0, -tailnet.length - 1);
  return /^([^.]+)\.[^.]+\.ts\.net$/.exec(host)?.[1] ?? host;
}

/**
 * Names for a server's context, shortest first: the later ones add what may be needed to keep two servers apart. They
 * stay with the server whatever else there is, so nothing has to be renamed later.
 */
export function contextNames(server: string, tailnet: string, memberName: string | null = null): string[] {
  const { hostname, port, protocol } = new URL(server);
  const host = hostname.replace(/^\[|\]$/g, '');
  const withPort = port === '' ? host : `${host}-${port}`;
  const short = shortName(server, tailnet, memberName);
  return [...new Set([short, host, withPort, `${protocol.slice(0, -1)}-${withPort}`])];
}
