// Moves or removes the sign-ins of a TKA server in another namespace. Its ClusterRoleBindings are cluster-wide and have
// the same names as ours, so they block our sign-ins.
import { setTimeout as delay } from 'node:timers/promises';
import { TkaError } from '../../util/errors.ts';
import { isStatus, KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { isOurs, type Lease, leaseName, podOf, renewalMs } from './lease.ts';
import { type ClusterRoleBinding, paths, type ServiceAccount, type TkaSignin, withSpec } from './objects.ts';
import { homeOf, ownerOfAccount } from './parts.ts';
import { copyOf, endOf, isOver, rfc3339 } from './sign-in.ts';

export interface AdoptOptions {
  readonly kube: Kube;
  /** Namespace of the other server. */
  readonly from: string;
  /** Namespace of this server. */
  readonly to: string;
  /** Namespace of this server's lease. */
  readonly leaseNamespace: string;
  /** Removes the sign-ins instead of moving them. */
  readonly remove: boolean;
  /** Only reports what would be done. */
  readonly dryRun: boolean;
  /** Called with one line for each object. */
  readonly say: (line: string) => void;
}

const lookMs = 250;

/**
 * Moves the sign-ins, and removes their bindings and accounts. After a failure, run it again: it continues where it
 * stopped. Returns the number of changed objects. Throws TkaError while the other server's operator runs, and when the
 * API server refuses a call.
 */
export async function adopt(options: AdoptOptions): Promise<number> {
  try {
    if (!options.dryRun) await mustBeStopped(options);
    return await adoptAll(options);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const hints = isStatus(error, 401, 403)
      ? [
          `run it with a kubeconfig that may read and delete TkaSignins, ServiceAccounts and Leases in "${options.from}"`,
        ]
      : ['run it again: it continues where it stopped'];
    throw new TkaError(error.message, { hints, cause: error });
  }
}

async function adoptAll({ kube, from, to, remove, dryRun, say }: AdoptOptions): Promise<number> {
  let count = 0;
  const tell = (line: string): void => {
    count++;
    say(dryRun ? `${line} (dry run)` : line);
  };
  const bindings = new Map<string, ClusterRoleBinding>();
  for await (const binding of kube.list<ClusterRoleBinding>(paths.bindings())) {
    const [subject] = binding.subjects ?? [];
    if (subject !== undefined && homeOf(binding) === from) bindings.set(subject.name, binding);
  }
  const accounts = new Map<string, ServiceAccount>();
  for await (const account of kube.list<ServiceAccount>(paths.accounts(from))) {
    if (ownerOfAccount(account) !== undefined) accounts.set(account.metadata.name, account);
  }

  /** Removes a sign-in's binding, which frees its name, and its account, which ends its tokens. */
  async function removeParts(name: string): Promise<void> {
    const [binding, account] = [bindings.get(name), accounts.get(name)];
    if (binding !== undefined) {
      const { name: called, uid } = binding.metadata;
      if (dryRun || (await kube.remove(paths.bindings(called), { uid }))) tell(`clusterrolebinding/${called} deleted`);
    }
    if (account !== undefined) {
      const { uid } = account.metadata;
      if (dryRun || (await kube.remove(paths.accounts(from, name), { uid }))) tell(`serviceaccount/${name} deleted`);
    }
    bindings.delete(name);
    accounts.delete(name);
  }

  for await (const listed of kube.list<TkaSignin>(paths.signIns(from))) {
    const signIn = withSpec(listed);
    const { name, uid } = signIn.metadata;
    await removeParts(name);
    const done = remove || isOver(signIn, Date.now()) ? 'deleted' : await move(signIn);
    // Remove the sign-in last: after a failure, the next run finds the remaining parts through it.
    if (dryRun || (await kube.remove(paths.signIns(from, name), { uid }))) tell(`tkasignin/${name} ${done}`);
  }
  // Remove parts of deleted sign-ins. The Go operator leaves bindings behind, and no garbage collector removes them.
  for (const name of new Set([...bindings.keys(), ...accounts.keys()])) await removeParts(name);
  return count;

  /**
   * Creates the sign-in in our namespace if there is none of this name. Returns what happened to the old one, for the
   * report.
   */
  async function move(signIn: TkaSignin): Promise<string> {
    const { name } = signIn.metadata;
    const end = endOf(signIn, Date.now());
    const moved = `moved to ${to} (role ${signIn.spec.role}${end === undefined ? '' : `, until ${rfc3339(end)}`})`;
    const kept = `deleted (${to} has one)`;
    if ((await kube.get(paths.signIns(to, name))) !== undefined) return kept;
    if (dryRun) return moved;
    try {
      await kube.create(paths.signIns(to), copyOf(signIn));
      return moved;
    } catch (error) {
      if (isStatus(error, 409)) return kept;
      throw error;
    }
  }
}

/**
 * Throws TkaError while another process renews the lease in the other namespace: it would recreate what is removed
 * here.
 */
async function mustBeStopped({ kube, from, leaseNamespace }: AdoptOptions): Promise<void> {
  const read = (): Promise<Lease | undefined> => kube.get<Lease>(paths.leases(from, leaseName));
  const isFree = (lease: Lease | undefined): boolean => {
    const holder = lease?.spec?.holderIdentity ?? '';
    // Our server holds this lease if it shares the other server's lease (`operator.leaseNamespace`).
    return holder === '' || (leaseNamespace === from && isOurs(holder));
  };
  const first = await read();
  if (isFree(first)) return;
  // The holder's clock may be wrong, so only a renewal proves that it runs.
  const deadline = performance.now() + renewalMs;
  while (performance.now() < deadline) {
    await delay(lookMs);
    const now = await read();
    if (isFree(now)) return;
    if (now?.metadata.resourceVersion === first?.metadata.resourceVersion) continue;
    const holder = now?.spec?.holderIdentity ?? '';
    throw new TkaError(`a TKA operator is running in namespace "${from}": "${holder}" holds its lease`, {
      hints: [
        `stop it first; its pod is ${podOf(holder)}: kubectl scale deployment NAME --replicas=0 -n ${from}`,
        'see what would be done: add --dry-run',
      ],
    });
  }
}
