// The other servers of a cluster, which can replace a server that is away.

import { Unavailable } from '../network/failure.ts';
import type { ClusterAccess, ClusterDescription } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';

/** What a server reported about its cluster. Only a server that reports the same may replace it. */
export interface KnownCluster extends ClusterAccess {
  readonly cluster: string;
  readonly signInStore: string;
}

/** A cluster and its other servers, where the user can also sign in. */
export interface Siblings {
  readonly known: KnownCluster;
  /** Canonical URLs of servers that may be used, best first. */
  readonly servers: readonly string[];
}

/** Returns what other servers must report to replace this one, or undefined if this one did not report all of it. */
export function knownClusterOf(info: ClusterDescription): KnownCluster | undefined {
  const { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore } = info;
  if (cluster === null || signInStore === null) return undefined;
  return { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore };
}

/** Returns how a server differs from the known cluster, or undefined if it does not. */
export function disagreement(known: KnownCluster, info: ClusterDescription): string | undefined {
  if (info.signInStore === null) return 'it does not report its sign-in store';
  if (info.signInStore !== known.signInStore) return 'it has another sign-in store';
  if (info.cluster !== known.cluster)
    return `it belongs to ${info.cluster === undefined || info.cluster === null ? 'a cluster without a name' : `cluster ${info.cluster}`}`;
  return accessDisagreement(known, info);
}

/** Returns how the access to a cluster differs from the known access, or undefined if it does not. */
export function accessDisagreement(known: ClusterAccess, access: ClusterAccess): string | undefined {
  if (access.apiServer !== known.apiServer) return `its API server is ${access.apiServer}`;
  // A context without TLS verification has no CA.
  const isSameCa = known.insecureSkipTlsVerify || access.caData === known.caData;
  if (access.insecureSkipTlsVerify !== known.insecureSkipTlsVerify || !isSameCa)
    return 'it has another CA for the API server';
  return undefined;
}

/** Timeout for another server's /cluster-info, in milliseconds. */
const longestAnswer = 2000;

/** Pause between two searches, and before a server that was left is asked again. In milliseconds. */
export const roundPause = 500;

/** Limit on the servers to ask, because a list may contain thousands. */
const mostSiblings = 8;

export interface OtherServersOptions {
  readonly open: (server: string) => TkaClient;
  /** Called once, and only if the server seems to be away. Returns undefined if there is no other server. */
  readonly siblings: () => Promise<Siblings | undefined>;
  readonly log: (line: string) => void;
}

/** The other servers of a cluster. Asks them, and holds a client for the first one that reports the same cluster. */
export class OtherServers {
  readonly #first: string;
  readonly #options: OtherServersOptions;
  #siblings: Promise<Siblings | undefined> | undefined;
  #search: Promise<void> | undefined;
  #searchedAt = Number.NEGATIVE_INFINITY;
  #found: TkaClient | undefined;
  /** When servers were left, on the clock of performance.now(). */
  readonly #left = new Map<string, number>();
  /** Why servers cannot be used. */
  readonly #problems = new Map<string, string>();
  /** Servers that must not be used. */
  readonly #refused = new Set<string>();

  /** `first` is the server in the context. */
  constructor(first: string, options: OtherServersOptions) {
    this.#first = first;
    this.#options = options;
  }

  /** A client for a server that reports the same cluster. */
  get found(): TkaClient | undefined {
    return this.#found;
  }

  get isSearching(): boolean {
    return this.#search !== undefined;
  }

  /** Why other servers cannot be used, one line each. */
  get problems(): string[] {
    return [...this.#problems.values()].map((why) => `another server of the cluster: ${why}`);
  }

  /** Returns the known cluster, or undefined if it is unknown or before the first search. */
  async known(): Promise<KnownCluster | undefined> {
    return (await this.#siblings)?.known;
  }

  /** Asks all servers except `current`. Joins a search in progress; does nothing just after one. Never throws. */
  async search(current: string): Promise<void> {
    if (this.#search === undefined) {
      if (this.#found !== undefined || performance.now() - this.#searchedAt < roundPause) return;
      this.#search = this.#askAll(current).finally(() => {
        this.#search = undefined;
        this.#searchedAt = performance.now();
      });
    }
    await this.#search;
  }

  /** Notes that the client has left a server, and lets go of the client that was found, without closing it. */
  leave(server: string): void {
    this.#left.set(server, performance.now());
    this.#found = undefined;
  }

  /** Closes the client that was found. */
  async drop(): Promise<void> {
    const found = this.#found;
    this.#found = undefined;
    await found?.close();
  }

  /** Excludes a server for good. The next search may start at once. */
  refuse(server: string, why: string): void {
    this.#refused.add(server);
    this.#problems.set(server, `${server} is not used: ${why}`);
    this.#searchedAt = Number.NEGATIVE_INFINITY;
    this.#options.log(`${server} is not used: ${why}`);
  }

  async #askAll(current: string): Promise<void> {
    const { log } = this.#options;
    const siblings = await this.#findSiblings();
    if (siblings === undefined) return;
    const servers = [...new Set([this.#first, ...siblings.servers])].filter((server) => this.#mayTry(server, current));
    if (servers.length === 0) return;
    log(`${current} seems to be away: asking ${servers.join(', ')}`);
    const won = new AbortController();
    const asked = servers.slice(0, mostSiblings).map((server) => this.#confirm(server, siblings.known, won.signal));
    const found = await Promise.any(asked).catch(() => undefined);
    won.abort(new Unavailable('another server answered first', 0));
    for (const one of asked) one.then((client) => (client === found ? undefined : client.close())).catch(() => {});
    this.#found = found;
  }

  #findSiblings(): Promise<Siblings | undefined> {
    this.#siblings ??= this.#options.siblings().catch((error) => {
      this.#options.log(`the other servers of the cluster cannot be found: ${error}`);
      return undefined;
    });
    return this.#siblings;
  }

  #mayTry(server: string, current: string): boolean {
    const left = this.#left.get(server) ?? Number.NEGATIVE_INFINITY;
    return server !== current && !this.#refused.has(server) && performance.now() - left >= roundPause;
  }

  /** Returns a client for a server that reports the known cluster. The caller keeps using its connection. */
  async #confirm(server: string, known: KnownCluster, signal: AbortSignal): Promise<TkaClient> {
    const client = this.#options.open(server);
    try {
      const info = await client.clusterInfo({ timeout: longestAnswer, signal });
      const difference = disagreement(known, info);
      if (difference === undefined) return client;
      this.refuse(server, difference);
      throw new Error(difference);
    } catch (error) {
      await client.close();
      if (!this.#refused.has(server) && !signal.aborted)
        this.#problems.set(server, error instanceof Error ? error.message : String(error));
      throw error;
    }
  }
}
