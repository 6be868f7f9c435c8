// The API server's connections: one HTTP/2 session carries all calls, and is dropped when it is dead, and only then.
import { createSecureServer, type Http2SecureServer, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';
import { afterEach, beforeAll, expect, test, vi } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import { connectKube, type Kube } from '../../../src/server/kubernetes/kube.ts';
import { type Relay, startRelay } from '../../cluster/relay.ts';

let certificates: Awaited<ReturnType<typeof makeCertificates>>;
beforeAll(async () => {
  certificates = await makeCertificates('127.0.0.1');
});

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

interface Connected {
  readonly kube: Kube;
  readonly relay: Relay;
  readonly sessions: ServerHttp2Session[];
  /** Answers what is asked for at /held. */
  readonly release: () => void;
}

/** An API server behind a relay, which speaks HTTP/2 and answers every path but /held with an object. */
async function connected(timeoutMs: number): Promise<Connected> {
  const held = Promise.withResolvers<void>();
  const sessions: ServerHttp2Session[] = [];
  const server: Http2SecureServer = createSecureServer(certificates, async (request, response) => {
    if (request.url === '/held') await held.promise;
    if (!response.destroyed) response.end('{"metadata":{}}');
  });
  server.on('session', (session) => sessions.push(session));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const relay = await startRelay(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const kubeConfig = new KubeConfig();
  const caData = Buffer.from(certificates.ca).toString('base64');
  kubeConfig.loadFromClusterAndUser(
    { name: 'x', server: relay.url, caData, skipTLSVerify: false },
    { name: 'x', token: 'x' },
  );
  const kube = connectKube(kubeConfig, { timeoutMs });
  ends.push(() => {
    kube.close();
    relay.close();
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { kube, relay, sessions, release: held.resolve };
}

test('calls share one session, however many there are at once', async () => {
  const { kube, sessions } = await connected(5_000);
  await kube.get('/one');
  await Promise.all(Array.from({ length: 20 }, (_, i) => kube.get(`/${i}`)));
  expect(sessions).toHaveLength(1);
});

test('a session that passes nothing on is dropped by the first call that it leaves unanswered, with all that waits for it', async () => {
  const { kube, relay, sessions } = await connected(1_000);
  await kube.get('/one');
  relay.silence();
  const first = kube.get('/two');
  first.catch(() => undefined);
  await delay(500);
  const second = kube.get('/three');
  await expect(first).rejects.toThrow('Get "');
  await expect(second).rejects.toThrow(/: the connection to the API server was dead$/);
  expect(await kube.get('/four')).toEqual({ metadata: {} });
  expect(sessions).toHaveLength(2);
});

test('a call that is slow alone leaves the session to the others', async () => {
  const { kube, sessions, release } = await connected(600);
  await kube.get('/one');
  const slow = kube.get('/held');
  slow.catch(() => undefined);
  await delay(300);
  const other = kube.get('/held');
  await kube.get('/two');
  await expect(slow).rejects.toThrow(/aborted due to timeout$/);
  release();
  expect(await other).toEqual({ metadata: {} });
  expect(sessions).toHaveLength(1);
});

test('a call that is given up ends at once, and the session is left to the others', async () => {
  const { kube, sessions, release } = await connected(5_000);
  const gone = new AbortController();
  const [given, other] = [kube.get('/held', gone.signal), kube.get('/held')];
  given.catch(() => undefined);
  while (sessions.length === 0) await delay(5);
  gone.abort();
  await expect(given).rejects.toThrow(/^Get "/);
  release();
  expect(await other).toEqual({ metadata: {} });
  expect(sessions).toHaveLength(1);
});

test('a session that is reset is replaced', async () => {
  const { kube, relay, sessions } = await connected(5_000);
  await kube.get('/one');
  relay.cut();
  await relay.heal();
  await vi.waitFor(async () => expect(await kube.get('/two')).toEqual({ metadata: {} }));
  expect(sessions).toHaveLength(2);
});
