// Copies of collections that follow the cluster: listed once, then watched. What this process writes is in them at once.
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

/** What a watch is given. */
export interface WatchOptions<T> {
  readonly kube: Kube;
  readonly log: Log;
  /** Called for every change; without an object, it is gone. Must not throw. */
  readonly onChange: (name: string, object: T | undefined) => void;
  /** Called whenever the watch broke, before it is taken up again. */
  readonly onBroken?: (() => void) | undefined;
}

interface Collection<T> {
  readonly path: string;
  /** In a log: `sign-ins`. */
  readonly what: string;
  /** What to do where the API server refuses with this status. */
  readonly hints: Readonly<Record<number, string>>;
  /** Returns an object as it is kept; undefined: it is not. */
  readonly keep: (object: T) => T | undefined;
}

/** The objects as last heard of, by name. */
export interface Watched<T> {
  get(name: string): T | undefined;
  all(): Iterable<T>;
  /** Why the copy may be old; undefined while it follows the cluster. */
  problem(): string | undefined;
  /** Milliseconds since the API server last said something of it; since the start, if it never has. */
  silentMs(): number;
  /** Takes over an object that this process has just read or written, before the watch tells of it. */
  put(object: T): void;
  /** Forgets an object that this process has just deleted. */
  drop(object: T): void;
  stop(): void;
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;
// A watch that the server ends sooner is no better than one that fails.
const shortMs = 1_000;
// The watch is begun anew every 20 s.
const freshMs = 30_000;

/** Follows the sign-ins of a namespace. */
export const watchSignIns = (namespace: string, options: WatchOptions<TkaSignin>): Watched<TkaSignin> =>
  watchCollection(options, {
    path: paths.signIns(namespace),
    what: 'sign-ins',
    // The first thing that is forgotten when a server is set up.
    hints: { 404: 'is the CustomResourceDefinition of TkaSignin in this cluster?' },
    keep: withSpec,
  });

const rights = 'apply deploy/ again: it lets the server watch them';

/** Follows the ServiceAccounts of a namespace. */
export const watchAccounts = (namespace: string, options: WatchOptions<ServiceAccount>): Watched<ServiceAccount> =>
  watchCollection(options, {
    path: paths.accounts(namespace),
    what: 'ServiceAccounts',
    hints: { 403: rights },
    keep: (account) => account,
  });

/** Follows the ClusterRoleBindings that have the name of a sign-in's, of this namespace or another. */
export const watchBindings = (options: WatchOptions<ClusterRoleBinding>): Watched<ClusterRoleBinding> =>
  watchCollection(options, {
    path: paths.bindings(),
    what: 'ClusterRoleBindings',
    hints: { 403: rights },
    keep: (binding) => (signInOfBinding(binding.metadata.name) === undefined ? undefined : binding),
  });

/** Lists a collection and follows it until stopped, whatever happens to the connection. */
function watchCollection<T extends Named>(
  { kube, log, onChange, onBroken }: WatchOptions<T>,
  { path, what, hints, keep }: Collection<T>,
): Watched<T> {
  const stopping = new AbortController();
  const { signal } = stopping;
  const known = new Map<string, T>();
  // The version of the copy; undefined where it must be listed.
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
    version ??= await list();
    const events = await kube.watch<T>(path, version, signal);
    const opened = performance.now();
    confirm();
    for await (const { type, object } of events) {
      failures = 0;
      const old = known.get(object.metadata.name);
      // One that this process wrote later is in the copy already.
      const isOld = old !== undefined && isAfter(versionOf(old), versionOf(object));
      if (type !== 'BOOKMARK' && !isOld) set(object.metadata.name, type === 'DELETED' ? undefined : object);
      version = versionOf(object);
      confirm();
    }
    if (performance.now() - opened < shortMs) throw new KubeError('the API server ends the watch at once');
    confirm();
    failures = 0;
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        await follow();
      } catch (error) {
        if (signal.aborted) return;
        // Without a status, the connection broke: the copy is as good as it was.
        if (!isStatus(error, 429) && !(error instanceof KubeError && error.status === undefined)) version = undefined;
        // The server forgets old versions. That is no failure, unless it happens again and again.
        if (isStatus(error, 410) && failures++ === 0) continue;
        const ms = Math.min(firstRetryMs * 2 ** failures++, lastRetryMs);
        const hint = error instanceof KubeError ? hints[error.status ?? 0] : undefined;
        broken = `the watch on ${what} broke${hint === undefined ? '' : `; ${hint}`}`;
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
      return `the API server has told nothing of ${what} for ${Math.round(silentMs / 1000)} s`;
    },
    silentMs: () => performance.now() - Math.max(confirmedAt, startedAt),
    put(object) {
      const old = known.get(object.metadata.name);
      // What the watch has passed is in the copy, or was deleted since.
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
 * Says whether one version of a collection is later than another one: they are numbers that can be compared, as the API
 * server has them ("Resource Version semantics" in its documentation). False for any other text.
 */
function isAfter(a: string, b: string): boolean {
  if (!/^[1-9]\d*$/.test(a) || !/^\d+$/.test(b)) return false;
  return a.length === b.length ? a > b : a.length > b.length;
}

// Which program wrote which field is half of an object, and of no use here.
function slim<T extends Named>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata as Metadata & { managedFields?: unknown };
  return { ...object, metadata };
}
