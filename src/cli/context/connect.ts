// Everything needed to reach a server. A token for kubectl needs no more, so this file imports nothing about
// kubeconfigs and clusters.
import { type Network, openNetwork } from '../../network/network.ts';
import { Sessions } from '../../session/sessions.ts';
import { SessionStore } from '../../session/store.ts';
import type { Paths } from '../../settings/paths.ts';
import { signInTimeout } from '../../settings/settings.ts';
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import type { Terminal } from '../../terminal/output.ts';
import type { World } from './siblings.ts';

export interface Tailnet {
  (): Promise<TailnetStatus>;
  /** Returns its MagicDNS suffix without loading its devices; undefined if there is none. Never throws. */
  suffix(): Promise<string | undefined>;
}

/** Asks tailscaled, with a timeout of 2 s. Throws TailscaleError. */
export async function askTailnet(env: NodeJS.ProcessEnv, { log }: Pick<Terminal, 'log'>): Promise<TailnetStatus> {
  const { tailnetStatus } = await import('../../tailscale/localapi.ts');
  return tailnetStatus({ env, timeout: 2000, log });
}

/** Returns a function like askTailnet() that asks only once, on first use. */
export function tailnetOnce(env: NodeJS.ProcessEnv, terminal: Terminal): Tailnet {
  let status: Promise<TailnetStatus> | undefined;
  let suffix: Promise<string | undefined> | undefined;
  const ask = () => {
    status ??= askTailnet(env, terminal);
    return status;
  };
  return Object.assign(ask, {
    suffix: () => {
      suffix ??= (status ?? askSuffix(env, terminal)).then(
        (known) => known.suffix || undefined,
        () => undefined,
      );
      return suffix;
    },
  });
}

async function askSuffix(env: NodeJS.ProcessEnv, { log }: Pick<Terminal, 'log'>): Promise<{ suffix: string }> {
  const { ownNames } = await import('../../tailscale/localapi.ts');
  return await ownNames({ env, timeout: 500, log });
}

/** Opens the network to servers. Can ask tailscaled for their addresses. */
export function openConnection(
  env: NodeJS.ProcessEnv,
  caFile: string | undefined,
  tailnet: Tailnet,
  { log }: Terminal,
): Network {
  const tailnetAddresses = (host: string) => peerAddresses(host, tailnet);
  return openNetwork({ env, caFile, tailnetAddresses, tailnetSuffix: tailnet.suffix, log });
}

/**
 * Returns the Tailscale addresses of the device with a host name: the full name, or its first label. Returns none for a
 * name in the tailnet (or in any under ts.net) that no device has; undefined for other names, and if tailscaled does
 * not answer.
 */
async function peerAddresses(
  host: string,
  tailnet: () => Promise<TailnetStatus>,
): Promise<readonly string[] | undefined> {
  const wanted = host.replace(/\.$/, '').toLowerCase();
  try {
    const { peers, suffix } = await tailnet();
    const name = wanted.includes('.') || suffix === '' ? wanted : `${wanted}.${suffix}`;
    const found = peers.find((peer) => peer.dnsName === name)?.addresses;
    if (found !== undefined) return found;
    return wanted.endsWith('.ts.net') || (suffix !== '' && wanted.endsWith(`.${suffix}`)) ? [] : undefined;
  } catch {
    return undefined;
  }
}

/** Opens the sessions of this machine. Throws UsageError for an invalid TKA_TIMEOUT. */
export function openSessions(
  paths: Paths,
  env: NodeJS.ProcessEnv,
  terminal: Terminal,
  network: Network,
  world: Omit<World, 'paths' | 'env' | 'log'>,
): Sessions {
  return new Sessions({
    store: new SessionStore(paths),
    timeout: signInTimeout(env),
    network,
    siblings: async (server, apiServer) => {
      const { findSiblings } = await import('./siblings.ts');
      return findSiblings(server, apiServer, { ...world, paths, env, log: terminal.log });
    },
    warn: terminal.warn,
    log: terminal.log,
  });
}
