import { once } from 'node:events';
import type * as http from 'node:http';
import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import type { Mesh } from '../../../src/server/mesh/mesh.ts';
import { dialDirectly } from '../../../src/server/mesh/peer.ts';
import { sealHeader } from '../../../src/server/mesh/seal.ts';
import { readAnswer } from '../../../src/server/mesh/wire.ts';
import { seeded } from '../../hostile/junk.ts';
import {
  asking,
  host,
  key,
  logged,
  member,
  names,
  peer,
  post,
  question,
  record,
  recordAt,
  sealed,
  telling,
} from './fixture.ts';

// An unlocked mesh and a complete message, so that the reader is tested. No peer is ever reached.
const open = {
  tag: 'tag:tka',
  whois: async () => ({ name: 'x', tags: ['tag:tka'] }),
  dial: () => Promise.reject(new Error('not here')),
};

test.each([
  ['empty', Buffer.alloc(0)],
  ['not JSON', Buffer.from('hello')],
  ['not UTF-8', Buffer.from([0x22, 0xff, 0x22])],
  ['an array', Buffer.from('[]')],
  ['arrays in arrays', Buffer.from('['.repeat(60_000))],
  ['without a sender', question({ name: '../x' })],
  ['from __proto__', question({ name: '__proto__' })],
  ['a name with a control character', question({ name: 'x\u0007' })],
  ['no process', question({ process: undefined })],
  ['a long process', question({ process: 'x'.repeat(23) })],
  ['another version', question({ v: 1 })],
  ['members without a digest', question({ members: [1] })],
  ['a negative count', question({ members: [-1, 'x'] })],
  ['a fractional count', question({ members: [1.5, 'x'] })],
  ['a number as text', question({ members: ['1', 'x'] })],
  ['nowhere', question({ at: undefined })],
  ['a URL as an address', question({ at: 'http://x:1' })],
  ['an address with credentials', question({ at: 'a@x:1' })],
  ['an address with a path', question({ at: 'x:1/y' })],
  ['port 0', question({ at: 'x:0' })],
  ['a port too high', question({ at: 'x:65536' })],
  ['a version that is not text', question({ have: 1 })],
  ['leaving as text', question({ leaving: 'yes' })],
])('a request that is %s is refused whole, without effect', async (_, body) => {
  const mesh = await member('a', open);
  expect(await post(mesh, body)).toMatchObject({ status: 400, body: Buffer.alloc(0) });
  expect(names(mesh)).toEqual(['a']);
});

test.each([
  ['a server with credentials', { server: 'https://a:b@tka-x.example.ts.net' }],
  ['a server in another spelling', { server: 'https://TKA-x.example.ts.net/' }],
  ['a server of another scheme', { server: 'file:///etc/passwd' }],
  ['an API endpoint over http', { apiEndpoint: 'http://api.x.example.com' }],
  ['a port too high', { gossipPort: 65_536 }],
  ['a label with a control character', { labels: { a: '\u001b[31m' } }],
  ['a label that reverses text', { labels: { a: '\u202ex' } }],
  ['a label that is not text', { labels: { a: 1 } }],
  ['labels that are null', { labels: null }],
  ['a long label', { labels: { a: 'x'.repeat(257) } }],
  ['many labels', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ''])) }],
  ['a version of two lines', { version: '1\n2' }],
  ['left as text', { left: 'yes' }],
])('a record with %s: the whole answer is refused', (_, more) => {
  expect(readAnswer(telling())).toMatchObject({ name: 'x', record: { record } });
  expect(readAnswer(telling({ record: { ...record, ...more } }))).toEqual(expect.any(String));
});

test('an unreadable or long answer has no effect, and other peers are still asked', async () => {
  const [bad, long, good] = [
    await peer(() => telling({ others: ['x'] })),
    await peer(() => Buffer.alloc(70_000, 0x20)),
    await peer((address) => telling({ name: 'good', record: recordAt(address) })),
  ];
  const found = Promise.withResolvers<void>();
  const mesh = await member('a', {
    ...open,
    dial: dialDirectly,
    whois: async (_, port) => ({ name: port === good.port ? 'good' : 'x', tags: ['tag:tka'] }),
    candidates: async () => [bad.address, long.address, good.address],
    onChange: () => found.resolve(),
  });
  await found.promise;
  await expect
    .poll(() => logged, { timeout: 30_000 })
    .toContain(`gossip with ${bad.address} failed: invalid answer: others or silent has invalid addresses`);
  await expect
    .poll(() => logged, { timeout: 30_000 })
    .toContain(`gossip with ${long.address} failed: its answer is too long`);
  expect(names(mesh)).toEqual(['a', 'good']);
});

test('a label named __proto__ is a label', () => {
  const read = readAnswer(Buffer.from(telling().toString().replace('"region"', '"__proto__"')));
  expect(typeof read === 'object' && Object.entries(read.record?.record.labels ?? {})).toEqual([['__proto__', 'eu']]);
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
  const mutated = (message = asking): Buffer => {
    const bytes = Buffer.from(message);
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
  /** 100 at a time, `count` in all. */
  async function tell(mesh: Mesh, count: number, headers: (body: Buffer) => http.OutgoingHttpHeaders) {
    const statuses = new Map<number, number>();
    for (let i = 0; i < count; i += 100) {
      const bodies = Array.from({ length: 100 }, () => mutated()).filter((body) => !body.equals(asking));
      for (const { status } of await Promise.all(bodies.map((body) => post(mesh, body, headers(body))))) {
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }
    return statuses;
  }

  test('with the seal of the original message: all refused, without effect or leak', async () => {
    const started = performance.now();
    const mesh = await member('a', { key });
    const seal = await sealed(mesh, asking);
    const before = mesh.members().map(({ lastSeen: _, ...row }) => row);
    await tell(mesh, 1000, () => seal);
    const heap = heapUsed();
    expect([...(await tell(mesh, 9000, () => seal)).keys()]).toEqual([401]);
    expect(heapUsed() - heap).toBeLessThan(4 * 1024 * 1024);
    expect(mesh.members().map(({ lastSeen: _, ...row }) => row)).toEqual(before);
    // Logged once a minute, however long the machine takes.
    const minutes = Math.floor((performance.now() - started) / 60_000);
    expect(logged.filter((line) => line.includes('refused')).length).toBeLessThanOrEqual(1 + minutes);
    // The seal itself has not been used up.
    expect((await post(mesh, asking, seal)).status).toBe(200);
  });

  test('from a member: refused, or accepted as another request, and no statement counts', async () => {
    const mesh = await member('a', open);
    const statuses = await tell(mesh, 10_000, () => ({}));
    expect([...statuses.keys()].filter((status) => status !== 200 && status !== 400)).toEqual([]);
    expect(statuses.get(400)).toBeGreaterThan(5000);
    expect(mesh.members()).toMatchObject([{ name: 'a', state: 'healthy' }]);
    expect((await post(mesh, asking)).status).toBe(200);
  });

  test('as answers: refused, or read as something that a member may say', () => {
    const whole = telling({ others: ['tka-y.example.ts.net:7946', '[fd7a::1]:7946'] });
    const started = process.cpuUsage();
    let taken = 0;
    for (let i = 0; i < 10_000; i++) {
      const read = readAnswer(mutated(whole));
      if (typeof read === 'string') continue;
      taken++;
      const { name, record, others } = read;
      expect(name).toMatch(/^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/);
      for (const address of others) expect(URL.canParse(`http://${address}`)).toBe(true);
      if (record === undefined) continue;
      const { server, apiEndpoint, version, labels } = record.record;
      expect(new URL(server).origin).toBe(server);
      expect(apiEndpoint).toMatch(/^https:/);
      expect(`${version}${JSON.stringify(labels)}`).toMatch(/^[\P{Cc}]*$/u);
    }
    expect(taken).toBeGreaterThan(500);
    expect(process.cpuUsage(started).user).toBeLessThan(20e6);
  });
});

describe('strangers that keep connections open', () => {
  const closed = (socket: Socket) =>
    new Promise<void>((resolve) => {
      socket.on('error', () => {}).on('close', () => resolve());
      // The end of a stream is only seen by a reader.
      socket.resume();
    });

  test('a body that is too long is refused early, with or without a stated length', async () => {
    const mesh = await member('a', open);
    expect((await post(mesh, Buffer.alloc(70_000, 0x20))).status).toBe(413);
    // Chunked, and without an end.
    const socket = connect({ host, port: mesh.port });
    const end = closed(socket);
    socket.write('POST /gossip/v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
    const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
    const timer = setInterval(() => socket.write(chunk), 1);
    await end;
    clearInterval(timer);
    expect(socket.bytesWritten).toBeLessThan(2 * 1024 * 1024);
    expect(names(mesh)).toEqual(['a']);
  });

  test('slow senders are disconnected, and the mesh continues meanwhile', async () => {
    const found = Promise.withResolvers<void>();
    const free = await member('free', { key });
    const besieged = await member('besieged', {
      key,
      bootstrapPeers: [`${host}:${free.port}`],
      onChange: (row) => row.name === 'late' && found.resolve(),
    });
    const seal = (await sealed(besieged, asking))[sealHeader];
    const starts = [
      'POST /gossip/v2 HTTP/1.1\r\nHost: a\r\nX: ',
      `POST /gossip/v2 HTTP/1.1\r\nHost: a\r\n${sealHeader}: ${seal}\r\nContent-Length: 500\r\n\r\n{"name":`,
      '',
    ];
    const sockets = Array.from({ length: 150 }, (_, i) => {
      const socket = connect({ host, port: besieged.port });
      socket.write(starts[i % 3] ?? '');
      return { socket, end: closed(socket) };
    });
    await Promise.all(sockets.map(({ socket }) => once(socket, 'connect')));
    // It learns of this one by asking for itself.
    await member('late', { key, bootstrapPeers: [`${host}:${free.port}`] });
    await found.promise;
    await Promise.all(sockets.map(({ end }) => end));
    const answer = await post(besieged, asking, await sealed(besieged, asking));
    expect(answer.status).toBe(200);
  });
});
