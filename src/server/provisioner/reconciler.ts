// Makes the cluster have what the sign-ins ask for, and nothing that they do not. Every replica does that for the sign-ins
// that it takes, and the leader for all others, so several may work on one sign-in at a time, and each may be suspended
// between any two calls. This is why that does no harm:
//
// - An account and a binding say to which sign-in they belong, by its UID. A name has one account and one binding.
// - Whatever is deleted is named by its UID, which never comes back: nothing newer of the same name is ever hit.
// - What belongs to another sign-in is replaced only if the sign-in was read after it: then the other one is gone.
// - The status is written last, and only if the sign-in has not changed since it was read. A sign-in that was deleted,
//   demoted or extended meanwhile refuses it, and what was made for it is removed again.
// - No token is given before the status is written, nor by an account of another sign-in.
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
} from './sign-in.ts';
import type { Watched } from './watch.ts';

/** The cluster's objects, as this replica follows them. */
export interface Copies {
  readonly signIns: Watched<TkaSignin>;
  readonly accounts: Watched<ServiceAccount>;
  readonly bindings: Watched<ClusterRoleBinding>;
}

/** What it is given. */
export interface ReconcilerOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly log: Log;
  /** Spares it reading. Default: it reads everything. */
  readonly copies?: Copies;
  /** Told of each ServiceAccount that is created or deleted. */
  readonly onAccount?: (what: 'created' | 'deleted') => void;
  /** Told of each sign-in that it deleted because it was over. */
  readonly onExpired?: (signIn: TkaSignin) => void;
}

/** Something changed while it was looked at: to be looked at again. */
export class Stale extends Error {}

/** What a pass over a sign-in found and did. */
export interface Reconciled {
  /** The sign-in as it is now; undefined: it is gone. */
  readonly signIn: TkaSignin | undefined;
  /** This pass signed somebody in, or extended a sign-in. */
  readonly isNew: boolean;
}

const nothing: Reconciled = { signIn: undefined, isNew: false };

const attempts = 5;

const isProvisioned = {
  status: 'True',
  reason: 'Provisioned',
  message: 'ServiceAccount and ClusterRoleBinding exist',
} as const;

/** One pass over one sign-in, and the search for those that need one. */
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
   * Provisions a sign-in that this replica has just written. Takes the copies' word for what it has: where that is old, a
   * call is refused, and all is read. Throws as `reconcile` does.
   */
  async provide(signIn: TkaSignin): Promise<Reconciled> {
    const { name, uid } = signIn.metadata;
    const parts = this.known(name);
    const { account, binding } = parts ?? { account: undefined, binding: undefined };
    // What is another sign-in's is to be read before the sign-in.
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

  /** Provisions the sign-in of this name at once, though others work on it. Throws as `reconcile` does. */
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
   * Provisions the sign-in of this name, or removes what is left of it. Throws Stale where that is to be done again, and
   * Blocked where a person must act first.
   */
  async reconcile(name: string): Promise<Reconciled> {
    const kube = this.#kube;
    const signInPath = paths.signIns(this.#namespace, name);
    // In this order: what belongs to another sign-in than the one seen afterwards belongs to one that is gone.
    const parts = await this.read(name);
    const found = await kube.get<TkaSignin>(signInPath);
    const signIn = found && withSpec(found);
    // One that is being deleted is kept by a finalizer: its access ends when it was deleted.
    if (signIn === undefined || isLeaving(signIn)) {
      await this.#remove(name, parts, undefined);
      return nothing;
    }
    if (isOver(signIn, Date.now())) {
      // Only as it was seen: one that is extended at this moment stays.
      const { uid, resourceVersion } = signIn.metadata;
      if (!(await kube.remove(signInPath, { uid, resourceVersion }))) throw new Stale('the sign-in has changed');
      const { username, role } = signIn.spec;
      this.#log.info({ name, login: loginOf(signIn), username, role }, 'sign-in has expired');
      this.#onExpired?.(signIn);
      await this.#remove(name, parts, undefined);
      return nothing;
    }
    return await this.#provisionOrTell(signIn, parts);
  }

  /** Provisions a sign-in, or writes on it why it cannot be. */
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

  /** Takes away what a deleted sign-in had. */
  async release(signIn: TkaSignin): Promise<void> {
    const { name, uid } = signIn.metadata;
    const known = this.known(name);
    // Where the copies are old, not all of it goes.
    if (known !== undefined && isWhole(known, signIn, this.#namespace) && (await this.#remove(name, known, uid)))
      return;
    await this.#remove(name, await this.read(name), uid);
  }

  /** What the copies say that a sign-in has; undefined while they may be old. */
  known(name: string): Parts | undefined {
    if (this.#copies === undefined) return undefined;
    const { accounts, bindings } = this.#copies;
    if (accounts.problem() !== undefined || bindings.problem() !== undefined) return undefined;
    return { account: accounts.get(name), binding: bindings.get(bindingName(name)) };
  }

  /** Reads what a sign-in has. */
  async read(name: string, signal?: AbortSignal): Promise<Parts> {
    const [account, binding] = await Promise.all([
      this.#kube.get<ServiceAccount>(this.#accountPath(name), signal),
      this.#kube.get<ClusterRoleBinding>(this.#bindingPath(name), signal),
    ]);
    return { account, binding };
  }

  /**
   * Says whether there is something to do about the sign-in of this name, as far as the copies say: it is not provisioned,
   * or something of it is missing, or is left over.
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

  /** Removes those of these parts that belong to a sign-in: any, or the one of this UID. Answers whether both are removed. */
  async #remove(name: string, { account, binding }: Parts, uid: string | undefined): Promise<boolean> {
    const isTheirs = (owner: string | undefined): boolean =>
      owner !== undefined && (uid === undefined || owner === uid);
    const accountOwner = account && ownerOfAccount(account);
    const bindingOwner = binding && ownerOfBinding(binding, this.#namespace);
    // One without labels goes with the ServiceAccount that it binds.
    const bindingGoes = isTheirs(bindingOwner) || (bindingOwner === 'unlabelled' && isTheirs(accountOwner));
    const removed = await both(
      account !== undefined && isTheirs(accountOwner) && this.#removeAccount(account),
      binding !== undefined && bindingGoes && this.#removeBinding(binding),
    );
    const login = (account && loginOf(account)) ?? (binding && loginOf(binding));
    if (removed.includes(true)) this.#log.info({ name, login }, 'access removed');
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
      // Somebody else may have removed what it had before all of it was made, and will not come again.
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
        // A Role of 0.1.0 does not allow it: then the log alone says whose it is.
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
      // A roleRef cannot be changed in place.
      await this.#removeBinding(old);
    }
    const made = await this.#kube.create<ClusterRoleBinding>(paths.bindings(), bindingFor(signIn, this.#namespace));
    this.#copies?.bindings.put(made);
  }

  /**
   * Writes on the sign-in why it cannot be provisioned; null: it can. The annotation is what all replicas read, also under the
   * CustomResourceDefinitions of 0.1.0 and of the Go server, which keep no conditions.
   */
  async #tell(signIn: TkaSignin, blocked: Blocked | null): Promise<void> {
    const text = blocked?.text ?? null;
    if (text === (problemOf(signIn) ?? null)) return;
    const path = paths.signIns(this.#namespace, signIn.metadata.name);
    try {
      const told = await this.#kube.patch<TkaSignin>(path, problemPatch(signIn, text));
      // When it can, the status that says so is written next.
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

/** As Promise.all for two, but never leaves one under way: what comes next undoes what it did. */
async function both<A, B>(first: A, second: B): Promise<[Awaited<A>, Awaited<B>]> {
  await Promise.allSettled([first, second]);
  return Promise.all([first, second]);
}

function forgiveForbidden(error: unknown): void {
  if (!isStatus(error, 403)) throw error;
}

/** Yields the names of sign-ins that lack a part, and of parts whose sign-in is gone. Reads everything. */
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
  // After its parts, so that none of a newer sign-in is taken for an orphan.
  for await (const signIn of kube.list<TkaSignin>(paths.signIns(namespace))) {
    const { name, uid } = signIn.metadata;
    // What it still has is left over.
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
