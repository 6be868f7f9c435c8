import { openTerminal, structured } from '../terminal.ts';

// Put in by the build.
declare const __VERSION__: string | undefined;
declare const __COMMIT__: string | undefined;

/** What this build is: `version -o json`. */
export function versionInfo() {
  return {
    version: typeof __VERSION__ === 'string' ? __VERSION__ : 'unbuilt',
    commit: typeof __COMMIT__ === 'string' ? __COMMIT__ : 'unknown',
    node: process.versions.node,
    platform: `${process.platform === 'win32' ? 'windows' : process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
  };
}

/** `version`. */
export async function version(format: 'json' | 'yaml' | undefined): Promise<void> {
  const terminal = openTerminal({ debug: false, quiet: false });
  const info = versionInfo();
  if (format !== undefined) return terminal.out(await structured(format, info));
  terminal.out(`kubectl-tka ${info.version} (commit ${info.commit}, node ${info.node}, ${info.platform})\n`);
}
