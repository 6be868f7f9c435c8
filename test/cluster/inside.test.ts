// What an administrator sees of sign-ins: conditions, columns, Events, and the audit log; and what the
// CustomResourceDefinition accepts.
import { describe, expect, vi } from 'vitest';
import { connectKube } from '../../src/server/kubernetes/kube.ts';
import { bindingName, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { kubeConfigFor } from './api-server.ts';
import { type Hook, hooked } from './hook.ts';
import { type ReplicaOptions, startReplica } from './replica.ts';
import { absent, type Fixture, Person, test, until } from './support.ts';

/** Starts a replica that reaches the API server through a hook. */
async function replicaWith(fixture: Fixture, hook: Hook, options: Partial<ReplicaOptions> = {}) {
  const proxy = await hooked(fixture.access, hook);
  const replica = await startReplica(fixture.replicaOptions({ access: proxy.access, ...options }));
  return {
    ...replica,
    async [Symbol.asyncDispose]() {
      await replica.stop();
      proxy.close();
    },
  };
}

/** Resolves to the Events about a sign-in as soon as one has this reason. */
async function told(fixture: Fixture, name: string, reason: string) {
  return await vi.waitUntil(
    async () => {
      const events = await fixture.events(name);
      return events.some((event) => event.reason === reason) && events;
    },
    { timeout: 20_000, interval: 50 },
  );
}

const readyOf = (signIn: TkaSignin | undefined) => signIn?.status?.conditions?.find(({ type }) => type === 'Ready');

/** Creates a binding of another program with the name of the sign-in's binding. */
const takeName = (fixture: Fixture, name: string, role: string) =>
  fixture.kube.create(paths.bindings(), {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: bindingName(name) },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [{ kind: 'ServiceAccount', name: 'somebody', namespace: 'elsewhere' }],
  });

/** Returns the output of `kubectl get tkasignins` as the API server sends it: the columns, and a row by name. */
async function table(fixture: Fixture) {
  interface Table {
    readonly columnDefinitions: readonly { readonly name: string; readonly priority: number }[];
    readonly rows: readonly { readonly cells: readonly unknown[] }[];
  }
  const { server, ca, token } = fixture.access;
  const { request } = await import('node:https');
  const { text } = await import('node:stream/consumers');
  const { columnDefinitions, rows } = await new Promise<Table>((resolve, reject) => {
    const headers = { Authorization: `Bearer ${token}`, Accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' };
    request(`${server}${paths.signIns(fixture.namespace)}`, { ca, headers, agent: false }, (response) => {
      text(response).then((body) => resolve(JSON.parse(body)), reject);
    })
      .on('error', reject)
      .end();
  });
  const columns = columnDefinitions.filter(({ priority }) => priority === 0).map(({ name }) => name);
  return { columns, rows: new Map(rows.map(({ cells }) => [cells[0], cells.slice(0, columns.length)])) };
}

describe.skipIf(absent !== undefined)('a sign-in', () => {
  test('has the condition Ready, columns and an Event once it is provisioned', async ({ fixture, role, replica }) => {
    const alice = new Person(replica.url, { role });
    await alice.token();
    const signIn = await fixture.signIn(alice.name);
    expect(readyOf(signIn)).toEqual({
      type: 'Ready',
      status: 'True',
      reason: 'Provisioned',
      message: 'ServiceAccount and ClusterRoleBinding exist',
      lastTransitionTime: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      observedGeneration: 1,
    });
    const { columns, rows } = await table(fixture);
    expect(columns).toEqual(['Name', 'User', 'Login', 'Role', 'Until', 'Problem', 'Age']);
    const { username, login } = alice.caller;
    const until = signIn?.status?.valid_until;
    expect(rows.get(alice.name)).toEqual([alice.name, username, login, role, until, null, expect.any(String)]);
    expect(await told(fixture, alice.name, 'Provisioned')).toEqual([
      expect.objectContaining({
        type: 'Normal',
        reason: 'Provisioned',
        note: `access with role "${role}" until ${until}`,
        regarding: expect.objectContaining({ kind: 'TkaSignin', name: alice.name, uid: signIn?.metadata.uid }),
        reportingController: 'tka.specht-labs.de/tka-server',
      }),
    ]);
    // kubectl describe asks for these.
    const selector = encodeURIComponent(`involvedObject.uid=${signIn?.metadata.uid}`);
    const core = `/api/v1/namespaces/${fixture.namespace}/events?fieldSelector=${selector}`;
    expect((await fixture.kube.get<{ items: unknown[] }>(core))?.items).toHaveLength(1);
    expect(replica.complaints).toEqual([]);
  });

  test('keeps the time of its Ready condition when it is extended with another period', async ({
    fixture,
    role,
    replica,
  }) => {
    const alice = new Person(replica.url, { role });
    await alice.token();
    const first = readyOf(await fixture.signIn(alice.name));
    await alice.granted({ periodMs: 3_600_000 }).token();
    expect(readyOf(await fixture.signIn(alice.name))).toEqual({ ...first, observedGeneration: 2 });
  });

  test('states why it cannot be provisioned, until it can', async ({ fixture, role, replica }) => {
    const alice = new Person(replica.url, { role });
    await takeName(fixture, alice.name, role);
    expect((await alice.login()).status).toBe(422);
    await until<TkaSignin>(
      fixture.access,
      paths.signIns(fixture.namespace),
      alice.name,
      (found) => readyOf(found)?.status === 'False',
    );
    const blocked = readyOf(await fixture.signIn(alice.name));
    const why = `ClusterRoleBinding "${bindingName(alice.name)}" was not created by a TKA server`;
    expect(blocked).toMatchObject({ reason: 'NameTaken', message: expect.stringContaining(why) });
    expect(blocked?.message).toContain(`kubectl delete clusterrolebinding ${bindingName(alice.name)}`);
    const { columns, rows } = await table(fixture);
    expect(rows.get(alice.name)?.[columns.indexOf('Problem')]).toContain(why);
    const [refused] = (await told(fixture, alice.name, 'Refused')).filter(({ reason }) => reason === 'Refused');
    expect(refused).toMatchObject({ type: 'Warning', note: why });
    expect(replica.audit).toEqual([
      expect.objectContaining({ event: 'refusal', asked: 'sign-in', login: alice.caller.login, role }),
    ]);

    const theirs = await fixture.binding(alice.name);
    await fixture.kube.remove(paths.bindings(bindingName(alice.name)), { uid: theirs?.metadata.uid ?? '' });
    await alice.token();
    const signIn = await fixture.signIn(alice.name);
    expect(readyOf(signIn)).toMatchObject({ status: 'True', reason: 'Provisioned' });
    const { rows: later } = await table(fixture);
    expect(later.get(alice.name)?.[columns.indexOf('Problem')]).toBeNull();
  });

  test('gets an Event after a failed attempt, and is provisioned later', async ({ fixture, role }) => {
    let cuts = 0;
    let name = '';
    await using replica = await replicaWith(fixture, ({ method, path, status }) => {
      if (method !== 'POST' || status !== undefined || path !== paths.accounts(fixture.namespace) || name === '')
        return;
      if (cuts++ === 0) throw new Error('cut');
    });
    const alice = new Person(replica.url, { role });
    name = alice.name;
    await alice.login();
    const events = await told(fixture, alice.name, 'Failed');
    expect(events.find(({ reason }) => reason === 'Failed')).toMatchObject({
      type: 'Warning',
      note: expect.stringContaining('/serviceaccounts'),
    });
    await told(fixture, alice.name, 'Provisioned');
  });

  test('gets one line of the audit log and an Event when it expires, is demoted or ends', async ({ fixture, role }) => {
    const other = await fixture.role();
    const leader = await startReplica(fixture.replicaOptions());
    const second = await startReplica(fixture.replicaOptions());
    const [alice, bob, carol] = [leader, second, second].map(({ url }) => new Person(url, { role })) as [
      Person,
      Person,
      Person,
    ];
    try {
      for (const person of [alice, bob, carol]) await person.token();
      await fixture.endAt(alice.name, Date.now() - 1_000);
      await fixture.gone(alice.name);
      await bob.granted({ role: other }).token();
      expect((await carol.logout()).status).toBe(200);
      await told(fixture, alice.name, 'Expired');
      await told(fixture, bob.name, 'Revoked');
      const lines = (person: Person) =>
        [...leader.audit, ...second.audit]
          .filter(({ login }) => login === person.caller.login)
          .map(({ event, outcome, role, account, reason }) => ({ event, outcome, role, account, reason }));
      const given = (person: Person, event: string, granted = role, reason?: string) => ({
        event,
        outcome: 'success',
        role: granted,
        account: person.name,
        reason,
      });
      const start = (person: Person, granted = role) => [
        given(person, 'sign-in', granted),
        given(person, 'token', granted),
      ];
      expect(lines(alice)).toEqual([...start(alice), given(alice, 'expiry', role, 'the sign-in has expired')]);
      expect(lines(carol)).toEqual([...start(carol), given(carol, 'logout')]);
      const bobs = lines(bob);
      expect(bobs.slice(0, 3)).toEqual([
        ...start(bob),
        given(bob, 'revocation', role, `the policy grants the role "${other}"`),
      ]);
      // Under another name: tokens of the old role may still be valid.
      const account = bobs[3]?.account;
      expect(account).toMatch(/^tka-login-/);
      expect(bobs.slice(3)).toEqual(start(bob, other).map((line) => ({ ...line, account })));
    } finally {
      await second.stop();
      await leader.stop();
    }
  });
});

describe.skipIf(absent !== undefined)('Events', () => {
  test('do not delay an answer', async ({ fixture, role }) => {
    const held = Promise.withResolvers<void>();
    let asked = 0;
    await using replica = await replicaWith(fixture, ({ path, status }) => {
      if (!path.endsWith('/events') || status !== undefined) return;
      asked++;
      return held.promise;
    });
    try {
      for (let i = 0; i < 5; i++) await new Person(replica.url, { role }).token();
      // One at a time.
      await vi.waitUntil(() => asked > 0, { timeout: 10_000, interval: 20 });
      expect(asked).toBe(1);
    } finally {
      held.resolve();
    }
  });

  test('are skipped with one warning if the server may not write them', async ({ fixture, role }) => {
    const path = `/apis/rbac.authorization.k8s.io/v1/namespaces/${fixture.namespace}/roles/tka-server`;
    const found = await fixture.kube.get<{ rules: { resources: string[] }[] }>(path);
    const rules = found?.rules.filter(({ resources }) => !resources.includes('events'));
    expect(rules).toHaveLength((found?.rules.length ?? 0) - 1);
    await fixture.kube.patch(path, { rules });
    const own = connectKube(kubeConfigFor(fixture.access, fixture.token));
    const review = {
      spec: {
        resourceAttributes: {
          group: 'events.k8s.io',
          resource: 'events',
          verb: 'create',
          namespace: fixture.namespace,
        },
      },
    };
    const reviews = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
    await vi.waitUntil(
      async () => !(await own.create<{ status: { allowed: boolean } }>(reviews, review)).status.allowed,
      { timeout: 10_000, interval: 20 },
    );
    own.close();
    const replica = await startReplica(fixture.replicaOptions());
    try {
      for (let i = 0; i < 3; i++) await new Person(replica.url, { role }).token();
      await vi.waitUntil(() => replica.complaints.length > 0, { timeout: 10_000, interval: 20 });
      await new Person(replica.url, { role }).token();
      expect(replica.complaints).toEqual([
        expect.stringMatching(/^the server is not allowed to create Events: .*forbidden/),
      ]);
    } finally {
      await replica.stop();
    }
  });
});

describe.skipIf(absent !== undefined)('the CustomResourceDefinition', () => {
  const spec = { username: 'alice', role: 'view', validity_period: '8h0m0s' };
  let count = 0;
  const create = (fixture: Fixture, given: object) =>
    fixture.kube.create<TkaSignin>(paths.signIns(fixture.namespace), {
      apiVersion: 'tka.specht-labs.de/v1alpha1',
      kind: 'TkaSignin',
      metadata: { name: `tka-user-x${count++}` },
      spec: { ...spec, ...given },
    });

  test('accepts the specs that a Go server or a user can write', async ({ fixture }) => {
    const good = [
      // As time.Duration's String() prints it.
      ...['10m0s', '8h0m0s', '1h0m0.5s', '720h0m0s', '2562047h47m16.854775807s', '1.5s', '150ms', '1µs', '3ns', '0s'],
      // Other forms that time.ParseDuration reads.
      ...['8h', '1h30m', '.5h', '1.h', '-8h', '+8h', '0'],
    ].map((validity_period) => ({ validity_period }));
    const names = ['alice', 'Alice.B_c', 'jürgen', 'a b', '李', 'x'.repeat(1024), "o'neil+tag", '"<&>'];
    const roles = ['view', 'system:aggregate-to-view', 'Org Admin', 'a/b', ''];
    const all = [...good, ...names.map((username) => ({ username })), ...roles.map((role) => ({ role }))];
    for (const given of all) await expect(create(fixture, given), JSON.stringify(given)).resolves.toBeDefined();
  });

  test.for<[string, object]>([
    ['an empty username', { username: '' }],
    ['a username with a line break', { username: 'alice\nbob' }],
    ['a username that is too long', { username: 'x'.repeat(1025) }],
    ['a role with an escape', { role: 'view\u001b[31m' }],
    ['a role that is too long', { role: 'x'.repeat(1025) }],
    ['a period without a unit', { validity_period: '8' }],
    ['a period in words', { validity_period: 'eight hours' }],
    ['a period in days', { validity_period: '1d' }],
    ['no period', { validity_period: '' }],
    ['a period that is too long', { validity_period: `${'1h'.repeat(40)}` }],
  ])('refuses %s', async ([, given], { fixture }) => {
    await expect(create(fixture, given)).rejects.toMatchObject({ status: 422 });
  });

  test('accepts the statuses that a Go server writes, and refuses invalid times', async ({ fixture }) => {
    const { metadata } = await create(fixture, {});
    const path = `${paths.signIns(fixture.namespace, metadata.name)}/status`;
    const write = async (status: object) => {
      const now = await fixture.kube.get<object>(paths.signIns(fixture.namespace, metadata.name));
      return await fixture.kube.replace<TkaSignin>(path, { ...now, status });
    };
    // At the sign-in, before its operator has seen it; then by the operator, in any time zone.
    await write({ provisioned: false, valid_until: '', signed_in: '' });
    for (const time of ['2026-11-21T08:00:00Z', '2026-11-21T09:00:00+01:00', '2026-11-21T03:30:00-04:30']) {
      const written = await write({ provisioned: true, valid_until: time, signed_in: time });
      expect(written.status).toEqual({ provisioned: true, valid_until: time, signed_in: time });
    }
    for (const status of [
      { provisioned: true, valid_until: 'tomorrow', signed_in: '' },
      { provisioned: true, valid_until: '', signed_in: '2026-11-21' },
      { attempt: 'x'.repeat(65) },
      {
        conditions: [
          { type: 'Ready', status: 'yes', reason: 'X', message: '', lastTransitionTime: '2026-11-21T08:00:00Z' },
        ],
      },
      {
        conditions: [
          { type: 'Ready', status: 'True', reason: 'no word', message: '', lastTransitionTime: '2026-11-21T08:00:00Z' },
        ],
      },
      { conditions: [{ type: 'Ready', status: 'True', reason: 'X', message: '', lastTransitionTime: 'now' }] },
    ])
      await expect(write(status), JSON.stringify(status)).rejects.toMatchObject({ status: 422 });
  });
});
