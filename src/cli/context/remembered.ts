// The names of TKA servers' clusters on this machine, from the last lists. Asks nothing over the network.

import type { Cluster } from '../../discovery/clusters.ts';
import { isJoined, isOnlyJoined } from '../../discovery/joined.ts';
import type { ListMemory } from '../../discovery/memory.ts';
import { rememberedClusters } from '../../discovery/remembered.ts';
import { cleanText } from '../../util/text.ts';

/** The clusters of the last lists, by server. */
export class RememberedClusters {
  readonly #memory: ListMemory;
  #index: ReturnType<typeof indexOf> | undefined;

  constructor(memory: ListMemory) {
    this.#memory = memory;
  }

  /** Drops the index; the next use reads the lists again, because a command may have written one. */
  renew(): void {
    this.#index = undefined;
  }

  get #here() {
    this.#index ??= indexOf(this.#memory);
    return this.#index;
  }

  /** All clusters, those of the newest list first. A cluster on several lists can occur several times. */
  get all(): readonly Cluster[] {
    return this.#here.all;
  }

  /** Returns the cluster of a server; undefined if no list has it. */
  of(server: string): Cluster | undefined {
    return this.#here.byServer.get(server);
  }

  /**
   * Returns the only cluster of the tailnet with an API endpoint; undefined if there is none, or several. A cluster
   * behind a login server can state any endpoint.
   */
  at(endpoint: string | undefined): Cluster | undefined {
    const [first, ...others] = this.#here.byEndpoint.get(endpoint ?? '') ?? [];
    return others.every(({ name }) => name === first?.name) ? first : undefined;
  }

  /**
   * Returns the name of a server's cluster. If no list has the server's URL, uses its API endpoint. Returns undefined
   * if no list has the cluster, or if another cluster has the same name.
   */
  nameOf(server: string, endpoint?: string): string | undefined {
    const cluster = this.of(server) ?? (isJoined({ server }) ? undefined : this.at(endpoint));
    if (cluster === undefined) return undefined;
    const { name, apiEndpoint, through } = cluster;
    const alike = this.#here.byName.get(name) ?? [];
    return alike.every((each) => each.apiEndpoint === apiEndpoint && each.through === through) ? name : undefined;
  }

  /**
   * Replaces a server's URL in a hint with its cluster's name: `kubectl tka login prod-us`. Keeps the URL in hints
   * about trust, because typing the URL means that the user trusts the server, where the name means another way to the
   * cluster, and where the hint ends in the name as `(NAME)`, because several things have it.
   */
  inHint(hint: string): string {
    if (hint.startsWith('if you trust')) return hint;
    return hint.replace(/(?<=\bkubectl tka (?:login|logout|forget|use|exec|doctor) )https?:\/\/\S+/g, (server) => {
      const cluster = this.of(server);
      const isOtherWay = cluster !== undefined && isJoined(cluster) !== isJoined({ server });
      const name = isOtherWay ? undefined : this.nameOf(server);
      return name === undefined || hint.endsWith(` (${cleanText(name)})`) ? server : name;
    });
  }
}

function indexOf(memory: ListMemory) {
  const lists = memory.all().sort((a, b) => b.at - a.at);
  const all: readonly Cluster[] = lists.flatMap((list) => rememberedClusters(list));
  const pairs = all.flatMap((cluster) => cluster.servers.map((each) => [each.server ?? '', cluster] as const));
  return {
    all,
    // Reversed, so that the newest list wins.
    byServer: new Map(pairs.reverse()),
    byName: Map.groupBy(all, ({ name }) => name),
    byEndpoint: Map.groupBy(
      all.filter((cluster) => !isOnlyJoined(cluster)),
      ({ apiEndpoint }) => apiEndpoint,
    ),
  };
}
