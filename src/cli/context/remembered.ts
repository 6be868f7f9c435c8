// What this machine calls TKA servers: by the names of their clusters, as the last lists have them. Nothing is asked.

import type { Cluster } from '../../discovery/clusters.ts';
import type { ListMemory } from '../../discovery/memory.ts';
import { rememberedClusters } from '../../discovery/remembered.ts';

/** The clusters of the last lists, by server. */
export class RememberedClusters {
  readonly #memory: ListMemory;
  #clusters: readonly Cluster[] | undefined;
  #byServer: ReadonlyMap<string, Cluster> | undefined;
  #byName: ReadonlyMap<string, readonly Cluster[]> | undefined;
  #byEndpoint: ReadonlyMap<string, readonly Cluster[]> | undefined;

  constructor(memory: ListMemory) {
    this.#memory = memory;
  }

  /** Reads the lists anew when they are needed next: a command may have kept one. */
  renew(): void {
    this.#clusters = undefined;
    this.#byServer = undefined;
    this.#byName = undefined;
    this.#byEndpoint = undefined;
  }

  /** All of them, those of the newest list first; one that several lists have may be there several times. */
  get all(): readonly Cluster[] {
    const lists = () => this.#memory.all().sort((a, b) => b.at - a.at);
    this.#clusters ??= lists().flatMap((list) => rememberedClusters(list));
    return this.#clusters;
  }

  /** The cluster of a server; undefined if no list has it. */
  of(server: string): Cluster | undefined {
    const pairs = () =>
      this.all.flatMap((cluster) => cluster.servers.map((each) => [each.server ?? '', cluster] as const));
    // The newest list counts.
    this.#byServer ??= new Map(pairs().reverse());
    return this.#byServer.get(server);
  }

  /** The only cluster of an API endpoint; undefined for none, or for several. */
  at(endpoint: string | undefined): Cluster | undefined {
    this.#byEndpoint ??= Map.groupBy(this.all, ({ apiEndpoint }) => apiEndpoint);
    const [first, ...others] = this.#byEndpoint.get(endpoint ?? '') ?? [];
    return others.every(({ name }) => name === first?.name) ? first : undefined;
  }

  /**
   * The name of a server's cluster, which no list may have by this URL, while its API endpoint is known. Undefined if
   * no list has it, or if the name means another cluster too.
   */
  nameOf(server: string, endpoint?: string): string | undefined {
    const cluster = this.of(server) ?? this.at(endpoint);
    if (cluster === undefined) return undefined;
    this.#byName ??= Map.groupBy(this.all, ({ name }) => name);
    const alike = this.#byName.get(cluster.name) ?? [];
    return alike.every(({ apiEndpoint }) => apiEndpoint === cluster.apiEndpoint) ? cluster.name : undefined;
  }

  /**
   * A hint with the cluster's name in the place of a server's URL: `kubectl tka login prod-us`. Not where the URL itself
   * is what counts: whoever types it says that the server is to be trusted.
   */
  inHint(hint: string): string {
    if (hint.startsWith('if you trust')) return hint;
    return hint.replace(/(?<=\bkubectl tka (?:login|logout|forget|use|exec|doctor) )https?:\/\/\S+/g, (server) => {
      return this.nameOf(server) ?? server;
    });
  }
}
