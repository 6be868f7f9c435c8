// The running replicas of the login server: each renews a Lease in tka-federation.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { type Log, Seldom } from '../log/log.ts';
import { type Lease, microTime } from '../provisioner/lease.ts';
import type { Metadata } from '../provisioner/objects.ts';
import { federationPaths, rightsHint } from './objects.ts';

const mark = 'login-server.';

/** Times in milliseconds. */
export interface ReplicaTimes {
  /** Between two renewals. Default: 10 s. */
  readonly renewMs?: number;
  /** Without a renewal for this long, a replica does not run. Default: 30 s. */
  readonly aliveMs?: number;
}

export interface ReplicaOptions {
  readonly kube: Kube;
  readonly log: Log;
  readonly name: string;
  readonly times?: ReplicaTimes | undefined;
}

/** Returns a name for this replica, which no other one has: `tka-0-3f9c1a`. It is part of a DNS name. */
export function replicaName(host = hostname()): string {
  const readable = host
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 50)
    .replace(/^-+|-+$/g, '');
  return `${readable === '' ? 'tka' : readable}-${randomBytes(3).toString('hex')}`;
}

interface Sighting {
  readonly version: string;
  /** When this version was first seen (performance.now()). */
  readonly at: number;
  readonly isAlive: boolean;
}

// A Lease that was not renewed for this long is deleted: its replica had no time to do that.
const forgottenMs = 10 * 60_000;

/** Renews this replica's Lease, and counts those of the others. */
export class Replicas {
  readonly #options: ReplicaOptions;
  readonly #renewMs: number;
  readonly #aliveMs: number;
  readonly #stopping = new AbortController();
  readonly #warned = new Seldom(10);
  #others: ReadonlyMap<string, Sighting> | undefined;
  #exists = false;
  readonly #running: Promise<void>;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#renewMs = options.times?.renewMs ?? 10_000;
    this.#aliveMs = options.times?.aliveMs ?? 30_000;
    this.#running = this.#run();
  }

  get name(): string {
    return this.#options.name;
  }

  /** Returns the number of replicas that run, with this one. While the API server is away, nothing changes. */
  count(): number {
    return 1 + [...(this.#others?.values() ?? [])].filter(({ isAlive }) => isAlive).length;
  }

  /** Returns whether a replica runs, as far as this one knows. */
  isAlive(name: string): boolean {
    return name === this.name || this.#others === undefined || this.#others.get(name)?.isAlive === true;
  }

  /** Stops renewing, and deletes the Lease. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    if (!this.#exists) return;
    const { kube, log, name } = this.#options;
    // Best effort: without it, the others count this replica for another 30 s.
    try {
      const lease = await kube.get<Lease>(federationPaths.leases(mark + name));
      const { uid } = lease?.metadata ?? {};
      if (uid !== undefined) await kube.remove(federationPaths.leases(mark + name), { uid });
    } catch (error) {
      log.debug({ err: error }, 'could not delete the Lease of this replica');
    }
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.#renew();
        await this.#look();
      } catch (error) {
        if (signal.aborted) return;
        const why = error instanceof Error ? error.message : '';
        const level = this.#warned.is(why) ? 'warn' : 'debug';
        log[level]({ err: error, hints: rightsHint(error) }, 'could not renew the Lease of this replica');
      }
      await delay(this.#renewMs, undefined, { signal }).catch(() => undefined);
    }
  }

  async #renew(): Promise<void> {
    const { kube, name } = this.#options;
    const spec = {
      holderIdentity: name,
      leaseDurationSeconds: Math.max(1, Math.round(this.#aliveMs / 1000)),
      renewTime: microTime(),
    };
    const renew = () => kube.patch<Lease>(federationPaths.leases(mark + name), { spec });
    if (this.#exists) {
      try {
        await renew();
        return;
      } catch (error) {
        if (!isStatus(error, 404)) throw error;
        this.#exists = false;
      }
    }
    const metadata = { name: mark + name };
    const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata, spec };
    try {
      await kube.create<Lease>(federationPaths.leases(), lease);
    } catch (error) {
      if (!isStatus(error, 409)) throw error;
      // This replica created it, and the answer was lost: no other one has this name.
      await renew();
    }
    this.#exists = true;
  }

  async #look(): Promise<void> {
    const { kube, name: self } = this.#options;
    const now = performance.now();
    const others = new Map<string, Sighting>();
    for await (const { metadata, spec } of kube.list<Lease & { readonly metadata: Metadata }>(
      federationPaths.leases(),
    )) {
      if (!metadata.name.startsWith(mark)) continue;
      const name = metadata.name.slice(mark.length);
      if (name === self) continue;
      const version = metadata.resourceVersion;
      const before = this.#others?.get(name);
      const isNew = before?.version !== version;
      const at = isNew ? now : before.at;
      // Other clocks count only at the first sight: then, a Lease may have been left behind.
      const age = kube.now() - Date.parse(spec?.renewTime ?? '');
      const isAlive = before === undefined ? age < this.#aliveMs : isNew || now - at < this.#aliveMs;
      if (!isAlive && age > forgottenMs && now - at > this.#aliveMs) {
        await kube.remove(federationPaths.leases(metadata.name), { uid: metadata.uid, resourceVersion: version });
        continue;
      }
      others.set(name, { version, at, isAlive: isAlive && (before?.isAlive !== false || isNew) });
    }
    this.#others = others;
  }
}
