// The provisioner of one replica. It serves sign-ins and provisions those that it takes. It takes part in the leader
// election. The leader ends expired sign-ins, repairs, and provisions what no other replica does: sign-ins of the Go
// server, of a killed replica, or made by hand. If a Go operator leads instead, it does the same for sign-ins with
// plain names: it finds most of them provisioned, and ends them when they expire. See "Coming from the Go server" in
// deploy/README.md.
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { KubeConfig } from '@kubernetes/client-node';
import type { ClusterInfo } from '../../tka/types.ts';
import { quoted } from '../../util/text.ts';
import type { SignIns, TaggedDevice } from '../http/contract.ts';
import { isStatus } from '../kubernetes/errors.ts';
import { connectKube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { Blocked } from './blocked.ts';
import { ClusterInfoSource, type ConfigMapSource, signInStore } from './cluster-info.ts';
import { SignInEvents } from './events.ts';
import { IndexByLogin } from './index-by-login.ts';
import { type LeaseHolder, type LeaseTimes, standForElection } from './lease.ts';
import { signInOfBinding, type TkaSignin } from './objects.ts';
import { overviewOf, type SignInOverview } from './overview.ts';
import { type QueueCounts, WorkQueue } from './queue.ts';
import { type Reconciled, Reconciler, Stale, survey } from './reconciler.ts';
import { endOf, hasAttempt, isSettled, loginOf, rfc3339, taggedOf, throughOf, toldOf } from './sign-in.ts';
import { createSignIns } from './sign-ins.ts';
import { watchAccounts, watchBindings, watchSignIns } from './watch.ts';

export interface ProvisionerOptions {
  readonly kubeConfig: KubeConfig;
  /** Namespace of the sign-ins and their ServiceAccounts. */
  readonly namespace: string;
  /** Namespace of the lease. Default: the same namespace. A Go operator's lease is in the namespace of its pod. */
  readonly leaseNamespace?: string | undefined;
  /** The cluster's name for people: `prod-us`. */
  readonly cluster?: string | undefined;
  /** Names in the kubeconfig that `GET /kubeconfig` returns. */
  readonly clusterName: string;
  readonly contextPrefix: string;
  readonly userPrefix: string;
  /** The cluster info for clients, or the ConfigMap that has it and the labels to add. */
  readonly clusterInfo: ClusterInfo | ConfigMapSource;
  /** This process in the election. Default: the host name and a random part. */
  readonly identity?: string;
  readonly log: Log;
  readonly lease?: LeaseTimes;
  /** How often all sign-ins are compared with their parts. Default 10 minutes. */
  readonly resyncMs?: number;
  /** Called after each pass over a sign-in. */
  readonly onReconcile?: (pass: ReconcilePass) => void;
  /** Called once for each sign-in that this replica ended without a request. */
  readonly onEnded?: (ended: Ended) => void;
  /** Called whenever the watch on a resource breaks; it is restarted. */
  readonly onWatchBroken?: (resource: WatchedResource) => void;
  /** Called for each ServiceAccount that this replica creates or deletes. */
  readonly onAccount?: (what: 'created' | 'deleted') => void;
}

/** A sign-in that a replica ended without a request. */
export interface Ended {
  readonly event: 'expiry' | 'revocation';
  readonly reason: string;
  /** undefined if unknown, as in sign-ins of the Go server. */
  readonly login: string | undefined;
  readonly username: string;
  /** Set for a tagged device. */
  readonly tagged: TaggedDevice | undefined;
  /** As in Caller. */
  readonly through: string | undefined;
  readonly role: string;
  /** RFC 3339. */
  readonly until: string | undefined;
  readonly account: string;
}

/** One pass over one sign-in. */
export interface ReconcilePass {
  readonly name: string;
  readonly namespace: string;
  readonly ms: number;
  readonly failed: boolean;
  /** The pass ended early because something changed meanwhile. It is repeated. */
  readonly again: boolean;
  /** Set if this pass provisioned a new sign-in, or extended one. */
  readonly signedIn: { readonly username: string; readonly role: string } | undefined;
}

/** The resources that a provisioner watches. */
export const watchedResources = ['tkasignins', 'serviceaccounts', 'clusterrolebindings'] as const;

export type WatchedResource = (typeof watchedResources)[number];

export interface WatchState {
  readonly connected: boolean;
  readonly silentMs: number;
}

export interface Provisioner {
  readonly signIns: SignIns;
  /**
   * Ends all sign-ins that came through this login server (Caller.through), in the whole cluster. Returns how many this
   * replica ended. Throws a KubeError if some could not be ended.
   */
  endAllThrough(loginServer: string): Promise<number>;
  /** Returns the cluster info for clients. Throws a Refusal if the ConfigMap cannot be read. */
  readonly clusterInfo: () => Promise<ClusterInfo>;
  /** Returns why sign-ins cannot be served properly, or undefined if they can. */
  unready(): string | undefined;
  leading(): boolean;
  /** Returns whether a Go operator holds the lease. */
  goLeading(): boolean;
  /** Returns the number of active sign-ins by role. */
  sessions(): ReadonlyMap<string, number>;
  leaseHolder(): LeaseHolder | undefined;
  /** Returns all sign-ins of the cluster, sorted by name. */
  overview(): readonly SignInOverview[];
  /** Returns why the overview may be old, or undefined while it follows the cluster. */
  overviewProblem(): string | undefined;
  /**
   * Returns the state of each watch: whether it follows the cluster, and for how long the API server has been silent.
   */
  watches(): ReadonlyMap<WatchedResource, WatchState>;
  /** Returns the size of the leader's queue, or undefined while this replica does not lead. */
  queue(): QueueCounts | undefined;
  /** Finishes running work and releases the lease. Unanswered calls of `signIns` may fail. */
  stop(): Promise<void>;
}

const expiryMs = 1_000;
const concurrency = 16;
// The leader leaves a sign-in to the replica that took or ended it for this long.
const graceMs = 1_000;
// A key that is not a name: compare all sign-ins.
const everything = '*';

/**
 * Starts a provisioner. Throws only if the kubeconfig names no cluster. If the cluster is unreachable, the provisioner
 * waits for it.
 */
export function startProvisioner(options: ProvisionerOptions): Provisioner {
  const { kubeConfig, namespace, log, onReconcile, onWatchBroken } = options;
  const kube = connectKube(kubeConfig);
  let queue: WorkQueue | undefined;
  const later = new Map<string, NodeJS.Timeout>();
  const ends = new Map<string, number>();
  const index = new IndexByLogin();

  const watch = watchSignIns(namespace, {
    kube,
    log,
    onBroken: () => onWatchBroken?.('tkasignins'),
    onChange(name, signIn) {
      index.set(name, signIn);
      const end = signIn && endOf(signIn, Date.now());
      if (end === undefined) ends.delete(name);
      else ends.set(name, end);
      // Without our attempt ID, no other replica is about to provision it.
      if (signIn !== undefined && !isSettled(signIn) && !hasAttempt(signIn)) queue?.add(name);
      else lookLater(name);
    },
  });
  const accounts = watchAccounts(namespace, {
    kube,
    log,
    onBroken: () => onWatchBroken?.('serviceaccounts'),
    onChange: lookLater,
  });
  const bindings = watchBindings({
    kube,
    log,
    onBroken: () => onWatchBroken?.('clusterrolebindings'),
    onChange: (name) => lookLater(signInOfBinding(name) ?? name),
  });
  const copies = { signIns: watch, accounts, bindings };
  const { onAccount } = options;
  const onExpired = (signIn: TkaSignin): void => ended(signIn, 'expiry', 'the sign-in has expired');
  const reconciler = new Reconciler({ kube, namespace, log, copies, onExpired, ...(onAccount && { onAccount }) });

  const events = new SignInEvents(kube, namespace, log);

  function ended(signIn: TkaSignin, event: Ended['event'], reason: string): void {
    events.tell(signIn, event === 'expiry' ? 'Expired' : 'Revoked', reason);
    const { username, role } = signIn.spec;
    const end = endOf(signIn, Date.now());
    const until = end === undefined ? undefined : rfc3339(end);
    const [login, tagged, through] = [loginOf(signIn), taggedOf(signIn), throughOf(signIn)];
    options.onEnded?.({ event, reason, login, username, tagged, through, role, until, account: signIn.metadata.name });
  }

  /** If this replica leads: queues the sign-in after the grace period, unless it is right by then. */
  function lookLater(name: string): void {
    if (queue === undefined || later.has(name) || !reconciler.isWrong(name)) return;
    const look = (): void => {
      later.delete(name);
      if (reconciler.isWrong(name)) queue?.add(name);
    };
    later.set(name, setTimeout(look, graceMs));
  }

  /** Runs one pass over a sign-in, and reports it to the log, the Events and `onReconcile`. */
  async function pass(name: string, run: () => Promise<Reconciled>, given?: TkaSignin): Promise<TkaSignin | undefined> {
    const start = performance.now();
    let failed = true;
    let again = false;
    let signedIn: ReconcilePass['signedIn'];
    try {
      const { signIn, isNew } = await run();
      failed = false;
      if (signIn !== undefined && isNew) {
        signedIn = { username: signIn.spec.username, role: signIn.spec.role };
        log.info({ name, ...toldOf(signIn), ...signedIn, until: signIn.status?.valid_until }, 'access provisioned');
        const [until = '', through] = [signIn.status?.valid_until, throughOf(signIn)];
        const way = through === undefined ? '' : ` through the login server ${quoted(through, 253)}`;
        events.tell(signIn, 'Provisioned', `access with role ${quoted(signedIn.role, 253)} until ${until}${way}`);
      }
      return signIn;
    } catch (error) {
      const known = watch.get(name) ?? given;
      const about = { name, ...(known && toldOf(known)), err: error };
      again = error instanceof Stale || isStatus(error, 409);
      failed = !again;
      if (again) log.debug(about, 'will try again');
      else if (error instanceof Blocked) log.warn({ ...about, advice: error.advice }, 'a sign-in is blocked');
      else log.error(about, 'could not reconcile a sign-in');
      if (known !== undefined && !again && error instanceof Error)
        events.tell(known, error instanceof Blocked ? 'Refused' : 'Failed', error.message);
      throw error;
    } finally {
      onReconcile?.({ name, namespace, ms: performance.now() - start, failed, again, signedIn });
    }
  }

  async function work(name: string): Promise<void> {
    if (name === everything) {
      let count = 0;
      for await (const wrong of survey(kube, namespace)) {
        queue?.add(wrong);
        count++;
      }
      log.info({ count }, 'checked all sign-ins');
      return;
    }
    await pass(name, () => reconciler.reconcile(name));
  }

  let timers: readonly NodeJS.Timeout[] = [];
  const candidate = standForElection({
    ...options.lease,
    kube,
    namespace: options.leaseNamespace ?? namespace,
    identity: options.identity ?? `${hostname()}_${randomUUID()}`,
    log,
    onStarted() {
      const fresh = new WorkQueue({
        work,
        concurrency,
        onError(name, error) {
          if (name === everything) log.error({ err: error }, 'could not check the sign-ins');
        },
      });
      queue = fresh;
      // Catch up on what happened while nobody led.
      fresh.add(everything);
      timers = [
        setInterval(() => fresh.add(everything), options.resyncMs ?? 10 * 60_000),
        setInterval(() => {
          const now = Date.now();
          for (const [name, end] of ends) {
            if (end > now) continue;
            // If this fails, the queue retries with growing delays.
            ends.delete(name);
            fresh.add(name);
          }
        }, expiryMs),
      ];
    },
    async onStopped() {
      for (const timer of [...timers, ...later.values()]) clearTimeout(timer);
      later.clear();
      const old = queue;
      queue = undefined;
      await old?.stop();
    },
  });

  const stopping = new AbortController();
  const source = new ClusterInfoSource(kube, options.clusterInfo, log);
  const storeOf = signInStore({ kube, namespace, log, signal: stopping.signal });
  async function clusterInfo(): Promise<ClusterInfo> {
    const { cluster } = options;
    const store = storeOf();
    return {
      ...(await source.read()),
      ...(cluster !== undefined && { cluster }),
      ...(store !== undefined && { sign_in_store: store }),
    };
  }

  void source.readFirst(stopping.signal);

  const { endAllThrough, ...signIns } = createSignIns({
    kube,
    watch,
    index,
    namespace,
    log,
    provide: (signIn) => pass(signIn.metadata.name, () => reconciler.provide(signIn), signIn),
    repair: (signIn) => pass(signIn.metadata.name, () => reconciler.repair(signIn.metadata.name), signIn),
    knownParts: (name) => reconciler.known(name),
    readParts: (name, signal) => reconciler.read(name, signal),
    release: (signIn) => reconciler.release(signIn),
    onRevoked: (signIn, reason) => ended(signIn, 'revocation', reason),
    goLeader: () => candidate.goLeader(),
    clusterInfo,
    clusterName: options.clusterName,
    contextPrefix: options.contextPrefix,
    userPrefix: options.userPrefix,
  });

  return {
    signIns,
    endAllThrough,
    clusterInfo,
    unready: () => watch.problem() ?? source.problem(),
    leading: () => candidate.leading(),
    leaseHolder: () => candidate.holder(),
    overview: () =>
      [...watch.all()]
        .map((signIn) => overviewOf(signIn, reconciler.known(signIn.metadata.name)?.account, Date.now()))
        .sort((a, b) => (a.name < b.name ? -1 : 1)),
    overviewProblem: () => watch.problem(),
    goLeading: () => candidate.goLeader() !== undefined,
    sessions() {
      const counts = new Map<string, number>();
      for (const signIn of watch.all()) {
        if (!isSettled(signIn)) continue;
        counts.set(signIn.spec.role, (counts.get(signIn.spec.role) ?? 0) + 1);
      }
      return counts;
    },
    watches() {
      const followed = { tkasignins: watch, serviceaccounts: accounts, clusterrolebindings: bindings };
      return new Map(
        watchedResources.map((resource) => {
          const copy = followed[resource];
          return [resource, { connected: copy.problem() === undefined, silentMs: copy.silentMs() }];
        }),
      );
    },
    queue: () => queue?.counts(),
    async stop() {
      stopping.abort();
      events.stop();
      for (const copy of Object.values(copies)) copy.stop();
      await candidate.stop();
      kube.close();
    },
  };
}
