// The metrics of a federation: those of the login server, then those of a joined cluster.
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Answered } from '../http/contract.ts';

/** The values that are read for each request of the metrics. */
export interface FederationSources {
  /** Returns the clusters that joined this login server; undefined if this server is not a login server. */
  readonly joinedClusters?: (() => readonly JoinedClusterCounts[] | undefined) | undefined;
  /** Returns this server's connection to its login server; undefined if there is no join Secret. */
  readonly loginServer?: (() => LoginServerCounts | undefined) | undefined;
}

/** A joined cluster, as a JoinedCluster of the federation states it. */
export interface JoinedClusterCounts {
  readonly name: string;
  readonly suspended: boolean;
  /** Why the cluster is not used. */
  readonly conflict: string | undefined;
  /** Its tunnels to this replica. */
  readonly tunnels: { readonly length: number };
}

/** The statuses of the Secret `tka-join-status`. */
export const joinStatuses = ['Joining', 'Joined', 'Rejected'] as const;

export interface LoginServerCounts {
  readonly status: (typeof joinStatuses)[number];
  /** Number of open tunnels to replicas of the login server. */
  readonly tunnels: number;
}

/** What became of a request to join this login server, and of an assertion of a login server. */
export const joinOutcomes = ['joined', 'rejected'] as const;
const assertionOutcomes = ['accepted', 'rejected'] as const;

export interface FederationCounters {
  /** Counts a request to join this login server that was decided. The same cluster may join again. */
  join(outcome: (typeof joinOutcomes)[number]): void;
  /** Counts the assertion of a request that came through a login server. */
  assertion(answered: Answered): void;
}

// A login server has at most this many joined clusters.
const mostJoined = 1_000;

function joinedState({ suspended, conflict, tunnels }: JoinedClusterCounts): keyof JoinedCounts {
  if (conflict !== undefined) return 'conflict';
  if (suspended) return 'suspended';
  return tunnels.length > 0 ? 'connected' : 'disconnected';
}

/** The number of joined clusters by state. */
export type JoinedCounts = Readonly<Record<'connected' | 'disconnected' | 'suspended' | 'conflict', number>>;

/** Counts joined clusters by state, as one replica of the login server sees them. */
export function joinedCounts(clusters: readonly JoinedClusterCounts[]): JoinedCounts {
  const counts = { connected: 0, disconnected: 0, suspended: 0, conflict: 0 };
  for (const each of clusters) counts[joinedState(each)]++;
  return counts;
}

/** Creates the metrics of both sides of a federation. A server on neither side exports none of their series. */
export function federationMetrics(
  { joinedClusters = () => undefined, loginServer = () => undefined }: FederationSources,
  server: Registry,
): FederationCounters {
  const registers = [server];
  new Gauge({
    name: 'tka_federation_clusters',
    help: 'Joined clusters by state, as this replica of the login server sees them: connected, disconnected, suspended, conflict; absent on other servers',
    labelNames: ['state'],
    registers,
    collect() {
      const clusters = joinedClusters();
      this.reset();
      if (clusters === undefined) return;
      for (const [state, count] of Object.entries(joinedCounts(clusters))) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'tka_federation_cluster_tunnels',
    help: 'Tunnels of a joined cluster to this replica of the login server',
    // Prometheus servers often add a label `cluster` of their own.
    labelNames: ['joined_cluster'],
    registers,
    collect() {
      this.reset();
      for (const { name, tunnels } of (joinedClusters() ?? []).slice(0, mostJoined)) {
        this.set({ joined_cluster: name }, tunnels.length);
      }
    },
  });
  const joins = new Counter({
    name: 'tka_federation_joins_total',
    help: 'Requests to join this login server, by outcome: joined, rejected',
    labelNames: ['outcome'],
    registers,
    collect() {
      if (joinedClusters() !== undefined) for (const outcome of joinOutcomes) this.inc({ outcome }, 0);
    },
  });
  new Gauge({
    name: 'tka_federation_tunnels',
    help: 'Tunnels of this server to replicas of its login server; absent without one',
    registers,
    collect() {
      const joined = loginServer();
      if (joined === undefined) this.remove();
      else this.set(joined.tunnels);
    },
  });
  new Gauge({
    name: 'tka_federation_join_status',
    help: '1 for the status of joining a login server: Joining, Joined, Rejected; 0 for the others; absent without a login server',
    labelNames: ['status'],
    registers,
    collect() {
      const joined = loginServer();
      this.reset();
      if (joined !== undefined)
        for (const status of joinStatuses) this.set({ status }, joined.status === status ? 1 : 0);
    },
  });
  const assertions = new Counter({
    name: 'tka_federation_assertions_total',
    help: 'Assertions of the login server, by outcome: accepted, rejected',
    labelNames: ['outcome'],
    registers,
    collect() {
      if (loginServer() !== undefined) for (const outcome of assertionOutcomes) this.inc({ outcome }, 0);
    },
  });
  return {
    join: (outcome) => joins.inc({ outcome }),
    assertion({ through, caller, status }) {
      if (through === undefined) return;
      // An eviction (202) has no caller. Other requests without one were refused before the assertion was read.
      if (caller !== undefined || status === 202) assertions.inc({ outcome: 'accepted' });
      else if (status === 401) assertions.inc({ outcome: 'rejected' });
    },
  };
}
