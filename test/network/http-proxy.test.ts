import { beforeAll, describe, expect, it } from 'vitest';
import { openNetwork } from '../../src/network/network.ts';
import { ask, failure } from './ask.ts';
import { type Authority, makeAuthority } from './certificates.ts';
import { closedPort, echo, type HttpProxy, httpProxy, type Listening, listen, oddServer } from './servers.ts';

const name = 'tka.example.ts.net';
const https = `https://${name}`;
const http = `http://${name}:8080`;
let authority: Authority;
let secure: Listening;
let knows: Record<string, number>;
let caFile: string;

beforeAll(async () => {
  authority = await makeAuthority();
  caFile = authority.file;
  secure = await listen(echo(await authority.issue(name)));
  const plain = await listen(echo());
  knows = {
    [`${name}:443`]: secure.port,
    '100.64.0.7:443': secure.port,
    '[fd7a:115c:a1e0::7]:443': secure.port,
    '100.64.0.7:8080': plain.port,
    '[fd7a:115c:a1e0::7]:8080': plain.port,
    '203.0.113.7:8080': plain.port,
    [`${name}:8080`]: plain.port,
  };
});

const lookup = async (host: string) => {
  if (host === 'proxy.test') return [{ address: '127.0.0.1', family: 4 }];
  throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: 'ENOTFOUND' });
};
const tailnetAddresses = async () => ['100.64.0.7', 'fd7a:115c:a1e0::7'];
const nobody = async () => undefined;

describe('https', () => {
  it.each([
    ['HTTPS_PROXY', 'http://127.0.0.1:PORT'],
    ['https_proxy', 'http://127.0.0.1:PORT/'],
    ['ALL_PROXY', '127.0.0.1:PORT'],
    ['all_proxy', 'HTTP://proxy.test:PORT'],
  ])('goes through a tunnel to the name with %s=%s', async (variable, value) => {
    const proxy = await httpProxy({ knows });
    const env = { [variable]: value.replace('PORT', String(proxy.port)) };
    expect(await ask(https, { env, caFile, lookup })).toMatchObject({ sni: name, host: name, url: '/x' });
    expect(proxy.asked).toEqual([`CONNECT ${name}:443`]);
    await proxy.connections(0);
  });

  it('does not use HTTP_PROXY, nor any proxy if NO_PROXY names the host', async () => {
    const proxy = await httpProxy({ knows });
    const value = `127.0.0.1:${proxy.port}`;
    const direct = { caFile, lookup: async () => [{ address: '127.0.0.1', family: 4 }] };
    const origin = `${https}:${secure.port}`;
    await ask(origin, { env: { HTTP_PROXY: value }, ...direct });
    await ask(origin, { env: { ALL_PROXY: value, NO_PROXY: '.ts.net' }, ...direct });
    await ask(origin, { env: { ALL_PROXY: value, no_proxy: '.ts.net' }, ...direct });
    await ask(origin, { env: { HTTPS_PROXY: '', https_proxy: ' ' }, ...direct });
    expect(proxy.asked).toEqual([]);
  });

  it('sends the proxy its credentials, decoded', async () => {
    const proxy = await httpProxy({ knows, login: 'al ice:p@ss:wörd' });
    const env = { HTTPS_PROXY: `http://al%20ice:p%40ss%3Aw%C3%B6rd@127.0.0.1:${proxy.port}` };
    expect(await ask(https, { env, caFile })).toMatchObject({ sni: name });
  });

  it('checks the name of the server, not that of the proxy', async () => {
    const proxy = await httpProxy({ knows: { 'other.example.ts.net:443': secure.port } });
    const env = { HTTPS_PROXY: `127.0.0.1:${proxy.port}` };
    const error = await failure('https://other.example.ts.net', { env, caFile });
    expect(error).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('verifies an API server by its own CA only, through a proxy of another CA', async () => {
    const other = await makeAuthority();
    const tls = await other.issue('proxy.test');
    const proxy = await httpProxy({ knows, tls });
    const env = { HTTPS_PROXY: `https://proxy.test:${proxy.port}` };
    expect(await ask(https, { env, lookup, caFile: other.file, ca: authority.ca })).toMatchObject({ sni: name });
    await proxy.connections(0);
    expect(await failure(https, { env, lookup, caFile: other.file })).toMatchObject({
      code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    });
    expect(await failure(https, { env, lookup, insecure: true })).toMatchObject({
      message: expect.stringMatching(
        /^cannot reach the proxy https:\/\/proxy\.test:\d+: TLS handshake failed: unable to verify/,
      ),
    });
  });

  it('refuses a TLS proxy with a certificate for another name', async () => {
    const proxy = await httpProxy({ knows, tls: await authority.issue('other.test') });
    const error = await failure(https, { env: { ALL_PROXY: `https://proxy.test:${proxy.port}` }, lookup, caFile });
    expect(error.message).toMatch(/^cannot reach the proxy .*: TLS handshake failed: hostname\/IP/);
    expect(proxy.asked).toEqual([]);
  });

  it.each([
    ['502 Bad Gateway', ''],
    ['503 Service Unavailable', ''],
    ['504 Gateway Timeout', ''],
    ['500 Internal Server Error', 'Tailscale-Connect-Error: lookup tka.example.ts.net: no such host\r\n'],
  ])('asks for the tailnet address if the proxy answers %s', async (status, header) => {
    const { [`${name}:443`]: _, ...others } = knows;
    const proxy = await httpProxy({ knows: others, unknown: `HTTP/1.1 ${status}\r\n${header}\r\n` });
    const env = { HTTPS_PROXY: `127.0.0.1:${proxy.port}` };
    expect(await ask(https, { env, caFile, tailnetAddresses })).toMatchObject({ sni: name, host: name });
    expect(proxy.asked).toEqual([`CONNECT ${name}:443`, 'CONNECT 100.64.0.7:443']);
  });

  it('asks for the tailnet address once, and checks the name there', async () => {
    const proxy = await httpProxy({ knows: {} });
    const env = { HTTPS_PROXY: `127.0.0.1:${proxy.port}` };
    const error = await failure(https, { env, caFile, tailnetAddresses });
    expect(error.message).toBe(
      `the proxy http://127.0.0.1:${proxy.port} answered HTTP 502 Bad Gateway to CONNECT 100.64.0.7:443`,
    );
    expect(proxy.asked).toHaveLength(2);
    const wrong = await httpProxy({ knows: { '100.64.0.7:443': secure.port } });
    const evil = { env: { HTTPS_PROXY: `127.0.0.1:${wrong.port}` }, caFile, tailnetAddresses };
    expect(await failure('https://evil.example.ts.net', evil)).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('asks for an IPv6 address in brackets', async () => {
    const proxy = await httpProxy({ knows });
    const env = { HTTPS_PROXY: `127.0.0.1:${proxy.port}` };
    await ask('https://[fd7a:115c:a1e0::7]', { env, insecure: true });
    expect(proxy.asked).toEqual(['CONNECT [fd7a:115c:a1e0::7]:443']);
  });
});

describe('plain http', () => {
  it.each(['HTTP_PROXY', 'http_proxy', 'ALL_PROXY'])('through %s asks for the tailnet address', async (variable) => {
    const proxy = await httpProxy({ knows });
    const answer = await ask(http, { env: { [variable]: `127.0.0.1:${proxy.port}` }, tailnetAddresses });
    expect(answer).toMatchObject({ host: `${name}:8080`, url: '/x' });
    expect(proxy.asked).toEqual(['CONNECT 100.64.0.7:8080']);
  });

  it('asks for a tailnet address unchanged', async () => {
    const proxy = await httpProxy({ knows });
    const env = { HTTP_PROXY: `127.0.0.1:${proxy.port}` };
    await ask('http://100.64.0.7:8080', { env });
    await ask('http://[fd7a:115c:a1e0::7]:8080', { env });
    expect(proxy.asked).toEqual(['CONNECT 100.64.0.7:8080', 'CONNECT [fd7a:115c:a1e0::7]:8080']);
  });

  it.each([
    ['a name that is not in the tailnet', http, nobody],
    ['a name with a public address', http, async () => ['203.0.113.7']],
    ['a public address', 'http://203.0.113.7:8080', tailnetAddresses],
  ])('is refused to %s, without a request to the proxy', async (_, origin, said) => {
    const proxy = await httpProxy({ knows });
    const error = await failure(origin, { env: { HTTP_PROXY: `127.0.0.1:${proxy.port}` }, tailnetAddresses: said });
    expect(error.message).toBe(`${origin} is neither on this machine nor on the tailnet, so plain http is not allowed`);
    expect(proxy.asked).toEqual([]);
  });

  it.each(['403 Forbidden', '405 Method Not Allowed', '501 Not Implemented'])(
    'fails if CONNECT is answered %s, with a hint',
    async (status) => {
      const proxy = await httpProxy({ knows, refuses: `HTTP/1.1 ${status}\r\n\r\n` });
      const error = await failure(http, { env: { HTTP_PROXY: `127.0.0.1:${proxy.port}` }, tailnetAddresses });
      expect(error).toMatchObject({
        name: 'Unavailable',
        patience: 0,
        message: `the proxy http://127.0.0.1:${proxy.port} answered HTTP ${status} to CONNECT 100.64.0.7:8080`,
        hints: [`allow CONNECT to port 8080 on the proxy, or list ${name} in NO_PROXY`],
      });
      expect(proxy.asked).toEqual(['CONNECT 100.64.0.7:8080']);
      await proxy.connections(0);
    },
  );

  it('goes directly to this machine', async () => {
    const plain = await listen(echo());
    const env = { HTTP_PROXY: '127.0.0.1:1', ALL_PROXY: '127.0.0.1:1' };
    expect(await ask(`http://localhost:${plain.port}`, { env })).toMatchObject({ url: '/x' });
    expect(await ask(`http://127.0.0.1:${plain.port}`, { env })).toMatchObject({ url: '/x' });
  });

  it('ignores HTTP_PROXY in a CGI program', async () => {
    const proxy = await httpProxy({ knows });
    const REQUEST_METHOD = 'GET';
    const spared = openNetwork({ env: { HTTP_PROXY: `127.0.0.1:1`, REQUEST_METHOD } });
    expect(await spared.route(http)).toBeUndefined();
    const env = { HTTP_PROXY: '127.0.0.1:1', http_proxy: `127.0.0.1:${proxy.port}`, REQUEST_METHOD };
    await ask(http, { env, tailnetAddresses });
    expect(proxy.asked).toHaveLength(1);
  });
});

describe('a proxy that fails', () => {
  const through = (port: number, more = {}) => ({ env: { HTTPS_PROXY: `http://u:s3cret@127.0.0.1:${port}` }, ...more });

  it('is reported as the proxy, not the server', async () => {
    const port = await closedPort();
    const error = await failure(https, through(port));
    expect(error).toMatchObject({
      name: 'Unavailable',
      patience: 1000,
      message: `cannot reach the proxy http://127.0.0.1:${port}: connection refused`,
      hints: ['check the proxy in HTTPS_PROXY'],
    });
  });

  it('because its name does not resolve', async () => {
    const error = await failure(https, { env: { ALL_PROXY: 'http://u:s3cret@nowhere.test:3128' }, lookup });
    expect(error.message).toBe('cannot reach the proxy http://nowhere.test:3128: the name does not resolve');
  });

  it('by requiring credentials', async () => {
    const { port } = await httpProxy({ knows, login: 'me:secret' });
    const none = await failure(https, { env: { HTTPS_PROXY: `127.0.0.1:${port}` } });
    expect(none.message).toBe(`the proxy http://127.0.0.1:${port} requires credentials (HTTP 407)`);
    expect(none.hints).toEqual(['set them in HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT']);
    const wrong = await failure(https, through(port));
    expect(wrong.message).toBe(`the proxy http://127.0.0.1:${port} rejected the user name and password (HTTP 407)`);
  });

  it.each([
    ['HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\nno', 'answered HTTP 403 Forbidden to CONNECT tka.example.ts.net:443'],
    ['HTTP/1.0 502\r\n\r\n', 'answered HTTP 502 to CONNECT tka.example.ts.net:443'],
    [
      'HTTP/1.1 301 Go\u001b[2J\u0007ne\r\nLocation: x\r\n\r\n',
      'answered HTTP 301 Go [2J ne to CONNECT tka.example.ts.net:443',
    ],
    [
      'HTTP/1.1 500 Internal Server Error\r\ntailscale-connect-error: no route\u0007\r\n\r\n',
      'answered HTTP 500 Internal Server Error to CONNECT tka.example.ts.net:443: no route',
    ],
    [
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\n\r\n',
      'answered HTTP 400 Bad to CONNECT tka.example.ts.net:443',
    ],
    ['SSH-2.0-OpenSSH_9.2\r\n\r\n', 'does not speak HTTP'],
    ['HTTP/2 200\r\n\r\n', 'does not speak HTTP'],
    ['HTTP/1.1 2000 OK\r\n\r\n', 'does not speak HTTP'],
    ['HTTP/1.1 200 OK\r\nA: b', 'closed the connection'],
    ['\r\n\r\n', 'does not speak HTTP'],
    ['', 'closed the connection'],
    [`HTTP/1.1 200 OK\r\nA: ${'b'.repeat(70_000)}`, 'sent a response that is too long'],
  ])('by answering %j', async (text, what) => {
    const { port, connections } = await oddServer(Buffer.from(text, 'latin1'));
    const error = await failure(https, through(port));
    expect(error.message).toBe(`the proxy http://127.0.0.1:${port} ${what}`);
    expect(error.hints).toEqual(['the proxy comes from HTTPS_PROXY; to bypass it, use NO_PROXY']);
    expect(error.name).toBe('Unavailable');
    await connections(0);
  });

  it.each(['', 'HTTP/1.1 200', 'HTTP/1.1 100 Continue\r\n\r\n'])('by staying silent after %j', async (text) => {
    const { port, connections } = await oddServer(text, 'stay');
    const error = await failure(https, through(port, { connectTimeout: 120 }));
    expect(error.message).toBe(`the proxy http://127.0.0.1:${port} did not connect to ${name}:443 within 0.1 s`);
    await connections(0);
  });

  it('by staying silent during TLS', async () => {
    const { port, connections } = await oddServer('', 'stay');
    const error = await failure(https, { env: { ALL_PROXY: `https://127.0.0.1:${port}` }, connectTimeout: 120 });
    expect(error.message).toBe(`cannot reach the proxy https://127.0.0.1:${port}: no answer within 0.1 s`);
    await connections(0);
  });

  it('by opening a tunnel over TLS and closing it', async () => {
    const proxy = await httpProxy({
      knows,
      tls: await authority.issue('proxy.test'),
      refuses: 'HTTP/1.1 200 OK\r\n\r\n',
    });
    const error = await failure(https, { env: { ALL_PROXY: `https://proxy.test:${proxy.port}` }, lookup, caFile });
    expect(error).toMatchObject({ code: 'ECONNRESET' });
    await proxy.connections(0);
  });

  it('by opening a tunnel and closing it', async () => {
    const { port } = await oddServer('HTTP/1.1 200 OK\r\n\r\n');
    expect(await failure(https, through(port))).toMatchObject({ code: 'ECONNRESET' });
  });

  it('by sending its own text through the tunnel', async () => {
    const { port } = await oddServer('HTTP/1.1 200 OK\r\n\r\nhello, this is no TLS');
    expect(await failure(https, through(port))).toMatchObject({ code: expect.stringMatching(/SSL|TLS/) });
  });

  it('is disconnected when the client is destroyed during the handshake', async () => {
    const silent = await oddServer('HTTP/1.1 200', 'stay');
    const client = openNetwork(through(silent.port)).client(https, { connectTimeout: 60_000 });
    const asked = client.request({ method: 'GET', path: '/' }).catch((error) => error);
    await silent.connections(1);
    await client.destroy();
    expect(await asked).toMatchObject({ code: 'ERR_CLIENT_DESTROYED' });
    await silent.connections(0);
  });

  it('does not reveal its password', async () => {
    const lines: string[] = [];
    const proxy: HttpProxy = await httpProxy({ knows });
    const network = openNetwork({ ...through(proxy.port), log: (line) => lines.push(line) });
    expect(await network.route(https)).toEqual({ proxy: `http://127.0.0.1:${proxy.port}`, variable: 'HTTPS_PROXY' });
    const error = await failure(
      https,
      through(proxy.port, { caFile: '/nowhere', log: (line: string) => lines.push(line) }),
    );
    expect(lines).toEqual([`${https} is spoken to through the proxy http://127.0.0.1:${proxy.port} (HTTPS_PROXY)`]);
    expect(JSON.stringify([error.message, error.hints, error.stack])).not.toContain('s3cret');
  });
});
