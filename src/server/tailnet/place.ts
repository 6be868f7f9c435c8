// The server's addresses and names on the tailnet.
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import { type Config, tailnetOf } from '../config/config.ts';

/**
 * Whether the configuration leaves to tailscaled what the server must know to listen, and whom to believe: behind a
 * userspace tailscaled nobody who comes over another address than a loopback one.
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
 * The addresses to listen on: the configured one; else the tailnet's own, or, where they are tailscaled's alone, the
 * loopback address that it passes connections on to. Never all addresses unasked.
 */
export function hostsOf(config: Config, status: TailnetStatus | undefined): readonly string[] {
  const host = config.get('server.host');
  if (host !== undefined) return [host];
  if (status === undefined || status.userspace) return ['127.0.0.1'];
  return status.self.addresses;
}

/** True for what means all addresses. */
export const isWildcard = (host: string): boolean => /^(?:0\.0\.0\.0|[0:]+)$/.test(host);

/**
 * Returns the server's own name, in lower case: `tailscale.hostname`; or the node's, where that is HOSTNAME-N. So are
 * called the other servers of a cluster, and what Tailscale makes of a name that another node has.
 */
export function hostnameOf(config: Config, status: TailnetStatus | undefined): string {
  const hostname = config.get('tailscale.hostname').toLowerCase();
  const node = status?.self.hostName ?? '';
  const [first = ''] = hostname.split('.', 1);
  const isNumbered = node.startsWith(`${first}-`) && /^\d+$/.test(node.slice(first.length + 1));
  return isNumbered ? `${node}${hostname.slice(first.length)}` : hostname;
}

/** The host under which others know this server; undefined where there is none. */
export function publicHost(config: Config, status: TailnetStatus | undefined): string | undefined {
  const hostname = hostnameOf(config, status);
  const tailnet = tailnetOf(config);
  if (tailnet !== '') return hostname.endsWith(`.${tailnet}`) ? hostname : `${hostname}.${tailnet}`;
  const host = config.get('server.host');
  if (host !== undefined && !isWildcard(host)) return host.toLowerCase();
  return status?.self.dnsName || status?.self.addresses[0];
}

/** The name to have a certificate for: the public one where tailscaled can have it, else what it can. */
export function certificateName(config: Config, status: TailnetStatus): string | undefined {
  const wanted = publicHost(config, status);
  const { certDomains, self } = status;
  if (wanted !== undefined && certDomains.includes(wanted)) return wanted;
  return certDomains.includes(self.dnsName) ? self.dnsName : (certDomains[0] ?? (self.dnsName || undefined));
}

/** The tag that members of the mesh have in common: the server's own; undefined where there is none or no saying which. */
export function meshTag({ self }: TailnetStatus): string | undefined {
  const usual = 'tag:tka';
  return self.tags.includes(usual) || self.tags.length !== 1 ? self.tags.find((tag) => tag === usual) : self.tags[0];
}
