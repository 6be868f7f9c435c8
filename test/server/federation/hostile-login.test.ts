// A malicious or broken login server, as a joined cluster's server sees it.
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { createServer, type TLSSocket } from 'node:tls';
import { describe, expect, test } from 'vitest';
import type { TunnelRequest } from '../../../src/server/federation/contract.ts';
import { join } from '../../../src/server/federation/dialer.ts';
import { type FederationKey, newKey, sign } from '../../../src/server/federation/keys.ts';
import { newsPayload } from '../../../src/server/federation/news.ts';
import type { KeepTunnelsOptions, OwnTunnels } from '../../../src/server/federation/options.ts';
import { listen } from '../../../src/server/http/listen.ts';
import { until } from '../../fixtures/wait.ts';
import { Arrivals, authority, closeLater, joined, joinOptions, login, loginKey } from './fixture.ts';
import { frame, type } from './frames.ts';
import { exporterOf, id, RawClient, transcript } from './wire.ts';

type Speak = (client: RawClient) => unknown;

/** Starts a TLS server that treats each connection like this. Returns its endpoint. */
async function server(speak: Speak, options: { maxVersion?: 'TLSv1.2' } = {}): Promise<string> {
  const sockets = new Set<TLSSocket>();
  const listener = createServer({ ...(await authority.issue('localhost')), ...options }, (socket) => {
    sockets.add(socket);
    speak(new RawClient(socket));
  });
  const port = await listen(listener, '127.0.0.1', 0);
  closeLater({
    close: () =>
      new Promise<void>((resolve) => {
        listener.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  });
  return `https://localhost:${port}`;
}

const accept = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tka-federation/1\r\n\r\n';

interface Introduction {
  readonly about?: Record<string, unknown>;
  readonly keys?: readonly FederationKey[];
  /** What the signatures are for. */
  readonly signed?: (client: RawClient, lines: readonly string[]) => Buffer;
}

/** Does the login server's part up to its signatures. Returns the first message. */
async function introduce(client: RawClient, { about, keys = [loginKey], signed }: Introduction = {}): Promise<string> {
  await client.until('\r\n\r\n');
  client.write(accept);
  const first = (await client.line()) ?? '';
  // The other side has closed the connection because the test is over.
  if (client.socket.destroyed) return first;
  const second = JSON.stringify({
    cluster: 'primary',
    replica: 'login-0',
    replicas: 1,
    nonce: id('n'),
    time: Date.now(),
    keys: keys.map(({ publicKey }) => publicKey),
    ...about,
  });
  const data = signed?.(client, [first, second]) ?? transcript('login', exporterOf(client.socket), [first, second]);
  client.write(`${second}\n${JSON.stringify({ signatures: keys.map((key) => sign(key, data)) })}\n`);
  return first;
}

/** Joins at such a server. Returns the answer, and what was sent after the server's signatures. */
async function joining(speak: (client: RawClient) => Promise<unknown>) {
  const sent = Promise.withResolvers<string | undefined>();
  const endpoint = await server(async (client) => {
    await speak(client);
    sent.resolve(await client.line());
  });
  const answer = await join(joinOptions(endpoint));
  return { answer, sent: await sent.promise };
}

describe('the token is not sent to', () => {
  test.each<[string, string, Introduction]>([
    ['another key', 'has another key than this cluster knows', { keys: [newKey()] }],
    [
      'a server that names the right key, but does not hold it',
      'does not hold the keys that it names',
      { keys: [newKey()], about: { keys: [loginKey.publicKey] } },
    ],
    [
      'a server that holds one of the keys that it names',
      'does not hold the keys that it names',
      { keys: [loginKey, newKey()], about: { keys: [loginKey.publicKey, newKey().publicKey] } },
    ],
    [
      'a server that relays from another connection',
      'does not hold the keys that it names',
      { signed: (_, lines) => transcript('login', Buffer.alloc(32, 1), lines) },
    ],
    [
      'a server that signs other messages',
      'does not hold the keys that it names',
      { signed: (client, lines) => transcript('login', exporterOf(client.socket), [lines[0] ?? '', 'x']) },
    ],
    [
      'a server that reflects the signature of the joining side',
      'does not hold the keys that it names',
      { signed: (client, lines) => transcript('joined', exporterOf(client.socket), lines) },
    ],
    [
      'a server whose clock is far ahead',
      'the clocks of the two servers are 6 minutes apart',
      { about: { time: Date.now() + 390_000 } },
    ],
    ...[
      { keys: [] },
      { keys: Array.from({ length: 9 }, () => loginKey.publicKey) },
      { keys: 'x' },
      { replicas: 0 },
      { replicas: 1.5 },
      { cluster: '\u001b[31m' },
      { replica: '' },
      { time: 'now' },
      { nonce: 1 },
    ].map((about) => [JSON.stringify(about).slice(0, 60), 'sent an invalid introduction', { about }] as const),
  ] as [string, string, Introduction][])('%s', async (_, message, introduction) => {
    const { answer, sent } = await joining((client) => introduce(client, introduction));
    expect(answer).toMatchObject({ ok: false });
    expect(answer).toHaveProperty('message', expect.stringContaining(message));
    expect(sent).toBeUndefined();
  });
});

describe('a handshake ends in time, and in memory, with a server that', () => {
  test.each<[string, string, Speak]>([
    ['says nothing', 'did not complete the handshake within 1 s', () => {}],
    [
      'sends a head without end',
      'sent a head of more than 8192 bytes',
      (client) => client.write('a: b\r\n'.repeat(20_000)),
    ],
    [
      'sends a line without end',
      'sent a message of more than 16384 bytes',
      (client) => client.write(accept + 'x'.repeat(99_999)),
    ],
    [
      'sends lines without end',
      'sent an invalid introduction',
      (client) => client.write(accept + '{}\n'.repeat(99_999)),
    ],
    ['closes', 'closed the connection', (client) => client.socket.end()],
    ['does not speak HTTP', 'does not speak HTTP', (client) => client.write('220 smtp.example.com\r\n\r\n')],
    [
      'redirects',
      'answers HTTP 302',
      (client) => client.write('HTTP/1.1 302 Found\r\nLocation: https://example.com\r\n\r\n'),
    ],
    [
      'needs another version',
      'speaks another version',
      (client) => client.write('HTTP/1.1 426 Upgrade Required\r\n\r\n'),
    ],
    ['never answers the proof', 'did not complete the handshake within 1 s', (client) => introduce(client)],
    [
      'answers the proof with garbage',
      'sent an invalid answer',
      async (client) => {
        await introduce(client);
        client.write('{"ok":"yes"}\n');
      },
    ],
    [
      'answers with an unknown code',
      'sent an invalid answer',
      async (client) => {
        await introduce(client);
        client.write('{"ok":false,"code":"constructor","message":""}\n');
      },
    ],
    [
      'answers with other keys than it has proved',
      'answers with another name or key than it has proved',
      async (client) => {
        await introduce(client);
        client.write(`${JSON.stringify({ ok: true, primary: 'primary', keys: [newKey().publicKey] })}\n`);
      },
    ],
  ])('%s', async (_, message, speak) => {
    const endpoint = await server(speak);
    const times = message.endsWith('within 1 s') ? { handshakeMs: 1_000 } : {};
    const answer = await join({ ...joinOptions(endpoint), times });
    expect(answer).toHaveProperty('message', expect.stringContaining(message));
  });
});

test('a server without TLS 1.3 is refused before anything is sent', async () => {
  let sent = '';
  const endpoint = await server((client) => client.socket.on('data', (text) => (sent += text)), {
    maxVersion: 'TLSv1.2',
  });
  const answer = await join(joinOptions(endpoint));
  expect(answer).toHaveProperty('message', expect.stringContaining('does not speak TLS 1.3'));
  expect(sent).toBe('');
});

/** Opens tunnels to a server that does the handshake and then speaks like this. */
async function tunnelTo(speak: (socket: TLSSocket) => unknown, more: Partial<KeepTunnelsOptions> = {}) {
  const dials = new Arrivals<TLSSocket>();
  const endpoint = await server(async (client) => {
    await introduce(client);
    await client.line();
    const { socket } = client;
    socket.removeAllListeners('data').pause();
    // HTTP/2 takes over when the answer is written.
    await new Promise((resolve) => socket.write('{"ok":true}\n', resolve));
    if (socket.destroyed) return;
    dials.add(socket);
    speak(socket);
  });
  const own = joined(endpoint, more);
  return { own, dials };
}

const http2 = (socket: TLSSocket, settings = {}) => {
  const session = connectHttp2('https://alpha', { createConnection: () => socket, settings });
  return session.on('error', () => {});
};

/** Resolves when a tunnel was closed because the login server broke a rule. */
const closedOf = (own: OwnTunnels) =>
  until('the tunnel is closed', () => 'protocol' in { ...own.counts().closed, ...own.counts().failed });

test('answers at most 64 requests at once, however many are sent', async () => {
  let running = 0;
  let most = 0;
  const answers: Promise<void>[] = [];
  await tunnelTo(
    (socket) => {
      const session = http2(socket);
      session.once('remoteSettings', () => {
        for (let i = 0; i < 500; i++) {
          const headers = {
            ':path': '/api/v1alpha1/login',
            ':method': 'POST',
            'tka-assertion': 'x',
            'tka-request': `r${i}`,
          };
          const stream = session.request(headers, { endStream: true }).on('error', () => {});
          stream.resume();
          answers.push(new Promise((resolve) => stream.once('close', () => resolve())));
        }
      });
    },
    {
      async answer() {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
        return { status: 200, headers: {}, body: '' };
      },
    },
  );
  await until('all are sent', () => answers.length === 500);
  await Promise.all(answers);
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThanOrEqual(64);
});

describe('closes the tunnel after', () => {
  const good = { ':path': '/api/v1alpha1/login', ':method': 'POST', 'tka-assertion': 'x', 'tka-request': 'r' };
  test.each<[string, Record<string, string>, boolean]>([
    ['a request with a body', good, false],
    ['a request for another path', { ...good, ':path': '/metrics' }, true],
    ['a request with a query', { ...good, ':path': '/api/v1alpha1/login?x' }, true],
    ['another method', { ...good, ':method': 'PUT' }, true],
    ['a request without an assertion', { ...good, 'tka-assertion': '' }, true],
    ['a request with an invalid ID', { ...good, 'tka-request': 'a b' }, true],
  ])('%s', async (_, headers, endStream) => {
    const asked: TunnelRequest[] = [];
    const { own } = await tunnelTo(
      (socket) =>
        http2(socket)
          .request(headers, { endStream })
          .on('error', () => {}),
      {
        async answer(request) {
          asked.push(request);
          return { status: 200, headers: {}, body: '' };
        },
      },
    );
    await closedOf(own);
    expect(asked).toEqual([]);
  });

  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  const begin = Buffer.concat([preface, frame(type.settings, 0, 0), frame(type.settings, 1, 0)]);
  test.each<[string, Buffer]>([
    ['pings', frame(type.ping, 0, 0, Buffer.alloc(8))],
    ['settings', frame(type.settings, 0, 0)],
    ['resets', frame(type.rst, 0, 1, Buffer.alloc(4))],
    ['a head without end', frame(type.headers, 0, 1, Buffer.of(0x82))],
    ['frames without a meaning', frame(200, 0, 0, Buffer.alloc(1_000))],
  ])('a flood of %s', async (_, bytes) => {
    const { own } = await tunnelTo((socket) => {
      socket.resume();
      socket.write(begin);
      const many = Buffer.concat(Array.from({ length: 1_000 }, () => bytes));
      const fill = (): void => {
        while (!socket.destroyed && socket.write(many));
        if (!socket.destroyed) socket.once('drain', fill);
      };
      // The session has begun.
      socket.once('data', fill);
    });
    await closedOf(own);
  });
});

test('a request that the login server ends stops its answer', async () => {
  const stopped = Promise.withResolvers<void>();
  const headers = { ':path': '/api/v1alpha1/login', ':method': 'POST', 'tka-assertion': 'x', 'tka-request': 'r' };
  const asked = Promise.withResolvers<void>();
  await tunnelTo(
    async (socket) => {
      const stream = http2(socket)
        .request(headers, { endStream: true })
        .on('error', () => {});
      await asked.promise;
      stream.close(constants.NGHTTP2_CANCEL);
    },
    {
      async answer(_request, _tunnel, signal) {
        asked.resolve();
        await once(signal, 'abort');
        stopped.resolve();
        throw signal.reason;
      },
    },
  );
  await stopped.promise;
});

test('opens at most 16 tunnels, whatever the login server says', async () => {
  let dials = 0;
  const endpoint = await server(async (client) => {
    // Each dial seems to reach another replica.
    await introduce(client, { about: { replicas: 4_000_000_000, replica: `login-${dials++}` } });
    await client.line();
    const { socket } = client;
    socket.removeAllListeners('data').pause();
    await new Promise((resolve) => socket.write('{"ok":true}\n', resolve));
    const session = http2(socket);
    session.once('remoteSettings', () =>
      session.ping(newsPayload({ replicas: 4e9, keys: [loginKey.publicKey] }), () => {}),
    );
  });
  const own = joined(endpoint, { times: { redialMs: [1, 2], pingMs: 10 } });
  await until('there are 16', () => own.connected().length === 16);
  // Further pings with the same number have no effect.
  const { since } = own.connected()[15] ?? { since: 0 };
  await until('time has passed', () => Date.now() > since + 200);
  expect(dials).toBe(16);
});

test('an answer that fails is a 500 without its reason, and one that is too large too', async () => {
  const { endpoint, next } = await login();
  let body = 'x'.repeat(300_000);
  joined(endpoint, {
    answer: () =>
      body === '' ? Promise.reject(new Error('secret')) : Promise.resolve({ status: 200, headers: {}, body }),
  });
  const tunnel = await next();
  const request = { method: 'GET', path: '/api/v1alpha1/cluster-info', assertion: 'x', id: 'r' };
  const failed = { status: 500, headers: { 'content-type': 'application/json' }, body: '{"message":"internal error"}' };
  expect(await tunnel.request(request, new AbortController().signal)).toEqual(failed);
  body = '';
  expect(await tunnel.request(request, new AbortController().signal)).toEqual(failed);
});
