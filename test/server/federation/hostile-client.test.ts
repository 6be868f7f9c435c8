// What anyone can send to the login server's listener for tunnels.
import * as fs from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { connect } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { newKey, sign, verify } from '../../../src/server/federation/keys.ts';
import { networkOf } from '../../../src/server/federation/strangers.ts';
import { until } from '../../fixtures/wait.ts';
import { authority, fields, files, joined, logged, login, loginKey, OpenAdmission, ownKey } from './fixture.ts';
import { closed as closing, exporterOf, helloOf, id, type RawClient, rawClient, transcript, upgrade } from './wire.ts';

test('the handshake as it is written down', async () => {
  const { listener, next } = await login({ replicas: () => 2 });
  const client = await rawClient(listener.port);
  client.write(upgrade);
  expect(await client.until('\r\n\r\n')).toBe(
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tka-federation/1',
  );
  const first = helloOf();
  client.write(`${first}\n`);
  const [second = '', third = ''] = [await client.line(), await client.line()];
  const about = JSON.parse(second);
  expect(about).toEqual({
    cluster: 'primary',
    replica: 'login-0',
    replicas: 2,
    nonce: expect.stringMatching(/^[\w-]{22}$/),
    time: expect.any(Number),
    keys: [loginKey.publicKey],
  });
  const { signatures } = JSON.parse(third);
  expect(signatures).toHaveLength(1);
  const signed = transcript('login', exporterOf(client.socket), [first, second]);
  expect(verify(loginKey.publicKey, signed, signatures[0])).toBe(true);
  client.prove([first, second, third]);
  expect(JSON.parse((await client.line()) ?? '')).toEqual({ ok: true });
  // The login server begins to speak HTTP/2.
  expect(await client.until('\r\n\r\n')).toBe('PRI * HTTP/2.0');
  expect(listener.tunnels()).toEqual([]);
  client.socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]));
  expect(await next()).toMatchObject({ id: id('t'), cluster: 'alpha', replica: 'tka-0' });
});

describe('is answered and closed:', () => {
  test.each([
    ['a request for a page', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'HTTP/1.1 404 Not Found'],
    ['a request of the API', 'GET /api/v1alpha1/login HTTP/1.1\r\nHost: x\r\n\r\n', 'HTTP/1.1 404 Not Found'],
    ['no upgrade', 'GET /tka-federation/v1 HTTP/1.1\r\nHost: x\r\n\r\n', 'HTTP/1.1 404 Not Found'],
    ['another method', upgrade.replace('GET', 'POST'), 'HTTP/1.1 404 Not Found'],
    ['another path', upgrade.replace('/v1', '/v1/'), 'HTTP/1.1 404 Not Found'],
    ['a path with a query', upgrade.replace('/v1', '/v1?'), 'HTTP/1.1 404 Not Found'],
    ['HTTP/1.0', upgrade.replace('HTTP/1.1', 'HTTP/1.0'), 'HTTP/1.1 404 Not Found'],
    ['the beginning of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'HTTP/1.1 404 Not Found'],
    ['an empty head', '\r\n\r\n', 'HTTP/1.1 404 Not Found'],
    [
      'another version of the protocol',
      upgrade.replace('federation/1', 'federation/2'),
      'HTTP/1.1 426 Upgrade Required',
    ],
  ])('%s', async (_, text, status) => {
    const { listener } = await login();
    const client = (await rawClient(listener.port)).write(text);
    expect((await client.until('\r\n\r\n'))?.split('\r\n')[0]).toBe(status);
    await client.closed();
    await until('it is counted', () => Object.keys(listener.counts().refused).length > 0);
    expect(listener.counts().refused).toEqual(status.includes('404') ? { request: 1 } : { version: 1 });
  });
});

describe('is closed without an answer:', () => {
  test.each<readonly [string, string | Buffer]>([
    ['a head without end', `GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(3_000)}`],
    ['a line without end', upgrade + 'x'.repeat(20_000)],
    ['a first message that is not JSON', `${upgrade}hello\n`],
    ['an empty one', `${upgrade}\n`],
    ['one that is not UTF-8', Buffer.concat([Buffer.from(upgrade), Buffer.of(0x22, 0xff, 0x22, 0x0a)])],
    ['arrays in arrays', `${upgrade}${'['.repeat(10_000)}\n`],
    ...[
      { kind: 'other' },
      { cluster: 'Alpha' },
      { cluster: 'a'.repeat(64) },
      { cluster: '../x' },
      { cluster: ['alpha'] },
      { replica: '' },
      { replica: 'a b' },
      { nonce: 'short' },
      { time: -1 },
      { time: '1' },
      { time: 1.5 },
      { publicKey: 'x' },
      { publicKey: [ownKey.publicKey] },
      { tunnel: `${id('t')}/x` },
      { primary: 'a b' },
      { statement: undefined },
      { statement: { version: '1', apiEndpoint: 'http://api.example.com', labels: {} } },
      { statement: { version: '1', apiEndpoint: 'https://API.example.com/', labels: {} } },
      { statement: { version: '\u001b[31m', apiEndpoint: 'https://api.example.com', labels: {} } },
      { statement: { version: '1', apiEndpoint: 'https://api.example.com', labels: { a: 1 } } },
      { statement: { version: '1', apiEndpoint: 'https://api.example.com', labels: { a: '\u202e' } } },
      { statement: { version: '1', apiEndpoint: 'https://api.example.com', labels: { a: 'x'.repeat(257) } } },
      { statement: { version: '1', apiEndpoint: 'https://api.example.com', labels: null } },
    ].map((more) => [JSON.stringify(more).slice(0, 80), `${upgrade}${helloOf(more)}\n`] as const),
  ])('%s', async (_, bytes) => {
    const admission = new OpenAdmission();
    const { listener } = await login({ admission });
    const client = await rawClient(listener.port);
    client.socket.write(bytes);
    await client.closed();
    expect(client.rest.replace(/^HTTP\/1\.1 101 .*?\r\n\r\n/s, '')).toBe('');
    await until('it is counted', () => Object.keys(listener.counts().refused).length > 0);
    expect(listener.counts().refused).toEqual({ protocol: 1 });
    expect(admission.asked).toEqual([]);
  });
});

describe('proves nothing:', () => {
  const refused = async (proof: (client: RawClient, lines: string[]) => unknown, code = 'signature') => {
    const admission = new OpenAdmission();
    const { listener } = await login({ admission });
    const client = await rawClient(listener.port);
    await proof(client, await client.hello());
    expect(await client.line()).toBeUndefined();
    await until('it is counted', () => Object.keys(listener.counts().refused).length > 0);
    expect(listener.counts().refused).toEqual({ [code]: 1 });
    expect(admission.asked).toEqual([]);
  };

  test("another cluster's key", () => refused((client, lines) => client.prove(lines, newKey())));
  test('a signature for other messages', () => refused((client, lines) => client.prove([...lines].reverse())));
  test('a warning for one network is logged once a minute, whatever it sends', async () => {
    const { listener } = await login();
    for (const cluster of ['alpha', 'beta', 'gamma']) {
      const client = await rawClient(listener.port);
      const lines = await client.hello(helloOf({ cluster }));
      client.prove([...lines].reverse());
      await client.closed();
    }
    await until('all are counted', () => listener.counts().refused.signature === 3);
    const refusals = logged.filter((line) => line.endsWith(' refused a connection for a tunnel'));
    expect(refusals.map((line) => line.split(' ', 1)[0])).toEqual(['warn', 'debug', 'debug']);
  });
  test('a signature without the last message', () => refused((client, lines) => client.prove(lines.slice(0, 2))));
  test('a signature for the other side', () =>
    refused((client, lines) => {
      const signature = sign(ownKey, transcript('login', exporterOf(client.socket), lines));
      client.write(`${JSON.stringify({ signature })}\n`);
    }));
  test("a signature with another connection's exporter", () =>
    refused((client, lines) => {
      const signature = sign(ownKey, transcript('joined', Buffer.alloc(32, 1), lines));
      client.write(`${JSON.stringify({ signature })}\n`);
    }));
  test('no signature', () => refused((client) => client.write('{}\n'), 'protocol'));
  test('a signature that is a list', () => refused((client) => client.write('{"signature":["x"]}\n'), 'protocol'));
  test('a token beyond the limit', () =>
    refused((client, lines) => client.prove(lines, ownKey, { token: 'x'.repeat(5_000) }), 'protocol'));
  test('a token of two lines', () =>
    refused((client, lines) => client.prove(lines, ownKey, { token: 'a\nb' }), 'protocol'));
});

test('a handshake that was recorded is worth nothing on another connection', async () => {
  const { listener, next } = await login();
  const client = await rawClient(listener.port);
  const lines = await client.hello();
  const signature = sign(ownKey, transcript('joined', exporterOf(client.socket), lines));
  const proof = `${JSON.stringify({ signature })}\n`;
  // The same messages, sent to the same server again, as someone could who has seen all of them in plain text.
  const again = await rawClient(listener.port);
  await again.hello(lines[0]);
  again.write(proof);
  expect(await again.line()).toBeUndefined();
  client.write(proof);
  expect(JSON.parse((await client.line()) ?? '')).toEqual({ ok: true });
  client.socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]));
  await next();
  expect(listener.counts().refused).toEqual({ signature: 1 });
});

test.each([
  ['ahead', 360_000],
  ['behind', -360_000],
])('a clock that is far %s is refused, and the other side is told', async (_, by) => {
  const admission = new OpenAdmission();
  const { listener } = await login({ admission });
  const client = await rawClient(listener.port);
  client.prove(await client.hello(helloOf({ time: Date.now() + by })));
  const answer = JSON.parse((await client.line()) ?? '');
  expect(answer).toEqual({ ok: false, code: 'clock', message: 'the clocks of the two servers are 6 minutes apart' });
  await client.closed();
  expect(admission.asked).toEqual([]);
  await until('it is logged', () => fields.some(({ code }) => code === 'clock'));
});

test('a dial to the login server of another cluster is refused', async () => {
  const { listener } = await login();
  const client = await rawClient(listener.port);
  client.prove(await client.hello(helloOf({ primary: 'other' })));
  expect(JSON.parse((await client.line()) ?? '')).toMatchObject({ ok: false, code: 'unavailable' });
});

test('a request to join without a token is refused', async () => {
  const admission = new OpenAdmission();
  const { listener } = await login({ admission });
  const client = await rawClient(listener.port);
  client.prove(await client.hello(helloOf({ kind: 'join', primary: undefined })));
  expect(JSON.parse((await client.line()) ?? '')).toMatchObject({ ok: false, code: 'rejected' });
  expect(admission.asked).toEqual([]);
});

test('a token does not make a request to join out of a dial', async () => {
  const admission = new OpenAdmission();
  const { listener } = await login({ admission });
  const client = await rawClient(listener.port);
  client.prove(await client.hello(), ownKey, { token: 'tka-join-x' });
  expect(JSON.parse((await client.line()) ?? '')).toEqual({ ok: true });
  expect(admission.asked).toEqual([expect.objectContaining({ tunnel: id('t') })]);
});

test('an admission that fails is "try again", and its error stays here', async () => {
  const admission = new OpenAdmission(() => Promise.reject(new Error('secret')));
  const { listener } = await login({ admission });
  const client = await rawClient(listener.port);
  client.prove(await client.hello());
  const answer = JSON.parse((await client.line()) ?? '');
  expect(answer).toEqual({ ok: false, code: 'unavailable', message: 'the login server cannot decide now' });
});

test.each<[string, (client: RawClient) => unknown]>([
  ['says nothing', () => {}],
  ['sends single bytes', (client) => drip(client, upgrade + helloOf())],
  ['never sends its proof', (client) => client.hello()],
  ['reads nothing', (client) => client.socket.pause()],
])('a connection that %s is closed in time', async (_, act) => {
  const { listener } = await login({ times: { handshakeMs: 2_000 } });
  const client = await rawClient(listener.port);
  act(client);
  client.socket.resume();
  await client.closed();
  await until('it is counted', () => (listener.counts().refused.timeout ?? 0) > 0);
});

function drip(client: RawClient, text: string): void {
  let at = 0;
  const timer = setInterval(() => client.write(text.charAt(at++)), 5);
  client.socket.once('close', () => clearInterval(timer));
}

test('a connection without TLS, and one with an older TLS, are closed', async () => {
  const { listener } = await login();
  const plain = connectTcp(listener.port, '127.0.0.1').on('error', () => {});
  plain.write('GET / HTTP/1.1\r\n\r\n');
  plain.resume();
  await closing(plain);
  const old = rawClient(listener.port, { maxVersion: 'TLSv1.2' });
  await expect(old).rejects.toThrow(/alert protocol version/);
  expect(listener.counts().refused).toEqual({ tls: 2 });
});

test('a connection without any byte is closed in time', async () => {
  const { listener } = await login({ times: { handshakeMs: 500 } });
  const silent = connectTcp(listener.port, '127.0.0.1').on('error', () => {});
  await closing(silent.resume());
  expect(listener.counts().refused).toEqual({ timeout: 1 });
});

test('many connections that do nothing keep no cluster out', async () => {
  const { listener, endpoint, next } = await login();
  const idle = Array.from({ length: 100 }, () => {
    const socket = connect({ port: listener.port, host: '127.0.0.1', ca: authority.ca, servername: 'localhost' });
    return socket.on('error', () => {}).resume();
  });
  await until('there are too many', () => (listener.counts().refused.crowd ?? 0) >= 60);
  joined(endpoint);
  const tunnel = await next();
  expect(tunnel.cluster).toBe('alpha');
  for (const socket of idle) socket.destroy();
});

test('a second tunnel of the same replica replaces the first, and a cluster has at most 16', async () => {
  const { listener, next, closed } = await login();
  const open = async (replica: string) => {
    const client = await rawClient(listener.port);
    client.prove(await client.hello(helloOf({ replica })));
    await client.line();
    client.socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]));
    return next();
  };
  const first = await open('tka-0');
  const second = await open('tka-0');
  expect(await closed(first)).toBe('the same replica has opened another one');
  for (let i = 1; i <= 16; i++) await open(`tka-${i}`);
  expect(await closed(second)).toBe('the cluster has more than 16');
  expect(listener.tunnels('alpha')).toHaveLength(16);
  expect(listener.tunnels('bravo')).toEqual([]);
});

test('addresses of one IPv6 network count as one', () => {
  expect(networkOf('192.0.2.1')).toBe('192.0.2.1');
  expect(networkOf('::ffff:192.0.2.1')).toBe('::ffff:192.0.2.1');
  expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64');
  expect(networkOf('2001:db8:1:2::1')).toBe('2001:db8:1:2::/64');
  expect(networkOf('fe80::1%eth0')).toBe('fe80:0:0:0::/64');
  expect(networkOf('::1')).toBe('0:0:0:0::/64');
});

test('a certificate that is renewed is used for new connections, and a damaged one is not', async () => {
  const certificates = await login({ certificateMs: 20 });
  const fingerprint = async () => {
    const client = await rawClient(certificates.listener.port);
    const print = client.socket.getPeerX509Certificate()?.fingerprint256;
    client.socket.destroy();
    expect(print).toBeTypeOf('string');
    return print;
  };
  const before = await fingerprint();
  const old = { cert: fs.readFileSync(files.certFile), key: fs.readFileSync(files.keyFile) };
  try {
    const renewed = await authority.issue('localhost');
    fs.writeFileSync(files.certFile, renewed.cert);
    await until('it is noticed', () =>
      fields.some(({ message }) => String(message).startsWith('cannot use the changed')),
    );
    expect(await fingerprint()).toBe(before);
    fs.writeFileSync(files.keyFile, renewed.key);
    await until('it is used', () =>
      fields.some(({ message }) => String(message).startsWith('uses the new certificate')),
    );
    expect(await fingerprint()).not.toBe(before);
  } finally {
    fs.writeFileSync(files.certFile, old.cert);
    fs.writeFileSync(files.keyFile, old.key);
  }
});

test.each([
  ['a missing certificate', { certFile: '/nowhere/tls.crt' }, 'federation.certFile /nowhere/tls.crt does not exist'],
  ['a file without a certificate', { certFile: files.keyFile }, 'contains no PEM certificate'],
  ['an invalid key', { keyFile: files.certFile }, 'is damaged'],
])('does not start with %s', async (_, more, message) => {
  await expect(login(more)).rejects.toThrow(message);
});
