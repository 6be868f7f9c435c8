import { isIP } from 'node:net';
import { hostOf } from '../util/url.ts';

/** The short name of a TKA server: its host without the tailnet's suffix. */
export function shortName(server: string, tailnet: string): string {
  const host = hostOf(server);
  if (isIP(host) !== 0 || host === 'localhost') return host;
  if (tailnet !== '' && host.endsWith(`.${tailnet}`)) return host.slice(0, -tailnet.length - 1);
  return /^([^.]+)\.[^.]+\.ts\.net$/.exec(host)?.[1] ?? host;
}

/**
 * Names for the context of a server's cluster: the cluster's own, if it is known, then the server's, shortest first. The
 * later ones add what may be needed to keep two apart. They stay whatever else there is, so nothing has to be renamed later.
 */
export function contextNames(server: string, tailnet: string, cluster: string | null = null): string[] {
  const { port, protocol } = new URL(server);
  const host = hostOf(server);
  const withPort = port === '' ? host : `${host}-${port}`;
  const short = shortName(server, tailnet);
  return [
    ...new Set([...(cluster === null ? [] : [cluster]), short, host, withPort, `${protocol.slice(0, -1)}-${withPort}`]),
  ];
}
