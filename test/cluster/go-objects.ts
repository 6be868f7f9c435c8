// Objects as the Go server and its operator create them: tka-protocol, section 8, and its pkg/client/k8s/objects.go.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus } from '../../src/server/kubernetes/errors.ts';
import type { Kube } from '../../src/server/kubernetes/kube.ts';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { bindingName, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { rfc3339 } from '../../src/server/provisioner/sign-in.ts';
import { goDuration } from '../../src/util/duration.ts';

const apiVersion = 'tka.specht-labs.de/v1alpha1';

/** Creates a valid sign-in of the Go server: the TkaSignin, its ServiceAccount and its ClusterRoleBinding. */
export async function goSignIn(
  kube: Kube,
  namespace: string,
  {
    username,
    role,
    periodMs = 1_800_000,
    now = Date.now(),
  }: { username: string; role: string; periodMs?: number; now?: number },
): Promise<TkaSignin> {
  const name = `tka-user-${username}`;
  const [signedIn, until] = [rfc3339(now), rfc3339(now + periodMs)];
  const created = await kube.create<TkaSignin>(paths.signIns(namespace), {
    apiVersion,
    kind: 'TkaSignin',
    metadata: {
      name,
      annotations: {
        'tka.specht-labs.de/last-attempted-sign-in': signedIn,
        'tka.specht-labs.de/sign-in-valid-until': until,
      },
    },
    spec: { username, role, validity_period: `${periodMs / 60_000}m0s` },
  });
  return provision(kube, namespace, created);
}

/**
 * Provisions a sign-in as the Go operator does. It names account and binding after `spec.username`, not after the
 * sign-in.
 */
async function provision(kube: Kube, namespace: string, { metadata, spec }: TkaSignin): Promise<TkaSignin> {
  const name = `tka-user-${spec.username}`;
  const owner = {
    apiVersion,
    kind: 'TkaSignin',
    name: metadata.name,
    uid: metadata.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: spec.role };
  await kube
    .create(paths.accounts(namespace), {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, ownerReferences: [owner] },
    })
    .catch(forgiveConflict);
  try {
    await kube.create(paths.bindings(), {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      // A namespaced owner of a cluster-wide object, which the garbage collector never resolves.
      metadata: { name: bindingName(name), ownerReferences: [owner] },
      roleRef,
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    });
  } catch (error) {
    forgiveConflict(error);
    const old = await kube.get<object>(paths.bindings(bindingName(name)));
    // Refused if the role differs: "cannot change roleRef".
    await kube.replace(paths.bindings(bindingName(name)), { ...old, roleRef });
  }
  const signedIn = metadata.annotations?.['tka.specht-labs.de/last-attempted-sign-in'] ?? rfc3339(Date.now());
  const until = rfc3339(Date.parse(signedIn) + (goDuration(spec.validity_period) ?? 0));
  const path = `${paths.signIns(namespace, metadata.name)}`;
  // It writes the fields of the status that it knows, and drops others.
  const status = { provisioned: true, signed_in: signedIn, valid_until: until };
  const now = await kube.get<TkaSignin>(path);
  return kube.replace<TkaSignin>(`${path}/status`, { ...now, status });
}

function forgiveConflict(error: unknown): void {
  if (!isStatus(error, 409)) throw error;
}

/** A Go operator. */
export interface GoOperator {
  /** Its name in the election: `POD_UUID`. */
  readonly identity: string;
  stop(): Promise<void>;
}

/**
 * Starts a leading Go operator: it holds the lease of its pod's namespace, renews it as client-go does, and provisions
 * the sign-ins of these namespaces (the real one: of all).
 */
export async function goOperator(kube: Kube, namespace: string, served: readonly string[] = []): Promise<GoOperator> {
  // controller-runtime's form: the host's name, which is the pod's, and a UUID.
  const identity = `tka-6d5f9-x2x4z_${randomUUID()}`;
  const now = (): string => new Date().toISOString().replace('Z', '000Z');
  const spec = { holderIdentity: identity, leaseDurationSeconds: 15, acquireTime: now(), leaseTransitions: 0 };
  const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: leaseName } };
  const old = await kube.get<Lease>(paths.leases(namespace, leaseName));
  if (old === undefined) await kube.create(paths.leases(namespace), { ...lease, spec: { ...spec, renewTime: now() } });
  else if ((old.spec?.holderIdentity ?? '') !== '') throw new Error(`${old.spec?.holderIdentity} holds the lease`);
  else await kube.replace(paths.leases(namespace, leaseName), { ...old, spec: { ...spec, renewTime: now() } });
  const stopping = new AbortController();
  const renewing = (async () => {
    while (!stopping.signal.aborted) {
      await kube.patch(paths.leases(namespace, leaseName), { spec: { renewTime: now() } });
      await delay(2_000, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  })();
  const serving = (async () => {
    while (!stopping.signal.aborted) {
      for (const one of served) {
        for await (const signIn of kube.list<TkaSignin>(paths.signIns(one))) {
          // It retries a failed sign-in forever.
          if (isToDo(signIn)) await provision(kube, one, signIn).catch(() => undefined);
        }
      }
      await delay(50, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  })();
  return {
    identity,
    // It does not release the lease: the Go server does not set ReleaseOnCancel.
    async stop() {
      stopping.abort();
      await Promise.all([renewing, serving]);
    },
  };
}

/**
 * Returns whether the Go operator provisions a sign-in, for the first time or because its end has changed
 * (pkg/operator/reconcile.go).
 */
function isToDo({ metadata, spec, status }: TkaSignin): boolean {
  if (status?.provisioned !== true) return true;
  const start = metadata.annotations?.['tka.specht-labs.de/last-attempted-sign-in'] ?? status.signed_in ?? '';
  return Date.parse(start) + (goDuration(spec.validity_period) ?? 0) !== Date.parse(status.valid_until ?? '');
}

/** Creates a namespace for a Go server. */
export async function goNamespace(kube: Kube, name: string): Promise<string> {
  await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  return name;
}
