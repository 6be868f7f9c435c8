// A whole mesh of TKA servers in one process, on loopback only, each with a stand-in for the Kubernetes API. For tests,
// the demo and manual use. Users are fixed and nothing is stored. All keys are made at the start and discarded at the
// end.
import { isIP } from 'node:net';
import type { MemberRow } from '../tka/types.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { makeCertificates } from './certificates.ts';
import { type ClusterOptions, SandboxCluster, urlHost } from './cluster.ts';
import { SandboxLoginServer } from './federation.ts';
import type { GossipMember } from './go-memberlist.ts';

export {
  type ClusterOptions,
  type Counts,
  type Gossip,
  SandboxCluster,
  type SandboxUser,
  type SeenRequest,
} from './cluster.ts';
export type { Faults, RouteFault, RouteName, TokenFault } from './faults.ts';
export type { IssueOptions, SignInView } from './sign-ins.ts';

/** Options of `startMesh`. Everything has a default. */
export interface SandboxMeshOptions {
  readonly clusters?: readonly ClusterOptions[];
  /** The user of every caller. */
  readonly user?: string;
  /** A loopback address. macOS has only 127.0.0.1 and ::1. */
  readonly host?: string;
  /** Use the same port for all TKA servers, as on a tailnet. Each server then needs its own `host`. */
  readonly samePort?: boolean;
}

/** A running mesh. */
export interface SandboxMesh extends AsyncDisposable {
  /** All servers. */
  readonly clusters: readonly SandboxCluster[];
  /** Returns the server with this name. Throws if there is none. */
  cluster(name: string): SandboxCluster;
  close(): Promise<void>;
}

const defaultClusters: readonly ClusterOptions[] = [
  { name: 'prod-us', labels: { environment: 'production', region: 'us-west-2' } },
  { name: 'prod-eu', labels: { environment: 'production', region: 'eu-central-1' } },
  { name: 'staging', labels: { environment: 'staging', region: 'us-west-2' } },
];

/** The clusters of the demo: the default clusters, with two servers for the first one. */
export const demoClusters: readonly ClusterOptions[] = [
  ...defaultClusters,
  { name: 'prod-us-1', replicaOf: 'prod-us' },
];

/** A cluster outside the tailnet, which has joined a login server of the demo. */
export const joinedCluster: ClusterOptions = {
  name: 'edge',
  joins: 'prod-eu',
  labels: { environment: 'production', site: 'paris' },
};

/** A second mesh. The demo's first mesh does not know it. */
export const otherClusters: readonly ClusterOptions[] = [{ name: 'lab', labels: { environment: 'lab' } }];

/** Starts a mesh in which each server knows all others. */
export async function startMesh(options: SandboxMeshOptions = {}): Promise<SandboxMesh> {
  const { user = 'alice', host = '127.0.0.1' } = options;
  const wanted = options.clusters ?? defaultClusters;
  for (const address of [host, ...wanted.map((cluster) => cluster.host ?? host)]) checkLoopback(address);
  const certificates = await makeCertificates(host);
  const clusters: SandboxCluster[] = [];
  const listed = () => clusters.filter((cluster) => cluster.gossip.listed !== false);
  const members = (): MemberRow[] => listed().map(memberRow);
  const gossip = (asked: SandboxCluster): GossipMember[] =>
    listed()
      .filter(({ through }) => through === undefined)
      .map((cluster) => gossipMember(cluster, asked));
  const loginServers = new Map(
    wanted.flatMap(({ joins }) => (joins === undefined ? [] : [[joins, new SandboxLoginServer(joins, certificates)]])),
  );
  const loginServer = (name: string) => loginServers.get(name);
  const named = (name: string): SandboxCluster => {
    const found = clusters.find((cluster) => cluster.name === name);
    if (found === undefined) throw new TkaError(`the mesh has no cluster ${JSON.stringify(name)}`);
    return found;
  };
  for (const cluster of wanted) {
    const first = cluster.replicaOf === undefined ? undefined : named(cluster.replicaOf);
    const login = cluster.joins === undefined ? undefined : named(cluster.joins);
    const mesh = { user, host, certificates, members, gossip, loginServer };
    clusters.push(new SandboxCluster(cluster, mesh, first, login));
  }
  const close = async () => {
    await Promise.all(clusters.flatMap((cluster) => [cluster.stop(), cluster.stopApi()]));
    await Promise.all([...loginServers.values()].map((server) => server.close()));
  };
  const start = async (starting: readonly Promise<void>[]) => {
    const failed = (await Promise.allSettled(starting)).find((result) => result.status === 'rejected');
    if (failed === undefined) return;
    await close();
    throw failed.reason;
  };
  const inTailnet = clusters.filter(({ through }) => through === undefined);
  await start([
    ...(options.samePort ? [startOnOnePort(inTailnet)] : inTailnet.map((cluster) => cluster.start())),
    ...clusters.map((cluster) => cluster.startApi()),
    ...[...loginServers.values()].map((server) => server.listen()),
  ]);
  await start(clusters.filter((cluster) => !inTailnet.includes(cluster)).map((cluster) => cluster.start()));
  return {
    clusters,
    cluster: named,
    close,
    [Symbol.asyncDispose]: close,
  };
}

// Every caller of a sandbox server is its user, so only this machine may reach it.
function checkLoopback(host: string): void {
  if (host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))) return;
  throw new TkaError(`the sandbox listens on loopback addresses only, not on ${host}`);
}

async function startOnOnePort([first, ...rest]: readonly SandboxCluster[]): Promise<void> {
  if (first === undefined) return;
  for (let attempt = 0; ; attempt++) {
    await first.start(0);
    const port = Number(new URL(first.server).port);
    const started = await Promise.allSettled(rest.map((cluster) => cluster.start(port)));
    const failed = started.find((result) => result.status === 'rejected');
    if (failed === undefined) return;
    // Another process may use that port on one of the other addresses.
    if (systemCode(failed.reason) !== 'EADDRINUSE' || attempt === 9) throw failed.reason;
    await Promise.all([first, ...rest].map((cluster) => cluster.stop()));
  }
}

function memberRow(cluster: SandboxCluster): MemberRow {
  const { gossip, stoppedAt, through } = cluster;
  const name = gossip.cluster === undefined ? cluster.cluster : gossip.cluster;
  return {
    apiEndpoint: gossip.apiEndpoint ?? cluster.apiServer,
    apiPort: Number(new URL(cluster.server).port),
    labels: gossip.labels ?? cluster.labels,
    // The row of a joined cluster names no server.
    ...(through === undefined && { name: cluster.name }),
    ...(name !== null && { cluster: name }),
    server: cluster.server,
    state: gossip.state ?? (stoppedAt === undefined ? 'healthy' : 'dead'),
    lastSeen: new Date(stoppedAt ?? Date.now()).toISOString(),
    version: 'sandbox',
    ...(through !== undefined && { through }),
  };
}

// The Go server forgets a member ten seconds after it last saw it. Here a test decides (`listed`).
function gossipMember(cluster: SandboxCluster, asked: SandboxCluster): GossipMember {
  const { gossip, stoppedAt, host } = cluster;
  return {
    hostName: gossip.hostName ?? cluster.name,
    address: gossip.address ?? `${urlHost(host)}:7946`,
    apiEndpoint: gossip.apiEndpoint ?? cluster.apiServer,
    labels: gossip.labels ?? cluster.labels,
    state: gossip.state ?? (stoppedAt === undefined ? 'healthy' : 'suspected'),
    lastSeenSeconds: gossip.lastSeenSeconds ?? (stoppedAt === undefined ? 0 : (Date.now() - stoppedAt) / 1000),
    isLocal: cluster === asked,
  };
}
