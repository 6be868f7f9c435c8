import { describe, expect, it } from 'vitest';
import {
  endOf,
  isSettled,
  namesOf,
  newSignIn,
  ownerOfBinding,
  rfc3339,
  statusOf,
  type TkaSignin,
} from '../../src/server/provisioner/objects.ts';

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

describe('when a sign-in ends, and whether its status answers it', () => {
  it.each<[string, TkaSignin, boolean, number | undefined]>([
    ['just asked for', fresh(), false, at + 1_800_000],
    ['provisioned', withStatus(fresh(), at, at + 1_800_000), true, at + 1_800_000],
    ['ended sooner by hand', withStatus(fresh(), at, at + 5_000), true, at + 5_000],
    ['a status that promises more', withStatus(fresh(), at, at + 9_800_000), true, at + 1_800_000],
    ['extended, the old status', withStatus(fresh(), at - 60_000, at + 1_740_000), false, at + 1_800_000],
    ['not provisioned any more', withStatus(fresh(), at, at + 1_800_000, false), false, at + 1_800_000],
    ['made by hand', byHand, false, undefined],
    ['made by hand, provisioned', withStatus(byHand, at, at + 1_800_000), true, at + 1_800_000],
    [
      'a status without times',
      { ...fresh(), status: { provisioned: true, signed_in: '', valid_until: '' } },
      false,
      at + 1_800_000,
    ],
    ['a period that is none', { ...byHand, spec: { ...byHand.spec, validity_period: 'abc' } }, false, undefined],
  ])('%s', (_, signIn, settled, end) => {
    expect(isSettled(signIn)).toBe(settled);
    expect(endOf(signIn)).toBe(end);
  });

  it('a status answers the attempt it was made for', () => {
    const status = statusOf(fresh(), at + 3_000);
    expect(status).toEqual({ provisioned: true, signed_in: rfc3339(at), valid_until: rfc3339(at + 1_800_000) });
    expect(isSettled({ ...fresh(), ...(status && { status }) })).toBe(true);
    expect(statusOf(byHand, at)?.signed_in).toBe(rfc3339(at));
    expect(statusOf({ ...byHand, spec: { ...byHand.spec, validity_period: '' } }, at)).toBeUndefined();
  });
});

it('the second of one name has a name that no username gives', () => {
  const [first, other] = namesOf(caller);
  expect(first).toBe('tka-user-alice');
  expect(other).toMatch(/^tka-login-alice-[0-9a-f]{12}$/);
  expect(namesOf({ ...caller, login: 'alice@example.org' })[1]).not.toBe(other);
});

describe('whose a binding is', () => {
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
