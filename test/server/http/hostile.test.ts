// Anything may be sent to the port: none of it signs a user in or out, stops the server or stays in memory.
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import type { Answered, HandlerOptions } from '../../../src/server/http/contract.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
import { pick, seed, seeded } from '../../hostile/junk.ts';
import { api, ask, login, members, serve, signedIn } from '../support.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');
function heapUsed(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

/** Starts a server that counts its effects. */
async function counting(limits = {}) {
  const seen = { signIns: 0, effects: 0, errors: [] as unknown[], answered: new Map<string, number>() };
  const effect = async () => {
    seen.effects++;
    return login;
  };
  const options: Partial<HandlerOptions> = {
    signIns: {
      ...signedIn,
      async signIn() {
        seen.signIns++;
        return effect();
      },
      signOut: async () => ({ answer: await effect(), complete: true }),
    },
    members: () => members,
    onError: (error) => seen.errors.push(error),
    onRequest: ({ method, route, status }) => {
      const what = `${status} ${method} ${route}`;
      seen.answered.set(what, (seen.answered.get(what) ?? 0) + 1);
    },
  };
  return { seen, port: await serve(options, limits) };
}

/** Sends these bytes only; returns the whole answer until the server hangs up. */
async function send(port: number, bytes: Buffer): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  let answer = '';
  socket.setEncoding('latin1').on('data', (data: string) => {
    answer += data;
  });
  // It may be disconnected while it still sends.
  socket.on('error', () => {});
  socket.end(bytes);
  await once(socket, 'close');
  return answer;
}

const calls = ['POST /login', 'GET /login', 'GET /kubeconfig', 'POST /logout', 'GET /cluster-info', 'GET /memberlist'];
const request = (call: string, more = '', body = ''): string =>
  `${call.replace(' ', ` ${api}`)} HTTP/1.1\r\nHost: tka\r\nAccept: application/json\r\nX-Request-Id: abc\r\n${more}\r\n${body}`;

const headers = [
  'Content-Length: 5000\r\n',
  'Content-Length: -1\r\n',
  'Content-Length: 99999999999999999999\r\n',
  'Content-Length: 2\r\nContent-Length: 3\r\n',
  'Content-Length: 2\r\nTransfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked, identity\r\n',
  'Transfer-Encoding: gzip, chunked\r\n',
  'Transfer-Encoding:\u000bchunked\r\n',
  'Host: other\r\n',
  'Expect: the unexpected\r\n',
  'Upgrade: h2c\r\nConnection: upgrade\r\n',
  'no colon\r\n',
  ' folded: x\r\n',
  'X\u0000: y\r\n',
  'X: \u0001\u007f\u0080\r\n',
  'X-Request-Id: \u001b[31m\r\n',
  `X: ${'x'.repeat(20_000)}\r\n`,
  'A: b\r\n'.repeat(3_000),
  `Accept: ${'text/html;q=0.1,'.repeat(800)}\r\n`,
  'Accept: text/html;q=NaN, */*;;;=\r\n',
];
const bodies = ['{}', '0\r\n\r\n', 'ffffffffffffffff\r\nx', '5\r\nhello\r\n0\r\nX: y\r\n\r\n', 'x'.repeat(6_000)];
const starts = [
  'POST http://tka/api/v1alpha1/login HTTP/1.1',
  'POST //api/v1alpha1/login HTTP/1.1',
  'POST /api/v1alpha1/./login HTTP/1.1',
  'POST /api/v1alpha1/%6cogin HTTP/1.1',
  'POST /api/v1alpha1/login/ HTTP/1.1',
  'POST /api/v1alpha1/login%00 HTTP/1.1',
  'POST /API/v1alpha1/LOGIN HTTP/1.1',
  'POST /api/v1alpha1/../../login HTTP/1.1',
  'POST /api/v1alpha1/__proto__ HTTP/1.1',
  'POST /api/v1alpha1/login#x HTTP/1.1',
  'post /api/v1alpha1/login HTTP/1.1',
  'POST /api/v1alpha1/login HTTP/3.0',
  'POST /api/v1alpha1/login',
  'CONNECT tka:443 HTTP/1.1',
  'OPTIONS * HTTP/1.1',
  'TRACE /api/v1alpha1/login HTTP/1.1',
  'PUT /api/v1alpha1/login HTTP/1.1',
  'PRI * HTTP/2.0',
  '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003',
];
const scraps = ['\r\n', '\r\n\r\n', '\n', '\0', ':', ' ', '%00', '\u00ff', '9'.repeat(40), '/', '?', ''];

/** Returns a mutated request of the API. */
function mutated(chance: () => number): Buffer {
  const below = (limit: number) => Math.floor(chance() * limit);
  const call = pick(chance, calls);
  const kind = below(7);
  if (kind === 0) return Buffer.from(request(call, pick(chance, headers), pick(chance, bodies)), 'latin1');
  if (kind === 1)
    return Buffer.from(
      request(call).replace(/^.*/, () => pick(chance, starts)),
      'latin1',
    );
  const bytes = Buffer.from(chance() < 0.5 ? request(call) : request(call, 'Content-Length: 2\r\n', '{}'), 'latin1');
  const at = below(bytes.length);
  if (kind === 2) return bytes.subarray(0, at);
  if (kind === 3) return Buffer.concat([bytes.subarray(0, at), bytes.subarray(below(bytes.length))]);
  if (kind === 4) return Buffer.from(Array.from({ length: 1 + below(200) }, () => below(256)));
  if (kind === 5) {
    const scrap = Buffer.from(pick(chance, scraps), 'latin1');
    return Buffer.concat([bytes.subarray(0, at), scrap, bytes.subarray(at + below(4))]);
  }
  bytes[at] = below(256);
  return bytes;
}

// Requests that may have an effect, parsed separately from the server: a whole request line of such a call.
const effective = /POST \/api\/v1alpha1\/log(?:in|out)(?:\?[^ ]*)? HTTP\/1\.[01]\r?\n/g;

describe(`10,000 mutated requests (seed ${seed})`, { timeout: 240_000 }, () => {
  test('are refused, or are another request: without effect, crash or leak', async () => {
    const { seen, port } = await counting();
    const chance = seeded(seed);
    const statuses = new Map<string, number>();
    let heap = 0;
    let possible = 0;
    for (let i = 0; i < 10_000; i += 50) {
      if (i === 2_000) heap = heapUsed();
      const batch = Array.from({ length: 50 }, () => mutated(chance));
      const before = seen.effects;
      const answers = await Promise.all(batch.map((bytes) => send(port, bytes)));
      const allowed = batch.map((bytes) => bytes.toString('latin1').match(effective)?.length ?? 0);
      const most = allowed.reduce((a, b) => a + b, 0);
      possible += most;
      expect(seen.effects - before).toBeLessThanOrEqual(most);
      for (const answer of answers) {
        const status = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? '';
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        expect(answer).not.toMatch(/\n\s+at |node:|\.[cm]?[jt]s:\d|\u001b/);
      }
    }
    // A refused caller was not signed in. Node hangs up on a caller that sends junk after a valid request.
    const asked = (what: RegExp) =>
      [...seen.answered].filter(([key]) => what.test(key)).reduce((sum, [, count]) => sum + count, 0);
    expect(asked(/^4\d\d POST \/api\/v1alpha1\/login$/)).toBeGreaterThan(40);
    expect(seen.signIns).toBeLessThanOrEqual(asked(/^(?:202|undefined) POST \/api\/v1alpha1\/login$/));
    expect(asked(/^5/)).toBe(0);
    // An empty answer is for a request that was cut too early, or CONNECT, which is not supported.
    expect([...statuses.keys()].sort()).toEqual(['', '200', '202', '400', '404', '405', '413', '417', '431']);
    expect(statuses.get('400')).toBeGreaterThan(3_000);
    // A request with a changed header name is still valid, so the check above has cases to judge.
    expect(possible).toBeGreaterThan(1_000);
    expect(seen.effects).toBeGreaterThan(100);
    expect(seen.errors).toEqual([]);
    expect(heapUsed() - heap).toBeLessThan(6 * 1024 * 1024);
    expect((await ask('POST', `${api}/login`)).status).toBe(202);
  });
});

test('anything other than HTTP/1 is refused: a single line is HTTP/0.9', async () => {
  const { seen, port } = await counting();
  expect(await send(port, Buffer.from(`POST ${api}/login\r\n\r\n`))).toMatch(/^HTTP\/1\.1 400 /);
  expect(seen).toMatchObject({ effects: 0, errors: [] });
});

test('a missing body times out, and is not a sign-in', async () => {
  const { seen, port } = await counting({ readTimeoutMs: 50, readHeaderTimeoutMs: 50 });
  const socket = connect(port, '127.0.0.1');
  socket.write(request('POST /login', 'Content-Length: 2\r\n', '{'));
  expect(await text(socket)).toMatch(/^HTTP\/1\.1 408 /);
  expect(seen).toMatchObject({ effects: 0, errors: [] });
});

test('a body that is too long is refused before its end', async () => {
  const { seen, port } = await counting();
  const socket = connect(port, '127.0.0.1');
  const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
  // Nothing more is sent: a client that writes to a connection that was closed meanwhile loses the answer in it.
  socket.write(request('POST /login', 'Transfer-Encoding: chunked\r\n') + chunk + chunk);
  expect(await text(socket)).toMatch(/^HTTP\/1\.1 413 /);
  expect(seen).toMatchObject({ effects: 0, errors: [] });
});

test('a body without an end is disconnected', async () => {
  const { seen, port } = await counting();
  const socket = connect(port, '127.0.0.1');
  // This is how a disconnect appears.
  socket.on('error', () => {});
  socket.write(request('POST /login', 'Transfer-Encoding: chunked\r\n'));
  const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
  const timer = setInterval(() => socket.write(chunk), 1);
  socket.resume();
  await once(socket, 'close');
  clearInterval(timer);
  expect(socket.bytesWritten).toBeLessThan(2 * 1024 * 1024);
  expect(seen).toMatchObject({ effects: 0, errors: [] });
});

test('a caller that does not read is disconnected', async () => {
  const many = Array.from({ length: 50_000 }, (_, i) => ({ ...(members[0] as MemberRow), name: `tka-${i}` }));
  const told = Promise.withResolvers<Answered>();
  const port = await serve({ members: () => many, onRequest: told.resolve }, { writeTimeoutMs: 200 });
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.pause();
  socket.write(request('GET /memberlist'));
  expect(await told.promise).toMatchObject({ status: undefined, route: `${api}/memberlist` });
  socket.destroy();
});
