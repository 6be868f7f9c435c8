// A replica's view of the cluster may be old by milliseconds, or by seconds if its watch has stalled. Here the copies
// never change. An old view must neither give access nor keep it.
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect } from 'vitest';
import type { SignIns } from '../../src/server/http/contract.ts';
import { connectKube, type Kube } from '../../src/server/kubernetes/kube.ts';
import { IndexByLogin } from '../../src/server/provisioner/index-by-login.ts';
import {
  bindingName,
  type ClusterRoleBinding,
  namesOf,
  paths,
  type ServiceAccount,
  type TkaSignin,
} from '../../src/server/provisioner/objects.ts';
import { bindingFor } from '../../src/server/provisioner/parts.ts';
import { type Copies, Reconciler } from '../../src/server/provisioner/reconciler.ts';
import { newSignIn } from '../../src/server/provisioner/sign-in.ts';
import { createSignIns } from '../../src/server/provisioner/sign-ins.ts';
import type { Watched } from '../../src/server/provisioner/watch.ts';
import { kubeConfigFor } from './api-server.ts';
import { startReplica } from './replica.ts';
import { sentinel } from './replicas.ts';
import { absent, type Fixture, Person, statusFor, test, until } from './support.ts';

const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

/** Returns a copy of a collection that never changes. */
function frozen<T extends { readonly metadata: { readonly name: string } }>(...objects: readonly T[]): Watched<T> {
  const known = new Map(objects.map((object) => [object.metadata.name, object]));
  return {
    get: (name) => known.get(name),
    all: () => known.values(),
    problem: () => undefined,
    silentMs: () => 0,
    put: () => undefined,
    drop: () => undefined,
    stop: () => undefined,
  };
}

/** Returns the current state of the cluster for a sign-in of this name. */
async function copiesOf(fixture: Fixture, name: string): Promise<Copies> {
  const [signIn, account, binding] = [
    await fixture.signIn(name),
    await fixture.account(name),
    await fixture.binding(name),
  ];
  return {
    signIns: frozen<TkaSignin>(...(signIn ? [signIn] : [])),
    accounts: frozen<ServiceAccount>(...(account ? [account] : [])),
    bindings: frozen<ClusterRoleBinding>(...(binding ? [binding] : [])),
  };
}

/** A replica that receives no changes any more. */
function deaf(fixture: Fixture, copies: Copies, kube: Kube = fixture.kube): SignIns {
  const reconciler = new Reconciler({ kube, namespace: fixture.namespace, log: quiet, copies });
  const index = new IndexByLogin();
  for (const signIn of copies.signIns.all()) index.set(signIn.metadata.name, signIn);
  return createSignIns({
    kube,
    watch: copies.signIns,
    index,
    namespace: fixture.namespace,
    provide: async (signIn) => (await reconciler.provide(signIn)).signIn,
    repair: async ({ metadata }) => (await reconciler.repair(metadata.name)).signIn,
    knownParts: (name) => reconciler.known(name),
    readParts: (name, signal) => reconciler.read(name, signal),
    release: (signIn) => reconciler.release(signIn),
    onRevoked: () => {},
    goLeader: () => undefined,
    log: quiet,
    clusterInfo: () => ({
      server_url: fixture.access.server,
      insecure_skip_tls_verify: false,
      ca_data: '',
      labels: {},
    }),
    clusterName: 'tka-cluster',
    contextPrefix: 'tka-context-',
    userPrefix: 'tka-user-',
  });
}

async function tokenBy(signIns: SignIns, { caller }: Person): Promise<string> {
  const answer = await signIns.kubeconfig(caller);
  if (typeof answer !== 'object') throw new Error(`no token: ${answer}`);
  return answer.users[`tka-user-${caller.username}`]?.token ?? '';
}

const refused = async (fixture: Fixture, token: string): Promise<void> =>
  expect([401, 403]).toContain(await statusFor(fixture.access, token));

describe.skipIf(absent !== undefined)('a replica with an old view', () => {
  test('gives no token for a sign-in that ended elsewhere, and signs in again', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role, device: 'laptop' });
    const token = await alice.token();
    const signIns = deaf(fixture, await copiesOf(fixture, alice.name));
    expect(await statusFor(fixture.access, await tokenBy(signIns, alice))).toBe(200);
    expect((await alice.logout()).status).toBe(200);
    expect(await signIns.kubeconfig(alice.caller)).toBeUndefined();
    expect(await signIns.get(alice.caller)).toBeUndefined();
    await signIns.signIn(alice.caller);
    await refused(fixture, token);
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
  });

  test('gives no token for a sign-in whose name belongs to another one by now', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role, device: 'laptop' });
    await alice.token();
    const signIns = deaf(fixture, await copiesOf(fixture, alice.name));
    const before = await fixture.account(alice.name);
    await alice.logout();
    await alice.token();
    expect((await fixture.account(alice.name))?.metadata.uid).not.toBe(before?.metadata.uid);
    expect(await signIns.kubeconfig(alice.caller)).toBe('pending');
  });

  test('signs in despite a sign-in that it does not know, and ends what exceeds the grant', async ({
    fixture,
    replica,
    role,
  }) => {
    const nobody: Copies = { signIns: frozen(), accounts: frozen(), bindings: frozen() };
    const admin = await fixture.role(['get', 'list'], ['configmaps']);
    const alice = new Person(replica.url, { role: admin, device: 'laptop' });
    const token = await alice.token();
    const signIns = deaf(fixture, nobody);
    // Created elsewhere: the caller does not get an error.
    expect(await statusFor(fixture.access, await tokenBy(signIns, alice), '/api/v1/configmaps')).toBe(200);
    const demoted = alice.granted({ role });
    await signIns.signIn(demoted.caller);
    await fixture.gone(alice.name);
    await refused(fixture, token);
    const fresh = await demoted.freshToken();
    expect(await statusFor(fixture.access, fresh)).toBe(200);
    expect(await statusFor(fixture.access, fresh, '/api/v1/configmaps')).toBe(403);
  });

  test('extends a sign-in that was extended elsewhere, but not beyond the grant', async ({
    fixture,
    replica,
    role,
  }) => {
    const alice = new Person(replica.url, { role, device: 'laptop' });
    await alice.token();
    const signIns = deaf(fixture, await copiesOf(fixture, alice.name));
    const longer = new Person(replica.url, { ...alice.caller, device: 'desk', periodMs: 7_200_000 });
    await longer.token();
    const { until: end } = await signIns.signIn(alice.caller);
    expect(Date.parse(end) - Date.now()).toBeLessThanOrEqual(alice.caller.periodMs);
    // The other device keeps its own grant.
    const { body } = await longer.status();
    expect(Date.parse(body.until) - Date.now()).toBeGreaterThan(7_000_000);
    expect(await statusFor(fixture.access, await longer.freshToken())).toBe(200);
  });

  test('creates a deleted part again', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role, device: 'laptop' });
    await alice.token();
    const signIns = deaf(fixture, await copiesOf(fixture, alice.name));
    const { metadata } = (await fixture.account(alice.name)) as ServiceAccount;
    await fixture.kube.remove(paths.accounts(fixture.namespace, alice.name), { uid: metadata.uid });
    expect(await signIns.kubeconfig(alice.caller)).toBe('pending');
    expect((await fixture.account(alice.name))?.metadata.uid).not.toBe(metadata.uid);
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
  });

  test('logs out, even if account and binding are not those that it knows', async ({ fixture, replica, role }) => {
    const alice = new Person(replica.url, { role, device: 'laptop' });
    await alice.token();
    const copies = await copiesOf(fixture, alice.name);
    for (const [path, found] of [
      [paths.accounts(fixture.namespace, alice.name), await fixture.account(alice.name)],
      [paths.bindings(bindingName(alice.name)), await fixture.binding(alice.name)],
    ] as const) {
      await fixture.kube.remove(path, { uid: found?.metadata.uid ?? '' });
    }
    // The leader creates them again without a request.
    await Promise.all([
      until(fixture.access, paths.accounts(fixture.namespace), alice.name, (found) => found !== undefined),
      until(fixture.access, paths.bindings(), bindingName(alice.name), (found) => found !== undefined),
    ]);
    const token = await alice.freshToken();
    // Without the leader's help.
    await replica.provisioner.stop();
    expect((await deaf(fixture, copies).signOut(alice.caller))?.complete).toBe(true);
    await fixture.gone(alice.name);
    await refused(fixture, token);
  });

  test('replaces nothing of a newer sign-in because of its copies', async ({ fixture, role }) => {
    const caller = { ...new Person('', { role, device: 'laptop' }).caller };
    const [name = ''] = namesOf(caller);
    const at = Math.floor(Date.now() / 1000) * 1000;
    const collection = paths.signIns(fixture.namespace);
    const make = (): Promise<TkaSignin> => fixture.kube.create(collection, newSignIn(name, caller, at));
    const old = await make();
    await fixture.kube.remove(paths.signIns(fixture.namespace, name), { uid: old.metadata.uid });
    const fresh = await make();
    const whole = new Reconciler({ kube: fixture.kube, namespace: fixture.namespace, log: quiet });
    await whole.repair(name);
    // It is about to provision the old sign-in, and knows the account of the new one.
    const account = await fixture.account(name);
    const copies = { ...(await copiesOf(fixture, name)), signIns: frozen(old) };
    const reconciler = new Reconciler({ kube: fixture.kube, namespace: fixture.namespace, log: quiet, copies });
    expect((await reconciler.provide(old)).signIn?.metadata.uid).toBe(fresh.metadata.uid);
    expect((await fixture.account(name))?.metadata.uid).toBe(account?.metadata.uid);
  });

  test('leaves no binding behind that is in flight when the account is refused', async ({ fixture, role }) => {
    const caller = { ...new Person('', { role, device: 'laptop' }).caller };
    const [name = ''] = namesOf(caller);
    const signIn = await fixture.kube.create<TkaSignin>(
      paths.signIns(fixture.namespace),
      newSignIn(name, caller, Math.floor(Date.now() / 1000) * 1000),
    );
    await fixture.kube.remove(paths.signIns(fixture.namespace, name), { uid: signIn.metadata.uid });
    const other = { name, uid: '00000000-0000-4000-8000-000000000000' };
    await fixture.kube.create(paths.accounts(fixture.namespace), {
      metadata: {
        name,
        ownerReferences: [{ apiVersion: 'tka.specht-labs.de/v1alpha1', kind: 'TkaSignin', controller: true, ...other }],
      },
    });
    const calls: Promise<unknown>[] = [];
    const kube: Kube = {
      ...fixture.kube,
      create<T>(path: string, object: unknown) {
        const call = (async () => {
          if (path === paths.bindings()) await delay(300);
          return await fixture.kube.create<T>(path, object);
        })();
        calls.push(call);
        return call;
      },
    };
    const copies: Copies = { signIns: frozen(signIn), accounts: frozen(), bindings: frozen() };
    const reconciler = new Reconciler({ kube, namespace: fixture.namespace, log: quiet, copies });
    expect((await reconciler.provide(signIn)).signIn).toBeUndefined();
    await Promise.allSettled(calls);
    expect(await fixture.binding(name)).toBeUndefined();
  });
});

describe.skipIf(absent !== undefined)('the leader', () => {
  test.for(['account', 'binding'] as const)(
    'creates a missing %s again without a request',
    async (what, { fixture, replica, role }) => {
      const alice = new Person(replica.url, { role });
      await alice.token();
      await (await sentinel(fixture, role))();
      const [collection, name] =
        what === 'account'
          ? [paths.accounts(fixture.namespace), alice.name]
          : [paths.bindings(), bindingName(alice.name)];
      const { metadata } = (await fixture[what](alice.name)) as ServiceAccount;
      await fixture.kube.remove(`${collection}/${name}`, { uid: metadata.uid });
      await until<ServiceAccount>(
        fixture.access,
        collection,
        name,
        (found) => found !== undefined && found.metadata.uid !== metadata.uid,
      );
      expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
    },
  );

  test('removes what a killed replica created for a sign-in that no longer exists', async ({
    fixture,
    replica,
    role,
  }) => {
    await new Person(replica.url, { role }).token();
    const name = `tka-user-${fixture.namespace}`;
    const signIn = {
      metadata: { name, uid: '00000000-0000-4000-8000-000000000000', resourceVersion: '1' },
      spec: { username: fixture.namespace, role, validity_period: '30m0s' },
    };
    await fixture.kube.create(paths.bindings(), bindingFor(signIn, fixture.namespace));
    await fixture.gone(name);
  });
});

test.skipIf(absent !== undefined)(
  'a server that may not watch accounts and bindings reads them, and reports what is missing',
  async ({ fixture, role }) => {
    const rbac = '/apis/rbac.authorization.k8s.io/v1';
    for (const path of [
      `${rbac}/namespaces/${fixture.namespace}/roles/tka-server`,
      `${rbac}/clusterroles/tka-server-${fixture.namespace}`,
    ]) {
      const found = (await fixture.kube.get<{ rules: { resources: string[]; verbs: string[] }[] }>(path)) ?? {
        rules: [],
      };
      const rules = found.rules.map((rule) => ({
        ...rule,
        verbs: rule.resources.includes('tkasignins') ? rule.verbs : rule.verbs.filter((verb) => verb !== 'watch'),
      }));
      await fixture.kube.patch(path, { rules });
    }
    const server = connectKube(kubeConfigFor(fixture.access, fixture.token));
    const refusedWatch = async (): Promise<boolean> =>
      server
        .watch(paths.bindings(), '0', AbortSignal.timeout(1_000))
        .then(() => false)
        .catch(({ status }: { status?: number }) => status === 403);
    await expect.poll(refusedWatch, { timeout: 20_000 }).toBe(true);
    server.close();
    const replica = await startReplica(fixture.replicaOptions());
    const alice = new Person(replica.url, { role });
    const token = await alice.token();
    expect(await statusFor(fixture.access, token)).toBe(200);
    expect(await statusFor(fixture.access, await alice.token())).toBe(200);
    expect((await alice.logout()).status).toBe(200);
    await refused(fixture, token);
    await fixture.gone(alice.name);
    expect(replica.provisioner.unready()).toBeUndefined();
    const advice = 'apply deploy/ again: it allows the server to watch them';
    expect(replica.complaints).toContainEqual(
      expect.stringContaining(`the watch on ClusterRoleBindings failed; ${advice}`),
    );
    await replica.stop();
  },
);
