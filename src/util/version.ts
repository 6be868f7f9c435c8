// Defined by the build.
declare const __VERSION__: string | undefined;
declare const __COMMIT__: string | undefined;

/** Returns the version, commit and platform of this build. */
export function versionInfo() {
  return {
    version: typeof __VERSION__ === 'string' ? __VERSION__ : 'unbuilt',
    commit: typeof __COMMIT__ === 'string' ? __COMMIT__ : 'unknown',
    node: process.versions.node,
    platform: `${process.platform === 'win32' ? 'windows' : process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
  };
}

/** Returns versionInfo() on one line, as `version` prints it. */
export function versionLine(program: string): string {
  const { version, commit, node, platform } = versionInfo();
  return `${program} ${version} (commit ${commit}, node ${node}, ${platform})\n`;
}
