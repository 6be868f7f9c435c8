import * as os from 'node:os';
import * as path from 'node:path';
import { cacheFolder, stateFolder } from '../credential/entry.ts';

/** Where this program keeps its files. */
export interface Paths {
  /** Tokens and locks; undefined where the environment names no home: nothing is cached then. `~/.cache/kubectl-tka` */
  readonly cache: string | undefined;
  /** What must outlive a cleaned cache: signed-out marks and consents. `~/.local/state/kubectl-tka` */
  readonly state: string | undefined;
  /** Configuration files, first found wins; shared with the Go CLI. `~/.config/tka/config.yaml`, `/etc/tka/config.yaml` */
  readonly configs: readonly string[];
  readonly home: string | undefined;
}

const homeName = (env: NodeJS.ProcessEnv) => (process.platform === 'win32' ? env.USERPROFILE : env.HOME);

/** Returns the home folder as the environment names it, else as the user database does; undefined if neither does. */
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
  // The hot path names the same folders by itself; it also knows the cases that env-paths does not.
  return {
    cache: (env.TKA_CACHE_DIR ? undefined : cache) ?? cacheFolder(env),
    state: state ?? stateFolder(env, home),
    configs,
    home,
  };
}

/** Returns the folders that env-paths names; undefined for those that it gets wrong. */
async function platformFolders(env: NodeJS.ProcessEnv): Promise<Pick<Paths, 'cache' | 'state'>> {
  // It reads the environment of the process, takes an empty HOME for a folder, and throws for a user without a home.
  if (env !== process.env || !homeName(env)) return { cache: undefined, state: undefined };
  const { default: envPaths } = await import('env-paths');
  const { cache, data, log } = envPaths('kubectl-tka', { suffix: '' });
  // Its `log` is XDG's state folder on Linux; on other systems logs are what a cleaner takes first.
  const state = process.platform === 'darwin' || process.platform === 'win32' ? data : log;
  // XDG: a relative value is to be ignored.
  const absolute = (folder: string) => (path.isAbsolute(folder) ? folder : undefined);
  return { cache: absolute(cache), state: absolute(state) };
}
