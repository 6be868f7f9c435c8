import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type { JoinAnswer } from '../../../src/server/federation/contract.ts';
import { JoinRecords, type Membership } from '../../../src/server/federation/join-records.ts';
import type { FoundSecret, JoinSecret } from '../../../src/server/federation/join-secret.ts';
import { Joining } from '../../../src/server/federation/joining.ts';
import { type FederationKey, newKey } from '../../../src/server/federation/keys.ts';
import { connectKube } from '../../../src/server/kubernetes/kube.ts';
import type { Log } from '../../../src/server/log/log.ts';
import { SecretsApi } from './secrets-api.ts';

const login = newKey().publicKey;
const joined: JoinAnswer = { ok: true, primary: 'hub', keys: [login] };
const away: JoinAnswer = { ok: false, code: 'unavailable', message: 'the login server has no leader' };

const secretOf = (hash: string, endpoint = 'https://login.example.com:7947'): FoundSecret & { kind: 'secret' } => ({
  kind: 'secret',
  endpoint,
  token: `tka-join-${hash}`,
  cluster: 'site-7',
  keyHash: 'h'.repeat(43),
  hash,
});

interface Setup {
  /** The login server's answers to the requests to join, in this order; the last one is repeated. */
  readonly answers?: readonly (JoinAnswer | Error)[];
  readonly loginServer?: string;
  readonly pauseMs?: readonly [number, number];
  readonly settleMs?: number;
  readonly isAnnounced?: (keyHash: string) => boolean;
}

/** An API server, and any number of replicas that can lead. */
async function setUp({ answers = [joined], loginServer, pauseMs = [5, 20], settleMs = 0, isAnnounced }: Setup = {}) {
  const api = new SecretsApi();
  await api.start();
  const kube = connectKube(api.kubeConfig());
  const asked: { secret: JoinSecret; key: FederationKey }[] = [];
  const left: Membership[] = [];
  const told: string[] = [];
  const tell = (fields: object, message: string) => void told.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: () => {}, info: tell, warn: tell, error: tell };
  const records = new JoinRecords(kube);

  function replica() {
    const joining = new Joining({
      records,
      log,
      loginServer,
      async join(secret, key) {
        asked.push({ secret, key });
        const answer = answers[Math.min(asked.length, answers.length) - 1] as JoinAnswer | Error;
        if (answer instanceof Error) throw answer;
        return answer;
      },
      async leave(old) {
        left.push(old);
        told.push(`left ${old.primary}`);
      },
      pauseMs,
      settleMs,
      isAnnounced,
    });
    const stepNow = async (found: FoundSecret) =>
      await joining.step(found, await records.read(), new AbortController().signal);
    return {
      joining,
      stepNow,
      /** Takes one step, after the pause that is due. */
      async step(found: FoundSecret) {
        await delay(joining.pauseMs() + 1);
        return await stepNow(found);
      },
    };
  }

  return {
    api,
    records,
    asked,
    left,
    told,
    replica,
    status: () => api.values('tka-join-status'),
    info: () => api.values('tka-cluster-info'),
    async [Symbol.asyncDispose]() {
      kube.close();
      await api[Symbol.asyncDispose]();
    },
  };
}

test('joins, and writes the key before it is used', async () => {
  await using it = await setUp();
  const record = await it.replica().step(secretOf('a'));
  expect(it.api.changes).toEqual([
    'tka-cluster-info privateKey',
    'tka-join-status Joining',
    'tka-cluster-info clusterName,endpoint,primaryName,primaryPublicKey,privateKey,tka-join.hash',
    'tka-join-status Joined',
  ]);
  expect(it.info()).toEqual({
    clusterName: 'site-7',
    endpoint: 'https://login.example.com:7947',
    primaryName: 'hub',
    primaryPublicKey: login,
    privateKey: expect.stringMatching(/^-----BEGIN PRIVATE KEY-----\n/),
    'tka-join.hash': 'a',
  });
  expect(it.status()).toEqual({
    status: 'Joined',
    reason: '',
    msg: '',
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    'tka-join.hash': 'a',
  });
  expect(record.membership).toMatchObject({ cluster: 'site-7', primary: 'hub', keys: [login] });
  expect(it.told.join('\n')).not.toMatch(/tka-join-|PRIVATE/);
});

test('does not join again with the same Secret, nor write anything', async () => {
  await using it = await setUp();
  const replica = it.replica();
  await replica.step(secretOf('a'));
  const changes = it.api.changes.length;
  const before = it.status();
  await replica.step(secretOf('a'));
  await it.replica().step(secretOf('a'));
  expect(it.asked).toHaveLength(1);
  expect(it.api.changes).toHaveLength(changes);
  expect(it.status()).toEqual(before);
});

test('a changed Secret joins again with the same key', async () => {
  await using it = await setUp();
  const replica = it.replica();
  await replica.step(secretOf('a'));
  it.left.splice(0);
  await replica.step(secretOf('b'));
  expect(it.asked.map(({ secret }) => secret.hash)).toEqual(['a', 'b']);
  expect(it.asked[1]?.key.publicKey).toBe(it.asked[0]?.key.publicKey);
  expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'b' });
  // It is the same login server.
  expect(it.left).toEqual([]);
});

test('joining another login server leaves the old one first', async () => {
  const other: JoinAnswer = { ok: true, primary: 'hub-2', keys: [newKey().publicKey] };
  await using it = await setUp({ answers: [joined, other] });
  const replica = it.replica();
  await replica.step(secretOf('a'));
  it.left.splice(0);
  await replica.step(secretOf('b', 'https://other.example.com'));
  expect(it.left).toMatchObject([{ primary: 'hub', endpoint: 'https://login.example.com:7947' }]);
  expect(it.info()).toMatchObject({ primaryName: 'hub-2', endpoint: 'https://other.example.com' });
});

test('joining the same login server under another name ends what came through it', async () => {
  await using it = await setUp();
  const replica = it.replica();
  await replica.step(secretOf('a'));
  it.left.splice(0);
  await replica.step({ ...secretOf('b'), cluster: 'site-8' });
  expect(it.left).toMatchObject([{ primary: 'hub', cluster: 'site-7' }]);
  expect(it.info()).toMatchObject({ clusterName: 'site-8' });
});

test('the first join ends what is left of an earlier login server of the same name, before it is written', async () => {
  await using it = await setUp();
  await it.replica().step(secretOf('a'));
  expect(it.left).toMatchObject([{ primary: 'hub' }]);
  expect(it.told.indexOf('left hub')).toBeLessThan(it.told.findIndex((line) => line.startsWith('joined')));
});

test('another login server of the same name is joined after all replicas have left the old one', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  const other: JoinAnswer = { ok: true, primary: 'hub', keys: [newKey().publicKey] };
  await using it = await setUp({ answers: [joined, other, away], settleMs: 30_000 });
  const first = it.replica();
  await first.stepNow(secretOf('a'));
  it.left.splice(0);
  const record = await first.stepNow(secretOf('b'));
  // The replicas close their tunnels when they see this.
  expect(record.membership).toBeUndefined();
  expect(it.info()).toMatchObject({ 'tka-join.settling': 'true', 'tka-join.hash': 'b' });
  await first.stepNow(secretOf('b'));
  expect(it.status()).toMatchObject({ status: 'Joining', reason: 'Waiting', 'tka-join.hash': 'b' });
  vi.advanceTimersByTime(29_000);
  await first.stepNow(secretOf('b'));
  // The next leader waits as long.
  const second = it.replica();
  await second.stepNow(secretOf('b'));
  vi.advanceTimersByTime(29_000);
  await second.stepNow(secretOf('b'));
  expect(it.left).toEqual([]);
  vi.advanceTimersByTime(1_000);
  await second.stepNow(secretOf('b'));
  // The token was used the first time.
  expect(it.asked).toHaveLength(2);
  expect(it.left).toMatchObject([{ primary: 'hub' }]);
  expect(it.info()).toMatchObject({ primaryName: 'hub', primaryPublicKey: other.ok && other.keys[0] });
  expect(it.info()).not.toHaveProperty('tka-join.settling');
  expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'b' });
});

test('a leader that has waited before waits again for another login server of the same name', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  const others = [1, 2].map((): JoinAnswer => ({ ok: true, primary: 'hub', keys: [newKey().publicKey] }));
  await using it = await setUp({ answers: [joined, ...others], settleMs: 30_000 });
  const [first, second] = [it.replica(), it.replica()];
  await first.stepNow(secretOf('a'));
  await first.stepNow(secretOf('b'));
  // Both see it, and the second one finishes.
  for (const replica of [first, second]) await replica.stepNow(secretOf('b'));
  vi.advanceTimersByTime(30_000);
  await second.stepNow(secretOf('b'));
  expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'b' });
  await second.stepNow(secretOf('c'));
  await first.stepNow(secretOf('c'));
  expect(it.status()).toMatchObject({ status: 'Joining', reason: 'Waiting', 'tka-join.hash': 'c' });
  vi.advanceTimersByTime(30_000);
  await first.stepNow(secretOf('c'));
  expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'c' });
});

test('a leader that is late ends no sign-in after another one has joined', async () => {
  await using it = await setUp();
  await it.replica().stepNow(secretOf('a'));
  // From before the join.
  const stale = { ...(await it.records.read()), membership: undefined, version: '0' };
  it.api.set('tka-join-status', undefined);
  it.left.splice(0);
  const record = await it.replica().joining.step(secretOf('a'), stale, new AbortController().signal);
  expect(it.asked).toHaveLength(2);
  expect(record.membership).toMatchObject({ primary: 'hub' });
  expect(it.left).toEqual([]);
});

test('waits for the mesh for half a minute at most, for each key anew', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  await using it = await setUp({ isAnnounced: () => false });
  const replica = it.replica();
  await replica.stepNow(secretOf('a'));
  vi.advanceTimersByTime(29_000);
  await replica.stepNow(secretOf('a'));
  expect(it.asked).toEqual([]);
  expect(it.status()).toMatchObject({ status: 'Joining', reason: 'Waiting', msg: expect.stringContaining('mesh') });
  vi.advanceTimersByTime(2_000);
  await replica.stepNow(secretOf('a'));
  expect(it.asked).toHaveLength(1);
  // With a new key.
  it.api.set('tka-cluster-info', undefined);
  await replica.stepNow(secretOf('b'));
  await replica.stepNow(secretOf('b'));
  expect(it.asked).toHaveLength(1);
  vi.advanceTimersByTime(31_000);
  await replica.stepNow(secretOf('b'));
  expect(it.asked).toHaveLength(2);
});

describe('a login server that is away', () => {
  test('is asked again after growing pauses, and the status says why', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const refused = new Error('connect ECONNREFUSED 192.0.2.1:7947');
    await using it = await setUp({ answers: [away, refused, refused, refused, joined], pauseMs: [1_000, 4_000] });
    const replica = it.replica();
    await replica.stepNow(secretOf('a'));
    expect(it.status()).toMatchObject({
      status: 'Joining',
      reason: 'Unavailable',
      msg: 'cannot join https://login.example.com:7947 yet: the login server has no leader',
      'tka-join.hash': 'a',
    });
    // In milliseconds, give or take a fifth.
    for (const usual of [1_000, 2_000, 4_000, 4_000]) {
      const pause = replica.joining.pauseMs();
      expect(Math.abs(pause - usual)).toBeLessThanOrEqual(usual / 5);
      vi.advanceTimersByTime(pause - 1);
      const asked = it.asked.length;
      await replica.stepNow(secretOf('a'));
      expect(it.asked).toHaveLength(asked);
      vi.advanceTimersByTime(2);
      await replica.stepNow(secretOf('a'));
      expect(it.asked).toHaveLength(asked + 1);
      if (usual === 1_000) {
        const msg = 'cannot join https://login.example.com:7947 yet: connect ECONNREFUSED 192.0.2.1:7947';
        expect(it.status()).toMatchObject({ status: 'Joining', msg });
      }
    }
    expect(it.status()).toMatchObject({ status: 'Joined', msg: '' });
  });

  test.each(['clock', 'version'] as const)('as well as one with the code %s', async (code) => {
    await using it = await setUp({ answers: [{ ok: false, code, message: 'your clock is 9 minutes off' }, joined] });
    const replica = it.replica();
    await replica.step(secretOf('a'));
    expect(it.status()).toMatchObject({ status: 'Joining', msg: expect.stringContaining('9 minutes off') });
    await replica.step(secretOf('a'));
    expect(it.status()).toMatchObject({ status: 'Joined' });
  });

  test('a changed Secret does not wait for the pause', async () => {
    await using it = await setUp({ answers: [away, joined], pauseMs: [3_600_000, 3_600_000] });
    const replica = it.replica();
    await replica.stepNow(secretOf('a'));
    await replica.stepNow(secretOf('b'));
    expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'b' });
  });
});

describe('a refusal', () => {
  const no: JoinAnswer = { ok: false, code: 'rejected', message: 'the join token has expired\u001b[31m\n' };

  test('is final for this Secret, also for the next leader', async () => {
    await using it = await setUp({ answers: [no, joined] });
    await it.replica().step(secretOf('a'));
    expect(it.status()).toMatchObject({
      status: 'Rejected',
      reason: 'Refused',
      msg: 'cannot join https://login.example.com:7947: the join token has expired [31m',
      'tka-join.hash': 'a',
    });
    const before = it.status();
    await it.replica().step(secretOf('a'));
    expect(it.asked).toHaveLength(1);
    expect(it.status()).toEqual(before);
    await it.replica().step(secretOf('b'));
    expect(it.status()).toMatchObject({ status: 'Joined' });
  });

  test('of a new Secret leaves the cluster where it is', async () => {
    await using it = await setUp({ answers: [joined, no] });
    const replica = it.replica();
    await replica.step(secretOf('a'));
    it.left.splice(0);
    const before = it.info();
    await replica.step(secretOf('b'));
    expect(it.info()).toEqual(before);
    expect(it.left).toEqual([]);
    expect(it.status()).toMatchObject({
      status: 'Rejected',
      msg: expect.stringMatching(/expired.*; still joined to https:\/\/login\.example\.com:7947$/),
    });
    // The old Secret again.
    await replica.step(secretOf('a'));
    expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'a' });
    expect(it.asked).toHaveLength(2);
  });
});

test('an unusable Secret is rejected without a word to anybody', async () => {
  await using it = await setUp();
  await it.replica().step({ kind: 'invalid', problem: 'the "token" of the join Secret is missing', hash: 'x' });
  expect(it.asked).toEqual([]);
  expect(it.info()).toBeUndefined();
  expect(it.status()).toMatchObject({
    status: 'Rejected',
    reason: 'InvalidSecret',
    msg: 'the "token" of the join Secret is missing',
    'tka-join.hash': 'x',
  });
});

test('a Secret that is deleted before the cluster has joined ends the attempt; afterwards it may be deleted', async () => {
  await using it = await setUp({ answers: [away, joined] });
  const replica = it.replica();
  await replica.step(secretOf('a'));
  await replica.step({ kind: 'none' });
  expect(it.status()).toMatchObject({ status: 'Rejected', reason: 'NoSecret', msg: 'the join Secret was deleted' });
  await replica.step(secretOf('a'));
  const before = it.status();
  expect(before).toMatchObject({ status: 'Joined' });
  await replica.step({ kind: 'none' });
  expect(it.status()).toEqual(before);
});

test.each([{ kind: 'none' } as const, secretOf('a')])(
  'a deleted tka-cluster-info is the end of it: $kind',
  async (found) => {
    await using it = await setUp();
    const replica = it.replica();
    await replica.step(secretOf('a'));
    it.api.set('tka-cluster-info', undefined);
    await replica.step(found);
    const end = { status: 'Rejected', reason: 'Left', 'tka-join.hash': 'a' };
    expect(it.status()).toMatchObject(end);
    await it.replica().step(secretOf('a'));
    expect(it.status()).toMatchObject(end);
    expect(it.asked).toHaveLength(1);
    await replica.step(secretOf('b'));
    expect(it.status()).toMatchObject({ status: 'Joined' });
  },
);

describe('federation.loginServer', () => {
  test('that differs from the endpoint rejects the Secret, until one of them is changed', async () => {
    await using it = await setUp({ loginServer: 'https://tka.example.ts.net' });
    await it.replica().step(secretOf('a'));
    expect(it.asked).toEqual([]);
    expect(it.status()).toMatchObject({
      status: 'Rejected',
      reason: 'OtherLoginServer',
      msg: 'federation.loginServer is https://tka.example.ts.net, but the endpoint of the join Secret is https://login.example.com:7947',
    });
    await it.replica().step(secretOf('b', 'https://tka.example.ts.net'));
    expect(it.status()).toMatchObject({ status: 'Joined' });
  });

  test('that was corrected joins with the same Secret', async () => {
    await using it = await setUp({ loginServer: 'https://login.example.com:7947' });
    it.api.set('tka-join-status', { status: 'Rejected', reason: 'OtherLoginServer', 'tka-join.hash': 'a' });
    await it.replica().step(secretOf('a'));
    expect(it.status()).toMatchObject({ status: 'Joined' });
  });
});

describe('a leader that is killed', () => {
  test.each([
    ['before the key is written', 'POST tka-cluster-info', 'refuse'],
    ['after the key was written', 'POST tka-cluster-info', 'lose'],
    ['before the first status', 'POST tka-join-status', 'refuse'],
    ['after the join, before it is written', 'PATCH tka-cluster-info', 'refuse'],
    ['after the join was written', 'PATCH tka-cluster-info', 'lose'],
    ['before the last status', 'PATCH tka-join-status', 'refuse'],
    ['after the last status', 'PATCH tka-join-status', 'lose'],
  ] as const)('%s: the next one finishes with the same key', async (_, at, fault) => {
    await using it = await setUp();
    it.api.fault = (method, name) => (`${method} ${name}` === at ? fault : undefined);
    await expect(it.replica().step(secretOf('a'))).rejects.toThrow();
    it.api.fault = undefined;
    await it.replica().step(secretOf('a'));
    expect(it.status()).toMatchObject({ status: 'Joined', 'tka-join.hash': 'a' });
    expect(it.info()).toMatchObject({ primaryName: 'hub' });
    expect(new Set(it.asked.map(({ key }) => key.publicKey)).size).toBe(1);
    expect(it.asked.length).toBeLessThanOrEqual(2);
  });
});

test('of two leaders at once, one writes, and both used the same key', async () => {
  await using it = await setUp();
  const results = await Promise.allSettled([it.replica().step(secretOf('a')), it.replica().step(secretOf('a'))]);
  // The slower one gets a conflict, and reads again.
  for (const result of results) {
    if (result.status === 'rejected') expect(result.reason).toMatchObject({ status: 409 });
  }
  await it.replica().step(secretOf('a'));
  await it.replica().step(secretOf('a'));
  expect(it.status()).toMatchObject({ status: 'Joined' });
  const [written] = new Set(it.asked.map(({ key }) => key.publicKey));
  expect(it.asked.every(({ key }) => key.publicKey === written)).toBe(true);
});

test('keeps what others have written on the Secrets', async () => {
  await using it = await setUp();
  it.api.set('tka-cluster-info', { note: 'ours' }, { team: 'a' });
  // A Secret without a key is damaged: nobody but an administrator knows what it was.
  await it.replica().step(secretOf('a'));
  expect(it.status()).toMatchObject({ status: 'Joining', reason: 'Waiting', msg: expect.stringMatching(/privateKey/) });
  it.api.set('tka-cluster-info', undefined);
  await it.replica().step(secretOf('a'));
  const values = it.info() ?? {};
  it.api.set('tka-cluster-info', { ...values, note: 'ours' }, { team: 'a' });
  await it.replica().step(secretOf('b'));
  expect(it.info()).toMatchObject({ note: 'ours', 'tka-join.hash': 'b' });
  expect(it.api.labels('tka-cluster-info')).toEqual({ team: 'a' });
});

test.each([
  ['an invalid key', { privateKey: 'x' }],
  ['another kind of key', { privateKey: '-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----' }],
  ['an invalid public key', { primaryPublicKey: 'x' }],
  ['no public key', { primaryPublicKey: '' }],
  ['an endpoint over http', { endpoint: 'http://login.example.com' }],
  ['a name of another kind', { clusterName: 'a/b' }],
])('a tka-cluster-info with %s is not used, and not overwritten', async (_, values) => {
  await using it = await setUp();
  await it.replica().step(secretOf('a'));
  const damaged = { ...it.info(), ...values };
  it.api.set('tka-cluster-info', damaged);
  const record = await it.replica().step(secretOf('a'));
  expect(record.membership).toBeUndefined();
  expect(record.problem).toMatch(/tka-federation\/tka-cluster-info/);
  expect(it.status()).toMatchObject({ status: 'Joining', reason: 'Waiting', msg: record.problem });
  expect(it.info()).toEqual(damaged);
  expect(it.asked).toHaveLength(1);
});
