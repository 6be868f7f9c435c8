// Faults that the provisioner survives: a cut watch, a watch that gets 410 Gone, an API server that stops and restarts.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Watch } from '@kubernetes/client-node';
import { describe, expect, inject } from 'vitest';
import { paths } from '../../src/server/provisioner/objects.ts';
import type { ErrorBody } from '../../src/tka/types.ts';
import { startRelay } from '../fixtures/relay.ts';
import { type Access, type ApiServer, kubeConfigFor, startApiServer } from './api-server.ts';
import { startReplica } from './replica.ts';
import { absent, test as base, Fixture, Person, statusFor } from './support.ts';

const sample = (name: string): ErrorBody =>
  JSON.parse(fs.readFileSync(path.join(import.meta.dirname, '../samples', name), 'utf8').split('\n\n')[1] ?? '');

/** A test with its own API server, which it may stop. */
const test = base.extend<{ server: ApiServer; own: Fixture }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  server: async ({}, use) => {
    const assets = inject('assets');
    if (typeof assets === 'string') throw new Error(assets);
    const server = await startApiServer(assets, { url: inject('etcd') }, '127.0.0.14');
    await use(server);
    await server.stop();
  },
  own: async ({ server }, use) => {
    const fixture = await Fixture.make({ server: server.server, ca: server.ca, token: server.token });
    await use(fixture);
    fixture.kube.close();
  },
});

describe.skipIf(absent !== undefined)('faults', () => {
  test('a watch that is cut continues, and misses nothing', async ({ fixture, role }) => {
    const relay = await startRelay(fixture.access.server);
    const replica = await startReplica(fixture.replicaOptions({ access: { ...fixture.access, server: relay.url } }));
    try {
      const alice = new Person(replica.url, { role });
      await alice.token();
      relay.cut();
      // Deleted while the watch was down.
      const signIn = await fixture.signIn(alice.name);
      await fixture.kube.remove(paths.signIns(fixture.namespace, alice.name), { uid: signIn?.metadata.uid ?? '' });
      const down = await new Person(replica.url, { role }).login();
      expect(down.status).toBe(500);
      await relay.heal();
      await fixture.gone(alice.name);
      expect(await statusFor(fixture.access, await new Person(replica.url, { role }).token())).toBe(200);
    } finally {
      await replica.stop();
      relay.close();
    }
  });

  test('a watch that gets 410 Gone lists again; the provisioner waits for an API server that restarts', async ({
    server,
    own,
  }) => {
    const relay = await startRelay(server.server);
    const replica = await startReplica(own.replicaOptions({ access: { ...own.access, server: relay.url } }));
    try {
      const role = await own.role();
      const [alice, bob] = [new Person(replica.url, { role }), new Person(replica.url, { role })];
      await Promise.all([alice.token(), bob.token()]);
      const heard = (await own.signIn(bob.name))?.metadata.resourceVersion ?? '';

      relay.cut();
      const signIn = await own.signIn(alice.name);
      await own.kube.remove(paths.signIns(own.namespace, alice.name), { uid: signIn?.metadata.uid ?? '' });
      await own.endAt(bob.name, Date.now());
      await server.restart();
      // The last version of the watch is now too old to continue from; a server that has just started answers 429.
      let told = await watchFrom(own, heard);
      while (told === 429) told = await watchFrom(own, heard);
      expect(told).toBe(410);
      await relay.heal();

      await Promise.all([own.gone(alice.name), own.gone(bob.name)]);
      expect(await statusFor(own.access, await new Person(replica.url, { role }).token())).toBe(200);
    } finally {
      await replica.stop();
      relay.close();
    }
  });

  test('a connection that loses everything is dropped: sign-ins work within 15 s, tokens within 35 s', async ({
    fixture,
    role,
  }) => {
    const relay = await startRelay(fixture.access.server);
    const replica = await startReplica(fixture.replicaOptions({ access: { ...fixture.access, server: relay.url } }));
    try {
      await new Person(replica.url, { role }).token();
      relay.silence();
      const start = performance.now();
      const after = () => performance.now() - start;
      let signedIn: Person | undefined;
      while (signedIn === undefined) {
        const person = new Person(replica.url, { role });
        if ((await person.login()).status === 202) signedIn = person;
      }
      expect(after()).toBeLessThan(15_000);
      let status: number | undefined;
      while (status !== 200) status = (await signedIn.kubeconfig()).status;
      expect(after()).toBeLessThan(35_000);
      // Neither waits for the watch, which is replaced after its own timeout.
      await expect.poll(() => replica.provisioner.unready(), { timeout: 60_000 }).toBe(undefined);
    } finally {
      await replica.stop();
      relay.close();
    }
  });

  test.each(['error', 'stop', 'constructor'])('a TkaSignin named %s stops nothing', async (name) => {
    const [access] = inject('clusters');
    const fixture = await Fixture.make(access as Access);
    const role = await fixture.role();
    const create = () =>
      fixture.kube.create(paths.signIns(fixture.namespace), {
        apiVersion: 'tka.specht-labs.de/v1alpha1',
        kind: 'TkaSignin',
        metadata: { name },
        spec: { username: name, role, validity_period: '30m' },
      });
    let replica = await startReplica(fixture.replicaOptions());
    try {
      await new Person(replica.url, { role }).token();
      await create();
      expect(await statusFor(fixture.access, await new Person(replica.url, { role }).token())).toBe(200);
      // The next process finds it in its first list.
      await replica.stop();
      replica = await startReplica(fixture.replicaOptions());
      expect(await statusFor(fixture.access, await new Person(replica.url, { role }).token())).toBe(200);
      expect(replica.provisioner.unready()).toBe(undefined);
    } finally {
      await replica.stop();
      fixture.kube.close();
    }
  });

  test('while the API server is down, each answer reports it as the Go server does', async ({ server, own }) => {
    const replica = await startReplica(own.replicaOptions());
    try {
      const role = await own.role();
      const alice = new Person(replica.url, { role });
      const token = await alice.token();
      await server.stop();
      const refused = `connect ECONNREFUSED ${new URL(server.server).host}`;

      const login = await alice.login();
      expect(login.status).toBe(500);
      expect(login.body).toEqual({ ...sample('login-api-server-down.http'), cause: { message: expect.anything() } });
      expect(JSON.stringify(login.body)).toContain(refused);
      const kubeconfig = await alice.kubeconfig();
      expect(kubeconfig.status).toBe(500);
      const { message, advice } = sample('kubeconfig-api-server-down.http');
      expect(kubeconfig.body).toEqual({ message, advice, cause: { message: expect.anything() } });
      for (const answered of [await alice.status(), await alice.logout()]) {
        expect(answered.status).toBe(500);
        expect(JSON.stringify(answered.body)).toContain(refused);
        expect(JSON.stringify(answered.body)).not.toContain(token);
      }
    } finally {
      await replica.stop();
    }
  });
});

/** Returns the code of the first error that a watch from this version gets. */
function watchFrom(fixture: Fixture, resourceVersion: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    void new Watch(kubeConfigFor(fixture.access)).watch(
      paths.signIns(fixture.namespace),
      { resourceVersion, timeoutSeconds: 2 },
      (phase, object) => {
        if (phase === 'ERROR') resolve(object.code);
      },
      (error) => resolve(error?.statusCode),
    );
  });
}
