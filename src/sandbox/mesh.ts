// A whole mesh of TKA servers in one process, on loopback only, each with a stand-in for the Kubernetes API. For tests,
// the demo and playing by hand: users are fixed, nothing is stored, every key is made at start and forgotten at the end.
import { isIP } from 'node:net';
import { TkaError } from '../errors.ts';
import type { MemberRow } from '../tka/types.ts';
import { makeCertificates } from './certificates.ts';
import { Cluster, type ClusterOptions } from './cluster.ts';

export { Cluster, type ClusterOptions, type Counts, type SandboxUser, type SeenRequest } from './cluster.ts';
export type { Faults, RouteFault, RouteName, TokenFault } from './faults.ts';
export type { IssueOptions, SignInView } from './provisioner.ts';

/** What `startMesh` makes; everything has a default. */
export interface MeshOptions {
  readonly clusters?: readonly ClusterOptions[];
  /** The one user that every caller is. */
  readonly user?: string;
  /** A loopback address; macOS has 127.0.0.1 and ::1 only. */
  readonly host?: string;
}

/** A running mesh. */
export interface Mesh extends AsyncDisposable {
  readonly clusters: readonly Cluster[];
  /** Throws when there is none of that name. */
  cluster(name: string): Cluster;
  close(): Promise<void>;
}

const defaultClusters: readonly ClusterOptions[] = [
  { name: 'prod-us', labels: { environment: 'production', region: 'us-west-2' } },
  { name: 'prod-eu', labels: { environment: 'production', region: 'eu-central-1' } },
  { name: 'staging', labels: { environment: 'staging', region: 'us-west-2' } },
];

/** Starts a mesh; each server knows all the others. */
export async function startMesh(options: MeshOptions = {}): Promise<Mesh> {
  const { user = 'alice', host = '127.0.0.1' } = options;
  // Whoever reaches a server of the sandbox is its user, so nobody else may reach it.
  if (!(host === '::1' || (isIP(host) === 4 && host.startsWith('127.')))) {
    throw new TkaError(`the sandbox listens on loopback addresses only, not on ${host}`);
  }
  const certificates = await makeCertificates(host);
  const clusters: Cluster[] = [];
  const members = (): MemberRow[] => clusters.map(memberRow);
  for (const cluster of options.clusters ?? defaultClusters) {
    clusters.push(new Cluster(cluster, { user, host, certificates, members }));
  }
  const close = async () => {
    await Promise.all(clusters.flatMap((cluster) => [cluster.stop(), cluster.stopApi()]));
  };
  const started = await Promise.allSettled(clusters.flatMap((cluster) => [cluster.start(), cluster.startApi()]));
  const failed = started.find((result) => result.status === 'rejected');
  if (failed !== undefined) {
    await close();
    throw failed.reason;
  }
  return {
    clusters,
    cluster(name) {
      const found = clusters.find((cluster) => cluster.name === name);
      if (found === undefined) throw new TkaError(`the mesh has no cluster ${JSON.stringify(name)}`);
      return found;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function memberRow(cluster: Cluster): MemberRow {
  return {
    apiEndpoint: cluster.apiServer,
    apiPort: Number(new URL(cluster.server).port),
    labels: cluster.labels,
    name: cluster.name,
    server: cluster.server,
    state: cluster.stoppedAt === undefined ? 'healthy' : 'dead',
    lastSeen: new Date(cluster.stoppedAt ?? Date.now()).toISOString(),
    version: 'sandbox',
  };
}
