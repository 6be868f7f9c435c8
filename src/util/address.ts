import { BlockList, isIP } from 'node:net';

// Plain http is for these only: this machine, and the tailnet, which encrypts by itself.
const private_ = new BlockList();
private_.addSubnet('127.0.0.0', 8, 'ipv4');
private_.addAddress('::1', 'ipv6');
private_.addSubnet('100.64.0.0', 10, 'ipv4');
private_.addSubnet('fd7a:115c:a1e0::', 48, 'ipv6');

/** True for an IP address of loopback or of a tailnet (100.64.0.0/10, fd7a:115c:a1e0::/48). */
export function isLoopbackOrTailnet(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && private_.check(address, family === 6 ? 'ipv6' : 'ipv4');
}
