// Asks tailscaled who is at the other end of a connection (client/tailscale/apitype.WhoIsResponse).
import { isIP } from 'node:net';
import { own, parseJson, texts } from '../util/json.ts';
import { TailscaleError } from './problem.ts';
import { type LocalOptions, localRequest } from './request.ts';
import { dnsName } from './status.ts';

/** The device at the other end of a connection, and what the tailnet's policy grants it here. */
export interface WhoIs {
  /** `alice@example.com`; empty where there is none. */
  readonly login: string;
  /** The device's ID in the control plane (StableNodeID), `nBLYviWLGB11DEVEL`; empty where there is none. It never changes. */
  readonly device: string;
  /** The device's name as the tailnet gives it (Node.Name): lower case, no dot at the end; empty where there is none. */
  readonly dnsName: string;
  /** The device's address on the tailnet, without its prefix length; empty where there is none. */
  readonly address: string;
  /** A tagged device has no user. */
  readonly tags: readonly string[];
  /** The rules under a capability's name; empty for none. */
  rules(capability: string): readonly unknown[];
}

/** Returns `address:port` as tailscaled accepts it; an IPv4 address that is written as IPv6 becomes IPv4. */
export function addressPort(address: string, port: number): string {
  const plain = address.replace(/^::ffff:(?=[0-9.]+$)/i, '');
  return plain.includes(':') ? `[${plain}]:${port}` : `${plain}:${port}`;
}

/**
 * Returns who is at the other end of a TCP connection; undefined for an address outside the tailnet. With userspace
 * networking that is known only while the connection is open. Throws TailscaleError.
 */
export async function whoIs(address: string, port: number, options: LocalOptions): Promise<WhoIs | undefined> {
  const query = new URLSearchParams({ addr: addressPort(address, port), proto: 'tcp' });
  const { status, body } = await localRequest(`/localapi/v0/whois?${query}`, options);
  if (status === 404) return undefined;
  if (status !== 200) throw unreadable(`HTTP ${status}`);
  const answer = parseJson(body);
  if (answer === undefined) throw unreadable('not JSON');
  const login = own(own(answer, 'UserProfile'), 'LoginName');
  const map = own(answer, 'CapMap');
  const node = own(answer, 'Node');
  const device = own(node, 'StableID');
  return {
    login: typeof login === 'string' && login.length <= 320 ? login : '',
    device: typeof device === 'string' && /^[A-Za-z0-9]{1,64}$/.test(device) ? device : '',
    dnsName: dnsName(own(node, 'Name')),
    address:
      texts(own(node, 'Addresses'), 16)
        .map((address) => address.split('/', 1)[0] ?? '')
        .find(isIp) ?? '',
    tags: texts(own(node, 'Tags'), 64),
    rules(capability) {
      const rules = own(map, capability);
      return Array.isArray(rules) ? rules : [];
    },
  };
}

const isIp = (text: string): boolean => isIP(text) !== 0;

function unreadable(what: string): TailscaleError {
  return new TailscaleError('unreadable', `tailscaled's answer to whois cannot be read (${what})`, [
    'check it: tailscale whois',
  ]);
}
