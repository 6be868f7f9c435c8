// The search for sign-ins that need a pass of the reconciler.
import type { Kube } from '../kubernetes/kube.ts';
import { signInOfBinding } from './names.ts';
import { type ClusterRoleBinding, paths, type ServiceAccount, type TkaSignin } from './objects.ts';
import { ownerOfAccount, ownerOfBinding } from './parts.ts';
import { isLeaving, isOver, isSettled } from './sign-in.ts';

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
