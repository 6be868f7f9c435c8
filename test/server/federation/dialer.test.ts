// How a joined cluster's server joins, and keeps its tunnels.
import { once } from 'node:events';
import { createServer } from 'node:https';
import { createServer as createTcpServer } from 'node:net';
import { expect, test } from 'vitest';
import type { ClusterStatement } from '../../../src/server/federation/contract.ts';
import { join } from '../../../src/server/federation/dialer.ts';
import { keyHash, newKey } from '../../../src/server/federation/keys.ts';
import { freePort } from '../../fixtures/ports.ts';
import { startRelay } from '../../fixtures/relay.ts';
import { until } from '../../fixtures/wait.ts';
import {
  ask,
  authority,
  closeLater,
  joined,
  joinOptions,
  logged,
  login,
  loginKey,
  OpenAdmission,
  ownKey,
  statement,
} from './fixture.ts';

test('joins with the token, and learns the keys', async () => {
  const admission = new OpenAdmission();
  const { endpoint, listener } = await login({ admission });
  expect(await join(joinOptions(endpoint))).toEqual({ ok: true, primary: 'primary', keys: [loginKey.publicKey] });
  expect(admission.asked).toEqual([
    {
      cluster: 'alpha',
      replica: 'tka-0',
      publicKey: ownKey.publicKey,
      statement,
      address: '127.0.0.1',
      token: 'tka-join-secret',
    },
  ]);
  expect(listener.tunnels()).toEqual([]);
});

test('sends no token to a login server with another key', async () => {
  const admission = new OpenAdmission();
  const { endpoint } = await login({ admission });
  const answer = await join({ ...joinOptions(endpoint), keyHash: keyHash(newKey().publicKey) });
  expect(answer).toMatchObject({ ok: false, code: 'unavailable' });
  expect(answer).toHaveProperty('message', expect.stringContaining('has another key than this cluster knows'));
  expect(admission.asked).toEqual([]);
});

test('passes the refusal of the login server on, without control characters', async () => {
  const message = `the token is used up\u001b[31m ${'x'.repeat(1000)}`;
  const admission = new OpenAdmission(undefined, () => ({ ok: false, code: 'rejected', message }));
  const { endpoint } = await login({ admission });
  const answer = await join(joinOptions(endpoint));
  expect(answer).toMatchObject({ ok: false, code: 'rejected' });
  expect(answer).toHaveProperty('message', expect.stringMatching(/^the token is used up \[31m x{250,}…$/));
});

test('says that nothing listens', async () => {
  const port = await freePort('127.0.0.1');
  const message = `cannot reach localhost:${port}: connection refused`;
  expect(await join(joinOptions(`https://localhost:${port}`))).toEqual({ ok: false, code: 'unavailable', message });
});

test('says that another server listens', async () => {
  const server = createServer(await authority.issue('localhost'), (_, response) => response.writeHead(404).end());
  const port = await freePort('127.0.0.1');
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  closeLater({ close: () => new Promise<void>((resolve) => server.close(() => resolve())) });
  const message = `localhost:${port} answers HTTP 404, so it is not a login server`;
  expect(await join(joinOptions(`https://localhost:${port}`))).toEqual({ ok: false, code: 'unavailable', message });
});

test('stops at once while a server that says nothing is dialed', async () => {
  const server = createTcpServer();
  const port = await freePort('127.0.0.1');
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  closeLater({ close: () => new Promise<void>((resolve) => server.close(() => resolve())) });
  const stop = new AbortController();
  const times = { handshakeMs: 3_600_000 };
  const answer = join({ ...joinOptions(`https://localhost:${port}`), times, signal: stop.signal });
  const [socket] = await once(server, 'connection');
  stop.abort();
  expect(await answer).toMatchObject({ ok: false, code: 'unavailable' });
  socket.destroy();
});

test('says that the certificate is of an unknown authority', async () => {
  const { endpoint } = await login();
  const answer = await join({ ...joinOptions(endpoint), caFile: undefined });
  expect(answer).toMatchObject({ ok: false, code: 'unavailable' });
  expect(answer).toHaveProperty('message', expect.stringContaining('TLS handshake failed'));
});

/** Starts a relay to these ports of loopback, until the end of the test. */
async function relay(...ports: readonly number[]) {
  const started = closeLater(await startRelay(ports.map((port) => `https://127.0.0.1:${port}`)));
  return { endpoint: `https://localhost:${started.port}`, stall: started.stall };
}

test('one tunnel to each replica of the login server behind a load balancer, also to one that comes later', async () => {
  let replicas = 1;
  const times = { pingMs: 20 };
  const more = { replicas: () => replicas, times };
  const [first, second] = [await login({ ...more, replica: 'login-0' }), await login({ ...more, replica: 'login-1' })];
  const balancer = await relay(first.listener.port, first.listener.port, second.listener.port);
  const own = joined(balancer.endpoint);
  await first.next();
  await until('the first is known', () => own.connected().length === 1);
  replicas = 2;
  const tunnel = await second.next();
  await until('both are known', () => own.connected().length === 2);
  expect(await ask(tunnel)).toMatchObject({ status: 200 });
  expect(own.counts()).toMatchObject({ opened: 2, closed: {}, failed: {} });
  expect(first.listener.tunnels()).toHaveLength(1);
});

test('a load balancer that chooses the same replica again and again does not make the pauses long soon', async () => {
  const more = { replicas: () => 2 };
  const [first, second] = [await login({ ...more, replica: 'login-0' }), await login({ ...more, replica: 'login-1' })];
  const balancer = await relay(...Array<number>(16).fill(first.listener.port), second.listener.port);
  // A pause after fifteen failures would be about five minutes.
  joined(balancer.endpoint, { times: { redialMs: [10, 600_000] } });
  await second.next();
  expect(first.listener.tunnels()).toHaveLength(1);
});

test('dials again when the tunnel is cut, until the login server answers', async () => {
  let isAway = false;
  const admission = new OpenAdmission(() =>
    isAway ? { ok: false, code: 'unavailable', message: 'the API server is away' } : { ok: true },
  );
  const { endpoint, next, listener, closed } = await login({ admission });
  const own = joined(endpoint);
  const tunnel = await next();
  isAway = true;
  tunnel.close('a test');
  expect(await closed(tunnel)).toBe('a test');
  await until('a dial fails', () => (own.counts().failed.unavailable ?? 0) > 1);
  expect(own.problem()).toMatch(/^localhost:\d+ refuses: the API server is away$/);
  expect(own.connected()).toEqual([]);
  isAway = false;
  const again = await next();
  expect(again.id).not.toBe(tunnel.id);
  expect(await ask(again)).toMatchObject({ status: 200 });
  await until('the joined server knows', () => own.problem() === undefined);
  expect(own.counts().closed).toEqual({ goodbye: 1 });
  expect(listener.counts()).toMatchObject({ opened: 2, closed: { closed: 1 } });
  expect(listener.counts().refused.unavailable).toBeGreaterThan(1);
  expect(logged).toContain('warn cannot open a tunnel to the login server');
});

test('stops dialing after an eviction', async () => {
  let isEvicted = false;
  const admission = new OpenAdmission(() =>
    isEvicted ? { ok: false, code: 'evicted', message: 'alpha is not joined' } : { ok: true },
  );
  const { endpoint, next } = await login({ admission });
  const evicted = Promise.withResolvers<string>();
  const own = joined(endpoint, { onEvicted: evicted.resolve });
  const tunnel = await next();
  isEvicted = true;
  tunnel.close('a test');
  expect(await evicted.promise).toMatch(/alpha is not joined$/);
  const { length } = admission.asked;
  await own.close();
  expect(admission.asked).toHaveLength(length);
  expect(own.connected()).toEqual([]);
});

test('a new key of the login server is learned from the old one, without a gap', async () => {
  const next = newKey();
  let keys = [loginKey];
  const login1 = await login({ keys: () => keys, times: { pingMs: 20 } });
  const learned: (readonly string[])[] = [];
  const own = joined(login1.endpoint, { onKeys: (given) => learned.push(given) });
  const tunnel = await login1.next();
  expect(tunnel.keys).toEqual([loginKey.publicKey]);
  keys = [loginKey, next];
  const second = await login1.next();
  expect(second.keys).toEqual([loginKey.publicKey, next.publicKey]);
  // The older one is closed after the newer one is open.
  expect(await login1.closed(tunnel)).toBe('the same replica has opened another one');
  keys = [next];
  const third = await login1.next();
  expect(third.keys).toEqual([next.publicKey]);
  await until('the joined server knows', () => learned.length === 2);
  expect(learned).toEqual([[loginKey.publicKey, next.publicKey], [next.publicKey]]);
  expect(own.counts().failed).toEqual({});
});

test('refuses a login server whose keys are all unknown, and one with another name', async () => {
  const { endpoint, listener } = await login();
  const stranger = joined(endpoint, { keys: [newKey().publicKey] });
  await until('the key is refused', () => (stranger.counts().failed.key ?? 0) > 0);
  const other = joined(endpoint, { primary: 'other' });
  await until('the name is refused', () => (other.counts().failed.primary ?? 0) > 0);
  expect(other.problem()).toMatch(/ is that of "primary", not of "other"$/);
  expect(listener.counts().opened).toBe(0);
});

test('a change of what the cluster says about itself is told by a new tunnel', async () => {
  let said: ClusterStatement = statement;
  const { endpoint, next } = await login({ times: { pingMs: 20 } });
  joined(endpoint, { statement: () => said });
  expect((await next()).statement).toEqual(statement);
  said = { ...statement, labels: { env: 'test' } };
  expect((await next()).statement).toEqual(said);
});

test('a request that runs while its tunnel is replaced is answered', async () => {
  const gate = Promise.withResolvers<void>();
  const { endpoint, next, closed } = await login();
  const asked = Promise.withResolvers<void>();
  joined(endpoint, {
    async answer() {
      asked.resolve();
      await gate.promise;
      return { status: 200, headers: {}, body: 'done' };
    },
  });
  const tunnel = await next();
  const answer = ask(tunnel);
  await asked.promise;
  joined(endpoint);
  await next();
  await closed(tunnel);
  await expect(ask(tunnel)).rejects.toThrow('the tunnel is closed');
  gate.resolve();
  expect(await answer).toMatchObject({ status: 200, body: 'done' });
});

test('both sides notice that bytes stop passing', async () => {
  const times = { pingMs: 50, silenceMs: 2_000 };
  const { listener, next, closed } = await login({ times });
  const network = await relay(listener.port);
  const own = joined(network.endpoint, { times: { ...times, redialMs: [10, 100], handshakeMs: 2_000 } });
  const tunnel = await next();
  const answer = ask(tunnel, { path: '/api/v1alpha1/kubeconfig', method: 'GET' });
  expect(await answer).toMatchObject({ status: 200 });
  network.stall();
  expect(await closed(tunnel)).toBe('no answer to a ping for 2 s');
  await until('the joined server notices', () => own.connected().length === 0);
  expect(own.counts().closed).toEqual({ silent: 1 });
  expect(listener.counts().closed).toEqual({ silent: 1 });
  expect(listener.tunnels()).toEqual([]);
  await expect(ask(tunnel)).rejects.toThrow('the tunnel is closed');
});

test('a request on a stalled tunnel fails when the tunnel does', async () => {
  const times = { pingMs: 50, silenceMs: 2_000 };
  const { listener, next } = await login({ times });
  const network = await relay(listener.port);
  joined(network.endpoint, { times: { ...times, redialMs: [10, 100], handshakeMs: 2_000 } });
  const tunnel = await next();
  network.stall();
  await expect(ask(tunnel)).rejects.toThrow('the joined server ended the request without a complete answer');
});
