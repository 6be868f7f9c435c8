import * as os from 'node:os';
import * as path from 'node:path';
import { cacheFolder, stateFolder } from '../credential/entry.ts';

/** Where this program stores its files. */
export interface Paths {
  /** Tokens and locks: `~/.cache/kubectl-tka`. Undefined if the environment names no home; then nothing is cached. */
  readonly cache: string | undefined;
  /** Signed-out marks and consents, which must survive a deleted cache: `~/.local/state/kubectl-tka`. */
  readonly state: string | undefined;
  /**
   * Configuration files, the first that exists wins; shared with the Go CLI: `~/.config/tka/config.yaml`,
   * `/etc/tka/config.yaml`.
   */
  readonly configs: readonly string[];
  readonly home: string | undefined;
}

const homeName = (env: NodeJS.ProcessEnv) => (process.platform === 'win32' ? env.USERPROFILE : env.HOME);

/** Returns the home folder from the environment, else from the user database; undefined if neither names one. */
export function homeFolder(env: NodeJS.ProcessEnv): string | undefined {
  const named = homeName(env);
  if (named) return named;
  try {
    return os.userInfo().homedir || undefined;
  } catch {
    return undefined;
  }
}

/** Returns all paths for an environment. */
export async function findPaths(env: NodeJS.ProcessEnv): Promise<Paths> {
  const home = homeFolder(env);
  const configs = home === undefined ? [] : [path.join(home, '.config', 'tka', 'config.yaml')];
  if (process.platform !== 'win32') configs.push('/etc/tka/config.yaml');
  const { cache, state } = await platformFolders(env);
  // The hot path computes the same folders without env-paths, and handles the cases that env-paths gets wrong.
  return {
    cache: (env.TKA_CACHE_DIR ? undefined : cache) ?? cacheFolder(env),
    state: state ?? stateFolder(env, home),
    configs,
    home,
  };
}

/** Returns the folders that env-paths names; undefined for those that it gets wrong. */
async function platformFolders(env: NodeJS.ProcessEnv): Promise<Pick<Paths, 'cache' | 'state'>> {
  // env-paths reads the environment of the process, takes an empty HOME for a folder, and throws for a user without a
  // home.
  if (env !== process.env || !homeName(env)) return { cache: undefined, state: undefined };
  const { default: envPaths } = await import('env-paths');
  const { cache, data, log } = envPaths('kubectl-tka', { suffix: '' });
  // On Linux, `log` is XDG's state folder. On other systems, cleaners delete logs first, so use `data`.
  const state = process.platform === 'darwin' || process.platform === 'win32' ? data : log;
  // XDG: relative values must be ignored.
  const absolute = (folder: string) => (path.isAbsolute(folder) ? folder : undefined);
  return { cache: absolute(cache), state: absolute(state) };
}
