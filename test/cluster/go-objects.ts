// Objects as the Go server and its operator make them: tka-protocol, section 8, and pkg/client/k8s/objects.go there.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Kube } from '../../src/server/provisioner/kube.ts';
import { leaseName } from '../../src/server/provisioner/lease.ts';
import { bindingName, paths, rfc3339, type TkaSignin } from '../../src/server/provisioner/objects.ts';

const apiVersion = 'tka.specht-labs.de/v1alpha1';

/** A sign-in of the Go server, in force: the TkaSignin, its ServiceAccount and its ClusterRoleBinding. */
export async function goSignIn(
  kube: Kube,
  namespace: string,
  { username, role, periodMs = 1_800_000 }: { username: string; role: string; periodMs?: number },
): Promise<TkaSignin> {
  const now = Date.now();
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
  await goParts(kube, namespace, created);
  return kube.patch<TkaSignin>(`${paths.signIns(namespace, name)}/status`, {
    status: { provisioned: true, signed_in: signedIn, valid_until: until },
  });
}

/** What the Go operator makes for a sign-in. It names both after `spec.username`, whatever the sign-in's own name is. */
async function goParts(kube: Kube, namespace: string, { metadata, spec }: TkaSignin): Promise<void> {
  const name = `tka-user-${spec.username}`;
  const owner = {
    apiVersion,
    kind: 'TkaSignin',
    name: metadata.name,
    uid: metadata.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
  await kube.create(paths.accounts(namespace), {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name, ownerReferences: [owner] },
  });
  // It gives this cluster-wide object a namespaced owner, which the garbage collector never resolves.
  await kube.create(paths.bindings(), {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: bindingName(name), ownerReferences: [owner] },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: spec.role },
    subjects: [{ kind: 'ServiceAccount', name, namespace }],
  });
}

/** A Go operator that leads: it holds the lease of its pod's namespace, and renews it as client-go does. */
export async function goOperator(
  kube: Kube,
  namespace: string,
): Promise<{ readonly identity: string; stop(): Promise<void> }> {
  // controller-runtime's form: the host's name, which is the pod's, and a UUID.
  const identity = `tka-6d5f9-x2x4z_${randomUUID()}`;
  const now = (): string => new Date().toISOString().replace('Z', '000Z');
  const spec = { holderIdentity: identity, leaseDurationSeconds: 15, acquireTime: now(), leaseTransitions: 0 };
  const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: leaseName } };
  await kube.create(paths.leases(namespace), { ...lease, spec: { ...spec, renewTime: now() } });
  const stopping = new AbortController();
  const renewing = (async () => {
    while (!stopping.signal.aborted) {
      await kube.patch(paths.leases(namespace, leaseName), { spec: { renewTime: now() } });
      await delay(2_000, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  })();
  return {
    identity,
    // It does not give the lease back: the Go server does not set ReleaseOnCancel.
    async stop() {
      stopping.abort();
      await renewing;
    },
  };
}

/** A namespace for a Go server. */
export async function goNamespace(kube: Kube, name: string): Promise<string> {
  await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  return name;
}
