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

import type { Log } from '../log.ts';
import { Blocked, foreignAccount, foreignBinding, refusedBy } from './blocked.ts';
import { isStatus, type Kube, KubeError } from './kube.ts';
import {
  accountFor,
  bindingFor,
  bindingName,
  binds,
  type ClusterRoleBinding,
  isLeaving,
  isOver,
  isSettled,
  labelPatch,
  loginOf,
  loginPatch,
  ownerOfAccount,
  ownerOfBinding,
  paths,
  problemOf,
  problemPatch,
  type ServiceAccount,
  statusOf,
  statusPatch,
  type TkaSignin,
  withSpec,
} from './objects.ts';

/** What it is given. */
export interface ReconcilerOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly log: Log;
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

/** One pass over one sign-in, and the search for those that need one. */
export class Reconciler {
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #log: Log;

  constructor({ kube, namespace, log }: ReconcilerOptions) {
    this.#kube = kube;
    this.#namespace = namespace;
    this.#log = log;
  }

  /** Provisions the sign-in of this name at once, though others work on it. Throws as `reconcile` does. */
  async provide(name: string): Promise<Reconciled> {
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
    const [account, binding] = await this.#partsOf(name);
    const found = await kube.get<TkaSignin>(signInPath);
    const signIn = found && withSpec(found);
    // One that is being deleted is kept by a finalizer: its access ends when it was deleted.
    if (signIn === undefined || isLeaving(signIn)) {
      await this.#remove(name, account, binding, undefined);
      return nothing;
    }
    if (isOver(signIn, Date.now())) {
      // Only as it was seen: one that is extended at this moment stays.
      const { uid, resourceVersion } = signIn.metadata;
      if (!(await kube.remove(signInPath, { uid, resourceVersion }))) throw new Stale('the sign-in has changed');
      const { username, role } = signIn.spec;
      this.#log.info({ name, login: loginOf(signIn), username, role }, 'sign-in has expired');
      await this.#remove(name, account, binding, undefined);
      return nothing;
    }
    try {
      return await this.#provision(signIn, account, binding);
    } catch (error) {
      const isRefused = error instanceof KubeError && isStatus(error, 400, 403, 422);
      const blocked = isRefused ? refusedBy(error) : error;
      if (blocked instanceof Blocked) await this.#tell(signIn, blocked.text);
      throw blocked;
    }
  }

  /** Takes away what a deleted sign-in had. */
  async release(signIn: TkaSignin): Promise<void> {
    const [account, binding] = await this.#partsOf(signIn.metadata.name);
    await this.#remove(signIn.metadata.name, account, binding, signIn.metadata.uid);
  }

  /** Names of all that is not as it should be: sign-ins without their parts, parts without their sign-in. */
  async *survey(): AsyncGenerator<string> {
    const kube = this.#kube;
    const accounts = new Map<string, string>();
    for await (const account of kube.list<ServiceAccount>(paths.accounts(this.#namespace))) {
      const owner = ownerOfAccount(account);
      if (owner !== undefined) accounts.set(account.metadata.name, owner);
    }
    const bindings = new Map<string, { readonly owner: string; readonly role: string }>();
    for await (const binding of kube.list<ClusterRoleBinding>(paths.bindings())) {
      const owner = ownerOfBinding(binding, this.#namespace);
      if (owner === undefined || !binding.metadata.name.endsWith(bindingName(''))) continue;
      const name = binding.metadata.name.slice(0, -bindingName('').length);
      bindings.set(name, { owner, role: binding.roleRef.name });
    }
    // After its parts, so that none of a newer sign-in is taken for an orphan.
    for await (const signIn of kube.list<TkaSignin>(paths.signIns(this.#namespace))) {
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

  async #partsOf(name: string): Promise<[ServiceAccount | undefined, ClusterRoleBinding | undefined]> {
    return Promise.all([
      this.#kube.get<ServiceAccount>(paths.accounts(this.#namespace, name)),
      this.#kube.get<ClusterRoleBinding>(paths.bindings(bindingName(name))),
    ]);
  }

  /** Removes those of these parts that belong to a sign-in: any, or the one of this UID. */
  async #remove(
    name: string,
    account: ServiceAccount | undefined,
    binding: ClusterRoleBinding | undefined,
    uid: string | undefined,
  ): Promise<void> {
    const isTheirs = (owner: string | undefined): boolean =>
      owner !== undefined && (uid === undefined || owner === uid);
    const accountOwner = account && ownerOfAccount(account);
    const bindingOwner = binding && ownerOfBinding(binding, this.#namespace);
    // One without labels goes with the ServiceAccount that it binds.
    const bindingGoes = isTheirs(bindingOwner) || (bindingOwner === 'unlabelled' && isTheirs(accountOwner));
    const removed = await Promise.all([
      account && isTheirs(accountOwner) && this.#kube.remove(this.#accountPath(name), { uid: account.metadata.uid }),
      binding && bindingGoes && this.#kube.remove(this.#bindingPath(name), { uid: binding.metadata.uid }),
    ]);
    const login = (account && loginOf(account)) ?? (binding && loginOf(binding));
    if (removed.includes(true)) this.#log.info({ name, login }, 'access removed');
  }

  async #provision(
    signIn: TkaSignin,
    account: ServiceAccount | undefined,
    binding: ClusterRoleBinding | undefined,
  ): Promise<Reconciled> {
    const status = statusOf(signIn, Date.now());
    if (status === undefined) {
      throw new Blocked(`the period "${signIn.spec.validity_period}" is not a duration`, [
        `ask the cluster's administrator to remove this sign-in: kubectl delete tkasignin ${signIn.metadata.name} -n ${this.#namespace}`,
      ]);
    }
    try {
      await Promise.all([this.#provideAccount(signIn, account), this.#provideBinding(signIn, binding)]);
      if (problemOf(signIn) !== undefined) {
        await this.#tell(signIn, null);
        throw new Stale('its problem is solved');
      }
      if (isSettled(signIn)) return { signIn, isNew: false };
      const settled = await this.#kube.patch<TkaSignin>(
        `${paths.signIns(this.#namespace, signIn.metadata.name)}/status`,
        statusPatch(signIn, status),
      );
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
      await this.#kube.remove(this.#accountPath(name), { uid: old.metadata.uid });
    }
    await this.#kube.create(paths.accounts(this.#namespace), accountFor(signIn));
  }

  async #provideBinding(signIn: TkaSignin, old: ClusterRoleBinding | undefined): Promise<void> {
    const { name, uid } = signIn.metadata;
    if (old !== undefined) {
      const owner = ownerOfBinding(old, this.#namespace);
      if (owner === undefined) throw foreignBinding(name, old);
      if (binds(old, signIn, this.#namespace)) {
        if (owner === uid && loginOf(old) === loginOf(signIn)) return;
        if (owner === uid || owner === 'unlabelled') {
          await this.#kube.patch(this.#bindingPath(name), labelPatch(old, signIn, this.#namespace));
          return;
        }
      }
      // A roleRef cannot be changed in place.
      await this.#kube.remove(this.#bindingPath(name), { uid: old.metadata.uid });
    }
    await this.#kube.create(paths.bindings(), bindingFor(signIn, this.#namespace));
  }

  /** Writes on the sign-in why it cannot be provisioned, for whoever asks; null: it can. */
  async #tell(signIn: TkaSignin, text: string | null): Promise<void> {
    if (text === (problemOf(signIn) ?? null)) return;
    const patch = problemPatch(signIn, text);
    await this.#kube.patch(paths.signIns(this.#namespace, signIn.metadata.name), patch).catch((error: unknown) => {
      if (!(error instanceof KubeError)) throw error;
    });
  }

  #accountPath(name: string): string {
    return paths.accounts(this.#namespace, name);
  }

  #bindingPath(name: string): string {
    return paths.bindings(bindingName(name));
  }
}

function forgiveForbidden(error: unknown): void {
  if (!isStatus(error, 403)) throw error;
}
