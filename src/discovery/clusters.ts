import { isIP } from 'node:net';
import type { MemberState } from '../tka/types.ts';
import { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';

export type ClusterState = MemberState | 'missing' | 'unresolved' | 'unknown';

/**
 * Where it is known from that a server is a cluster's TKA server: `stated` by a list, this one or an earlier one; `known`
 * to the user, who named it or has a context for it; `tailnet` if we inferred it from the tailnet's peers. trust.ts says
 * which of them need the tag.
 */
export type Provenance = 'stated' | 'known' | 'tailnet';

/** One of the TKA servers of a cluster. */
export interface ClusterServer {
  readonly name: string;
  /** Canonical URL; null where it is not known. */
  readonly server: string | null;
  /** Where it is known from that it is of this cluster. */
  readonly provenance: Provenance;
  readonly state: ClusterState;
  /** Why it is in that state, where that needs saying. */
  readonly reason: string | null;
  /** RFC 3339. */
  readonly lastSeen: string | null;
  readonly version: string | null;
}

/** A cluster that can be signed in to, or is at least known of. */
export interface Cluster {
  readonly name: string;
  /** The TKA server to use if nothing else is said, canonical URL; null where none is known. */
  readonly server: string | null;
  /** Where it is known from that this is its server. */
  readonly provenance: Provenance;
  /** Canonical URL of its API server. */
  readonly apiEndpoint: string;
  /** The best of its servers'. */
  readonly state: ClusterState;
  /** Why it is in that state, where that needs saying. */
  readonly reason: string | null;
  /** When one of its servers was last seen, RFC 3339. */
  readonly lastSeen: string | null;
  /** Of its TKA server, as the list states it. */
  readonly version: string | null;
  readonly labels: ReadonlyMap<string, string>;
  /** All its TKA servers: those in the best state first, then by name. Not empty. */
  readonly servers: readonly ClusterServer[];
}

/** A TKA server and the API server that it gives tokens for, as known from elsewhere (the kubeconfig). */
export interface KnownPair {
  readonly server: string;
  readonly apiServer: string | undefined;
}

/** A cluster whose TKA server is known. */
export type ResolvedCluster = Cluster & { readonly server: string };

/** An error about one cluster whose TKA server is not known or must not be used. */
export class UnusableCluster extends TkaError {
  /** The message for after the name of the cluster. */
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

/** Returns what an error says after the name of the cluster that it is about. */
export function messageAfterName(error: TkaError): string {
  return error instanceof UnusableCluster ? error.unnamed : error.message;
}

/** Returns the cluster if its TKA server is known. Throws UnresolvedCluster. */
export function resolved(cluster: Cluster): ResolvedCluster {
  const { server } = cluster;
  if (server === null) throw new UnresolvedCluster(cluster);
  return { ...cluster, server };
}

/** The short name of a TKA server: its host without the tailnet's suffix. */
export function shortName(server: string, tailnet: string): string {
  const host = hostOf(server);
  if (isIP(host) !== 0 || host === 'localhost') return host;
  if (tailnet !== '' && host.endsWith(`.${tailnet}`)) return host.slice(0, -tailnet.length - 1);
  return /^([^.]+)\.[^.]+\.ts\.net$/.exec(host)?.[1] ?? host;
}

/**
 * Names for the context of a server's cluster: the cluster's own, if it is known, then the server's, shortest first. The
 * later ones add what may be needed to keep two apart. They stay whatever else there is, so nothing has to be renamed later.
 */
export function contextNames(server: string, tailnet: string, cluster: string | null = null): string[] {
  const { port, protocol } = new URL(server);
  const host = hostOf(server);
  const withPort = port === '' ? host : `${host}-${port}`;
  const short = shortName(server, tailnet);
  return [
    ...new Set([...(cluster === null ? [] : [cluster]), short, host, withPort, `${protocol.slice(0, -1)}-${withPort}`]),
  ];
}
