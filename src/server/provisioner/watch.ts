// Copies of collections, listed once and then watched. Writes of this process are in the copies at once.
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus, KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import {
  type ClusterRoleBinding,
  type Metadata,
  paths,
  type ServiceAccount,
  signInOfBinding,
  type TkaSignin,
  withSpec,
} from './objects.ts';

interface Named {
  readonly metadata: Metadata;
}

export interface WatchOptions<T> {
  readonly kube: Kube;
  readonly log: Log;
  /** Called for every change; `object` is undefined if it is gone. Must not throw. */
  readonly onChange: (name: string, object: T | undefined) => void;
  /** Called whenever the watch breaks, before it is restarted. */
  readonly onBroken?: (() => void) | undefined;
  /** Called when all objects have been listed: at the start, and again after some failures. Must not throw. */
  readonly onListed?: (() => void) | undefined;
}

export interface Collection<T> {
  readonly path: string;
  /** Name in the log: `sign-ins`. */
  readonly what: string;
  /** What to do if the API server refuses with this status. */
  readonly hints: Readonly<Record<number, string>>;
  /** Returns the object as the copy keeps it, or undefined to leave it out. */
  readonly keep: (object: T) => T | undefined;
}

/** A copy of a collection, by name. */
export interface Watched<T> {
  get(name: string): T | undefined;
  all(): Iterable<T>;
  /** Returns why the copy may be old, or undefined while it follows the cluster. */
  problem(): string | undefined;
  /** Returns the milliseconds since the API server last reported anything for this watch, or since the start. */
  silentMs(): number;
  /** Stores an object that this process has just read or written, before the watch reports it. */
  put(object: T): void;
  /** Removes an object that this process has just deleted. */
  drop(object: T): void;
  stop(): void;
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;
// A watch that the API server ends sooner than this counts as a failure.
const shortMs = 1_000;
// Must be longer than a watch lasts (20 s).
const freshMs = 30_000;

/** Watches the sign-ins of a namespace. */
export const watchSignIns = (namespace: string, options: WatchOptions<TkaSignin>): Watched<TkaSignin> =>
  watchCollection(options, {
    path: paths.signIns(namespace),
    what: 'sign-ins',
    // The most common omission in a new installation.
    hints: { 404: 'check that the CustomResourceDefinition of TkaSignin is installed' },
    keep: withSpec,
  });

const rights = 'apply deploy/ again: it allows the server to watch them';

/** Watches the ServiceAccounts of a namespace. */
export const watchAccounts = (namespace: string, options: WatchOptions<ServiceAccount>): Watched<ServiceAccount> =>
  watchCollection(options, {
    path: paths.accounts(namespace),
    what: 'ServiceAccounts',
    hints: { 403: rights },
    keep: (account) => account,
  });

/** Watches the ClusterRoleBindings that have the name of a sign-in's binding, for any namespace. */
export const watchBindings = (options: WatchOptions<ClusterRoleBinding>): Watched<ClusterRoleBinding> =>
  watchCollection(options, {
    path: paths.bindings(),
    what: 'ClusterRoleBindings',
    hints: { 403: rights },
    keep: (binding) => (signInOfBinding(binding.metadata.name) === undefined ? undefined : binding),
  });

/** Lists a collection and watches it until stopped. Restarts the watch after every failure. */
export function watchCollection<T extends Named>(
  { kube, log, onChange, onBroken, onListed }: WatchOptions<T>,
  { path, what, hints, keep }: Collection<T>,
): Watched<T> {
  const stopping = new AbortController();
  const { signal } = stopping;
  const known = new Map<string, T>();
  // Resource version of the copy; undefined if the collection must be listed.
  let version: string | undefined;
  const startedAt = performance.now();
  let confirmedAt = Number.NEGATIVE_INFINITY;
  let broken: string | undefined = 'the API server has not answered yet';
  let failures = 0;

  const confirm = (): void => {
    confirmedAt = performance.now();
    broken = undefined;
  };

  function set(name: string, object: T | undefined): void {
    const kept = object && keep(object);
    const old = known.get(name);
    if (kept === undefined ? old === undefined : old !== undefined && versionOf(old) === versionOf(kept)) return;
    const seen = kept && slim(kept);
    if (seen === undefined) known.delete(name);
    else known.set(name, seen);
    onChange(name, seen);
  }

  async function list(): Promise<string> {
    const gone = new Set(known.keys());
    const pages = kube.list<T>(path);
    let page = await pages.next();
    for (; !page.done; page = await pages.next()) {
      gone.delete(page.value.metadata.name);
      set(page.value.metadata.name, page.value);
    }
    for (const name of gone) set(name, undefined);
    return page.value;
  }

  async function follow(): Promise<void> {
    if (version === undefined) {
      version = await list();
      onListed?.();
    }
    const events = await kube.watch<T>(path, version, signal);
    const opened = performance.now();
    confirm();
    for await (const { type, object } of events) {
      failures = 0;
      const old = known.get(object.metadata.name);
      // The copy already has a later version, which this process wrote.
      const isOld = old !== undefined && isAfter(versionOf(old), versionOf(object));
      if (type !== 'BOOKMARK' && !isOld) set(object.metadata.name, type === 'DELETED' ? undefined : object);
      version = versionOf(object);
      confirm();
    }
    if (performance.now() - opened < shortMs) throw new KubeError('the API server closes the watch immediately');
    confirm();
    failures = 0;
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        await follow();
      } catch (error) {
        if (signal.aborted) return;
        // A broken connection (no status) or a 429 does not make the copy wrong. After other errors, list again.
        if (!isStatus(error, 429) && !(error instanceof KubeError && error.status === undefined)) version = undefined;
        // 410: the API server has dropped this version. That is normal once, but a failure if it repeats.
        if (isStatus(error, 410) && failures++ === 0) continue;
        const ms = Math.min(firstRetryMs * 2 ** failures++, lastRetryMs);
        const hint = error instanceof KubeError ? hints[error.status ?? 0] : undefined;
        broken = `the watch on ${what} failed${hint === undefined ? '' : `; ${hint}`}`;
        onBroken?.();
        log.warn({ err: error, retryMs: ms }, broken);
        if (error instanceof Error) broken += `: ${error.message}`;
        await delay(ms, undefined, { signal }).catch(() => undefined);
      }
    }
  }
  void run();

  return {
    get: (name) => known.get(name),
    all: () => known.values(),
    problem() {
      const silentMs = performance.now() - confirmedAt;
      if (broken !== undefined || silentMs <= freshMs) return broken;
      return `the API server has not reported on ${what} for ${Math.round(silentMs / 1000)} s`;
    },
    silentMs: () => performance.now() - Math.max(confirmedAt, startedAt),
    put(object) {
      const old = known.get(object.metadata.name);
      // Ignore versions that the watch has passed: the copy has them, or the object was deleted since.
      if (version === undefined || !isAfter(versionOf(object), version)) return;
      if (old === undefined || !isAfter(versionOf(old), versionOf(object))) set(object.metadata.name, object);
    },
    drop({ metadata: { name, uid } }) {
      if (known.get(name)?.metadata.uid === uid) set(name, undefined);
    },
    stop: () => stopping.abort(),
  };
}

const versionOf = ({ metadata }: Named): string => metadata.resourceVersion;

/**
 * Returns whether resource version `a` is later than `b`. Resource versions are decimal numbers that can be compared
 * ("Resource Version semantics" in the Kubernetes documentation). Returns false for any other text.
 */
function isAfter(a: string, b: string): boolean {
  if (!/^[1-9]\d*$/.test(a) || !/^\d+$/.test(b)) return false;
  return a.length === b.length ? a > b : a.length > b.length;
}

// `managedFields` is half of an object and not used here.
function slim<T extends Named>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata as Metadata & { managedFields?: unknown };
  return { ...object, metadata };
}
