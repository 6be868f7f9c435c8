// Clusters of the sandbox that join a login server. Handshakes, tunnels, assertions and limits are those of tka-server. The
// objects in Kubernetes (join tokens, TkaClusters, Secrets) are replaced by this process's memory.
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { signAssertion } from '../server/federation/assertion.ts';
import type {
  Admission,
  ClusterStatement,
  DialAnswer,
  DialRequest,
  JoinAnswer,
  JoinedCluster,
  JoinedClusters,
  JoinRequest,
  OwnTunnel,
} from '../server/federation/contract.ts';
import { join, keepTunnels } from '../server/federation/dialer.ts';
import { JoinedApi } from '../server/federation/joined-api.ts';
import { type FederationKey, keyHash, newKey } from '../server/federation/keys.ts';
import { listenForTunnels } from '../server/federation/listener.ts';
import { loginApi } from '../server/federation/login-api.ts';
import type { OwnTunnels, TunnelListener } from '../server/federation/options.ts';
import type { HandlerOptions } from '../server/http/contract.ts';
import type { Log } from '../server/log/log.ts';
import type { Labels } from '../tka/types.ts';
import { TkaError } from '../util/errors.ts';
import type { Certificates } from './certificates.ts';
import type { SandboxSignIns } from './sign-ins.ts';

const silent = (): void => undefined;
const log: Log = { debug: silent, info: silent, warn: silent, error: silent };
// Milliseconds. Everything is on this machine.
const times = { redialMs: [50, 1_000] } as const;
const patienceMs = 10_000;

/** What is known of a cluster that has joined, or that has a token. */
interface Known {
  readonly labels: Labels;
  /** Undefined once it was used. */
  token: string | undefined;
  publicKey: string | undefined;
  statement: ClusterStatement | undefined;
  lastSeen: number | undefined;
}

/** The login server's side. Implements what tka-server keeps in Kubernetes. */
export class SandboxLoginServer implements Admission, JoinedClusters {
  /** The name of its own cluster. */
  readonly primary: string;
  readonly #key: FederationKey = newKey();
  readonly #certificates: Certificates;
  readonly #known = new Map<string, Known>();
  readonly #awaited = new Map<string, PromiseWithResolvers<void>>();
  #folder: string | undefined;
  #listener: TunnelListener | undefined;

  constructor(primary: string, certificates: Certificates) {
    this.primary = primary;
    this.#certificates = certificates;
  }

  /** The access to joined clusters for the HTTP API. */
  get access(): HandlerOptions['joined'] {
    return loginApi({
      clusters: this,
      primary: this.primary,
      assert: ({ tunnel, method, path, caller }) => {
        const about = { issuer: this.primary, cluster: tunnel.cluster, tunnel: tunnel.id };
        return signAssertion(this.#key, { ...about, method, path, caller });
      },
      log,
    });
  }

  /** The URL for tunnels. Throws TkaError before `listen`. */
  get endpoint(): string {
    if (this.#listener === undefined) throw new TkaError('the login server does not listen');
    return `https://127.0.0.1:${this.#listener.port}`;
  }

  /** The hash of the signing key, which a join token contains. */
  get keyHash(): string {
    return keyHash(this.#key.publicKey);
  }

  /** The authority of the endpoint's certificate, as a PEM file. */
  get caFile(): string {
    return joinPath(this.#folder ?? '', 'ca.crt');
  }

  async listen(): Promise<void> {
    const folder = await mkdtemp(joinPath(tmpdir(), 'tka-login-server-'));
    this.#folder = folder;
    const { ca, cert, key } = this.#certificates;
    const files = { 'ca.crt': ca, 'tls.crt': cert, 'tls.key': key };
    for (const [name, pem] of Object.entries(files)) await writeFile(joinPath(folder, name), pem, { mode: 0o600 });
    this.#listener = await listenForTunnels({
      host: '127.0.0.1',
      port: 0,
      certFile: joinPath(folder, 'tls.crt'),
      keyFile: joinPath(folder, 'tls.key'),
      cluster: this.primary,
      replica: this.primary,
      replicas: () => 1,
      keys: () => [this.#key],
      admission: this,
      log,
      onOpen: ({ cluster }) => {
        this.#awaited.get(cluster)?.resolve();
        this.#awaited.delete(cluster);
      },
      onClose: ({ cluster }) => {
        const known = this.#known.get(cluster);
        if (known !== undefined) known.lastSeen = Date.now();
      },
      times,
    });
  }

  async close(): Promise<void> {
    await this.#listener?.close();
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  /** Returns a token with which one cluster can join, once. Its labels are those that rules see. */
  issueToken(cluster: string, labels: Labels): string {
    const token = `tka-join-${randomBytes(32).toString('base64url')}`;
    this.#known.set(cluster, { labels, token, publicKey: undefined, statement: undefined, lastSeen: undefined });
    return token;
  }

  /** Resolves when a cluster opens another tunnel. */
  nextTunnel(cluster: string): Promise<void> {
    const awaited = this.#awaited.get(cluster) ?? Promise.withResolvers<void>();
    this.#awaited.set(cluster, awaited);
    return awaited.promise;
  }

  async join({ cluster, token, publicKey, statement }: JoinRequest): Promise<JoinAnswer> {
    const known = this.#known.get(cluster);
    if (known?.token === undefined || known.token !== token) {
      return { ok: false, code: 'rejected', message: 'the token is not valid' };
    }
    Object.assign(known, { token: undefined, publicKey, statement });
    return { ok: true, primary: this.primary, keys: [this.#key.publicKey] };
  }

  async dial({ cluster, publicKey, statement }: DialRequest): Promise<DialAnswer> {
    const known = this.#known.get(cluster);
    if (known?.publicKey !== publicKey) return { ok: false, code: 'evicted', message: 'the cluster has not joined' };
    known.statement = statement;
    return { ok: true };
  }

  get(name: string): JoinedCluster | undefined {
    const known = this.#known.get(name);
    if (known?.publicKey === undefined || known.statement === undefined) return undefined;
    const { labels, statement, lastSeen } = known;
    const tunnels = this.#listener?.tunnels(name) ?? [];
    return {
      name,
      labels,
      suspended: false,
      conflict: undefined,
      apiEndpoint: statement.apiEndpoint,
      statement,
      lastSeen: tunnels[0]?.lastSeen() ?? lastSeen,
      direct: false,
      tunnels,
    };
  }

  all(): readonly JoinedCluster[] {
    return [...this.#known.keys()].map((name) => this.get(name)).filter((cluster) => cluster !== undefined);
  }
}

export interface SandboxJoinedOptions {
  readonly cluster: string;
  readonly labels: Labels;
  readonly login: SandboxLoginServer;
  readonly signIns: SandboxSignIns;
  readonly clusterInfo: JoinedApiOptions['clusterInfo'];
  readonly apiServer: () => string;
}

type JoinedApiOptions = ConstructorParameters<typeof JoinedApi>[0];

/** The joined cluster's side. It only dials out. */
export class SandboxJoined {
  readonly #options: SandboxJoinedOptions;
  readonly #key = newKey();
  readonly #api: JoinedApi;
  #keys: readonly string[] | undefined;
  #tunnels: OwnTunnels | undefined;

  constructor(options: SandboxJoinedOptions) {
    this.#options = options;
    const { signIns, clusterInfo } = options;
    this.#api = new JoinedApi({
      signIns,
      clusterInfo,
      endAllThrough: async () => signIns.endAll(),
      roles: [],
      maxPeriodMs: 8 * 3_600_000,
      onEvicted: silent,
      log,
    });
  }

  /** Joins the login server at the first start, and opens a tunnel. Throws TkaError if that fails. */
  async start(): Promise<void> {
    if (this.#tunnels !== undefined) return;
    const { cluster, login } = this.#options;
    this.#keys ??= await this.#join();
    const opened = login.nextTunnel(cluster);
    this.#tunnels = keepTunnels({
      ...this.#dialing(),
      primary: login.primary,
      keys: this.#keys,
      statement: () => this.#statement(),
      answer: (request, tunnel: OwnTunnel, signal) => this.#api.answer(request, tunnel, signal),
    });
    const late = AbortSignal.timeout(patienceMs);
    const tooLate = new Promise<never>((_, reject) => {
      const why = () => reject(new TkaError(`${cluster} has no tunnel: ${this.#tunnels?.problem() ?? 'no answer'}`));
      late.addEventListener('abort', why, { once: true });
    });
    await Promise.race([opened, tooLate]);
  }

  async stop(): Promise<void> {
    const tunnels = this.#tunnels;
    this.#tunnels = undefined;
    await tunnels?.close();
  }

  async #join(): Promise<readonly string[]> {
    const { cluster, labels, login } = this.#options;
    const token = login.issueToken(cluster, labels);
    const signal = AbortSignal.timeout(patienceMs);
    const secret = { token, keyHash: login.keyHash };
    const answer = await join({ ...this.#dialing(), ...secret, statement: this.#statement(), signal });
    if (!answer.ok) throw new TkaError(`${cluster} cannot join ${login.primary}: ${answer.message}`);
    return answer.keys;
  }

  #statement(): ClusterStatement {
    const { apiServer, labels } = this.#options;
    return { version: 'sandbox', apiEndpoint: apiServer(), labels };
  }

  #dialing() {
    const { cluster, login } = this.#options;
    const { endpoint, caFile } = login;
    return { endpoint, caFile, env: {}, cluster, replica: `${cluster}-0`, key: this.#key, log, times };
  }
}
