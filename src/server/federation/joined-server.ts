// The joined cluster's part of a TKA server: joins the login server that the join Secret names, and keeps tunnels to
// it. Does nothing as long as there is no join Secret and the cluster has not joined before.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { KubeConfig } from '@kubernetes/client-node';
import { cleanText } from '../../util/text.ts';
import { canonicalApiServer } from '../../util/url.ts';
import { versionInfo } from '../../util/version.ts';
import type { Config } from '../config/config.ts';
import type { Answered, Decided } from '../http/contract.ts';
import { isStatus } from '../kubernetes/errors.ts';
import { connectKube, type Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import type { Provisioner } from '../provisioner/provisioner.ts';
import type { ClusterStatement, JoinAnswer } from './contract.ts';
import { join, keepTunnels } from './dialer.ts';
import { type JoinRecord, JoinRecords, type JoinStatus, type Membership } from './join-records.ts';
import { type FoundSecret, type JoinSecret, readJoinSecret } from './join-secret.ts';
import { JoinedApi } from './joined-api.ts';
import { isSameLoginServer, Joining } from './joining.ts';
import { type FederationKey, keyHash } from './keys.ts';
import { federationNamespace } from './objects.ts';
import type { OwnTunnels, TunnelTimes } from './options.ts';
import { SignedInThrough } from './signed-in-through.ts';

export interface JoinedServerOptions {
  readonly config: Config;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  readonly kubeConfig: KubeConfig;
  readonly provisioner: Pick<Provisioner, 'leading' | 'clusterInfo' | 'signIns' | 'overview' | 'endAllThrough'>;
  /** As in JoinedApiOptions. */
  readonly onRequest: (answered: Answered) => void;
  readonly onDecided: (decided: Decided) => void;
  /** As in JoiningOptions. */
  readonly isAnnounced?: (keyHash: string) => boolean;
  readonly times?: JoinedTimes;
}

/** Times in milliseconds. The defaults are for operation; tests use shorter ones. */
export interface JoinedTimes {
  /** Between two looks at the join Secret and at tka-cluster-info. Default: 3 s. */
  readonly roundMs?: number;
  /** Between two searches for sign-ins through other login servers. Default: 15 s. */
  readonly strayMs?: number;
  /** How long a list without the key that signed before is the last one, until it counts. Default: 60 s. */
  readonly settledKeysMs?: number;
  /** How long tka-cluster-info may be forbidden before the cluster leaves the login server. Default: 60 s. */
  readonly forbiddenMs?: number;
  /** As in JoiningOptions. */
  readonly pauseMs?: readonly [shortest: number, longest: number];
  /** As in JoiningOptions. */
  readonly settleMs?: number;
  readonly tunnels?: TunnelTimes;
}

export interface JoinedServer {
  /** Returns whether this server has joined a login server, or is to join one. */
  active(): boolean;
  /**
   * Returns why nobody can sign in through a login server now, or undefined if people can, and if there is not even a
   * folder for a join Secret.
   */
  problem(): string | undefined;
  /** Returns the login server and the tunnels to it, or undefined if the cluster has not joined. */
  state(): JoinedState | undefined;
  /** Returns how far joining is, for the metrics, or undefined if there is nothing to join. */
  counts(): { readonly status: JoinStatus['status']; readonly tunnels: number } | undefined;
  /** Returns the hash of this cluster's key (keys.ts), also while it is joining; undefined if it has none yet. */
  keyHash(): string | undefined;
  /** Answers the open requests and closes the tunnels. */
  stop(): Promise<void>;
}

export interface JoinedState {
  /** The name of this cluster at the login server. */
  readonly cluster: string;
  readonly endpoint: string;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** The number of open tunnels. */
  readonly tunnels: number;
}

const joinHint = 'to join a login server, create the Secret tka-join: see docs/federation.md';

/** Starts to look for a join Secret. Never throws: problems are logged, and tried again. */
export function startJoinedServer(options: JoinedServerOptions): JoinedServer {
  const server = new Joiner(options);
  void server.run();
  return server;
}

class Joiner implements JoinedServer {
  readonly #options: JoinedServerOptions;
  readonly #folder: string;
  readonly #forbiddenMs: number;
  readonly #kube: Kube;
  readonly #records: JoinRecords;
  readonly #joining: Joining;
  readonly #api: JoinedApi;
  readonly #through: SignedInThrough;
  readonly #stopping = new AbortController();
  // Several servers can run on one machine, so the host's name is not enough.
  readonly #replica = `${hostname().replaceAll(/[^A-Za-z0-9-]+/g, '-')}-${randomBytes(3).toString('hex')}`.replace(
    /^-+/,
    '',
  );
  #running: Promise<void> = Promise.resolve();
  #wake = new AbortController();
  #found: FoundSecret;
  #isActive: boolean;
  /** When to look for tka-cluster-info without a join Secret (performance.now()). */
  #lookAt = 0;
  #hasWarned = false;
  #statement: ClusterStatement | undefined;
  #keyHash: string | undefined;
  #open: { membership: Membership; readonly tunnels: OwnTunnels } | undefined;
  #evicted: Evicted | undefined;
  /** Since when tka-cluster-info is forbidden (performance.now()). */
  #forbiddenSince: number | undefined;
  /** The keys that the login server has stated last, and when (performance.now()). */
  #newKeys: { readonly keys: readonly string[]; readonly at: number } | undefined;
  /** Why the last round failed. */
  #failure: string | undefined;
  #told: JoinStatus | undefined;

  constructor(options: JoinedServerOptions) {
    this.#options = options;
    const { config, log, provisioner, onRequest, onDecided, times } = options;
    this.#kube = connectKube(options.kubeConfig);
    this.#records = new JoinRecords(this.#kube);
    this.#joining = new Joining({
      records: this.#records,
      log,
      loginServer: config.get('federation.loginServer'),
      join: (secret, key, signal) => this.#join(secret, key, signal),
      leave: (old) => this.#leave(old),
      isAnnounced: options.isAnnounced,
      ...(times?.pauseMs && { pauseMs: times.pauseMs }),
      ...(times?.settleMs !== undefined && { settleMs: times.settleMs }),
    });
    this.#through = new SignedInThrough(provisioner, times?.strayMs ?? 15_000);
    this.#api = new JoinedApi({
      signIns: provisioner.signIns,
      clusterInfo: provisioner.clusterInfo,
      endAllThrough: provisioner.endAllThrough,
      signInsThrough: (loginServer) => this.#through.names(loginServer),
      roles: config.get('federation.roles'),
      maxPeriodMs: config.get('federation.maxPeriod'),
      retryAfterSeconds: config.get('api.retryAfterSeconds'),
      onEvicted: ({ primary }) => {
        const { membership } = this.#open ?? {};
        if (primary === membership?.primary) this.#isEvicted(membership, 'its TkaCluster was deleted');
      },
      log,
      onRequest,
      onDecided,
    });
    this.#folder = config.get('federation.joinFolder');
    this.#forbiddenMs = times?.forbiddenMs ?? 60_000;
    this.#found = readJoinSecret(this.#folder);
    this.#isActive = isThere(this.#found, this.#folder);
  }

  active(): boolean {
    return this.#isActive;
  }

  state(): JoinedState | undefined {
    if (this.#open === undefined) return undefined;
    const { membership, tunnels } = this.#open;
    const { cluster, endpoint, primary } = membership;
    return { cluster, endpoint, primary, tunnels: tunnels.connected().length };
  }

  counts() {
    if (this.#open !== undefined) return { status: 'Joined', tunnels: this.#open.tunnels.connected().length } as const;
    return this.#isActive ? { status: this.#told?.status ?? ('Joining' as const), tunnels: 0 } : undefined;
  }

  keyHash(): string | undefined {
    return this.#keyHash;
  }

  problem(): string | undefined {
    if (!this.#isActive) return fs.existsSync(this.#folder) ? `there is no join Secret in ${this.#folder}` : undefined;
    if (this.#open !== undefined) {
      const { membership, tunnels } = this.#open;
      if (tunnels.connected().length > 0) return undefined;
      return `no tunnel to the login server ${membership.endpoint}: ${tunnels.problem() ?? 'it is being dialed'}`;
    }
    if (this.#failure !== undefined) return `this cluster cannot join: ${this.#failure}`;
    if (this.#told?.msg) return `this cluster has not joined: ${this.#told.msg}`;
    return 'this cluster has not joined a login server yet';
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the server is stopping'));
    this.#kube.close();
    await this.#running;
    await this.#open?.tunnels.close();
  }

  run(): Promise<void> {
    this.#running = this.#run();
    return this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const { log } = this.#options;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      try {
        await this.#round();
        this.#failure = undefined;
      } catch (error) {
        if (signal.aborted) return;
        // 409: another replica was faster.
        if (!isStatus(error, 409)) {
          const failure = cleanText(error instanceof Error ? error.message : String(error), 300);
          const isNews = failure !== this.#failure;
          this.#failure = failure;
          const hints = isStatus(error, 403, 404)
            ? [`apply the manifests for joined clusters: the namespace ${federationNamespace} and its Role`]
            : [];
          // It is tried again every few seconds.
          if (isNews) log.warn({ err: error, hints }, 'cannot follow the state of the federation');
        }
      }
      const { roundMs = 3_000 } = this.#options.times ?? {};
      const pause = this.#joining.pauseMs();
      const ms = pause > 0 ? Math.min(pause, roundMs) : roundMs;
      await delay(ms, undefined, { signal: AbortSignal.any([signal, this.#wake.signal]) }).catch(() => undefined);
    }
  }

  async #round(): Promise<void> {
    const { provisioner } = this.#options;
    this.#found = readJoinSecret(this.#folder);
    if (isThere(this.#found, this.#folder)) this.#isActive = true;
    // Before the record is read: a sign-in through a new login server must not look like one through an old one.
    const used = this.#through.used();
    if (!this.#isActive && !(await this.#joinedBefore())) {
      if (used.size === 0) return;
      // Left, and restarted before the sign-ins ended.
      const { membership, problem } = await this.#read(used);
      if (problem !== undefined) throw new Error(problem);
      await this.#through.end(used, membership?.primary);
      if (membership !== undefined) this.#isActive = fs.existsSync(this.#folder);
      return;
    }
    const found = await this.#read(used);
    let record = this.#evicted === undefined ? await this.#withNewKeys(found) : await this.#leaveForGood(this.#evicted);
    this.#knows(record);
    await this.#useTunnels(record);
    if (provisioner.leading()) {
      record = await this.#joining.step(this.#found, record, this.#stopping.signal);
      this.#knows(record);
      await this.#useTunnels(record);
      if (record.problem === undefined) await this.#through.end(used, record.membership?.primary);
    }
    if (record.problem !== undefined) throw new Error(record.problem);
    this.#told = record.membership === undefined ? await this.#records.status() : undefined;
  }

  /**
   * Reads tka-cluster-info. Without an answer, what is known counts: an eviction, and that nobody allows this cluster to
   * know its login server any more (somebody has deleted the namespace or the rights).
   */
  async #read(used: ReadonlySet<string>): Promise<JoinRecord> {
    try {
      return await this.#readRecord();
    } catch (error) {
      if (this.#evicted !== undefined) await this.#leave(this.#evicted.membership);
      if (this.#isForbidden()) {
        await this.#closeTunnels();
        await this.#through.end(used, undefined);
      }
      throw error;
    }
  }

  async #readRecord(): Promise<JoinRecord> {
    try {
      const record = await this.#records.read();
      this.#forbiddenSince = undefined;
      return record;
    } catch (error) {
      if (isStatus(error, 403)) this.#forbiddenSince ??= performance.now();
      else this.#forbiddenSince = undefined;
      throw error;
    }
  }

  /** Returns whether tka-cluster-info is forbidden, and not only while an API server starts. */
  #isForbidden(): boolean {
    return this.#forbiddenSince !== undefined && performance.now() - this.#forbiddenSince >= this.#forbiddenMs;
  }

  #knows({ key }: JoinRecord): void {
    this.#keyHash = key && keyHash(key.publicKey);
  }

  /**
   * Returns whether this cluster has joined, though the join Secret is gone now. Asks the API server only if the folder
   * for the Secret exists, and only until there is an answer.
   */
  async #joinedBefore(): Promise<boolean> {
    if (performance.now() >= this.#lookAt && fs.existsSync(this.#folder)) {
      try {
        const { membership, problem } = await this.#readRecord();
        if (problem !== undefined) throw new Error(problem);
        this.#isActive = membership !== undefined;
        this.#lookAt = Number.POSITIVE_INFINITY;
      } catch (error) {
        // Without a federation there are neither the namespace nor the rights.
        if (!isStatus(error, 403)) throw error;
        // An administrator can allow it later.
        if (this.#isForbidden()) this.#lookAt = performance.now() + this.#forbiddenMs;
      }
    }
    if (!this.#isActive) this.#warnWithoutSecret();
    return this.#isActive;
  }

  /** Warns about a login server without a join Secret. */
  #warnWithoutSecret(): void {
    const { config, log } = this.#options;
    const loginServer = config.get('federation.loginServer');
    if (loginServer === undefined || this.#hasWarned) return;
    this.#hasWarned = true;
    const effect = config.get('gossip.enabled') ? 'is only a member of the mesh to contact first' : 'has no effect';
    log.warn({ hints: [joinHint] }, `federation.loginServer ${effect}: there is no join Secret in ${this.#folder}`);
  }

  async #join(secret: JoinSecret, key: FederationKey, signal: AbortSignal): Promise<JoinAnswer> {
    const { cluster, endpoint, token, keyHash } = secret;
    const statement = await this.#currentStatement();
    return await join({ ...this.#dialing(), cluster, endpoint, token, keyHash, key, statement, signal });
  }

  #dialing() {
    const { config, env, log, times } = this.#options;
    const caFile = config.get('federation.caFile');
    return { caFile, env, log, replica: this.#replica, ...(times?.tunnels && { times: times.tunnels }) };
  }

  /** Returns what this cluster says about itself. Throws an Error if that is not known. */
  async #currentStatement(): Promise<ClusterStatement> {
    const { server_url: url, labels } = await this.#options.provisioner.clusterInfo();
    this.#statement = { version: versionInfo().version, apiEndpoint: canonicalApiServer(url), labels };
    return this.#statement;
  }

  /** Opens and closes tunnels, as the record says. If the record cannot be used, leaves them as they are. */
  async #useTunnels({ membership, key, problem }: JoinRecord): Promise<void> {
    if (problem !== undefined) return;
    if (this.#open !== undefined) {
      // With another join Secret there are new tunnels: what comes through the old ones is not news for it.
      if (membership?.hash === this.#open.membership.hash && isSamePlace(this.#open.membership, membership)) {
        // With its keys, which can be new.
        this.#open.membership = membership;
        // For the next dial.
        await this.#currentStatement().catch(() => undefined);
        return;
      }
      await this.#closeTunnels();
    }
    if (membership === undefined || key === undefined) return;
    const statement = await this.#currentStatement();
    const { cluster, endpoint, primary, keys } = membership;
    const tunnels = keepTunnels({
      ...this.#dialing(),
      cluster,
      endpoint,
      primary,
      keys,
      key,
      statement: () => this.#statement ?? statement,
      answer: (request, tunnel, signal) => this.#api.answer(request, tunnel, signal),
      onKeys: (learned) => {
        if (this.#open?.tunnels !== tunnels) return;
        this.#newKeys = { keys: learned, at: performance.now() };
        this.#wake.abort();
      },
      onEvicted: (message) => {
        if (this.#open?.tunnels === tunnels) this.#isEvicted(this.#open.membership, message);
      },
    });
    this.#open = { membership, tunnels };
  }

  async #closeTunnels(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    this.#newKeys = undefined;
    await open?.tunnels.close();
  }

  /** Writes the keys that a known key of the login server has signed, so that the next process knows them too. */
  async #withNewKeys(record: JoinRecord): Promise<JoinRecord> {
    const { key, membership } = record;
    const news = this.#newKeys;
    if (news === undefined || key === undefined || membership === undefined) return record;
    const { keys: learned, at } = news;
    const [first] = membership.keys;
    const isSame = learned.join() === membership.keys.join();
    const isNewer = learned[0] === first || learned.some((one) => !membership.keys.includes(one));
    // Otherwise a replica of the login server may not have seen yet that the keys were changed.
    const { settledKeysMs = 60_000 } = this.#options.times ?? {};
    if (!isSame && !isNewer && performance.now() - at < settledKeysMs) return record;
    this.#newKeys = undefined;
    if (isSame) return record;
    try {
      const written = await this.#records.write(record, key, { membership: { ...membership, keys: learned } });
      this.#options.log.info({ keys: learned.map(keyHash) }, 'the login server has new keys');
      return written;
    } catch (error) {
      this.#newKeys ??= news;
      throw error;
    }
  }

  #isEvicted(membership: Membership, message: string): void {
    this.#evicted ??= { membership, message };
    this.#wake.abort();
  }

  /** Ends what came through a login server that has evicted this cluster. Repeated until everything is done. */
  async #leaveForGood({ membership, message }: Evicted): Promise<JoinRecord> {
    const { log } = this.#options;
    // Newer than the eviction.
    const record = await this.#readRecord();
    const { endpoint, primary, hash } = membership;
    // If it has joined again since the tunnels were opened, this may be old news: then the next dial decides.
    if (record.membership !== undefined && record.membership.hash !== hash) await this.#closeTunnels();
    else await this.#leave(membership);
    const isCurrent =
      record.key !== undefined && record.membership?.hash === hash && isSamePlace(record.membership, membership);
    // Together with the membership, so that no leader uses the same join Secret again.
    const left =
      isCurrent && record.key !== undefined ? await this.#records.write(record, record.key, { evicted: hash }) : record;
    // Also if it is written already: another replica may have changed the status at the same time, without the reason.
    if (left.evicted === hash) {
      const msg = `the login server ${endpoint} has evicted this cluster: ${cleanText(message, 300)}`;
      if (await this.#records.tell({ status: 'Rejected', reason: 'Evicted', msg, hash })) log.warn({ primary }, msg);
    }
    this.#evicted = undefined;
    return left;
  }

  /** Closes the tunnels, and ends every sign-in that came through them. */
  async #leave({ primary }: Membership): Promise<void> {
    await this.#closeTunnels();
    await this.#api.endAllThrough(primary);
  }
}

/** Returns whether there is a join Secret. A folder above that cannot be opened says nothing about one. */
const isThere = ({ kind }: FoundSecret, folder: string): boolean =>
  kind !== 'none' && (kind !== 'unreadable' || fs.existsSync(folder));

type Evicted = { readonly membership: Membership; readonly message: string };

const isSamePlace = (a: Membership, b: Membership): boolean =>
  a.cluster === b.cluster && a.endpoint === b.endpoint && isSameLoginServer(a, b);
