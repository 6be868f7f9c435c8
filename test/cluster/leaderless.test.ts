// Every replica provisions the sign-ins that it receives. These tests check its answers without a leader, and what
// remains if it is killed or suspended between two calls, or if another replica works on the same sign-in.
import { describe, expect, inject } from 'vitest';
import { type Hook, hooked } from './hook.ts';
import { startReplica } from './replica.ts';
import { leaderless, lease, led, onlyHas, sentinel, spawnReplica } from './replicas.ts';
import { type Answered, absent, test as base, Fixture, Person, statusFor, within } from './support.ts';

const test = base.extend<{ fixture: Fixture }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  fixture: async ({}, use) => {
    const access = inject('clusters')[2];
    if (access === undefined) throw new Error(absent);
    const fixture = await Fixture.make(access);
    await use(fixture);
    fixture.kube.close();
  },
});

/** Resolves when the API server refuses a token for any reason. */
const isRefused = async (fixture: Fixture, token: string): Promise<void> =>
  expect([401, 403]).toContain(await statusFor(fixture.access, token));

// The changing calls of a new sign-in, after the first one.
const calls = [
  ['its ServiceAccount', 'POST', /\/serviceaccounts$/],
  ['its ClusterRoleBinding', 'POST', /\/clusterrolebindings$/],
  ['its status', 'PATCH', /\/status$/],
] as const;

describe.skipIf(absent !== undefined).concurrent('without a leader', () => {
  test.for(['killed', 'suspended'] as const)(
    'the other replica answers a sign-in at once while the leader is %s, and everything is cleaned up later',
    async (how, { fixture, role }) => {
      const first = await spawnReplica(fixture.replicaOptions({ identity: 'first' }));
      await led(fixture, 'first');
      const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
      // Signed in at the leader, which is unavailable when they end.
      const [ending, leaving] = [new Person(first.url, { role }), new Person(first.url, { role })];
      await Promise.all([ending.token(), leaving.token()]);
      if (how === 'killed') await first.kill();
      else first.pause();

      const alice = new Person(second.url, { role });
      const token = await within(5_000, alice.token());
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect(await within(5_000, alice.freshToken())).not.toBe(token);
      const other = await fixture.role(['get', 'list'], ['configmaps']);
      const promoted = alice.granted({ role: other });
      const wider = await within(5_000, promoted.token());
      expect(await statusFor(fixture.access, wider, '/api/v1/configmaps')).toBe(200);
      await isRefused(fixture, token);
      const { status } = await within(5_000, leaving.granted({}, second.url).logout());
      expect(status).toBe(200);
      const bob = new Person(second.url, { role });
      await within(5_000, bob.token());
      // During all of that the other replica has the lease.
      expect((await lease(fixture)).spec.holderIdentity).toBe('tka-server/first');
      expect(second.provisioner.leading()).toBe(false);

      await fixture.endAt(ending.name, Date.now());
      await led(fixture, 'second');
      await fixture.gone(ending.name);
      expect((await promoted.logout()).status).toBe(200);
      first.wake();
      expect(await statusFor(fixture.access, await bob.freshToken())).toBe(200);
      await onlyHas(fixture, bob);
      await Promise.all([first.kill(), second.stop()]);
      expect(second.complaints).toEqual([]);
    },
  );

  for (const [what, calling, path] of calls) {
    test.for(['before', 'after'] as const)(
      `a leader killed %s it writes ${what} leaves a sign-in that the other replica provisions`,
      async (when, { fixture, role }) => {
        const reached = Promise.withResolvers<void>();
        let armed = true;
        const proxy = await hooked(fixture.access, async ({ method, path: at, status }) => {
          if (!armed || method !== calling || !path.test(at) || (status === undefined) !== (when === 'before')) return;
          armed = false;
          reached.resolve();
          await new Promise(() => undefined);
        });
        const first = await spawnReplica(fixture.replicaOptions({ identity: 'first', access: proxy.access }));
        await led(fixture, 'first');
        const second = await startReplica(fixture.replicaOptions({ identity: 'second' }));
        const [alice, bob] = [new Person(second.url, { role }), new Person(second.url, { role })];
        const asked = Promise.allSettled([alice.granted({}, first.url).login()]);
        await reached.promise;
        await first.kill();
        await asked;
        proxy.close();
        const token = await within(5_000, alice.freshToken());
        expect(await statusFor(fixture.access, token)).toBe(200);
        await bob.token();
        expect((await alice.logout()).status).toBe(200);
        expect((await lease(fixture)).spec.holderIdentity).toBe('tka-server/first');
        await isRefused(fixture, token);
        await onlyHas(fixture, bob);
        await second.stop();
        expect(second.complaints).toEqual([]);
      },
    );
  }
});

describe.skipIf(absent !== undefined).concurrent('two replicas', () => {
  /** Starts two replicas without a leader; the calls of the first one pass the hook. */
  async function pair(fixture: Fixture, hook: Hook) {
    await leaderless(fixture);
    const proxy = await hooked(fixture.access, hook);
    const other = await startReplica(fixture.replicaOptions({ identity: 'other' }));
    const first = await startReplica(fixture.replicaOptions({ identity: 'first', access: proxy.access }));
    return {
      first,
      other,
      async [Symbol.asyncDispose]() {
        await first.stop();
        await other.stop();
        proxy.close();
      },
    };
  }

  /** A hook that holds the first matching call until `go` is called; `held` resolves when the call arrives. */
  function holding(method: string, path: RegExp) {
    const [held, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let armed = true;
    const hook: Hook = async (call) => {
      if (!armed || call.status !== undefined || call.method !== method || !path.test(call.path)) return;
      armed = false;
      held.resolve();
      await go.promise;
    };
    return { hook, held: held.promise, go: go.resolve };
  }

  for (const [what, method, path] of calls) {
    test(`a sign-in that ends before ${what} is written leaves nothing`, async ({ fixture, role }) => {
      const { hook, held, go } = holding(method, path);
      await using replicas = await pair(fixture, hook);
      const alice = new Person(replicas.other.url, { role });
      const asked = alice.granted({}, replicas.first.url).login();
      await held;
      expect((await alice.logout()).status).toBe(200);
      go();
      await asked;
      expect((await alice.status()).status).toBe(401);
      await fixture.gone(alice.name);
      await onlyHas(fixture);
    });

    test(`a sign-in that is replaced before ${what} is written takes nothing from the new one`, async ({
      fixture,
      role,
    }) => {
      const { hook, held, go } = holding(method, path);
      await using replicas = await pair(fixture, hook);
      const alice = new Person(replicas.other.url, { role });
      const asked = alice.granted({}, replicas.first.url).login();
      await held;
      expect((await alice.logout()).status).toBe(200);
      const token = await alice.token();
      const account = await fixture.account(alice.name);
      go();
      await asked;
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect((await fixture.account(alice.name))?.metadata.uid).toBe(account?.metadata.uid);
      await onlyHas(fixture, alice);
    });

    test(`a sign-in that is demoted before ${what} is written keeps nothing of its old role`, async ({
      fixture,
      role,
    }) => {
      const admin = await fixture.role(['get', 'list'], ['configmaps']);
      const { hook, held, go } = holding(method, path);
      await using replicas = await pair(fixture, hook);
      const alice = new Person(replicas.other.url, { role: admin, device: 'laptop' });
      const demoted = alice.granted({ role });
      const asked = alice.granted({}, replicas.first.url).login();
      await held;
      const token = await demoted.token();
      go();
      await asked;
      await fixture.gone(alice.name);
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect(await statusFor(fixture.access, token, '/api/v1/configmaps')).toBe(403);
      expect(await statusFor(fixture.access, await demoted.freshToken(), '/api/v1/configmaps')).toBe(403);
      await onlyHas(fixture);
    });
  }

  test('provision one sign-in at the same time: they create one account, and both answer', async ({
    fixture,
    role,
  }) => {
    let waiting = 0;
    const both = Promise.withResolvers<void>();
    const hook: Hook = async ({ method, path, status }) => {
      if (status !== undefined || method !== 'POST' || !path.endsWith('/serviceaccounts')) return;
      if (++waiting === 2) both.resolve();
      await both.promise;
    };
    const proxy = await hooked(fixture.access, hook);
    const options = { access: proxy.access };
    const replicas = [
      await startReplica(fixture.replicaOptions(options)),
      await startReplica(fixture.replicaOptions(options)),
    ];
    const alice = new Person(replicas[0]?.url ?? '', { role });
    const same = alice.granted({}, replicas[1]?.url ?? '');
    const answers: Answered<unknown>[] = await Promise.all([alice.login(), same.login()]);
    expect(answers.map(({ status }) => status)).toEqual([202, 202]);
    expect(waiting).toBeGreaterThanOrEqual(2);
    const tokens = await Promise.all([alice.freshToken(), same.freshToken()]);
    const account = await fixture.account(alice.name);
    for (const token of tokens) {
      expect(await statusFor(fixture.access, token)).toBe(200);
      const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
      expect(claims['kubernetes.io'].serviceaccount.uid).toBe(account?.metadata.uid);
    }
    await onlyHas(fixture, alice);
    for (const replica of replicas) await replica.stop();
    proxy.close();
    expect(replicas.flatMap(({ complaints }) => complaints)).toEqual([]);
  });

  test('let the leader provision a sign-in made by hand or by a Go server', async ({ fixture, role }) => {
    const leader = await startReplica(fixture.replicaOptions({ identity: 'leader' }));
    await led(fixture, 'leader');
    const seen = await sentinel(fixture, role);
    await seen();
    await leader.stop();
  });
});
