// Which ClusterRoles there are.
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { paths } from './objects.ts';

// How long a ClusterRole that was there counts as there.
const keepMs = 30_000;

/** Remembers the roles that were there a moment ago, which most sign-ins ask for. */
export class KnownRoles {
  readonly #kube: Kube;
  readonly #seenAt = new Map<string, number>();

  constructor(kube: Kube) {
    this.#kube = kube;
  }

  /** Returns whether there is a ClusterRole of this name; true where the server may not read it. Throws a KubeError. */
  async has(role: string): Promise<boolean> {
    const now = performance.now();
    for (const [known, at] of this.#seenAt) if (now - at > keepMs) this.#seenAt.delete(known);
    if (this.#seenAt.has(role)) return true;
    try {
      if ((await this.#kube.get(paths.roles(role))) === undefined) return false;
      this.#seenAt.set(role, now);
      return true;
    } catch (error) {
      if (isStatus(error, 404)) return false;
      // Whether it is there, the server learns when it binds the role.
      if (isStatus(error, 403)) return true;
      throw error;
    }
  }
}
