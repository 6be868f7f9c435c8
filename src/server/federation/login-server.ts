// The login server's side of a federation: starts and stops its parts. serve.ts calls startLoginServer.
import { setTimeout as delay } from 'node:timers/promises';
import type { KubeConfig } from '@kubernetes/client-node';
import type { ClusterInfo } from '../../tka/types.ts';
import { canonicalApiServer } from '../../util/url.ts';
import { type Config, clusterNameOf } from '../config/config.ts';
import type { Caller } from '../http/contract.ts';
import { connectKube, type Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { ObjectEvents } from '../provisioner/events.ts';
import { type Watched, watchCollection } from '../provisioner/watch.ts';
import { KubeAdmission } from './admission.ts';
import { signAssertion } from './assertion.ts';
import type { StatusTimes } from './cluster-status.ts';
import { Clusters } from './clusters.ts';
import type { MeshClaims } from './conflicts.ts';
import { evictedPath, type JoinedClusters, type Tunnel } from './contract.ts';
import { JoinTokens, joinTokenType } from './join-tokens.ts';
import { keyHash } from './keys.ts';
import { listenForTunnels } from './listener.ts';
import { federationHint, federationNamespace, federationPaths, type Secret } from './objects.ts';
import type { TunnelListener, TunnelTimes } from './options.ts';
import { Replicas, type ReplicaTimes, replicaName } from './replicas.ts';
import { SigningKeys, signingKeyName } from './signing-key.ts';

export interface LoginServerOptions {
  readonly config: Config;
  readonly kubeConfig: KubeConfig;
  readonly log: Log;
  /** Returns what is known about the own cluster. Rejects while nothing is. */
  readonly clusterInfo: () => Promise<Pick<ClusterInfo, 'server_url'>>;
  readonly claims: MeshClaims;
  /** Called when a request to join was decided. */
  readonly onJoin?: ((outcome: 'joined' | 'rejected') => void) | undefined;
  /** For tests. */
  readonly times?: (TunnelTimes & StatusTimes & ReplicaTimes & { readonly staleMs?: number }) | undefined;
}

/** One request of one caller through a tunnel. Without a caller: an eviction. */
export interface Asserted {
  readonly tunnel: Tunnel;
  readonly method: string;
  readonly path: string;
  readonly caller?: Caller;
}

export interface LoginServer {
  /** The name of the login server's own cluster. */
  readonly primary: string;
  readonly clusters: JoinedClusters;
  /** Returns a signed assertion for a request through a tunnel. Rejects if no key of the tunnel is in use any more. */
  assert(asserted: Asserted): Promise<string>;
  /** Returns whether all joined clusters are known. */
  isReady(): boolean;
  /** Returns whether the list of joined clusters is too old for sign-ins: one may be suspended or evicted by now. */
  isStale(): boolean;
  /** Returns why clusters may not be able to join or connect, or undefined. */
  problem(): string | undefined;
  /** Returns the port for tunnels, or undefined while the server does not listen. */
  port(): number | undefined;
  /** Resolves when the server listens for tunnels. Rejects if it stops before. */
  listening(): Promise<number>;
  stop(): Promise<void>;
}

const retryMs = 5_000;
const evictMs = 5_000;
const endpointMs = 60_000;
// Longer than an API server is away while it restarts. A watch is confirmed at least every 20 s.
const staleMs = 120_000;

/** Starts the login server's side, or returns undefined if `federation.listen` is not set. Waits for nothing. */
export function startLoginServer(options: LoginServerOptions): LoginServer | undefined {
  const listen = options.config.get('federation.listen');
  return listen === undefined || listen === '' ? undefined : new KubeLoginServer(options, listen);
}

class KubeLoginServer implements LoginServer {
  readonly primary: string;
  readonly clusters: Clusters;
  readonly #options: LoginServerOptions;
  readonly #listen: string;
  readonly #kube: Kube;
  readonly #events: ObjectEvents;
  readonly #keys: SigningKeys;
  readonly #tokens: JoinTokens;
  readonly #replicas: Replicas;
  readonly #secrets: Watched<Secret>;
  readonly #admission: KubeAdmission;
  readonly #stopping = new AbortController();
  readonly #known = {
    secrets: Promise.withResolvers<void>(),
    clusters: Promise.withResolvers<void>(),
    keys: Promise.withResolvers<void>(),
  };
  readonly #opened = Promise.withResolvers<number>();
  readonly #running: Promise<void>;
  #apiEndpoint: { readonly url: string | undefined; readonly at: number } = { url: undefined, at: 0 };
  #listener: TunnelListener | undefined;
  #problem: string | undefined = 'the login server is starting';

  constructor(options: LoginServerOptions, listen: string) {
    const { config, kubeConfig, log, claims, times, onJoin } = options;
    const { signal } = this.#stopping;
    this.primary = clusterNameOf(config);
    this.#options = options;
    this.#listen = listen;
    // Not the provisioner's connections: sign-ins to the own cluster never wait for the federation.
    const kube = connectKube(kubeConfig);
    this.#kube = kube;
    this.#events = new ObjectEvents(kube, federationNamespace, log);
    this.#replicas = new Replicas({ kube, log, name: replicaName(), times });
    this.#keys = new SigningKeys({ kube, log, signal, onKeys: () => this.#keysChanged() });
    this.#tokens = new JoinTokens({
      kube,
      log,
      events: this.#events,
      endpoint: config.get('federation.endpoint') ?? '',
      hash: () =>
        this.#keys
          .all()
          .slice(0, 1)
          .map((key) => keyHash(key.publicKey))[0],
      known: (name) => this.#secrets.get(name),
      all: () => this.#secrets.all(),
    });
    this.clusters = new Clusters({
      kube,
      log,
      events: this.#events,
      replica: this.#replicas.name,
      isAlive: (replica) => this.#replicas.isAlive(replica),
      own: () => ({ name: this.primary, apiEndpoint: this.#ownEndpoint() }),
      claims,
      tellEvicted: (tunnel) => this.#tellEvicted(tunnel),
      onEvicted: (name, hash) => this.#tokens.evicted(name, hash),
      onListed: () => this.#known.clusters.resolve(),
      times,
    });
    this.#admission = new KubeAdmission({
      kube,
      log,
      events: this.#events,
      clusters: this.clusters,
      tokens: this.#tokens,
      primary: this.primary,
      keys: () => this.#keys.all().map(({ publicKey }) => publicKey),
      onJoin,
    });
    this.#secrets = watchCollection<Secret>(
      {
        kube,
        log,
        onChange: (name, secret) => {
          if (name === signingKeyName) this.#keys.read(secret);
          else this.#tokens.changed(name);
        },
        onListed: () => {
          if (this.#secrets.get(signingKeyName) === undefined) this.#keys.read(undefined);
          this.#known.secrets.resolve();
        },
      },
      {
        path: federationPaths.secrets(),
        what: `Secrets in ${federationNamespace}`,
        hints: { 403: federationHint, 404: federationHint },
        // Others may keep their Secrets there, and so does a server that has joined another one.
        keep: (secret) =>
          secret.metadata.name === signingKeyName || secret.type === joinTokenType ? secret : undefined,
      },
    );
    this.#opened.promise.catch(() => undefined);
    this.#running = this.#open();
  }

  isReady(): boolean {
    return this.#listener !== undefined;
  }

  isStale(): boolean {
    return this.clusters.silentMs() > (this.#options.times?.staleMs ?? staleMs);
  }

  problem(): string | undefined {
    return this.#secrets.problem() ?? this.clusters.problem() ?? this.#keys.problem() ?? this.#problem;
  }

  port(): number | undefined {
    return this.#listener?.port;
  }

  listening(): Promise<number> {
    return this.#opened.promise;
  }

  async assert({ tunnel, method, path, caller }: Asserted): Promise<string> {
    const key = this.#keys.all().find(({ publicKey }) => tunnel.keys.includes(publicKey));
    if (key === undefined) throw new Error('no signing key that the joined cluster knows is in use any more');
    const { cluster, id } = tunnel;
    const about = { issuer: this.primary, cluster, tunnel: id, method, path };
    return await signAssertion(key, caller === undefined ? about : { ...about, caller });
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the server is stopping'));
    await this.#running;
    this.#opened.reject(new Error('the server is stopping'));
    this.#secrets.stop();
    await Promise.all([this.#listener?.close(), this.#tokens.stop()]);
    await Promise.all([this.clusters.stop(), this.#replicas.stop()]);
    this.#events.stop();
    this.#kube.close();
  }

  /** Listens for tunnels, once everything is known that decides about them. Tries again after a failure. */
  async #open(): Promise<void> {
    const { config, log, times } = this.#options;
    const { signal } = this.#stopping;
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([aborted, Promise.all(Object.values(this.#known).map(({ promise }) => promise))]);
    while (!signal.aborted) {
      try {
        await this.#readEndpoint();
        const { host, port } = placeOf(this.#listen);
        this.#listener = await listenForTunnels({
          host,
          port,
          certFile: config.get('federation.certFile') ?? '',
          keyFile: config.get('federation.keyFile') ?? '',
          cluster: this.primary,
          replica: this.#replicas.name,
          replicas: () => this.#replicas.count(),
          keys: () => this.#keys.all(),
          admission: this.#admission,
          log,
          onOpen: (tunnel) => this.clusters.opened(tunnel, this.#admission.keyOf(tunnel)),
          onClose: (tunnel) => this.clusters.closed(tunnel),
          ...(times && { times }),
        });
        this.#problem = undefined;
        log.info({ listen: this.#listen, replica: this.#replicas.name }, 'listens for the tunnels of joined clusters');
        this.#opened.resolve(this.#listener.port);
        return;
      } catch (error) {
        this.#problem = `cannot listen for tunnels: ${error instanceof Error ? error.message : ''}`;
        log.warn({ err: error, retryMs }, 'cannot listen for tunnels of joined clusters yet');
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  #keysChanged(): void {
    this.#known.keys.resolve();
    // Secrets may wait for a key.
    for (const { metadata } of this.#secrets.all()) this.#tokens.changed(metadata.name);
  }

  async #tellEvicted(tunnel: Tunnel): Promise<void> {
    const assertion = await this.assert({ tunnel, method: 'POST', path: evictedPath });
    const request = { method: 'POST', path: evictedPath, assertion, id: `evict-${tunnel.id.slice(0, 8)}` };
    const { status } = await tunnel.request(request, AbortSignal.timeout(evictMs));
    if (status > 299) throw new Error(`the joined server answered ${status}`);
  }

  #ownEndpoint(): string | undefined {
    if (performance.now() - this.#apiEndpoint.at > endpointMs) this.#readEndpoint().catch(() => undefined);
    return this.#apiEndpoint.url;
  }

  async #readEndpoint(): Promise<void> {
    this.#apiEndpoint = { ...this.#apiEndpoint, at: performance.now() };
    const url = canonicalApiServer((await this.#options.clusterInfo()).server_url);
    this.#apiEndpoint = { url, at: performance.now() };
  }
}

/** Returns host and port of `federation.listen`: `:7947`, `10.0.0.5:7947`, `[::1]:7947`. */
function placeOf(listen: string): { readonly host: string | undefined; readonly port: number } {
  const colon = listen.lastIndexOf(':');
  const host = listen.slice(0, colon).replace(/^\[|\]$/g, '');
  return { host: host === '' ? undefined : host, port: Number(listen.slice(colon + 1)) };
}
