// Leader election with a coordination.k8s.io Lease, compatible with client-go's leaderelection package: our replicas
// and Go operators compete for the same lease.
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { type Metadata, paths } from './objects.ts';

/** The Go operator uses the same name. */
export const leaseName = 'controller.tka.specht-labs.de';

// A Go operator's identity is `HOST_UUID`, and host names contain no slash.
const mark = 'tka-server/';

/**
 * The longest time between renewals of a running holder, in milliseconds. client-go's RetryPeriod, which the Go
 * operator uses, is 2 s. A holder that misses three renewals is not running.
 */
export const renewalMs = 6_000;

/** Returns the pod of a holder from `POD_UUID` or `tka-server/POD_UUID`. */
export const podOf = (holder: string): string => holder.replace(/^.*\//, '').replace(/_[^_]*$/, '');

/** Returns whether a holder is a replica of this program, not a Go operator. */
export const isOurs = (holder: string): boolean => holder.startsWith(mark);

/** Times in milliseconds. The defaults are client-go's. */
export interface LeaseTimes {
  /** How long other candidates wait after the last renewal they saw. Default 15 s. */
  readonly durationMs?: number;
  /** How long a leader continues without a successful renewal. Default 10 s. */
  readonly renewDeadlineMs?: number;
  /** Time between two attempts to acquire or renew. Default 2 s. */
  readonly retryMs?: number;
}

export interface LeaseOptions extends LeaseTimes {
  readonly kube: Kube;
  readonly namespace: string;
  /** Unique for each process. */
  readonly identity: string;
  readonly log: Log;
  readonly onStarted: () => void;
  /** Called when leadership is lost or given up. Resolves when all work that needs leadership has ended. */
  readonly onStopped: () => Promise<void>;
}

/** The holder of the lease: `tka-server/POD_UUID`, or `POD_UUID` for a Go operator. */
export interface LeaseHolder {
  readonly holder: string;
  readonly silentMs: number;
}

export interface Candidate {
  leading(): boolean;
  /** Returns the holder if it is a running Go operator, as of a few seconds ago, or else undefined. */
  goLeader(): string | undefined;
  /**
   * Returns the holder as this candidate last saw it, with the milliseconds since the lease last changed. Returns
   * undefined if there is no holder.
   */
  holder(): LeaseHolder | undefined;
  /** Leaves the election. Releases the lease if it is held, so that another candidate can acquire it at once. */
  stop(): Promise<void>;
}

/** The fields of a Lease that are used here. */
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

// Kubernetes' MicroTime requires exactly six fractional digits.
export const microTime = (): string => new Date().toISOString().replace('Z', '000Z');

/** Takes part in the election until stopped. Never throws: it logs errors and retries. */
export function standForElection(options: LeaseOptions): Candidate {
  const { kube, namespace, log, onStarted, onStopped } = options;
  const name = leaseName;
  const identity = `${mark}${options.identity}`;
  const { durationMs = 15_000, renewDeadlineMs = 10_000, retryMs = 2_000 } = options;
  const stopping = new AbortController();
  let leading = false;
  let ended: Promise<void> = Promise.resolve();
  let deadline: NodeJS.Timeout | undefined;
  // Do not trust other clocks: use the local time at which a change was seen.
  let seen: { readonly version: string | undefined; readonly holder: string; readonly at: number } | undefined;

  function lose(reason: string): void {
    clearTimeout(deadline);
    if (!leading) return;
    leading = false;
    log.warn({ identity, reason }, 'stopped leading');
    ended = onStopped();
  }

  /** Records a renewal. Counts from the time of the request, because a slow answer says nothing about the present. */
  function renewed(lease: Lease, asked: number): void {
    const now = performance.now();
    seen = { version: lease.metadata.resourceVersion, holder: identity, at: now };
    clearTimeout(deadline);
    deadline = setTimeout(() => lose('could not renew the leader lease in time'), asked + renewDeadlineMs - now);
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

  /** Acquires or renews the lease. Returns false if another candidate holds it. */
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
        // 409: another candidate was faster.
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
      // Best effort: without the release, the others wait until the lease expires.
      await release().catch((error: unknown) => log.warn({ err: error }, 'could not release the leader lease'));
    },
  };
}
