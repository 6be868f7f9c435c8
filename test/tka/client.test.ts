import * as http from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { TkaClient } from '../../src/tka/client.ts';

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
  it('is not spoken to a server whose certificate nobody vouches for', async () => {
    const error = await ask(`https://127.0.0.1:${port}`).catch((e) => e);
    expect(error.message).toMatch(/^cannot reach https:\/\/127.0.0.1:\d+: its certificate or TLS is not in order: /);
    expect(error.hints).toEqual([expect.stringMatching(/NODE_EXTRA_CA_CERTS=FILE/)]);
  });

  it('to a server that speaks plain http is an error that says so', async () => {
    const error = await ask(`https://127.0.0.1:${plainPort}`).catch((e) => e);
    expect(error.message).toMatch(/its certificate or TLS is not in order/);
  });
});

describe('plain http', () => {
  it('is spoken to this machine, by address and by name', async () => {
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
  ])('is not spoken to %s', async (server) => {
    const error = await ask(server).catch((e) => e);
    expect(error.message).toBe(`${server} is neither on this machine nor on a tailnet: plain http is not spoken to it`);
    expect(error.hints[0]).toContain('https://');
  });

  it('to a server that speaks TLS is a broken connection or no protocol, not a crash', async () => {
    const error = await ask(`http://127.0.0.1:${port}`).catch((e) => e);
    expect(error.name).toBe('Unavailable');
  });
});
