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

/** The home folder as the environment names it, else as the system's user database does; undefined if neither. */
export function homeFolder(env: NodeJS.ProcessEnv): string | undefined {
  const named = process.platform === 'win32' ? env.USERPROFILE : env.HOME;
  if (named) return named;
  try {
    return os.userInfo().homedir || undefined;
  } catch {
    return undefined;
  }
}

/** All paths for an environment. */
export async function findPaths(env: NodeJS.ProcessEnv): Promise<Paths> {
  const home = homeFolder(env);
  const configs = home === undefined ? [] : [path.join(home, '.config', 'tka', 'config.yaml')];
  if (process.platform !== 'win32') configs.push('/etc/tka/config.yaml');
  return { cache: cacheFolder(env), state: stateFolder(env, home), configs, home };
}
