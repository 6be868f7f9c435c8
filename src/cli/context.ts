import * as path from 'node:path';
import { TkaError } from '../errors.ts';
import { type KubeconfigFiles, kubeconfigFiles } from '../kubeconfig/index.ts';
import { findPaths, type Paths } from '../paths.ts';
import { Sessions } from '../session/session.ts';
import { SessionStore } from '../session/store.ts';
import { type Flags, loadSettings, type Settings, signInTimeout } from '../settings.ts';
import { openTerminal, type Terminal } from '../terminal.ts';

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
    home: paths.home,
    cwd: process.cwd(),
  });
  return { env, paths, settings, terminal, kubeconfig, command, sessions: openSessions(paths, env, terminal) };
}

/** The sessions of this machine. Throws UsageError for a bad TKA_TIMEOUT. */
export function openSessions(paths: Paths, env: NodeJS.ProcessEnv, terminal: Terminal): Sessions {
  return new Sessions({
    store: new SessionStore(paths),
    timeout: signInTimeout(env),
    warn: terminal.warn,
    log: terminal.log,
  });
}

/** The entry server's canonical URL. Throws TkaError where none is configured. */
export function requireEntryServer(settings: Settings): string {
  const server = settings.entryServer;
  if (server !== undefined) return server;
  throw new TkaError('no TKA server is configured', {
    hints: ['kubectl tka config tailscale.hostname HOST', 'or name it each time: --server HOST'],
  });
}

/** The name under which this program is called: `kubectl tka` for kubectl-tka. */
export function programName(command: string): string {
  const name = path.basename(command).replace(/\.(?:exe|cmd|c?js|mjs|ts)$/i, '');
  return name === 'kubectl-tka' ? 'kubectl tka' : name;
}
