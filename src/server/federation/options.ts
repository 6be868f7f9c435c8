// How the two ends of the tunnels are set up: listener.ts on the login server, dialer.ts on a joined cluster's server.
import type { Log } from '../log/log.ts';
import type { Admission, ClusterStatement, OwnTunnel, Tunnel, TunnelAnswer, TunnelRequest } from './contract.ts';
import type { FederationKey } from './keys.ts';

/** Times in milliseconds. The defaults are for operation; tests use shorter ones. */
export interface TunnelTimes {
  /** From the connection to the end of the handshake. Default: 10 s. */
  readonly handshakeMs?: number;
  /** Between two pings. Default: 5 s. */
  readonly pingMs?: number;
  /** Without an answer to a ping for this long, the tunnel is closed. Default: 10 s. */
  readonly silenceMs?: number;
  /** For a request and its whole answer. Default: 20 s. */
  readonly requestMs?: number;
  /** The shortest and the longest pause before a dial. Default: 1 s and 30 s. */
  readonly redialMs?: readonly [shortest: number, longest: number];
}

/** Counts since the start of the process. Keys are codes for metrics: `tls`, `evicted`, `silent`. */
export type Counts = Readonly<Record<string, number>>;

export interface ListenOptions {
  /** An address of this machine; undefined for all addresses. */
  readonly host: string | undefined;
  /** 0 for any free port. */
  readonly port: number;
  /** PEM files with the certificate chain and its private key. They are read again when they change. */
  readonly certFile: string;
  readonly keyFile: string;
  /** The name of the login server's own cluster. */
  readonly cluster: string;
  /** The name of this replica: the pod's name. */
  readonly replica: string;
  /** Returns how many replicas the login server has now. */
  readonly replicas: () => number;
  /** Returns the signing keys of the login server, at least one. The first one signs assertions. */
  readonly keys: () => readonly FederationKey[];
  readonly admission: Admission;
  readonly log: Log;
  /**
   * Called when a tunnel is open. Close it if its cluster is not joined any more: it may have been evicted after
   * `admission` was asked.
   */
  readonly onOpen?: (tunnel: Tunnel) => void;
  /** Called when a tunnel is closed, once for each that was open. */
  readonly onClose?: (tunnel: Tunnel, reason: string) => void;
  readonly times?: TunnelTimes;
  /** How often the files are read, in milliseconds. Default: 10 s. */
  readonly certificateMs?: number;
}

/** The login server's end of all tunnels to this replica. */
export interface TunnelListener {
  readonly port: number;
  /** Returns the open tunnels of a cluster, or of all clusters. The one that answered last is the first. */
  tunnels(cluster?: string): readonly Tunnel[];
  counts(): {
    /** Tunnels that were opened. */
    readonly opened: number;
    /** Tunnels that were closed, by reason: `silent`, `protocol`, `goodbye`, `replaced`, `closed`. */
    readonly closed: Counts;
    /** Connections that did not become a tunnel or a joined cluster, by reason. */
    readonly refused: Counts;
  };
  /** Stops listening, tells all joined servers to dial another replica, and closes the tunnels. */
  close(): Promise<void>;
}

/** How a joined cluster's server reaches the login server, and what it says about itself. */
interface DialOptions {
  /** The https URL of the login server's `federation.listen`. */
  readonly endpoint: string;
  /** PEM file with the only authorities to trust, read at each dial. Undefined for those of the system. */
  readonly caFile: string | undefined;
  /** The environment with the proxy variables. */
  readonly env: NodeJS.ProcessEnv;
  /** The name of this cluster: a DNS label. */
  readonly cluster: string;
  /** The name of this replica: the pod's name. */
  readonly replica: string;
  /** This cluster's own key. */
  readonly key: FederationKey;
  readonly log: Log;
  readonly times?: TunnelTimes;
}

export interface JoinOptions extends DialOptions {
  readonly statement: ClusterStatement;
  /** The join token. It is sent after the login server has proved that it holds the key. */
  readonly token: string;
  /** The keyHash of the login server's key, from the token. */
  readonly keyHash: string;
  readonly signal: AbortSignal;
}

export interface KeepTunnelsOptions extends DialOptions {
  /** Returns what this cluster says about itself now. A change is announced by new tunnels. */
  readonly statement: () => ClusterStatement;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** The public keys of the login server that are known. Another one is learned when a known one has signed it. */
  readonly keys: readonly string[];
  /** Answers a request. A rejection becomes a 500 answer. The signal aborts when the answer is of no use any more. */
  readonly answer: (request: TunnelRequest, tunnel: OwnTunnel, signal: AbortSignal) => Promise<TunnelAnswer>;
  /** Called when the login server has other keys than before, the one that signs first. */
  readonly onKeys?: (keys: readonly string[]) => void;
  /** Called when the login server says that this cluster is not joined (any more). No further dial follows. */
  readonly onEvicted?: (message: string) => void;
}

/** The joined server's end of its tunnels. */
export interface OwnTunnels {
  connected(): readonly OwnTunnel[];
  /** Returns why the last dial failed; undefined if it did not. */
  problem(): string | undefined;
  counts(): {
    /** Tunnels that were opened. */
    readonly opened: number;
    /** Tunnels that were closed, by reason: `silent`, `protocol`, `goodbye`, `closed`. */
    readonly closed: Counts;
    /** Dials that failed, by code: `name`, `refused`, `tls`, `clock`, `unavailable`. */
    readonly failed: Counts;
  };
  /** Stops dialing. Answers the open requests, at most for 5 s, then closes the tunnels. */
  close(): Promise<void>;
}
