// Sign-ins through a login server: a login that comes directly, one through the login server "eu" and one through "us"
// never use, extend, end or count for each other.
import { randomBytes } from 'node:crypto';
import { describe, expect } from 'vitest';
import { signAssertion } from '../../src/server/federation/assertion.ts';
import type { OwnTunnel } from '../../src/server/federation/contract.ts';
import { JoinedApi } from '../../src/server/federation/joined-api.ts';
import { newKey } from '../../src/server/federation/keys.ts';
import { type Caller, deviceLogin, Refusal } from '../../src/server/http/contract.ts';
import { annotation, bindingName, namesOf, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { throughOf } from '../../src/server/provisioner/sign-in.ts';
import { goOperator, goSignIn } from './go-objects.ts';
import { type Replica, startReplica } from './replica.ts';
import { absent, type Fixture, Person, statusFor, test, until } from './support.ts';

const hour = 3_600_000;

/** Resolves when the API server refuses a token for any reason; it caches a valid one for 10 s. */
const refused = async (fixture: Fixture, token: string): Promise<void> =>
  expect([401, 403]).toContain(await statusFor(fixture.access, token));
const works = async (fixture: Fixture, token: string): Promise<void> =>
  expect(await statusFor(fixture.access, token)).toBe(200);

async function signInsOf(fixture: Fixture): Promise<TkaSignin[]> {
  const found: TkaSignin[] = [];
  for await (const signIn of fixture.kube.list<TkaSignin>(paths.signIns(fixture.namespace))) found.push(signIn);
  return found.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
}

const uidsOf = async (fixture: Fixture): Promise<string[]> => (await signInsOf(fixture)).map((one) => one.metadata.uid);

const withoutGrant = { role: '', periodMs: 0, revoked: true } as const;

/** The same person, with the same device, directly and through two login servers. */
function ways(url: string, caller: Partial<Caller> & Pick<Caller, 'role'>) {
  const direct = new Person(url, { device: 'laptop', periodMs: hour, ...caller });
  const [eu, us] = ['eu', 'us'].map((through) => direct.granted({ through, ownDomain: false })) as [Person, Person];
  return { direct, eu, us };
}

describe.skipIf(absent !== undefined)('a sign-in through a login server', () => {
  test('has a name of its own, and names the login server everywhere', async ({ fixture, replica, role }) => {
    // Even if the login server said that the domain is its own.
    const eu = ways(replica.url, { role }).eu.granted({ ownDomain: true });
    const token = await eu.token();
    await works(fixture, token);
    const [name = '', ...others] = namesOf(eu.caller);
    expect(name).toMatch(/^tka-login-/);
    expect(others).toEqual([]);
    const told = { [annotation.login]: eu.caller.login, [annotation.loginServer]: 'eu' };
    const parts = [await fixture.signIn(name), await fixture.account(name), await fixture.binding(name)];
    for (const part of parts) expect(part?.metadata.annotations).toMatchObject(told);
    expect(replica.provisioner.overview()).toEqual([
      expect.objectContaining({ name, login: eu.caller.login, loginServer: 'eu', state: 'active', account: name }),
    ]);
    expect(replica.told).toContainEqual(
      expect.objectContaining({ msg: 'access provisioned', name, login: eu.caller.login, login_server: 'eu' }),
    );
    const about = { login: eu.caller.login, login_server: 'eu', account: name };
    expect(replica.audit.map(({ event }) => event)).toEqual(['sign-in', 'token']);
    for (const event of replica.audit) expect(event).toMatchObject(about);
    await expect
      .poll(async () => (await fixture.events(name)).map(({ note }) => note), { timeout: 10_000 })
      .toEqual([expect.stringMatching(/^access with role ".+" until .+ through the login server "eu"$/)]);
    expect((await eu.logout()).status).toBe(200);
    await refused(fixture, token);
    await fixture.gone(name);
    expect(replica.complaints).toEqual([]);
  });

  test('is another one than a direct one, and than one through another login server', async ({
    fixture,
    replica,
    role,
  }) => {
    const { direct, eu, us } = ways(replica.url, { role });
    const all = [direct, eu, us];
    const tokens = await Promise.all(all.map((person) => person.token()));
    expect(new Set(tokens.map((token) => Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())).size).toBe(3);
    const before = await uidsOf(fixture);
    expect(before).toHaveLength(3);
    expect((await signInsOf(fixture)).map(throughOf).sort()).toEqual(['eu', 'us', undefined].sort());
    // Extending one does not change another.
    const until = (await us.status()).body.until;
    expect((await eu.granted({ periodMs: 3 * hour }).login()).status).toBe(202);
    expect((await us.status()).body.until).toBe(until);
    expect(await uidsOf(fixture)).toEqual(before);
    for (const token of tokens) await works(fixture, token);
    // Each logout ends one.
    for (const [i, person] of all.entries()) {
      expect((await person.logout()).status).toBe(200);
      await refused(fixture, tokens[i] ?? '');
      for (const other of tokens.slice(i + 1)) await works(fixture, other);
      expect((await person.status()).status).toBe(401);
      expect((await person.logout()).status).toBe(404);
    }
    expect(await signInsOf(fixture)).toEqual([]);
    expect(replica.complaints).toEqual([]);
  });

  test('gives no token to those who come another way', async ({ fixture, replica, role }) => {
    const { direct, eu, us } = ways(replica.url, { role });
    for (const [mine, ...others] of [
      [direct, eu, us],
      [eu, direct, us],
      [us, eu, direct],
    ] as const) {
      const token = await mine.token();
      for (const other of others) {
        expect((await other.status()).status).toBe(401);
        expect((await other.kubeconfig()).status).toBe(401);
        expect((await other.logout()).status).toBe(404);
      }
      await works(fixture, token);
      expect((await mine.logout()).status).toBe(200);
    }
  });

  test.for(['kubeconfig', 'status', 'login', 'clusterInfo'] as const)(
    'ends with its grant, at the next request, %s; those that came another way stay',
    async (question, { fixture, replica, role }) => {
      const { direct, eu, us } = ways(replica.url, { role });
      for (const [mine, ...others] of [
        [direct, eu, us],
        [eu, direct, us],
      ] as const) {
        const token = await mine.token();
        const rest = await Promise.all(others.map((person) => person.token()));
        expect([401, 403]).toContain((await mine.granted(withoutGrant)[question]()).status);
        await refused(fixture, token);
        for (const other of rest) await works(fixture, other);
        expect(await signInsOf(fixture)).toHaveLength(2);
      }
      expect(replica.complaints).toEqual([]);
    },
  );

  test('is demoted alone: another role, and a shorter period', async ({ fixture, replica, role }) => {
    const admin = await fixture.role(['get', 'list'], ['configmaps', 'namespaces']);
    const { direct, eu, us } = ways(replica.url, { role: admin });
    const [one, two, three] = (await Promise.all([direct, eu, us].map((person) => person.token()))) as [
      string,
      string,
      string,
    ];
    const demoted = eu.granted({ role });
    expect((await demoted.kubeconfig()).status).toBe(401);
    await refused(fixture, two);
    const fresh = await demoted.token();
    expect(await statusFor(fixture.access, fresh, '/api/v1/configmaps')).toBe(403);
    // Less time than is left.
    expect((await us.granted({ periodMs: hour / 2 }).status()).status).toBe(401);
    await refused(fixture, three);
    await works(fixture, fresh);
    expect(await statusFor(fixture.access, one, '/api/v1/configmaps')).toBe(200);
    const reasons = replica.audit.filter(({ event }) => event === 'revocation');
    expect(reasons.map(({ login_server, reason }) => [login_server, reason])).toEqual([
      ['eu', `the policy grants the role "${role}"`],
      ['us', 'the policy grants less time'],
    ]);
    expect(replica.complaints).toEqual([]);
  });

  test('of a tagged device ends when the device belongs to a person there, and not elsewhere', async ({
    fixture,
    replica,
    role,
  }) => {
    const device = `n${randomBytes(4).toString('hex')}`;
    const tagged = { node: 'ci-7.example.ts.net', tags: ['tag:ci'] };
    const machine = { username: device, login: deviceLogin(device), device, tagged, role, ownDomain: false };
    const tokens = new Map<string | undefined, string>();
    for (const through of [undefined, 'eu', 'us']) {
      const one = new Person(replica.url, { ...machine, ...(through !== undefined && { through }) });
      tokens.set(through, await one.token());
    }
    // Another tailnet may have a device with the same ID.
    const person = ways(replica.url, { role, device });
    expect((await person.eu.status()).status).toBe(401);
    await refused(fixture, tokens.get('eu') ?? '');
    await works(fixture, tokens.get('us') ?? '');
    await works(fixture, tokens.get(undefined) ?? '');
    expect((await person.direct.status()).status).toBe(401);
    await refused(fixture, tokens.get(undefined) ?? '');
    await works(fixture, tokens.get('us') ?? '');
  });

  test('needs no domain: a sign-in of the Go server neither blocks it nor belongs to it', async ({
    fixture,
    replica,
    role,
  }) => {
    const { direct, eu } = ways(replica.url, { role });
    await goSignIn(fixture.kube, fixture.namespace, { username: direct.caller.username, role });
    // Its name is that of the Go server, so the replica knows it.
    expect((await direct.status()).status).toBe(200);
    expect((await eu.status()).status).toBe(401);
    expect((await eu.logout()).status).toBe(404);
    await works(fixture, await eu.token());
    expect((await eu.logout()).status).toBe(200);
    expect((await direct.status()).status).toBe(200);
  });

  test('is refused while a Go operator leads, which cannot distinguish it', async ({ fixture, role }) => {
    const operator = await goOperator(fixture.kube, fixture.namespace, [fixture.namespace]);
    const replica = await startReplica(fixture.replicaOptions());
    try {
      const { direct, eu } = ways(replica.url, { role });
      await expect.poll(() => replica.provisioner.goLeading(), { timeout: 10_000 }).toBe(true);
      expect(await eu.login()).toMatchObject({
        status: 422,
        body: { cause: { message: expect.stringMatching(/cannot distinguish "tka-login-/) } },
      });
      expect(await signInsOf(fixture)).toEqual([]);
      expect((await direct.login()).status).toBe(202);
    } finally {
      await replica.stop();
      await operator.stop();
    }
  });

  test('and a direct one at the same moment, many times, do not disturb each other', async ({
    fixture,
    replica,
    role,
  }) => {
    const { direct, eu, us } = ways(replica.url, { role });
    const all = [direct, eu, us];
    for (let turn = 0; turn < 4; turn++) {
      const tokens = await Promise.all(all.map((person) => person.token()));
      await Promise.all(tokens.map((token) => works(fixture, token)));
      const leaving = all[turn % 3];
      await Promise.all(all.map((person) => (person === leaving ? person.logout() : person.login())));
      expect((await leaving?.status())?.status).toBe(401);
      for (const person of all) if (person !== leaving) expect((await person.status()).status).toBe(200);
    }
    expect(replica.complaints).toEqual([]);
  });
});

describe.skipIf(absent !== undefined)('the end of all sign-ins through a login server', () => {
  const pair = test.extend<{ second: Replica }>({
    second: async ({ fixture, replica: _ }, use) => {
      const second = await startReplica(fixture.replicaOptions());
      await use(second);
      await second.stop();
    },
  });

  pair('ends those, of all replicas and people, and no others', async ({ fixture, replica, second, role }) => {
    const people = Array.from({ length: 5 }, (_, i) => ways(i % 2 === 0 ? replica.url : second.url, { role }));
    const [ending, staying] = await Promise.all([
      Promise.all(people.map(({ eu }) => eu.token())),
      Promise.all(people.flatMap(({ direct, us }) => [direct.token(), us.token()])),
    ]);
    // Both replicas hear of it.
    const counts = await Promise.all([replica, second].map(({ provisioner }) => provisioner.endAllThrough('eu')));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(5);
    for (const token of ending) await refused(fixture, token);
    for (const token of staying) await works(fixture, token);
    expect((await signInsOf(fixture)).filter((signIn) => throughOf(signIn) === 'eu')).toEqual([]);
    for (const { eu } of people) {
      const [name = ''] = namesOf(eu.caller);
      await fixture.gone(name);
      expect(await fixture.binding(name)).toBeUndefined();
      expect((await eu.status()).status).toBe(401);
    }
    // One line for each, whichever replica ended it.
    const lines = [...replica.audit, ...second.audit].filter(({ event }) => event === 'revocation');
    expect(lines.map(({ login }) => login).sort()).toEqual(people.map(({ eu }) => eu.caller.login).sort());
    for (const line of lines) {
      expect(line).toMatchObject({
        login_server: 'eu',
        reason: 'the login server "eu" no longer signs in to this cluster',
      });
    }
    expect(await replica.provisioner.endAllThrough('eu')).toBe(0);
    // After it has joined again.
    for (const { eu } of people.slice(0, 1)) await works(fixture, await eu.token());
    expect([...replica.complaints, ...second.complaints]).toEqual([]);
  });

  test('ends what it can, and reports what it could not end', async ({ fixture, replica, role }) => {
    const { direct, eu } = ways(replica.url, { role });
    const tokens = [await eu.token(), await eu.granted({ username: 'other', login: 'other@example.com' }).token()];
    const token = await direct.token();
    // A finalizer keeps the object. Its access ends nevertheless.
    const [name = ''] = namesOf(eu.caller);
    await fixture.kube.patch(paths.signIns(fixture.namespace, name), {
      metadata: { finalizers: ['example.com/slow'] },
    });
    expect(await replica.provisioner.endAllThrough('eu')).toBe(2);
    for (const ended of tokens) await refused(fixture, ended);
    await works(fixture, token);
    await until(fixture.access, paths.bindings(), bindingName(name), (found) => found === undefined);
    expect((await eu.status()).status).toBe(401);
    // Those that leave already do not count again.
    expect(await replica.provisioner.endAllThrough('eu')).toBe(0);
    await fixture.kube.patch(paths.signIns(fixture.namespace, name), { metadata: { finalizers: null } });
    await fixture.gone(name);
  });
});

describe.skipIf(absent !== undefined)('through the joined side of a tunnel', () => {
  const key = newKey();
  const tunnel: OwnTunnel = {
    id: 'dHVubmVsLW9uZQ',
    cluster: 'edge-1',
    primary: 'eu',
    replica: 'tka-0',
    keys: [key.publicKey],
    clockOffsetMs: 0,
    since: Date.now(),
  };

  test('a person signs in, gets less than is asserted, and loses it with the grant', async ({
    fixture,
    replica,
    role,
  }) => {
    const { signIns, clusterInfo, endAllThrough } = replica.provisioner;
    const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const limits = { roles: [role], maxPeriodMs: hour };
    const joined = new JoinedApi({ signIns, clusterInfo, endAllThrough, ...limits, onEvicted: () => {}, log });
    const alice: Caller = { username: 'alice', login: 'alice@example.com', device: 'n1', role, periodMs: 24 * hour };
    const ask = async (method: string, route: string, caller = alice) => {
      const path = `/api/v1alpha1${route}`;
      const about = { issuer: 'eu', cluster: 'edge-1', tunnel: tunnel.id, method, path, caller };
      const request = { method, path, assertion: await signAssertion(key, about), id: 'x' };
      const { status, headers, body } = await joined.answer(request, tunnel, new AbortController().signal);
      return { status, headers, body: JSON.parse(body) };
    };
    const signIn = await ask('POST', '/login');
    expect(signIn).toMatchObject({
      status: 202,
      headers: { 'tka-role': 'applied' },
      body: { username: 'alice', role },
    });
    expect(Date.parse(signIn.body.until) - Date.now()).toBeLessThanOrEqual(hour);
    const { status, body } = await ask('GET', '/kubeconfig');
    expect(status).toBe(200);
    const token = body.users['tka-user-alice'].token;
    await works(fixture, token);
    // A role that this cluster does not allow takes away what there is, as a lost grant does.
    const admin = await fixture.role();
    expect((await ask('GET', '/kubeconfig', { ...alice, role: admin })).status).toBe(401);
    await refused(fixture, token);
    expect((await ask('POST', '/login', { ...alice, role: admin })).status).toBe(403);
    expect(replica.audit.at(-1)).toMatchObject({
      event: 'revocation',
      login_server: 'eu',
      reason: `the role "${admin}" cannot be used in the cluster "edge-1" through the login server "eu"`,
    });
    expect((await ask('POST', '/login')).status).toBe(202);
    const again = (await ask('GET', '/kubeconfig')).body.users['tka-user-alice'].token;
    await works(fixture, again);
    const problem = new Refusal(403, { message: 'No grant found for user' });
    const dropped = { ...alice, role: '', periodMs: 0, problem, revoked: true };
    expect((await ask('GET', '/kubeconfig', dropped)).status).toBe(401);
    await refused(fixture, again);
    expect((await ask('GET', '/kubeconfig', dropped)).status).toBe(403);
    expect(await signInsOf(fixture)).toEqual([]);
    expect((await ask('POST', '/login')).status).toBe(202);
    expect(await joined.endAllThrough('eu')).toBe(1);
    expect(await signInsOf(fixture)).toEqual([]);
    expect(replica.complaints).toEqual([]);
  });
});
