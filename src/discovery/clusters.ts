import { isIP } from 'node:net';
import type { MemberState } from '../tka/types.ts';
import { TkaError } from '../util/errors.ts';
import { hostOf, joinedNameOf, originOf } from '../util/url.ts';

export type ClusterState = MemberState | 'missing' | 'unresolved' | 'unknown';

/**
 * How we know that a server is a cluster's TKA server. `stated`: the current or an earlier list says so. `known`: the
 * user named it or has a context for it. `tailnet`: inferred from the tailnet's peers. trust.ts decides which of them
 * need the tag.
 */
export type Provenance = 'stated' | 'known' | 'tailnet';

/** One of the TKA servers of a cluster. */
export interface ClusterServer {
  readonly name: string;
  /** Canonical URL; null if unknown. */
  readonly server: string | null;
  /** How we know that it belongs to this cluster. */
  readonly provenance: Provenance;
  readonly state: ClusterState;
  /** Why it is in that state, if that needs an explanation. */
  readonly reason: string | null;
  /** RFC 3339. */
  readonly lastSeen: string | null;
  readonly version: string | null;
}

/** A known cluster. The user can sign in to it if `server` is not null. */
export interface Cluster {
  readonly name: string;
  /** Canonical URL of the TKA server to use by default; null if unknown. */
  readonly server: string | null;
  /** How we know that this is its server. */
  readonly provenance: Provenance;
  /** Canonical URL of its API server. */
  readonly apiEndpoint: string;
  /** The best state of its servers. */
  readonly state: ClusterState;
  /** Why it is in that state, if that needs an explanation. */
  readonly reason: string | null;
  /** When one of its servers was last seen, RFC 3339. */
  readonly lastSeen: string | null;
  /** Version of its TKA server, from the list. */
  readonly version: string | null;
  readonly labels: ReadonlyMap<string, string>;
  /** The name of the login server's cluster if `server` is the way through it; else null. */
  readonly through: string | null;
  /** All its TKA servers, sorted by state (best first), then by name. Not empty. */
  readonly servers: readonly ClusterServer[];
}

/** A TKA server and the API server that it gives tokens for, from the kubeconfig. */
export interface KnownPair {
  readonly server: string;
  readonly apiServer: string | undefined;
}

/** A cluster whose TKA server is known. */
export type ResolvedCluster = Cluster & { readonly server: string };

/** The TKA server of a cluster is unknown or must not be used. */
export class UnusableCluster extends TkaError {
  /** The message without the cluster's name, to print after that name. */
  readonly unnamed: string;

  constructor(message: string, unnamed: string, hint: string) {
    super(message, { hints: [hint] });
    this.unnamed = unnamed;
  }
}

/** The TKA server of a cluster is not known. */
export class UnresolvedCluster extends UnusableCluster {
  constructor({ name, reason }: Cluster) {
    const unnamed = `no known TKA server: ${reason ?? 'unresolved'}`;
    super(`${name} has ${unnamed}`, unnamed, 'if you know its host name, use it: kubectl tka login HOST');
  }
}

/** Returns the message to print after the name of the cluster that the error is about. */
export function messageAfterName(error: TkaError): string {
  return error instanceof UnusableCluster ? error.unnamed : error.message;
}

/** Returns the cluster if its TKA server is known. Throws UnresolvedCluster. */
export function resolved(cluster: Cluster): ResolvedCluster {
  const { server } = cluster;
  if (server === null) throw new UnresolvedCluster(cluster);
  return { ...cluster, server };
}

/**
 * Returns the short name of a TKA server: its host without the tailnet's MagicDNS suffix, or the name of a joined
 * cluster.
 */
export function shortName(server: string, tailnet: string): string {
  const joined = joinedNameOf(server);
  if (joined !== undefined) return joined;
  const host = hostOf(server);
  if (isIP(host) !== 0 || host === 'localhost') return host;
  if (tailnet !== '' && host.endsWith(`.${tailnet}`)) return host.slice(0, -tailnet.length - 1);
  return /^([^.]+)\.[^.]+\.ts\.net$/.exec(host)?.[1] ?? host;
}

/**
 * Returns possible names for the context of a server's cluster: the cluster's name, if known, then names of the server,
 * shortest first. Later names add what distinguishes two servers. The names do not depend on other clusters, so a
 * context never needs a new name later. Those of a joined cluster say through which login server: `site-1-through-tka`.
 */
export function contextNames(
  server: string,
  tailnet: string,
  cluster: string | null = null,
  through: string | null = null,
): string[] {
  const { port, protocol } = new URL(server);
  const host = hostOf(server);
  const withPort = port === '' ? host : `${host}-${port}`;
  const joined = joinedNameOf(server);
  const hosts = [shortName(originOf(server), tailnet), host, withPort, `${protocol.slice(0, -1)}-${withPort}`];
  const own =
    joined === undefined ? hosts : [joined, ...[through ?? [], hosts].flat().map((by) => nameThrough(joined, by))];
  return [...new Set([...(cluster === null ? [] : [cluster]), ...own])];
}

/** Returns the name that tells a joined cluster from another one with its name: `site-1-through-prod-eu`. */
export function nameThrough(name: string, through: string): string {
  return `${name}-through-${through}`;
}
