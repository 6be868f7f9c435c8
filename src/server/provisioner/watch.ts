// A copy of the namespace's sign-ins that follows the cluster: listed once, then watched.
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../log.ts';
import { isStatus, type Kube, KubeError } from './kube.ts';
import { paths, type TkaSignin, withSpec } from './objects.ts';

/** What it is given. */
export interface WatchOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly log: Log;
  /** Called for every change; without a sign-in, it is gone. Must not throw. */
  readonly onChange: (name: string, signIn: TkaSignin | undefined) => void;
  /** Called whenever the watch broke, before it is taken up again. */
  readonly onBroken?: (() => void) | undefined;
}

/** The sign-ins as last heard of, by name. */
export interface SignInWatch {
  get(name: string): TkaSignin | undefined;
  all(): Iterable<TkaSignin>;
  /** Why the copy may be old; undefined while it follows the cluster. */
  problem(): string | undefined;
  /** Milliseconds since the API server last confirmed the copy; Infinity before the first list. */
  age(): number;
  /** Resolves to true as soon as the sign-in of this name passes, to false after `ms`, or when stopped. */
  wait(name: string, passes: (signIn: TkaSignin | undefined) => boolean, ms: number): Promise<boolean>;
  stop(): void;
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;
// A watch that the server ends sooner is no better than one that fails.
const shortMs = 1_000;
// The watch is begun anew every 20 s.
const freshMs = 30_000;

/** Lists the sign-ins and follows them until stopped, whatever happens to the connection. */
export function watchSignIns({ kube, namespace, log, onChange, onBroken }: WatchOptions): SignInWatch {
  const path = paths.signIns(namespace);
  const stopping = new AbortController();
  const { signal } = stopping;
  const known = new Map<string, TkaSignin>();
  const waiting = new Map<string, Set<() => void>>();
  // The version of the copy; undefined where it must be listed.
  let version: string | undefined;
  let confirmedAt = Number.NEGATIVE_INFINITY;
  let broken: string | undefined = 'the API server has not answered yet';
  let failures = 0;

  const confirm = (): void => {
    confirmedAt = performance.now();
    broken = undefined;
  };

  function set(name: string, signIn: TkaSignin | undefined): void {
    if (signIn === undefined ? !known.has(name) : known.get(name)?.metadata.resourceVersion === versionOf(signIn))
      return;
    const seen = signIn && slim(signIn);
    if (seen === undefined) known.delete(name);
    else known.set(name, seen);
    onChange(name, seen);
    for (const look of waiting.get(name) ?? []) look();
  }

  async function list(): Promise<string> {
    const gone = new Set(known.keys());
    const pages = kube.list<TkaSignin>(path);
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
    const events = await kube.watch<TkaSignin>(path, version, signal);
    const opened = performance.now();
    confirm();
    for await (const { type, object } of events) {
      failures = 0;
      if (type !== 'BOOKMARK') set(object.metadata.name, type === 'DELETED' ? undefined : object);
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
        // The first thing that is forgotten when a server is set up.
        const hint = isStatus(error, 404) ? '; is the CustomResourceDefinition of TkaSignin in this cluster?' : '';
        broken = `the watch on sign-ins broke${hint}`;
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
    age: () => performance.now() - confirmedAt,
    problem() {
      const silentMs = performance.now() - confirmedAt;
      if (broken !== undefined || silentMs <= freshMs) return broken;
      return `the API server has told nothing of sign-ins for ${Math.round(silentMs / 1000)} s`;
    },
    wait(name, passes, ms) {
      if (passes(known.get(name))) return Promise.resolve(true);
      if (signal.aborted) return Promise.resolve(false);
      return new Promise((resolve) => {
        const looks = waiting.get(name) ?? new Set();
        waiting.set(name, looks.add(look));
        const timer = setTimeout(() => end(false), ms);
        function look(): void {
          if (passes(known.get(name))) end(true);
          else if (signal.aborted) end(false);
        }
        function end(passed: boolean): void {
          clearTimeout(timer);
          looks.delete(look);
          if (looks.size === 0 && waiting.get(name) === looks) waiting.delete(name);
          resolve(passed);
        }
      });
    },
    stop() {
      stopping.abort();
      for (const looks of waiting.values()) for (const look of looks) look();
    },
  };
}

const versionOf = ({ metadata }: TkaSignin): string => metadata.resourceVersion;

// Who wrote which field is half of an object, and of no use here.
function slim(signIn: TkaSignin): TkaSignin {
  const { managedFields: _, ...metadata } = signIn.metadata as TkaSignin['metadata'] & { managedFields?: unknown };
  return withSpec({ ...signIn, metadata });
}
