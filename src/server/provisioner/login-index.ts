/** Which objects state which login, by name: there may be several of one. */
export class LoginIndex {
  readonly #names = new Map<string, Set<string>>();
  readonly #logins = new Map<string, string>();

  /** Takes over what an object states now; undefined: nothing, or it is gone. */
  set(name: string, login: string | undefined): void {
    const old = this.#logins.get(name);
    if (old === login) return;
    if (old !== undefined) {
      const names = this.#names.get(old);
      names?.delete(name);
      if (names?.size === 0) this.#names.delete(old);
      this.#logins.delete(name);
    }
    if (login === undefined) return;
    this.#logins.set(name, login);
    this.#names.set(login, (this.#names.get(login) ?? new Set()).add(name));
  }

  names(login: string): Iterable<string> {
    return this.#names.get(login) ?? [];
  }
}
