// tka.yaml, krew's manifest: the archives, their URLs and hashes.
import { stringify } from 'yaml';
import type { Target } from './targets.ts';

export interface Shipped {
  readonly target: Target;
  /** The archive's file name. */
  readonly file: string;
  /** SHA-256 of the archive, in hex. */
  readonly sha256: string;
}

export interface Release {
  /** Without a leading v. */
  readonly version: string;
  /** URL of the archives of all versions; each version is in the folder of its tag. */
  readonly downloads: string;
  readonly homepage: string;
}

/** Returns the manifest of a release as YAML, in krew's format krew.googlecontainertools.github.com/v1alpha2. */
export function manifest({ version, downloads, homepage }: Release, shipped: readonly Shipped[]): string {
  return stringify(
    {
      apiVersion: 'krew.googlecontainertools.github.com/v1alpha2',
      kind: 'Plugin',
      metadata: { name: 'tka' },
      spec: {
        version: `v${version}`,
        homepage,
        shortDescription: 'Short-lived access to clusters over a tailnet',
        description: [
          'Finds the clusters of a tailnet, signs in to their TKA (Tailscale Kubernetes Auth)',
          'servers, and writes contexts. kubectl gets and renews the tokens automatically. No',
          'token is ever written into a kubeconfig.',
          '',
        ].join('\n'),
        caveats: [
          'List your clusters and sign in to one:',
          '  kubectl tka clusters',
          '  kubectl tka login NAME',
          '',
        ].join('\n'),
        platforms: shipped.map(({ target, file, sha256 }) => ({
          selector: { matchLabels: { os: target.os, arch: target.arch } },
          uri: `${downloads}/v${version}/${file}`,
          sha256,
          bin: target.os === 'windows' ? 'kubectl-tka.exe' : 'kubectl-tka',
        })),
      },
    },
    { lineWidth: 0 },
  );
}
