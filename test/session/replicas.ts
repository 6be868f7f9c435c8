// Several TKA servers of one cluster on loopback. They share their sign-ins and one stand-in for the Kubernetes API.
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import * as net from 'node:net';
import { createApiServer } from '../../src/sandbox/api-server.ts';
import { type Certificates, makeCertificates } from '../../src/sandbox/certificates.ts';
import { type Faults, type RouteName, shapeFault, takeFault } from '../../src/sandbox/faults.ts';
import { serveWith } from '../../src/sandbox/misbehave.ts';
import { SandboxSignIns } from '../../src/sandbox/sign-ins.ts';
import { createHandler } from '../../src/server/http/handler.ts';
import { close, createTkaServer, listen } from '../../src/server/http/listen.ts';
import { apiPath, type MemberRow } from '../../src/tka/types.ts';

/** What happened, in order. `gone`: the caller hung up before the answer. */
export type Event = `${string} ${RouteName} ${'asked' | 'gone'}`;

const routes: Readonly<Record<string, RouteName>> = {
  [`POST ${apiPath}/login`]: 'login',
  [`GET ${apiPath}/kubeconfig`]: 'kubeconfig',
  [`POST ${apiPath}/logout`]: 'logout',
  [`GET ${apiPath}/cluster-info`]: 'clusterInfo',
  [`GET ${apiPath}/memberlist`]: 'memberlist',
};

/** One TKA server. */
export class Replica {
  readonly name: string;
  readonly faults: Faults = { routes: {} };
  /** As a login server: the clusters that have joined it. */
  readonly joined = new Map<string, RequestListener>();
  readonly #set: ReplicaSet;
  readonly #http: Server;
  #port = 0;

  constructor(name: string, set: ReplicaSet) {
    this.name = name;
    this.#set = set;
    const handler = createHandler({
      identity: {
        whoIs: () => ({ username: 'alice', login: 'alice@example.com', role: set.role, periodMs: 1_800_000 }),
      },
      signIns: set.provisioner,
      members: () => set.members(),
      clusterInfo: () => ({
        ...{ server_url: set.apiServer, insecure_skip_tls_verify: false, ca_data: set.caData, labels: {} },
        ...{ cluster: set.cluster, sign_in_store: set.store },
      }),
    });
    this.#http = createTkaServer((request, response) => this.#serve(request, response, handler), { writeTimeoutMs: 0 });
  }

  get server(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    if (!this.#http.listening) this.#port = await listen(this.#http, '127.0.0.1', this.#port);
  }

  /** Stops it, so that connections to it are refused. */
  async stop(): Promise<void> {
    if (this.#http.listening) await close(this.#http);
  }

  get running(): boolean {
    return this.#http.listening;
  }

  /** Returns how often a route was requested. */
  count(route: RouteName): number {
    return this.#set.events.filter((event) => event === `${this.name} ${route} asked`).length;
  }

  #serve(request: IncomingMessage, response: ServerResponse, handler: Parameters<typeof serveWith>[4]): void {
    const [, name, path] = /^\/clusters\/([^/]+)(\/.*)$/.exec(request.url ?? '') ?? [];
    if (name !== undefined) {
      request.url = path ?? '';
      handler = this.joined.get(name) ?? unconnected(name);
    }
    const place = name === undefined ? this.name : `${this.name}/${name}`;
    const route = routes[`${request.method} ${request.url}`] ?? 'other';
    const { events } = this.#set;
    events.push(`${place} ${route} asked`);
    response.once('close', () => {
      if (!response.writableFinished) events.push(`${place} ${route} gone`);
    });
    request.on('error', () => {});
    response.on('error', () => {});
    const shape = shapeFault(this.faults, route, { accept: request.headers.accept, gossip: () => [] });
    serveWith(shape, takeFault(this.faults, route) ?? {}, request, response, handler).catch(() => response.destroy());
  }
}

/** Answers for a joined cluster that is not connected to this replica of its login server. */
function unconnected(name: string): RequestListener {
  const message = `cluster ${JSON.stringify(name)} is not connected to this login server`;
  return (_, response) => {
    response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' });
    response.end(JSON.stringify({ message }));
  };
}

/** A cluster with several TKA servers. */
export class ReplicaSet {
  readonly cluster: string;
  readonly store: string;
  role = 'viewer';
  readonly faults: Faults = { routes: {} };
  readonly provisioner: SandboxSignIns;
  readonly replicas: readonly Replica[];
  readonly events: Event[] = [];
  readonly certificates: Certificates;
  /** Servers of other clusters that the lists name too. */
  readonly others: MemberRow[] = [];
  readonly #api: ReturnType<typeof createApiServer>;
  #apiPort = 0;

  constructor(cluster: string, count: number, certificates: Certificates) {
    this.cluster = cluster;
    this.store = `uid-of-${cluster}/tka-system`;
    this.certificates = certificates;
    this.provisioner = new SandboxSignIns({
      faults: this.faults,
      readyAfterMs: () => 10,
      target: () => ({ server: this.apiServer, caData: this.caData }),
    });
    const authenticate = (token: string) => this.provisioner.authenticate(token);
    this.#api = createApiServer({ name: cluster, certificates, authenticate });
    this.#api.server.on('request', this.#api.handler);
    this.replicas = Array.from({ length: count }, (_, i) => new Replica(i === 0 ? cluster : `${cluster}-${i}`, this));
  }

  get apiServer(): string {
    return `https://127.0.0.1:${this.#apiPort}`;
  }

  /** Base64 of PEM. */
  get caData(): string {
    return Buffer.from(this.certificates.ca).toString('base64');
  }

  members(): MemberRow[] {
    const rows = this.replicas.map(
      (replica): MemberRow => ({
        ...{ name: replica.name, cluster: this.cluster, server: replica.server, apiEndpoint: this.apiServer },
        ...{ apiPort: Number(new URL(replica.server).port), labels: {}, version: 'test' },
        ...{ state: replica.running ? 'healthy' : 'dead', lastSeen: new Date().toISOString() },
      }),
    );
    return [...rows, ...this.others];
  }

  async start(): Promise<void> {
    this.#apiPort = await listen(this.#api.server, '127.0.0.1', 0);
    await Promise.all(this.replicas.map((replica) => replica.start()));
  }

  async close(): Promise<void> {
    await Promise.all([close(this.#api.server), ...this.replicas.map((replica) => replica.stop())]);
  }

  /** Starts all servers again and clears the events. */
  async reset(): Promise<void> {
    this.role = 'viewer';
    this.others.length = 0;
    this.faults.kubeconfig = undefined;
    for (const replica of this.replicas) {
      for (const key of Object.keys(replica.faults)) delete (replica.faults as unknown as Record<string, unknown>)[key];
      replica.faults.routes = {};
      await replica.start();
    }
    this.events.length = 0;
  }
}

/** Starts a cluster with `count` servers. */
export async function startReplicas(cluster: string, count: number, certificates?: Certificates): Promise<ReplicaSet> {
  const set = new ReplicaSet(cluster, count, certificates ?? (await makeCertificates('127.0.0.1')));
  await set.start();
  return set;
}

/** Starts a server that accepts connections and stays silent, so an https URL to it never connects. */
export async function startMute(): Promise<{ readonly port: number; readonly close: () => void }> {
  const sockets = new Set<net.Socket>();
  const mute = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((done) => mute.listen(0, '127.0.0.1', done));
  const { port } = mute.address() as net.AddressInfo;
  return {
    port,
    close: () => {
      mute.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
