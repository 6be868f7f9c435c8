// Starts and stops the parts of a TKA server.
import type { RequestListener, Server } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { KubeConfig } from '@kubernetes/client-node';
import type { TailnetStatus } from '../tailscale/localapi.ts';
import { TkaError, UsageError } from '../util/errors.ts';
import { canonicalServer } from '../util/url.ts';
import { versionInfo } from '../util/version.ts';
import { type AdminSources, adminListener, openAdmin, socketPath } from './admin/socket.ts';
import { statusView } from './admin/views.ts';
import { loadKubeConfig, provisionerOptions } from './cluster.ts';
import { type Config, keysHint } from './config/config.ts';
import { type JoinedServer, startJoinedServer } from './federation/joined-server.ts';
import { loginApi } from './federation/login-api.ts';
import { type LoginServer, startLoginServer } from './federation/login-server.ts';
import { joinedRows } from './federation/rows.ts';
import { joinMesh } from './gossip.ts';
import type { Answered } from './http/contract.ts';
import { createHandler } from './http/handler.ts';
import { CallerLimits } from './http/limits.ts';
import { drain, type KeyPair } from './http/listen.ts';
import { guardOrigin } from './identity/origin.ts';
import { tailnetIdentity } from './identity/tailnet.ts';
import { ApiListeners, type ListenOptions, listenForProbes } from './listening.ts';
import type { Log } from './log/log.ts';
import type { ClusterClaim, Mesh } from './mesh/mesh.ts';
import { type Provisioner, startProvisioner } from './provisioner/provisioner.ts';
import { keepCertificate } from './tailnet/certificate.ts';
import { certificateName, hostsOf, needsTailnet, publicHost } from './tailnet/place.ts';
import { tailnetFacts, untilRenamed, waitForTailnet } from './tailnet/status.ts';
import { type Audit, openAudit } from './telemetry/audit.ts';
import { createHealth } from './telemetry/health.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { openTraces, type Traces } from './telemetry/traces.ts';

export interface ServeOptions {
  readonly config: Config;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  /** Stops the server. */
  readonly signal: AbortSignal;
}

interface ServerOptions extends ServeOptions {
  readonly audit: Audit;
}

// Kubernetes kills a pod 30 s after SIGTERM.
const drainMs = 15_000;
const stopMs = 25_000;

/**
 * Serves until the signal aborts. Resolves when the server has left the mesh and finished its work. Throws TkaError if
 * it cannot serve. Waits for temporary problems, such as an unreachable cluster or tailscaled.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const { config, log } = options;
  const { version, commit } = versionInfo();
  log.info({ version, commit, config: config.file }, 'tka-server starts');
  for (const warning of config.warnings) log.warn({}, warning);
  const kubeConfig = loadKubeConfig(options.env);
  const audit = openAudit(config, log);
  while (await serveUntilRenamed({ ...options, audit }, kubeConfig)) log.info({}, 'tka-server restarts');
}

/** Serves until the signal aborts or the node's tailnet name changes. Returns true if the server must start again. */
async function serveUntilRenamed({ signal, ...options }: ServerOptions, kubeConfig: KubeConfig): Promise<boolean> {
  const { log } = options;
  const renamed = new AbortController();
  const ending = AbortSignal.any([signal, renamed.signal]);
  const server = new TkaServer({ ...options, signal: ending }, () => renamed.abort());
  try {
    await server.start(kubeConfig);
    await new Promise<void>((resolve) => {
      if (ending.aborted) resolve();
      ending.addEventListener('abort', () => resolve(), { once: true });
    });
  } catch (error) {
    if (!ending.aborted) throw error;
  } finally {
    log.info({}, 'tka-server stops');
    const late = new AbortController();
    const inTime = await Promise.race([
      server.stop().then(() => true),
      delay(stopMs, false, { signal: late.signal, ref: false }),
    ]);
    late.abort();
    if (inTime) log.info({}, 'tka-server has stopped');
    else log.warn({}, 'tka-server stopped before its work was finished');
  }
  return !signal.aborted;
}

/** Throws UsageError if devices could sign in that have a tag of this server's own node. */
function requireOtherTags(config: Config, { self }: TailnetStatus): void {
  const own = config.get('identity.allowTagged').find((tag) => self.tags.includes(tag));
  if (own === undefined) return;
  const place = config.sourceOf('identity.allowTagged');
  throw new UsageError(
    `bad configuration: ${place}: identity.allowTagged must not contain ${own}: this server has that tag`,
    {
      hints: [keysHint],
    },
  );
}

class TkaServer {
  readonly #options: ServerOptions;
  readonly #onRenamed: () => void;
  // Aborts everything that waits, no matter why the server stops.
  readonly #stopping = new AbortController();
  readonly #metrics = createMetrics({
    ...versionInfo(),
    ready: () => this.#unready() === undefined,
    members: () => this.#mesh?.counts(),
    certificateUntil: () => this.#certificateUntil,
    cluster: () => this.#provisioner,
    joinedClusters: () => this.#loginServer?.clusters.all(),
    loginServer: () => this.#joined?.counts(),
  });
  readonly #limits = new CallerLimits();
  readonly #listening: ListenOptions;
  readonly #api: ApiListeners;
  #traces: Traces | undefined;
  // End of the current certificate, in ms of Unix time; undefined without one.
  #certificateUntil: number | undefined;
  // What the server still waits for before it listens.
  #waitsFor: string | undefined = 'the server is starting';
  #health: Server | undefined;
  #closeAdmin: (() => Promise<void>) | undefined;
  #tailnet: TailnetStatus | undefined;
  #provisioner: Provisioner | undefined;
  #joined: JoinedServer | undefined;
  // This machine has no tailscaled, and the environment names none.
  #lacksTailscaled = false;
  #mesh: Mesh | undefined;
  #loginServer: LoginServer | undefined;

  /** `onRenamed` is called when the node's name is no longer the one that the server started with. */
  constructor(options: ServerOptions, onRenamed: () => void) {
    this.#options = options;
    this.#onRenamed = onRenamed;
    options.signal.addEventListener('abort', () => this.#stopping.abort(options.signal.reason), { once: true });
    if (options.signal.aborted) this.#stopping.abort(options.signal.reason);
    const onWait = (why: string) => {
      this.#waitsFor = why;
    };
    this.#listening = { config: options.config, log: options.log, signal: this.#stopping.signal, onWait };
    this.#api = new ApiListeners(this.#listening, this.#limits);
  }

  async start(kubeConfig: KubeConfig): Promise<void> {
    const { config, env, log } = this.#options;
    const health = createHealth({ unready: () => this.#unready(), metrics: this.#metrics });
    this.#health = await listenForProbes(this.#listening, health);
    this.#closeAdmin = await openAdmin(socketPath(config), adminListener(this.#adminSources(kubeConfig)), log);
    this.#traces = await openTraces(config, log);
    this.#provisioner = startProvisioner({
      ...provisionerOptions(config, kubeConfig, log),
      onReconcile: (pass) => {
        this.#metrics.reconcile(pass);
        this.#traces?.reconcile(pass);
      },
      onEnded: (ended) => this.#options.audit.ended(ended),
      onWatchBroken: (resource) => this.#metrics.watchBroke(resource),
      onAccount: (what) => this.#metrics.account(what),
    });
    this.#joined = startJoinedServer({
      config,
      env,
      log,
      kubeConfig,
      provisioner: this.#provisioner,
      onRequest: (answered) => this.#onRequest(answered),
      onDecided: (decided) => this.#options.audit.decided(decided),
      isAnnounced: (keyHash) => !this.#isMember() || this.#mesh?.hasAnnounced(keyHash) === true,
    });
    this.#loginServer = startLoginServer({
      config,
      kubeConfig,
      log,
      clusterInfo: this.#provisioner.clusterInfo,
      claims: (cluster, apiEndpoint) => this.#claims(cluster, apiEndpoint),
      onJoin: (outcome) => this.#metrics.join(outcome),
    });
    const status = await this.#tailnetStatus();
    const pair = await this.#certificate(status);
    const listener = this.#listener(this.#provisioner, status);
    const bound = await this.#api.listen(hostsOf(config, status), listener, pair);
    this.#waitsFor = undefined;
    await this.#joinMesh(this.#provisioner, bound, status);
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the server is stopping'));
    await Promise.all([this.#mesh?.leave(), this.#api.drain(drainMs), this.#joined?.stop()]);
    await Promise.all([this.#loginServer?.stop(), this.#provisioner?.stop()]);
    await this.#traces?.stop();
    await this.#closeAdmin?.();
    if (this.#health !== undefined) await drain(this.#health, 1_000);
  }

  #adminSources(kubeConfig: KubeConfig): AdminSources {
    const apiServer = kubeConfig.getCurrentCluster()?.server ?? '';
    return {
      status: () =>
        statusView({
          config: this.#options.config,
          apiServer,
          unready: this.#unready(),
          provisioner: this.#provisioner,
          mesh: this.#mesh,
          joined: this.#joined,
          loginServer: this.#loginServer,
          certificateUntil: this.#certificateUntil,
          tailnet: this.#tailnet,
        }),
      signIns: () => {
        if (this.#provisioner === undefined) return undefined;
        const problem = this.#provisioner.overviewProblem();
        return { signIns: this.#provisioner.overview(), ...(problem !== undefined && { problem }) };
      },
      members: () => this.#mesh?.overview(),
      drop: (name) => this.#mesh?.drop(name),
    };
  }

  /** Returns why the server is not ready, or undefined if it is. */
  #unready(): string | undefined {
    if (this.#stopping.signal.aborted) return 'the server is stopping';
    if (this.#lacksTailscaled) {
      const problem = this.#joined?.problem();
      if (this.#joined?.active()) return this.#provisioner?.unready() ?? problem;
      return problem === undefined ? this.#waitsFor : `${this.#waitsFor}; ${problem}`;
    }
    const isJoining = this.#options.config.get('gossip.enabled') && this.#mesh === undefined;
    const joins = isJoining ? 'the server has not joined the mesh yet' : undefined;
    return this.#waitsFor ?? this.#provisioner?.unready() ?? joins;
  }

  /** Returns whether the server is to be a member of the mesh. Without tailscaled it cannot be. */
  #isMember(): boolean {
    return this.#options.config.get('gossip.enabled') && !this.#lacksTailscaled;
  }

  /** Returns what members of the mesh claim, or undefined while this server does not know them. */
  #claims(cluster: string, apiEndpoint: string): readonly ClusterClaim[] | undefined {
    if (!this.#options.config.get('gossip.enabled')) return [];
    return this.#mesh?.isSettled() ? this.#mesh.claims(cluster, apiEndpoint) : undefined;
  }

  /** Waits for tailscaled if the server needs it. Returns undefined if it does not. */
  async #tailnetStatus(): Promise<TailnetStatus | undefined> {
    const { config, env } = this.#options;
    const { log, signal, onWait } = this.#listening;
    if (!needsTailnet(config)) return undefined;
    const status = await waitForTailnet({
      env,
      log,
      signal,
      isOptional: () => this.#joined?.active() === true,
      onWait: (why, isAbsent) => {
        onWait(why);
        this.#lacksTailscaled = isAbsent;
      },
    });
    this.#lacksTailscaled = false;
    requireOtherTags(config, status);
    this.#tailnet = status;
    void this.#watchName(status);
    return status;
  }

  /**
   * Calls `onRenamed` when the node gets a new name: its certificate, mesh name and valid request names depend on it.
   */
  async #watchName(status: TailnetStatus): Promise<void> {
    const { env, log } = this.#options;
    const { signal } = this.#stopping;
    try {
      const name = await untilRenamed(status, env, log, signal);
      log.warn({ name, before: status.self.dnsName }, 'this node was renamed on the tailnet');
      this.#onRenamed();
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Gets the certificate and keeps it current. Returns undefined if the API uses plain http. */
  async #certificate(status: TailnetStatus | undefined): Promise<KeyPair | undefined> {
    const { config, env } = this.#options;
    const { log, signal, onWait } = this.#listening;
    if (config.get('tailscale.port') !== 443 || status === undefined) return undefined;
    const name = certificateName(config, status);
    if (name === undefined) throw new TkaError('cannot get a certificate: this machine has no name on the tailnet');
    onWait('the server has no certificate yet');
    const onPair = (pair: KeyPair, until: number) => {
      this.#certificateUntil = until;
      this.#api.renew(pair);
    };
    return await keepCertificate({ name, env, log, signal, onPair });
  }

  #listener(provisioner: Provisioner, status: TailnetStatus | undefined): RequestListener {
    const { config, env, log } = this.#options;
    const capName = config.get('tailscale.capName');
    const userspace = status?.userspace === true;
    const identity = guardOrigin(
      tailnetIdentity({
        capName,
        federationCapName: config.get('federation.capName'),
        devices: { allowed: config.get('identity.allowTagged'), serverTag: config.get('tailscale.tag') },
        tailnet: tailnetFacts(env, log, status),
        env,
        log,
        userspace,
      }),
      {
        names: [config.get('server.host'), publicHost(config, status), ...(status?.certDomains ?? [])],
        domains: [config.get('tailscale.tailnet'), status?.suffix],
        secure: config.get('tailscale.port') === 443,
      },
    );
    const loginServer = this.#loginServer;
    const joined =
      loginServer &&
      loginApi({
        clusters: loginServer.clusters,
        isReady: () => loginServer.isReady(),
        isStale: () => loginServer.isStale(),
        primary: loginServer.primary,
        assert: (asserted) => loginServer.assert(asserted),
        log,
      });
    return createHandler({
      identity,
      joined,
      signIns: provisioner.signIns,
      members: () => this.#mesh?.members(),
      clusterInfo: provisioner.clusterInfo,
      retryAfterSeconds: config.get('api.retryAfterSeconds'),
      limits: this.#limits,
      onError: (error, _, id) => log.error({ err: error, request: id }, 'internal error'),
      onRequest: (answered) => this.#onRequest(answered),
      onDecided: (decided) => this.#options.audit.decided(decided),
    });
  }

  #onRequest(answered: Answered): void {
    const { id, method, path, status, refusal, caller, through, address, port } = answered;
    const ms = Math.round(answered.ms * 10) / 10;
    const told = { login: caller?.login, login_server: through, role: caller?.role || undefined };
    this.#options.log.info({ request: id, method, path, status, refusal, ms, address, port, ...told }, 'request');
    this.#metrics.request(answered);
    this.#traces?.request(answered);
  }

  async #joinMesh(
    { clusterInfo }: Provisioner,
    hosts: readonly string[],
    status: TailnetStatus | undefined,
  ): Promise<void> {
    const { config, env, log } = this.#options;
    if (!config.get('gossip.enabled')) return;
    const port = config.get('tailscale.port');
    const host = publicHost(config, status) ?? hosts[0];
    const scheme = port === 443 ? 'https' : 'http';
    const server = canonicalServer(`${scheme}://${host?.includes(':') ? `[${host}]` : host}:${port}`);
    const { signal } = this.#stopping;
    const isJoined = this.#joined?.active() === true;
    const loginServer = this.#loginServer;
    const federation = {
      federationKey: () => this.#joined?.keyHash(),
      // Which of them have a member in the mesh, or are in conflict with one, is not known before.
      ...(loginServer && {
        joined: () => (loginServer.isReady() && this.#mesh?.isSettled() ? joinedRows(loginServer.clusters) : undefined),
      }),
    };
    this.#mesh = await joinMesh({
      config,
      env,
      log,
      signal,
      server,
      hosts,
      status,
      clusterInfo,
      isJoined,
      federation,
    });
  }
}
