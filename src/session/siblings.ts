// The other servers of a cluster, which may take the place of one that is away.

import { Unavailable } from '../network/failure.ts';
import type { ClusterAccess, ClusterDescription } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';

/** What a server stated of its cluster. Only a server that states the same may take its place. */
export interface KnownCluster extends ClusterAccess {
  readonly cluster: string;
  readonly signInStore: string;
}

/** Where else a cluster can be signed in to. */
export interface Siblings {
  readonly known: KnownCluster;
  /** Canonical URLs of servers that may be used, the best first. */
  readonly servers: readonly string[];
}

/** Returns what a server must have stated for others to take its place; undefined if it did not state all of it. */
export function knownClusterOf(info: ClusterDescription): KnownCluster | undefined {
  const { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore } = info;
  if (cluster === null || signInStore === null) return undefined;
  return { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore };
}

/** Says in what a server differs from what is known of a cluster; undefined if it does not. */
export function disagreement(known: KnownCluster, info: ClusterDescription): string | undefined {
  if (info.signInStore === null) return 'it does not report its sign-in store';
  if (info.signInStore !== known.signInStore) return 'it has another sign-in store';
  if (info.cluster !== known.cluster)
    return `it belongs to ${info.cluster === undefined || info.cluster === null ? 'a cluster without a name' : `cluster ${info.cluster}`}`;
  return accessDisagreement(known, info);
}

/** Says in what the access to a cluster differs from what is known of it; undefined if it does not. */
export function accessDisagreement(known: ClusterAccess, access: ClusterAccess): string | undefined {
  if (access.apiServer !== known.apiServer) return `its API server is ${access.apiServer}`;
  // A context without TLS verification has no CA.
  const isSameCa = known.insecureSkipTlsVerify || access.caData === known.caData;
  if (access.insecureSkipTlsVerify !== known.insecureSkipTlsVerify || !isSameCa)
    return 'it has another CA for the API server';
  return undefined;
}

/** How long another server may take to confirm itself, in milliseconds. */
const longestAnswer = 2000;

/** The pause between two rounds of questions; a server that was left is not asked for so long. In milliseconds. */
export const roundPause = 500;

/** A list may name thousands of servers. */
const mostSiblings = 8;

export interface OtherServersOptions {
  readonly open: (server: string) => TkaClient;
  /** Asked once, and only if the server seems to be away. Undefined if there is no other server. */
  readonly siblings: () => Promise<Siblings | undefined>;
  readonly log: (line: string) => void;
}

/** The other servers of a cluster: asks them, and holds the first that confirms that it may take over. */
export class OtherServers {
  readonly #first: string;
  readonly #options: OtherServersOptions;
  #siblings: Promise<Siblings | undefined> | undefined;
  #search: Promise<void> | undefined;
  #searchedAt = Number.NEGATIVE_INFINITY;
  #found: TkaClient | undefined;
  /** When servers were left, as performance.now() counts. */
  readonly #left = new Map<string, number>();
  /** Why servers are of no use. */
  readonly #problems = new Map<string, string>();
  /** Servers that must not be used. */
  readonly #refused = new Set<string>();

  /** `first` is the server that the context names. */
  constructor(first: string, options: OtherServersOptions) {
    this.#first = first;
    this.#options = options;
  }

  /** A server that has confirmed that it may take over. */
  get found(): TkaClient | undefined {
    return this.#found;
  }

  get isSearching(): boolean {
    return this.#search !== undefined;
  }

  /** What became of the servers that cannot be used, one line each. */
  get problems(): string[] {
    return [...this.#problems.values()].map((why) => `another server of the cluster: ${why}`);
  }

  /** What is known of the cluster; undefined before the first search, too. */
  async known(): Promise<KnownCluster | undefined> {
    return (await this.#siblings)?.known;
  }

  /** Asks all servers but `current`, unless they are being asked or were a moment ago. Never throws. */
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

  /** Gives up a server, and hands over the one that was found, if it takes over. */
  leave(server: string): void {
    this.#left.set(server, performance.now());
    this.#found = undefined;
  }

  /** Closes the connection to the one that was found. */
  async drop(): Promise<void> {
    const found = this.#found;
    this.#found = undefined;
    await found?.close();
  }

  /** Never uses a server again; the next search may begin at once. */
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

  /** A client for a server that states the known cluster; its connection is used further. */
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
