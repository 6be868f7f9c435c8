// Where the server is on the tailnet: what tailscaled's status says of it.

import { setTimeout as delay } from 'node:timers/promises';
import {
  ownNames,
  type TailnetStatus,
  TailscaleError,
  tailnetStatus,
  type WhoIs,
  whoIs,
} from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import { type Config, tailnetOf } from '../config/config.ts';
import type { Log } from '../log/log.ts';

const timeout = 5_000;
const again = 1_000;

/** The tailnet's status, now. Throws TailscaleError. */
export function askStatus(env: NodeJS.ProcessEnv, log: Log): Promise<TailnetStatus> {
  return tailnetStatus({ env, timeout, log: (line) => log.debug({}, line) });
}

/**
 * The status as soon as tailscaled is up and has an address: a sidecar starts when the server does. `onWait` is told why
 * there is none yet. Rejects only when the signal ends the waiting.
 */
export async function waitForTailnet(
  env: NodeJS.ProcessEnv,
  log: Log,
  signal: AbortSignal,
  onWait: (why: string) => void,
): Promise<TailnetStatus> {
  for (let told = ''; ; ) {
    signal.throwIfAborted();
    let why: string;
    let hints: readonly string[] = [];
    try {
      const status = await askStatus(env, log);
      if (status.self.addresses.length > 0) return status;
      why = 'tailscaled has no address on the tailnet yet';
    } catch (error) {
      if (!(error instanceof TailscaleError)) throw error;
      why = error.message;
      hints = error.hints;
    }
    if (why !== told) log.warn({ hints }, `waiting for tailscaled: ${why}`);
    told = why;
    onWait(`tailscaled is not up yet: ${why}`);
    await delay(again, undefined, { signal });
  }
}

const renameMs = 5_000;

/**
 * Resolves with the node's DNS name when it is another than in this status: an admin renames a node, and a new version of
 * `deploy/` may. Rejects only when the signal ends the waiting.
 */
export async function untilRenamed(
  { self }: TailnetStatus,
  env: NodeJS.ProcessEnv,
  log: Log,
  signal: AbortSignal,
): Promise<string> {
  for (;;) {
    await delay(renameMs, undefined, { signal });
    try {
      const { dnsName } = await ownNames({ env, timeout, log: (line) => log.debug({}, line) });
      if (dnsName !== '' && dnsName !== self.dnsName) return dnsName;
    } catch (error) {
      if (!(error instanceof TailscaleError)) throw error;
    }
  }
}

// An admin renames a tailnet once in years; the status of a large one is megabytes.
const nameMs = 10 * 60_000;

/** Returns a function that answers the tailnet's name, as of the last minutes. Until it is known, that throws TailscaleError. */
export function tailnetName(
  env: NodeJS.ProcessEnv,
  log: Log,
  status: TailnetStatus | undefined,
): () => Promise<string> {
  let known = status?.name;
  let asking: Promise<string> | undefined;
  let askedAt = performance.now();

  async function ask(): Promise<string> {
    try {
      known = (await askStatus(env, log)).name;
      return known;
    } finally {
      asking = undefined;
      askedAt = performance.now();
    }
  }

  return async () => {
    if (known === undefined || performance.now() - askedAt > nameMs) {
      asking ??= ask();
      // Nobody waits for a name that is known already.
      asking.catch((error: unknown) => log.debug({ err: error }, "tailscaled does not say the tailnet's name"));
    }
    return known ?? (asking as Promise<string>);
  };
}

/**
 * Returns a function that asks tailscaled who is at the other end of a connection to us; undefined for a caller from
 * outside the tailnet. Behind a userspace tailscaled, all of the tailnet's connections come over loopback: a caller with
 * any other address is not asked about, because a pod network may use the tailnet's addresses too, and tailscaled would
 * take such a pod for its own node. The function throws TailscaleError.
 */
export function whoCalls(options: {
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  readonly userspace: boolean;
  readonly timeoutMs?: number;
}): (address: string, port: number, signal?: AbortSignal) => Promise<WhoIs | undefined> {
  const { env, log, userspace, timeoutMs = timeout } = options;
  return async (address, port, signal) => {
    if (userspace && !isLoopback(address)) return undefined;
    return await whoIs(address, port, { env, timeout: timeoutMs, signal, log: (line) => log.debug({}, line) });
  };
}

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
