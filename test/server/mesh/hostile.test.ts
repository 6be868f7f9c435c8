import { once } from 'node:events';
import type * as http from 'node:http';
import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import type { Mesh } from '../../../src/server/mesh/mesh.ts';
import { sealHeader } from '../../../src/server/mesh/seal.ts';
import { seeded } from '../../hostile/junk.ts';
import { envelope, host, key, logged, member, names, now, post, record, sealed, telling } from './ground.ts';

// From an open door and a whole message, so that the reader is what is tested.
const open = { tag: 'tag:tka', whois: async () => ({ tags: ['tag:tka'] }) };

async function refused(body: Buffer): Promise<void> {
  const mesh = await member('a', open);
  expect(await post(mesh, body)).toMatchObject({ status: 400, body: Buffer.alloc(0) });
  expect(names(mesh)).toEqual(['a']);
}

test.each([
  ['empty', Buffer.alloc(0)],
  ['no JSON', Buffer.from('hello')],
  ['not UTF-8', Buffer.from([0x22, 0xff, 0x22])],
  ['an array', Buffer.from('[]')],
  ['arrays in arrays', Buffer.from('['.repeat(60_000))],
  ['another version', envelope({ v: 2 })],
  ['from nobody', envelope({ teller: '../x' })],
  ['beats that do not come out even', envelope({ beats: ['x', 1, 2] })],
  ['a negative heartbeat', envelope({ beats: ['x', 1, -2, 0] })],
  ['a heartbeat of halves', envelope({ beats: ['x', 1, 2.5, 0] })],
  ['an age of millennia', envelope({ beats: ['x', 1, 2, 1e14] })],
  ['a number as text', envelope({ beats: ['x', '1', 2, 0] })],
  ['a name with a control character', envelope({ want: ['x\u0007'] })],
  ['the name __proto__', envelope({ want: ['__proto__'] })],
  ['half a range', envelope({ range: [''] })],
])('%s: the whole message is refused, without effect', (_, body) => refused(body));

test.each([
  ['a server with credentials', { server: 'https://a:b@tka-x.example.ts.net' }],
  ['a server in another spelling', { server: 'https://TKA-x.example.ts.net/' }],
  ['a server of another scheme', { server: 'file:///etc/passwd' }],
  ['an API endpoint over http', { apiEndpoint: 'http://api.x.example.com' }],
  ['a port too high', { gossipPort: 65_536 }],
  ['a label with a control character', { labels: { a: '\u001b[31m' } }],
  ['a label that turns text round', { labels: { a: '\u202ex' } }],
  ['a label that is no text', { labels: { a: 1 } }],
  ['labels that are null', { labels: null }],
  ['a long label', { labels: { a: 'x'.repeat(257) } }],
  ['many labels', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ''])) }],
  ['a version of two lines', { version: '1\n2' }],
  ['left as text', { left: 'yes' }],
])('a record with %s: the whole message is refused, without effect', (_, more) => {
  const good = ['y', now, 7, 10, record];
  return refused(envelope({ records: [good, ['x', now, 5, 0, { ...record, ...more }]] }));
});

test('a label named __proto__ is a label', async () => {
  const mesh = await member('a', open);
  const text = telling.toString().replace('"region"', '"__proto__"');
  expect((await post(mesh, Buffer.from(text))).status).toBe(200);
  expect(Object.entries(mesh.members().find(({ name }) => name === 'x')?.labels ?? {})).toEqual([['__proto__', 'eu']]);
});

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');
function heapUsed(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

describe('10,000 mutated messages', { timeout: 240_000 }, () => {
  const random = seeded(7);
  const pick = (limit: number) => Math.floor(random() * limit);
  const scraps = ['"', '[', ']', '{', '}', ',', '-', '1e999', 'null', '\\u0000', '__proto__', '😀', '9'.repeat(30), ''];
  const mutated = (): Buffer => {
    const bytes = Buffer.from(telling);
    const at = pick(bytes.length);
    const kind = pick(4);
    if (kind === 0) bytes[at] = pick(256);
    else if (kind === 1) return bytes.subarray(0, at);
    else if (kind === 2) {
      const scrap = Buffer.from(scraps[pick(scraps.length)] ?? '');
      return Buffer.concat([bytes.subarray(0, at), scrap, bytes.subarray(at + pick(4))]);
    } else return Buffer.concat([bytes.subarray(0, at), bytes.subarray(pick(bytes.length))]);
    return bytes;
  };
  /** 100 at a time, so many times over. */
  async function tell(mesh: Mesh, count: number, headers: (body: Buffer) => http.OutgoingHttpHeaders) {
    const statuses = new Map<number, number>();
    for (let i = 0; i < count; i += 100) {
      const bodies = Array.from({ length: 100 }, mutated).filter((body) => !body.equals(telling));
      for (const { status } of await Promise.all(bodies.map((body) => post(mesh, body, headers(body))))) {
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }
    return statuses;
  }

  test('with the seal of the message that they were: all refused, without effect or leak', async () => {
    const mesh = await member('a', { key });
    const seal = await sealed(mesh, telling);
    const before = mesh.members().map(({ lastSeen: _, ...row }) => row);
    await tell(mesh, 1000, () => seal);
    const heap = heapUsed();
    expect([...(await tell(mesh, 9000, () => seal)).keys()]).toEqual([401]);
    expect(heapUsed() - heap).toBeLessThan(4 * 1024 * 1024);
    expect(mesh.members().map(({ lastSeen: _, ...row }) => row)).toEqual(before);
    // Once a minute is enough to be told.
    expect(logged.filter((line) => line.includes('refused'))).toHaveLength(1);
    // The seal itself has not been spent on them.
    expect((await post(mesh, telling, seal)).status).toBe(200);
  });

  test('from a member: refused, or taken as another message; never more than it could say', async () => {
    const mesh = await member('a', open);
    const statuses = await tell(mesh, 10_000, () => ({}));
    expect([...statuses.keys()].filter((status) => status !== 200 && status !== 400)).toEqual([]);
    expect(statuses.get(400)).toBeGreaterThan(5000);
    expect(mesh.members().find(({ name }) => name === 'a')?.state).toBe('healthy');
    for (const { name, server, apiEndpoint, version, labels } of mesh.members()) {
      expect(name).toMatch(/^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/);
      expect(new URL(server ?? '').origin).toBe(server);
      expect(apiEndpoint).toMatch(/^https:/);
      expect(`${version}${JSON.stringify(labels)}`).toMatch(/^[\P{Cc}]*$/u);
    }
    expect((await post(mesh, telling)).status).toBe(200);
  });
});

describe('strangers who hold on', () => {
  const closed = (socket: Socket) =>
    new Promise<void>((resolve) => {
      socket.on('error', () => {}).on('close', () => resolve());
      // An end that nobody reads up to is no end.
      socket.resume();
    });

  test('a body that is too long is not waited for, said or unsaid', async () => {
    const mesh = await member('a', open);
    expect((await post(mesh, Buffer.alloc(70_000, 0x20))).status).toBe(413);
    // Chunked, and without an end.
    const socket = connect({ host, port: mesh.port });
    const end = closed(socket);
    socket.write('POST /gossip/v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
    const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
    const timer = setInterval(() => socket.write(chunk), 1);
    await end;
    clearInterval(timer);
    expect(socket.bytesWritten).toBeLessThan(2 * 1024 * 1024);
    expect(names(mesh)).toEqual(['a']);
  });

  test('whoever is slow is cut off, and the mesh goes on meanwhile', async () => {
    const found = Promise.withResolvers<void>();
    const free = await member('free', { key });
    const besieged = await member('besieged', {
      key,
      bootstrapPeers: [`${host}:${free.port}`],
      onChange: (row) => row.name === 'late' && found.resolve(),
    });
    const seal = (await sealed(besieged, telling))[sealHeader];
    const starts = [
      'POST /gossip/v1 HTTP/1.1\r\nHost: a\r\nX: ',
      `POST /gossip/v1 HTTP/1.1\r\nHost: a\r\n${sealHeader}: ${seal}\r\nContent-Length: 500\r\n\r\n{"v":`,
      '',
    ];
    const sockets = Array.from({ length: 150 }, (_, i) => {
      const socket = connect({ host, port: besieged.port });
      socket.write(starts[i % 3] ?? '');
      return { socket, end: closed(socket) };
    });
    await Promise.all(sockets.map(({ socket }) => once(socket, 'connect')));
    // It hears of this one by asking for itself.
    await member('late', { key, bootstrapPeers: [`${host}:${free.port}`] });
    await found.promise;
    await Promise.all(sockets.map(({ end }) => end));
    const answer = await post(besieged, telling, await sealed(besieged, telling));
    expect(answer.status).toBe(200);
  });
});
