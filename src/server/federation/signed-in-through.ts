// The sign-ins of this cluster by the login server that they came through.
import type { Provisioner } from '../provisioner/provisioner.ts';

/** How long the names count as current, in milliseconds. */
const countMs = 1_000;

export class SignedInThrough {
  readonly #provisioner: Pick<Provisioner, 'leading' | 'overview' | 'endAllThrough'>;
  readonly #strayMs: number;
  /** When sign-ins were last looked for (performance.now()). */
  #usedAt = Number.NEGATIVE_INFINITY;
  /** The names of the sign-ins by login server, and when they were read (performance.now()). */
  #read: { readonly at: number; readonly byServer: ReadonlyMap<string, ReadonlySet<string>> } = {
    at: Number.NEGATIVE_INFINITY,
    byServer: new Map(),
  };

  /** `strayMs` is the time between two searches of `used`, in milliseconds. */
  constructor(provisioner: Pick<Provisioner, 'leading' | 'overview' | 'endAllThrough'>, strayMs: number) {
    this.#provisioner = provisioner;
    this.#strayMs = strayMs;
  }

  /** Returns the names of the sign-ins through a login server that have not ended, as of at most a second ago. */
  names(loginServer: string): ReadonlySet<string> {
    if (performance.now() - this.#read.at >= countMs) {
      const live = this.#provisioner.overview().filter(({ state }) => state !== 'ending');
      const byServer = Map.groupBy(live, (signIn) => signIn.loginServer ?? '');
      const named = [...byServer].map(([server, found]) => [server, new Set(found.map(({ name }) => name))] as const);
      this.#read = { at: performance.now(), byServer: new Map(named) };
    }
    return this.#read.byServer.get(loginServer) ?? new Set();
  }

  /** Returns the login servers that sign-ins came through: on the leader and from time to time, else none. */
  used(): ReadonlySet<string> {
    if (!this.#provisioner.leading() || performance.now() - this.#usedAt < this.#strayMs) return new Set();
    this.#usedAt = performance.now();
    const all = this.#provisioner.overview().map(({ loginServer }) => loginServer);
    return new Set(all.filter((name) => name !== undefined));
  }

  /**
   * Ends the sign-ins through these login servers, except that of `primary`, to which the cluster is joined. Usually there
   * are none: this replaces what a process could not finish. Throws a KubeError.
   */
  async end(used: ReadonlySet<string>, primary: string | undefined): Promise<void> {
    for (const one of used) if (one !== primary) await this.#provisioner.endAllThrough(one);
  }
}
