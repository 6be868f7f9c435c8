import * as http from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import * as net from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { decoded, TkaClient } from '../../src/tka/client.ts';

const answer = '[]';
let secure: ReturnType<typeof createServer>;
let plain: http.Server;
let port: number;
let plainPort: number;

beforeAll(async () => {
  const { key, cert } = await makeCertificates('127.0.0.1');
  const handler: http.RequestListener = (_, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(answer);
  };
  secure = createServer({ key, cert }, handler);
  plain = http.createServer(handler);
  await Promise.all([secure, plain].map((server) => new Promise<void>((done) => server.listen(0, '127.0.0.1', done))));
  port = (secure.address() as AddressInfo).port;
  plainPort = (plain.address() as AddressInfo).port;
});
afterAll(() => {
  secure.close();
  plain.close();
});

async function ask(server: string) {
  const client = new TkaClient(server);
  try {
    return await client.memberlist({ timeout: 3000 });
  } finally {
    await client.close();
  }
}

describe('https', () => {
  it('refuses a server certificate of an unknown authority', async () => {
    const error = await ask(`https://127.0.0.1:${port}`).catch((e) => e);
    expect(error.message).toMatch(/^cannot reach https:\/\/127.0.0.1:\d+: TLS handshake failed: /);
    expect(error.hints).toEqual(['for a private CA: kubectl tka config tls.caFile FILE']);
  });

  it('to a server that speaks plain http is an error with a hint', async () => {
    const error = await ask(`https://127.0.0.1:${plainPort}`).catch((e) => e);
    const server = `https://127.0.0.1:${plainPort}`;
    expect(error.message).toBe(`cannot reach ${server}: this port serves plain http`);
    expect(error.hints).toEqual([`try http://127.0.0.1:${plainPort}`]);
    const joined = await ask(`${server}/clusters/site-1`).catch((e) => e);
    expect(joined.hints).toEqual([`try http://127.0.0.1:${plainPort}/clusters/site-1`]);
  });
});

it.each([
  ['', '/api/v1alpha1'],
  ['/clusters/site-1', '/clusters/site-1/api/v1alpha1'],
])('a server at the path "%s" gets its requests under %s', async (place, api) => {
  const paths: string[] = [];
  const server = http.createServer((request, response) => {
    paths.push(`${request.method} ${request.url}`);
    response.setHeader('content-type', 'application/json');
    response.end('[]');
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port: own } = server.address() as AddressInfo;
  const client = new TkaClient(`http://127.0.0.1:${own}${place}`);
  const options = { timeout: 3000 };
  const asked = [
    () => client.login(options),
    () => client.kubeconfig(options),
    () => client.logout(options),
    () => client.clusterInfo(options),
    () => client.memberlist(options),
  ];
  for (const ask of asked) await ask().catch(() => {});
  await client.close();
  server.close();
  const routes = ['POST /login', 'GET /kubeconfig', 'POST /logout', 'GET /cluster-info', 'GET /memberlist'];
  expect(paths).toEqual(routes.map((route) => route.replace(' ', ` ${api}`)));
});

describe('an answer', () => {
  /** A server that sends `chunk` for as long as the client reads, and the number of bytes that it has sent. */
  async function endless(chunk: Buffer) {
    let sent = 0;
    const gone = Promise.withResolvers<void>();
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.on('close', () => gone.resolve());
      const send = () => {
        while (socket.writable && socket.write(chunk)) sent += chunk.length;
        sent += chunk.length;
      };
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        socket.on('drain', send);
        send();
      });
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as AddressInfo;
    return { url: `http://127.0.0.1:${port}`, sent: () => sent, gone: gone.promise, close: () => server.close() };
  }

  it('is read up to its limit only, then the connection is closed at once', async () => {
    const chunk = Buffer.from(`10000\r\n${'x'.repeat(0x10000)}\r\n`);
    const server = await endless(chunk);
    const client = new TkaClient(server.url);
    const error = await client.clusterInfo({ timeout: 30_000 }).catch((e) => e);
    expect(error.message).toBe(`${server.url} answered with more than 1 MiB`);
    // Before the client is closed; the kernel may have buffered more.
    await server.gone;
    expect(server.sent()).toBeLessThan(12 * 1024 * 1024);
    await client.close();
    server.close();
  });

  it('with a stated length over the limit is not read', async () => {
    const gone = Promise.withResolvers<void>();
    const server = net.createServer((socket) => {
      socket.on('error', () => {}).on('close', () => gone.resolve());
      socket.once('data', () => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${2 ** 20 + 1}\r\n\r\n`));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = new TkaClient(url);
    const error = await client.clusterInfo({ timeout: 60_000 }).catch((e) => e);
    expect(error.message).toBe(`${url} answered with more than 1 MiB`);
    // Before the client is closed.
    await gone.promise;
    await client.close();
    server.close();
  });

  it('in chunks of a byte takes little memory', async () => {
    const chunk = Buffer.from('1\r\nx\r\n'.repeat(20_000));
    const server = await endless(chunk);
    const client = new TkaClient(server.url);
    const before = process.memoryUsage().heapUsed;
    let most = 0;
    const timer = setInterval(() => {
      most = Math.max(most, process.memoryUsage().heapUsed - before);
    }, 5);
    const error = await client.clusterInfo({ timeout: 60_000 }).catch((e) => e);
    clearInterval(timer);
    expect(error.message).toBe(`${server.url} answered with more than 1 MiB`);
    expect(most / 2 ** 20).toBeLessThan(64);
    await client.close();
    server.close();
  });
});

describe('the server’s clock', () => {
  const now = Date.UTC(2026, 0, 1);
  const at = (ms: number) => new Date(now + ms).toUTCString();

  // The header has whole seconds, so half a second is added.
  it.each([
    ['the same', at(0), 0],
    ['1 s ahead', at(1000), 0],
    ['2 s ahead', at(2000), 2500],
    ['2 s behind', at(-2000), 0],
    ['3 s behind', at(-3000), -2500],
    ['an hour ahead', at(3_600_000), 3_600_500],
    ['unreadable', 'tomorrow', 0],
  ])('that is %s', async (_, date, expected) => {
    const server = http.createServer((_, response) => response.setHeader('date', date).end('[]'));
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const client = new TkaClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    vi.useFakeTimers({ toFake: ['Date'], now });
    try {
      await client.memberlist({ timeout: 30_000 });
      expect(client.clockOffset).toBe(expected);
    } finally {
      vi.useRealTimers();
      await client.close();
      server.close();
    }
  });
});

describe('an answer in YAML', () => {
  const yaml = (body: string) => ({
    status: 200,
    headers: { 'content-type': 'application/yaml; charset=utf-8' },
    body,
  });
  const ca = 'A'.repeat(100_000);

  it('becomes JSON, with a text as long as the largest CA', async () => {
    const { body } = await decoded(yaml(`server: https://a.example\nca: ${ca}\n`));
    expect(JSON.parse(body)).toEqual({ server: 'https://a.example', ca });
  });

  it.each([
    ['longer than 128 KiB', `a: ${'A'.repeat(128 * 1024)}\n`],
    ['with more than 4096 structural characters', '- a\n'.repeat(2100)],
  ])('%s is not read', async (_, body) => {
    const answer = yaml(body);
    expect(await decoded(answer)).toBe(answer);
  });
});

describe('plain http', () => {
  it('is allowed to this machine, by address and by name', async () => {
    const empty = { members: [], cut: 0, unread: 0 };
    expect(await ask(`http://127.0.0.1:${plainPort}`)).toEqual(empty);
    expect(await ask(`http://localhost:${plainPort}`)).toEqual(empty);
  });

  it.each([
    'http://8.8.8.8',
    'http://10.0.0.1:8080',
    'http://[2001:db8::1]',
    'http://192.168.1.1',
    'http://0.0.0.0:81',
  ])('is refused to %s', async (server) => {
    const error = await ask(server).catch((e) => e);
    expect(error.message).toBe(`${server} is neither on this machine nor on the tailnet, so plain http is not allowed`);
    expect(error.hints[0]).toContain('https://');
  });

  it('to a server that speaks TLS is an Unavailable error, not a crash', async () => {
    const error = await ask(`http://127.0.0.1:${port}`).catch((e) => e);
    expect(error.name).toBe('Unavailable');
  });
});
