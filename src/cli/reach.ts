// What it takes to reach a server: all that a token for kubectl needs, and so nothing of kubeconfigs and clusters.
import { type Network, openNetwork } from '../network/network.ts';
import type { Paths } from '../paths.ts';
import { Sessions } from '../session/session.ts';
import { SessionStore } from '../session/store.ts';
import { signInTimeout } from '../settings.ts';
import type { TailnetStatus } from '../tailscale/localapi.ts';
import type { Terminal } from '../terminal.ts';

export interface Tailnet {
  (): Promise<TailnetStatus>;
  /** It has been asked: to ask again costs nothing. */
  asked?: boolean;
}

/** Asks tailscaled, within 2 s. Throws TailscaleError. */
export async function askTailnet(env: NodeJS.ProcessEnv, { log }: Pick<Terminal, 'log'>): Promise<TailnetStatus> {
  const { tailnetStatus } = await import('../tailscale/localapi.ts');
  return tailnetStatus({ env, timeout: 2000, log });
}

/** The same, asked once and only when it is needed. */
export function tailnetOnce(env: NodeJS.ProcessEnv, terminal: Terminal): Tailnet {
  let status: Promise<TailnetStatus> | undefined;
  const tailnet: Tailnet = () => {
    tailnet.asked = true;
    status ??= askTailnet(env, terminal);
    return status;
  };
  return tailnet;
}

/** The way to servers, for which tailscaled may know addresses. */
export function openWay(
  env: NodeJS.ProcessEnv,
  caFile: string | undefined,
  tailnet: Tailnet,
  { log }: Terminal,
): Network {
  const tailnetAddresses = (host: string) => peerAddresses(host, tailnet);
  return openNetwork({ env, caFile, tailnetAddresses, tailnetAsked: () => tailnet.asked === true, log });
}

/** The Tailscale addresses of the peer that a host name is; undefined where tailscaled knows none. */
export async function peerAddresses(
  host: string,
  tailnet: () => Promise<TailnetStatus>,
): Promise<readonly string[] | undefined> {
  try {
    return (await tailnet()).peers.find((peer) => peer.dnsName === host.replace(/\.$/, '').toLowerCase())?.addresses;
  } catch {
    return undefined;
  }
}

/** The sessions of this machine. Throws UsageError for a bad TKA_TIMEOUT. */
export function openSessions(paths: Paths, env: NodeJS.ProcessEnv, terminal: Terminal, network: Network): Sessions {
  return new Sessions({
    store: new SessionStore(paths),
    timeout: signInTimeout(env),
    network,
    warn: terminal.warn,
    log: terminal.log,
  });
}
