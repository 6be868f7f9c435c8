import type { Provenance } from './clusters.ts';
import type { RememberedList } from './memory.ts';

/** A server that may be of the same cluster as another one, and on whose word. */
export interface SiblingCandidate {
  readonly server: string;
  readonly provenance: Provenance;
}

export interface SiblingSources {
  readonly apiServer: string;
  readonly cluster: string;
  /** Servers that the user's context names beside its own, or that were kept at the last sign-in. */
  readonly kept: readonly string[];
  /** The last lists, by the server that they were asked of. */
  readonly lists: readonly (readonly [seed: string, list: RememberedList])[];
  /** Whether the user named a server, by its URL or in the configuration. */
  readonly isNamed: (server: string) => boolean;
}

const gone = new Set(['dead', 'suspected']);

/**
 * Servers that may be of the same cluster as `server`, those first that were last listed as healthy. `stated` is only what
 * a list of a server says that the user named. None of them is believed for that: trust.ts says which of them may be asked,
 * and they have to state themselves what cluster they are of.
 */
export function siblingCandidates(server: string, options: SiblingSources): SiblingCandidate[] {
  const { apiServer, cluster, kept, lists, isNamed } = options;
  const found = new Map<string, { provenance: Provenance; isGone: boolean }>();
  for (const [seed, list] of [...lists].sort(([, a], [, b]) => b.at - a.at)) {
    for (const member of list.members) {
      if (member.apiEndpoint !== apiServer || member.cluster !== cluster || member.server === null) continue;
      const before = found.get(member.server);
      const isStated = before?.provenance === 'stated' || (member.provenance === 'stated' && isNamed(seed));
      const isGone = before?.isGone ?? (gone.has(member.state ?? '') || member.listed < list.at);
      found.set(member.server, { provenance: isStated ? 'stated' : 'tailnet', isGone });
    }
  }
  for (const each of kept) if (!found.has(each)) found.set(each, { provenance: 'tailnet', isGone: false });
  found.delete(server);
  const candidates = [...found].sort(([, a], [, b]) => Number(a.isGone) - Number(b.isGone));
  return candidates.map(([each, { provenance }]) => ({ server: each, provenance }));
}

/** Which cluster each listed server is of, as the last lists have it. */
export function knownClusters(
  lists: readonly RememberedList[],
): { readonly server: string; readonly apiServer: string; readonly cluster: string | undefined }[] {
  return lists.flatMap(({ members }) =>
    members.flatMap(({ server, apiEndpoint, cluster }) =>
      server === null ? [] : [{ server, apiServer: apiEndpoint, cluster: cluster ?? undefined }],
    ),
  );
}
