// kubectl users put CIDRs into NO_PROXY, which neither Node nor undici supports.

import { BlockList, isIP } from 'node:net';
import { domainToASCII } from 'node:url';
import { isLoopback } from '../util/address.ts';

/**
 * Returns whether NO_PROXY excludes a host (a name, or an IP address without brackets). The syntax is that of Go and
 * kubectl: a name with its subdomains, `.suffix` for subdomains only, an address, a CIDR, each with an optional port,
 * or `*` for all. Loopback never uses a proxy.
 */
export function bypassesProxy(noProxy: string, host: string, port: number): boolean {
  const name = host.toLowerCase().replace(/\.$/, '');
  const address = isIP(name) === 0 ? undefined : plainAddress(name);
  if (name === 'localhost' || (address !== undefined && isLoopback(address))) return true;
  const entries = noProxy.split(',').map((entry) => entry.trim().toLowerCase());
  return entries.includes('*') || entries.some((entry) => matches(entry, name, address, port));
}

function matches(entry: string, name: string, address: string | undefined, port: number): boolean {
  const range = subnet(entry);
  // A BlockList finds an IPv4 address in ::/0, Go does not.
  if (range !== undefined)
    return address !== undefined && isIP(address) === range.family && within(range.list, address);
  const [host, entryPort] = split(entry);
  if (entryPort !== undefined && entryPort !== '' && entryPort !== String(port)) return false;
  if (host === '') return false;
  if (isIP(host) !== 0) return address === plainAddress(host);
  const rest = host.replace(/^\*(?=\.)/, '').replace(/(?<=.)\.$/, '');
  const suffix = domainToASCII(rest.replace(/^\./, '')) || rest.replace(/^\./, '');
  return name.endsWith(`.${suffix}`) || (!rest.startsWith('.') && name === suffix);
}

// As Go's net.SplitHostPort, except that any text other than `host:port` and `[address]:port` is a host.
function split(entry: string): [string, string?] {
  const found = /^(?:\[([^[\]]*)\]|([^:[\]]*)):([^:[\]]*)$/.exec(entry);
  return found === null ? [entry] : [found[1] ?? found[2] ?? '', found[3] ?? ''];
}

function subnet(entry: string): { list: BlockList; family: number } | undefined {
  const [, address = '', digits = ''] = /^([^/]+)\/([0-9]{1,3})$/.exec(entry) ?? [];
  const family = isIP(address);
  if (family === 0 || Number(digits) > (family === 6 ? 128 : 32)) return undefined;
  const plain = plainAddress(address);
  const mapped = family === 6 && isIP(plain) === 4;
  if (mapped && Number(digits) < 96) return undefined;
  const list = new BlockList();
  list.addSubnet(plain, Number(digits) - (mapped ? 96 : 0), isIP(plain) === 6 ? 'ipv6' : 'ipv4');
  return { list, family: isIP(plain) };
}

function within(list: BlockList, address: string): boolean {
  return list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

// Returns an address in its usual spelling. IPv4-mapped IPv6 addresses are unmapped.
function plainAddress(address: string): string {
  if (isIP(address) !== 6 || address.includes('%')) return address;
  const short = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(short) ?? [];
  if (high === undefined || low === undefined) return short;
  return [high, low].flatMap((part) => [Number.parseInt(part, 16) >> 8, Number.parseInt(part, 16) & 255]).join('.');
}
