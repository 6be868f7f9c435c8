// Makes the cluster match the sign-ins. Every replica does this for the sign-ins that it takes, and the leader for all
// others. So several processes may work on one sign-in at the same time, and each may be suspended between any two
// calls. This is safe because:
//
// - An account and a binding state the UID of their sign-in. Each name has one account and one binding.
// - Every deletion names the UID of the object. UIDs are never reused, so a newer object of the same name is never
//   deleted.
// - A part of another sign-in is replaced only if the sign-in was read after the part: then the other sign-in is gone.
// - The status is written last, and only if the sign-in has not changed since it was read. The write fails if the
//   sign-in was deleted, demoted or extended meanwhile, and the parts made for it are removed again.
// - Nobody gets a token before the status is written, or from the account of another sign-in.
import { isStatus, KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { Blocked, foreignAccount, foreignBinding, refusedBy } from './blocked.ts';
import {
  bindingName,
  type ClusterRoleBinding,
  paths,
  type ServiceAccount,
  signInOfBinding,
  type TkaSignin,
  withSpec,
} from './objects.ts';
import {
  accountFor,
  bindingFor,
  binds,
  isWhole,
  labelPatch,
  loginPatch,
  ownerOfAccount,
  ownerOfBinding,
  type Parts,
} from './parts.ts';
import {
  conditionsOf,
  isLeaving,
  isOver,
  isSettled,
  loginOf,
  problemOf,
  problemPatch,
  statusOf,
  statusPatch,
  toldOf,
} from './sign-in.ts';
import type { Watched } from './watch.ts';

/** This replica's copies of the cluster's objects. */
export interface Copies {
  readonly signIns: Watched<TkaSignin>;
  readonly accounts: Watched<ServiceAccount>;
  readonly bindings: Watched<ClusterRoleBinding>;
}

export interface ReconcilerOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly log: Log;
  /** Saves reads. Default: read everything. */
  readonly copies?: Copies;
  /** Called for each ServiceAccount that is created or deleted. */
  readonly onAccount?: (what: 'created' | 'deleted') => void;
  /** Called for each sign-in that was deleted because it had expired. */
  readonly onExpired?: (signIn: TkaSignin) => void;
}

/** Something changed during the pass: repeat it. */
export class Stale extends Error {}

/** The result of a pass over a sign-in. */
export interface Reconciled {
  /** The sign-in as it is now; undefined if it is gone. */
  readonly signIn: TkaSignin | undefined;
  /** This pass provisioned a new sign-in, or extended one. */
  readonly isNew: boolean;
}

const nothing: Reconciled = { signIn: undefined, isNew: false };

const attempts = 5;

const isProvisioned = {
  status: 'True',
  reason: 'Provisioned',
  message: 'ServiceAccount and ClusterRoleBinding exist',
} as const;

/** Runs passes over single sign-ins. */
export class Reconciler {
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #log: Log;
  readonly #copies: Copies | undefined;
  readonly #onAccount: ReconcilerOptions['onAccount'];
  readonly #onExpired: ReconcilerOptions['onExpired'];

  constructor({ kube, namespace, log, copies, onAccount, onExpired }: ReconcilerOptions) {
    this.#kube = kube;
    this.#namespace = namespace;
    this.#log = log;
    this.#copies = copies;
    this.#onAccount = onAccount;
    this.#onExpired = onExpired;
  }

  /**
   * Provisions a sign-in that this replica has just written. Trusts the copies for its parts: if they are old, a call
   * is refused and everything is read again. Throws like `reconcile`.
   */
  async provide(signIn: TkaSignin): Promise<Reconciled> {
    const { name, uid } = signIn.metadata;
    const parts = this.known(name);
    const { account, binding } = parts ?? { account: undefined, binding: undefined };
    // A part of another sign-in must be read before the sign-in itself: see `reconcile`.
    const isOwn = account === undefined || ownerOfAccount(account) === uid;
    const isBound = binding === undefined || ownerOfBinding(binding, this.#namespace) === uid;
    if (parts === undefined || !isOwn || !isBound) return this.repair(name);
    try {
      return await this.#provisionOrTell(signIn, parts);
    } catch (error) {
      if (!(error instanceof Stale)) throw error;
      return this.repair(name);
    }
  }

  /**
   * Provisions the sign-in of this name, and retries if other processes change it meanwhile. Throws like `reconcile`.
   */
  async repair(name: string): Promise<Reconciled> {
    for (let left = attempts; ; left--) {
      try {
        return await this.reconcile(name);
      } catch (error) {
        if (left === 1 || !(error instanceof Stale)) throw error;
      }
    }
  }

  /**
   * Provisions the sign-in of this name, or removes the parts of a deleted one. Throws Stale if the pass must be
   * repeated, and Blocked if a person must act first.
   */
  async reconcile(name: string): Promise<Reconciled> {
    const kube = this.#kube;
    const signInPath = paths.signIns(this.#namespace, name);
    // Read the parts before the sign-in: parts of any other sign-in than the one read next then belong to a deleted
    // one.
    const parts = await this.read(name);
    const found = await kube.get<TkaSignin>(signInPath);
    const signIn = found && withSpec(found);
    // A finalizer may keep a deleted sign-in. Its access ended with the deletion.
    if (signIn === undefined || isLeaving(signIn)) {
      await this.#remove(name, parts, undefined);
      return nothing;
    }
    if (isOver(signIn, Date.now())) {
      // Delete only this version: a sign-in that is extended at this moment stays.
      const { uid, resourceVersion } = signIn.metadata;
      if (!(await kube.remove(signInPath, { uid, resourceVersion }))) throw new Stale('the sign-in has changed');
      const { username, role } = signIn.spec;
      this.#log.info({ name, ...toldOf(signIn), username, role }, 'sign-in has expired');
      this.#onExpired?.(signIn);
      await this.#remove(name, parts, undefined);
      return nothing;
    }
    return await this.#provisionOrTell(signIn, parts);
  }

  /** Provisions a sign-in, or writes the reason on it if that is impossible. */
  async #provisionOrTell(signIn: TkaSignin, parts: Parts): Promise<Reconciled> {
    try {
      return await this.#provision(signIn, parts);
    } catch (error) {
      const isRefused = error instanceof KubeError && isStatus(error, 400, 403, 422);
      const blocked = isRefused ? refusedBy(error) : error;
      if (blocked instanceof Blocked) await this.#tell(signIn, blocked);
      throw blocked;
    }
  }

  /** Removes the parts of a deleted sign-in. */
  async release(signIn: TkaSignin): Promise<void> {
    const { name, uid } = signIn.metadata;
    const known = this.known(name);
    // If the copies were old, some parts may be left: read them and try again.
    if (known !== undefined && isWhole(known, signIn, this.#namespace) && (await this.#remove(name, known, uid)))
      return;
    await this.#remove(name, await this.read(name), uid);
  }

  /** Returns the parts of a sign-in from the copies, or undefined while the copies may be old. */
  known(name: string): Parts | undefined {
    if (this.#copies === undefined) return undefined;
    const { accounts, bindings } = this.#copies;
    if (accounts.problem() !== undefined || bindings.problem() !== undefined) return undefined;
    return { account: accounts.get(name), binding: bindings.get(bindingName(name)) };
  }

  /** Reads the parts of a sign-in from the cluster. */
  async read(name: string, signal?: AbortSignal): Promise<Parts> {
    const [account, binding] = await Promise.all([
      this.#kube.get<ServiceAccount>(this.#accountPath(name), signal),
      this.#kube.get<ClusterRoleBinding>(this.#bindingPath(name), signal),
    ]);
    return { account, binding };
  }

  /**
   * Returns whether the sign-in of this name needs a pass, according to the copies: it is not provisioned, a part is
   * missing, or parts are left over.
   */
  isWrong(name: string): boolean {
    const signIn = this.#copies?.signIns.get(name);
    const known = this.known(name);
    if (signIn !== undefined && !isLeaving(signIn)) {
      return !isSettled(signIn) || (known !== undefined && !isWhole(known, signIn, this.#namespace));
    }
    if (known === undefined) return true;
    const { account, binding } = known;
    return (
      (account !== undefined && ownerOfAccount(account) !== undefined) ||
      (binding !== undefined && ownerOfBinding(binding, this.#namespace) !== undefined)
    );
  }

  /**
   * Removes the given parts if they belong to any sign-in, or to the one with this UID. Returns whether both are
   * removed.
   */
  async #remove(name: string, { account, binding }: Parts, uid: string | undefined): Promise<boolean> {
    const isTheirs = (owner: string | undefined): boolean =>
      owner !== undefined && (uid === undefined || owner === uid);
    const accountOwner = account && ownerOfAccount(account);
    const bindingOwner = binding && ownerOfBinding(binding, this.#namespace);
    // A binding without labels is removed together with the ServiceAccount that it binds.
    const bindingGoes = isTheirs(bindingOwner) || (bindingOwner === 'unlabelled' && isTheirs(accountOwner));
    const removed = await both(
      account !== undefined && isTheirs(accountOwner) && this.#removeAccount(account),
      binding !== undefined && bindingGoes && this.#removeBinding(binding),
    );
    const part = account ?? binding;
    if (removed.includes(true)) this.#log.info({ name, ...(part && toldOf(part)) }, 'access removed');
    return !removed.includes(false);
  }

  async #removeAccount(account: ServiceAccount): Promise<boolean> {
    const { name, uid } = account.metadata;
    const removed = await this.#kube.remove(this.#accountPath(name), { uid });
    if (removed) this.#onAccount?.('deleted');
    this.#copies?.accounts.drop(account);
    return removed;
  }

  async #removeBinding(binding: ClusterRoleBinding): Promise<boolean> {
    const { name, uid } = binding.metadata;
    const removed = await this.#kube.remove(paths.bindings(name), { uid });
    this.#copies?.bindings.drop(binding);
    return removed;
  }

  async #provision(signIn: TkaSignin, { account, binding }: Parts): Promise<Reconciled> {
    const status = statusOf(signIn, Date.now());
    if (status === undefined) {
      const removal = `kubectl delete tkasignin ${signIn.metadata.name} -n ${this.#namespace}`;
      throw new Blocked(
        `the period "${signIn.spec.validity_period}" is not a duration`,
        [`ask the cluster's administrator to remove this sign-in: ${removal}`],
        'InvalidPeriod',
      );
    }
    try {
      await both(this.#provideAccount(signIn, account), this.#provideBinding(signIn, binding));
      if (problemOf(signIn) !== undefined) {
        await this.#tell(signIn, null);
        throw new Stale('its problem is solved');
      }
      if (isSettled(signIn)) return { signIn, isNew: false };
      const settled = await this.#kube.patch<TkaSignin>(
        `${paths.signIns(this.#namespace, signIn.metadata.name)}/status`,
        statusPatch(signIn, { ...status, conditions: conditionsOf(signIn, isProvisioned, Date.now()) }),
      );
      this.#copies?.signIns.put(settled);
      return { signIn: settled, isNew: true };
    } catch (error) {
      if (!isStatus(error, 404, 409)) throw error;
      // Another process may have removed the parts before all of them were made. It will not do so again.
      const now = await this.#kube.get<TkaSignin>(paths.signIns(this.#namespace, signIn.metadata.name));
      if (now?.metadata.uid !== signIn.metadata.uid || isLeaving(now)) await this.release(signIn);
      throw new Stale('it changed while it was provisioned');
    }
  }

  async #provideAccount(signIn: TkaSignin, old: ServiceAccount | undefined): Promise<void> {
    const { name, uid } = signIn.metadata;
    if (old !== undefined) {
      const owner = ownerOfAccount(old);
      if (owner === uid) {
        const patch = loginPatch(old, signIn);
        // The Role of version 0.1.0 forbids this patch. Then only the log shows the login.
        if (patch) await this.#kube.patch(this.#accountPath(name), patch).catch(forgiveForbidden);
        return;
      }
      if (owner === undefined) throw foreignAccount(name, this.#namespace);
      await this.#removeAccount(old);
    }
    const made = await this.#kube.create<ServiceAccount>(paths.accounts(this.#namespace), accountFor(signIn));
    this.#onAccount?.('created');
    this.#copies?.accounts.put(made);
  }

  async #provideBinding(signIn: TkaSignin, old: ClusterRoleBinding | undefined): Promise<void> {
    const { name, uid } = signIn.metadata;
    if (old !== undefined) {
      const owner = ownerOfBinding(old, this.#namespace);
      if (owner === undefined) throw foreignBinding(name, old);
      if (binds(old, signIn, this.#namespace)) {
        if (owner === uid && loginOf(old) === loginOf(signIn)) return;
        if (owner === uid || owner === 'unlabelled') {
          const patch = labelPatch(old, signIn, this.#namespace);
          this.#copies?.bindings.put(await this.#kube.patch<ClusterRoleBinding>(this.#bindingPath(name), patch));
          return;
        }
      }
      // A roleRef is immutable, so replace the binding.
      await this.#removeBinding(old);
    }
    const made = await this.#kube.create<ClusterRoleBinding>(paths.bindings(), bindingFor(signIn, this.#namespace));
    this.#copies?.bindings.put(made);
  }

  /**
   * Writes on the sign-in why it cannot be provisioned; null clears the reason. All replicas read the annotation, which
   * also works with the CustomResourceDefinitions of version 0.1.0 and of the Go server: these keep no conditions.
   */
  async #tell(signIn: TkaSignin, blocked: Blocked | null): Promise<void> {
    const text = blocked?.text ?? null;
    if (text === (problemOf(signIn) ?? null)) return;
    const path = paths.signIns(this.#namespace, signIn.metadata.name);
    try {
      const told = await this.#kube.patch<TkaSignin>(path, problemPatch(signIn, text));
      // The provisioned status is written next.
      if (blocked === null) return;
      const ready = { status: 'False', reason: blocked.reason, message: blocked.text.replaceAll('\n', '; ') } as const;
      await this.#kube.patch(
        `${path}/status`,
        statusPatch(told, { conditions: conditionsOf(told, ready, Date.now()) }),
      );
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
    }
  }

  #accountPath(name: string): string {
    return paths.accounts(this.#namespace, name);
  }

  #bindingPath(name: string): string {
    return paths.bindings(bindingName(name));
  }
}

/**
 * Like Promise.all for two, but waits for both even if one fails: the cleanup that follows must not race with the
 * other.
 */
async function both<A, B>(first: A, second: B): Promise<[Awaited<A>, Awaited<B>]> {
  await Promise.allSettled([first, second]);
  return Promise.all([first, second]);
}

function forgiveForbidden(error: unknown): void {
  if (!isStatus(error, 403)) throw error;
}

/**
 * Yields the names of sign-ins that lack a part, and of parts whose sign-in is gone. Reads everything from the cluster.
 */
export async function* survey(kube: Kube, namespace: string): AsyncGenerator<string> {
  const accounts = new Map<string, string>();
  for await (const account of kube.list<ServiceAccount>(paths.accounts(namespace))) {
    const owner = ownerOfAccount(account);
    if (owner !== undefined) accounts.set(account.metadata.name, owner);
  }
  const bindings = new Map<string, { readonly owner: string; readonly role: string }>();
  for await (const binding of kube.list<ClusterRoleBinding>(paths.bindings())) {
    const owner = ownerOfBinding(binding, namespace);
    const name = signInOfBinding(binding.metadata.name);
    if (owner !== undefined && name !== undefined) bindings.set(name, { owner, role: binding.roleRef.name });
  }
  // List the sign-ins after the parts, so that no part of a newer sign-in looks like an orphan.
  for await (const signIn of kube.list<TkaSignin>(paths.signIns(namespace))) {
    const { name, uid } = signIn.metadata;
    // The parts of a deleted sign-in are left over.
    if (isLeaving(signIn)) continue;
    const binding = bindings.get(name);
    const isRight =
      isSettled(signIn) &&
      !isOver(signIn, Date.now()) &&
      accounts.get(name) === uid &&
      binding?.owner === uid &&
      binding.role === signIn.spec.role;
    accounts.delete(name);
    bindings.delete(name);
    if (!isRight) yield name;
  }
  yield* new Set([...accounts.keys(), ...bindings.keys()]);
}
