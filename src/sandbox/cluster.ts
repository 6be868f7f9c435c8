import { randomUUID } from 'node:crypto';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import { type Caller, Refusal } from '../server/http/contract.ts';
import { createHandler } from '../server/http/handler.ts';
import { close, createTkaServer, listen } from '../server/http/listen.ts';
import { apiPath, type ClusterInfo, type MemberRow, type MemberState } from '../tka/types.ts';
import { createApiServer } from './api-server.ts';
import type { Certificates } from './certificates.ts';
import { Counter } from './counter.ts';
import { type Faults, isGo, type RouteName, shapeFault, takeFault } from './faults.ts';
import { SandboxJoined, type SandboxLoginServer } from './federation.ts';
import type { GossipMember } from './go-memberlist.ts';
import { serveWith } from './misbehave.ts';
import { type IssueOptions, SandboxSignIns, type SignInView } from './sign-ins.ts';

const requestLog = 1000;

/** The user of a sandbox cluster; it is the same for every caller. */
export interface SandboxUser {
  /** Of a tagged device, its ID. */
  username: string;
  /** The name of a tagged device, which our server states in its answers. */
  node?: string;
  role: string;
  /** Less than 10 minutes is refused, as on the real server. */
  periodMs: number;
}

/** Options of one TKA server. It has its own cluster unless `replicaOf` is set. */
export interface ClusterOptions {
  readonly name: string;
  /** Name of an earlier server. This server shares its cluster, API server and sign-ins. */
  readonly replicaOf?: string;
  /**
   * Name of an earlier server: the login server that this cluster joins. It has no TKA server of its own that people can
   * reach.
   */
  readonly joins?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly role?: string;
  readonly periodMs?: number;
  readonly ports?: { readonly tka?: number; readonly api?: number };
  /** Loopback address of the TKA server. Default: the address of the mesh. */
  readonly host?: string;
  /** Time from the 202 for a new sign-in to the first 200 of /kubeconfig, in milliseconds. */
  readonly readyAfterMs?: number;
}

/** What the memberlists of the mesh say about a member. */
export interface Gossip {
  /** The host name; the Go server's IDs are made of it and of the address's port. Default: the cluster's name. */
  hostName?: string;
  /** Default: its host and port 7946. A node that listens through tsnet claims `:7946`. */
  address?: string;
  apiEndpoint?: string;
  /** null: the member does not state the name of its cluster. */
  cluster?: string | null;
  labels?: Readonly<Record<string, string>>;
  /** Default: healthy while the server runs. */
  state?: MemberState;
  lastSeenSeconds?: number;
  /** false: the other members have forgotten it. */
  listed?: boolean;
}

/** Numbers of requests by route. `api` counts requests to the stand-in for the Kubernetes API. */
export type Counts = Record<RouteName | 'tokenChecks' | 'tokensRefused', number>;

/** A recorded request. */
export interface SeenRequest {
  readonly route: RouteName;
  readonly method: string;
  readonly path: string;
  /** Without the Authorization header. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly at: number;
}

const noCounts: Counts = {
  login: 0,
  loginGet: 0,
  kubeconfig: 0,
  logout: 0,
  clusterInfo: 0,
  memberlist: 0,
  other: 0,
  api: 0,
  tokenChecks: 0,
  tokensRefused: 0,
};

/**
 * A TKA server on loopback with its stand-in for the Kubernetes API. Made by `startMesh`. A replica shares the API and
 * the sign-ins of its original, including the faults of both.
 */
export class SandboxCluster {
  readonly name: string;
  /** The name of its cluster. */
  readonly cluster: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly faults: Faults = { routes: {} };
  /** What the memberlists say about it. */
  readonly gossip: Gossip = {};
  /** The last 1000 requests, oldest first. */
  readonly requests: SeenRequest[] = [];
  /** Can be set to another role or user. null is a caller without a grant. */
  user: SandboxUser | null;
  readyAfterMs: number;
  readonly #counter = new Counter(noCounts);
  readonly #host: string;
  readonly #tkaHost: string;
  readonly #gossip: (asked: SandboxCluster) => readonly GossipMember[];
  readonly #certificates: Certificates;
  readonly #first: SandboxCluster | undefined;
  readonly #login: SandboxCluster | undefined;
  readonly #joined: SandboxJoined | undefined;
  readonly #uid: string;
  readonly #provisioner: SandboxSignIns;
  readonly #tka: Server;
  readonly #api: TlsServer;
  readonly #ports: { tka: number; api: number };
  #stoppedAt: number | undefined = 0;

  constructor(
    options: ClusterOptions,
    mesh: {
      user: string;
      host: string;
      certificates: Certificates;
      members: () => readonly MemberRow[];
      gossip: (asked: SandboxCluster) => readonly GossipMember[];
      /** Returns the part of a server that other clusters join, if there is one. */
      loginServer: (name: string) => SandboxLoginServer | undefined;
    },
    first?: SandboxCluster,
    login?: SandboxCluster,
  ) {
    const {
      name,
      labels = first?.labels ?? {},
      role = 'viewer',
      periodMs = 30 * 60_000,
      ports = {},
      readyAfterMs = 10,
    } = options;
    this.name = name;
    this.cluster = first?.cluster ?? name;
    this.#first = first;
    this.#uid = first === undefined ? randomUUID() : first.#uid;
    this.labels = labels;
    this.user = { username: mesh.user, role, periodMs };
    this.readyAfterMs = readyAfterMs;
    this.#host = mesh.host;
    this.#tkaHost = options.host ?? mesh.host;
    this.#gossip = mesh.gossip;
    this.#certificates = mesh.certificates;
    this.#ports = { tka: ports.tka ?? 0, api: ports.api ?? 0 };
    this.#provisioner =
      first === undefined
        ? new SandboxSignIns({
            faults: this.faults,
            readyAfterMs: () => this.readyAfterMs,
            target: () => ({ server: this.apiServer, caData: this.caData }),
          })
        : first.#provisioner;
    const clusterInfo = (): ClusterInfo => ({
      server_url: this.apiServer,
      insecure_skip_tls_verify: false,
      ca_data: this.caData,
      labels,
      ...(!isGo(this.faults) && { cluster: this.cluster, sign_in_store: `${this.#uid}/tka-dev` }),
    });
    const handler = createHandler({
      identity: { whoIs: () => this.#whoIs() },
      signIns: this.#provisioner,
      members: mesh.members,
      clusterInfo,
      joined: mesh.loginServer(name)?.access,
    });
    const loginServer = login && mesh.loginServer(login.name);
    this.#login = login;
    this.#joined =
      loginServer &&
      new SandboxJoined({
        cluster: this.cluster,
        labels,
        login: loginServer,
        signIns: this.#provisioner,
        clusterInfo,
        apiServer: () => this.apiServer,
      });
    // No write timeout: a server with the `silent` fault must stay silent until the test ends.
    this.#tka = createTkaServer((request, response) => this.#serve(routeOf(request), request, response, handler), {
      writeTimeoutMs: 0,
    });
    const api = createApiServer({
      name,
      certificates: mesh.certificates,
      authenticate: (token) => {
        this.#counter.count('tokenChecks');
        const user = this.#provisioner.authenticate(token);
        if (user === undefined) this.#counter.count('tokensRefused');
        return user;
      },
    });
    this.#api = api.server;
    this.#api.on('request', (request: IncomingMessage, response: ServerResponse) =>
      this.#serve('api', request, response, api.handler),
    );
  }

  get counts(): Counts {
    return this.#counter.counts;
  }

  /** Returns when the TKA server was last stopped, or undefined while it runs. */
  get stoppedAt(): number | undefined {
    return this.#stoppedAt;
  }

  /** Returns the TKA server's canonical URL. */
  get server(): string {
    if (this.#login !== undefined) return `${this.#login.server}/clusters/${this.name}`;
    return `http://${urlHost(this.#tkaHost)}:${this.#ports.tka}`;
  }

  /** Returns the name of the login server that this cluster has joined; undefined for others. */
  get through(): string | undefined {
    return this.#login?.cluster;
  }

  /** Returns the address that the TKA server listens on. */
  get host(): string {
    return this.#tkaHost;
  }

  get apiServer(): string {
    return this.#first?.apiServer ?? `https://${urlHost(this.#host)}:${this.#ports.api}`;
  }

  /** Returns the API's CA as base64 of PEM. */
  get caData(): string {
    return Buffer.from(this.#certificates.ca).toString('base64');
  }

  /** Starts the TKA server, by default on its previous port. */
  async start(port = this.#ports.tka): Promise<void> {
    if (this.#stoppedAt === undefined) return;
    if (this.#joined !== undefined) await this.#joined.start();
    else this.#ports.tka = await listen(this.#tka, this.#tkaHost, port);
    this.#stoppedAt = undefined;
  }

  /** Stops the TKA server and closes its connections. The API keeps running. */
  async stop(): Promise<void> {
    if (this.#stoppedAt !== undefined) return;
    this.#stoppedAt = Date.now();
    await (this.#joined?.stop() ?? close(this.#tka));
  }

  /** Starts the API stand-in on its previous port. */
  async startApi(): Promise<void> {
    if (this.#first !== undefined) return await this.#first.startApi();
    if (!this.#api.listening) this.#ports.api = await listen(this.#api, this.#host, this.#ports.api);
  }

  /** Stops the API stand-in and closes its connections. */
  async stopApi(): Promise<void> {
    if (this.#first !== undefined) return await this.#first.stopApi();
    await close(this.#api);
  }

  /** Turns every fault off. */
  clearFaults(): void {
    for (const key of Object.keys(this.faults)) delete (this.faults as unknown as Record<string, unknown>)[key];
    this.faults.routes = {};
  }

  /** Resets all counts and empties the list of requests. */
  resetCounts(): void {
    this.#counter.reset();
    this.requests.length = 0;
  }

  /** Resolves as soon as a route has been requested `count` times (see `counts`), before the request is answered. */
  seen(route: keyof Counts, count = 1): Promise<void> {
    return this.#counter.seen(route, count);
  }

  /** Returns the user's current sign-in. */
  signIn(user = this.#username()): SignInView | undefined {
    return this.#provisioner.view(user);
  }

  /** Lets the sign-in expire now. */
  expireSignIn(user = this.#username()): void {
    this.#provisioner.expire(user);
  }

  /** Deletes the ServiceAccount but not the sign-in: 401 until the next POST /login makes a new one. */
  deleteServiceAccount(user = this.#username()): void {
    this.#provisioner.deleteServiceAccount(user);
  }

  /** Returns a signed token that the API stand-in accepts. */
  issueToken(options: IssueOptions = {}): string {
    return this.#provisioner.issueToken(options.user ?? this.#username(), options);
  }

  #username(): string {
    return this.user?.username ?? 'alice';
  }

  #whoIs(): Caller {
    if (this.user === null) throw new Refusal(403, { message: 'User not authorized' });
    const { username, node, role, periodMs } = this.user;
    const tagged = node === undefined ? {} : { tagged: { node, tags: ['tag:ci'] } };
    return { username, login: `${username}@example.com`, ...tagged, role, periodMs };
  }

  #serve(route: RouteName, request: IncomingMessage, response: ServerResponse, handler: RequestListener): void {
    const { authorization: _, ...headers } = request.headers;
    this.requests.push({ route, method: request.method ?? '', path: request.url ?? '', headers, at: Date.now() });
    if (this.requests.length > requestLog) this.requests.shift();
    this.#counter.count(route);
    // Ignore callers that close the connection in the middle of a body.
    request.on('error', () => {});
    response.on('error', () => {});
    const { accept } = request.headers;
    const shape = shapeFault(this.faults, route, { accept, gossip: () => this.#gossip(this) });
    const fault = takeFault(this.faults, route) ?? {};
    // The Go server's answers are made from our JSON, not from our page.
    if (route === 'memberlist' && shape.change !== undefined) request.headers.accept = 'application/json';
    serveWith(shape, fault, request, response, handler).catch(() => response.destroy());
  }
}

/** Returns a host in the form that URLs use: `[::1]`. */
export const urlHost = (host: string): string => (host.includes(':') ? `[${host}]` : host);

const routeNames = new Map<string, RouteName>([
  [`POST ${apiPath}/login`, 'login'],
  [`GET ${apiPath}/login`, 'loginGet'],
  [`GET ${apiPath}/kubeconfig`, 'kubeconfig'],
  [`POST ${apiPath}/logout`, 'logout'],
  [`GET ${apiPath}/cluster-info`, 'clusterInfo'],
  [`GET ${apiPath}/memberlist`, 'memberlist'],
]);

function routeOf(request: IncomingMessage): RouteName {
  return routeNames.get(`${request.method} ${(request.url ?? '').split('?', 1)[0]}`) ?? 'other';
}
