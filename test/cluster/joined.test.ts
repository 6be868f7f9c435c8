// A joined cluster without tailscaled on a real API server: the built tka-server as its pod runs it, with the rights
// and the configuration of deploy/, and the tunnel's other end in this process.
import * as fs from 'node:fs';
import { test as base, describe, expect, onTestFinished, vi } from 'vitest';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { signAssertion } from '../../src/server/federation/assertion.ts';
import { type DialAnswer, evictedPath, type Tunnel, type TunnelAnswer } from '../../src/server/federation/contract.ts';
import { keyHash } from '../../src/server/federation/keys.ts';
import { federationPaths, type Secret, textsOf } from '../../src/server/federation/objects.ts';
import type { Caller } from '../../src/server/http/contract.ts';
import { annotation, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { placesOf } from '../../src/tailscale/places.ts';
import { freePort } from '../fixtures/ports.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { authority, type Login, login, loginKey, OpenAdmission } from '../server/federation/fixture.ts';
import { mountSecret, tokenFor } from '../server/federation/join-secrets.ts';
import { ask, listens, TkaServerProcess } from '../server/program.ts';
import { type Access, kubeconfigFile } from './api-server.ts';
import { apply, type Deployed, insideItsPod, listed, ownCluster } from './deployed.ts';
import { type Hook, type Hooked, hooked } from './hook.ts';
import { absent, statusFor } from './support.ts';

// A developer's own: the server would serve in that tailnet too.
const tailscaledHere = placesOf({ env: {} }).some((place) => 'socketPath' in place && fs.existsSync(place.socketPath));

const cluster = 'edge-1';

const test = base.extend<{ $file: { here: Deployed } }>({
  here: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    async ({}, use) => {
      await using cluster = await ownCluster('127.0.0.22');
      const components = ['federation/joined-cluster', 'federation/without-tailscale'];
      await use(await apply(cluster.access, cluster.kube, 'tka-system', { resources: ['federation'], components }));
    },
    { scope: 'file' },
  ],
});

/** Starts the server as its pod would, with the join Secret in this folder. It ends with the test. */
async function startServer(
  here: Deployed,
  joinFolder: string,
  { access = here.access, socket }: { readonly access?: Access; readonly socket?: string } = {},
) {
  const { env, config } = await insideItsPod(here);
  const [port, health] = [await freePort('127.0.0.1'), await freePort('127.0.0.1')];
  const server = new TkaServerProcess(config, {
    ...env,
    KUBECONFIG: kubeconfigFile(access, here.token),
    TKA_HEALTH_HOST: '127.0.0.1',
    TKA_HEALTH_PORT: String(health),
    TKA_TAILSCALE_PORT: String(port),
    TKA_FEDERATION_JOINFOLDER: joinFolder,
    TKA_FEDERATION_CAFILE: authority.file,
    ...(socket !== undefined && { TS_SOCKET: socket }),
  });
  onTestFinished(async () => {
    // So that it gives up the lease at once.
    server.child.kill('SIGTERM');
    await server.ended;
    await server[Symbol.asyncDispose]();
  });
  const ready = async () => {
    const { status, body } = await ask(`http://127.0.0.1:${health}/ready`);
    return { status, reason: (JSON.parse(body) as { reason: string }).reason };
  };
  return { server, port, ready };
}

const secretFor = ({ endpoint }: Login, nonce = '') => ({
  endpoint: `${endpoint}${nonce}`,
  token: tokenFor({ cluster, hash: keyHash(loginKey.publicKey) }),
});

/** Returns the values of a Secret of the federation. */
async function valuesOf({ kube }: Deployed, name: string): Promise<Readonly<Record<string, string>>> {
  const found = await kube.get<Secret>(federationPaths.secrets(name));
  return found === undefined ? {} : Object.fromEntries(textsOf(found));
}

/** Removes what an earlier test has left. */
async function clear({ kube }: Deployed): Promise<void> {
  for (const name of ['tka-cluster-info', 'tka-join-status']) {
    const found = await kube.get<Secret>(federationPaths.secrets(name));
    if (found !== undefined) await kube.remove(federationPaths.secrets(name), { uid: found.metadata.uid });
  }
}

const becomes = async (read: () => Promise<unknown>, what: object) =>
  await vi.waitFor(async () => expect(await read()).toMatchObject(what), { timeout: 60_000, interval: 100 });

const alice: Caller = { login: 'alice@example.com', username: 'alice', role: listed, periodMs: 3_600_000 };

/** Sends a request as the login server does. */
async function through(tunnel: Tunnel, method: string, path: string, caller?: Caller): Promise<TunnelAnswer> {
  const about = { issuer: 'primary', cluster, tunnel: tunnel.id, method, path };
  const assertion = await signAssertion(loginKey, { ...about, ...(caller && { caller }) });
  return await tunnel.request({ method, path, assertion, id: 'test' }, AbortSignal.timeout(20_000));
}

/** Signs alice in. Returns her token. */
async function tokenThrough(tunnel: Tunnel): Promise<string> {
  const { status, body } = await through(tunnel, 'POST', '/api/v1alpha1/login', alice);
  expect([status, body]).toEqual([202, expect.stringContaining(listed)]);
  for (;;) {
    const answer = await through(tunnel, 'GET', '/api/v1alpha1/kubeconfig', alice);
    if (answer.status === 202) continue;
    const [user] = Object.values((JSON.parse(answer.body) as { users: Record<string, { token: string }> }).users);
    return user?.token ?? '';
  }
}

async function signInsOf({ kube, namespace }: Deployed): Promise<TkaSignin[]> {
  const found: TkaSignin[] = [];
  for await (const signIn of kube.list<TkaSignin>(paths.signIns(namespace))) found.push(signIn);
  return found;
}

describe.skipIf(absent !== undefined || tailscaledHere)('a joined cluster without tailscaled', () => {
  test('waits for a join Secret, joins, is ready, and signs in through the tunnel only', async ({ here }) => {
    await clear(here);
    const it = await login();
    const folder = testFolder();
    mountSecret(folder, {});
    const { server, port, ready } = await startServer(here, folder);
    await becomes(ready, {
      status: 503,
      reason: expect.stringMatching(`^tailscaled is not up yet: .*; there is no join Secret in ${folder}$`),
    });
    mountSecret(folder, secretFor(it));
    const tunnel = await it.next();
    expect(tunnel.cluster).toBe(cluster);
    expect(tunnel.statement).toMatchObject({ apiEndpoint: here.access.server });
    await becomes(ready, { status: 200 });
    await server.said(/^joined the login server$/);
    await server.said(/^no tailscaled: people sign in through the login server only$/);
    expect(await listens('127.0.0.1', port)).toBe(false);
    const token = await tokenThrough(tunnel);
    expect(await statusFor(here.access, token)).toBe(200);
    expect(await signInsOf(here)).toMatchObject([
      { metadata: { annotations: { 'tka.specht-labs.de/login-server': 'primary' } }, spec: { role: listed } },
    ]);
    const { stdout } = await server.exec('status');
    expect(stdout).toMatch(new RegExp(`^Login server: +primary at ${it.endpoint}, as ${cluster}, 1 tunnel$`, 'm'));
    expect(await valuesOf(here, 'tka-cluster-info')).toEqual({
      clusterName: cluster,
      endpoint: it.endpoint,
      primaryName: 'primary',
      primaryPublicKey: loginKey.publicKey,
      privateKey: expect.stringMatching(/^-----BEGIN PRIVATE KEY-----\n/),
      'tka-join.hash': expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    // While the login server is away, it is not ready, and says why.
    await it.listener.close();
    await becomes(ready, { status: 503, reason: expect.stringMatching(/^no tunnel to the login server https:.*: /) });
    const { token: joinToken } = secretFor(it);
    for (const secret of [joinToken, token]) expect(server.stdout + server.stderr).not.toContain(secret);
  });

  test('that is evicted ends the sign-ins, and stays out until the join Secret changes', async ({ here }) => {
    await clear(here);
    let answer: DialAnswer = { ok: true };
    const it = await login({ admission: new OpenAdmission(() => answer) });
    const folder = testFolder();
    mountSecret(folder, secretFor(it));
    const { server, ready } = await startServer(here, folder);
    const tunnel = await it.next();
    const token = await tokenThrough(tunnel);
    answer = { ok: false, code: 'evicted', message: 'there is no cluster of this name' };
    expect(await through(tunnel, 'POST', evictedPath)).toMatchObject({ status: 202 });
    await becomes(() => valuesOf(here, 'tka-join-status'), { status: 'Rejected', reason: 'Evicted' });
    await becomes(() => signInsOf(here), { length: 0 });
    // The API server checks a token again after 10 s.
    await becomes(async () => ({ status: await statusFor(here.access, token) }), { status: 401 });
    await becomes(ready, { status: 503, reason: expect.stringMatching(/^this cluster has not joined: .* evicted/) });
    answer = { ok: true };
    await server.said(/has evicted this cluster/);
    mountSecret(folder, secretFor(it, '/'));
    await it.next();
    await becomes(() => valuesOf(here, 'tka-join-status'), { status: 'Joined', msg: '' });
  });

  test('whose leader is killed between the join and its record: the other replica goes on', async ({ here }) => {
    await clear(here);
    const admission = new OpenAdmission();
    const it = await login({ admission });
    const folder = testFolder();
    mountSecret(folder, secretFor(it));
    const held = Promise.withResolvers<void>();
    const info = federationPaths.secrets('tka-cluster-info');
    await using proxy = await hookedAt(here.access, async ({ method, path, status }) => {
      if (method !== 'PATCH' || path !== info || status !== undefined) return;
      held.resolve();
      await new Promise(() => {});
    });
    const leader = await startServer(here, folder, { access: proxy.access });
    await held.promise;
    leader.server.child.kill('SIGKILL');
    const other = await startServer(here, folder);
    await it.next();
    await becomes(other.ready, { status: 200 });
    expect(new Set(admission.asked.map(({ publicKey }) => publicKey)).size).toBe(1);
    expect(await valuesOf(here, 'tka-join-status')).toMatchObject({ status: 'Joined' });
  });
});

describe.skipIf(absent !== undefined)('a joined cluster in the tailnet', () => {
  test('waits for tailscaled, and both ways in work, with accounts of their own', async ({ here }) => {
    await clear(here);
    const it = await login();
    const folder = testFolder();
    mountSecret(folder, secretFor(it));
    const grant = { role: listed, period: '1h', priority: 1 };
    const whois = () => ({ login: alice.login, capabilities: { 'specht-labs.de/cap/tka': [grant] } });
    await using tailscaled = await startTailscaled({ whois });
    await tailscaled.stop();
    const { server, port, ready } = await startServer(here, folder, { socket: tailscaled.socketPath });
    const tunnel = await it.next();
    const token = await tokenThrough(tunnel);
    expect(await ready()).toMatchObject({ status: 503, reason: expect.stringMatching(/^tailscaled is not up yet: /) });
    await tailscaled.start();
    await server.said(/^listening for the API$/);
    await becomes(ready, { status: 200 });
    const url = `http://127.0.0.1:${port}/api/v1alpha1`;
    expect(await ask(`${url}/login`, { method: 'POST' })).toMatchObject({ status: 202 });
    expect((await signInsOf(here)).map(({ metadata }) => metadata.annotations?.[annotation.loginServer])).toEqual(
      expect.arrayContaining([undefined, 'primary']),
    );
    expect(await ask(`${url}/logout`, { method: 'POST' })).toMatchObject({ status: 200 });
    expect(await statusFor(here.access, token)).toBe(200);
    expect(await through(tunnel, 'GET', '/api/v1alpha1/login', alice)).toMatchObject({ status: 200 });
    // The tunnel is not what makes it ready.
    await it.listener.close();
    expect(await ready()).toMatchObject({ status: 200 });
  });
});

async function hookedAt(access: Access, hook: Hook): Promise<Hooked & AsyncDisposable> {
  const proxy = await hooked(access, hook);
  return { ...proxy, [Symbol.asyncDispose]: async () => proxy.close() };
}
