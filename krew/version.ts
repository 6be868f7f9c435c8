// Versions: semver.org 2.0.0 without build metadata, which an image tag cannot contain.
const form =
  /^(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-(?!0\d+(?:\.|$))[0-9A-Za-z-]+(?:\.(?!0\d+(?:\.|$))[0-9A-Za-z-]+)*)?$/;

/** Returns whether a text is a version: `1.2.3` or `1.2.3-rc.1`. */
export function isVersion(text: string): boolean {
  return form.test(text);
}

/** Returns whether a version is a pre-release: `1.2.3-rc.1`. */
export function isPrerelease(version: string): boolean {
  return version.includes('-');
}

/** Compares two versions like semver.org. Negative if `a` is lower. */
export function compareVersions(a: string, b: string): number {
  const [x, y] = [parts(a), parts(b)];
  for (let i = 0; i < 3; i++) {
    const difference = Number(x.core[i]) - Number(y.core[i]);
    if (difference !== 0) return difference;
  }
  if (x.pre.length === 0 || y.pre.length === 0) return y.pre.length - x.pre.length;
  for (let i = 0; i < Math.max(x.pre.length, y.pre.length); i++) {
    const difference = compareIdentifiers(x.pre[i], y.pre[i]);
    if (difference !== 0) return difference;
  }
  return 0;
}

function parts(version: string): { readonly core: readonly string[]; readonly pre: readonly string[] } {
  const dash = version.indexOf('-');
  const core = dash === -1 ? version : version.slice(0, dash);
  return { core: core.split('.'), pre: dash === -1 ? [] : version.slice(dash + 1).split('.') };
}

// A missing part is lower than any other, and numbers are lower than words.
function compareIdentifiers(a: string | undefined, b: string | undefined): number {
  if (a === b) return 0;
  if (a === undefined || b === undefined) return a === undefined ? -1 : 1;
  const [isNumber, other] = [/^\d+$/.test(a), /^\d+$/.test(b)];
  if (isNumber && other) return Number(a) - Number(b);
  if (isNumber !== other) return isNumber ? -1 : 1;
  return a < b ? -1 : 1;
}

/** The files, as patterns of `git ls-files`, in which a release sets the version by `withVersion`. */
export const versionedFiles = ['*.md', 'deploy'];

/**
 * Returns a text of the documentation or of deploy/ with the new version wherever it refers to the version to install:
 * archives, images, git tags, the chart. Sentences about an older version stay.
 */
export function withVersion(text: string, before: string, version: string): string {
  const old = before.replaceAll('.', '\\.');
  const places = new RegExp(
    `(kubectl-tka-|tka-server[:-]|tka-(?=[\\d.]+[.]tgz)|[?]ref=v|/download/v|newTag: |^version: |^appVersion: |--version[ =])${old}(?![\\w.])(?!-\\w+\\.\\d)`,
    'gm',
  );
  return text.replace(places, (_, place: string) => `${place}${version}`);
}
