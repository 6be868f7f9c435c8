// Which joined clusters have a name or an API endpoint that belongs to another cluster.
import { quoted } from '../../util/text.ts';
import type { ClusterClaim } from '../mesh/claims.ts';
import type { KnownCluster, TkaCluster } from './objects.ts';

/** The login server's own cluster. */
export interface OwnCluster {
  readonly name: string;
  /** The canonical URL of its API server; undefined while it is unknown. */
  readonly apiEndpoint: string | undefined;
}

const reasons = ['NameTaken', 'EndpointTaken', 'EndpointChanged'] as const;

export interface Conflict {
  readonly reason: (typeof reasons)[number];
  /** One line for people. */
  readonly message: string;
  /** What the cluster itself may know, if that is less. */
  readonly told?: string;
}

/** What a cluster wants to have. `name` and `apiEndpoint` are checked, `keyHash` is proved. */
export type Wish = Pick<KnownCluster, 'name' | 'apiEndpoint' | 'keyHash'>;

/**
 * Returns the members of the mesh whose cluster has this name or this API endpoint. Undefined while this server does not
 * know the members yet.
 */
export type MeshClaims = (cluster: string, apiEndpoint: string) => readonly ClusterClaim[] | undefined;

/** Whether there is a conflict, which depends on members of the mesh that are not known yet. */
export type Judged = Conflict | 'unknown' | undefined;

/** The names and API endpoints in use. */
export interface InUse {
  readonly own: OwnCluster;
  readonly claims: MeshClaims;
  /** Returns the joined cluster that has an API endpoint. */
  readonly owner: (apiEndpoint: string) => KnownCluster | undefined;
}

/** Returns why a cluster may not have its name or its API endpoint, or undefined. */
export function conflictOf({ name, apiEndpoint, keyHash }: Wish, { own, claims, owner }: InUse): Judged {
  const nameTaken = (by: string): Conflict => ({ reason: 'NameTaken', message: `"${name}" is the name of ${by}` });
  const endpointTaken = (by: string): Conflict => ({
    reason: 'EndpointTaken',
    message: `the API endpoint ${quoted(apiEndpoint)} belongs to ${by}`,
  });
  if (name === own.name.toLowerCase()) return nameTaken("the login server's own cluster");
  if (apiEndpoint === own.apiEndpoint) return endpointTaken("the login server's own cluster");
  const claimed = claims(name, apiEndpoint);
  const present = (claimed ?? []).filter(({ left }) => !left);
  // The servers of a cluster in the mesh may not all name its key yet: one of them is enough.
  const isOther = (members: readonly ClusterClaim[]): boolean =>
    members.length > 0 && !members.some(({ federationKey }) => federationKey === keyHash);
  if (isOther(present.filter(({ cluster }) => cluster === name))) return nameTaken('a cluster in the mesh');
  if (isOther(present.filter((member) => member.apiEndpoint === apiEndpoint))) {
    return endpointTaken('a cluster in the mesh');
  }
  const joined = owner(apiEndpoint);
  if (joined !== undefined && joined.name !== name) {
    return { ...endpointTaken(`TkaCluster "${joined.name}"`), told: endpointTaken('another joined cluster').message };
  }
  return claimed === undefined ? 'unknown' : undefined;
}

/** Returns the conflict that the status of a TkaCluster has. */
export function writtenConflict({ status }: TkaCluster): Conflict | undefined {
  const written = status?.conditions?.find((condition) => condition.type === 'Conflict' && condition.status === 'True');
  const reason = reasons.find((known) => known === written?.reason);
  return reason && { reason, message: written?.message ?? '' };
}

/**
 * Returns whether a member of the mesh is a server of a joined cluster. A member that has left counts too: it stays in
 * the memberlist, and a restart must not make two clusters of one. Returns false while the members are not known.
 */
export const isDirect = ({ name, apiEndpoint, keyHash }: Wish, claims: MeshClaims): boolean =>
  claims(name, apiEndpoint)?.some(({ federationKey }) => federationKey === keyHash) === true;

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
