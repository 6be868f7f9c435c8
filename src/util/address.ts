import { BlockList, isIP } from 'node:net';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

const tailnet = new BlockList();
tailnet.addSubnet('100.64.0.0', 10, 'ipv4');
tailnet.addSubnet('fd7a:115c:a1e0::', 48, 'ipv6');

function isIn(list: BlockList, address: string): boolean {
  const family = isIP(address);
  return family !== 0 && list.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

/** Returns whether a text is a loopback IP address; also accepts IPv4-mapped IPv6 (`::ffff:127.0.0.1`). */
export const isLoopback = (address: string): boolean => isIn(loopback, address);

/** Returns whether a text is an IP address that a tailnet assigns (100.64.0.0/10, fd7a:115c:a1e0::/48). */
export const isTailnetIp = (address: string): boolean => isIn(tailnet, address);

/**
 * Returns whether plain http is allowed to an IP address: loopback, or a tailnet address, where the tailnet encrypts.
 */
export const isLoopbackOrTailnet = (address: string): boolean => isLoopback(address) || isTailnetIp(address);

/**
 * Returns an IP address in its usual spelling; undefined for other texts, addresses with a zone, and IPv4-mapped IPv6.
 */
export function plainIp(text: string): string | undefined {
  if (text.length > 45 || text.includes('%')) return undefined;
  const family = isIP(text);
  if (family === 4) return text;
  if (family !== 6 || /^(?:0{0,4}:){1,5}:?ffff:/i.test(text)) return undefined;
  return new URL(`http://[${text}]`).hostname.slice(1, -1);
}

/** Returns whether a value is `host:port` or `[::1]:port` in lower case. */
export function isHostPort(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    /^(?:[a-z0-9][a-z0-9._-]{0,252}|\[[0-9a-f:.]{2,45}\]):[1-9]\d{0,4}$/.test(value) &&
    URL.canParse(`http://${value}`)
  );
}
