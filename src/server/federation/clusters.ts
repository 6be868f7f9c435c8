// The joined clusters, as this replica of the login server knows them: their TkaClusters, and their tunnels to it.
import { KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import type { ObjectEvents } from '../provisioner/events.ts';
import { type Watched, watchCollection } from '../provisioner/watch.ts';
import { type Seen, type StatusTimes, StatusWriter } from './cluster-status.ts';
import {
  type Conflict,
  conflictOf,
  isDirect,
  type Judged,
  type MeshClaims,
  type OwnCluster,
  ownersOf,
  type Wish,
  writtenConflict,
} from './conflicts.ts';
import type { ClusterStatement, JoinedCluster, JoinedClusters, Tunnel } from './contract.ts';
import {
  apiVersion,
  federationHint,
  federationPaths,
  type KnownCluster,
  knownCluster,
  type TkaCluster,
} from './objects.ts';

export interface ClustersOptions {
  readonly kube: Kube;
  readonly log: Log;
  readonly events: ObjectEvents;
  readonly replica: string;
  readonly isAlive: (replica: string) => boolean;
  readonly own: () => OwnCluster;
  readonly claims: MeshClaims;
  /** Tells a joined server that its cluster is not joined any more. May reject. */
  readonly tellEvicted: (tunnel: Tunnel) => Promise<void>;
  /** Called when a TkaCluster is gone, or has another key. */
  readonly onEvicted: (name: string, keyHash: string) => void;
  /** Called when all TkaClusters have been listed. */
  readonly onListed: () => void;
  readonly times?: StatusTimes | undefined;
}

/** What this replica remembers about a cluster. */
interface Memory {
  /** The open tunnels, with the keys that were proved for them. */
  readonly tunnels: Map<Tunnel, string>;
  statement: ClusterStatement | undefined;
  /** The statement that is not in the status yet. */
  news: ClusterStatement | undefined;
  lastSeen: number | undefined;
}

/** A tunnel, and the key that was proved for it. */
type ProvedTunnel = readonly [tunnel: Tunnel, publicKey: string];

export class Clusters implements JoinedClusters {
  readonly #options: ClustersOptions;
  readonly #watched: Watched<TkaCluster>;
  readonly #status: StatusWriter;
  readonly #known = new Map<string, KnownCluster>();
  // Why a TkaCluster cannot be used.
  readonly #broken = new Map<string, string>();
  readonly #memories = new Map<string, Memory>();
  readonly #evicting = new Set<Promise<void>>();
  // By API endpoint; undefined after a change.
  #owners: ReadonlyMap<string, KnownCluster> | undefined;

  constructor(options: ClustersOptions) {
    const { kube, log, events, replica, isAlive, onListed, times } = options;
    this.#options = options;
    this.#status = new StatusWriter({
      kube,
      log,
      events,
      replica,
      isAlive,
      names: () => this.#known.keys(),
      facts: (name) => this.#facts(name),
      onCurrent: (name, news, written) => {
        if (written !== undefined) this.#watched.put(written);
        const memory = this.#memories.get(name);
        if (memory !== undefined && memory.news === news) memory.news = undefined;
      },
      times,
    });
    this.#watched = watchCollection<TkaCluster>(
      { kube, log, onChange: (name, object) => this.#changed(name, object), onListed },
      {
        path: federationPaths.clusters(),
        what: 'TkaClusters',
        hints: { 403: federationHint, 404: federationHint },
        keep: (cluster) => cluster,
      },
    );
  }

  get(name: string): JoinedCluster | undefined {
    const known = this.#known.get(name);
    return known && this.#viewOf(known);
  }

  all(): readonly JoinedCluster[] {
    return [...this.#known.values()].map((known) => this.#viewOf(known)).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Returns why the list may be old, or undefined. */
  problem(): string | undefined {
    return this.#watched.problem();
  }

  /** Returns the milliseconds since the API server last reported anything about TkaClusters. */
  silentMs(): number {
    return this.#watched.silentMs();
  }

  /** Returns a cluster in its checked form. */
  known(name: string): KnownCluster | undefined {
    return this.#known.get(name);
  }

  /** Returns why the TkaCluster of this name cannot be used, or undefined. */
  broken(name: string): string | undefined {
    return this.#broken.get(name);
  }

  /** Returns the number of joined clusters. */
  get size(): number {
    return this.#known.size + this.#broken.size;
  }

  /** Takes an object that this process has just read or written. */
  put(object: TkaCluster): void {
    this.#watched.put(object);
  }

  /** Returns why a cluster that wants to join may not have its name or its API endpoint. */
  conflict(wish: Wish): Judged {
    const { own, claims } = this.#options;
    return conflictOf(wish, { own: own(), claims, owner: (apiEndpoint) => this.#ownerOf(apiEndpoint) });
  }

  /** Takes a tunnel that is open, and the key that was proved for it. */
  opened(tunnel: Tunnel, publicKey: string | undefined): void {
    const { cluster: name, statement } = tunnel;
    const known = this.#known.get(name);
    const hasChanged = known === undefined ? this.#broken.has(name) : known.publicKey !== publicKey;
    if (publicKey === undefined || hasChanged) {
      tunnel.close('the TkaCluster has changed during the handshake');
      return;
    }
    if (known === undefined) {
      this.#evict(name, [[tunnel, publicKey]]);
      return;
    }
    const memory = this.#memories.get(name) ?? emptyMemory();
    this.#memories.set(name, memory);
    memory.tunnels.set(tunnel, publicKey);
    memory.statement = statement;
    memory.news = statement;
    memory.lastSeen = Math.max(memory.lastSeen ?? 0, tunnel.lastSeen());
    this.#status.add(name);
  }

  /** Takes note that a tunnel is closed. */
  closed(tunnel: Tunnel): void {
    const memory = this.#memories.get(tunnel.cluster);
    if (memory === undefined || !memory.tunnels.delete(tunnel)) return;
    memory.lastSeen = Math.max(memory.lastSeen ?? 0, tunnel.lastSeen());
    this.#status.add(tunnel.cluster);
  }

  async stop(): Promise<void> {
    this.#watched.stop();
    await Promise.all([this.#status.stop(), ...this.#evicting]);
  }

  #changed(name: string, object: TkaCluster | undefined): void {
    this.#owners = undefined;
    const isGone = object === undefined || object.metadata.deletionTimestamp !== undefined;
    const known = isGone ? undefined : knownCluster(object);
    if (typeof known === 'string') {
      this.#known.delete(name);
      this.#broken.set(name, known);
      this.#options.log.error(
        { name, problem: known, hints: [`kubectl edit tkacluster -n tka-federation ${name}`] },
        'a TkaCluster cannot be used',
      );
      return;
    }
    const before = this.#known.get(name);
    this.#broken.delete(name);
    if (known === undefined) this.#known.delete(name);
    else this.#known.set(name, known);
    if (before !== undefined && before.publicKey !== known?.publicKey) this.#options.onEvicted(name, before.keyHash);
    const { tunnels = new Map<Tunnel, string>() } = this.#memories.get(name) ?? {};
    const strange = [...tunnels].filter(([, key]) => key !== known?.publicKey);
    // No request goes there any more.
    for (const [tunnel] of strange) tunnels.delete(tunnel);
    if (strange.length > 0) this.#evict(name, strange, before?.object);
    if (known !== undefined) {
      this.#status.add(name);
      return;
    }
    this.#memories.delete(name);
    this.#status.forget(name);
  }

  /** Ends the tunnels of a cluster whose TkaCluster is gone, or has another key, as far as the watch knows. */
  #evict(name: string, tunnels: readonly ProvedTunnel[], object?: TkaCluster): void {
    const evicting = this.#end(name, tunnels, object).finally(() => this.#evicting.delete(evicting));
    this.#evicting.add(evicting);
  }

  /**
   * Closes tunnels. Tells the joined servers that they are evicted if the API server confirms it: that ends sign-ins,
   * and the watch may be late. The others dial again. Never rejects.
   */
  async #end(name: string, tunnels: readonly ProvedTunnel[], object: TkaCluster | undefined): Promise<void> {
    const { kube, log, events, replica, tellEvicted } = this.#options;
    const isEvicted = await readCluster(kube, name).then(
      (current) => (key: string) => hasLost(current, key),
      (error: unknown) => {
        log.warn({ err: error, name }, 'could not read the TkaCluster of tunnels that are closed');
        return () => false;
      },
    );
    const evicted: Tunnel[] = [];
    for (const [tunnel, key] of tunnels) {
      if (isEvicted(key)) evicted.push(tunnel);
      else tunnel.close('the TkaCluster may have changed');
    }
    if (evicted.length === 0) return;
    log.warn({ name, tunnels: evicted.length }, 'evicts a cluster: its TkaCluster was deleted, or has another key');
    if (object !== undefined) {
      const note = `the TkaCluster was deleted, or has another key: ${replica} closes ${evicted.length} tunnel(s)`;
      const told = { type: 'Normal', reason: 'Evicted', action: 'EvictCluster', note } as const;
      events.tell({ apiVersion, kind: 'TkaCluster', metadata: object.metadata }, told);
    }
    await Promise.all(
      evicted.map(async (tunnel) => {
        // It learns it from its next dial.
        await tellEvicted(tunnel).catch((error: unknown) =>
          log.warn({ err: error, name }, 'could not tell a joined server that it is evicted'),
        );
        tunnel.close('evicted');
      }),
    );
  }

  #ownerOf(apiEndpoint: string): KnownCluster | undefined {
    this.#owners ??= ownersOf(this.#known.values());
    return this.#owners.get(apiEndpoint);
  }

  /** Returns why a cluster is not used. `endpoint` is the API endpoint that it stated last. */
  #conflictOf(known: KnownCluster, endpoint: string | undefined): Conflict | undefined {
    const conflict = this.conflict(known);
    // What another replica has written, or this one before it restarted: the replicas must not write against each other.
    if (conflict === 'unknown') return writtenConflict(known.object);
    if (conflict !== undefined || endpoint === undefined || endpoint === known.apiEndpoint) return conflict;
    const message = `the cluster states the API endpoint ${endpoint}, and its TkaCluster has ${known.apiEndpoint}`;
    return { reason: 'EndpointChanged', message: `${message}: if that is right, edit spec.apiEndpoint` };
  }

  #viewOf(known: KnownCluster): JoinedCluster {
    const { name, labels, suspended, apiEndpoint, object } = known;
    const { tunnels, statement, lastSeen } = this.#memories.get(name) ?? emptyMemory();
    const open = [...tunnels.keys()].sort((a, b) => b.lastSeen() - a.lastSeen());
    const reported = Date.parse(object.status?.lastSeen ?? '');
    // What it stated to this replica may be old if its tunnels are elsewhere now.
    const endpoint = open.length > 0 ? statement?.apiEndpoint : object.status?.endpoint;
    const seen = [...open.map((tunnel) => tunnel.lastSeen()), lastSeen ?? Number.NaN, reported].filter((at) => at > 0);
    return {
      name,
      labels,
      suspended,
      conflict: this.#conflictOf(known, endpoint)?.message,
      apiEndpoint,
      statement,
      lastSeen: seen.length === 0 ? undefined : Math.max(...seen),
      direct: isDirect(known, this.#options.claims),
      tunnels: open,
    };
  }

  #facts(name: string): { readonly object: TkaCluster; readonly seen: Seen } | undefined {
    const known = this.#known.get(name);
    if (known === undefined) return undefined;
    const { tunnels, news, lastSeen } = this.#memories.get(name) ?? emptyMemory();
    const latest = Math.max(lastSeen ?? 0, ...[...tunnels.keys()].map((tunnel) => tunnel.lastSeen()));
    // From the shared status, so that all replicas come to the same result.
    const conflict = this.#conflictOf(known, (news ?? { apiEndpoint: known.object.status?.endpoint }).apiEndpoint);
    const seen = { connected: tunnels.size > 0, lastSeen: latest > 0 ? latest : undefined, news, conflict };
    return { object: known.object, seen };
  }
}

const emptyMemory = (): Memory => ({ tunnels: new Map(), statement: undefined, news: undefined, lastSeen: undefined });

/**
 * Returns the TkaCluster of this name from the API server, or undefined if there is none. Throws a KubeError. Reads a
 * list: for a single object, 404 can also mean that the API server does not serve TkaClusters at the moment.
 */
export async function readCluster(kube: Kube, name: string): Promise<TkaCluster | undefined> {
  const query = new URLSearchParams({ fieldSelector: `metadata.name=${name}` });
  const list = await kube.get<{ readonly items: readonly TkaCluster[] }>(`${federationPaths.clusters()}?${query}`);
  if (list === undefined) throw new KubeError('the API server does not serve TkaClusters', 404);
  return list.items.find(({ metadata }) => metadata.name === name);
}

/** Returns whether the owner of a key has lost its TkaCluster. One that cannot be used may be a mistake. */
function hasLost(object: TkaCluster | undefined, publicKey: string): boolean {
  if (object === undefined || object.metadata.deletionTimestamp !== undefined) return true;
  const known = knownCluster(object);
  return typeof known !== 'string' && known.publicKey !== publicKey;
}
