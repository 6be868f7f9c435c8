import type { Provenance } from './clusters.ts';
import { waysIn } from './joined.ts';
import type { RememberedList } from './memory.ts';

/** A server that may belong to the same cluster as another one, and how we know. */
export interface SiblingCandidate {
  readonly server: string;
  readonly provenance: Provenance;
}

export interface SiblingSources {
  readonly apiServer: string;
  readonly cluster: string;
  /** Other servers in the user's context, or stored at the last sign-in. */
  readonly kept: readonly string[];
  /** The last lists with their seeds. */
  readonly lists: readonly (readonly [seed: string, list: RememberedList])[];
  /** Returns true if the user named a server by URL or in the configuration. */
  readonly isNamed: (server: string) => boolean;
}

const gone = new Set(['dead', 'suspected']);

/**
 * Returns servers that may belong to the same cluster as `server`. For a joined cluster, these are replicas of the same
 * login server; for others, never a way through a login server. Servers that were last listed as dead, suspected or
 * missing come last. Only the list of a server that the user named makes a candidate `stated`. That alone does not make
 * it trusted: trust.ts decides which candidates may be asked, and each must confirm its cluster itself.
 */
export function siblingCandidates(server: string, options: SiblingSources): SiblingCandidate[] {
  const { apiServer, cluster, kept, lists, isNamed } = options;
  const found = new Map<string, { provenance: Provenance; isGone: boolean }>();
  for (const [seed, list] of [...lists].sort(([, a], [, b]) => b.at - a.at)) {
    const wayOf = waysIn(list.members);
    const way = wayOf(list.members.find((member) => member.server === server) ?? { server });
    for (const member of list.members) {
      if (member.apiEndpoint !== apiServer || member.cluster !== cluster || member.server === null) continue;
      if (wayOf(member) !== way) continue;
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

/** A server in the last lists, and its cluster. */
export interface ListedServer {
  readonly server: string;
  readonly apiServer: string;
  readonly cluster: string | undefined;
  /** The way to the cluster, as waysIn() names it; empty for further ways to a cluster that is in the list itself. */
  readonly way: string;
  /** False if a newer list has the server at another API server. */
  readonly isCurrent: boolean;
}

/**
 * Returns the cluster of each server in the last lists, the newest first. Of each server and API server, the newest
 * list with both counts: a token can be for an API server that the cluster had before.
 */
export function knownClusters(lists: readonly RememberedList[]): ListedServer[] {
  const known = new Set<string>();
  const current = new Set<string>();
  return [...lists]
    .sort((a, b) => b.at - a.at)
    .flatMap(({ members }) => {
      const wayOf = waysIn(members);
      const rows = members.flatMap((member) => {
        const { server, apiEndpoint: apiServer, cluster, direct } = member;
        return server === null
          ? []
          : [{ server, apiServer, cluster: cluster ?? undefined, way: wayOf(member), isDirect: direct === true }];
      });
      const keyOf = ({ apiServer, cluster }: Pick<ListedServer, 'apiServer' | 'cluster'>) => `${apiServer} ${cluster}`;
      const own = new Set(rows.filter(({ way }) => way === '').map(keyOf));
      const pairOf = ({ server, apiServer }: Pick<ListedServer, 'server' | 'apiServer'>) => `${server} ${apiServer}`;
      const fresh = rows
        .filter((row) => !known.has(pairOf(row)))
        .map(({ isDirect, ...row }): ListedServer => {
          const way = isDirect && own.has(keyOf(row)) ? '' : row.way;
          return { ...row, way, isCurrent: !current.has(row.server) };
        });
      for (const row of fresh) known.add(pairOf(row));
      for (const { server } of fresh) current.add(server);
      return fresh;
    });
}
