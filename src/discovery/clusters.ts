import { TkaError, UsageError } from '../errors.ts';
import type { Member, Memberlist } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import type { MemberState } from '../tka/types.ts';

export type ClusterState = MemberState | 'missing' | 'unresolved' | 'unknown';

/** A cluster that can be signed in to, or is at least known of. */
export interface Cluster {
  readonly name: string;
  /** Its TKA server, canonical URL; null where it could not be placed. */
  readonly server: string | null;
  /** Canonical URL of its API server. */
  readonly apiEndpoint: string;
  readonly state: ClusterState;
  /** Why it is in that state, where that needs saying. */
  readonly reason: string | null;
  /** RFC 3339. */
  readonly lastSeen: string | null;
  readonly labels: ReadonlyMap<string, string>;
}

/** A TKA server and the API server that it gives tokens for, as known from elsewhere (the kubeconfig). */
export interface KnownPair {
  readonly server: string;
  readonly apiServer: string | undefined;
}

export interface ListOptions {
  readonly known: readonly KnownPair[];
  /** Milliseconds for each question. */
  readonly timeout: number;
  readonly log: (line: string) => void;
  readonly warn: (line: string) => void;
  readonly notice: (line: string) => void;
}

/**
 * All clusters that the entry server knows, sorted by name, those that are dead or suspected last. A server without a memberlist is the only
 * one it knows. Throws Refused, NotSignedIn or Unavailable.
 */
export async function listClusters(entryServer: string, options: ListOptions): Promise<Cluster[]> {
  const { timeout } = options;
  const client = new TkaClient(entryServer, { log: options.log });
  try {
    const list = await client.memberlist({ timeout });
    const own = async () => ({ server: entryServer, apiServer: (await client.clusterInfo({ timeout })).apiServer });
    if (list === undefined) {
      options.notice(`${entryServer} keeps no memberlist (its gossip is off): it is listed alone`);
      const { apiServer, labels } = await client.clusterInfo({ timeout });
      const alone: Member = {
        name: null,
        server: entryServer,
        apiEndpoint: apiServer,
        state: null,
        lastSeen: null,
        labels,
      };
      return clustersOf([alone], []);
    }
    reportLosses(entryServer, list, options.warn);
    const known = [...options.known];
    // Where the memberlist names no servers, we know at least which cluster the one that we asked belongs to.
    if (list.members.some((member) => member.server === null)) {
      await own().then(
        (pair) => known.unshift(pair),
        (error) => options.log(`no cluster-info: ${error}`),
      );
    }
    return clustersOf(list.members, known);
  } finally {
    await client.close();
  }
}

function reportLosses(entryServer: string, list: Memberlist, warn: (line: string) => void): void {
  if (list.cut > 0)
    warn(`${entryServer} lists ${list.members.length + list.cut} members: the first ${list.members.length} are shown`);
  if (list.unread > 0)
    warn(`${entryServer} lists ${list.unread} members without a usable API endpoint: they are left out`);
}

const stateOrder: readonly ClusterState[] = ['healthy', 'unknown', 'unresolved', 'suspected', 'dead', 'missing'];

function clustersOf(members: readonly Member[], known: readonly KnownPair[]): Cluster[] {
  const hosts = members.filter((m) => m.name === null).map((m) => new URL(m.apiEndpoint).hostname);
  const clusters = members.map((member): Cluster => {
    const url = new URL(member.apiEndpoint);
    const alike = hosts.filter((host) => host === url.hostname).length > 1;
    const plainHost = (alike ? url.host : url.hostname).replace(/[[\]]/g, '');
    const server = member.server ?? known.find((pair) => pair.apiServer === member.apiEndpoint)?.server ?? null;
    return {
      name: member.name ?? plainHost,
      server,
      apiEndpoint: member.apiEndpoint,
      state: stateOf(member, server),
      reason: server === null ? 'the memberlist does not say where its TKA server is' : null,
      lastSeen: member.lastSeen,
      labels: member.labels,
    };
  });
  const rank = (cluster: Cluster) => Math.max(0, stateOrder.indexOf(cluster.state) - 2);
  return clusters.sort((a, b) => rank(a) - rank(b) || compare(a.name, b.name) || compare(a.apiEndpoint, b.apiEndpoint));
}

function stateOf(member: Member, server: string | null): ClusterState {
  if (member.state === 'dead' || member.state === 'suspected') return member.state;
  if (server === null) return 'unresolved';
  return member.state ?? 'unknown';
}

// Not by locale: the same list looks the same on every machine.
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The cluster of that name; undefined if there is none. Throws UsageError where several bear it. */
export function clusterNamed(clusters: readonly Cluster[], name: string): Cluster | undefined {
  const found = clusters.filter((cluster) => cluster.name === name);
  if (found.length > 1) {
    throw new UsageError(`${found.length} clusters are called ${name}`, {
      hints: found.map(
        (cluster) => `name one by its server: ${cluster.server ?? `(unresolved, ${cluster.apiEndpoint})`}`,
      ),
    });
  }
  return found[0];
}

/**
 * Asks the server of a cluster whether it is that cluster's, and how its API server is reached. Throws TkaError where
 * it names another API endpoint, or as TkaClient does.
 */
export async function confirmCluster(
  cluster: Cluster & { server: string },
  options: Pick<ListOptions, 'timeout' | 'log'>,
) {
  const client = new TkaClient(cluster.server, { log: options.log });
  try {
    const info = await client.clusterInfo({ timeout: options.timeout });
    if (info.apiServer !== cluster.apiEndpoint) {
      throw new TkaError(
        `${cluster.server} is not the TKA server of ${cluster.name}: it speaks for ${info.apiServer}, not for ${cluster.apiEndpoint}`,
        { hints: [`if you trust it, name it by its address: kubectl tka login ${cluster.server}`] },
      );
    }
    return info;
  } finally {
    await client.close();
  }
}
