import { ListMemory } from '../discovery/memory.ts';
import { type KubeconfigFiles, kubeconfigFiles, kubectlHome } from '../kubeconfig/index.ts';
import { type Network, openNetwork } from '../network/network.ts';
import { findPaths, type Paths } from '../paths.ts';
import { Sessions } from '../session/session.ts';
import { SessionStore } from '../session/store.ts';
import { type Flags, loadSettings, type Settings, signInTimeout } from '../settings.ts';
import { type TailnetStatus, tailnetStatus } from '../tailscale/localapi.ts';
import { openTerminal, type Terminal } from '../terminal.ts';
import { TkaClient } from '../tka/client.ts';

/** The flags that every command takes. */
export interface CommonFlags extends Flags {
  readonly kubeconfig?: string;
}

/** What a command works with. */
export interface Context {
  readonly env: NodeJS.ProcessEnv;
  readonly paths: Paths;
  readonly settings: Settings;
  readonly terminal: Terminal;
  readonly sessions: Sessions;
  readonly kubeconfig: KubeconfigFiles;
  readonly network: Network;
  /** A client for a TKA server. */
  readonly client: (server: string) => TkaClient;
  /** What tailscaled knows, asked once. Throws TailscaleError. */
  readonly tailnet: () => Promise<TailnetStatus>;
  /** The last known lists of clusters. */
  readonly memory: ListMemory;
  /** Milliseconds for a question to one server. */
  readonly askTimeout: number;
  /** The absolute path by which this program was started, links unresolved. */
  readonly command: string;
}

/** Resolves everything that the flags, the environment and the files say. Throws TkaError or UsageError. */
export async function openContext(flags: CommonFlags, command: string, env: NodeJS.ProcessEnv): Promise<Context> {
  const paths = await findPaths(env);
  const settings = await loadSettings(flags, env, paths);
  const terminal = openTerminal({ debug: settings.debug, quiet: settings.quiet });
  for (const [key, { value, source }] of settings.values) terminal.log(`${key} = ${JSON.stringify(value)} (${source})`);
  const kubeconfig = kubeconfigFiles({
    ...(flags.kubeconfig !== undefined && { explicit: flags.kubeconfig }),
    env,
    home: kubectlHome(env),
    cwd: process.cwd(),
  });
  const tailnet = tailnetOnce(env, terminal);
  const network = openWay(env, settings.caFile, tailnet, terminal);
  const sessions = openSessions(paths, env, terminal, network);
  return {
    env,
    paths,
    settings,
    terminal,
    sessions,
    kubeconfig,
    network,
    tailnet,
    memory: new ListMemory(paths.state),
    client: (server) => new TkaClient(server, { network, log: terminal.log }),
    askTimeout: Math.min(sessions.timeout, 10_000),
    command,
  };
}

type Tailnet = () => Promise<TailnetStatus>;

/** Asks tailscaled, within 2 s. Throws TailscaleError. */
export function askTailnet(env: NodeJS.ProcessEnv, { log }: Pick<Terminal, 'log'>): Promise<TailnetStatus> {
  return tailnetStatus({ env, timeout: 2000, log });
}

/** The same, asked once and only when it is needed. */
export function tailnetOnce(env: NodeJS.ProcessEnv, terminal: Terminal): Tailnet {
  let status: Promise<TailnetStatus> | undefined;
  return () => {
    status ??= askTailnet(env, terminal);
    return status;
  };
}

/** The way to servers, for which tailscaled may know addresses. */
export function openWay(
  env: NodeJS.ProcessEnv,
  caFile: string | undefined,
  tailnet: Tailnet,
  { log }: Terminal,
): Network {
  return openNetwork({ env, caFile, tailnetAddresses: (host) => peerAddresses(host, tailnet), log });
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
