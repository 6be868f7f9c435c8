// The joined cluster's part of a server, with real tunnels to a login server on loopback. The provisioner and the API
// server are stand-ins: test/cluster/joined.test.ts has the real ones.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { examineConfig } from '../../../src/server/config/config.ts';
import { signAssertion } from '../../../src/server/federation/assertion.ts';
import { type DialAnswer, evictedPath, type JoinAnswer, type Tunnel } from '../../../src/server/federation/contract.ts';
import {
  type JoinedServer,
  type JoinedServerOptions,
  startJoinedServer,
} from '../../../src/server/federation/joined-server.ts';
import { keyHash, newKey } from '../../../src/server/federation/keys.ts';
import { Refusal } from '../../../src/server/http/contract.ts';
import { testFolder } from '../../fixtures/temporary.ts';
import { authority, fields, type Login, log, logged, login, loginKey, OpenAdmission } from './fixture.ts';
import { mountSecret, tokenFor } from './join-secrets.ts';
import { SecretsApi } from './secrets-api.ts';

const rejected: JoinAnswer = { ok: false, code: 'rejected', message: 'the join token was revoked' };

/** Returns the files of a join Secret for a login server. `nonce` makes it another one for the same. */
const secretFor = ({ endpoint }: Login, key = loginKey, nonce = '') => ({
  endpoint,
  token: tokenFor({ cluster: 'site-7', hash: keyHash(key.publicKey) }).concat(nonce && '\n'),
});

interface ReplicaOptions {
  readonly leads?: boolean;
  readonly settings?: object;
  readonly isAnnounced?: (keyHash: string) => boolean;
  readonly forbiddenMs?: number;
}

/** A cluster to join: its API server, the folder of its join Secret, and its sign-ins. */
class Cluster {
  readonly api = new SecretsApi();
  /** As kubelet mounts it. */
  readonly folder = testFolder();
  /** The login servers of its sign-ins. */
  readonly through: string[] = [];
  /** The login servers whose sign-ins were ended. */
  readonly ended: string[] = [];
  readonly info = { server_url: 'https://api.site-7.example:6443', labels: { region: 'eu' } };
  infoProblem: string | undefined;

  static async make(): Promise<Cluster> {
    const cluster = new Cluster();
    await cluster.api.start();
    onTestFinished(() => cluster.api[Symbol.asyncDispose]());
    return cluster;
  }

  status = () => this.api.values('tka-join-status');
  record = () => this.api.values('tka-cluster-info');

  /** Starts a replica, which stops after the test. `leads` can be changed. */
  async replica({ leads = true, settings = {}, isAnnounced, forbiddenMs = 60_000 }: ReplicaOptions = {}) {
    const federation = { joinFolder: this.folder, caFile: authority.file, ...settings };
    const { config } = await examineConfig('config.yaml', JSON.stringify({ federation }), {});
    const lease = { leads };
    const provisioner: JoinedServerOptions['provisioner'] = {
      leading: () => lease.leads,
      clusterInfo: async () => {
        if (this.infoProblem !== undefined) throw new Refusal(500, { message: this.infoProblem });
        return { ...this.info, insecure_skip_tls_verify: false, ca_data: '' };
      },
      overview: () => this.through.map((loginServer) => ({ loginServer }) as never),
      endAllThrough: async (loginServer) => {
        this.ended.push(loginServer);
        return this.through.splice(0).length;
      },
      signIns: {} as never,
    };
    const server = startJoinedServer({
      config,
      env: {},
      log,
      kubeConfig: this.api.kubeConfig(),
      provisioner,
      onRequest: () => {},
      onDecided: () => {},
      ...(isAnnounced && { isAnnounced }),
      times: {
        roundMs: 20,
        strayMs: 20,
        settledKeysMs: 200,
        forbiddenMs,
        pauseMs: [10, 50],
        settleMs: 20,
        tunnels: patient,
      },
    });
    onTestFinished(() => server.stop());
    return Object.assign(server, { lease });
  }
}

/** Returns a login server, and a cluster with a join Secret for it. */
async function mounted(
  options?: Parameters<typeof login>[0],
): Promise<{ readonly it: Login; readonly cluster: Cluster }> {
  const it = await login(options);
  const cluster = await Cluster.make();
  mountSecret(cluster.folder, secretFor(it));
  return { it, cluster };
}

// A slow machine is not a reason to try again: these tests count the requests to join.
const patient = { handshakeMs: 60_000, silenceMs: 60_000, redialMs: [10, 100] } as const;

/** Returns the public key of the cluster that came to this login server. */
const keyOf = ({ asked }: OpenAdmission): string => asked[0]?.publicKey ?? '';

const becomes = async (read: () => unknown, what: object) =>
  await vi.waitFor(() => expect(read()).toMatchObject(what), { timeout: 60_000, interval: 10 });

const connected = (server: JoinedServer, tunnels = 1) => becomes(() => server.state(), { tunnels });

test('without a folder for the join Secret, asks nobody anything; joins when both appear', async () => {
  const it = await login();
  const cluster = await Cluster.make();
  fs.rmdirSync(cluster.folder);
  let early = 0;
  cluster.api.fault = () => void early++;
  const server = await cluster.replica();
  expect(server.active()).toBe(false);
  expect(server.problem()).toBeUndefined();
  expect(server.state()).toBeUndefined();
  expect(server.counts()).toBeUndefined();
  fs.mkdirSync(cluster.folder);
  expect(early).toBe(0);
  mountSecret(cluster.folder, secretFor(it));
  await connected(server);
});

test('with an empty folder asks once whether the cluster has joined before, and says what is missing', async () => {
  const it = await login();
  const cluster = await Cluster.make();
  const asked: string[] = [];
  cluster.api.fault = (method, name) => void asked.push(`${method} ${name}`);
  const server = await cluster.replica({ settings: { loginServer: 'https://tka.example.ts.net' } });
  expect(server.problem()).toBe(`there is no join Secret in ${cluster.folder}`);
  const warning = `warn federation.loginServer has no effect: there is no join Secret in ${cluster.folder}`;
  await vi.waitFor(() => expect(logged).toContain(warning), { timeout: 60_000 });
  expect(asked).toEqual(['GET tka-cluster-info']);
  expect(server.active()).toBe(false);
  // The setting is for another endpoint than this one.
  mountSecret(cluster.folder, secretFor(it));
  await becomes(cluster.status, { status: 'Rejected', reason: 'OtherLoginServer' });
  expect(logged.filter((line) => line === warning)).toHaveLength(1);
  await becomes(() => ({ problem: server.problem() }), {
    problem: expect.stringMatching(/^this cluster has not joined: federation\.loginServer is https:\/\/tka\.example/),
  });
});

test('every replica opens tunnels, only the leader joins, and the statement is the one of the cluster info', async () => {
  const admission = new OpenAdmission();
  const { it, cluster } = await mounted({ admission });
  const servers = [await cluster.replica({ leads: false }), await cluster.replica()];
  for (const server of servers) {
    expect(server.active()).toBe(true);
    await connected(server);
    expect(server.problem()).toBeUndefined();
    expect(server.keyHash()).toBe(keyHash(keyOf(admission)));
    expect(server.state()).toEqual({ cluster: 'site-7', endpoint: it.endpoint, primary: 'primary', tunnels: 1 });
    expect(server.counts()).toEqual({ status: 'Joined', tunnels: 1 });
  }
  expect(it.listener.tunnels('site-7')).toHaveLength(2);
  for (const { statement } of it.listener.tunnels('site-7')) {
    expect(statement).toMatchObject({ apiEndpoint: 'https://api.site-7.example:6443', labels: { region: 'eu' } });
  }
  expect(admission.asked.filter((request) => 'token' in request)).toHaveLength(1);
  await becomes(cluster.status, { status: 'Joined', msg: '' });
  const { token } = secretFor(it);
  const { privateKey = '' } = cluster.record() ?? {};
  for (const secret of [token, privateKey.split('\n')[1] ?? '']) expect(JSON.stringify(fields)).not.toContain(secret);
});

test('a member of the mesh joins only after the mesh knows its key', async () => {
  const admission = new OpenAdmission();
  const { cluster } = await mounted({ admission });
  const announced = new Set<string>();
  const server = await cluster.replica({ isAnnounced: (hash) => announced.has(hash) });
  await becomes(cluster.status, { status: 'Joining', reason: 'Waiting', msg: expect.stringContaining('mesh') });
  await becomes(() => ({ hash: server.keyHash() }), { hash: expect.stringMatching(/^[\w-]{43}$/) });
  await becomes(() => server.counts(), { status: 'Joining', tunnels: 0 });
  expect(admission.asked).toEqual([]);
  announced.add(server.keyHash() ?? '');
  await connected(server);
  expect(server.keyHash()).toBe(keyHash(keyOf(admission)));
});

test('a cluster that has joined keeps its tunnels without the join Secret, also after a restart', async () => {
  const { cluster } = await mounted();
  const first = await cluster.replica();
  await becomes(cluster.status, { status: 'Joined' });
  await first.stop();
  mountSecret(cluster.folder, {});
  const second = await cluster.replica();
  await connected(second);
  expect(second.active()).toBe(true);
  expect(cluster.status()).toMatchObject({ status: 'Joined' });
});

test('while the cluster info is missing, says so and joins later', async () => {
  const it = await login();
  const cluster = await Cluster.make();
  cluster.infoProblem = 'the ConfigMap kube-public/cluster-info does not exist';
  mountSecret(cluster.folder, secretFor(it));
  const server = await cluster.replica();
  await becomes(cluster.status, { status: 'Joining', msg: expect.stringContaining('does not exist') });
  cluster.infoProblem = undefined;
  await connected(server);
});

test('a change of what the cluster says about itself is announced by new tunnels', async () => {
  const { it, cluster } = await mounted();
  await cluster.replica();
  await it.next();
  cluster.info.labels.region = 'us';
  expect((await it.next()).statement.labels).toEqual({ region: 'us' });
});

test('the next leader goes on with a join that has not succeeded, with the same key', async () => {
  let answer: JoinAnswer = { ok: false, code: 'unavailable', message: 'no leader' };
  const admission = new OpenAdmission(undefined, () => answer);
  const { cluster } = await mounted({ admission });
  const [first, second] = [await cluster.replica(), await cluster.replica({ leads: false })];
  await becomes(cluster.status, { status: 'Joining', msg: expect.stringMatching(/no leader$/) });
  // The other replica reports the same.
  await becomes(() => ({ problem: second.problem() }), {
    problem: expect.stringMatching(/^this cluster has not joined: cannot join .* yet: .*no leader$/),
  });
  first.lease.leads = false;
  second.lease.leads = true;
  answer = { ok: true, primary: 'primary', keys: [loginKey.publicKey] };
  await connected(first);
  await connected(second);
  expect(new Set(admission.asked.map(({ publicKey }) => publicKey)).size).toBe(1);
});

test('a refusal is final until the Secret changes; the reason is in the status', async () => {
  let answer: JoinAnswer = rejected;
  const admission = new OpenAdmission(undefined, () => answer);
  const { it, cluster } = await mounted({ admission });
  const server = await cluster.replica();
  await becomes(cluster.status, { status: 'Rejected', reason: 'Refused' });
  expect(cluster.status()?.msg).toMatch(/^cannot join https:.*: .*the join token was revoked$/);
  await becomes(() => server.counts(), { status: 'Rejected', tunnels: 0 });
  answer = { ok: true, primary: 'primary', keys: [loginKey.publicKey] };
  mountSecret(cluster.folder, secretFor(it, loginKey, 'new'));
  await connected(server);
  expect(admission.asked.filter((request) => 'token' in request)).toHaveLength(2);
});

test('a server without the key of the token gets no token; the login server can be there later', async () => {
  const admission = new OpenAdmission();
  const wrong = newKey();
  let keys = [wrong];
  const { cluster } = await mounted({ admission, keys: () => keys });
  const server = await cluster.replica();
  const msg = expect.stringMatching(/^cannot join .* yet: .* has another key than this cluster knows/);
  await becomes(cluster.status, { status: 'Joining', reason: 'Unavailable', msg });
  expect(admission.asked).toEqual([]);
  keys = [loginKey];
  await connected(server);
});

describe('eviction', () => {
  const gone: DialAnswer = { ok: false, code: 'evicted', message: 'there is no cluster of this name' };

  /** Tells the joined server through the tunnel. */
  const tell = async (_: Login, tunnel: Tunnel): Promise<void> => {
    const what = { method: 'POST', path: evictedPath };
    const to = { issuer: 'primary', cluster: 'site-7', tunnel: tunnel.id };
    const assertion = await signAssertion(loginKey, { ...to, ...what });
    await tunnel.request({ ...what, assertion, id: 'x' }, new AbortController().signal);
  };

  test.each<[string, (it: Login, tunnel: Tunnel) => Promise<unknown>]>([
    ['told through the tunnel', tell],
    ['told at the next dial', async (_, tunnel) => tunnel.close('test')],
  ])('%s: ends the sign-ins and stays out, on all replicas, until the Secret changes', async (_, evict) => {
    let answer: DialAnswer = { ok: true };
    const admission = new OpenAdmission(() => answer);
    const it = await login({ admission });
    const cluster = await Cluster.make();
    cluster.through.push('primary');
    mountSecret(cluster.folder, secretFor(it));
    const servers = [await cluster.replica(), await cluster.replica({ leads: false })];
    for (const server of servers) await connected(server);
    await becomes(cluster.status, { status: 'Joined' });
    const { privateKey } = cluster.record() ?? {};
    answer = gone;
    await evict(it, await it.next());
    await becomes(cluster.status, {
      status: 'Rejected',
      reason: 'Evicted',
      msg: expect.stringMatching(/^the login server https:.* has evicted this cluster: /),
    });
    await vi.waitFor(
      () =>
        expect(cluster.record()).toEqual({ privateKey, 'tka-join.evicted': expect.stringMatching(/^[0-9a-f]{64}$/) }),
      { timeout: 60_000 },
    );
    expect(cluster.through).toEqual([]);
    expect(cluster.ended).toContain('primary');
    for (const server of servers) await becomes(() => ({ state: server.state() }), { state: undefined });
    // A new leader does not try either.
    const joins = () => admission.asked.filter((request) => 'token' in request).length;
    const [first, second] = servers;
    if (first) first.lease.leads = false;
    if (second) second.lease.leads = true;
    await becomes(() => ({ problem: second?.problem() }), {
      problem: expect.stringMatching(/has evicted this cluster/),
    });
    expect(joins()).toBe(1);
    answer = { ok: true };
    mountSecret(cluster.folder, secretFor(it, loginKey, 'again'));
    for (const server of servers) await connected(server);
    expect(joins()).toBe(2);
    await becomes(cluster.status, { status: 'Joined', msg: '' });
  });

  test('told through a tunnel of a later join ends the sign-ins, without another dial', async () => {
    const { it, cluster } = await mounted();
    await connected(await cluster.replica());
    await becomes(cluster.status, { status: 'Joined' });
    const { id } = await it.next();
    mountSecret(cluster.folder, secretFor(it, loginKey, 'again'));
    const tunnel = await it.next();
    expect(tunnel.id).not.toBe(id);
    cluster.ended.splice(0);
    await tell(it, tunnel);
    await becomes(cluster.status, { status: 'Rejected', reason: 'Evicted' });
    expect(cluster.ended).toContain('primary');
  });

  test('that could not be finished is finished by the next process', async () => {
    const { cluster } = await mounted({ admission: new OpenAdmission(() => gone) });
    // The sign-ins end, but that is all. The first end is that of the join.
    cluster.api.fault = (method) => (method === 'PATCH' && cluster.ended.length > 1 ? 'refuse' : undefined);
    const first = await cluster.replica();
    await vi.waitFor(() => expect(cluster.ended.length).toBeGreaterThan(2), { timeout: 60_000 });
    await first.stop();
    expect(cluster.record()).toMatchObject({ primaryName: 'primary' });
    cluster.api.fault = undefined;
    cluster.through.push('primary');
    await cluster.replica();
    await becomes(cluster.status, { status: 'Rejected', reason: 'Evicted' });
    // Before the status, unless the last write of the first process has arrived nevertheless.
    await vi.waitFor(() => expect(cluster.through).toEqual([]), { timeout: 60_000 });
  });

  test.each(['forbid', 'refuse'] as const)(
    'ends the sign-ins also while tka-cluster-info cannot be read: %s',
    async (fault) => {
      let answer: DialAnswer = { ok: true };
      const { it, cluster } = await mounted({ admission: new OpenAdmission(() => answer) });
      const server = await cluster.replica();
      await connected(server);
      await becomes(cluster.status, { status: 'Joined' });
      cluster.through.push('primary');
      cluster.api.fault = () => fault;
      answer = gone;
      (await it.next()).close('test');
      await vi.waitFor(() => expect(cluster.through).toEqual([]), { timeout: 60_000 });
      cluster.api.fault = undefined;
      await becomes(cluster.status, { status: 'Rejected', reason: 'Evicted' });
    },
  );

  test('that is news of before the cluster joined again ends no sign-in', async () => {
    const { it, cluster } = await mounted();
    const leader = await cluster.replica();
    await becomes(cluster.status, { status: 'Joined' });
    await leader.stop();
    const server = await cluster.replica({ leads: false });
    await connected(server);
    const [old] = it.listener.tunnels();
    assert.ok(old);
    cluster.ended.splice(0);
    // As another leader writes it.
    cluster.api.set('tka-cluster-info', { ...cluster.record(), 'tka-join.hash': 'b'.repeat(64) });
    // Unless the replica has read that already.
    await tell(it, old).catch(() => undefined);
    await vi.waitFor(() => expect(it.listener.tunnels()).not.toContain(old), { timeout: 60_000 });
    await connected(server);
    expect(cluster.ended).toEqual([]);
    expect(cluster.record()).toMatchObject({ primaryName: 'primary' });
  });

  test('whose status another replica writes at the same time still says which login server, and why', async () => {
    const admission = new OpenAdmission(() => gone);
    const { cluster } = await mounted({ admission });
    // As a leader that reads the record between the two changes does.
    const asOther = { status: 'Rejected', reason: 'Evicted', msg: 'the login server has evicted this cluster' };
    let others = 0;
    cluster.api.fault = (method, name) => {
      const isEvicted = cluster.record()?.['tka-join.evicted'] !== undefined;
      if (method === 'PATCH' && name === 'tka-join-status' && isEvicted && others++ === 0)
        cluster.api.set(name, { ...cluster.status(), ...asOther });
      return undefined;
    };
    await cluster.replica();
    await becomes(cluster.status, {
      status: 'Rejected',
      reason: 'Evicted',
      msg: expect.stringMatching(/^the login server https:.* has evicted this cluster: .*no cluster of this name$/),
    });
    expect(others).toBeGreaterThan(0);
    expect(admission.asked.filter((request) => 'token' in request)).toHaveLength(1);
  });

  test('that the status does not tell any more is told again, and the Secret is not used again', async () => {
    const admission = new OpenAdmission(() => gone);
    const { cluster } = await mounted({ admission });
    await cluster.replica();
    await becomes(cluster.status, { status: 'Rejected', reason: 'Evicted' });
    // As a leader that has just read the record of before does.
    cluster.api.set('tka-join-status', { ...cluster.status(), status: 'Joined', reason: '', msg: '' });
    const msg = 'the login server has evicted this cluster';
    await becomes(cluster.status, { status: 'Rejected', reason: 'Evicted', msg });
    // Nor without the Secret.
    mountSecret(cluster.folder, {});
    cluster.api.set('tka-join-status', undefined);
    await becomes(cluster.status, { status: 'Rejected', reason: 'Evicted', msg });
    expect(admission.asked.filter((request) => 'token' in request)).toHaveLength(1);
  });
});

test.each([
  ['another login server', 'hub-2'],
  ['another login server of the same name', 'primary'],
])('joining %s ends the sign-ins of the old one, and closes its tunnels', async (_, primary) => {
  const otherKey = newKey();
  const old = await login();
  const fresh = await login({
    cluster: primary,
    keys: () => [otherKey],
    admission: new OpenAdmission(undefined, () => ({ ok: true, primary, keys: [otherKey.publicKey] })),
  });
  const cluster = await Cluster.make();
  mountSecret(cluster.folder, secretFor(old));
  const servers = [await cluster.replica(), await cluster.replica({ leads: false })];
  for (const server of servers) await connected(server);
  cluster.through.push('primary');
  mountSecret(cluster.folder, secretFor(fresh, otherKey));
  for (const server of servers) await becomes(() => server.state(), { endpoint: fresh.endpoint, primary, tunnels: 1 });
  expect(cluster.through).toEqual([]);
  expect(cluster.ended).not.toContain('hub-2');
  await vi.waitFor(() => expect(old.listener.tunnels()).toEqual([]), { timeout: 60_000 });
});

test('without tka-cluster-info, a login server of the same name does not get the sign-ins of before', async () => {
  const it = await login();
  const cluster = await Cluster.make();
  cluster.through.push('primary');
  mountSecret(cluster.folder, secretFor(it));
  await connected(await cluster.replica());
  expect(cluster.through).toEqual([]);
});

test('sign-ins through the login server that it is joined to are left alone', async () => {
  const { cluster } = await mounted();
  await connected(await cluster.replica());
  cluster.ended.splice(0);
  cluster.through.push('primary');
  // Those through another one end: a later round than the one that joined.
  cluster.through.push('hub-2');
  await vi.waitFor(() => expect(cluster.ended).toContain('hub-2'), { timeout: 60_000 });
  expect(cluster.ended).not.toContain('primary');
});

test('keys that a known key has signed are kept for the next process', async () => {
  const next = newKey();
  let keys = [loginKey];
  const { it, cluster } = await mounted({ keys: () => keys });
  const first = await cluster.replica({ leads: false });
  const leader = await cluster.replica();
  await connected(first);
  await becomes(cluster.record, { primaryPublicKey: loginKey.publicKey });
  await leader.stop();
  keys = [next, loginKey];
  (await it.next()).close('test');
  (await it.next()).close('test');
  await becomes(cluster.record, { primaryPublicKey: `${next.publicKey}\n${loginKey.publicKey}` });
  // The old one is gone.
  keys = [next];
  for (const tunnel of it.listener.tunnels()) tunnel.close('test');
  await becomes(cluster.record, { primaryPublicKey: next.publicKey });
  await first.stop();
  await connected(await cluster.replica());
});

test('a key that is removed from the front of the list is not trusted any more, also by the next process', async () => {
  const next = newKey();
  let keys = [loginKey, next];
  const { it, cluster } = await mounted({ keys: () => keys });
  await connected(await cluster.replica());
  await becomes(cluster.record, { primaryPublicKey: `${loginKey.publicKey}\n${next.publicKey}` });
  keys = [next];
  (await it.next()).close('test');
  await becomes(cluster.record, { primaryPublicKey: next.publicKey });
});

test('a key that was replaced and then removed does not close the tunnels', async () => {
  const next = newKey();
  let keys = [loginKey];
  const { it, cluster } = await mounted({ keys: () => keys });
  const server = await cluster.replica();
  let tunnel = await it.next();
  for (const signing of [[next, loginKey], [next]]) {
    await connected(server);
    keys = signing;
    tunnel.close('test');
    tunnel = await it.next();
    await becomes(cluster.record, { primaryPublicKey: signing.map(({ publicKey }) => publicKey).join('\n') });
  }
  // Some rounds later it is still the same one.
  let rounds = 0;
  cluster.api.fault = () => void rounds++;
  await vi.waitFor(() => expect(rounds).toBeGreaterThan(5), { timeout: 60_000 });
  expect(it.listener.tunnels().map(({ id }) => id)).toEqual([tunnel.id]);
});

test('a damaged tka-cluster-info leaves the tunnels open', async () => {
  const { cluster } = await mounted();
  const server = await cluster.replica();
  await connected(server);
  await becomes(cluster.status, { status: 'Joined' });
  cluster.ended.splice(0);
  const whole = cluster.record() ?? {};
  cluster.api.set('tka-cluster-info', { ...whole, privateKey: 'x' });
  await becomes(cluster.status, { status: 'Joining', reason: 'Waiting', msg: expect.stringMatching(/privateKey/) });
  expect(server.state()).toMatchObject({ tunnels: 1 });
  expect(cluster.ended).toEqual([]);
  cluster.api.set('tka-cluster-info', whole);
  await becomes(cluster.status, { status: 'Joined' });
});

test('deleting tka-cluster-info leaves the federation, until the join Secret changes: the sign-ins end', async () => {
  const admission = new OpenAdmission();
  const { it, cluster } = await mounted({ admission });
  const server = await cluster.replica();
  await becomes(cluster.status, { status: 'Joined' });
  cluster.through.push('primary');
  cluster.api.set('tka-cluster-info', undefined);
  await vi.waitFor(() => expect(cluster.through).toEqual([]), { timeout: 60_000 });
  await becomes(cluster.status, { status: 'Rejected', reason: 'Left' });
  await becomes(() => ({ state: server.state() }), { state: undefined });
  // kubelet is slower.
  mountSecret(cluster.folder, {});
  await becomes(() => ({ problem: server.problem() }), { problem: expect.stringMatching(/has left its login server/) });
  expect(admission.asked.filter((request) => 'token' in request)).toHaveLength(1);
  mountSecret(cluster.folder, secretFor(it, loginKey, 'new'));
  await connected(server);
});

describe('a server that is not to join ends the sign-ins of before, which a restart left behind', () => {
  test.each([
    ['with an empty folder for the join Secret', (_: Cluster) => {}],
    ['without the folder', (cluster: Cluster) => fs.rmdirSync(cluster.folder)],
    [
      'without rights to tka-cluster-info',
      (cluster: Cluster) => {
        fs.rmdirSync(cluster.folder);
        cluster.api.fault = () => 'forbid';
      },
    ],
  ])('%s', async (_, prepare) => {
    const cluster = await Cluster.make();
    prepare(cluster);
    cluster.through.push('primary');
    const server = await cluster.replica({ forbiddenMs: 100 });
    await vi.waitFor(() => expect(cluster.through).toEqual([]), { timeout: 60_000 });
    expect(server.active()).toBe(false);
  });

  test.each(['refuse', 'forbid'] as const)(
    'not if it does not know, and not on another replica than the leader: %s',
    async (fault) => {
      const cluster = await Cluster.make();
      fs.rmdirSync(cluster.folder);
      cluster.through.push('primary');
      let asked = 0;
      cluster.api.fault = () => {
        asked++;
        return fault;
      };
      await cluster.replica();
      await cluster.replica({ leads: false });
      await vi.waitFor(() => expect(asked).toBeGreaterThan(2), { timeout: 60_000 });
      expect(cluster.ended).toEqual([]);
    },
  );
});

test.each([
  ['at first', 60_000],
  ['for long', 40],
])(
  'a cluster that has joined opens its tunnels although its API server forbids everything %s',
  async (_, forbiddenMs) => {
    const { cluster } = await mounted();
    const first = await cluster.replica();
    await connected(first);
    await first.stop();
    mountSecret(cluster.folder, {});
    let asked = 0;
    cluster.api.fault = () => {
      asked++;
      return 'forbid';
    };
    const server = await cluster.replica({ forbiddenMs });
    await vi.waitFor(() => expect(asked).toBeGreaterThan(4), { timeout: 60_000 });
    cluster.api.fault = undefined;
    await connected(server);
  },
);

test('without the manifests of a joined cluster, says what to apply', async () => {
  const { cluster } = await mounted();
  cluster.api.fault = () => 'forbid';
  const server = await cluster.replica();
  await becomes(() => ({ problem: server.problem() }), { problem: 'this cluster cannot join: secrets is forbidden' });
  expect(fields).toContainEqual({
    err: expect.objectContaining({ status: 403 }),
    hints: ['apply the manifests for joined clusters: the namespace tka-federation and its Role'],
    message: 'cannot follow the state of the federation',
  });
  cluster.api.fault = undefined;
  await connected(server);
});

test('without rights to tka-cluster-info for long, the cluster leaves; with them again it comes back', async () => {
  const { cluster } = await mounted();
  const servers = [
    await cluster.replica({ forbiddenMs: 100 }),
    await cluster.replica({ leads: false, forbiddenMs: 100 }),
  ];
  for (const server of servers) await connected(server);
  cluster.through.push('primary');
  cluster.api.fault = () => 'forbid';
  for (const server of servers) await becomes(() => ({ state: server.state() }), { state: undefined });
  await vi.waitFor(() => expect(cluster.through).toEqual([]), { timeout: 60_000 });
  cluster.api.fault = undefined;
  for (const server of servers) await connected(server);
});

test('without rights to tka-cluster-info for a moment, the tunnels stay open', async () => {
  const { cluster } = await mounted();
  const server = await cluster.replica();
  await connected(server);
  cluster.ended.splice(0);
  let forbidden = 0;
  cluster.api.fault = () => {
    forbidden++;
    return 'forbid';
  };
  await vi.waitFor(() => expect(forbidden).toBeGreaterThan(3), { timeout: 60_000 });
  expect(server.state()).toMatchObject({ tunnels: 1 });
  expect(cluster.ended).toEqual([]);
});

test('a problem that lasts is one warning', async () => {
  const cluster = await Cluster.make();
  const it = await login();
  mountSecret(cluster.folder, secretFor(it));
  let asked = 0;
  cluster.api.fault = () => {
    asked++;
    return 'forbid';
  };
  const server = await cluster.replica();
  await vi.waitFor(() => expect(asked).toBeGreaterThan(4), { timeout: 60_000 });
  const warning = 'warn cannot follow the state of the federation';
  expect(logged.filter((line) => line === warning)).toHaveLength(1);
  // After it was solved, it is news again.
  cluster.api.fault = undefined;
  await connected(server);
  cluster.api.fault = () => 'forbid';
  await vi.waitFor(() => expect(logged.filter((line) => line === warning)).toHaveLength(2), { timeout: 60_000 });
});

test('a folder that cannot be reached does not make a server join', async () => {
  const cluster = await Cluster.make();
  const loop = path.join(cluster.folder, 'loop');
  fs.symlinkSync('loop', loop);
  const server = await cluster.replica({ settings: { joinFolder: path.join(loop, 'join') } });
  expect(server.active()).toBe(false);
  expect(server.problem()).toBeUndefined();
});

test.each([
  ['an API server that is away for a while', 'refuse'],
  ['a proxy that answers 404 for the API server', 'mislead'],
] as const)('%s leaves the tunnels open', async (_, fault) => {
  const { cluster } = await mounted();
  const server = await cluster.replica();
  await connected(server);
  cluster.ended.splice(0);
  cluster.through.push('primary');
  let refused = 0;
  cluster.api.fault = () => {
    refused++;
    return fault;
  };
  await vi.waitFor(() => expect(refused).toBeGreaterThan(3), { timeout: 60_000 });
  expect(server.state()).toMatchObject({ tunnels: 1 });
  expect(server.problem()).toBeUndefined();
  expect(cluster.ended).toEqual([]);
});
