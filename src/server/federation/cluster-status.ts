// The status of TkaClusters. Each replica of the login server writes what it knows, and seldom: see the limits below.
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import type { ObjectEvents } from '../provisioner/events.ts';
import type { Condition } from '../provisioner/objects.ts';
import { WorkQueue } from '../provisioner/queue.ts';
import { rfc3339 } from '../provisioner/sign-in.ts';
import type { Conflict } from './conflicts.ts';
import type { ClusterStatement } from './contract.ts';
import {
  apiVersion,
  endpointLimit,
  federationPaths,
  rightsHint,
  type TkaCluster,
  type TkaClusterStatus,
} from './objects.ts';

/** What this replica knows about a cluster. */
export interface Seen {
  readonly connected: boolean;
  /** Unix time in milliseconds; undefined if the cluster has never been connected to this replica. */
  readonly lastSeen: number | undefined;
  /** What the cluster has said about itself since the last written status. */
  readonly news: ClusterStatement | undefined;
  readonly conflict: Conflict | undefined;
}

/** Times in milliseconds. The defaults are for operation. */
export interface StatusTimes {
  /** Between two writes of this replica for one cluster. Default: 5 s. */
  readonly pauseMs?: number;
  /** How old `lastSeen` may become while the cluster is connected. Default: 60 s. */
  readonly refreshMs?: number;
  /** Between two looks at all clusters. Default: 15 s. */
  readonly lookMs?: number;
}

// Writes at the same time.
const concurrency = 4;

export interface StatusOptions {
  readonly kube: Kube;
  readonly log: Log;
  readonly events: ObjectEvents;
  /** The name of this replica. */
  readonly replica: string;
  /** Returns whether a replica of the login server runs. */
  readonly isAlive: (replica: string) => boolean;
  /** Returns the names of all clusters. */
  readonly names: () => Iterable<string>;
  /** Returns a cluster as the watch knows it, and what this replica has seen of it. */
  readonly facts: (name: string) => { readonly object: TkaCluster; readonly seen: Seen } | undefined;
  /** Called when these news are in the status; with the object if they had to be written. */
  readonly onCurrent: (name: string, news: ClusterStatement | undefined, written?: TkaCluster) => void;
  readonly times?: StatusTimes | undefined;
}

/** Writes the status of TkaClusters in the background. */
export class StatusWriter {
  readonly #options: StatusOptions;
  readonly #queue: WorkQueue;
  readonly #pauseMs: number;
  readonly #refreshMs: number;
  readonly #look: NodeJS.Timeout;
  // By cluster: when this replica last wrote (performance.now()), and what waits until it may write again.
  readonly #wroteAt = new Map<string, number>();
  readonly #waiting = new Map<string, NodeJS.Timeout>();
  #stopped = false;

  constructor(options: StatusOptions) {
    const { pauseMs = 5_000, refreshMs = 60_000, lookMs = 15_000 } = options.times ?? {};
    this.#options = options;
    this.#pauseMs = pauseMs;
    // The replicas must not write at the same time.
    this.#refreshMs = refreshMs * (1 - 0.2 * Math.random());
    this.#queue = new WorkQueue({
      work: (name) => this.#write(name),
      onError: (...args) => this.#failed(...args),
      concurrency,
    });
    this.#look = setInterval(
      () => {
        for (const name of options.names()) this.add(name);
      },
      lookMs * (1 - 0.2 * Math.random()),
    );
    this.#look.unref();
  }

  /** Looks at a cluster, and writes its status if it has changed. */
  add(name: string): void {
    if (!this.#waiting.has(name)) this.#queue.add(name);
  }

  /** Forgets a cluster that is gone. */
  forget(name: string): void {
    clearTimeout(this.#waiting.get(name));
    this.#waiting.delete(name);
    this.#wroteAt.delete(name);
  }

  /** Stops. Writes nothing more: the other replicas, or the next one, notice that this one is gone. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#look);
    for (const timer of this.#waiting.values()) clearTimeout(timer);
    this.#waiting.clear();
    await this.#queue.stop();
  }

  async #write(name: string): Promise<void> {
    const { kube, log, events, replica, isAlive, facts, onCurrent } = this.#options;
    const known = facts(name);
    if (known === undefined || this.#stopped) return;
    const { object, seen } = known;
    const next = nextStatus(object, seen, { replica, isAlive, now: Date.now(), refreshMs: this.#refreshMs });
    if (next === undefined) {
      onCurrent(name, seen.news);
      return;
    }
    const pauseMs = (this.#wroteAt.get(name) ?? Number.NEGATIVE_INFINITY) + this.#pauseMs - performance.now();
    if (pauseMs > 0) {
      this.#later(name, pauseMs);
      return;
    }
    const { resourceVersion } = object.metadata;
    let written: TkaCluster;
    try {
      const patch = { metadata: { resourceVersion }, status: next };
      written = await kube.patch<TkaCluster>(`${federationPaths.clusters(name)}/status`, patch);
    } catch (error) {
      if (isStatus(error, 404)) return;
      throw error;
    }
    this.#wroteAt.set(name, performance.now());
    onCurrent(name, seen.news, written);
    for (const told of changesOf(object.status?.conditions ?? [], next.conditions ?? [])) {
      log[told.type === 'Warning' ? 'warn' : 'info']({ name, why: told.note }, `cluster: ${told.reason}`);
      events.tell({ apiVersion, kind: 'TkaCluster', metadata: written.metadata }, told);
    }
  }

  #later(name: string, ms: number): void {
    clearTimeout(this.#waiting.get(name));
    const timer = setTimeout(() => {
      this.#waiting.delete(name);
      this.#queue.add(name);
    }, ms);
    timer.unref();
    this.#waiting.set(name, timer);
  }

  #failed(name: string, error: unknown): void {
    if (this.#stopped) return;
    const { log } = this.#options;
    // 409: another replica was faster. The queue tries again.
    if (isStatus(error, 409)) log.debug({ err: error, name }, 'the TkaCluster has changed');
    else log.warn({ err: error, name, hints: rightsHint(error) }, 'could not write the status of a TkaCluster');
  }
}

interface Circumstances {
  readonly replica: string;
  readonly isAlive: (replica: string) => boolean;
  /** Unix time in milliseconds. */
  readonly now: number;
  readonly refreshMs: number;
}

/**
 * Returns the status to write, or undefined if the current one is right. All replicas come to the same result from the
 * same object, except for their own entry: they must not write against each other.
 */
export function nextStatus(
  { metadata, spec, status = {} }: TkaCluster,
  { connected, lastSeen, news, conflict }: Seen,
  { replica, isAlive, now, refreshMs }: Circumstances,
): TkaClusterStatus | undefined {
  const mine = status.replicas?.find(({ name }) => name === replica);
  const others = (status.replicas ?? []).filter(({ name }) => name !== replica && isAlive(name));
  const isDue = connected && !(now - Date.parse(status.lastSeen ?? '') < refreshMs);
  const isOther = connected !== (mine?.connected ?? false);
  const seenAt = lastSeen === undefined ? undefined : rfc3339(Math.min(lastSeen, now));
  const entry =
    isDue || isOther ? { name: replica, connected, ...(seenAt !== undefined && { lastSeen: seenAt }) } : mine;
  const isConnected = connected || others.some((other) => other.connected);
  const latest = isDue || isOther ? later(status.lastSeen, seenAt) : status.lastSeen;
  const version = news?.version ?? status.version;
  const endpoint = news?.apiEndpoint.slice(0, endpointLimit) ?? status.endpoint;
  const next: TkaClusterStatus = {
    connected: isConnected,
    ...(latest !== undefined && { lastSeen: latest }),
    ...(version !== undefined && { version }),
    ...(endpoint !== undefined && { endpoint }),
    replicas: [...others, ...(entry === undefined ? [] : [entry])].sort((a, b) => (a.name < b.name ? -1 : 1)),
    conditions: conditionsOf(metadata.generation, status.conditions ?? [], rfc3339(now), {
      Connected: isConnected
        ? { status: 'True', reason: 'TunnelOpen', message: 'a tunnel to the cluster is open' }
        : { status: 'False', reason: 'NoTunnel', message: 'the cluster has no tunnel to the login server' },
      Conflict:
        conflict === undefined
          ? { status: 'False', reason: 'NoConflict', message: 'name and API endpoint are its own' }
          : { status: 'True', ...conflict },
      Suspended:
        spec.suspended === true
          ? { status: 'True', reason: 'BySpec', message: 'spec.suspended stops sign-ins' }
          : { status: 'False', reason: 'BySpec', message: 'sign-ins are possible' },
    }),
  };
  return textOf(next) === textOf(status) ? undefined : next;
}

type Judgement = Pick<Condition, 'status' | 'reason' | 'message'>;

function conditionsOf(
  generation: number | undefined,
  old: readonly Condition[],
  now: string,
  judged: Readonly<Record<string, Judgement>>,
): readonly Condition[] {
  const rest = old.filter(({ type }) => !Object.hasOwn(judged, type));
  const ours = Object.entries(judged).map(([type, { status, reason, message }]) => {
    const before = old.find((condition) => condition.type === type);
    const lastTransitionTime = before?.status === status ? before.lastTransitionTime : now;
    const observed = generation !== undefined && { observedGeneration: generation };
    return { type, status, reason, message: message.slice(0, 1_000), lastTransitionTime, ...observed };
  });
  return [...rest, ...ours];
}

const later = (a: string | undefined, b: string | undefined): string | undefined =>
  a === undefined || (b !== undefined && Date.parse(b) > Date.parse(a)) ? b : a;

/** Returns a text that is the same for equal statuses, whatever the order of their fields. */
function textOf(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

const transitions: Readonly<Record<string, readonly [on: string, off: string]>> = {
  Conflict: ['Conflict', 'ConflictResolved'],
  Suspended: ['Suspended', 'Resumed'],
};

/** Returns what to tell about conditions that have changed. The replica whose write succeeds tells it. */
function changesOf(before: readonly Condition[], after: readonly Condition[]) {
  return after.flatMap(({ type, status, message }) => {
    const [on, off] = transitions[type] ?? [];
    const was = before.find((condition) => condition.type === type)?.status ?? 'False';
    if (on === undefined || off === undefined || was === status) return [];
    const reason = status === 'True' ? on : off;
    const kind = reason === 'Conflict' ? ('Warning' as const) : ('Normal' as const);
    return [{ type: kind, reason, action: 'JudgeCluster', note: message }];
  });
}
