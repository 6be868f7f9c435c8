// Leader election by a coordination.k8s.io Lease, as client-go's leaderelection package keeps it, so that our replicas
// and Go operators stand in one line.
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { type Metadata, paths } from './objects.ts';

/** The Go operator's name for it. */
export const leaseName = 'controller.tka.specht-labs.de';

// The Go operator stands as `HOST_UUID`, and no host's name has a slash.
const mark = 'tka-server/';

/**
 * How long a holder that runs goes without renewing, in milliseconds. client-go's RetryPeriod, which the Go operator keeps,
 * is 2 s: one that misses three renewals does not run.
 */
export const renewalMs = 6_000;

/** Returns the pod of a holder, from `POD_UUID` or `tka-server/POD_UUID`. */
export const podOf = (holder: string): string => holder.replace(/^.*\//, '').replace(/_[^_]*$/, '');

/** Returns whether a holder of the lease is a replica of this program, and not a Go operator. */
export const isOurs = (holder: string): boolean => holder.startsWith(mark);

/** client-go's defaults, in milliseconds. */
export interface LeaseTimes {
  /** How long the others wait after the last renewal they saw. Default 15 s. */
  readonly durationMs?: number;
  /** How long a leader goes on without being able to renew. Default 10 s. */
  readonly renewDeadlineMs?: number;
  /** How often it is tried. Default 2 s. */
  readonly retryMs?: number;
}

/** What an election is given. */
export interface LeaseOptions extends LeaseTimes {
  readonly kube: Kube;
  readonly namespace: string;
  /** Another for each process. */
  readonly identity: string;
  readonly log: Log;
  readonly onStarted: () => void;
  /** Called when leadership is lost or given up; what it guards must have ended when it resolves. */
  readonly onStopped: () => Promise<void>;
}

/** Who holds the lease: `tka-server/POD_UUID`, or `POD_UUID` for a Go operator. */
export interface LeaseHolder {
  readonly holder: string;
  readonly silentMs: number;
}

/** A candidate. */
export interface Candidate {
  leading(): boolean;
  /** The holder of the lease while it is a Go operator that runs, as of a few seconds ago; undefined otherwise. */
  goLeader(): string | undefined;
  /**
   * Returns the holder of the lease, as this candidate last saw it, and the milliseconds since the lease last changed; undefined
   * while there is none.
   */
  holder(): LeaseHolder | undefined;
  /** Leaves the election; the lease, if held, is given back for the next one to take at once. */
  stop(): Promise<void>;
}

/** A Lease, as far as it is looked into. */
export interface Lease {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Partial<Metadata>;
  readonly spec?: LeaseSpec;
}

interface LeaseSpec {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
}

// Kubernetes' MicroTime has six digits of a second, no more and no fewer.
export const microTime = (): string => new Date().toISOString().replace('Z', '000Z');

/** Stands for election until stopped. Throws nothing: what goes wrong is logged and tried again. */
export function standForElection(options: LeaseOptions): Candidate {
  const { kube, namespace, log, onStarted, onStopped } = options;
  const name = leaseName;
  const identity = `${mark}${options.identity}`;
  const { durationMs = 15_000, renewDeadlineMs = 10_000, retryMs = 2_000 } = options;
  const stopping = new AbortController();
  let leading = false;
  let ended: Promise<void> = Promise.resolve();
  let deadline: NodeJS.Timeout | undefined;
  // Others' clocks are not believed: what counts is when a change was seen here.
  let seen: { readonly version: string | undefined; readonly holder: string; readonly at: number } | undefined;

  function lose(reason: string): void {
    clearTimeout(deadline);
    if (!leading) return;
    leading = false;
    log.warn({ identity, reason }, 'stopped leading');
    ended = onStopped();
  }

  /** Counted from when it was asked for: an answer that was long on its way says nothing of now. */
  function renewed(lease: Lease, asked: number): void {
    const now = performance.now();
    seen = { version: lease.metadata.resourceVersion, holder: identity, at: now };
    clearTimeout(deadline);
    deadline = setTimeout(() => lose('the lease could not be renewed in time'), asked + renewDeadlineMs - now);
    if (leading) return;
    leading = true;
    log.info({ identity }, 'started leading');
    onStarted();
  }

  const spec = (old: LeaseSpec | undefined): LeaseSpec => {
    const now = microTime();
    const isMine = old?.holderIdentity === identity;
    return {
      ...old,
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.floor(durationMs / 1000)),
      acquireTime: (isMine ? old.acquireTime : undefined) ?? now,
      renewTime: now,
      leaseTransitions: old === undefined ? 0 : (old.leaseTransitions ?? 0) + (isMine ? 0 : 1),
    };
  };

  /** Takes the lease, or renews it; false when somebody else holds it. */
  async function tryOnce(): Promise<boolean> {
    const old = await kube.get<Lease>(paths.leases(namespace, name));
    if (stopping.signal.aborted) return false;
    const asked = performance.now();
    if (old === undefined) {
      const fresh = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec: spec(undefined) };
      renewed(await kube.create<Lease>(paths.leases(namespace), fresh), asked);
      return true;
    }
    const version = old.metadata.resourceVersion;
    const { holderIdentity = '', leaseDurationSeconds } = old.spec ?? {};
    const last =
      seen !== undefined && seen.version === version
        ? seen
        : { version, holder: holderIdentity, at: performance.now() };
    seen = last;
    if (holderIdentity !== '' && holderIdentity !== identity) {
      lose(`the lease is held by ${holderIdentity}`);
      if (performance.now() - last.at < (leaseDurationSeconds ?? durationMs / 1000) * 1000) return false;
    }
    renewed(await kube.replace<Lease>(paths.leases(namespace, name), { ...old, spec: spec(old.spec) }), asked);
    return true;
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await tryOnce();
      } catch (error) {
        // A conflict: somebody else was faster.
        if (!stopping.signal.aborted && !isStatus(error, 409))
          log.warn({ err: error }, 'could not acquire the leader lease');
      }
      if (!leading) await ended;
      const jitter = leading ? 1 : 1 + Math.random() * 0.2;
      await delay(retryMs * jitter, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }
  const running = run();

  async function release(): Promise<void> {
    const old = await kube.get<Lease>(paths.leases(namespace, name));
    if (old?.spec?.holderIdentity !== identity) return;
    const now = microTime();
    const { leaseTransitions = 0 } = old.spec;
    const empty = { holderIdentity: '', leaseDurationSeconds: 1, acquireTime: now, renewTime: now, leaseTransitions };
    await kube.replace(paths.leases(namespace, name), { ...old, spec: empty });
  }

  return {
    leading: () => leading,
    goLeader() {
      if (seen === undefined || seen.holder === '' || isOurs(seen.holder)) return undefined;
      return performance.now() - seen.at < renewalMs ? seen.holder : undefined;
    },
    holder() {
      if (seen === undefined || seen.holder === '') return undefined;
      return { holder: seen.holder, silentMs: performance.now() - seen.at };
    },
    async stop() {
      stopping.abort();
      await running;
      clearTimeout(deadline);
      const wasLeading = leading;
      leading = false;
      if (wasLeading) ended = onStopped();
      await ended;
      if (!wasLeading) return;
      // Whoever cannot be told waits for the lease to run out.
      await release().catch((error: unknown) => log.warn({ err: error }, 'could not release the leader lease'));
    },
  };
}
