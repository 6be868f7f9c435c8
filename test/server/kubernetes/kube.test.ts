// The connections to the API server: shared, limited, and dropped only when they are dead.
import * as fs from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TLSSocket } from 'node:tls';
import { type Cluster, KubeConfig, type User } from '@kubernetes/client-node';
import { afterEach, beforeAll, expect, test, vi } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import { connectionLimit } from '../../../src/server/kubernetes/connections.ts';
import { connectKube, type Kube, type KubeTimes } from '../../../src/server/kubernetes/kube.ts';
import { type Relay, startRelay } from '../../fixtures/relay.ts';
import { testFolder } from '../../fixtures/temporary.ts';
import { httpProxy, socksProxy } from '../../network/servers.ts';

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
  /** All connections ever made to the API server. */
  readonly connections: TLSSocket[];
  readonly requests: IncomingMessage[];
  /** Answers the requests at /held. */
  readonly release: () => void;
}

interface Given extends KubeTimes {
  readonly server?: ServerOptions;
  readonly cluster?: Partial<Cluster>;
  readonly user?: Partial<User>;
  /** Answers a request instead of the usual handler, if it returns true. */
  readonly handle?: (request: IncomingMessage, response: ServerResponse) => boolean;
}

/** Starts an API server behind a relay; it answers each path except /held with an object at once. */
async function connected({ server: more, cluster, user, handle, ...times }: Given = {}): Promise<Connected> {
  const held = Promise.withResolvers<void>();
  const connections: TLSSocket[] = [];
  const requests: IncomingMessage[] = [];
  const server = createServer({ ...certificates, ...more }, async (request, response) => {
    requests.push(request);
    if (handle?.(request, response)) return;
    if (request.url === '/held') await held.promise;
    if (!response.destroyed) response.end('{"metadata":{}}');
  });
  server.on('secureConnection', (socket) => connections.push(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const relay = await startRelay(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const kubeConfig = new KubeConfig();
  const caData = Buffer.from(certificates.ca).toString('base64');
  kubeConfig.loadFromClusterAndUser(
    { name: 'x', server: relay.url, caData, skipTLSVerify: false, ...cluster },
    { name: 'x', token: 'x', ...user },
  );
  const kube = connectKube(kubeConfig, { timeoutMs: 5_000, ...times });
  ends.push(() => {
    kube.close();
    relay.close();
    server.close().closeAllConnections();
  });
  return { kube, relay, connections, requests, release: held.resolve };
}

const one = { metadata: {} };

/** Requests `count` objects that are held back; resolves when all requests have arrived. */
async function asking({ kube, requests }: Connected, count: number): Promise<Promise<unknown>[]> {
  const calls = Array.from({ length: count }, () => kube.get('/held'));
  for (const call of calls) call.catch(() => undefined);
  const open = Math.min(count, connectionLimit);
  await vi.waitFor(
    () => expect(requests.filter(({ url }) => url === '/held').length).toBeGreaterThanOrEqual(open),
    5_000,
  );
  return calls;
}

test('sequential calls share connections', async () => {
  const { kube, connections } = await connected();
  for (let i = 0; i < 10; i++) expect(await kube.get(`/${i}`)).toEqual(one);
  // The first may not be free again yet when the second call starts.
  expect(connections.length).toBeLessThanOrEqual(2);
});

test('many calls at once share a limited number of connections, and all are answered', async () => {
  const api = await connected();
  const calls = await asking(api, 3 * connectionLimit);
  api.release();
  expect(await Promise.all(calls)).toEqual(calls.map(() => one));
  expect(api.connections.length).toBeLessThanOrEqual(connectionLimit);
});

test('dead connections are all dropped by the first call that gets no response', async () => {
  const api = await connected({ timeoutMs: 1_000 });
  const { kube, relay, connections, release } = api;
  const calls = await asking(api, 3);
  release();
  await Promise.all(calls);
  // A connection is free again when undici has seen the end of its response.
  await new Promise((resolve) => setImmediate(resolve));
  relay.silence();
  const first = kube.get('/one');
  first.catch(() => undefined);
  await delay(500);
  const second = kube.get('/two');
  await expect(first).rejects.toThrow(/^Get ".*aborted due to timeout$/);
  await expect(second).rejects.toThrow(/: the connection to the API server was dead$/);
  expect(await kube.get('/three')).toEqual(one);
  expect(connections).toHaveLength(4);
});

test('a single slow call does not affect the other connections', async () => {
  const { kube, connections, release } = await connected({ timeoutMs: 600 });
  await kube.get('/one');
  const slow = kube.get('/held');
  slow.catch(() => undefined);
  await delay(300);
  const other = kube.get('/held');
  await kube.get('/two');
  await expect(slow).rejects.toThrow(/aborted due to timeout$/);
  release();
  expect(await other).toEqual(one);
  expect(connections).toHaveLength(3);
});

test('an aborted call ends at once, and the others continue', async () => {
  const api = await connected();
  const other = (await asking(api, 1))[0];
  const gone = new AbortController();
  const given = api.kube.get('/held', gone.signal);
  given.catch(() => undefined);
  gone.abort();
  await expect(given).rejects.toThrow(/^Get "/);
  api.release();
  expect(await other).toEqual(one);
});

test('a call that waits for a connection ends when it is aborted', async () => {
  const api = await connected();
  const calls = await asking(api, connectionLimit);
  const gone = new AbortController();
  const waiting = api.kube.get('/one', gone.signal);
  waiting.catch(() => undefined);
  gone.abort(new Error('given up'));
  await expect(waiting).rejects.toThrow(/: given up$/);
  api.release();
  await Promise.all(calls);
});

test('a watch leaves the connections to the other calls', async () => {
  const event = '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n';
  const { kube, connections, relay } = await connected({
    handle(request, response) {
      if (!request.url?.includes('watch=true')) return false;
      response.write(event);
      return true;
    },
  });
  const stop = new AbortController();
  const watch = await kube.watch('/watched', '1', stop.signal);
  const events = watch[Symbol.asyncIterator]();
  expect((await events.next()).value).toMatchObject({ type: 'BOOKMARK' });
  for (let i = 0; i < 10; i++) expect(await kube.get(`/${i}`)).toEqual(one);
  expect(connections.length).toBeLessThanOrEqual(3);
  const next = events.next();
  relay.cut();
  await expect(next).rejects.toThrow(/^Get ".*\/watched\?/);
});

test('a connection that is reset while idle is replaced: no call fails', async () => {
  const { kube, relay, connections } = await connected();
  await kube.get('/one');
  relay.cut();
  await relay.heal();
  expect(await kube.get('/two')).toEqual(one);
  expect(connections).toHaveLength(2);
});

test.each([
  ['a read is sent again', 'GET', 2],
  ['a change is not sent again', 'POST', 1],
] as const)('if the server closes a connection instead of answering, %s', async (_, method, count) => {
  const { kube, requests } = await connected({
    handle(request) {
      if (request.url !== '/closed') return false;
      request.socket.destroy();
      return true;
    },
  });
  const call = method === 'GET' ? kube.get('/closed') : kube.create('/closed', {});
  await expect(call).rejects.toThrow(/^(?:Get|Post) ".*: (?:other side closed|read ECONNRESET)$/);
  expect(requests).toHaveLength(count);
});

test('the API server refuses connections, then is back: the next call is answered', async () => {
  const { kube, relay } = await connected();
  relay.cut();
  await expect(kube.get('/one')).rejects.toThrow(/: connect ECONNREFUSED /);
  await relay.heal();
  expect(await kube.get('/two')).toEqual(one);
});

test('a client certificate that changes on disk is used from the next call on', async () => {
  const folder = testFolder();
  const [certFile, keyFile] = [path.join(folder, 'cert'), path.join(folder, 'key')];
  const write = async (host: string): Promise<void> => {
    const pair = await makeCertificates(host);
    fs.writeFileSync(certFile, pair.cert);
    fs.writeFileSync(keyFile, pair.key);
  };
  await write('a.example.com');
  const names: unknown[] = [];
  const { kube } = await connected({
    server: { requestCert: true, rejectUnauthorized: false },
    user: { certFile, keyFile },
    handle({ socket }) {
      if (socket instanceof TLSSocket) names.push(socket.getPeerX509Certificate()?.subjectAltName);
      return false;
    },
  });
  await kube.get('/one');
  await write('b.example.com');
  await kube.get('/two');
  const named = (host: string) => expect.stringContaining(`DNS:${host}`);
  expect(names).toEqual([named('a.example.com'), named('b.example.com')]);
});

test('a server not signed by the cluster’s CA gets no request', async () => {
  const { ca } = await makeCertificates('127.0.0.1');
  const { kube, requests } = await connected({ cluster: { caData: Buffer.from(ca).toString('base64') } });
  await expect(kube.get('/one')).rejects.toThrow(/certificate/);
  expect(requests).toEqual([]);
});

test.each(['http', 'socks5'])('the kubeconfig’s proxy-url may name a proxy: %s', async (scheme) => {
  const knows: Record<string, number> = {};
  const proxy = await (scheme === 'http' ? httpProxy({ knows }) : socksProxy({ knows }));
  const { kube, relay } = await connected({ cluster: { proxyUrl: `${scheme}://127.0.0.1:${proxy.port}` } });
  const { host, port } = new URL(relay.url);
  knows[host] = Number(port);
  expect(await kube.get('/one')).toEqual(one);
  expect(proxy.asked).toEqual([expect.stringContaining(host)]);
});

test('knows the time of the API server from its answers', async () => {
  const anHourAhead = (): number => Date.now() + 3_600_000;
  const { kube } = await connected({
    handle(_, response) {
      response.setHeader('date', new Date(anHourAhead()).toUTCString());
      return false;
    },
  });
  expect(Math.abs(kube.now() - Date.now())).toBeLessThan(1_000);
  await kube.get('/any');
  // The header is in whole seconds.
  expect(Math.abs(kube.now() - anHourAhead())).toBeLessThan(2_000);
});
