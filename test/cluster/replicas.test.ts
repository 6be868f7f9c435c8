// Several replicas, and none: which one leads, which ones follow, and what remains.
import { describe, expect, inject } from 'vitest';
import type { Kube } from '../../src/server/kubernetes/kube.ts';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { bindingName, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { Reconciler, Stale } from '../../src/server/provisioner/reconciler.ts';
import { newSignIn } from '../../src/server/provisioner/sign-in.ts';
import { startReplica } from './replica.ts';
import { lease, led, spawnReplica } from './replicas.ts';
import { absent, test as base, Fixture, Person, statusFor, until } from './support.ts';

const test = base.extend<{ fixture: Fixture }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  fixture: async ({}, use) => {
    const access = inject('clusters')[1];
    if (access === undefined) throw new Error(absent);
    const fixture = await Fixture.make(access);
    await use(fixture);
    fixture.kube.close();
  },
});

describe.skipIf(absent !== undefined).concurrent('replicas', () => {
  test('write the lease as client-go does, and release it', async ({ fixture }) => {
    const replica = await startReplica(fixture.replicaOptions({ identity: 'first' }));
    await led(fixture, 'first');
    const { spec } = await lease(fixture);
    expect(spec).toMatchObject({ leaseDurationSeconds: 15, leaseTransitions: 0 });
    expect(spec.acquireTime).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    await until<Lease>(
      fixture.access,
      paths.leases(fixture.namespace),
      leaseName,
      (found) => found?.spec?.renewTime !== spec.renewTime && found?.spec?.acquireTime === spec.acquireTime,
    );
    await replica.stop();
    expect((await lease(fixture)).spec).toMatchObject({ leaseDurationSeconds: 1, leaseTransitions: 0 });
    expect((await lease(fixture)).spec.holderIdentity ?? '').toBe('');
    const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
    await led(fixture, 'second');
    expect((await lease(fixture)).spec.leaseTransitions).toBe(1);
    await second.stop();
    expect([...replica.complaints, ...second.complaints]).toEqual([]);
  });

  test('respect another program’s lease until it runs out', async ({ fixture, role }) => {
    const now = (): string => new Date().toISOString().replace('Z', '000Z');
    const theirs = await fixture.kube.create<Lease>(paths.leases(fixture.namespace), {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: leaseName },
      spec: {
        holderIdentity: 'the Go operator',
        leaseDurationSeconds: 9,
        acquireTime: now(),
        // The time in the lease may be wrong.
        renewTime: '2001-01-01T00:00:00.000000Z',
        leaseTransitions: 7,
      },
    });
    const start = performance.now();
    const replica = await startReplica(fixture.replicaOptions({ identity: 'ours' }));
    const alice = new Person(replica.url, { role });
    // A sign-in does not wait for it.
    expect(await statusFor(fixture.access, await alice.token())).toBe(200);
    expect((await lease(fixture)).spec.holderIdentity).toBe(theirs.spec?.holderIdentity);
    expect(replica.provisioner.leading()).toBe(false);
    await led(fixture, 'ours');
    expect(performance.now() - start).toBeGreaterThan(8_900);
    expect((await lease(fixture)).spec.leaseTransitions).toBe(8);
    expect((await lease(fixture)).spec.acquireTime).not.toBe(theirs.spec?.acquireTime);
    expect((await alice.login()).status).toBe(202);
    expect(await statusFor(fixture.access, await alice.freshToken())).toBe(200);
    await replica.stop();
  });

  test('serve both while one leads; the other takes over', async ({ fixture, role }) => {
    const first = await startReplica(fixture.replicaOptions({ identity: 'first' }));
    await led(fixture, 'first');
    const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
    const [alice, bob] = [new Person(first.url, { role }), new Person(second.url, { role })];
    const tokens = await Promise.all([alice.token(), bob.token()]);
    expect(second.provisioner.leading()).toBe(false);
    for (const token of tokens) expect(await statusFor(fixture.access, token)).toBe(200);
    // One user at both at once.
    const carl = new Person(first.url, { role });
    const there = new Person(second.url, carl.caller);
    const logins = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? carl : there).login()));
    expect(new Set(logins.map(({ status }) => status))).toEqual(new Set([202]));
    expect(await statusFor(fixture.access, await there.freshToken())).toBe(200);
    await first.stop();
    await led(fixture, 'second');
    await fixture.endAt(alice.name, Date.now());
    await fixture.gone(alice.name);
    expect(await statusFor(fixture.access, await new Person(second.url, { role }).token())).toBe(200);
    await second.stop();
    expect([...first.complaints, ...second.complaints]).toEqual([]);
  });

  test('replace a killed leader when its lease has run out', async ({ fixture, role }) => {
    const first = await spawnReplica(fixture.replicaOptions({ identity: 'first' }));
    await led(fixture, 'first');
    const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
    const alice = new Person(second.url, { role });
    await alice.token();
    await first.kill();
    const killed = performance.now();
    await fixture.endAt(alice.name, Date.now());
    const bob = new Person(second.url, { role });
    expect((await bob.login()).status).toBe(202);
    // A logout needs no leader: the replica removes the access itself.
    const carl = new Person(second.url, { role });
    await carl.login();
    expect((await carl.logout()).status).toBe(200);
    await led(fixture, 'second');
    expect(performance.now() - killed).toBeLessThan(25_000);
    await fixture.gone(alice.name);
    await until(fixture.access, paths.bindings(), bindingName(bob.name), (found) => found !== undefined);
    expect(await statusFor(fixture.access, await bob.token())).toBe(200);
    await second.stop();
  });

  test('are safe from a leader that slept through the end of its lease', async ({ fixture, role }) => {
    const first = await spawnReplica(fixture.replicaOptions({ identity: 'first', resyncMs: 1_000 }));
    await led(fixture, 'first');
    const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
    const alice = new Person(second.url, { role });
    await alice.token();
    first.pause();
    await led(fixture, 'second');
    await alice.logout();
    const token = await alice.token();
    first.wake();
    const { renewTime } = (await lease(fixture)).spec;
    await until<Lease>(fixture.access, paths.leases(fixture.namespace), leaseName, (found) => {
      expect(found?.spec?.holderIdentity).toBe('tka-server/second');
      return Date.parse(found?.spec?.renewTime ?? '') - Date.parse(renewTime ?? '') > 3_000;
    });
    expect(await statusFor(fixture.access, token)).toBe(200);
    await Promise.all([first.kill(), second.stop()]);
  });

  test('give a sign-in that is replaced during its provisioning nothing of the old one', async ({ fixture, role }) => {
    const [old, fresh] = [role, await fixture.role(['get'], ['configmaps'])];
    const name = `tka-user-${fixture.namespace}`;
    const collection = paths.signIns(fixture.namespace);
    const make = (as: string): Promise<TkaSignin> => {
      const caller = { username: fixture.namespace, login: 'x@example.com', role: as, periodMs: 1_800_000 };
      // Within one second, so that only the object distinguishes the two attempts.
      return fixture.kube.create(collection, newSignIn(name, caller, Math.floor(Date.now() / 60_000) * 60_000));
    };
    const theirs = await make(old);
    let replaced = false;
    const kube: Kube = {
      ...fixture.kube,
      async get<T>(path: string) {
        const found = await fixture.kube.get<T>(path);
        if (path.startsWith(collection) && !replaced) {
          replaced = true;
          await fixture.kube.remove(paths.signIns(fixture.namespace, name), { uid: theirs.metadata.uid });
          await make(fresh);
        }
        return found;
      },
    };
    const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
    const reconciler = new Reconciler({ kube, namespace: fixture.namespace, log });
    await expect(reconciler.reconcile(name)).rejects.toThrow(Stale);
    expect((await fixture.signIn(name))?.status?.provisioned ?? false).toBe(false);
    expect(await fixture.account(name)).toBeUndefined();
    expect(await fixture.binding(name)).toBeUndefined();
    await reconciler.reconcile(name);
    expect((await fixture.binding(name))?.roleRef.name).toBe(fresh);
    expect((await fixture.signIn(name))?.status?.provisioned).toBe(true);
  });

  test('clean up what a process killed between login and expiry left, after the next start', async ({
    fixture,
    role,
  }) => {
    const first = await spawnReplica(fixture.replicaOptions({ identity: 'first' }));
    const people = Array.from({ length: 5 }, () => new Person(first.url, { role }));
    const tokens = await Promise.all(people.map((person) => person.token()));
    await first.kill();
    for (const person of people.slice(0, 4)) await fixture.endAt(person.name, Date.now());
    const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
    await Promise.all(people.slice(0, 4).map((person) => fixture.gone(person.name)));
    expect([401, 403]).toContain(await statusFor(fixture.access, tokens[0] ?? ''));
    expect(await statusFor(fixture.access, tokens[4] ?? '')).toBe(200);
    await second.stop();
  });

  test('release the lease on SIGTERM', async ({ fixture }) => {
    const first = await spawnReplica(fixture.replicaOptions({ identity: 'first' }));
    await led(fixture, 'first');
    await first.kill('SIGTERM');
    expect((await lease(fixture)).spec.holderIdentity ?? '').toBe('');
  });

  test('remove orphans at start and at each resync, but no objects of other programs', async ({ fixture, role }) => {
    const uid = '00000000-0000-4000-8000-000000000000';
    const owner = { apiVersion: 'tka.specht-labs.de/v1alpha1', kind: 'TkaSignin', name: 'x', uid, controller: true };
    async function leave(name: string, how: 'ours' | 'theirs' | 'not ours'): Promise<void> {
      const metadata = { name, ...(how === 'not ours' ? {} : { ownerReferences: [owner] }) };
      await fixture.kube.create(paths.accounts(fixture.namespace), {
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata,
      });
      const labels = { 'tka.specht-labs.de/sign-in-uid': uid, 'tka.specht-labs.de/namespace': fixture.namespace };
      await fixture.kube.create(paths.bindings(), {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata: { name: bindingName(name), ...(how === 'ours' ? { labels } : {}) },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
        subjects: [{ kind: 'ServiceAccount', name, namespace: fixture.namespace }],
      });
    }
    const suffix = fixture.namespace.slice(4);
    await leave(`tka-user-a-${suffix}`, 'ours');
    await leave(`tka-user-b-${suffix}`, 'theirs');
    await leave(`other-${suffix}`, 'not ours');
    const replica = await startReplica(fixture.replicaOptions({ resyncMs: 1_000 }));
    await Promise.all([fixture.gone(`tka-user-a-${suffix}`), fixture.gone(`tka-user-b-${suffix}`)]);
    await leave(`tka-user-c-${suffix}`, 'ours');
    await fixture.gone(`tka-user-c-${suffix}`);
    expect(await fixture.account(`other-${suffix}`)).toBeDefined();
    expect(await fixture.binding(`other-${suffix}`)).toBeDefined();
    await replica.stop();
    expect(replica.complaints).toEqual([]);
  });
});
