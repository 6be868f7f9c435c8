import { ListMemory } from '../../discovery/memory.ts';
import { AcceptedServers, AwayServers } from '../../discovery/server-marks.ts';
import { type KubeconfigFiles, kubeconfigFiles, kubectlHome } from '../../kubeconfig/index.ts';
import type { Network } from '../../network/network.ts';
import type { Sessions } from '../../session/sessions.ts';
import { findPaths, type Paths } from '../../settings/paths.ts';
import { type Flags, loadSettings, type Settings } from '../../settings/settings.ts';
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import { openTerminal, type Terminal } from '../../terminal/output.ts';
import { TkaClient } from '../../tka/client.ts';
import { openConnection, openSessions, tailnetOnce } from './connect.ts';
import { RememberedClusters } from './remembered.ts';

export interface CommonFlags extends Flags {
  readonly kubeconfig?: string;
}

export interface Context {
  readonly env: NodeJS.ProcessEnv;
  readonly paths: Paths;
  readonly settings: Settings;
  readonly terminal: Terminal;
  readonly sessions: Sessions;
  readonly kubeconfig: KubeconfigFiles;
  readonly network: Network;
  readonly client: (server: string) => TkaClient;
  /** Returns the status of tailscaled, asked once. Throws TailscaleError. */
  readonly tailnet: () => Promise<TailnetStatus>;
  readonly memory: ListMemory;
  readonly away: AwayServers;
  /** The clusters of the last lists, by server. */
  readonly remembered: RememberedClusters;
  readonly accepted: AcceptedServers;
  /** Timeout for a request to one server, in milliseconds. */
  readonly askTimeout: number;
  /** The absolute path this program was started with, symlinks unresolved. */
  readonly command: string;
  /** The command that kubeconfig contexts run instead, if the user chose one: a bare name or an absolute path. */
  readonly execCommand?: string;
}

/** Resolves all flags, environment variables and files. Throws TkaError or UsageError. */
export async function openContext(flags: CommonFlags, command: string, env: NodeJS.ProcessEnv): Promise<Context> {
  const paths = await findPaths(env);
  const settings = await loadSettings(flags, env, paths);
  const memory = new ListMemory(paths.state);
  const remembered = new RememberedClusters(memory);
  const plain = openTerminal({ debug: settings.debug, quiet: settings.quiet, progress: env.TERM !== 'dumb' });
  const terminal = { ...plain, hint: (line: string) => plain.hint(remembered.inHint(line)) };
  for (const [key, { value, source }] of settings.values) terminal.log(`${key} = ${JSON.stringify(value)} (${source})`);
  const kubeconfig = kubeconfigFiles({
    ...(flags.kubeconfig !== undefined && { explicit: flags.kubeconfig }),
    env,
    home: kubectlHome(env),
    cwd: process.cwd(),
  });
  const tailnet = tailnetOnce(env, terminal);
  const network = openConnection(env, settings.caFile, tailnet, terminal);
  const sessions = openSessions(paths, env, terminal, network, {
    settings: async () => settings,
    kubeconfig: flags.kubeconfig,
    tailnet,
  });
  return {
    env,
    paths,
    settings,
    terminal,
    sessions,
    kubeconfig,
    network,
    tailnet,
    memory,
    away: new AwayServers(paths.state),
    remembered,
    accepted: new AcceptedServers(paths.state),
    client: (server) => new TkaClient(server, { network, log: terminal.log }),
    askTimeout: Math.min(sessions.timeout, 10_000),
    command,
  };
}
