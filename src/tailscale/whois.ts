// Asks tailscaled for the device at the other end of a connection (client/tailscale/apitype.WhoIsResponse).
import { isIP } from 'node:net';
import { own, parseJson, texts } from '../util/json.ts';
import { TailscaleError } from './problem.ts';
import { type LocalOptions, localRequest } from './request.ts';
import { dnsName } from './status.ts';

/** The device at the other end of a connection, and what the tailnet's policy grants to it on this machine. */
export interface WhoIs {
  /** The user's login: `alice@example.com`; empty if there is none. */
  readonly login: string;
  /**
   * The device's ID in the control plane (StableNodeID), which never changes: `nBLYviWLGB11DEVEL`; empty if there is
   * none.
   */
  readonly device: string;
  /** The device's name in the tailnet (Node.Name), in lower case, without a dot at the end; empty if there is none. */
  readonly dnsName: string;
  /** The device's first tailnet address, without its prefix length; empty if there is none. */
  readonly address: string;
  /** Tags of the device. A tagged device has no user. */
  readonly tags: readonly string[];
  /** Returns the rules granted under a capability's name; empty if there are none. */
  rules(capability: string): readonly unknown[];
}

/** Returns `address:port` as tailscaled accepts it. IPv4-mapped IPv6 addresses are unmapped. */
export function addressPort(address: string, port: number): string {
  const plain = address.replace(/^::ffff:(?=[0-9.]+$)/i, '');
  return plain.includes(':') ? `[${plain}]:${port}` : `${plain}:${port}`;
}

/**
 * Returns the device at the other end of a TCP connection; undefined for an address outside the tailnet. With userspace
 * networking, tailscaled knows it only while the connection is open. Throws TailscaleError.
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
