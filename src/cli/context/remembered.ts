// What this machine calls TKA servers: by the names of their clusters, as the last lists have them. Nothing is asked.

import type { Cluster } from '../../discovery/clusters.ts';
import type { ListMemory } from '../../discovery/memory.ts';
import { rememberedClusters } from '../../discovery/remembered.ts';

/** The clusters of the last lists, by server. */
export class RememberedClusters {
  readonly #memory: ListMemory;
  #index: ReturnType<typeof indexOf> | undefined;

  constructor(memory: ListMemory) {
    this.#memory = memory;
  }

  /** Reads the lists anew when they are needed next: a command may have kept one. */
  renew(): void {
    this.#index = undefined;
  }

  get #here() {
    this.#index ??= indexOf(this.#memory);
    return this.#index;
  }

  /** All of them, those of the newest list first; one that several lists have may be there several times. */
  get all(): readonly Cluster[] {
    return this.#here.all;
  }

  /** The cluster of a server; undefined if no list has it. */
  of(server: string): Cluster | undefined {
    return this.#here.byServer.get(server);
  }

  /** The only cluster of an API endpoint; undefined for none, or for several. */
  at(endpoint: string | undefined): Cluster | undefined {
    const [first, ...others] = this.#here.byEndpoint.get(endpoint ?? '') ?? [];
    return others.every(({ name }) => name === first?.name) ? first : undefined;
  }

  /**
   * The name of a server's cluster, which no list may have by this URL, while its API endpoint is known. Undefined if
   * no list has it, or if the name means another cluster too.
   */
  nameOf(server: string, endpoint?: string): string | undefined {
    const cluster = this.of(server) ?? this.at(endpoint);
    if (cluster === undefined) return undefined;
    const alike = this.#here.byName.get(cluster.name) ?? [];
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

function indexOf(memory: ListMemory) {
  const lists = memory.all().sort((a, b) => b.at - a.at);
  const all: readonly Cluster[] = lists.flatMap((list) => rememberedClusters(list));
  const pairs = all.flatMap((cluster) => cluster.servers.map((each) => [each.server ?? '', cluster] as const));
  return {
    all,
    // The newest list counts.
    byServer: new Map(pairs.reverse()),
    byName: Map.groupBy(all, ({ name }) => name),
    byEndpoint: Map.groupBy(all, ({ apiEndpoint }) => apiEndpoint),
  };
}
