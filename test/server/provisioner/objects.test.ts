import { describe, expect, it } from 'vitest';
import { type Caller, deviceLogin } from '../../../src/server/http/contract.ts';
import { IndexByLogin } from '../../../src/server/provisioner/index-by-login.ts';
import type { TkaSignin } from '../../../src/server/provisioner/objects.ts';
import { namesOf } from '../../../src/server/provisioner/objects.ts';
import { overviewOf } from '../../../src/server/provisioner/overview.ts';
import { accountFor, bindingFor, ownerOfBinding } from '../../../src/server/provisioner/parts.ts';
import {
  conditionsOf,
  copyOf,
  endFor,
  endOf,
  exceeds,
  extension,
  isOf,
  isSettled,
  newSignIn,
  rfc3339,
  sharing,
  statusOf,
} from '../../../src/server/provisioner/sign-in.ts';

const at = Date.UTC(2026, 10, 21, 8);
const caller = { username: 'alice', login: 'alice@example.com', role: 'viewer', periodMs: 1_800_000 };
const fresh = (): TkaSignin => {
  const made = newSignIn('tka-user-alice', caller, at) as TkaSignin;
  return { ...made, metadata: { ...made.metadata, uid: 'u1', resourceVersion: '1' } };
};
const byHand: TkaSignin = { ...fresh(), metadata: { name: 'tka-user-alice', uid: 'u1', resourceVersion: '1' } };
const withStatus = (signIn: TkaSignin, signedIn: number, until: number, provisioned = true): TkaSignin => ({
  ...signIn,
  status: { provisioned, signed_in: rfc3339(signedIn), valid_until: rfc3339(until) },
});

describe('when a sign-in ends, and whether its status is current', () => {
  it.each<[string, TkaSignin, boolean, number | undefined]>([
    ['just requested', fresh(), false, at + 1_800_000],
    ['provisioned', withStatus(fresh(), at, at + 1_800_000), true, at + 1_800_000],
    ['ended earlier by hand', withStatus(fresh(), at, at + 5_000), true, at + 5_000],
    ['a status that promises more', withStatus(fresh(), at, at + 9_800_000), true, at + 1_800_000],
    ['extended, the old status', withStatus(fresh(), at - 60_000, at + 1_740_000), false, at + 1_800_000],
    ['not provisioned any more', withStatus(fresh(), at, at + 1_800_000, false), false, at + 1_800_000],
    ['created by hand', byHand, false, undefined],
    ['created by hand, provisioned', withStatus(byHand, at, at + 1_800_000), true, at + 1_800_000],
    [
      'a status without times',
      { ...fresh(), status: { provisioned: true, signed_in: '', valid_until: '' } },
      false,
      at + 1_800_000,
    ],
    ['an invalid period', { ...byHand, spec: { ...byHand.spec, validity_period: 'abc' } }, false, undefined],
  ])('%s', (_, signIn, settled, end) => {
    expect(isSettled(signIn)).toBe(settled);
    expect(endOf(signIn, at + 1_000)).toBe(end);
  });

  it('a status belongs to the attempt it was made for', () => {
    const signIn = fresh();
    const status = statusOf(signIn, at + 3_000);
    expect(isSettled({ ...signIn, ...(status && { status }) })).toBe(true);
    // Another attempt in the same second.
    expect(isSettled({ ...fresh(), ...(status && { status }) })).toBe(false);
    // 0.1.0 changes the time, and keeps the ID.
    const moved = { ...signIn.metadata.annotations, 'tka.specht-labs.de/last-attempted-sign-in': rfc3339(at + 1_000) };
    const byOld = { ...signIn, metadata: { ...signIn.metadata, annotations: moved } };
    expect(isSettled({ ...byOld, ...(status && { status }) })).toBe(false);
    expect(status).toEqual({
      provisioned: true,
      signed_in: rfc3339(at),
      valid_until: rfc3339(at + 1_800_000),
      attempt: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(statusOf(byHand, at)?.signed_in).toBe(rfc3339(at));
    expect(statusOf({ ...byHand, spec: { ...byHand.spec, validity_period: '' } }, at)).toBeUndefined();
  });
});

it.each<[string, string | undefined, string, boolean | undefined, boolean]>([
  ['the login that it states', 'alice@example.com', 'tka-login-x', false, true],
  ['another login, although the name is the caller’s', 'alice@other.com', 'tka-user-alice', true, false],
  ['no login, for the plain name of the own domain', undefined, 'tka-user-alice', true, true],
  ['no login, for a caller of another domain', undefined, 'tka-user-alice', false, false],
  ['no login, if the domain is unknown', undefined, 'tka-user-alice', undefined, false],
  ['no login, under another name', undefined, 'tka-user-bob', true, false],
])('a sign-in that states %s belongs to the caller, or not', (_, stated, name, ownDomain, expected) => {
  const annotations = stated === undefined ? {} : { 'tka.specht-labs.de/login': stated };
  const signIn = { ...byHand, metadata: { ...byHand.metadata, name, annotations } };
  expect(isOf(signIn, { ...caller, ...(ownDomain !== undefined && { ownDomain }) })).toBe(expected);
});

it.each<[string, stated: string | undefined, login: string | undefined, through: string | undefined, boolean]>([
  ['that came directly belongs to a direct caller', undefined, 'alice@example.com', undefined, true],
  ['that came directly is not for a login server', undefined, 'alice@example.com', 'eu', false],
  ['through a login server is not for a direct caller', 'eu', 'alice@example.com', undefined, false],
  ['through a login server belongs to the caller that comes through it', 'eu', 'alice@example.com', 'eu', true],
  ['through a login server is not for another one', 'eu', 'alice@example.com', 'us', false],
  ['without a login is not for a login server', undefined, undefined, 'eu', false],
  ['without a login, but with a login server, is for nobody', 'eu', undefined, 'eu', false],
])('a sign-in %s', (_, stated, login, through, expected) => {
  const annotations = {
    ...(login !== undefined && { 'tka.specht-labs.de/login': login }),
    ...(stated !== undefined && { 'tka.specht-labs.de/login-server': stated }),
  };
  const signIn = { ...byHand, metadata: { ...byHand.metadata, annotations } };
  expect(isOf(signIn, { ...caller, ownDomain: true, ...(through !== undefined && { through }) })).toBe(expected);
});

describe('names of a sign-in', () => {
  const of = (login: string, ownDomain: boolean, role = 'viewer') =>
    namesOf({ ...caller, username: login.split('@', 1)[0] ?? '', login, ownDomain, role });

  it.each<[login: string, ownDomain: boolean, name: RegExp]>([
    ['alice@example.com', true, /^tka-user-alice$/],
    ['alice.b-2@example.com', true, /^tka-user-alice\.b-2$/],
    [`${'a'.repeat(70)}@example.com`, true, /^tka-user-a{70}$/],
    ['alice@gmail.com', false, /^tka-login-alice-[0-9a-f]{20}$/],
    ['first_last@example.com', true, /^tka-login-first-last-[0-9a-f]{20}$/],
    ['alice+work@example.com', true, /^tka-login-alice-work-[0-9a-f]{20}$/],
    ['Alice@example.com', true, /^tka-login-alice-[0-9a-f]{20}$/],
    ['jürgen@example.com', true, /^tka-login-jurgen-[0-9a-f]{20}$/],
    ['山田@example.com', true, /^tka-login-[0-9a-f]{20}$/],
    ['-_-@example.com', true, /^tka-login-[0-9a-f]{20}$/],
    ['../../x?y#z%2f@example.com', true, /^tka-login-x-y-z-2f-[0-9a-f]{20}$/],
    [`${'a'.repeat(300)}@example.com`, true, /^tka-login-a{30}-[0-9a-f]{20}$/],
  ])('of %s, in the own domain: %s', (login, ownDomain, name) => {
    const names = of(login, ownDomain);
    expect(names[0]).toMatch(name);
    expect(names).toHaveLength(name.source.startsWith('^tka-user-') ? 2 : 1);
    for (const valid of names) {
      expect(valid).toMatch(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);
      expect(`${valid}-binding`.length).toBeLessThanOrEqual(253);
    }
    expect(names.at(-1)?.length).toBeLessThanOrEqual(63);
  });

  it('have a hash of the login server too, and are never plain through one', () => {
    const all = [undefined, 'eu', 'us'].map((through) =>
      namesOf({ ...caller, ownDomain: true, ...(through !== undefined && { through }) }),
    );
    expect(all.map((names) => names.length)).toEqual([2, 1, 1]);
    expect(new Set(all.flat()).size).toBe(4);
    for (const name of all.slice(1).flat()) expect(name).toMatch(/^tka-login-alice-[0-9a-f]{20}$/);
  });

  it('differ by login and by role if they are not plain', () => {
    const names = [
      ...['alice@gmail.com', 'alice@example.org', 'Alice@gmail.com', 'alice@gmail.com\0'].map((login) =>
        of(login, false).at(-1),
      ),
      of('alice@gmail.com', false, 'admin').at(-1),
    ];
    expect(new Set(names).size).toBe(names.length);
  });
});

describe('a device’s part of a sign-in', () => {
  const hour = 3_600_000;
  const of = (device: string, periodMs = hour, role = 'viewer') => ({ ...caller, device, periodMs, role });
  const made = (who: Caller, when = at): TkaSignin => patched(undefined, newSignIn('tka-user-alice', who, when));
  let version = 0;
  function patched(old: TkaSignin | undefined, patch: object): TkaSignin {
    const { metadata, spec = old?.spec } = patch as TkaSignin;
    const annotations = { ...old?.metadata.annotations, ...metadata.annotations };
    return {
      ...old,
      metadata: { name: 'x', uid: 'u', resourceVersion: `${++version}`, annotations },
      spec,
    } as TkaSignin;
  }

  it('is what it was granted, until it is granted less', () => {
    const signIn = made(of('n1'));
    expect(endFor(signIn, of('n1'), at)).toBe(at + hour);
    expect(exceeds(signIn, of('n1'), at)).toBe(false);
    expect(exceeds(signIn, of('n1', 2 * hour), at)).toBe(false);
    expect(exceeds(signIn, of('n1', hour - 1_000), at)).toBe(true);
    expect(exceeds(signIn, of('n1', hour - 1_000), at + 1_000)).toBe(false);
    expect(exceeds(signIn, of('n1', hour, 'admin'), at)).toBe(true);
    expect(exceeds(signIn, { ...of('n1', 0, ''), revoked: true }, at + hour - 1)).toBe(true);
  });

  it('is nothing if another device signed in', () => {
    const signIn = made(of('n1'));
    expect(endFor(signIn, of('n2'), at)).toBeUndefined();
    expect(exceeds(signIn, of('n2', hour, 'admin'), at)).toBe(false);
  });

  it('is that of all devices if the devices are unknown', () => {
    const { 'tka.specht-labs.de/devices': _, ...annotations } = made(of('n1')).metadata.annotations ?? {};
    for (const devices of [
      undefined,
      '7',
      '[]',
      'x',
      '{"n1":7}',
      '{"n1":"2026-11-21T08:00:00Z"}',
      '{"n1":"soon 1h"}',
    ]) {
      const stated = devices === undefined ? {} : { 'tka.specht-labs.de/devices': devices };
      const signIn = {
        ...made(of('n1')),
        metadata: { ...made(of('n1')).metadata, annotations: { ...annotations, ...stated } },
      };
      expect(endFor(signIn, of('n2'), at)).toBe(at + hour);
      expect(exceeds(signIn, of('n2', hour, 'admin'), at)).toBe(true);
      // The device that signs in now is known; the others may still be any.
      const shared = patched(signIn, extension(signIn, of('n1', 2 * hour), at + 1_000));
      expect(endFor(shared, of('n1'), at + 1_000)).toBe(at + 1_000 + 2 * hour);
      expect(endFor(shared, of('n2'), at + 1_000)).toBe(at + hour);
    }
  });

  it('may end before that of another device', () => {
    const long = made(of('n1', 8 * hour));
    const signIn = patched(long, sharing(long, of('n2'), at + hour));
    expect(endOf(signIn, at + hour)).toBe(at + 8 * hour);
    expect(endFor(signIn, of('n1'), at + hour)).toBe(at + 8 * hour);
    expect(endFor(signIn, of('n2'), at + hour)).toBe(at + 2 * hour);
    expect(exceeds(signIn, of('n2'), at + hour)).toBe(false);
    expect(exceeds(signIn, of('n1', 8 * hour), at + hour)).toBe(false);
    expect(exceeds(signIn, of('n1'), at + hour)).toBe(true);
  });

  it('is not forgotten if there are too many devices to name', () => {
    let signIn = made(of('n0', 8 * hour));
    for (let i = 1; i < 40; i++) signIn = patched(signIn, extension(signIn, of(`n${i}`, 9 * hour), at + i * 1_000));
    const stated = JSON.parse(signIn.metadata.annotations?.['tka.specht-labs.de/devices'] ?? '') as object;
    expect(Object.keys(stated).length).toBeLessThanOrEqual(17);
    for (let i = 0; i < 40; i++) expect(exceeds(signIn, of(`n${i}`, hour), at + 40_000)).toBe(true);
    for (let i = 1; i < 40; i++) expect(exceeds(signIn, of(`n${i}`, 9 * hour), at + 40_000)).toBe(false);
    // Expired parts are removed.
    const later = patched(signIn, extension(signIn, of('n0'), at + 10 * hour));
    expect(JSON.parse(later.metadata.annotations?.['tka.specht-labs.de/devices'] ?? '')).toEqual({
      n0: `${rfc3339(at + 10 * hour)} 1h0m0s`,
    });
  });

  it('ends no later because of an attempt by a clock that is ahead', () => {
    const signIn = made(of('n1'), at + 5 * hour);
    expect(endOf(signIn, at)).toBe(at + hour);
    expect(endFor(signIn, of('n1'), at)).toBe(at + hour);
    expect(exceeds(signIn, of('n1'), at)).toBe(false);
    expect(exceeds(signIn, of('n1', hour - 1), at)).toBe(true);
    // From then on the status states it.
    const status = statusOf(signIn, at);
    expect(status).toMatchObject({ signed_in: rfc3339(at + 5 * hour), valid_until: rfc3339(at + hour) });
    const settled = { ...signIn, ...(status && { status }) };
    expect(isSettled(settled)).toBe(true);
    expect(endOf(settled, at + hour / 2)).toBe(at + hour);
  });
});

it('is not valid while the sign-in is being deleted', () => {
  const signIn = fresh();
  const settled = { ...signIn, status: statusOf(signIn, at) } as TkaSignin;
  expect(isSettled(settled)).toBe(true);
  expect(isSettled({ ...settled, metadata: { ...settled.metadata, deletionTimestamp: rfc3339(at) } })).toBe(false);
});

describe('the index by login', () => {
  const of = (name: string, login: string | undefined, role = 'viewer'): TkaSignin => ({
    metadata: {
      name,
      uid: `${name}-${role}`,
      resourceVersion: '1',
      ...(login !== undefined && { annotations: { 'tka.specht-labs.de/login': login } }),
    },
    spec: { username: 'x', role, validity_period: '1h' },
  });

  it('finds the sign-ins that state a login', () => {
    const index = new IndexByLogin();
    const names = (login: string) => index.of(login).map(({ metadata }) => metadata.name);
    for (const [name, login] of [
      ['a', 'alice'],
      ['b', 'alice'],
      ['c', 'bob'],
    ] as const)
      index.set(name, of(name, login));
    expect([names('alice'), names('bob'), names('carl')]).toEqual([['a', 'b'], ['c'], []]);
    index.set('a', of('a', 'bob'));
    index.set('b', undefined);
    index.set('c', of('c', undefined));
    index.set('x', undefined);
    expect([names('alice'), names('bob')]).toEqual([[], ['a']]);
  });

  it('knows that a name had another role a moment ago', () => {
    const index = new IndexByLogin();
    index.set('a', of('a', 'alice'));
    expect(index.hadOtherRole('a', 'admin')).toBe(false);
    index.set('a', undefined);
    expect([index.hadOtherRole('a', 'admin'), index.hadOtherRole('a', 'viewer')]).toEqual([true, false]);
    index.set('b', of('b', 'alice'));
    index.ended(of('b', 'alice'));
    expect(index.of('alice')).toEqual([]);
    expect(index.hadOtherRole('b', 'admin')).toBe(true);
    // A newer one with the name stays.
    index.set('c', of('c', 'alice', 'edit'));
    index.ended(of('c', 'alice', 'viewer'));
    expect(index.of('alice')).toHaveLength(1);
  });
});

describe('the owner of a binding', () => {
  const subjects = [{ kind: 'ServiceAccount', name: 'tka-user-alice', namespace: 'tka' }];
  const binding = (name: string, labels: Record<string, string> = {}, others = subjects) => ({
    metadata: { name, uid: 'b', resourceVersion: '1', labels },
    roleRef: { kind: 'ClusterRole', name: 'viewer' },
    subjects: others,
  });
  const labels = { 'tka.specht-labs.de/sign-in-uid': 'u1', 'tka.specht-labs.de/namespace': 'tka' };
  it.each([
    ['ours', binding('tka-user-alice-binding', labels), 'u1'],
    ['of the Go operator', binding('tka-user-alice-binding'), 'unlabelled'],
    [
      'of another namespace',
      binding('tka-user-alice-binding', { ...labels, 'tka.specht-labs.de/namespace': 'b' }),
      undefined,
    ],
    [
      'of the Go operator in another namespace',
      binding('tka-user-alice-binding', {}, [
        { ...subjects[0], kind: 'ServiceAccount', name: 'tka-user-alice', namespace: 'b' },
      ]),
      undefined,
    ],
    ['with another subject', binding('tka-user-bob-binding'), undefined],
    ['with two subjects', binding('tka-user-alice-binding', {}, [...subjects, ...subjects]), undefined],
    ['an administrator’s', binding('viewers'), undefined],
  ])('%s', (_, it, owner) => {
    expect(ownerOfBinding(it, 'tka')).toBe(owner);
  });
});

describe('an administrator’s view of a sign-in', () => {
  const noted = (more: Record<string, string>): TkaSignin => {
    const { metadata, ...rest } = fresh();
    return { ...rest, metadata: { ...metadata, annotations: { ...metadata.annotations, ...more } } };
  };
  const settled = (() => {
    const signIn = fresh();
    const status = statusOf(signIn, at);
    return { ...signIn, ...(status && { status }) };
  })();
  const owner = { apiVersion: 'tka.specht-labs.de/v1alpha1', kind: 'TkaSignin', uid: 'u1' };
  const account = (uid: string) => ({
    metadata: { name: 'tka-user-alice', uid: 'a1', resourceVersion: '1', ownerReferences: [{ ...owner, uid }] },
  });
  const until = rfc3339(at + 1_800_000);

  it.each<[string, TkaSignin, object]>([
    ['in force', settled, { state: 'active', until, login: 'alice@example.com' }],
    ['not provisioned yet', fresh(), { state: 'pending', until }],
    [
      'blocked',
      noted({ 'tka.specht-labs.de/problem': 'the name is taken\nremove it\nor wait' }),
      { state: 'blocked', problem: 'the name is taken', advice: ['remove it', 'or wait'] },
    ],
    [
      'being deleted',
      { ...settled, metadata: { ...settled.metadata, deletionTimestamp: rfc3339(at) } },
      { state: 'ending', until },
    ],
    ['over', withStatus(fresh(), at, at - 1_000), { state: 'ending' }],
    ['made by hand', byHand, { state: 'pending', username: 'alice' }],
  ])('%s', (_, signIn, expected) => {
    const seen = overviewOf(signIn, undefined, at + 1);
    expect(seen).toMatchObject({ name: 'tka-user-alice', username: 'alice', role: 'viewer', ...expected });
    expect(seen).not.toHaveProperty('account');
  });

  it('has its account, and not that of another sign-in', () => {
    expect(overviewOf(settled, account('u1'), at)).toMatchObject({ account: 'tka-user-alice' });
    expect(overviewOf(settled, account('u2'), at)).not.toHaveProperty('account');
  });

  it('a condition keeps its time while its status stays, and other conditions are kept', () => {
    const yes = { status: 'True', reason: 'Provisioned', message: 'x' } as const;
    const other = { ...yes, type: 'Other', lastTransitionTime: rfc3339(at - 5_000) };
    const withOther = { ...settled, status: { ...settled.status, conditions: [other] } };
    const first = conditionsOf(withOther, yes, at);
    expect(first).toEqual([other, { ...yes, type: 'Ready', lastTransitionTime: rfc3339(at) }]);
    const later = { ...settled, status: { ...settled.status, conditions: first } };
    expect(conditionsOf(later, { ...yes, message: 'y' }, at + 9_000)[1]).toMatchObject({
      message: 'y',
      lastTransitionTime: rfc3339(at),
    });
    expect(conditionsOf(later, { ...yes, status: 'False' }, at + 9_000)[1]).toMatchObject({
      lastTransitionTime: rfc3339(at + 9_000),
    });
  });
});

describe('a sign-in through a login server', () => {
  const told = { 'tka.specht-labs.de/login': 'alice@example.com', 'tka.specht-labs.de/login-server': 'eu' };
  const made = newSignIn('tka-login-x', { ...caller, through: 'eu' }, at) as TkaSignin;
  const signIn = { ...made, metadata: { ...made.metadata, uid: 'u1', resourceVersion: '1' } };

  it('names it, and so do its account, its binding, its copy and the overview', () => {
    expect(signIn.metadata.annotations).toMatchObject(told);
    expect(accountFor(signIn)).toMatchObject({ metadata: { annotations: told } });
    expect(bindingFor(signIn, 'tka')).toMatchObject({ metadata: { annotations: told } });
    expect(copyOf(signIn)).toMatchObject({ metadata: { annotations: told } });
    expect(overviewOf(signIn, undefined, at)).toMatchObject({ login: 'alice@example.com', loginServer: 'eu' });
    expect(extension(signIn, { ...caller, through: 'eu' }, at)).toMatchObject({ metadata: { annotations: told } });
  });

  it('a direct one names none', () => {
    expect(fresh().metadata.annotations).not.toHaveProperty(['tka.specht-labs.de/login-server']);
    expect(overviewOf(fresh(), undefined, at)).not.toHaveProperty('loginServer');
  });
});

describe('a tagged device', () => {
  const device: Caller = {
    ...caller,
    username: 'nBLYviWLGB11DEVEL',
    login: deviceLogin('nBLYviWLGB11DEVEL'),
    device: 'nBLYviWLGB11DEVEL',
    tagged: { node: 'ci-7.example.ts.net', tags: ['tag:ci', 'tag:arm'] },
  };
  const told = {
    'tka.specht-labs.de/login': 'node:nBLYviWLGB11DEVEL',
    'tka.specht-labs.de/node': 'ci-7.example.ts.net',
    'tka.specht-labs.de/tags': 'tag:ci,tag:arm',
  };

  it('has an account by its ID, with a valid name that no user can have', () => {
    const [name = '', ...others] = namesOf(device);
    expect(others).toEqual([]);
    expect(name).toMatch(/^tka-login-nblyviwlgb11devel-[0-9a-f]{20}$/);
    // IDs that differ in case only, and a user with that username.
    const username = device.username.toLowerCase();
    const alike = { ...device, username, login: deviceLogin(username) };
    const person = { ...caller, username, login: username, ownDomain: true };
    for (const other of [alike, person]) expect(namesOf(other)).not.toContain(name);
    const signIn = newSignIn(name, device, at) as TkaSignin;
    expect(isOf(signIn, device)).toBe(true);
    expect(isOf(signIn, alike)).toBe(false);
    expect(isOf(signIn, { ...device, login: device.username })).toBe(false);
  });

  it('is named by its sign-in, its account and the overview', () => {
    const made = newSignIn('tka-login-x', device, at) as TkaSignin;
    const signIn = { ...made, metadata: { ...made.metadata, uid: 'u1', resourceVersion: '1' } };
    expect(signIn.metadata.annotations).toMatchObject(told);
    expect(accountFor(signIn)).toMatchObject({ metadata: { annotations: told } });
    expect(overviewOf(signIn, undefined, at)).toMatchObject(device.tagged ?? {});
    expect(extension(signIn, device, at)).toMatchObject({ metadata: { annotations: told } });
  });
});
