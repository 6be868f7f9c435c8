// A device's rights are those that the policy grants at its last request, and never more.
import { randomBytes } from 'node:crypto';
import { describe, expect } from 'vitest';
import { bindingName, namesOf, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { loginOf, newSignIn, rfc3339 } from '../../src/server/provisioner/sign-in.ts';
import { goSignIn } from './go-objects.ts';
import { type Replica, startReplica } from './replica.ts';
import { absent, type Fixture, Person, statusFor, test, until } from './support.ts';

const hour = 3_600_000;
const group = 'tka.specht-labs.de';

const claimsOf = (token: string): { sub: string; exp: number; iat: number } =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

/** Resolves when the API server refuses a token for any reason; it caches a valid one for 10 s. */
const refused = async (fixture: Fixture, token: string): Promise<void> =>
  expect([401, 403]).toContain(await statusFor(fixture.access, token));

const signInsOf = async (fixture: Fixture): Promise<string[]> => {
  const names: string[] = [];
  for await (const { metadata } of fixture.kube.list<TkaSignin>(paths.signIns(fixture.namespace)))
    names.push(metadata.name);
  return names.sort();
};

/** Returns a device of a user: a caller with its own ID. */
const on = (person: Person, device: string, more: Partial<Person['caller']> = {}): Person =>
  person.granted({ device, ...more });

describe.skipIf(absent !== undefined)('a device with a changed grant', () => {
  test.for(['kubeconfig', 'status', 'login'] as const)(
    'loses its old role at its next request, %s',
    async (question, { fixture, replica, role }) => {
      const admin = await fixture.role(['get', 'list'], ['configmaps']);
      const person = on(new Person(replica.url, { role: admin }), 'laptop');
      const token = await person.token();
      expect(await statusFor(fixture.access, token, '/api/v1/configmaps')).toBe(200);
      const before = await fixture.account(person.name);
      const demoted = person.granted({ role });
      const answer = await demoted[question]();
      await refused(fixture, token);
      expect((await fixture.account(person.name))?.metadata.uid).not.toBe(before?.metadata.uid);
      if (question === 'login') expect(answer).toMatchObject({ status: 202, body: { role } });
      else expect(answer).toMatchObject({ status: 401, body: { message: 'User not signed in' } });
      const fresh = await demoted.token();
      expect(await statusFor(fixture.access, fresh)).toBe(200);
      expect(await statusFor(fixture.access, fresh, '/api/v1/configmaps')).toBe(403);
      // Under another name: the API server would give a token that it still accepts the role of the old one.
      expect(await signInsOf(fixture)).toEqual([namesOf(demoted.caller)[1]]);
      await refused(fixture, token);
      expect(replica.complaints).toEqual([]);
    },
  );

  test.for([
    ['kubeconfig', 401],
    ['status', 401],
    ['login', 403],
    ['clusterInfo', 403],
  ] as const)(
    'loses everything without a grant, at its next request, %s',
    async ([question, answered], { fixture, replica, role }) => {
      const person = on(new Person(replica.url, { role }), 'laptop');
      const token = await person.token();
      expect(await statusFor(fixture.access, token)).toBe(200);
      const gone = person.granted({ role: '', periodMs: 0, revoked: true });
      expect((await gone[question]()).status).toBe(answered);
      await refused(fixture, token);
      await fixture.gone(person.name);
      // Nothing is left to sign in to again.
      expect((await gone[question]()).status).toBe(403);
      // Also for its sign-in under a name with a hash.
      const stranger = on(new Person(replica.url, { role, ownDomain: false }), 'laptop');
      const second = await stranger.token();
      await stranger.granted({ role: '', periodMs: 0, revoked: true })[question]();
      await refused(fixture, second);
      expect(await signInsOf(fixture)).toEqual([]);
      expect(replica.complaints).toEqual([]);
    },
  );

  test('loses its old role even if the new grant is invalid', async ({ fixture, replica, role }) => {
    for (const useless of [{ role: 'no-such-role' }, { periodMs: 60_000 }]) {
      const person = on(new Person(replica.url, { role }), 'laptop');
      const token = await person.token();
      expect((await person.granted(useless).login()).status).toBe(422);
      await refused(fixture, token);
      await fixture.gone(person.name);
    }
  });

  test('may log out without a grant', async ({ fixture, replica, role }) => {
    const person = on(new Person(replica.url, { role }), 'laptop');
    const token = await person.token();
    expect((await person.granted({ role: '', periodMs: 0, revoked: true }).logout()).status).toBe(200);
    await refused(fixture, token);
    await fixture.gone(person.name);
  });

  test('keeps a sign-in that ends within a shorter period, and loses a longer one', async ({
    fixture,
    replica,
    role,
  }) => {
    const person = on(new Person(replica.url, { role, periodMs: 2 * hour }), 'laptop');
    const token = await person.token();
    const shorter = person.granted({ periodMs: hour });
    await fixture.endAt(person.name, Date.now() + hour / 2);
    await until<TkaSignin>(
      fixture.access,
      paths.signIns(fixture.namespace),
      person.name,
      (found) => found?.status?.valid_until !== undefined && Date.parse(found.status.valid_until) < Date.now() + hour,
    );
    // Its end counts, not the period that was requested.
    expect((await shorter.status()).status).toBe(200);
    const { uid } = (await fixture.signIn(person.name))?.metadata ?? {};
    expect((await person.granted({ periodMs: 3 * hour }).login()).status).toBe(202);
    expect((await fixture.signIn(person.name))?.metadata.uid).toBe(uid);
    expect((await shorter.status()).status).toBe(401);
    await refused(fixture, token);
    const login = await shorter.login();
    expect(Date.parse(login.body.until)).toBeLessThanOrEqual(Date.now() + hour);
    expect((await shorter.status()).status).toBe(200);
  });
});

describe.skipIf(absent !== undefined)('two devices of one user', () => {
  test('with two roles both keep working, and neither gets the other’s', async ({ fixture, replica, role }) => {
    const admin = await fixture.role(['get', 'list'], ['configmaps']);
    const person = new Person(replica.url, { role });
    const [desk, phone] = [on(person, 'desk', { role: admin }), on(person, 'phone')];
    const tokens = [await desk.token(), await phone.token()] as const;
    for (let turn = 0; turn < 5; turn++) {
      for (const device of [desk, phone]) {
        const mine = device === desk ? '/api/v1/configmaps' : '/api/v1/namespaces';
        const theirs = device === desk ? '/api/v1/namespaces' : '/api/v1/configmaps';
        expect(await device.status()).toMatchObject({ status: 200, body: { role: device.caller.role } });
        const token = await device.freshToken();
        expect(await statusFor(fixture.access, token, mine)).toBe(200);
        expect(await statusFor(fixture.access, token, theirs)).toBe(403);
        if (turn % 2 === 1) expect(await device.login()).toMatchObject({ status: 202 });
      }
    }
    expect(await statusFor(fixture.access, tokens[0], '/api/v1/configmaps')).toBe(200);
    expect(await statusFor(fixture.access, tokens[1])).toBe(200);
    expect(await signInsOf(fixture)).toEqual([namesOf(phone.caller)[1], person.name]);
    // One is demoted: the other one's tokens stay valid.
    const demoted = desk.granted({ role });
    expect((await demoted.kubeconfig()).status).toBe(401);
    await refused(fixture, tokens[0]);
    expect(await statusFor(fixture.access, tokens[1])).toBe(200);
    expect(await statusFor(fixture.access, await demoted.token())).toBe(200);
    expect(await statusFor(fixture.access, tokens[1])).toBe(200);
    expect(replica.complaints).toEqual([]);
  });

  test('with two periods both keep working, each for its granted time', async ({ fixture, replica, role }) => {
    const person = new Person(replica.url, { role });
    const [desk, phone] = [on(person, 'desk', { periodMs: 8 * hour }), on(person, 'phone', { periodMs: hour })];
    const first = await desk.token();
    for (let turn = 0; turn < 3; turn++) {
      for (const device of [phone, desk]) {
        const { body } = await device.login();
        const left = Date.parse(body.until) - Date.now();
        expect(Math.abs(left - device.caller.periodMs)).toBeLessThan(10_000);
        const { exp } = claimsOf(await device.freshToken());
        expect(exp * 1000).toBeLessThanOrEqual(Date.parse(body.until));
        expect(Date.parse(body.until) - exp * 1000).toBeLessThan(5_000);
      }
    }
    expect(await statusFor(fixture.access, first)).toBe(200);
    expect(await signInsOf(fixture)).toEqual([person.name]);
    // A device that has not signed in gets no token, and a logout ends the sign-in on all devices.
    expect((await on(person, 'tablet').kubeconfig()).status).toBe(401);
    expect((await phone.logout()).status).toBe(200);
    await refused(fixture, first);
    expect((await desk.status()).status).toBe(401);
  });

  test('with two sign-ins at once at two replicas are both compared with the grant', async ({
    fixture,
    replica,
    role,
  }) => {
    const desk = on(new Person(replica.url, { role, periodMs: 8 * hour }), 'desk');
    const hashed = namesOf(desk.caller)[1] ?? '';
    const twin = newSignIn(hashed, desk.caller, Math.floor(Date.now() / 1000) * 1000);
    await fixture.kube.create(paths.signIns(fixture.namespace), twin);
    await until(fixture.access, paths.accounts(fixture.namespace), hashed, (found) => found !== undefined);
    await fixture.kube.create(
      paths.signIns(fixture.namespace),
      newSignIn(desk.name, { ...desk.caller, periodMs: hour }, Math.floor(Date.now() / 1000) * 1000),
    );
    expect((await desk.granted({ periodMs: hour }).status()).status).toBeLessThan(300);
    await fixture.gone(hashed);
    expect(await signInsOf(fixture)).toEqual([desk.name]);
  });

  test('lose all roles with a logout, which is reported as complete', async ({ fixture, replica, role }) => {
    const person = new Person(replica.url, { role });
    const [desk, phone] = [on(person, 'desk', { role: await fixture.role() }), on(person, 'phone')];
    const tokens = [await desk.token(), await phone.token()];
    const response = await fetch(`${replica.url}/logout`, {
      method: 'POST',
      headers: { 'x-caller': JSON.stringify(phone.caller) },
    });
    expect(response.status).toBe(200);
    expect(response.headers.get('tka-logout')).toBe('complete');
    expect(await signInsOf(fixture)).toEqual([]);
    for (const token of tokens) await refused(fixture, token);
    expect(await statusFor(fixture.access, await phone.token())).toBe(200);
  });
});

describe.skipIf(absent !== undefined)('the end of a sign-in', () => {
  test('is at most a period after the last login, however many there are', async ({ fixture, replica, role }) => {
    const periodMs = 66 * 60_000;
    const desk = on(new Person(replica.url, { role, periodMs }), 'desk');
    const phone = on(desk, 'phone', { periodMs: 2 * periodMs });
    const ids = new Set<string | undefined>();
    for (let i = 0; i < 60; i++) {
      const device = i % 3 === 2 ? phone : desk;
      const { status, body } = await device.login();
      expect(status).toBe(202);
      expect(Date.parse(body.until)).toBeLessThanOrEqual(Date.now() + device.caller.periodMs);
      ids.add((await fixture.signIn(desk.name))?.metadata.annotations?.[`${group}/attempt`]);
    }
    const { metadata } = (await fixture.signIn(desk.name)) ?? {};
    expect(Date.parse(metadata?.annotations?.[`${group}/last-attempted-sign-in`] ?? '')).toBeLessThanOrEqual(
      Date.now(),
    );
    expect(ids.has(undefined)).toBe(false);
    expect(replica.complaints).toEqual([]);
  });

  test('is a period from now, even if a replica with a clock that is ahead wrote the attempt', async ({
    fixture,
    replica,
    role,
  }) => {
    const desk = on(new Person(replica.url, { role, periodMs: hour }), 'desk');
    await desk.token();
    const ahead = rfc3339(Date.now() + 24 * hour);
    await fixture.kube.patch(paths.signIns(fixture.namespace, desk.name), {
      metadata: {
        annotations: {
          [`${group}/last-attempted-sign-in`]: ahead,
          [`${group}/attempt`]: 'ahead',
          [`${group}/devices`]: JSON.stringify({ desk: `${ahead} 1h0m0s` }),
        },
      },
    });
    await until<TkaSignin>(
      fixture.access,
      paths.signIns(fixture.namespace),
      desk.name,
      (found) => found?.status?.attempt === 'ahead',
    );
    const { status, body } = await desk.status();
    expect(status).toBe(200);
    expect(Date.parse(body.until)).toBeLessThanOrEqual(Date.now() + hour);
    expect(claimsOf(await desk.freshToken()).exp * 1000).toBeLessThanOrEqual(Date.now() + hour);
    const login = await desk.login();
    expect(Date.parse(login.body.until)).toBeLessThanOrEqual(Date.now() + hour);
    const { annotations } = (await fixture.signIn(desk.name))?.metadata ?? {};
    expect(Date.parse(annotations?.[`${group}/last-attempted-sign-in`] ?? '')).toBeLessThanOrEqual(Date.now());
  });

  test('is its deletion, even if a finalizer keeps it', async ({ fixture, replica, role }) => {
    const desk = on(new Person(replica.url, { role }), 'desk');
    const token = await desk.token();
    const path = paths.signIns(fixture.namespace, desk.name);
    await fixture.kube.patch(path, { metadata: { finalizers: ['example.com/slow'] } });
    const { uid } = (await fixture.signIn(desk.name))?.metadata ?? {};
    await fixture.kube.remove(path, { uid: uid ?? '' });
    await Promise.all([
      until(fixture.access, paths.accounts(fixture.namespace), desk.name, (found) => found === undefined),
      until(fixture.access, paths.bindings(), bindingName(desk.name), (found) => found === undefined),
    ]);
    await refused(fixture, token);
    expect((await desk.status()).status).toBe(401);
    expect((await desk.kubeconfig()).status).toBe(401);
    expect(replica.provisioner.sessions().get(role)).toBeUndefined();
    // A login creates another one, and does not touch this one.
    expect(await statusFor(fixture.access, await desk.token())).toBe(200);
    expect(await signInsOf(fixture)).toEqual([namesOf(desk.caller)[1], desk.name]);
    expect((await fixture.signIn(desk.name))?.metadata.deletionTimestamp).toBeDefined();
    await fixture.kube.patch(path, { metadata: { finalizers: null } });
    await until(fixture.access, paths.signIns(fixture.namespace), desk.name, (found) => found === undefined);
    expect((await desk.status()).status).toBe(200);
    // If both names are being deleted, the caller gets an error.
    const stranger = on(new Person(replica.url, { role, ownDomain: false }), 'desk');
    await stranger.token();
    const hashed = paths.signIns(fixture.namespace, namesOf(stranger.caller)[0] ?? '');
    await fixture.kube.patch(hashed, { metadata: { finalizers: ['example.com/slow'] } });
    await fixture.kube.remove(hashed, { uid: (await fixture.kube.get<TkaSignin>(hashed))?.metadata.uid ?? '' });
    const stuck = await stranger.login();
    expect(stuck).toMatchObject({ status: 503, body: { message: expect.stringContaining('still being deleted') } });
    await fixture.kube.patch(hashed, { metadata: { finalizers: null } });
    expect((await stranger.login()).status).toBe(202);
    expect(replica.complaints).toEqual([]);
  });
});

describe.skipIf(absent !== undefined)('login names', () => {
  const unique = () => randomBytes(4).toString('hex');

  test.for([
    ['first_last', true],
    ['alice+work', true],
    ['Alice', true],
    ['jürgen', true],
    ['山田', true],
    ['a'.repeat(70), true],
    ['b'.repeat(300), true],
    ['x/../y?z#%2f', true],
    ['plain.name-1', false],
  ] as const)('%s signs in', async ([base, ownDomain], { fixture, replica, role }) => {
    const username = `${base}${unique()}`;
    const person = new Person(replica.url, { role, username, ownDomain, device: 'desk' });
    const login = await person.login();
    expect(login).toMatchObject({ status: 202, body: { username } });
    expect(await person.status()).toMatchObject({ status: 200, body: { username } });
    const token = await person.freshToken();
    expect(await statusFor(fixture.access, token)).toBe(200);
    const [name = ''] = namesOf(person.caller);
    expect(claimsOf(token).sub).toBe(`system:serviceaccount:${fixture.namespace}:${name}`);
    for (const object of [await fixture.account(name), await fixture.binding(name)]) {
      expect(object && loginOf(object)).toBe(person.caller.login);
    }
    expect((await person.logout()).status).toBe(200);
    await fixture.gone(name);
    expect(replica.complaints).toEqual([]);
    // The name has a hash, or only the part before the @.
    const lines = replica.told.filter((line) => line.name === name);
    expect(lines.map(({ msg }) => msg)).toEqual(expect.arrayContaining(['access provisioned', 'access removed']));
    for (const line of lines) expect(line).toMatchObject({ login: person.caller.login });
  });

  test('give the plain name to the tailnet’s own domain, in any order of sign-ins', async ({
    fixture,
    replica,
    role,
  }) => {
    const username = `u${unique()}`;
    const guest = new Person(replica.url, { role, username, login: `${username}@gmail.com`, ownDomain: false });
    const own = new Person(replica.url, { role, username });
    for (const person of [guest, own]) await person.token();
    expect((await fixture.signIn(own.name)) && loginOf((await fixture.signIn(own.name)) as TkaSignin)).toBe(
      own.caller.login,
    );
    expect(await signInsOf(fixture)).toEqual([namesOf(guest.caller)[0], own.name]);
  });

  test('of sign-ins that 0.1.0 named work until they end', async ({ fixture, replica, role }) => {
    const username = `u${unique()}`;
    const guest = new Person(replica.url, { role, username, login: `${username}@gmail.com`, ownDomain: false });
    const own = new Person(replica.url, { role, username, device: 'desk' });
    const now = rfc3339(Date.now());
    const make = async (name: string, { caller }: Person): Promise<void> => {
      await fixture.kube.create(paths.signIns(fixture.namespace), {
        apiVersion: `${group}/v1alpha1`,
        kind: 'TkaSignin',
        metadata: {
          name,
          annotations: {
            [`${group}/last-attempted-sign-in`]: now,
            [`${group}/sign-in-valid-until`]: rfc3339(Date.now() + caller.periodMs),
            [`${group}/login`]: caller.login,
          },
        },
        spec: { username, role, validity_period: '30m0s' },
      });
      await until<TkaSignin>(
        fixture.access,
        paths.signIns(fixture.namespace),
        name,
        (found) => found?.status?.provisioned,
      );
    };
    const hashed = `tka-login-${username}-0123456789ab`;
    await make(own.name, guest);
    await make(hashed, own);
    for (const [person, name] of [
      [guest, own.name],
      [own, hashed],
    ] as const) {
      expect((await person.status()).status).toBe(200);
      const token = await person.freshToken();
      expect(claimsOf(token).sub).toBe(`system:serviceaccount:${fixture.namespace}:${name}`);
      expect((await person.login()).status).toBe(202);
      expect(await statusFor(fixture.access, token)).toBe(200);
    }
    expect(await signInsOf(fixture)).toEqual([hashed, own.name]);
    for (const person of [guest, own]) expect((await person.logout()).status).toBe(200);
    expect(await signInsOf(fixture)).toEqual([]);
    // A role other than today's is a demotion.
    const admin = await fixture.role();
    await make(own.name, own);
    expect((await own.granted({ role: admin }).status()).status).toBe(401);
    expect(await signInsOf(fixture)).toEqual([]);
    expect(replica.complaints).toEqual([]);
  });
});

describe.skipIf(absent !== undefined)('a sign-in of the Go server', () => {
  /** Returns a token of a sign-in's ServiceAccount, as the Go server issued it. */
  async function goToken(fixture: Fixture, name: string): Promise<string> {
    const spec = { expirationSeconds: 1800 };
    const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
    const path = `${paths.accounts(fixture.namespace, name)}/token`;
    const { status } = await fixture.kube.create<{ status: { token: string } }>(path, request);
    return status.token;
  }

  async function signedInAtGo(fixture: Fixture, { caller, name }: Person): Promise<string> {
    const { username, role } = caller;
    await goSignIn(fixture.kube, fixture.namespace, { username, role, now: Date.now() - 60_000 });
    return goToken(fixture, name);
  }

  /** A user who signed in at the Go server, the token of that sign-in, and a replica that started afterwards. */
  const moved = test.extend<{ alice: Person; token: string; moved: Replica; goRole: string }>({
    goRole: async ({ role }, use) => use(role),
    alice: async ({ role }, use) => use(new Person(() => url, { role, device: 'desk' })),
    token: async ({ fixture, alice, goRole }, use) => use(await signedInAtGo(fixture, alice.granted({ role: goRole }))),
    moved: async ({ fixture, token }, use) => {
      expect(await statusFor(fixture.access, token)).toBe(200);
      const replica = await startReplica(fixture.replicaOptions());
      url = replica.url;
      await use(replica);
      await replica.stop();
    },
  });
  let url = '';

  moved('ends with a logout of its user of the tailnet’s own domain', async ({ fixture, alice, token, moved }) => {
    const response = await fetch(`${moved.url}/logout`, {
      method: 'POST',
      headers: { 'x-caller': JSON.stringify(alice.caller) },
    });
    expect(response.status).toBe(200);
    // Its operator may still run, and clean up by name.
    expect(response.headers.get('tka-logout')).toBeNull();
    await refused(fixture, token);
    await fixture.gone(alice.name);
    expect((await alice.logout()).status).toBe(404);
  });

  moved(
    'continues after a login: the same identity, and its tokens stay valid',
    async ({ fixture, alice, token, moved }) => {
      const before = await fixture.account(alice.name);
      expect((await alice.status()).status).toBe(200);
      const fresh = await alice.token();
      expect(claimsOf(fresh).sub).toBe(claimsOf(token).sub);
      expect((await fixture.account(alice.name))?.metadata.uid).toBe(before?.metadata.uid);
      for (const each of [token, fresh]) expect(await statusFor(fixture.access, each)).toBe(200);
      expect(await signInsOf(fixture)).toEqual([alice.name]);
      for (const object of [await fixture.account(alice.name), await fixture.binding(alice.name)]) {
        expect(object && loginOf(object)).toBe(alice.caller.login);
      }
      // A Go extension drops fields that it does not know.
      const annotations = { [`${group}/login`]: null, [`${group}/devices`]: null, [`${group}/attempt`]: null };
      await fixture.kube.patch(paths.signIns(fixture.namespace, alice.name), { metadata: { annotations } });
      expect((await alice.status()).status).toBe(200);
      expect((await alice.logout()).status).toBe(200);
      await refused(fixture, token);
      await fixture.gone(alice.name);
      expect(moved.complaints).toEqual([]);
    },
  );

  const demoted = moved.extend<{ goRole: string }>({
    goRole: async ({ fixture }, use) => use(await fixture.role(['list'], ['namespaces', 'secrets'])),
  });
  demoted.for(['kubeconfig', 'login'] as const)(
    'of another role ends at the next request, %s',
    async (question, { fixture, alice, token, moved }) => {
      expect((await alice[question]()).status).toBe(question === 'login' ? 202 : 401);
      await refused(fixture, token);
      await fixture.gone(alice.name);
      expect(await statusFor(fixture.access, await alice.token())).toBe(200);
      await refused(fixture, token);
      expect(moved.complaints).toEqual([]);
    },
  );

  moved('is refused to another user at once', async ({ fixture, role, alice, token, moved }) => {
    const { username } = alice.caller;
    const guest = new Person(moved.url, { role, username, login: `${username}@gmail.com`, ownDomain: false });
    // As soon as the replica knows the sign-ins.
    await moved.provisioner.signIns.signIn({ ...alice.caller, username: 'other', login: 'other@example.com' });
    const told = {
      status: 422,
      body: {
        message: `Error provisioning access for user ${username}`,
        advice: [
          `ask the cluster's administrator to remove it: kubectl delete tkasignin ${alice.name} -n ${fixture.namespace}`,
        ],
        cause: {
          message: `the sign-in "${alice.name}" of another TKA server does not state the domain of its user`,
        },
      },
    };
    const start = performance.now();
    expect(await guest.login()).toEqual(told);
    expect(performance.now() - start).toBeLessThan(1_000);
    expect((await guest.status()).status).toBe(401);
    expect((await guest.kubeconfig()).status).toBe(401);
    expect(await guest.logout()).toEqual(told);
    expect(await statusFor(fixture.access, token)).toBe(200);
    // As soon as it states its user, others get a sign-in of their own.
    await alice.login();
    await until<TkaSignin>(
      fixture.access,
      paths.signIns(fixture.namespace),
      alice.name,
      (found) => found && loginOf(found) !== undefined,
    );
    expect(await statusFor(fixture.access, await guest.token())).toBe(200);
    expect(moved.complaints).toEqual([]);
  });
});
