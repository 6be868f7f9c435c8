// A TKA server: its parts, put together, and taken apart again.
import type { RequestListener, Server } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';
import type { TailnetStatus } from '../tailscale/localapi.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { cleanText, isDnsLike } from '../util/text.ts';
import { canonicalServer, quotedUrl } from '../util/url.ts';
import { versionInfo } from '../util/version.ts';
import { type Config, clusterNameOf } from './config/config.ts';
import { joinMesh } from './gossip.ts';
import type { Answered } from './http/contract.ts';
import { createHandler } from './http/handler.ts';
import { CallerLimits } from './http/limits.ts';
import { createTkaServer, drain, type KeyPair, listen } from './http/listen.ts';
import { guardOrigin } from './identity/origin.ts';
import { tailnetIdentity } from './identity/tailnet.ts';
import type { Log } from './log/log.ts';
import type { Mesh } from './mesh/mesh.ts';
import { type Provisioner, type ProvisionerOptions, startProvisioner } from './provisioner/provisioner.ts';
import { keepCertificate } from './tailnet/certificate.ts';
import {
  certificateName,
  hostsOf,
  isWildcard,
  needsTailnet,
  publicHost,
  tailnetName,
  untilRenamed,
  waitForTailnet,
} from './tailnet/tailnet.ts';
import { createHealth } from './telemetry/health.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { openTraces, type Traces } from './telemetry/traces.ts';

export interface ServeOptions {
  readonly config: Config;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  /** Ends the server. */
  readonly signal: AbortSignal;
}

// A pod has 30 s from SIGTERM.
const drainMs = 15_000;
const stopMs = 25_000;

/**
 * Serves until the signal, and has left and finished when it resolves. Throws TkaError for what makes it impossible; what
 * may pass (a cluster or a tailscaled that is away) is waited for.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const { config, log } = options;
  const { version, commit } = versionInfo();
  log.info({ version, commit, config: config.file }, 'tka-server starts');
  const kubeConfig = loadKubeConfig(options);
  while (await serveUntilRenamed(options, kubeConfig)) log.info({}, 'tka-server starts again');
}

/** Serves until the signal, or until the node has another name on the tailnet. Returns true if it is to start again. */
async function serveUntilRenamed({ signal, ...options }: ServeOptions, kubeConfig: KubeConfig): Promise<boolean> {
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
    else log.warn({}, 'tka-server ends without having finished');
  }
  return !signal.aborted;
}

class TkaServer {
  readonly #options: ServeOptions;
  readonly #onRenamed: () => void;
  // Ends what waits, for whatever reason the server stops.
  readonly #stopping = new AbortController();
  readonly #metrics = createMetrics({
    version: versionInfo().version,
    members: () => this.#mesh?.members(),
    sessions: () => this.#provisioner?.sessions(),
    leading: () => this.#provisioner?.leading(),
  });
  readonly #limits = new CallerLimits();
  #traces: Traces | undefined;
  // What it waits for before it listens.
  #waitsFor: string | undefined = 'the server starts';
  #health: Server | undefined;
  #apis: (Server | HttpsServer)[] = [];
  #provisioner: Provisioner | undefined;
  #mesh: Mesh | undefined;

  /** `onRenamed` is called when the node has another name than the server started with. */
  constructor(options: ServeOptions, onRenamed: () => void) {
    this.#options = options;
    this.#onRenamed = onRenamed;
    options.signal.addEventListener('abort', () => this.#stopping.abort(options.signal.reason), { once: true });
    if (options.signal.aborted) this.#stopping.abort(options.signal.reason);
  }

  async start(kubeConfig: KubeConfig): Promise<void> {
    const { config, env, log } = this.#options;
    const { signal } = this.#stopping;
    const given = config.get('operator.clusterName');
    const cluster = clusterNameOf(config);
    if (!isDnsLike(given)) {
      const hints = ['set operator.clusterName to letters, digits, ".", "_" and "-"'];
      log.warn(
        { hints },
        `operator.clusterName ${quotedUrl(cleanText(given))} cannot name a context: the cluster is "${cluster}"`,
      );
    }
    await this.#startHealth();
    this.#traces = await openTraces(config, log);
    const provisioner = startProvisioner({
      ...provisionerOptions(config, kubeConfig, log),
      onReconcile: (pass) => {
        this.#metrics.reconcile(pass);
        this.#traces?.reconcile(pass);
      },
      onWatchBroken: () => this.#metrics.watchBroke(),
    });
    this.#provisioner = provisioner;

    const { hosts, status, pair } = await this.#place();
    const listener = this.#listener(provisioner, status);
    const port = config.get('tailscale.port');
    const bound = await this.#listenOn(hosts, port, listener, pair);
    this.#waitsFor = undefined;
    if (config.get('gossip.enabled')) {
      const host = publicHost(config, status) ?? bound[0];
      const scheme = port === 443 ? 'https' : 'http';
      const server = canonicalServer(`${scheme}://${host?.includes(':') ? `[${host}]` : host}:${port}`);
      const { clusterInfo } = provisioner;
      this.#mesh = await joinMesh({ config, env, log, signal, server, hosts: bound, status, clusterInfo });
    } else if (config.get('federation.loginServer') !== undefined) {
      log.warn({}, 'federation.loginServer has no effect without gossip.enabled: true');
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the server stops'));
    await Promise.all([this.#mesh?.leave(), ...this.#apis.map((api) => drain(api, drainMs))]);
    await this.#provisioner?.stop();
    await this.#traces?.stop();
    if (this.#health !== undefined) await drain(this.#health, 1_000);
  }

  /** Why it does not serve as it should; undefined when it does. */
  #unready(): string | undefined {
    if (this.#stopping.signal.aborted) return 'the server stops';
    const isJoining = this.#options.config.get('gossip.enabled') && this.#mesh === undefined;
    const joins = isJoining ? 'the server has not joined the mesh yet' : undefined;
    return this.#waitsFor ?? this.#provisioner?.unready() ?? joins;
  }

  async #startHealth(): Promise<void> {
    const { config } = this.#options;
    const host = config.get('health.host') ?? config.get('server.host') ?? '::';
    const health = createHealth({ unready: () => this.#unready(), metrics: this.#metrics });
    const server = createTkaServer(health, limitsOf(config));
    try {
      await this.#bind(server, host, config.get('health.port'), 'probes').catch(async (error) => {
        // A machine without IPv6.
        if (host !== '::' || !isAbsent(error)) throw error;
        await this.#bind(server, '0.0.0.0', config.get('health.port'), 'probes');
      });
    } catch (error) {
      throw cannotListen(error);
    }
    this.#health = server;
  }

  /** Where to listen, and with what: waits for tailscaled where that is its to say. */
  async #place(): Promise<{
    readonly hosts: readonly string[];
    readonly status: TailnetStatus | undefined;
    readonly pair: KeyPair | undefined;
  }> {
    const { config, env, log } = this.#options;
    const { signal } = this.#stopping;
    const onWait = (why: string) => {
      this.#waitsFor = why;
    };
    const status = needsTailnet(config) ? await waitForTailnet(env, log, signal, onWait) : undefined;
    if (status !== undefined) void this.#watchName(status);
    const hosts = hostsOf(config, status);
    if (config.get('tailscale.port') !== 443 || status === undefined) return { hosts, status, pair: undefined };
    const name = certificateName(config, status);
    if (name === undefined) throw new TkaError('this machine has no name on the tailnet to have a certificate for');
    this.#waitsFor = 'there is no certificate yet';
    const onPair = (pair: KeyPair) => {
      for (const api of this.#apis) if ('setSecureContext' in api) api.setSecureContext(pair);
    };
    return { hosts, status, pair: await keepCertificate({ name, env, log, signal, onPair }) };
  }

  /** The certificate, the mesh and the names that callers may use follow from the node's name. */
  async #watchName(status: TailnetStatus): Promise<void> {
    const { env, log } = this.#options;
    const { signal } = this.#stopping;
    try {
      const name = await untilRenamed(status, env, log, signal);
      log.warn({ name, before: status.self.dnsName }, 'this node has another name on the tailnet now');
      this.#onRenamed();
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #listener(provisioner: Provisioner, status: TailnetStatus | undefined): RequestListener {
    const { config, env, log } = this.#options;
    const capName = config.get('tailscale.capName');
    const userspace = status?.userspace === true;
    const identity = guardOrigin(
      tailnetIdentity({ capName, tailnet: tailnetName(env, log, status), env, log, userspace }),
      {
        names: [config.get('server.host'), publicHost(config, status), ...(status?.certDomains ?? [])],
        domains: [config.get('tailscale.tailnet'), status?.suffix],
        secure: config.get('tailscale.port') === 443,
      },
    );
    return createHandler({
      identity,
      signIns: provisioner.signIns,
      members: () => this.#mesh?.members(),
      clusterInfo: provisioner.clusterInfo,
      retryAfterSeconds: config.get('api.retryAfterSeconds'),
      limits: this.#limits,
      onError: (error, _, id) => log.error({ err: error, request: id }, 'internal error'),
      onRequest: (answered) => this.#onRequest(answered),
    });
  }

  #onRequest(answered: Answered): void {
    const { id, method, path, status, refusal, caller, address, port } = answered;
    const ms = Math.round(answered.ms * 10) / 10;
    const told = caller && { login: caller.login, role: caller.role || undefined };
    this.#options.log.info({ request: id, method, path, status, refusal, ms, address, port, ...told }, 'request');
    this.#metrics.request(answered);
    this.#traces?.request(answered);
  }

  /** Listens on these addresses. Those that tailscaled told may not be there yet, and one of them never: IPv6. */
  async #listenOn(
    hosts: readonly string[],
    port: number,
    listener: RequestListener,
    pair: KeyPair | undefined,
  ): Promise<readonly string[]> {
    const { config, log } = this.#options;
    for (;;) {
      const bound: string[] = [];
      let problem: unknown;
      for (const host of hosts) {
        const limits = { ...limitsOf(config), isKnown: (socket: Socket) => this.#limits.knows(socket) };
        const server = pair === undefined ? createTkaServer(listener, limits) : createTkaServer(listener, limits, pair);
        try {
          await this.#bind(server, host, port, 'the API');
          this.#apis.push(server);
          bound.push(host);
        } catch (error) {
          if (config.get('server.host') !== undefined || !isAbsent(error)) throw cannotListen(error);
          problem = error;
        }
      }
      if (bound.some(isWildcard))
        log.warn({}, 'the API is on all addresses: who can forge one of the tailnet’s is believed');
      if (bound.length > 0) return bound;
      this.#waitsFor = 'the tailnet’s addresses are not on this machine yet';
      log.warn({ err: problem, hosts }, 'waiting for the tailnet’s addresses');
      await delay(1_000, undefined, { signal: this.#stopping.signal });
    }
  }

  async #bind(server: Server | HttpsServer, host: string, port: number, what: string): Promise<void> {
    await listen(server, host, port);
    server.on('error', (error) => this.#options.log.error({ err: error }, 'a listening socket failed'));
    this.#options.log.info({ host, port }, `listening for ${what}`);
  }
}

const isAbsent = (error: unknown): boolean => /^(?:EADDRNOTAVAIL|EAFNOSUPPORT)$/.test(systemCode(error) ?? '');

function cannotListen(error: unknown): unknown {
  const { code, address, port } = error as NodeJS.ErrnoException & { address?: string; port?: number };
  const where = `${address}:${port}`;
  if (code === 'EADDRINUSE') {
    return new TkaError(`cannot listen on ${where}: another process does`, {
      hints: [`see which: ss -ltnp 'sport = :${port}'`, 'or set another tailscale.port, health.port or server.host'],
      cause: error,
    });
  }
  if (code === 'EACCES') {
    return new TkaError(`cannot listen on ${where}: permission denied`, {
      hints: ['ports under 1024 take the capability NET_BIND_SERVICE, or set another tailscale.port'],
      cause: error,
    });
  }
  if (code === 'EADDRNOTAVAIL') {
    return new TkaError(`cannot listen on ${where}: this machine has no such address`, {
      hints: ['see which it has: ip address', 'server.host may be left out: the tailnet’s addresses are then taken'],
      cause: error,
    });
  }
  return code === undefined ? error : new TkaError(`cannot listen on ${where} (${code})`, { cause: error });
}

function limitsOf(config: Config) {
  return {
    readTimeoutMs: config.get('server.readTimeout'),
    readHeaderTimeoutMs: config.get('server.readHeaderTimeout'),
    writeTimeoutMs: config.get('server.writeTimeout'),
    idleTimeoutMs: config.get('server.idleTimeout'),
  };
}

/**
 * Returns the configuration of the cluster that KUBECONFIG names, else of the one that this pod runs in. Throws TkaError
 * where there is neither.
 */
export function loadKubeConfig({ env }: Pick<ServeOptions, 'env'>): KubeConfig {
  const kubeConfig = new KubeConfig();
  try {
    if (env.KUBECONFIG) kubeConfig.loadFromDefault();
    else if (env.KUBERNETES_SERVICE_HOST) kubeConfig.loadFromCluster();
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n', 1)[0] ?? '') : '';
    throw new TkaError(`the kubeconfig cannot be read: ${why}`, { cause, hints: ['kubectl config view'] });
  }
  if (kubeConfig.getCurrentCluster() != null) return kubeConfig;
  throw new TkaError('there is no cluster to serve: KUBECONFIG names none, and this is no pod with a ServiceAccount', {
    hints: ['export KUBECONFIG=/path/to/kubeconfig'],
  });
}

function provisionerOptions(config: Config, kubeConfig: KubeConfig, log: Log): ProvisionerOptions {
  const labels = config.get('clusterInfo.labels');
  const apiEndpoint = config.get('clusterInfo.apiEndpoint');
  const clusterInfo: ProvisionerOptions['clusterInfo'] =
    apiEndpoint !== undefined
      ? {
          server_url: apiEndpoint,
          insecure_skip_tls_verify: config.get('clusterInfo.insecureSkipTLSVerify'),
          ca_data: config.get('clusterInfo.caData'),
          labels,
        }
      : {
          ref: {
            name: config.get('clusterInfo.configMapRef.name'),
            namespace: config.get('clusterInfo.configMapRef.namespace'),
            keys: {
              apiEndpoint: config.get('clusterInfo.configMapRef.keys.apiEndpoint'),
              caData: config.get('clusterInfo.configMapRef.keys.caData'),
              insecure: config.get('clusterInfo.configMapRef.keys.insecure'),
              kubeconfig: config.get('clusterInfo.configMapRef.keys.kubeconfig'),
            },
          },
          labels,
        };
  return {
    kubeConfig,
    namespace: config.get('operator.namespace'),
    leaseNamespace: config.get('operator.leaseNamespace'),
    cluster: clusterNameOf(config),
    clusterName: config.get('operator.clusterName'),
    contextPrefix: config.get('operator.contextPrefix'),
    userPrefix: config.get('operator.userPrefix'),
    clusterInfo,
    log,
  };
}
