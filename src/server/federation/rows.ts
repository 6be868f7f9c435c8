// The joined clusters as this replica of the login server lists them, for the mesh (../mesh/joined.ts).
import type { JoinedRow } from '../mesh/joined.ts';
import type { JoinedCluster, JoinedClusters } from './contract.ts';

/**
 * Returns the rows of the joined clusters. A cluster in conflict has none: its name or endpoint belongs to another
 * cluster, and two rows with one name would stop sign-ins to that one by name.
 */
export function joinedRows(clusters: JoinedClusters): JoinedRow[] {
  return clusters
    .all()
    .filter(({ conflict }) => conflict === undefined)
    .map(joinedRow);
}

function joinedRow({ name, apiEndpoint, labels, statement, tunnels, lastSeen, direct }: JoinedCluster): JoinedRow {
  const isConnected = tunnels.length > 0;
  const version = statement?.version;
  return {
    cluster: name,
    apiEndpoint,
    // Those of the administrator count.
    labels: { ...statement?.labels, ...labels },
    state: isConnected ? 'healthy' : 'dead',
    ...(!isConnected && lastSeen !== undefined && { lastSeen: new Date(lastSeen).toISOString() }),
    ...(version !== undefined && { version }),
    ...(direct && { direct }),
  };
}
