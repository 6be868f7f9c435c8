// A login server in a cluster of its own, with the rights of its manifests; and stand-ins for the servers of clusters
// that join it. The tunnels are real.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { inject, onTestFinished } from 'vitest';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { type Config, examineConfig } from '../../src/server/config/config.ts';
import type { ClusterStatement, JoinAnswer, TunnelRequest } from '../../src/server/federation/contract.ts';
import { join, keepTunnels } from '../../src/server/federation/dialer.ts';
import { joinTokenType, readToken, tokenAnnotation } from '../../src/server/federation/join-tokens.ts';
import { type FederationKey, newKey } from '../../src/server/federation/keys.ts';
import { type LoginServer, startLoginServer } from '../../src/server/federation/login-server.ts';
import {
  federationNamespace,
  federationPaths,
  type Secret,
  type TkaCluster,
  textsOf,
} from '../../src/server/federation/objects.ts';
import type { OwnTunnels } from '../../src/server/federation/options.ts';
import { connectKube, type Kube } from '../../src/server/kubernetes/kube.ts';
import type { Log } from '../../src/server/log/log.ts';
import { paths } from '../../src/server/provisioner/objects.ts';
import { type Relay, startRelay } from '../fixtures/relay.ts';
import { claimsOf, type Member } from '../server/federation/mesh-claims.ts';
import { type Access, type ApiServer, kubeConfigFor, kubeconfigFile, startApiServer } from './api-server.ts';
import { applyManifests, type ClusterEvent, established, Fixture, until } from './fixture.ts';
import { makeFolder } from './processes.ts';

const times = {
  handshakeMs: 10_000,
  pingMs: 1_000,
  silenceMs: 5_000,
  redialMs: [50, 200],
  pauseMs: 100,
  refreshMs: 60_000,
  lookMs: 300,
  renewMs: 300,
  aliveMs: 3_000,
} as const;

/** A running replica of the login server. */
export interface LoginReplica {
  readonly server: LoginServer;
  /** Its log: level, message, and error or reason. */
  readonly lines: readonly string[];
  stop(): Promise<void>;
}

interface LoginSettings {
  readonly operator: object;
  readonly clusterInfo: object;
  readonly federation: object;
}

interface ReplicaSettings {
  readonly access?: Access;
  readonly members?: () => readonly Member[] | undefined;
  readonly staleMs?: number;
}

const loopback = (port: number | undefined): string => `https://127.0.0.1:${port}`;

/** The cluster of a login server, on an API server of its own. */
export class LoginCluster {
  readonly api: ApiServer;
  readonly fixture: Fixture;
  readonly kube: Kube;
  /** The settings of the login server. */
  readonly settings: LoginSettings;
  readonly #config: Config;
  readonly #ca: string;
  readonly #running = new Set<LoginReplica>();
  // Passes connections to the replicas, to each in turn.
  readonly #replicas: string[];
  readonly #balancer: Relay;

  private constructor(
    api: ApiServer,
    fixture: Fixture,
    settings: LoginSettings,
    config: Config,
    ca: string,
    replicas: string[],
    balancer: Relay,
  ) {
    this.settings = settings;
    this.api = api;
    this.fixture = fixture;
    this.kube = fixture.kube;
    this.#config = config;
    this.#ca = ca;
    this.#replicas = replicas;
    this.#balancer = balancer;
  }

  static async start(host: string): Promise<LoginCluster> {
    const assets = inject('assets');
    if (typeof assets === 'string') throw new Error(assets);
    const api = await startApiServer(assets, { url: inject('etcd') }, host);
    const fixture = await Fixture.make({ server: api.server, ca: api.ca, token: api.token }, 'tka-system');
    await applyManifests(
      fixture.kube,
      'federation/namespace.yaml',
      'federation/login-server/crd.yaml',
      'federation/login-server/rbac.yaml',
    );
    await established(api, 'tkaclusters.tka.specht-labs.de');
    const folder = makeFolder();
    const { ca, cert, key } = await makeCertificates('127.0.0.1');
    const file = (name: string, text: string): string => {
      fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
      return path.join(folder, name);
    };
    const settings: LoginSettings = {
      operator: { clusterName: 'login', namespace: 'tka-system' },
      clusterInfo: { apiEndpoint: 'https://login-api.example.com' },
      federation: {
        listen: '127.0.0.1:0',
        endpoint: 'https://login.example.com:7947',
        certFile: file('tls.crt', cert),
        keyFile: file('tls.key', key),
      },
    };
    const { config, problems } = await examineConfig('config.yaml', JSON.stringify(settings), {});
    if (problems.length > 0) throw new Error(problems.join());
    const replicas: string[] = [];
    const balancer = await startRelay(replicas);
    return new LoginCluster(api, fixture, settings, config, file('ca.crt', ca), replicas, balancer);
  }

  /** The URL under which joined clusters reach the replicas, each in turn. */
  get endpoint(): string {
    return this.#balancer.url;
  }

  get caFile(): string {
    return this.#ca;
  }

  /** The server's own client, with its own rights. */
  serverKube(): Kube {
    return connectKube(kubeConfigFor(this.api, this.fixture.token));
  }

  /** Returns a kubeconfig file with the server's own rights. */
  serverKubeconfig(): string {
    return kubeconfigFile(this.api, this.fixture.token);
  }

  /** Starts a replica. Resolves at once; `server.listening()` resolves when it accepts tunnels. */
  startReplica(settings: ReplicaSettings = {}): LoginReplica {
    const lines: string[] = [];
    const write =
      (level: string): Log['info'] =>
      (fields, message) => {
        const why = fields.err instanceof Error ? fields.err.message : (fields.why ?? fields.problem ?? '');
        lines.push(`${level}: ${message}${why === '' ? '' : `: ${why}`}`);
        if (process.env.TKA_DEBUG) console.error(level, message, fields);
      };
    const server = startLoginServer({
      config: this.#config,
      kubeConfig: kubeConfigFor(settings.access ?? this.api, this.fixture.token),
      log: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
      clusterInfo: async () => ({ server_url: 'https://login-api.example.com' }),
      claims: claimsOf(settings.members ?? (() => [])),
      times: { ...times, ...(settings.staleMs !== undefined && { staleMs: settings.staleMs }) },
    });
    if (server === undefined) throw new Error('federation.listen is set');
    const replica: LoginReplica = {
      server,
      lines,
      stop: async () => {
        const at = this.#replicas.indexOf(loopback(server.port()));
        if (at >= 0) this.#replicas.splice(at, 1);
        this.#running.delete(replica);
        await server.stop();
      },
    };
    this.#running.add(replica);
    server.listening().then(
      (port) => this.route(port),
      () => undefined,
    );
    return replica;
  }

  /** Passes connections to a port of this machine too. */
  route(port: number): void {
    this.#replicas.push(loopback(port));
  }

  /** Starts replicas that accept tunnels. */
  async replicas(count: number, settings?: ReplicaSettings): Promise<readonly LoginReplica[]> {
    const started = Array.from({ length: count }, () => this.startReplica(settings));
    await Promise.all(started.map(({ server }) => server.listening()));
    return started;
  }

  /** Creates a join token's Secret as an administrator does. Returns it when it is filled. */
  async token(cluster: string, annotations: { readonly ttl?: string; readonly uses?: string } = {}): Promise<Secret> {
    const { ttl, uses } = annotations;
    const made = await this.kube.create<Secret>(federationPaths.secrets(), {
      apiVersion: 'v1',
      kind: 'Secret',
      type: joinTokenType,
      metadata: {
        generateName: 'join-token-secret-',
        annotations: {
          [tokenAnnotation.cluster]: cluster,
          ...(ttl !== undefined && { [tokenAnnotation.ttl]: ttl }),
          ...(uses !== undefined && { [tokenAnnotation.uses]: uses }),
        },
      },
    });
    const { name } = made.metadata;
    await until<Secret>(this.api, federationPaths.secrets(), name, (found) => found && textsOf(found).has('token'));
    const filled = await this.kube.get<Secret>(federationPaths.secrets(name));
    if (filled === undefined) throw new Error('the Secret is gone');
    return filled;
  }

  cluster = (name: string): Promise<TkaCluster | undefined> => this.kube.get(federationPaths.clusters(name));

  /** Resolves when a TkaCluster passes. */
  clusterIs(name: string, passes: (found: TkaCluster | undefined) => boolean | undefined): Promise<void> {
    return until<TkaCluster>(this.api, federationPaths.clusters(), name, passes);
  }

  async deleteCluster(name: string): Promise<void> {
    const uid = (await this.cluster(name))?.metadata.uid ?? '';
    await this.kube.remove(federationPaths.clusters(name), { uid });
  }

  /** Returns the Events about an object: `Warning Conflict NOTE`. */
  async events(name: string): Promise<readonly string[]> {
    const found: string[] = [];
    for await (const { type, reason, note, regarding } of this.kube.list<ClusterEvent>(
      paths.events(federationNamespace),
    ))
      if (regarding.name === name) found.push(`${type} ${reason} ${note}`);
    return found;
  }

  /** Stops what a test has started, and removes what is left of it. */
  async clear(): Promise<void> {
    await Promise.all([...this.#running].map((replica) => replica.stop()));
    this.#replicas.length = 0;
    for (const collection of [
      federationPaths.clusters(),
      federationPaths.secrets(),
      federationPaths.leases(),
      paths.events(federationNamespace),
    ]) {
      for await (const { metadata } of this.kube.list<Secret>(collection))
        await this.kube.remove(`${collection}/${metadata.name}`, { uid: metadata.uid });
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running].map((replica) => replica.stop()));
    await this.#balancer.close();
    this.kube.close();
    await this.api.stop();
  }
}

/** Tunnels of one replica of a joined cluster. */
export interface Dialed {
  readonly tunnels: OwnTunnels;
  /** The requests that came through them. */
  readonly requests: readonly TunnelRequest[];
  /** Returns what the login server said when it refused because the cluster is evicted. */
  readonly evicted: () => string | undefined;
}

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** A stand-in for the TKA server of a cluster that joins. Its tunnels are closed after the test. */
export class Joiner {
  readonly name: string;
  readonly key: FederationKey;
  /** May change. */
  statement: ClusterStatement;
  keys: readonly string[] = [];
  readonly #login: LoginCluster;

  constructor(login: LoginCluster, name: string, key: FederationKey = newKey()) {
    this.name = name;
    this.key = key;
    this.statement = { version: '1.0.0', apiEndpoint: `https://${name}.example.com`, labels: {} };
    this.#login = login;
  }

  async join(token: string): Promise<JoinAnswer> {
    const keyHash = readToken(token)?.hash ?? 'none';
    const signal = AbortSignal.timeout(30_000);
    const answer = await join({ ...this.#common('0'), statement: this.statement, token, keyHash, signal });
    if (answer.ok) this.keys = answer.keys;
    return answer;
  }

  /** Joins with a token's Secret. Throws if the login server refuses. */
  async joined(secret: Secret): Promise<this> {
    const answer = await this.join(tokenOfSecret(secret));
    if (!answer.ok) throw new Error(answer.message);
    return this;
  }

  dial(replica = '0'): Dialed {
    const requests: TunnelRequest[] = [];
    let evicted: string | undefined;
    const tunnels = keepTunnels({
      ...this.#common(replica),
      statement: () => this.statement,
      primary: 'login',
      keys: this.keys,
      answer: async (request) => {
        requests.push(request);
        return { status: 200, headers: {}, body: '{}' };
      },
      onKeys: (learned) => {
        this.keys = learned;
      },
      onEvicted: (message) => {
        evicted = message;
      },
    });
    onTestFinished(() => tunnels.close());
    return { tunnels, requests, evicted: () => evicted };
  }

  #common(replica: string) {
    const { endpoint, caFile } = this.#login;
    const { name: cluster, key } = this;
    return { endpoint, caFile, env: {}, cluster, replica: `${cluster}-${replica}`, key, log: silent, times };
  }
}

/** Returns the token in a Secret that is filled. */
export const tokenOfSecret = (secret: Secret): string => textsOf(secret).get('token') ?? '';
