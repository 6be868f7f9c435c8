import { BlockList, isIP } from 'node:net';

const tailnet = new BlockList();
tailnet.addSubnet('100.64.0.0', 10, 'ipv4');
tailnet.addSubnet('fd7a:115c:a1e0::', 48, 'ipv6');

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

const isIn = (list: BlockList, ip: string): boolean => list.check(ip, isIP(ip) === 6 ? 'ipv6' : 'ipv4');

/** An IP address in its one usual spelling; undefined for what is none, has a zone, or is an IPv4 address in disguise. */
export function plainIp(text: string): string | undefined {
  if (text.length > 45 || text.includes('%')) return undefined;
  const family = isIP(text);
  if (family === 4) return text;
  if (family !== 6 || /^(?:0{0,4}:){1,5}:?ffff:/i.test(text)) return undefined;
  return new URL(`http://[${text}]`).hostname.slice(1, -1);
}

/** True for an address that a tailnet assigns (100.64.0.0/10, fd7a:115c:a1e0::/48). Takes what plainIp gives. */
export function isTailnetIp(ip: string): boolean {
  return isIn(tailnet, ip);
}

/** True for an address of this machine alone. Takes what plainIp gives. */
export function isLoopbackIp(ip: string): boolean {
  return isIn(loopback, ip);
}
