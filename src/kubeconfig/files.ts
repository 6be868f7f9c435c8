import { existsSync, statSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { searchPathOf } from '../util/search-path.ts';

/** The chain of kubeconfig files, first wins, and the one that new entries go to. */
export interface KubeconfigFiles {
  readonly files: readonly string[];
  readonly defaultFile: string;
  /** Named by --kubeconfig, so the environment was not asked. */
  readonly explicit: boolean;
  /** Where a bare exec command is looked for; the process's PATH when absent. */
  readonly searchPath?: string | undefined;
}

/**
 * The kubeconfig files that kubectl would use, as absolute paths: --kubeconfig, else the KUBECONFIG list, else
 * HOME/.kube/config (without HOME: .kube/config in the current folder, as kubectl). `defaultFile` is the only file, else
 * the first that exists, else the last. A KUBECONFIG of nothing but delimiters gives no file and an empty `defaultFile`.
 * Never throws. Contract: client-go clientcmd, ClientConfigLoadingRules and PathOptions.GetDefaultFilename.
 */
export function kubeconfigFiles(options: {
  explicit?: string | undefined;
  env: NodeJS.ProcessEnv;
  home: string | undefined;
  cwd: string;
}): KubeconfigFiles {
  const { env, cwd } = options;
  const searchPath = searchPathOf(env);
  const single = (file: string, explicit: boolean): KubeconfigFiles => {
    const path = resolve(cwd, file);
    return { files: [path], defaultFile: path, explicit, searchPath };
  };
  if (options.explicit) return single(options.explicit, true);
  if (!env.KUBECONFIG) return single(join(options.home ?? '', '.kube', 'config'), false);
  const files = [
    ...new Set(
      splitList(env.KUBECONFIG)
        .filter((file) => file !== '')
        .map((file) => resolve(cwd, file)),
    ),
  ];
  const defaultFile = files.find((file) => statSync(file, { throwIfNoEntry: false }) !== undefined) ?? files.at(-1);
  return { files, defaultFile: defaultFile ?? '', explicit: false, searchPath };
}

/**
 * The home folder as kubectl sees it: what the environment names, and no user database; undefined if it names none.
 * Never throws. Contract: client-go util/homedir, HomeDir.
 */
export function kubectlHome(env: NodeJS.ProcessEnv, platform: string = process.platform): string | undefined {
  if (platform !== 'win32') return env.HOME || undefined;
  const drive = env.HOMEDRIVE && env.HOMEPATH ? env.HOMEDRIVE + env.HOMEPATH : undefined;
  const set = (homes: (string | undefined)[]) => homes.filter((home): home is string => Boolean(home));
  const homes = set([env.HOME, env.USERPROFILE, drive]);
  return (
    set([env.HOME, drive, env.USERPROFILE]).find((home) => existsSync(join(home, '.kube', 'config'))) ??
    homes.find((home) => existsSync(home)) ??
    homes[0]
  );
}

// Go's filepath.SplitList: on Windows a quoted part may hold the delimiter.
function splitList(list: string): string[] {
  if (delimiter !== ';') return list.split(delimiter);
  return (list.match(/(?:"[^"]*"?|[^;"])+/g) ?? []).map((part) => part.replaceAll('"', ''));
}
