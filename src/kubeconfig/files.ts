import { existsSync, statSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { searchPathOf } from '../util/search-path.ts';

/** The list of kubeconfig files, in order of precedence, and the file for new entries. */
export interface KubeconfigFiles {
  readonly files: readonly string[];
  readonly defaultFile: string;
  /** True with --kubeconfig, which overrides the environment. */
  readonly explicit: boolean;
  /** PATH for an exec command that is a bare name; the process's PATH if absent. */
  readonly searchPath?: string | undefined;
}

/**
 * Returns the kubeconfig files that kubectl would use, as absolute paths: --kubeconfig, else the KUBECONFIG list, else
 * HOME/.kube/config (without HOME: .kube/config in the current folder, as kubectl does). `defaultFile` is the only
 * file, else the first that exists, else the last. If KUBECONFIG contains only delimiters, there are no files and
 * `defaultFile` is empty. Never throws. Contract: client-go clientcmd, ClientConfigLoadingRules and
 * PathOptions.GetDefaultFilename.
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
 * Returns the home folder as kubectl finds it: from the environment only, not from the user database; undefined if the
 * environment names none. Never throws. Contract: client-go util/homedir, HomeDir.
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

// As Go's filepath.SplitList: on Windows a quoted part may contain the delimiter.
function splitList(list: string): string[] {
  if (delimiter !== ';') return list.split(delimiter);
  return (list.match(/(?:"[^"]*"?|[^;"])+/g) ?? []).map((part) => part.replaceAll('"', ''));
}
