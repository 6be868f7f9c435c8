// A malicious joined server on a tunnel: the login server neither hangs, nor ends, nor runs out of memory.
import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Tunnel, TunnelError } from '../../../src/server/federation/contract.ts';
import { introduceToDial } from '../../../src/server/federation/handshake.ts';
import { ask, authority, joined, type Login, login, loginKey, ownKey, request, statement } from './fixture.ts';
import { block, endHeaders, endStream, frame, headOf, RawPeer, type, uint32 } from './frames.ts';
import { closed } from './wire.ts';

const times = { pingMs: 100 };
const unanswered = 'the joined server ended the request without a complete answer';
const late = 'no complete answer within 1 s';

let server: Login;
beforeEach(async () => {
  server = await login({ times });
});

/** Starts another login server, with requests that may take a second. */
async function impatient(): Promise<void> {
  server = await login({ times: { ...times, requestMs: 1_000 } });
}

/** Does the handshake as a joined server does, with its own key. */
async function handshake(cluster: string, servername = 'localhost'): Promise<TLSSocket> {
  const options = { port: server.listener.port, host: '127.0.0.1', ca: authority.ca, rejectUnauthorized: false };
  const socket = connect({ ...options, servername });
  await once(socket, 'secureConnect');
  const introduction = { host: 'localhost', cluster, replica: 'tka-0', key: ownKey, statement };
  await introduceToDial(socket, { ...introduction, isKnown: (key) => key === loginKey.publicKey }, 'primary');
  return socket;
}

/** Opens a tunnel of a peer that answers requests in this way. */
async function hostile(onRequest: (peer: RawPeer, stream: number) => void, servername?: string): Promise<Tunnel> {
  const peer = new RawPeer(await handshake('mallory', servername), onRequest).begin();
  peer.socket.once('close', () => peer.socket.removeAllListeners('drain'));
  return server.next();
}

/** Returns why a request fails. */
async function failure(tunnel: Tunnel): Promise<string> {
  const error = await ask(tunnel).then(
    ({ body }) => body,
    (error) => error,
  );
  expect(error).toBeInstanceOf(TunnelError);
  return error.message;
}

const head = (peer: RawPeer, stream: number, payload: Buffer, flags = endHeaders): RawPeer =>
  peer.send(type.headers, flags, stream, payload);
const data = (size: number, text = 'x') => Buffer.alloc(size, text);

test('the peer that the tests below build on is answered like any other', async () => {
  const tunnel = await hostile((peer, stream) =>
    head(peer, stream, headOf(2)).send(type.data, endStream, stream, Buffer.from('{}')),
  );
  expect(await ask(tunnel)).toEqual({ status: 200, headers: {}, body: '{}' });
});

describe('only the request fails, and the tunnel stays, after', () => {
  test.each<[string, string, (peer: RawPeer, stream: number) => unknown]>([
    ['no answer', late, () => {}],
    ['half an answer', late, (peer, stream) => head(peer, stream, headOf(10)).send(type.data, 0, stream, data(5))],
    [
      'an answer in single bytes that takes too long',
      late,
      (peer, stream) => {
        head(peer, stream, headOf(100_000));
        const drip = setInterval(() => peer.send(type.data, 0, stream, data(1)), 20);
        peer.socket.once('close', () => clearInterval(drip));
      },
    ],
    ['a reset', unanswered, (peer, stream) => peer.send(type.rst, 0, stream, uint32(2))],
    [
      'a reset without an error in the middle of the body',
      unanswered,
      (peer, stream) =>
        head(peer, stream, headOf(10)).send(type.data, 0, stream, data(5)).send(type.rst, 0, stream, uint32(0)),
    ],
    [
      'fewer bytes than it said',
      unanswered,
      (peer, stream) => head(peer, stream, headOf(10)).send(type.data, endStream, stream, data(5)),
    ],
    [
      'a head that is too long',
      unanswered,
      (peer, stream) => sendHead(peer, stream, headOf(0, ['a', 'x'.repeat(20_000)])),
    ],
    [
      'too many headers',
      unanswered,
      (peer, stream) => head(peer, stream, headOf(0, ...Array.from({ length: 200 }, (_, i) => [`h${i}`, ''] as const))),
    ],
    ['a header in capitals', unanswered, (peer, stream) => head(peer, stream, headOf(0, ['Retry-After', '1']))],
    [
      'trailers that do not end',
      unanswered,
      (peer, stream) => {
        head(peer, stream, headOf(2)).send(type.data, 0, stream, data(2));
        for (let i = 0; i < 10; i++) head(peer, stream, block(['a', 'b']));
      },
    ],
  ])('%s', async (_, message, onRequest) => {
    if (message === late) await impatient();
    let isFirst = true;
    const tunnel = await hostile((peer, stream) => {
      if (isFirst) onRequest(peer, stream);
      else head(peer, stream, headOf(0), endHeaders | endStream);
      isFirst = false;
    });
    expect(await failure(tunnel)).toBe(message);
    expect(await ask(tunnel)).toMatchObject({ status: 200, body: '' });
  });

  function sendHead(peer: RawPeer, stream: number, payload: Buffer): void {
    head(peer, stream, payload.subarray(0, 16_000), 0);
    peer.send(type.continuation, endHeaders, stream, payload.subarray(16_000));
  }
});

test('a header of two lines does not pass', async () => {
  const tunnel = await hostile((peer, stream) => {
    head(peer, stream, headOf(0, ['retry-after', '1\r\ntka-role: admin']), endHeaders | endStream);
  });
  expect(await ask(tunnel)).toEqual({ status: 200, headers: {}, body: '' });
});

test('trailers are ignored', async () => {
  const tunnel = await hostile((peer, stream) => {
    head(peer, stream, headOf(2)).send(type.data, 0, stream, data(2));
    head(peer, stream, block(['retry-after', '7']), endHeaders | endStream);
  });
  expect(await ask(tunnel)).toEqual({ status: 200, headers: {}, body: 'xx' });
});

describe('the tunnel is closed after', () => {
  test.each<[string, string | RegExp, (peer: RawPeer, stream: number) => unknown]>([
    [
      'a redirect',
      'the joined server answers with an invalid status or header',
      (peer, stream) =>
        head(peer, stream, block([':status', '302'], ['location', 'https://example.com'], ['content-length', '0'])),
    ],
    [
      'an invalid status',
      'the joined server answers with an invalid status or header',
      (peer, stream) => head(peer, stream, block([':status', '999'], ['content-length', '0'])),
    ],
    [
      'a long header',
      'the joined server answers with an invalid status or header',
      (peer, stream) => head(peer, stream, headOf(0, ['tka-role', 'x'.repeat(2_000)])),
    ],
    [
      'no length',
      'the joined server answers without a length',
      (peer, stream) => head(peer, stream, block([':status', '200'])),
    ],
    [
      'a length beyond the limit',
      'the joined server answers more than 262144 bytes',
      (peer, stream) => head(peer, stream, headOf(262_145)),
    ],
    [
      'a text that is not UTF-8',
      'the joined server answers with a text that is not UTF-8',
      (peer, stream) => head(peer, stream, headOf(1)).send(type.data, endStream, stream, Buffer.of(0xff)),
    ],
    [
      'more bytes than it said',
      /./,
      (peer, stream) => head(peer, stream, headOf(1)).send(type.data, endStream, stream, data(5)),
    ],
    [
      'interim answers without end',
      'the joined server sends interim answers without end',
      (peer, stream) => peer.flood(frame(type.headers, endHeaders, stream, block([':status', '103']))),
    ],
    [
      'a push',
      /./,
      (peer, stream) =>
        peer
          .send(type.push, endHeaders, stream, Buffer.concat([uint32(2), block([':method', 'GET'], [':path', '/'])]))
          .send(type.headers, endHeaders, 2, headOf(0)),
    ],
    [
      'a head without end',
      /./,
      (peer, stream) => endlessHead(peer, stream, frame(type.continuation, 0, stream, block(['a', 'b']))),
    ],
    [
      'a head of empty parts without end',
      /./,
      (peer, stream) => endlessHead(peer, stream, frame(type.continuation, 0, stream)),
    ],
    [
      'a body without end',
      /./,
      (peer, stream) => {
        head(peer, stream, headOf(262_144));
        peer.flood(frame(type.data, 0, stream, data(1)));
      },
    ],
    [
      'empty pieces of a body without end',
      /./,
      (peer, stream) => {
        head(peer, stream, headOf(1));
        peer.flood(frame(type.data, 0, stream));
      },
    ],
    [
      'other servers that it names',
      /./,
      (peer) => peer.send(type.altsvc, 0, 0, Buffer.from('\0\x13https://example.comh2=":1"')),
    ],
    [
      'other origins that it names',
      /./,
      (peer) => peer.send(type.origin, 0, 0, Buffer.from('\0\x13https://example.com')),
    ],
    ['a frame of the wrong size', /./, (peer) => peer.send(type.ping, 0, 0, data(1))],
    ['a frame that is too large', /./, (peer, stream) => peer.send(type.data, 0, stream, data(20_000))],
    ['a damaged header', /./, (peer, stream) => head(peer, stream, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff))],
    ['a window beyond all limits', /./, (peer) => peer.send(type.window, 0, 0, uint32(0x7fff_ffff))],
    ['an error', 'the other side reports the HTTP/2 error 2', (peer) => peer.send(type.goaway, 0, 0, uint32(0, 2))],
    ['its end', /^the connection was closed$|ECONNRESET/, (peer) => peer.socket.end()],
    ['its crash', /^the connection was closed$|ECONNRESET/, (peer) => peer.socket.destroy()],
  ])('%s', async (_, reason, onRequest) => {
    const tunnel = await hostile(onRequest);
    await failure(tunnel);
    expect(await server.closed(tunnel)).toMatch(reason);
    await expect(ask(tunnel)).rejects.toThrow('the tunnel is closed');
    expect(server.listener.tunnels()).toEqual([]);
  });

  function endlessHead(peer: RawPeer, stream: number, more: Buffer): void {
    head(peer, stream, headOf(0), 0);
    peer.flood(more);
  }
});

describe('a flood closes the tunnel, and others are served meanwhile:', () => {
  const settings = frame(type.settings, 0, 0);
  test.each<[string, Buffer]>([
    ['pings', frame(type.ping, 0, 0, data(8))],
    ['answers to pings', frame(type.ping, 1, 0, data(8))],
    ['settings', settings],
    ['settings with values', frame(type.settings, 0, 0, Buffer.concat([Buffer.of(0, 3), uint32(1)]))],
    ['windows', frame(type.window, 0, 0, uint32(1))],
    ['priorities', frame(type.priority, 0, 1, Buffer.concat([uint32(0), Buffer.of(1)]))],
    ['unknown frames', frame(200, 0, 0, data(10))],
    ['large unknown frames', frame(200, 0, 0, data(16_000))],
    ['resets', frame(type.rst, 0, 1, uint32(0))],
    ['bodies that were not asked for', frame(type.data, 0, 1, data(16_000))],
  ])('%s', async (_, bytes) => {
    const before = process.memoryUsage().rss;
    joined(server.endpoint, { cluster: 'bravo' });
    const good = await server.next();
    const tunnel = await hostile((peer, stream) => {
      // The stream is over, so that frames can refer to it.
      head(peer, stream, headOf(0), endHeaders | endStream);
      peer.flood(bytes);
    });
    await ask(tunnel).catch(() => {});
    const over = server.closed(tunnel).then(() => true);
    while (!(await Promise.race([over, ask(good).then(() => false)])));
    expect(await ask(good)).toMatchObject({ status: 200 });
    expect((process.memoryUsage().rss - before) / 1024 / 1024).toBeLessThan(200);
  });
});

test('a header list that is small on the wire and large in memory: only the request fails', async () => {
  // One entry of 4,000 bytes goes into the table (RFC 7541, 6.2.1), then each byte repeats it.
  const entry = Buffer.concat([Buffer.of(0x40, 1), Buffer.from('a'), Buffer.of(127, ...[0xa1, 0x1e]), data(4_000)]);
  const tunnel = await hostile((peer, stream) => {
    head(peer, stream, Buffer.concat([headOf(0), entry, Buffer.alloc(10_000, 0xbe)]));
  });
  const before = process.memoryUsage().rss;
  await failure(tunnel);
  expect((process.memoryUsage().rss - before) / 1024 / 1024).toBeLessThan(100);
});

test('a goodbye lets open requests end, but not for longer than a request may take', async () => {
  await impatient();
  let requests = 0;
  const tunnel = await hostile((peer, stream) => {
    if (++requests === 2) peer.send(type.goaway, 0, 0, uint32(3, 0));
    if (requests === 2) setTimeout(() => head(peer, stream, headOf(0), endHeaders | endStream), 50);
  });
  const [first, second] = [failure(tunnel), ask(tunnel)];
  expect(await server.closed(tunnel)).toBe('the other side closes it');
  expect(await second).toMatchObject({ status: 200 });
  expect(await first).toBe(late);
});

test('no more than 64 requests wait at once, and the others fail at once', async () => {
  await impatient();
  const tunnel = await hostile(() => {});
  const waiting = Array.from({ length: 64 }, () => failure(tunnel));
  expect(await failure(tunnel)).toBe('there are 64 requests already');
  expect(new Set(await Promise.all(waiting))).toEqual(new Set([late]));
  // Their places are free again.
  expect(await failure(tunnel)).toBe(late);
});

test('a request whose time is over does not say that its caller is gone', async () => {
  const tunnel = await hostile(() => {});
  const why = 'no complete answer in time';
  await expect(tunnel.request(request, AbortSignal.timeout(20))).rejects.toThrow(why);
  const over = AbortSignal.abort(new DOMException('', 'TimeoutError'));
  await expect(tunnel.request(request, over)).rejects.toThrow(why);
});

test('a request ends when its caller is gone', async () => {
  const tunnel = await hostile(() => {});
  const gone = new AbortController();
  const answer = tunnel.request(
    { method: 'GET', path: '/api/v1alpha1/kubeconfig', assertion: 'x', id: 'y' },
    gone.signal,
  );
  gone.abort();
  await expect(answer).rejects.toThrow('the caller is gone');
});

test.each([
  ['another path', { path: '/metrics' }, 'POST /metrics is not for a tunnel'],
  ['a path with a query', { path: '/api/v1alpha1/login?a' }, 'is not for a tunnel'],
  ['another method', { method: 'DELETE' }, 'DELETE /api/v1alpha1/login is not for a tunnel'],
  ['a long assertion', { assertion: 'x'.repeat(9_000) }, 'the assertion is too long'],
  ['an ID with a line break', { id: 'a\nb' }, 'the ID of the request is invalid'],
])('nothing is sent for %s', async (_, more, message) => {
  let requests = 0;
  const tunnel = await hostile(() => requests++);
  await expect(ask(tunnel, more)).rejects.toThrow(message);
  expect(requests).toBe(0);
});

test('a peer that answers no ping is closed, even if it sends other things', async () => {
  server = await login({ times: { ...times, silenceMs: 200 } });
  const tunnel = await hostile((peer) => {
    peer.isMute = true;
    const talk = setInterval(() => peer.send(type.window, 0, 0, uint32(1)), 20);
    peer.socket.once('close', () => clearInterval(talk));
  });
  ask(tunnel).catch(() => {});
  expect(await server.closed(tunnel)).toBe('no answer to a ping for 0.2 s');
});

test.each<[string, (socket: TLSSocket) => unknown]>([
  ['never accepts the limits', (socket) => socket.write(frame(type.settings, 0, 0))],
  ['says nothing', () => {}],
  ['sends garbage', (socket) => socket.write(Buffer.alloc(100_000, 'x'))],
  ['closes at once', (socket) => socket.destroy()],
])('a peer that %s after the handshake has no tunnel', async (_, speak) => {
  server = await login({ times: { ...times, handshakeMs: 2_000 } });
  const socket = await handshake('mallory');
  socket.on('error', () => {}).resume();
  speak(socket);
  await closed(socket);
  expect(server.listener.tunnels()).toEqual([]);
  expect(server.listener.counts()).toMatchObject({ opened: 0, closed: {} });
});

test.each(['a[b', 'a b', '1.2.3.999', 'a%zz'])(
  'a connection to the host "%s" ends before the handshake',
  async (name) => {
    await expect(handshake('mallory', name)).rejects.toThrow();
    expect(server.listener.counts().refused).toEqual({ request: 1 });
  },
);

test('the status 421 has no effect beyond the request', async () => {
  const tunnel = await hostile((peer, stream) => {
    head(peer, stream, block([':status', '421'], ['content-length', '0']), endHeaders | endStream);
  });
  expect(await ask(tunnel)).toMatchObject({ status: 421 });
});
