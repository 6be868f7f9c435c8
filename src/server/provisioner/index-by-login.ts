// An index of sign-ins by login. It follows the watch; deletions by this replica are in it at once.
import type { TkaSignin } from './objects.ts';
import { loginOf } from './sign-in.ts';

// The API server caches token checks for 10 s, so a token still works that long after its ServiceAccount is gone.
const tokenCacheMs = 15_000;

/** The sign-ins of each login, and the recent roles of each name. */
export class IndexByLogin {
  readonly #signIns = new Map<string, TkaSignin>();
  readonly #names = new Map<string, Set<string>>();
  readonly #lately = new Map<string, { readonly role: string; readonly at: number }>();

  /** Stores the current state of a sign-in; undefined means that it is gone. */
  set(name: string, signIn: TkaSignin | undefined): void {
    const old = this.#signIns.get(name);
    const [before, now] = [old && loginOf(old), signIn && loginOf(signIn)];
    if (signIn === undefined) this.#signIns.delete(name);
    else this.#signIns.set(name, signIn);
    if (old !== undefined && old.spec.role !== signIn?.spec.role) this.#remember(name, old.spec.role);
    if (before === now) return;
    if (before !== undefined) {
      const names = this.#names.get(before);
      names?.delete(name);
      if (names?.size === 0) this.#names.delete(before);
    }
    if (now !== undefined) this.#names.set(now, (this.#names.get(now) ?? new Set()).add(name));
  }

  /** Records a sign-in that this replica deleted, before the watch reports it. */
  ended({ metadata, spec }: TkaSignin): void {
    const known = this.#signIns.get(metadata.name);
    if (known?.metadata.uid === metadata.uid) this.set(metadata.name, undefined);
    this.#remember(metadata.name, spec.role);
  }

  /** Returns the sign-ins that state this login. */
  of(login: string): TkaSignin[] {
    return [...(this.#names.get(login) ?? [])].flatMap((name) => this.#signIns.get(name) ?? []);
  }

  /**
   * Returns whether a name had another role a moment ago. A token from that time still works and names the
   * ServiceAccount by its name, so it would get the new role.
   */
  hadOtherRole(name: string, role: string): boolean {
    const last = this.#lately.get(name);
    return last !== undefined && last.role !== role && performance.now() - last.at < tokenCacheMs;
  }

  #remember(name: string, role: string): void {
    const at = performance.now();
    // Entries are sorted by time, oldest first.
    for (const [old, last] of this.#lately) {
      if (at - last.at < tokenCacheMs) break;
      this.#lately.delete(old);
    }
    this.#lately.delete(name);
    this.#lately.set(name, { role, at });
  }
}
