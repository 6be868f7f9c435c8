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
  /**
   * The public keys of the login server that the other side knows, from the handshake. Sign assertions with the first
   * own key that is among them, so that requests pass while a new key spreads.
   */
  readonly keys: readonly string[];
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
  /** True if a member of the mesh is a server of this very cluster, or was until it left: its record names the key. */
  readonly direct: boolean;
  /** Its open tunnels to this replica, the one that answered last first. */
  readonly tunnels: readonly Tunnel[];
}

/** The joined clusters of a login server, as one replica knows them. */
export interface JoinedClusters {
  get(name: string): JoinedCluster | undefined;
  all(): readonly JoinedCluster[];
}

/** What a replica of a cluster asks for when it comes to the login server. Its signature has been verified. */
interface Arrival {
  /** The name that the cluster claims. It is a DNS label. */
  readonly cluster: string;
  /** The replica of the cluster's TKA server. */
  readonly replica: string;
  /** The cluster's public key (keys.ts). The other side has proved that it holds the private key. */
  readonly publicKey: string;
  readonly statement: ClusterStatement;
  /** The address that the connection comes from, for the log. May be that of a load balancer. */
  readonly address: string;
}

/** A cluster wants to join. */
export interface JoinRequest extends Arrival {
  /** The join token, at most 4 KiB. Its form is not checked yet. */
  readonly token: string;
}

/** A replica of a joined cluster wants to open a tunnel. */
export interface DialRequest extends Arrival {
  /** The tunnel's ID, which the joined server chose. */
  readonly tunnel: string;
}

/**
 * Why the login server refuses. `unavailable`: try again. `clock`: the clocks are more than 5 minutes apart. `version`:
 * the login server does not speak this version of the protocol. `rejected`: the token or the cluster is not accepted, a
 * retry with the same token does not help. `evicted`: the cluster is not joined (any more), or with another key.
 */
export const refusalCodes = ['unavailable', 'clock', 'version', 'rejected', 'evicted'] as const;
export type RefusalCode = (typeof refusalCodes)[number];

export interface Refused {
  readonly ok: false;
  readonly code: RefusalCode;
  /** Why, for a person: one line without secrets. Untrusted on the joined side, which cleans and cuts it. */
  readonly message: string;
}

export interface Joined {
  readonly ok: true;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** The public keys of the login server, the one that signs first. */
  readonly keys: readonly string[];
}

/** The answer to JoinRequest. */
export type JoinAnswer = Joined | Refused;

/** The answer to DialRequest. A suspended cluster is not refused: its tunnel stays open. */
export type DialAnswer = { readonly ok: true } | Refused;

/** Decides on the login server which clusters join, and which tunnels are open. Rejections count as `unavailable`. */
export interface Admission {
  join(request: JoinRequest, signal: AbortSignal): Promise<JoinAnswer>;
  dial(request: DialRequest, signal: AbortSignal): Promise<DialAnswer>;
}

/** An open tunnel, as the joined server sees it. */
export interface OwnTunnel {
  /** Chosen at random by this server for this connection. Assertions must name it. */
  readonly id: string;
  /** The name of this cluster. Assertions must name it. */
  readonly cluster: string;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** The replica of the login server. */
  readonly replica: string;
  /** The public keys of the login server that are proved for this tunnel. Assertions are signed with one of them. */
  readonly keys: readonly string[];
  /** The login server's clock minus this server's clock, in milliseconds. */
  readonly clockOffsetMs: number;
  /** Unix time in milliseconds. */
  readonly since: number;
  /** Dials again, because the clock offset or the keys are outdated. The reason is for the log. */
  redial?(reason: string): void;
}

/**
 * The message of the 401 with which a joined server refuses an assertion, and not its caller. Any other 401 through a
 * tunnel says that the caller is not signed in.
 */
export const assertionRefused = 'the joined cluster does not accept the assertion of its login server';

/** The path of the request that ends all sign-ins of a cluster that was evicted. */
export const evictedPath = '/tka-federation/v1/evicted';

/** The requests that pass through a tunnel. */
export const tunnelPaths = [
  '/api/v1alpha1/login',
  '/api/v1alpha1/kubeconfig',
  '/api/v1alpha1/logout',
  '/api/v1alpha1/cluster-info',
  evictedPath,
] as const;
