// Joined clusters: the user signs in to them through a login server, whose URL then ends in `/clusters/NAME`. Such a row
// states a name and an endpoint that a cluster of the tailnet may have as well. It must never pass for that cluster.
import { joinedNameOf, originOf } from '../util/url.ts';
import { shortName } from './clusters.ts';

/** The part of a row that tells the way to its cluster. */
export interface Way {
  readonly server: string | null;
  /** Of a joined cluster: the name of the login server's cluster, if stated. */
  readonly through?: string | undefined;
}

/** Returns true if a server's URL is that of a joined cluster. */
export function isJoined({ server }: Pick<Way, 'server'>): boolean {
  return server !== null && joinedNameOf(server) !== undefined;
}

/** Returns true for a cluster without a server of its own in the tailnet. It can state any API endpoint. */
export function isOnlyJoined({ servers }: { readonly servers: readonly Way[] }): boolean {
  return servers.every(isJoined);
}

/** Returns the name of a joined cluster's login server: the one that is stated, else its host. */
export function loginServerName(server: string, through: string | undefined): string {
  return through ?? shortName(originOf(server), '');
}

/**
 * Returns a function that names the way to the cluster of a row of the same list: empty for a server of the cluster
 * itself, else the same text for all replicas of one login server and one name. Servers are replicas of one login
 * server if their own rows state the same cluster and endpoint.
 */
export function waysIn(
  rows: readonly (Way & { readonly cluster?: string | null | undefined; readonly apiEndpoint: string })[],
): (row: Way) => string {
  const own = new Map<string, string>();
  for (const row of rows) {
    const { server, cluster, apiEndpoint } = row;
    if (server === null || cluster == null || isJoined(row)) continue;
    const stated = `${cluster} ${apiEndpoint}`;
    // The order of the rows must not matter.
    const before = own.get(server);
    if (before === undefined || stated < before) own.set(server, stated);
  }
  return ({ server, through = '' }) => {
    const name = server === null ? undefined : joinedNameOf(server);
    if (server === null || name === undefined) return '';
    const origin = originOf(server);
    return `${name} ${through} ${own.get(origin) ?? origin}`;
  };
}
