// A login server on a real API server: join tokens, joining, dialing, suspending and evicting clusters.
import { afterAll, afterEach, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { parse } from 'yaml';
import { KubeAdmission } from '../../src/server/federation/admission.ts';
import { Clusters } from '../../src/server/federation/clusters.ts';
import { createJoinToken } from '../../src/server/federation/commands.ts';
import type { Tunnel } from '../../src/server/federation/contract.ts';
import {
  JoinTokens,
  joinTokenType,
  readToken,
  tokenAnnotation,
  writeToken,
} from '../../src/server/federation/join-tokens.ts';
import { keyHash, newKey, readKeys, writeKeys } from '../../src/server/federation/keys.ts';
import { dataOf, federationPaths, type Secret, type TkaCluster, textsOf } from '../../src/server/federation/objects.ts';
import { Replicas } from '../../src/server/federation/replicas.ts';
import type { Kube } from '../../src/server/kubernetes/kube.ts';
import type { Log } from '../../src/server/log/log.ts';
import { ObjectEvents } from '../../src/server/provisioner/events.ts';
import { freePort } from '../fixtures/ports.ts';
import { startRelay } from '../fixtures/relay.ts';
import { TkaServerProcess } from '../server/program.ts';
import { until } from './fixture.ts';
import { Joiner, LoginCluster, type LoginReplica, tokenOfSecret } from './login-servers.ts';

const absent = typeof inject('assets') === 'string';
const condition = (found: TkaCluster | undefined, wanted: string) =>
  found?.status?.conditions?.find(({ type }) => type === wanted);

describe.skipIf(absent)('a login server', () => {
  let login: LoginCluster;

  beforeAll(async () => {
    login = await LoginCluster.start('127.0.0.21');
  });
  afterEach(() => login.clear());
  afterAll(() => login?.stop());

  const keysSecret = async (): Promise<Secret> => {
    const found = await login.kube.get<Secret>(federationPaths.secrets('signing-key'));
    if (found === undefined) throw new Error('there is no signing key');
    return found;
  };
  const keysIn = (secret: Secret): string[] =>
    readKeys(textsOf(secret).get('keys.pem') ?? '').map(({ publicKey }) => publicKey);
  const remove = async ({ metadata: { name, uid } }: Secret): Promise<unknown> =>
    await login.kube.remove(federationPaths.secrets(name), { uid });
  const joined = async (name: string): Promise<Joiner> => await new Joiner(login, name).joined(await login.token(name));

  describe('join tokens', () => {
    test('a Secret without data is filled with endpoint and token, as the K10 guide has it', async () => {
      await login.replicas(2);
      const secret = await login.token('prod-eu');
      const texts = textsOf(secret);
      expect(secret.metadata.name).toMatch(/^join-token-secret-.{5}$/);
      expect(texts.get('endpoint')).toBe('https://login.example.com:7947');
      const [signs = ''] = keysIn(await keysSecret());
      expect(readToken(texts.get('token') ?? '')).toMatchObject({
        cluster: 'prod-eu',
        secret: secret.metadata.name,
        hash: keyHash(signs),
      });
    });

    test('a Secret that was created before the first login server started is filled too', async () => {
      const [secret] = await Promise.all([login.token('prod-eu'), login.replicas(1)]);
      expect(await new Joiner(login, 'prod-eu').join(tokenOfSecret(secret))).toMatchObject({ ok: true });
    });

    test('a Secret without the name of a cluster gets an Event that says so', async () => {
      await login.replicas(1);
      const { metadata } = await login.kube.create<Secret>(federationPaths.secrets(), {
        metadata: { generateName: 'join-token-secret-' },
        type: joinTokenType,
      });
      await expect
        .poll(() => login.events(metadata.name), { timeout: 20_000 })
        .toEqual([
          'Warning InvalidJoinToken the annotation tka.specht-labs.de/cluster-name is missing: the name for the cluster',
        ]);
    });

    test('a cluster joins with its token, and gets a tunnel to each replica', async () => {
      const [one, two] = (await login.replicas(2)) as [LoginReplica, LoginReplica];
      const secret = await login.token('prod-eu');
      const cluster = new Joiner(login, 'prod-eu');
      expect(await cluster.join(tokenOfSecret(secret))).toEqual({
        ok: true,
        primary: 'login',
        keys: keysIn(await keysSecret()),
      });
      expect((await login.cluster('prod-eu'))?.spec).toMatchObject({
        publicKey: cluster.key.publicKey,
        apiEndpoint: 'https://prod-eu.example.com',
      });
      await expect.poll(() => login.events('prod-eu'), { timeout: 20_000 }).toHaveLength(1);
      cluster.dial();
      await expect.poll(() => one.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
      await expect.poll(() => two.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
      expect(one.server.clusters.all().map(({ name }) => name)).toEqual(['prod-eu']);
    });

    test('a deleted Secret, wrong bytes, a wrong hash, another name: the token is not accepted', async () => {
      await login.replicas(1);
      const revoked = await login.token('prod-eu');
      await remove(revoked);
      const secret = await login.token('prod-eu');
      const content = readToken(tokenOfSecret(secret));
      if (content === undefined) throw new Error('no token');
      const cluster = new Joiner(login, 'prod-eu');
      const notValid = {
        ok: false,
        code: 'rejected',
        message: 'the join token is not valid: it was revoked, or another login server made it',
      };
      expect(await cluster.join(tokenOfSecret(revoked))).toEqual(notValid);
      expect(await cluster.join(writeToken({ ...content, key: 'A'.repeat(43) }))).toEqual(notValid);
      expect(await cluster.join(writeToken({ ...content, cluster: 'prod-us' }))).toEqual(notValid);
      // The cluster itself notices a wrong hash, before it sends the token.
      const other = keyHash(newKey().publicKey);
      expect(await cluster.join(writeToken({ ...content, hash: other }))).toMatchObject({
        ok: false,
        code: 'unavailable',
      });
      expect(await new Joiner(login, 'prod-us').join(tokenOfSecret(secret))).toEqual({
        ok: false,
        code: 'rejected',
        message: 'the join token is not for the cluster name "prod-us"',
      });
      expect(await login.cluster('prod-eu')).toBeUndefined();
      expect(await cluster.join(tokenOfSecret(secret))).toMatchObject({ ok: true });
    });

    test('a Secret of another type is no join token, whatever it contains', async () => {
      await login.replicas(1);
      const content = { cluster: 'prod-eu', secret: 'mine', key: 'A'.repeat(43), hash: '' };
      const token = writeToken({ ...content, hash: keyHash(keysIn(await keysSecret())[0] ?? '') });
      const annotations = { [tokenAnnotation.cluster]: 'prod-eu' };
      await login.kube.create(federationPaths.secrets(), {
        metadata: { name: 'mine', annotations },
        data: dataOf({ token }),
      });
      expect(await new Joiner(login, 'prod-eu').join(token)).toMatchObject({ ok: false, code: 'rejected' });
    });

    test('a token ends after its ttl, from the creation of its Secret, by the clock of the API server', async () => {
      await login.replicas(1);
      const secret = await login.token('prod-eu', { ttl: '1s' });
      const made = Date.parse(secret.metadata.creationTimestamp ?? '');
      await expect.poll(() => apiNow(login.kube), { timeout: 20_000 }).toBeGreaterThan(made + 1_600);
      expect(await new Joiner(login, 'prod-eu').join(tokenOfSecret(secret))).toEqual({
        ok: false,
        code: 'rejected',
        message: 'the join token has expired: create a new one',
      });
      await expect
        .poll(() => login.events(secret.metadata.name), { timeout: 20_000 })
        .toEqual([expect.stringMatching(/^Warning JoinRefused refused a server at 127\.0\.0\.1: .* has expired/)]);
    });

    test('a token is used once; the same server may repeat, because an answer can be lost', async () => {
      await login.replicas(2);
      const secret = await login.token('prod-eu');
      const cluster = new Joiner(login, 'prod-eu');
      for (let time = 0; time < 3; time++) {
        expect(await cluster.join(tokenOfSecret(secret))).toMatchObject({ ok: true });
      }
      await login.deleteCluster('prod-eu');
      expect(await new Joiner(login, 'prod-eu').join(tokenOfSecret(secret))).toEqual({
        ok: false,
        code: 'rejected',
        message: 'the join token has been used already: create a new one',
      });
      expect(
        (await login.kube.get<Secret>(federationPaths.secrets(secret.metadata.name)))?.metadata.annotations,
      ).toMatchObject({ [tokenAnnotation.usedBy]: keyHash(cluster.key.publicKey) });
    });

    test('two servers use one token at the same moment, each at another replica: one of them joins', async () => {
      await login.replicas(2);
      for (let round = 0; round < 5; round++) {
        const name = `prod-${round}`;
        const token = tokenOfSecret(await login.token(name));
        const rivals = [new Joiner(login, name), new Joiner(login, name)];
        const answers = await Promise.all(rivals.map((rival) => rival.join(token)));
        expect(answers.map(({ ok }) => ok).sort()).toEqual([false, true]);
        const winner = rivals[answers.findIndex(({ ok }) => ok)];
        expect((await login.cluster(name))?.spec.publicKey).toBe(winner?.key.publicKey);
      }
    });

    test('a use that is counted at another replica meanwhile is not overwritten', async () => {
      await login.replicas(1);
      const secret = await login.token('prod-eu', { uses: '2' });
      const [kube, log] = [login.serverKube(), silent];
      const events = new ObjectEvents(kube, 'tka-federation', log);
      const options = { kube, log, events, endpoint: '', hash: () => undefined, known: () => undefined, all: () => [] };
      const [one, two] = [new JoinTokens(options), new JoinTokens(options)];
      const [first, second] = [newKey(), newKey()].map(({ publicKey }) => keyHash(publicKey)) as [string, string];
      expect(await one.count(secret, first, '', false)).toBe(true);
      // It has read the Secret before the other one wrote.
      expect(await two.count(secret, second, '', false)).toBe(false);
      const now = await two.check({ token: tokenOfSecret(secret), cluster: 'prod-eu', address: '' });
      expect(await two.count(now as Secret, second, '', false)).toBe(true);
      const after = await login.kube.get<Secret>(federationPaths.secrets(secret.metadata.name));
      expect(after?.metadata.annotations?.[tokenAnnotation.usedBy]).toBe(`${first},${second}`);
      kube.close();
    });

    test('a token with three uses lets three keys in, one after the other', async () => {
      await login.replicas(1);
      const token = tokenOfSecret(await login.token('prod-eu', { uses: '3' }));
      for (let time = 0; time < 3; time++) {
        expect(await new Joiner(login, 'prod-eu').join(token)).toMatchObject({ ok: true });
        await login.deleteCluster('prod-eu');
      }
      expect(await new Joiner(login, 'prod-eu').join(token)).toMatchObject({ ok: false, code: 'rejected' });
    });

    test('the command creates a token; without a login server it says so, and leaves nothing behind', async () => {
      const { signal } = new AbortController();
      const create = { kube: login.kube, cluster: 'prod-eu', ttl: '2h', uses: '1', signal };
      await expect(createJoinToken({ ...create, fillMs: 500 })).rejects.toThrow(
        'no login server has filled the join token for "prod-eu"',
      );
      const left: string[] = [];
      for await (const { metadata } of login.kube.list<Secret>(federationPaths.secrets())) left.push(metadata.name);
      expect(left).toEqual([]);
      await login.replicas(1);
      // With the rights of the server, as in its pod.
      const { name, endpoint, token } = await createJoinToken({ ...create, kube: login.serverKube() });
      expect(endpoint).toBe('https://login.example.com:7947');
      const secret = await login.kube.get<Secret>(federationPaths.secrets(name));
      expect(secret?.metadata.annotations).toMatchObject({ [tokenAnnotation.ttl]: '2h' });
      expect(await new Joiner(login, 'prod-eu').join(token)).toMatchObject({ ok: true });
    });
  });

  test('tka-server join-token create prints the Secret for the other cluster', async () => {
    await login.replicas(1);
    const command = async (...args: readonly string[]) => {
      const env = { KUBECONFIG: login.serverKubeconfig() };
      await using ran = new TkaServerProcess({}, env, ['join-token', 'create', ...args]);
      return { status: (await ran.ended).status, stdout: ran.stdout, stderr: ran.stderr };
    };
    const { status, stdout, stderr } = await command('prod-eu', '--ttl', '90m');
    expect(status, stderr).toBe(0);
    const secret = parse(stdout);
    expect(secret).toEqual({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'tka-join', namespace: 'tka-system' },
      stringData: { endpoint: 'https://login.example.com:7947', token: expect.stringMatching(/^tka-join-/) },
    });
    const { secret: name } = readToken(secret.stringData.token) ?? {};
    expect(stderr).toContain(
      `the token is valid for 1h30m0s. Revoke it: kubectl delete secret -n tka-federation ${name}`,
    );
    expect(await new Joiner(login, 'prod-eu').join(secret.stringData.token)).toMatchObject({ ok: true });
    for (const [args, problem] of [
      [['Prod'], 'error: the name "Prod" is not a DNS label'],
      [['a', '--ttl', 'soon'], 'error: --ttl "soon" is not a duration from 1s to 8760h, like "24h"'],
      [['a', '--uses', '0'], 'error: --uses "0" is not a whole number from 1 to 1000'],
    ] as const) {
      const refused = await command(...args);
      expect(refused.status).not.toBe(0);
      expect(refused.stderr).toContain(problem);
      expect(refused.stdout).toBe('');
    }
  });

  test('the program is a login server, says so in its status, and ends cleanly', async () => {
    const [port, health, tunnels] = [
      await freePort('127.0.0.1'),
      await freePort('127.0.0.1'),
      await freePort('127.0.0.1'),
    ];
    const config = {
      ...login.settings,
      federation: { ...login.settings.federation, listen: `127.0.0.1:${tunnels}` },
      server: { host: '127.0.0.1' },
      tailscale: { port },
      health: { host: '127.0.0.1', port: health },
      gossip: { enabled: false },
    };
    await using server = new TkaServerProcess(config, { KUBECONFIG: login.serverKubeconfig() });
    await server.said(/listens for the tunnels of joined clusters/);
    login.route(tunnels);
    const cluster = await joined('prod-eu');
    const { tunnels: own } = cluster.dial();
    await expect.poll(() => own.connected().length, { timeout: 20_000 }).toBe(1);
    const status = async (): Promise<string> => (await server.exec('status')).stdout;
    await expect.poll(status, { timeout: 20_000 }).toMatch(/^Joined clusters: +1 connected$/m);
    await login.clusterIs('prod-eu', (found) => found?.status?.connected);
    await login.kube.patch(federationPaths.clusters('prod-eu'), { spec: { suspended: true } });
    await expect.poll(status, { timeout: 20_000 }).toMatch(/^Joined clusters: +0 connected, 1 suspended$/m);
    server.child.kill('SIGTERM');
    expect(await server.ended).toEqual({ status: 0, signal: null });
    expect(server.lines.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([]);
    // The replica has removed its Lease.
    const leases: string[] = [];
    for await (const { metadata } of login.kube.list<Secret>(federationPaths.leases())) leases.push(metadata.name);
    expect(leases).toEqual([]);
  });

  test('500 clusters that come and go cost the API server few writes, and few at a time', async () => {
    const names = Array.from({ length: 500 }, (_, i) => `c${i}`);
    const { publicKey } = newKey();
    const create = async (some: readonly string[]): Promise<void> => {
      for (const name of some) {
        await login.kube.create(federationPaths.clusters(), {
          apiVersion: 'tka.specht-labs.de/v1alpha1',
          kind: 'TkaCluster',
          metadata: { name },
          spec: { publicKey, apiEndpoint: `https://${name}.example.com` },
        });
      }
    };
    await Promise.all([0, 1, 2, 3].map((part) => create(names.filter((_, i) => i % 4 === part))));
    let [writes, atOnce, most] = [0, 0, 0];
    const kube: Kube = {
      ...login.kube,
      async patch<T>(path: string, patch: unknown) {
        writes++;
        most = Math.max(most, ++atOnce);
        try {
          return await login.kube.patch<T>(path, patch);
        } finally {
          atOnce--;
        }
      },
    };
    const listed = Promise.withResolvers<void>();
    const log = silent;
    const clusters = new Clusters({
      kube,
      log,
      events: new ObjectEvents(login.kube, 'tka-federation', log),
      replica: 'tka-0',
      isAlive: () => true,
      own: () => ({ name: 'login', apiEndpoint: undefined }),
      claims: () => [],
      tellEvicted: async () => {},
      onEvicted: () => {},
      onListed: listed.resolve,
      times: { pauseMs: 2_000, lookMs: 100 },
    });
    try {
      await listed.promise;
      // Half of them connect before the first status of theirs is written, and flap.
      const tunnels = names.map((cluster) => standIn(cluster));
      for (let time = 0; time < 20; time++) {
        for (const tunnel of tunnels) clusters.opened(tunnel, publicKey);
        if (time < 19) for (const tunnel of tunnels) clusters.closed(tunnel);
      }
      const connected = (): number =>
        names.filter((name) => clusters.known(name)?.object.status?.connected === true).length;
      await expect.poll(connected, { timeout: 60_000 }).toBe(500);
      expect(most).toBeLessThanOrEqual(4);
      // At most one for the state before, one for the state after.
      expect(writes).toBeLessThanOrEqual(1_000);
      const before = writes;
      for (let time = 0; time < 5; time++) {
        for (const tunnel of tunnels) clusters.closed(tunnel);
        for (const tunnel of tunnels) clusters.opened(tunnel, publicKey);
      }
      for (const tunnel of tunnels) clusters.closed(tunnel);
      await expect.poll(connected, { timeout: 60_000 }).toBe(0);
      expect(writes - before).toBeLessThanOrEqual(1_000);
    } finally {
      await clusters.stop();
    }
  });

  describe('conflicts', () => {
    test('a name that another key has joined with is rejected; the joined cluster keeps its tunnels', async () => {
      const [replica] = (await login.replicas(1)) as [LoginReplica];
      const first = await joined('prod-eu');
      first.dial();
      await expect.poll(() => replica.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
      const secret = await login.token('prod-eu');
      const message = 'another cluster has joined as "prod-eu": if it is gone, delete its TkaCluster';
      const thief = new Joiner(login, 'prod-eu');
      expect(await thief.join(tokenOfSecret(secret))).toEqual({ ok: false, code: 'rejected', message });
      for (const object of ['prod-eu', secret.metadata.name]) {
        await expect
          .poll(() => login.events(object), { timeout: 20_000 })
          .toContainEqual(
            expect.stringMatching(/^Warning Conflict refused a server at 127\.0\.0\.1 with the token of /),
          );
      }
      const cluster = replica.server.clusters.get('prod-eu');
      expect(cluster?.conflict).toBeUndefined();
      expect(cluster?.tunnels).toHaveLength(1);
      // The token was not used up.
      await login.deleteCluster('prod-eu');
      expect(await thief.join(tokenOfSecret(secret))).toMatchObject({ ok: true });
    });

    test.for([
      ['the name of the login server itself', 'login', undefined],
      ['the API endpoint of the login server itself', 'a', 'https://login-api.example.com'],
      ['the name of a cluster in the mesh', 'in-mesh', undefined],
      ['the API endpoint of a cluster in the mesh', 'a', 'https://mesh-api.example.com'],
      ['the API endpoint of another joined cluster', 'a', 'https://first.example.com'],
    ] as const)('%s is rejected', async ([, name, apiEndpoint]) => {
      await login.replicas(1, { members: () => [{ cluster: 'in-mesh', apiEndpoint: 'https://mesh-api.example.com' }] });
      await joined('first');
      const secret = await login.token(name);
      const cluster = new Joiner(login, name);
      if (apiEndpoint !== undefined) cluster.statement = { ...cluster.statement, apiEndpoint };
      expect(await cluster.join(tokenOfSecret(secret))).toMatchObject({ ok: false, code: 'rejected' });
      expect(await login.cluster(name)).toBeUndefined();
      await expect
        .poll(() => login.events(secret.metadata.name), { timeout: 20_000 })
        .toEqual([expect.stringMatching(/^Warning Conflict /)]);
    });

    test('a cluster that wants the API endpoint of another joined cluster is not told its name; the Event has it', async () => {
      await login.replicas(1);
      await joined('first');
      const secret = await login.token('a');
      const cluster = new Joiner(login, 'a');
      cluster.statement = { ...cluster.statement, apiEndpoint: 'https://first.example.com' };
      const message = 'the API endpoint "https://first.example.com" belongs to another joined cluster';
      expect(await cluster.join(tokenOfSecret(secret))).toEqual({ ok: false, code: 'rejected', message });
      await expect
        .poll(() => login.events(secret.metadata.name), { timeout: 20_000 })
        .toEqual([expect.stringMatching(/ belongs to TkaCluster "first"$/)]);
    });

    test('a cluster whose key a member of the mesh names may have that name and endpoint', async () => {
      const key = newKey();
      const member = {
        cluster: 'both',
        apiEndpoint: 'https://both.example.com',
        federationKey: keyHash(key.publicKey),
      };
      const [replica] = (await login.replicas(1, { members: () => [member] })) as [LoginReplica];
      await new Joiner(login, 'both', key).joined(await login.token('both'));
      expect(replica.server.clusters.get('both')).toMatchObject({ direct: true, conflict: undefined });
    });

    test('a member of the mesh that comes later has the name: the joined cluster is in conflict until it leaves', async () => {
      let members: { cluster: string; apiEndpoint: string }[] = [];
      const [replica] = (await login.replicas(1, { members: () => members })) as [LoginReplica];
      await joined('prod-eu');
      await login.clusterIs('prod-eu', (found) => condition(found, 'Conflict')?.status === 'False');
      members = [{ cluster: 'prod-eu', apiEndpoint: 'https://elsewhere.example.com' }];
      await login.clusterIs('prod-eu', (found) => condition(found, 'Conflict')?.reason === 'NameTaken');
      expect(replica.server.clusters.get('prod-eu')?.conflict).toBe('"prod-eu" is the name of a cluster in the mesh');
      await expect
        .poll(() => login.events('prod-eu'), { timeout: 20_000 })
        .toContainEqual('Warning Conflict "prod-eu" is the name of a cluster in the mesh');
      members = [];
      await login.clusterIs('prod-eu', (found) => condition(found, 'Conflict')?.status === 'False');
      expect(replica.server.clusters.get('prod-eu')?.conflict).toBeUndefined();
    });

    test('until the members of the mesh are known, no cluster joins, and conflicts stay as they are written', async () => {
      let members: { cluster: string; apiEndpoint: string }[] | undefined;
      const [replica] = (await login.replicas(1, { members: () => members })) as [LoginReplica];
      const secret = await login.token('prod-eu');
      const cluster = new Joiner(login, 'prod-eu');
      const message = 'the login server does not know the members of the mesh yet';
      expect(await cluster.join(tokenOfSecret(secret))).toEqual({ ok: false, code: 'unavailable', message });
      members = [];
      await cluster.joined(secret);
      members = [{ cluster: 'prod-eu', apiEndpoint: 'https://elsewhere.example.com' }];
      await login.clusterIs('prod-eu', (found) => condition(found, 'Conflict')?.reason === 'NameTaken');
      members = undefined;
      // Has the replica write the status, with the conflict in it.
      cluster.statement = { ...cluster.statement, version: '2.0.0' };
      cluster.dial();
      await login.clusterIs('prod-eu', (found) => found?.status?.version === '2.0.0');
      expect(condition(await login.cluster('prod-eu'), 'Conflict')?.status).toBe('True');
      expect(replica.server.clusters.get('prod-eu')?.conflict).toBe('"prod-eu" is the name of a cluster in the mesh');
    });

    test('a cluster that states another endpoint later is in conflict until spec.apiEndpoint is edited', async () => {
      const replicas = await login.replicas(2);
      const cluster = await joined('prod-eu');
      cluster.statement = { ...cluster.statement, apiEndpoint: 'https://new.example.com', version: '2.0.0' };
      cluster.dial();
      await login.clusterIs('prod-eu', (found) => condition(found, 'Conflict')?.reason === 'EndpointChanged');
      for (const { server } of replicas) {
        await expect
          .poll(() => server.clusters.get('prod-eu')?.conflict, { timeout: 20_000 })
          .toContain('edit spec.apiEndpoint');
        expect(server.clusters.get('prod-eu')?.apiEndpoint).toBe('https://prod-eu.example.com');
      }
      await login.kube.patch(federationPaths.clusters('prod-eu'), { spec: { apiEndpoint: 'https://new.example.com' } });
      await login.clusterIs('prod-eu', (found) => condition(found, 'Conflict')?.status === 'False');
      for (const { server } of replicas) {
        await expect.poll(() => server.clusters.get('prod-eu')?.conflict, { timeout: 20_000 }).toBeUndefined();
        expect(server.clusters.get('prod-eu')?.apiEndpoint).toBe('https://new.example.com');
      }
    });
  });

  describe('dials', () => {
    test('a cluster that is not joined, or with another key, is evicted', async () => {
      await login.replicas(1);
      const cluster = await joined('prod-eu');
      const stranger = new Joiner(login, 'other', cluster.key);
      stranger.keys = cluster.keys;
      const { evicted } = stranger.dial();
      await expect
        .poll(evicted, { timeout: 20_000 })
        .toContain('the cluster "other" is not joined to this login server');
      const thief = new Joiner(login, 'prod-eu');
      thief.keys = cluster.keys;
      await expect
        .poll(thief.dial().evicted, { timeout: 20_000 })
        .toContain('is joined to this login server with another key');
    });

    test('a TkaCluster that the watch has not reported yet is read before anything is refused', async () => {
      const relay = await startRelay(login.api.server);
      const [replica] = (await login.replicas(1, { access: { ...login.api, server: relay.url } })) as [LoginReplica];
      try {
        const cluster = new Joiner(login, 'prod-eu');
        cluster.keys = keysIn(await keysSecret());
        relay.cut();
        // The API server is away: nothing is known about the cluster.
        const { tunnels } = cluster.dial();
        await expect.poll(() => tunnels.counts().failed.unavailable ?? 0, { timeout: 30_000 }).toBeGreaterThan(0);
        expect(
          await cluster.join(
            writeToken({ cluster: 'prod-eu', secret: 's', key: 'A'.repeat(43), hash: keyHash(cluster.keys[0] ?? '') }),
          ),
        ).toMatchObject({ ok: false, code: 'unavailable' });
        await login.kube.create(federationPaths.clusters(), {
          apiVersion: 'tka.specht-labs.de/v1alpha1',
          kind: 'TkaCluster',
          metadata: { name: 'prod-eu' },
          spec: { publicKey: cluster.key.publicKey, apiEndpoint: 'https://prod-eu.example.com' },
        });
        await relay.heal();
        await expect.poll(() => replica.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 30_000 }).toBe(1);
      } finally {
        await replica.stop();
        relay.close();
      }
    });

    test('an API server that does not serve TkaClusters evicts nobody', async () => {
      // As while the CustomResourceDefinition is replaced. An administrator gets 404 there, not 403.
      const [kube, log] = [login.kube, silent];
      const away: Kube = { ...kube, get: (path, signal) => kube.get(path.replace('/tkaclusters', '/gone'), signal) };
      const known = { known: () => undefined, put: () => {} } as unknown as Clusters;
      const tokens = {} as JoinTokens;
      const events = new ObjectEvents(kube, 'tka-federation', log);
      const admission = new KubeAdmission({
        kube: away,
        log,
        events,
        clusters: known,
        tokens,
        primary: 'login',
        keys: () => [],
      });
      const { publicKey } = newKey();
      const statement = { version: '', apiEndpoint: 'https://a.example.com', labels: {} };
      const dial = { cluster: 'a', replica: 'a-0', publicKey, statement, address: '', tunnel: 't' };
      expect(await admission.dial(dial)).toMatchObject({ ok: false, code: 'unavailable' });
    });

    test('tunnels stay, and known clusters get new ones, while the API server is away; after a time, what is known is stale', async () => {
      const relay = await startRelay(login.api.server);
      const access = { ...login.api, server: relay.url };
      const [replica] = (await login.replicas(1, { access, staleMs: 2_000 })) as [LoginReplica];
      try {
        const cluster = await joined('prod-eu');
        cluster.dial('0');
        await expect.poll(() => replica.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
        relay.cut();
        cluster.dial('1');
        await expect.poll(() => replica.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(2);
        await expect.poll(() => replica.server.isStale(), { timeout: 20_000 }).toBe(true);
        await relay.heal();
        await login.clusterIs('prod-eu', (found) => found?.status?.connected);
        await expect.poll(() => replica.server.isStale(), { timeout: 60_000 }).toBe(false);
      } finally {
        await replica.stop();
        relay.close();
      }
    });
  });

  describe('administrators', () => {
    test('suspend a cluster, and resume it: its tunnels stay open', async () => {
      const replicas = await login.replicas(2);
      const cluster = await joined('prod-eu');
      cluster.dial();
      for (const suspended of [true, false]) {
        await login.kube.patch(federationPaths.clusters('prod-eu'), { spec: { suspended } });
        for (const { server } of replicas) {
          await expect.poll(() => server.clusters.get('prod-eu')?.suspended, { timeout: 20_000 }).toBe(suspended);
          await expect.poll(() => server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
        }
        await login.clusterIs(
          'prod-eu',
          (found) => condition(found, 'Suspended')?.status === (suspended ? 'True' : 'False'),
        );
      }
      const said = async (): Promise<readonly string[]> =>
        (await login.events('prod-eu')).filter((event) => /Suspended|Resumed/.test(event)).sort();
      await expect
        .poll(said, { timeout: 20_000 })
        .toEqual(['Normal Resumed sign-ins are possible', 'Normal Suspended spec.suspended stops sign-ins']);
    });

    test('delete a TkaCluster: every replica tells the cluster, closes its tunnels and takes no new ones', async () => {
      const replicas = await login.replicas(2);
      const cluster = await joined('prod-eu');
      const { requests, tunnels, evicted } = cluster.dial();
      await expect.poll(() => tunnels.connected().length, { timeout: 20_000 }).toBe(2);
      for (const { server } of replicas) {
        await expect.poll(() => server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
      }
      await login.deleteCluster('prod-eu');
      await expect.poll(evicted, { timeout: 20_000 }).toContain('is not joined to this login server');
      await expect.poll(() => requests.length, { timeout: 20_000 }).toBe(2);
      for (const { method, path } of requests) expect(`${method} ${path}`).toBe('POST /tka-federation/v1/evicted');
      await expect.poll(() => tunnels.connected().length, { timeout: 20_000 }).toBe(0);
      for (const { server } of replicas) expect(server.clusters.get('prod-eu')).toBeUndefined();
      await expect
        .poll(async () => (await login.events('prod-eu')).filter((event) => event.includes(' Evicted ')), {
          timeout: 20_000,
        })
        .toHaveLength(2);
      // It may come back with a new token.
      await cluster.joined(await login.token('prod-eu'));
      expect(cluster.dial().tunnels.problem()).toBeUndefined();
      await login.clusterIs('prod-eu', (found) => found?.status?.connected);
    });

    test('an evicted server cannot join again with its token and its key, only with a new token', async () => {
      const [one] = (await login.replicas(2)) as [LoginReplica, LoginReplica];
      const secret = await login.token('prod-eu', { uses: '2' });
      const cluster = await new Joiner(login, 'prod-eu').joined(secret);
      // The answer comes after the mark: an eviction that no replica sees must not give the token back.
      expect(
        (await login.kube.get<Secret>(federationPaths.secrets(secret.metadata.name)))?.metadata.annotations,
      ).toMatchObject({ [tokenAnnotation.spent]: keyHash(cluster.key.publicKey) });
      await login.deleteCluster('prod-eu');
      for (let time = 0; time < 3; time++) {
        expect(await cluster.join(tokenOfSecret(secret))).toEqual({
          ok: false,
          code: 'rejected',
          message: 'the join token has been used already: create a new one',
        });
      }
      expect(await login.cluster('prod-eu')).toBeUndefined();
      await cluster.joined(await login.token('prod-eu'));
      cluster.dial();
      await expect.poll(() => one.server.clusters.get('prod-eu')?.tunnels.length, { timeout: 20_000 }).toBe(1);
    });

    test('an eviction spends the tokens of the cluster even if no replica has marked them', async () => {
      await login.replicas(2);
      const secret = await login.token('prod-eu');
      const cluster = new Joiner(login, 'prod-eu');
      const hash = keyHash(cluster.key.publicKey);
      // As a replica leaves it that ends after it has created the TkaCluster, before it marks the token.
      await login.kube.patch(federationPaths.secrets(secret.metadata.name), {
        metadata: { annotations: { [tokenAnnotation.usedBy]: hash } },
      });
      await login.kube.create(federationPaths.clusters(), {
        apiVersion: 'tka.specht-labs.de/v1alpha1',
        kind: 'TkaCluster',
        metadata: { name: 'prod-eu' },
        spec: { publicKey: cluster.key.publicKey, apiEndpoint: 'https://prod-eu.example.com' },
      });
      await login.deleteCluster('prod-eu');
      await until<Secret>(
        login.api,
        federationPaths.secrets(),
        secret.metadata.name,
        (found) => found?.metadata.annotations?.[tokenAnnotation.spent] === hash,
      );
      expect(await cluster.join(tokenOfSecret(secret))).toMatchObject({ ok: false, code: 'rejected' });
    });

    test('a tunnel whose cluster is evicted between its handshake and its opening is told so and closed', async () => {
      const evicted: Tunnel[] = [];
      const closed: string[] = [];
      const listed = Promise.withResolvers<void>();
      const clusters = new Clusters({
        kube: login.kube,
        log: silent,
        events: new ObjectEvents(login.kube, 'tka-federation', silent),
        replica: 'tka-0',
        isAlive: () => true,
        own: () => ({ name: 'login', apiEndpoint: undefined }),
        claims: () => [],
        tellEvicted: async (tunnel) => void evicted.push(tunnel),
        onEvicted: () => {},
        onListed: listed.resolve,
      });
      const { kube } = login;
      const create = async (publicKey: string): Promise<unknown> =>
        await kube.create(federationPaths.clusters(), {
          apiVersion: 'tka.specht-labs.de/v1alpha1',
          kind: 'TkaCluster',
          metadata: { name: 'prod-eu' },
          spec: { publicKey, apiEndpoint: 'https://prod-eu.example.com' },
        });
      try {
        await listed.promise;
        const [key, other] = [newKey().publicKey, newKey().publicKey];
        await create(key);
        const events = new ObjectEvents(kube, 'tka-federation', silent);
        const admission = new KubeAdmission({
          kube,
          log: silent,
          events,
          clusters,
          tokens: {} as JoinTokens,
          primary: 'login',
          keys: () => [],
        });
        const open = standIn('prod-eu');
        const tunnel: Tunnel = { ...open, close: (reason) => void closed.push(reason) };
        const dial = { ...open, address: '', publicKey: key, tunnel: open.id };
        const handshake = async (): Promise<void> => expect(await admission.dial(dial)).toEqual({ ok: true });

        await handshake();
        await login.deleteCluster('prod-eu');
        await expect.poll(() => clusters.known('prod-eu'), { timeout: 20_000 }).toBeUndefined();
        clusters.opened(tunnel, admission.keyOf(tunnel));
        await expect.poll(() => closed, { timeout: 20_000 }).toEqual(['evicted']);
        expect(evicted).toEqual([tunnel]);

        // The same, and another cluster has joined with the name meanwhile.
        await create(key);
        await handshake();
        await login.deleteCluster('prod-eu');
        await create(other);
        await expect.poll(() => clusters.known('prod-eu')?.publicKey, { timeout: 20_000 }).toBe(other);
        clusters.opened(tunnel, admission.keyOf(tunnel));
        expect(closed).toEqual(['evicted', 'the TkaCluster has changed during the handshake']);
        expect(clusters.get('prod-eu')?.tunnels).toEqual([]);
        // The watch is late: it reports the eviction when the tunnel is open.
        const late: Tunnel = { ...tunnel, id: 'late' };
        await admission.dial({ ...dial, publicKey: other, tunnel: 'late' });
        clusters.opened(late, admission.keyOf(late));
        expect(clusters.get('prod-eu')?.tunnels).toEqual([late]);
        await login.deleteCluster('prod-eu');
        await expect.poll(() => evicted, { timeout: 20_000 }).toEqual([tunnel, late]);
        await expect.poll(() => closed.length, { timeout: 20_000 }).toBe(3);
      } finally {
        await clusters.stop();
      }
    });

    test('label a cluster: every replica sees the labels of the TkaCluster, not those that it states', async () => {
      const replicas = await login.replicas(2);
      const cluster = await joined('prod-eu');
      cluster.statement = { ...cluster.statement, labels: { env: 'forged' } };
      cluster.dial();
      await login.kube.patch(federationPaths.clusters('prod-eu'), { metadata: { labels: { env: 'prod' } } });
      for (const { server } of replicas) {
        await expect.poll(() => server.clusters.get('prod-eu')?.labels, { timeout: 20_000 }).toEqual({ env: 'prod' });
        await expect
          .poll(() => server.clusters.get('prod-eu')?.statement?.labels, { timeout: 20_000 })
          .toEqual({ env: 'forged' });
      }
    });
  });

  describe('the status of a TkaCluster', () => {
    test('says what the cluster stated, and which replicas have a tunnel', async () => {
      const [one, two] = (await login.replicas(2)) as [LoginReplica, LoginReplica];
      const cluster = await joined('prod-eu');
      const { tunnels } = cluster.dial();
      await login.clusterIs(
        'prod-eu',
        (found) => found?.status?.replicas?.filter(({ connected }) => connected).length === 2,
      );
      const { status } = (await login.cluster('prod-eu')) as TkaCluster;
      expect(status).toMatchObject({ connected: true, version: '1.0.0', endpoint: 'https://prod-eu.example.com' });
      expect(Date.now() - Date.parse(status?.lastSeen ?? '')).toBeLessThan(60_000);
      // A replica that is gone does not count any more. The other one has still seen the cluster.
      await two.stop();
      await login.clusterIs('prod-eu', (found) => found?.status?.replicas?.length === 1);
      expect((await login.cluster('prod-eu'))?.status?.connected).toBe(true);
      await tunnels.close();
      await login.clusterIs('prod-eu', (found) => condition(found, 'Connected')?.status === 'False');
      expect((await login.cluster('prod-eu'))?.status?.connected).toBe(false);
      expect(one.server.clusters.get('prod-eu')?.lastSeen).toBeGreaterThan(0);
    });
  });

  test('a replica whose Lease was created without an answer goes on with it', async () => {
    const kube = login.serverKube();
    let lost = 0;
    const lossy: Kube = {
      ...kube,
      create: async (...call) => {
        await kube.create(...call);
        lost++;
        throw new Error('the connection was closed before the answer');
      },
    };
    const times = { renewMs: 100, aliveMs: 3_000 };
    const one = new Replicas({ kube: lossy, log: silent, name: 'tka-0', times });
    const two = new Replicas({ kube, log: silent, name: 'tka-1', times });
    try {
      await expect.poll(() => [one.count(), two.count()], { timeout: 20_000 }).toEqual([2, 2]);
      expect(lost).toBe(1);
      await one.stop();
      expect(await login.kube.get(federationPaths.leases('login-server.tka-0'))).toBeUndefined();
    } finally {
      await Promise.all([one.stop(), two.stop()]);
      kube.close();
    }
  });

  test('a Lease that a killed replica left behind counts for no replica, and is removed', async () => {
    const left = 'login-server.tka-9-000000';
    await login.kube.create(federationPaths.leases(), {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: left },
      spec: { holderIdentity: 'tka-9-000000', renewTime: '2026-01-01T00:00:00.000000Z' },
    });
    const [kube, log] = [login.serverKube(), silent];
    const times = { renewMs: 100, aliveMs: 1_000 };
    const [one, two] = ['tka-0', 'tka-1'].map((name) => new Replicas({ kube, log, name, times })) as [
      Replicas,
      Replicas,
    ];
    try {
      await expect.poll(() => [one.count(), two.count()], { timeout: 20_000 }).toEqual([2, 2]);
      expect(one.isAlive('tka-1')).toBe(true);
      expect(one.isAlive('tka-9-000000')).toBe(false);
      await until<Secret>(login.api, federationPaths.leases(), left, (found) => found === undefined);
      await two.stop();
      await expect.poll(() => one.count(), { timeout: 20_000 }).toBe(1);
    } finally {
      await Promise.all([one.stop(), two.stop()]);
      kube.close();
    }
  });

  describe('the signing key', () => {
    test('is created once by replicas that start together, which all use it', async () => {
      const replicas = Array.from({ length: 4 }, () => login.startReplica());
      await Promise.all(replicas.map(({ server }) => server.listening()));
      const [created] = keysIn(await keysSecret());
      for (let i = 0; i < 4; i++) {
        const answer = await new Joiner(login, `c${i}`).join(tokenOfSecret(await login.token(`c${i}`)));
        expect(answer).toMatchObject({ ok: true, keys: [created] });
      }
    });

    test('is rotated by editing its list: joined clusters learn the new key; a broken list changes nothing', async () => {
      const replicas = await login.replicas(2);
      const cluster = await joined('prod-eu');
      cluster.dial();
      const before = await keysSecret();
      const old = readKeys(textsOf(before).get('keys.pem') ?? '');
      const put = (text: string) =>
        login.kube.patch(federationPaths.secrets('signing-key'), { data: dataOf({ 'keys.pem': text }) });
      const next = newKey();
      await put(writeKeys([next, ...old]));
      const both = [next, ...old].map(({ publicKey }) => publicKey);
      await vi.waitUntil(() => cluster.keys.join() === both.join(), { timeout: 30_000, interval: 50 });

      await put('not a key');
      for (const replica of replicas) {
        await expect
          .poll(() => replica.server.problem(), { timeout: 20_000 })
          .toBe('the Secret tka-federation/signing-key cannot be used: there is no private key (PKCS#8, PEM)');
      }
      const late = await joined('late');
      expect(late.keys).toEqual(both);
      await put(writeKeys([next]));
      await vi.waitUntil(() => cluster.keys.join() === next.publicKey, { timeout: 30_000, interval: 50 });
      for (const { server } of replicas) {
        await expect.poll(() => server.problem(), { timeout: 20_000 }).toBeUndefined();
        await expect.poll(() => server.clusters.get('prod-eu')?.tunnels.length, { timeout: 30_000 }).toBe(1);
      }
    });

    test('is written again if its Secret is deleted, because joined clusters know no other', async () => {
      await login.replicas(2);
      const before = await keysSecret();
      await remove(before);
      await expect
        .poll(async () => (await login.kube.get<Secret>(federationPaths.secrets('signing-key')))?.data, {
          timeout: 20_000,
        })
        .toEqual(before.data);
    });
  });

  test('the rights of the manifests are enough, and give no Secret of another namespace', async () => {
    const [replica] = (await login.replicas(1)) as [LoginReplica];
    const cluster = await joined('prod-eu');
    cluster.dial();
    await login.clusterIs('prod-eu', (found) => found?.status?.connected);
    await login.deleteCluster('prod-eu');
    await expect.poll(() => replica.server.clusters.all(), { timeout: 20_000 }).toEqual([]);
    expect(replica.lines.filter((line) => /forbidden/.test(line))).toEqual([]);
    const kube = login.serverKube();
    for (const namespace of ['tka-system', 'kube-system', 'default']) {
      await expect(kube.get(`/api/v1/namespaces/${namespace}/secrets/any`)).rejects.toThrow(/is forbidden/);
    }
    await expect(kube.remove(federationPaths.clusters('prod-eu'), { uid: 'any' })).rejects.toThrow(/is forbidden/);
    kube.close();
  });
});

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Returns a tunnel that is only there. */
const standIn = (cluster: string): Tunnel => ({
  id: cluster,
  cluster,
  replica: `${cluster}-0`,
  statement: { version: '1.0.0', apiEndpoint: `https://${cluster}.example.com`, labels: {} },
  keys: [],
  since: Date.now(),
  lastSeen: () => Date.now(),
  request: () => Promise.reject(new Error('it is only there')),
  close: () => {},
});

/** Returns the API server's time. */
async function apiNow(kube: Kube): Promise<number> {
  await kube.get('/api/v1/namespaces/default');
  return kube.now();
}
