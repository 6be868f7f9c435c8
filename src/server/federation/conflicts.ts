// Which joined clusters have a name or an API endpoint that belongs to another cluster.
import { quoted } from '../../util/text.ts';
import type { ClusterClaim } from '../mesh/claims.ts';
import type { KnownCluster } from './objects.ts';

/** The login server's own cluster. */
export interface OwnCluster {
  readonly name: string;
  /** The canonical URL of its API server; undefined while it is unknown. */
  readonly apiEndpoint: string | undefined;
}

export interface Conflict {
  readonly reason: 'NameTaken' | 'EndpointTaken' | 'EndpointChanged';
  /** One line for people. */
  readonly message: string;
}

/** What a cluster wants to have. `name` and `apiEndpoint` are checked, `keyHash` is proved. */
export type Wish = Pick<KnownCluster, 'name' | 'apiEndpoint' | 'keyHash'>;

/** Returns the members of the mesh whose cluster has this name or this API endpoint. */
export type MeshClaims = (cluster: string, apiEndpoint: string) => readonly ClusterClaim[];

/** The names and API endpoints in use. */
export interface InUse {
  readonly own: OwnCluster;
  readonly claims: MeshClaims;
  /** Returns the joined cluster that has an API endpoint. */
  readonly owner: (apiEndpoint: string) => KnownCluster | undefined;
}

/** Returns why a cluster may not have its name or its API endpoint, or undefined. */
export function conflictOf({ name, apiEndpoint, keyHash }: Wish, { own, claims, owner }: InUse): Conflict | undefined {
  const nameTaken = (by: string): Conflict => ({ reason: 'NameTaken', message: `"${name}" is the name of ${by}` });
  const endpointTaken = (by: string): Conflict => ({
    reason: 'EndpointTaken',
    message: `the API endpoint ${quoted(apiEndpoint)} belongs to ${by}`,
  });
  if (name === own.name.toLowerCase()) return nameTaken("the login server's own cluster");
  if (apiEndpoint === own.apiEndpoint) return endpointTaken("the login server's own cluster");
  const present = claims(name, apiEndpoint).filter(({ left }) => !left);
  // The servers of a cluster in the mesh may not all name its key yet: one of them is enough.
  const isOther = (members: readonly ClusterClaim[]): boolean =>
    members.length > 0 && !members.some(({ federationKey }) => federationKey === keyHash);
  if (isOther(present.filter(({ cluster }) => cluster === name))) return nameTaken('a cluster in the mesh');
  if (isOther(present.filter((member) => member.apiEndpoint === apiEndpoint))) {
    return endpointTaken('a cluster in the mesh');
  }
  const joined = owner(apiEndpoint);
  return joined === undefined || joined.name === name ? undefined : endpointTaken(`TkaCluster "${joined.name}"`);
}

/**
 * Returns whether a member of the mesh is a server of a joined cluster. A member that has left counts too: it stays in
 * the memberlist, and a restart must not make two clusters of one.
 */
export const isDirect = ({ name, apiEndpoint, keyHash }: Wish, claims: MeshClaims): boolean =>
  claims(name, apiEndpoint).some(({ federationKey }) => federationKey === keyHash);

/** Returns the joined clusters by API endpoint. Of several with the same one, the oldest has it. */
export function ownersOf(clusters: Iterable<KnownCluster>): ReadonlyMap<string, KnownCluster> {
  const owners = new Map<string, KnownCluster>();
  for (const cluster of clusters) {
    const owner = owners.get(cluster.apiEndpoint);
    if (owner === undefined || isOlder(cluster, owner)) owners.set(cluster.apiEndpoint, cluster);
  }
  return owners;
}

const isOlder = (a: KnownCluster, b: KnownCluster): boolean =>
  a.since === b.since ? a.name < b.name : a.since < b.since;
