// Reads tailscaled's status. Other users of the tailnet choose their devices' names, so everything in it is checked.

import { isLoopback, isTailnetIp, plainIp } from '../util/address.ts';
import { isObject, type Json, own, parseJson, texts } from '../util/json.ts';
import { cleanText, quoted } from '../util/text.ts';
import { TailscaleError } from './problem.ts';

/** A device of the tailnet. */
export interface Peer {
  /** The first label of its DNS name; empty if it has none (only this machine). */
  readonly hostName: string;
  /** In lower case, without a dot at the end. */
  readonly dnsName: string;
  readonly addresses: readonly string[];
  /** Granted by the tailnet's policy: `tag:tka`. */
  readonly tags: readonly string[];
  readonly online: boolean;
  /** True for this machine. */
  readonly self: boolean;
}

/** The tailnet as tailscaled sees it. */
export interface TailnetStatus {
  /**
   * The tailnet's name in the control plane (`CurrentTailnet.Name`, the Domain of tailcfg.MapResponse), in lower case;
   * empty if unknown. Not the display name, which an admin can choose. For its forms see server/identity/login.ts.
   */
  readonly name: string;
  /** The MagicDNS suffix in lower case, without dots at its ends: `example.ts.net`. Empty if there is none. */
  readonly suffix: string;
  /** The login of this machine's user: `alice@example.com`. Empty if unknown or if the machine is tagged. */
  readonly login: string;
  readonly self: Peer;
  /** All devices with a DNS name, this machine included, sorted by that name. */
  readonly peers: readonly Peer[];
  /**
   * Userspace networking: connections from the tailnet arrive from loopback, and the machine has no tailnet address.
   */
  readonly userspace: boolean;
  /** The names for which tailscaled can get a certificate. */
  readonly certDomains: readonly string[];
}

/**
 * Parses the status document of tailscaled or `tailscale status --json`. With `loopback`, a peer may have loopback
 * addresses. Throws TailscaleError unless Tailscale is running.
 */
export function parseStatus(text: string, options: { loopback: boolean }): TailnetStatus {
  const status = parseJson(text);
  if (status === undefined) throw unreadable('not JSON');
  const state = own(status, 'BackendState');
  if (typeof state !== 'string') throw unreadable('no BackendState');
  if (state !== 'Running') throw notRunning(state);
  const suffix = dnsName(own(own(status, 'CurrentTailnet'), 'MagicDNSSuffix') ?? own(status, 'MagicDNSSuffix'));
  const itself = own(status, 'Self');
  if (!isObject(itself)) throw unreadable('no Self');
  const self = { ...peerOf(itself, suffix, options.loopback), self: true };
  const rest = own(status, 'Peer');
  const peers = [self];
  for (const peer of isObject(rest) ? Object.values(rest) : []) {
    // A device of another tailnet with which a machine of this tailnet is shared.
    if (!isObject(peer) || own(peer, 'ShareeNode') === true) continue;
    peers.push(peerOf(peer, suffix, options.loopback));
  }
  const named = peers.filter((peer) => peer.dnsName !== '');
  return {
    name: tailnetName(own(own(status, 'CurrentTailnet'), 'Name')),
    suffix,
    login: self.tags.length === 0 ? loginOf(own(own(status, 'User'), String(own(itself, 'UserID')))) : '',
    self,
    peers: named.sort((a, b) => (a.dnsName < b.dnsName ? -1 : a.dnsName > b.dnsName ? 1 : 0)),
    userspace: own(status, 'TUN') === false,
    certDomains: texts(own(status, 'CertDomains'), 64)
      .map(dnsName)
      .filter((name) => name !== ''),
  };
}

function unreadable(what: string): TailscaleError {
  return new TailscaleError('unreadable', `tailscaled's status cannot be read (${what})`, [
    'check it: tailscale status --json',
  ]);
}

function notRunning(state: string): TailscaleError {
  const help = (problem: TailscaleError['problem'], message: string, hint: string) =>
    new TailscaleError(problem, message, [hint]);
  if (state === 'Stopped') return help('stopped', 'tailscale is stopped', 'start it: tailscale up');
  if (state === 'NeedsLogin') return help('needs-login', 'tailscale is logged out', 'log in: tailscale login');
  if (state === 'NeedsMachineAuth') {
    const where = 'https://login.tailscale.com/admin/machines';
    return help(
      'needs-approval',
      'this machine awaits approval on the tailnet',
      `ask an admin to approve it: ${where}`,
    );
  }
  if (state === 'InUseOtherUser') {
    return help('other-user', 'tailscale is in use by another user of this machine', 'check it: tailscale status');
  }
  if (state === 'Starting' || state === 'NoState') {
    return help('starting', 'tailscale is still starting', 'wait until it is up: tailscale status');
  }
  return unreadable(`its state is ${quoted(state, 40)}`);
}

function peerOf(peer: Json, suffix: string, loopback: boolean): Peer {
  const name = dnsName(own(peer, 'DNSName'));
  // A device shared from another tailnet has that tailnet's name and tags.
  const ours = suffix !== '' && name.endsWith(`.${suffix}`);
  const good = (ip: string | undefined): ip is string =>
    ip !== undefined && (isTailnetIp(ip) || (loopback && isLoopback(ip)));
  return {
    hostName: name.split('.', 1)[0] ?? '',
    dnsName: name,
    addresses: texts(own(peer, 'TailscaleIPs'), 16).map(plainIp).filter(good),
    tags: ours ? texts(own(peer, 'Tags'), 64).filter((tag) => /^tag:[A-Za-z][A-Za-z0-9-]{0,62}$/.test(tag)) : [],
    online: own(peer, 'Online') === true && own(peer, 'Expired') !== true,
    self: false,
  };
}

/** Returns a DNS name in lower case, without dots at its ends; empty for anything else. */
export function dnsName(value: unknown): string {
  if (typeof value !== 'string' || value.length > 255) return '';
  const name = value.toLowerCase().replace(/^\.|\.$/g, '');
  return /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/.test(name)
    ? name
    : '';
}

// A tagged machine belongs to this user.
const nobody = 'tagged-devices';

function loginOf(user: unknown): string {
  const login = own(user, 'LoginName');
  return typeof login === 'string' && login.length <= 320 && login !== nobody ? cleanText(login, 320) : '';
}

function tailnetName(value: unknown): string {
  return typeof value === 'string' && value.length <= 320 ? value.toLowerCase() : '';
}
