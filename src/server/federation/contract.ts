// What the parts of a federation share. A *login server* is a TKA server in the tailnet. A *joined cluster* is signed in
// to through it: its TKA server dials the login server, and never the other way round. docs/federation.md has the
// picture.
import type { Labels } from '../../tka/types.ts';

/** What a joined cluster says about itself. Only for display and label selectors: no rule depends on it. */
export interface ClusterStatement {
  /** The version of its TKA server. */
  readonly version: string;
  /** The canonical URL of its Kubernetes API server. */
  readonly apiEndpoint: string;
  readonly labels: Labels;
}

/** A request that the login server sends through a tunnel. */
export interface TunnelRequest {
  readonly method: string;
  /** The path of the TKA API: `/api/v1alpha1/login`. */
  readonly path: string;
  /** The signed assertion about the caller (assertion.ts). */
  readonly assertion: string;
  /** The ID of the request, the same in both logs. */
  readonly id: string;
}

/** The answer that comes back through a tunnel. The login server trusts none of it. */
export interface TunnelAnswer {
  readonly status: number;
  /** Names in lower case. Only those of `tunnelHeaders` pass. */
  readonly headers: Readonly<Record<string, string>>;
  /** At most `tunnelBodyLimit` bytes. */
  readonly body: string;
}

/** The headers of an answer that pass through a tunnel. */
export const tunnelHeaders = ['content-type', 'retry-after', 'tka-role', 'tka-logout'] as const;

/** Maximum size of an answer's body, in bytes. */
export const tunnelBodyLimit = 256 * 1024;

/** A connection of one replica of a joined cluster to this replica of the login server. */
export interface Tunnel {
  /** Chosen at random by the joined server for this connection. Assertions name it. */
  readonly id: string;
  readonly cluster: string;
  /** The replica of the joined cluster. */
  readonly replica: string;
  readonly statement: ClusterStatement;
  /** Unix time in milliseconds. */
  readonly since: number;
  /** Unix time in milliseconds of the last answer or ping. */
  lastSeen(): number;
  /** Sends a request. Rejects with TunnelError if there is no complete and valid answer in time. */
  request(request: TunnelRequest, signal: AbortSignal): Promise<TunnelAnswer>;
  /** Closes the connection. The reason is for the log. */
  close(reason: string): void;
}

/** Why a tunnel gave no answer. */
export class TunnelError extends Error {
  override readonly name = 'TunnelError';
}

/** A joined cluster, as the login server knows it. */
export interface JoinedCluster {
  readonly name: string;
  /** The labels of its TkaCluster object, which an administrator keeps. Rules see these. */
  readonly labels: Labels;
  /** True if an administrator stopped its sign-ins. */
  readonly suspended: boolean;
  /** Why the cluster is not used: its name or API endpoint belongs to another cluster. */
  readonly conflict: string | undefined;
  /** The canonical URL of its Kubernetes API server, fixed when it joined. */
  readonly apiEndpoint: string;
  /** What it said about itself last. Undefined if it has not connected to this replica yet. */
  readonly statement: ClusterStatement | undefined;
  /** Unix time in milliseconds; undefined if it never connected to any replica. */
  readonly lastSeen: number | undefined;
  /** True if a member of the mesh is a server of this very cluster (its record names the cluster's key). */
  readonly direct: boolean;
  /** Its open tunnels to this replica, the one that answered last first. */
  readonly tunnels: readonly Tunnel[];
}

/** The joined clusters of a login server, as one replica knows them. */
export interface JoinedClusters {
  get(name: string): JoinedCluster | undefined;
  all(): readonly JoinedCluster[];
}
