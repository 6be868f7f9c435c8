// How much one caller may use: over HTTP, on loopback.
import { once } from 'node:events';
import { Agent, request as httpRequest, type RequestListener } from 'node:http';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import type { Asking, Caller, HandlerOptions, Identity } from '../../../src/server/http/contract.ts';
import { Buckets, CallerLimits, Turns } from '../../../src/server/http/limits.ts';
import { close, createTkaServer, listen } from '../../../src/server/http/listen.ts';
import { alice, api, serve, signedIn } from '../support.ts';

// On a slow machine, everything takes longer than the usual second.
const patience = { timeout: 30_000 };

afterEach(() => {
  vi.useRealTimers();
});

describe('a bucket', () => {
  const clock = () => vi.useFakeTimers({ toFake: ['performance'] });
  const taken = (buckets: Buckets, count: number, key = 'alice', patienceMs = 0) =>
    Array.from({ length: count }, () => buckets.take(key, patienceMs));

  test('allows a burst, then a rate; each key has its own', () => {
    clock();
    const buckets = new Buckets(10, 3);
    expect(taken(buckets, 5)).toEqual([{ inMs: 0 }, { inMs: 0 }, { inMs: 0 }, { overMs: 100 }, { overMs: 100 }]);
    expect(taken(buckets, 1, 'bob')).toEqual([{ inMs: 0 }]);
    vi.advanceTimersByTime(200);
    expect(taken(buckets, 3)).toEqual([{ inMs: 0 }, { inMs: 0 }, { overMs: 100 }]);
    vi.advanceTimersByTime(60_000);
    expect(taken(buckets, 4).map((it) => 'inMs' in it)).toEqual([true, true, true, false]);
  });

  test('promises tokens of the near future, one after the other', () => {
    clock();
    const buckets = new Buckets(10, 1);
    expect(taken(buckets, 4, 'alice', 250)).toEqual([{ inMs: 0 }, { inMs: 100 }, { inMs: 200 }, { overMs: 50 }]);
  });

  test('is forgotten when it is full, and the number of buckets is limited', () => {
    clock();
    const buckets = new Buckets(10, 3, 100);
    for (let i = 0; i < 10_000; i++) buckets.take(`u${i}`, 0);
    expect(buckets.size).toBe(100);
    vi.advanceTimersByTime(60_000);
    buckets.take('alice', 0);
    expect(buckets.size).toBe(1);
  });
});

describe('a turn', () => {
  const never = new AbortController().signal;

  test('comes in order, a limited number at a time, for each key', async () => {
    const turns = new Turns(2);
    const begun: number[] = [];
    const ends = await Promise.all([turns.take('alice', never), turns.take('alice', never)]);
    const waiting = [1, 2, 3].map(async (i) => {
      const end = await turns.take('alice', never);
      begun.push(i);
      return end;
    });
    (await turns.take('bob', never))();
    expect(begun).toEqual([]);
    ends[0]?.();
    // Ending it twice does not end another one.
    ends[0]?.();
    const second = await waiting[0];
    expect(begun).toEqual([1]);
    second?.();
    await waiting[1];
    expect(begun).toEqual([1, 2]);
    ends[1]?.();
    await waiting[2];
    expect(begun).toEqual([1, 2, 3]);
  });

  test('is not given to a caller that has left', async () => {
    const turns = new Turns(1);
    const end = await turns.take('alice', never);
    const gone = new AbortController();
    const left = turns.take('alice', gone.signal);
    const stays = turns.take('alice', never);
    gone.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    await expect(turns.take('alice', gone.signal)).rejects.toThrow('gone');
    end();
    (await stays)();
    (await turns.take('alice', never))();
  });
});

interface Answer {
  readonly status: number | undefined;
  readonly retryAfter: string | undefined;
  readonly connection: string | undefined;
  readonly body: string;
}

let port = 0;
const agents: Agent[] = [];
afterEach(() => {
  for (const agent of agents.splice(0)) agent.destroy();
});
function newAgent(): Agent {
  const agent = new Agent({ keepAlive: true });
  agents.push(agent);
  return agent;
}

/** Sends a request as this login, on connections of the agent. */
function ask(login: string, agent = newAgent(), path = `${api}/login`): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { 'x-login': login };
    httpRequest({ host: '127.0.0.1', port, path, agent, headers }, async (response) => {
      const { statusCode: status, headers } = response;
      const { 'retry-after': retryAfter, connection } = headers;
      resolve({ status, retryAfter, connection, body: await text(response) });
    })
      .on('error', reject)
      .end();
  });
}

/** Trusts the header, and counts. */
class HeaderIdentity implements Identity {
  asked = 0;
  now = 0;
  most = 0;
  held: Promise<void> | undefined;
  readonly signals: AbortSignal[] = [];

  async whoIs(request: { headers: Readonly<Record<string, unknown>> }, asking?: Asking): Promise<Caller> {
    this.asked++;
    this.most = Math.max(this.most, ++this.now);
    if (asking !== undefined) this.signals.push(asking.signal);
    await this.held;
    this.now--;
    const login = String(request.headers['x-login']);
    await asking?.admit(login);
    return { ...alice, login, username: login };
  }
}

async function limited(
  options: ConstructorParameters<typeof CallerLimits>[0],
  more: Partial<HandlerOptions> = {},
): Promise<HeaderIdentity> {
  const identity = new HeaderIdentity();
  port = await serve({ identity, limits: new CallerLimits({ holdMs: 0, ...options }), ...more });
  return identity;
}

const statuses = (answers: readonly Answer[]) => answers.map(({ status }) => status);

describe('one login', () => {
  test('with too many requests gets the time to wait; others are not affected', async () => {
    await limited({ perSecond: 0.5, burst: 3, patienceMs: 0 });
    const agent = newAgent();
    const answers: Answer[] = [];
    for (let i = 0; i < 5; i++) answers.push(await ask('mallory', agent));
    expect(statuses(answers)).toEqual([200, 200, 200, 429, 429]);
    expect(answers.at(-1)).toMatchObject({
      retryAfter: '2',
      connection: 'keep-alive',
      body: '{"message":"too many requests","advice":["wait 2 s, then try again"]}',
    });
    expect((await ask('alice')).status).toBe(200);
  });

  test('over its limit causes no whois request on a known connection', async () => {
    const identity = await limited({ perSecond: 0.01, burst: 2, patienceMs: 0 });
    const agent = newAgent();
    for (let i = 0; i < 10; i++) await ask('mallory', agent);
    expect(identity.asked).toBe(2);
  });

  test('that does not wait is delayed', async () => {
    await limited({ perSecond: 0.01, burst: 1, patienceMs: 0, holdMs: 300 });
    await ask('mallory');
    const start = performance.now();
    expect((await ask('mallory')).status).toBe(429);
    expect(performance.now() - start).toBeGreaterThan(290);
  });

  test('with forty kubectl at once, each with three requests, is answered without a refusal', async () => {
    await limited({ holdMs: 1_000 });
    const kubectl = async () => {
      const agent = newAgent();
      return [await ask('alice', agent), await ask('alice', agent)];
    };
    const answers = (await Promise.all(Array.from({ length: 40 }, kubectl))).flat();
    expect(new Set(statuses(answers))).toEqual(new Set([200]));
  });

  test('has a limited number of connections, until it closes one', async () => {
    await limited({ connections: 2 });
    const [first, second] = [newAgent(), newAgent()];
    expect(statuses([await ask('mallory', first), await ask('mallory', second)])).toEqual([200, 200]);
    expect(await ask('mallory')).toMatchObject({
      status: 429,
      connection: 'close',
      body: expect.stringContaining('too many connections'),
    });
    expect((await ask('alice')).status).toBe(200);
    expect((await ask('mallory', first)).status).toBe(200);
    second.destroy();
    await vi.waitFor(async () => expect((await ask('mallory')).status).toBe(200), patience);
  });

  test('is served one request at a time; the others wait, and a request that waits for something else does not block', async () => {
    const held = Promise.withResolvers<void>();
    let [now, most, count] = [0, 0, 0];
    const get: HandlerOptions['signIns']['get'] = async (caller) => {
      most = Math.max(most, ++now);
      if (count++ === 0) await held.promise;
      await delay(5);
      now--;
      return signedIn.get(caller);
    };
    await limited({}, { signIns: { ...signedIn, get } });
    const slow = ask('alice');
    await vi.waitUntil(() => count === 1, patience);
    const others = await Promise.all(Array.from({ length: 8 }, () => ask('alice')));
    expect(new Set(statuses(others))).toEqual(new Set([200]));
    // The slow one, whose turn has ended, and another.
    expect(most).toBe(2);
    held.resolve();
    expect((await slow).status).toBe(200);
  });
});

test('a login with a queue rests as long as it works; one that sends requests in turn does not', async () => {
  const workMs = 30;
  const get: HandlerOptions['signIns']['get'] = async (caller) => {
    await delay(workMs);
    return signedIn.get(caller);
  };
  await limited({ turnMs: 60_000 }, { signIns: { ...signedIn, get } });
  let start = performance.now();
  await Promise.all(Array.from({ length: 6 }, () => ask('alice')));
  // After all but the last.
  expect(performance.now() - start).toBeGreaterThan(11 * workMs - 20);
  const agent = newAgent();
  const times: number[] = [];
  for (let i = 0; i < 10; i++) {
    start = performance.now();
    await ask('bob', agent);
    times.push(performance.now() - start);
  }
  expect(Math.min(...times)).toBeLessThan(2 * workMs - 5);
});

test('one address has a limited number of whois requests at once; the rest get an answer soon', async () => {
  const identity = await limited({});
  const held = Promise.withResolvers<void>();
  identity.held = held.promise;
  const answers = Array.from({ length: 12 }, (_, i) => ask(`u${i}`));
  let busy = 0;
  for (const answer of answers) void answer.then(({ status }) => (busy += Number(status === 503)));
  expect(await Promise.any(answers)).toMatchObject({
    status: 503,
    retryAfter: '1',
    body: expect.stringContaining('busy'),
  });
  await vi.waitUntil(() => busy === 4, patience);
  expect(identity.most).toBe(8);
  held.resolve();
  expect(statuses(await Promise.all(answers)).filter((status) => status === 200)).toHaveLength(8);
});

test('requests without a login share one limit', async () => {
  await limited({ perSecond: 0.01, burst: 4, patienceMs: 0 });
  const answers: Answer[] = [];
  for (const path of ['/nothing', '/swagger', '/', `${api}/nothing`, '/swagger', '/nothing']) {
    answers.push(await ask('mallory', newAgent(), path));
  }
  expect(statuses(answers)).toEqual([404, 200, 404, 404, 429, 429]);
  expect((await ask('alice')).status).toBe(200);
});

test('only connections of known callers are kept open', async () => {
  await limited({});
  const agent = newAgent();
  expect((await ask('alice', agent, '/nothing')).connection).toBe('close');
  expect((await ask('alice', agent)).connection).toBe('keep-alive');
  expect((await ask('alice', agent, '/nothing')).connection).toBe('keep-alive');
});

describe('a caller that has left', () => {
  const request = `GET ${api}/login HTTP/1.1\r\nHost: x\r\nX-Login: alice\r\n\r\n`;

  test('causes no further whois request and no work', async () => {
    let worked = 0;
    const get: HandlerOptions['signIns']['get'] = async (caller) => {
      worked++;
      return signedIn.get(caller);
    };
    const identity = await limited({}, { signIns: { ...signedIn, get } });
    const held = Promise.withResolvers<void>();
    identity.held = held.promise;
    const socket = connect(port, '127.0.0.1');
    socket.write(request);
    await vi.waitUntil(() => identity.signals.length === 1, patience);
    expect(identity.signals[0]?.aborted).toBe(false);
    socket.destroy();
    await vi.waitUntil(() => identity.signals[0]?.aborted, patience);
    held.resolve();
    expect((await ask('alice')).status).toBe(200);
    expect(worked).toBe(1);
  });

  test('needs no token any more', async () => {
    const minted = Promise.withResolvers<AbortSignal | undefined>();
    const kubeconfig: HandlerOptions['signIns']['kubeconfig'] = (_, signal) => {
      minted.resolve(signal);
      return new Promise(() => undefined);
    };
    await limited({}, { signIns: { ...signedIn, kubeconfig } });
    const socket = connect(port, '127.0.0.1');
    socket.write(request.replace('/login', '/kubeconfig'));
    const signal = await minted.promise;
    expect(signal?.aborted).toBe(false);
    socket.destroy();
    await vi.waitUntil(() => signal?.aborted, patience);
  });

  test('loses its place in the queue', async () => {
    let worked = 0;
    const held = Promise.withResolvers<void>();
    const get: HandlerOptions['signIns']['get'] = async (caller) => {
      if (worked++ === 0) await held.promise;
      return signedIn.get(caller);
    };
    const identity = await limited({ turnMs: 60_000 }, { signIns: { ...signedIn, get } });
    const first = ask('alice');
    await vi.waitUntil(() => worked === 1, patience);
    const socket = connect(port, '127.0.0.1');
    socket.write(request);
    await vi.waitUntil(() => identity.signals.length === 2, patience);
    socket.destroy();
    await vi.waitUntil(() => identity.signals[1]?.aborted, patience);
    held.resolve();
    expect((await first).status).toBe(200);
    expect((await ask('alice')).status).toBe(200);
    expect(worked).toBe(2);
  });
});

describe('connections', () => {
  /** Opens this many connections; returns how many are still open when a request on the last one is answered. */
  async function open(count: number, limits: Parameters<typeof createTkaServer>[1]): Promise<number> {
    const server = createTkaServer((_, response) => response.end(), limits);
    const at = await listen(server, '127.0.0.1', 0);
    const sockets = Array.from({ length: count }, () => connect(at, '127.0.0.1'));
    const closed = new Set<number>();
    try {
      await Promise.all(
        sockets.map(
          (socket, i) =>
            new Promise<void>((resolve) => {
              socket.on('error', () => undefined);
              socket.once('close', () => resolve(void closed.add(i)));
              socket.once('data', () => resolve());
              socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
            }),
        ),
      );
      return count - closed.size;
    } finally {
      for (const socket of sockets) socket.destroy();
      server.close();
    }
  }

  test.each([
    ['of all callers', { connections: 5 }, 5],
    ['of one address', { connectionsPerAddress: 3, isShared: () => false }, 3],
    ['of loopback, shared by all callers behind a userspace tailscaled', { connectionsPerAddress: 3 }, 9],
  ])('are limited: those %s', async (_, limits, left) => {
    expect(await open(9, limits)).toBe(left);
  });

  test.each([
    ['plain', false],
    ['over TLS', true],
  ])('of unknown callers make room for new ones, %s; those of known callers stay', async (_, secure) => {
    const known = new Set<Socket>();
    const listener: RequestListener = ({ url, socket }, response) => {
      known.add(socket);
      // One caller is never known, because it never finishes its request.
      if (url !== '/held') response.end('x');
      else known.delete(socket);
    };
    const limits = { connections: 16, isKnown: (socket: Socket) => known.has(socket) };
    const pair = await makeCertificates('127.0.0.1');
    const server = secure ? createTkaServer(listener, limits, pair) : createTkaServer(listener, limits);
    const at = await listen(server, '127.0.0.1', 0);
    const to = { host: '127.0.0.1', port: at, ca: pair.ca };
    const sockets: Socket[] = [];
    const connected = async (secured: boolean): Promise<Socket> => {
      const socket = secured ? connectTls(to) : connect(to);
      sockets.push(socket);
      socket.on('error', () => undefined);
      await once(socket, secured ? 'secureConnect' : 'connect');
      return socket;
    };
    const answered = async (socket: Socket): Promise<void> => {
      socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
      expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1\.1 200 /);
    };
    try {
      const first = [await connected(secure), await connected(secure)];
      for (const socket of first) await answered(socket);
      const held = await connected(secure);
      held.write('GET /held HTTP/1.1\r\nHost: x\r\n\r\n');
      const ended = once(held, 'close');
      for (let i = 0; i < 40; i++) await connected(false);
      await answered(await connected(secure));
      await ended;
      for (const socket of first) await answered(socket);
    } finally {
      for (const socket of sockets) socket.destroy();
      await close(server);
    }
  });

  test('with many requests before the first answer are closed', async () => {
    const worked: string[] = [];
    const identity = await limited({}, { onRequest: ({ id }) => worked.push(id) });
    identity.held = new Promise(() => undefined);
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(`GET ${api}/login HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(1_000));
    await once(socket, 'close');
    await vi.waitUntil(() => worked.length > 0, patience);
    expect(identity.asked).toBe(8);
    expect(worked).toHaveLength(16);
  });

  test('of an address make room when they are closed', async () => {
    const limits = { connectionsPerAddress: 1, isShared: () => false };
    const server = createTkaServer((_, response) => response.end('x'), limits);
    port = await listen(server, '127.0.0.1', 0);
    for (let i = 0; i < 3; i++) {
      const agent = newAgent();
      await vi.waitFor(async () => expect((await ask('alice', agent, '/')).status).toBe(200), patience);
      agent.destroy();
    }
    server.close();
  });
});
