// The server's addresses and names on the tailnet.
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import { type Config, tailnetOf } from '../config/config.ts';

/**
 * Returns whether the server needs tailscaled's status to know where to listen and which callers to trust. Behind a
 * userspace tailscaled it trusts only callers over loopback.
 */
export function needsTailnet(config: Config): boolean {
  const host = config.get('server.host') ?? '';
  return (
    !(host.toLowerCase() === 'localhost' || isLoopback(host)) ||
    config.get('tailscale.port') === 443 ||
    (config.get('gossip.enabled') && config.get('gossip.key').length === 0)
  );
}

/**
 * Returns the addresses to listen on: the configured one, or else the tailnet's own. If only tailscaled can use those,
 * returns the loopback address to which it passes connections. Never returns all addresses unless configured.
 */
export function hostsOf(config: Config, status: TailnetStatus | undefined): readonly string[] {
  const host = config.get('server.host');
  if (host !== undefined) return [host];
  if (status === undefined || status.userspace) return ['127.0.0.1'];
  return status.self.addresses;
}

/** Returns whether a host means all addresses. */
export const isWildcard = (host: string): boolean => /^(?:0\.0\.0\.0|[0:]+)$/.test(host);

/**
 * Returns the server's own name in lower case: `tailscale.hostname`, or the node's name if that is HOSTNAME-N. The
 * other servers of a cluster have such names. Tailscale also adds a number if another node already has the name.
 */
export function hostnameOf(config: Config, status: TailnetStatus | undefined): string {
  const hostname = config.get('tailscale.hostname').toLowerCase();
  const node = status?.self.hostName ?? '';
  const [first = ''] = hostname.split('.', 1);
  const isNumbered = node.startsWith(`${first}-`) && /^\d+$/.test(node.slice(first.length + 1));
  return isNumbered ? `${node}${hostname.slice(first.length)}` : hostname;
}

/** Returns the host by which others know this server, or undefined if there is none. */
export function publicHost(config: Config, status: TailnetStatus | undefined): string | undefined {
  const hostname = hostnameOf(config, status);
  const tailnet = tailnetOf(config);
  if (tailnet !== '') return hostname.endsWith(`.${tailnet}`) ? hostname : `${hostname}.${tailnet}`;
  const host = config.get('server.host');
  if (host !== undefined && !isWildcard(host)) return host.toLowerCase();
  return status?.self.dnsName || status?.self.addresses[0];
}

/**
 * Returns the name for the certificate: the public host if tailscaled can get a certificate for it, or else a name for
 * which it can.
 */
export function certificateName(config: Config, status: TailnetStatus): string | undefined {
  const wanted = publicHost(config, status);
  const { certDomains, self } = status;
  if (wanted !== undefined && certDomains.includes(wanted)) return wanted;
  return certDomains.includes(self.dnsName) ? self.dnsName : (certDomains[0] ?? (self.dnsName || undefined));
}

/**
 * Returns the tag that the members of the mesh share: the usual one (`tag:tka`), or else the only tag of this server.
 * Returns undefined if the server has no tag, or several others.
 */
export function meshTag({ self }: Pick<TailnetStatus, 'self'>, usual: string): string | undefined {
  return self.tags.includes(usual) || self.tags.length !== 1 ? self.tags.find((tag) => tag === usual) : self.tags[0];
}
