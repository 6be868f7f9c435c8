// What it takes to reach a server: all that a token for kubectl needs, and so nothing of kubeconfigs and clusters.
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
  /** Its MagicDNS suffix, without its devices; undefined where there is none. Never throws. */
  suffix(): Promise<string | undefined>;
}

/** Asks tailscaled, within 2 s. Throws TailscaleError. */
export async function askTailnet(env: NodeJS.ProcessEnv, { log }: Pick<Terminal, 'log'>): Promise<TailnetStatus> {
  const { tailnetStatus } = await import('../../tailscale/localapi.ts');
  return tailnetStatus({ env, timeout: 2000, log });
}

/** The same, asked once and only when it is needed. */
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

/** The way to servers, for which tailscaled may know addresses. */
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
 * The Tailscale addresses of the device that a host name is: in full, or as its first label. None for a name of the
 * tailnet (or of another, under ts.net) that no device has; undefined for other names, and where tailscaled is silent.
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

/** The sessions of this machine. Throws UsageError for a bad TKA_TIMEOUT. */
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
