// One exchange with a peer: its limits, and what it leaves behind.
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { dialDirectly, post } from '../../../src/server/mesh/peer.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** Starts a peer that does `respond` with each connection on which a request has started. Returns its address. */
async function startPeer(respond: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {}).once('data', () => respond(socket));
  });
  servers.push(server);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as { readonly port: number };
  return `127.0.0.1:${port}`;
}

const tag = 'tag:tka';
const whois = async () => ({ name: 'x', tags: [tag] });
const ask = (address: string, ms = 20_000) =>
  post(address, Buffer.from('question'), {
    gate: { tag, whois, whoCalls: whois },
    dial: dialDirectly,
    signal: AbortSignal.timeout(ms),
  });
const ok = 'HTTP/1.1 200 OK\r\n';

test('a redirect is not followed', async () => {
  let asked = 0;
  const elsewhere = await startPeer(() => asked++);
  const address = await startPeer((socket) => {
    socket.end(`HTTP/1.1 307 See\r\nLocation: http://${elsewhere}/\r\nContent-Length: 0\r\n\r\n`);
  });
  await expect(ask(address)).rejects.toThrow('it answered HTTP 307');
  expect(asked).toBe(0);
});

test.each<[name: string, respond: (socket: Socket) => void, message: string | RegExp]>([
  ['closes the connection', (socket) => socket.destroy(), /other side closed|ECONNRESET/],
  ['does not speak HTTP', (socket) => socket.end('SSH-2.0-x\r\n'), /Response does not match the HTTP\/1.1 protocol/],
  ['sends headers of 20 KB', (socket) => socket.end(`${ok}X: ${'x'.repeat(20_000)}\r\n\r\n`), /Headers Overflow/],
  [
    'sends a body without an end',
    (socket) => {
      socket.write(`${ok}Transfer-Encoding: chunked\r\n\r\n`);
      const timer = setInterval(() => socket.write(`4000\r\n${'x'.repeat(0x4000)}\r\n`), 1);
      socket.once('close', () => clearInterval(timer));
    },
    'its answer is too long',
  ],
  [
    'announces a body that is too long',
    (socket) => socket.end(`${ok}Content-Length: 100000\r\n\r\n${'x'.repeat(1e5)}`),
    'its answer is too long',
  ],
])('a peer that %s fails the exchange at once', async (_, respond, message) => {
  await expect(ask(await startPeer(respond))).rejects.toThrow(message);
});

test('a peer that sends nothing, or stops in the middle, fails the exchange at the timeout', async () => {
  const silent = await startPeer(() => {});
  const slow = await startPeer((socket) => void socket.write(`${ok}Content-Length: 9\r\n\r\nhalf`));
  await expect(ask(silent, 200)).rejects.toThrow('aborted due to timeout');
  await expect(ask(slow, 200)).rejects.toThrow('aborted due to timeout');
});

test('many peers at once are each answered, and no connection stays open', async () => {
  const addresses: string[] = [];
  for (let i = 0; i < 150; i++)
    addresses.push(
      await startPeer((socket) => void socket.write(`${ok}Content-Length: ${String(i).length}\r\n\r\n${i}`)),
    );
  const answers = await Promise.all(addresses.map((address) => ask(address)));
  expect(answers.map(({ body }) => body.toString())).toEqual(addresses.map((_, i) => String(i)));
  const open = () =>
    Promise.all(servers.map((server) => new Promise((done) => server.getConnections((_, n) => done(n)))));
  await expect.poll(async () => (await open()).every((count) => count === 0)).toBe(true);
});
