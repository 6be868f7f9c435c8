import { beforeAll, describe, expect, it } from 'vitest';
import { openNetwork } from '../../src/network/network.ts';
import { ask, failure } from './ask.ts';
import { type Authority, makeAuthority } from './certificates.ts';
import { echo, listen, oddServer, socksProxy } from './servers.ts';

const name = 'tka.example.ts.net';
const https = `https://${name}`;
const http = `http://${name}:8080`;
let authority: Authority;
let caFile: string;
let knows: Record<string, number>;

beforeAll(async () => {
  authority = await makeAuthority();
  caFile = authority.file;
  const secure = await listen(echo(await authority.issue(name)));
  const plain = await listen(echo());
  knows = {
    [`${name}:443`]: secure.port,
    '100.64.0.7:443': secure.port,
    '100.64.0.7:8080': plain.port,
    'fd7a:115c:a1e0:0000:0000:0000:0000:0007:443': secure.port,
    '2001:0db8:0001:0002:0003:0004:0a00:0001:443': secure.port,
  };
});

const tailnetAddresses = async () => ['100.64.0.7', 'fd7a:115c:a1e0::7'];

describe('a SOCKS5 proxy', () => {
  it.each(['socks5', 'socks5h', 'SOCKS5'])('gets the name with %s://', async (scheme) => {
    const proxy = await socksProxy({ knows });
    // Only the proxy itself may use a resolver.
    const lookup = () => Promise.reject(new Error('asked'));
    const env = { ALL_PROXY: `${scheme}://127.0.0.1:${proxy.port}` };
    expect(await ask(https, { env, caFile, lookup })).toMatchObject({ sni: name, host: name });
    expect(proxy.asked).toEqual([`3 ${name}:443`]);
  });

  it('gets addresses as addresses', async () => {
    const proxy = await socksProxy({ knows });
    const env = { HTTPS_PROXY: `socks5://localhost:${proxy.port}` };
    for (const host of ['100.64.0.7', '[fd7a:115c:a1e0::7]', '[2001:db8:1:2:3:4:10.0.0.1]']) {
      await ask(`https://${host}`, { env, insecure: true });
    }
    expect(proxy.asked).toEqual([
      '1 100.64.0.7:443',
      '4 fd7a:115c:a1e0:0000:0000:0000:0000:0007:443',
      '4 2001:0db8:0001:0002:0003:0004:0a00:0001:443',
    ]);
  });

  it.each([1, 3, 4] as const)('may report its own address with address type %i, one byte at a time', async (bound) => {
    const login = { user: 'me', password: 'pässword' };
    const proxy = await socksProxy({ knows, bound, drip: true, login });
    const env = { ALL_PROXY: `socks5://me:p%C3%A4ssword@127.0.0.1:${proxy.port}` };
    expect(await ask(https, { env, caFile })).toMatchObject({ sni: name });
  });

  it('carries plain http to the tailnet address', async () => {
    const proxy = await socksProxy({ knows });
    const env = { HTTP_PROXY: `socks5://127.0.0.1:${proxy.port}` };
    expect(await ask(http, { env, tailnetAddresses })).toMatchObject({ host: `${name}:8080` });
    expect(proxy.asked).toEqual(['1 100.64.0.7:8080']);
  });

  it('carries plain http nowhere else', async () => {
    const proxy = await socksProxy({ knows });
    const env = { HTTP_PROXY: `socks5://127.0.0.1:${proxy.port}` };
    expect((await failure(http, { env })).message).toBe(
      `${http} is neither on this machine nor on the tailnet, so plain http is not allowed`,
    );
    expect(proxy.asked).toEqual([]);
  });

  it('may ignore the credentials it is given', async () => {
    const proxy = await socksProxy({ knows });
    await ask(https, { env: { ALL_PROXY: `socks5://me:secret@127.0.0.1:${proxy.port}` }, caFile });
  });

  it.each([1, 3, 4])('that replies %i to a name is asked for the tailnet address', async (unknown) => {
    const { [`${name}:443`]: _, ...others } = knows;
    const proxy = await socksProxy({ knows: others, unknown });
    const env = { ALL_PROXY: `socks5://127.0.0.1:${proxy.port}` };
    expect(await ask(https, { env, caFile, tailnetAddresses })).toMatchObject({ sni: name, host: name });
    expect(proxy.asked).toEqual([`3 ${name}:443`, '1 100.64.0.7:443']);
  });

  it.each([2, 5, 6, 7, 8])('that replies %i is not asked again', async (unknown) => {
    const proxy = await socksProxy({ knows: {}, unknown });
    await failure(https, { env: { ALL_PROXY: `socks5://127.0.0.1:${proxy.port}` }, tailnetAddresses });
    expect(proxy.asked).toEqual([`3 ${name}:443`]);
  });
});

describe('a SOCKS5 proxy that fails', () => {
  it.each([
    [1, 'failed to connect to tka.example.ts.net:443 (SOCKS reply 1)'],
    [2, 'is not allowed to connect to tka.example.ts.net:443 (SOCKS reply 2)'],
    [3, 'has no network route to tka.example.ts.net:443 (SOCKS reply 3)'],
    [4, 'cannot reach tka.example.ts.net:443 (SOCKS reply 4)'],
    [5, 'was refused a connection to tka.example.ts.net:443 (SOCKS reply 5)'],
    [6, 'has too many hops to tka.example.ts.net:443 (SOCKS reply 6)'],
    [7, 'does not support CONNECT to tka.example.ts.net:443 (SOCKS reply 7)'],
    [8, 'does not support the address type of tka.example.ts.net:443 (SOCKS reply 8)'],
    [99, 'answered with the unknown code 99 for tka.example.ts.net:443 (SOCKS reply 99)'],
  ])('by replying %i', async (unknown, what) => {
    const { port } = await socksProxy({ knows: {}, unknown });
    const error = await failure(https, { env: { ALL_PROXY: `socks5://127.0.0.1:${port}` } });
    expect(error).toMatchObject({ name: 'Unavailable', message: `the proxy socks5://127.0.0.1:${port} ${what}` });
    expect(error.hints).toEqual(['the proxy comes from ALL_PROXY; to bypass it, use NO_PROXY']);
  });

  it('by requiring credentials, or other ones', async () => {
    const { port } = await socksProxy({ knows, login: { user: 'me', password: 'secret' } });
    const none = await failure(https, { env: { ALL_PROXY: `socks5://127.0.0.1:${port}` } });
    expect(none.message).toBe(`the proxy socks5://127.0.0.1:${port} requires credentials`);
    expect(none.hints).toEqual(['set them in ALL_PROXY: socks5://USER:PASSWORD@HOST:PORT']);
    const wrong = await failure(https, { env: { ALL_PROXY: `socks5://me:wr0ng@127.0.0.1:${port}` } });
    expect(wrong.message).toBe(`the proxy socks5://127.0.0.1:${port} rejected the user name and password`);
    const long = await failure(https, { env: { ALL_PROXY: `socks5://me:${'x'.repeat(256)}@127.0.0.1:${port}` } });
    expect(long.message).toContain('accepts user names of 1 to 255 bytes');
    const nameless = await failure(https, { env: { ALL_PROXY: `socks5://:x@127.0.0.1:${port}` } });
    expect(nameless.message).toContain('accepts user names of 1 to 255 bytes');
  });

  it.each([
    ['HTTP/1.1 400 Bad Request\r\n\r\n', 'does not speak SOCKS5'],
    ['\u0004\u0000', 'does not speak SOCKS5'],
    ['\u0005\u0000\u0004\u0000\u0000\u0001', 'does not speak SOCKS5'],
    ['\u0005\u0000\u0005\u0000\u0000\u0009abcdefgh', 'does not speak SOCKS5'],
    ['\u0005\u0001', 'requires credentials'],
    ['\u0005\u0002', 'requires credentials'],
    ['\u0005', 'closed the connection'],
    ['\u0005\u0000\u0005\u0000', 'closed the connection'],
    ['\u0005\u0000\u0005\u0000\u0000\u0003\u0005ab', 'closed the connection'],
    ['', 'closed the connection'],
  ])('by answering %j', async (text, what) => {
    const { port, connections } = await oddServer(Buffer.from(text, 'latin1'));
    const error = await failure(https, { env: { ALL_PROXY: `socks5://127.0.0.1:${port}` } });
    expect(error.message).toBe(`the proxy socks5://127.0.0.1:${port} ${what}`);
    await connections(0);
  });

  it.each(['', '\u0005', '\u0005\u0000', '\u0005\u0000\u0005\u0000\u0000\u0001'])(
    'by staying silent after %j',
    async (text) => {
      const { port, connections } = await oddServer(Buffer.from(text, 'latin1'), 'stay');
      const error = await failure(https, { env: { ALL_PROXY: `socks5://127.0.0.1:${port}` }, connectTimeout: 120 });
      expect(error.message).toBe(`the proxy socks5://127.0.0.1:${port} did not connect to ${name}:443 within 0.1 s`);
      await connections(0);
    },
  );

  it('is disconnected when the client is destroyed during the handshake', async () => {
    const silent = await oddServer('\u0005', 'stay');
    const env = { ALL_PROXY: `socks5://127.0.0.1:${silent.port}` };
    const client = openNetwork({ env }).client(https, { connectTimeout: 60_000 });
    const asked = client.request({ method: 'GET', path: '/' }).catch((error) => error);
    await silent.connections(1);
    await client.destroy();
    expect(await asked).toMatchObject({ code: 'ERR_CLIENT_DESTROYED' });
    await silent.connections(0);
  });

  it('for a name that is too long for its protocol', async () => {
    const { port } = await socksProxy({ knows });
    const long = `https://${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(60)}.${'e'.repeat(60)}`;
    const error = await failure(long, { env: { ALL_PROXY: `socks5://127.0.0.1:${port}` } });
    expect(error.message).toContain('accepts names of up to 255 bytes');
  });
});

describe('an invalid proxy variable', () => {
  it.each([
    ['socks4://u:s3cret@127.0.0.1:1080', 'names a proxy of the kind socks4, which is not supported'],
    ['socks://127.0.0.1:1080/', 'names a proxy of the kind socks, which is not supported'],
    ['ftp://127.0.0.1', 'names a proxy of the kind ftp, which is not supported'],
    ['constructor://127.0.0.1', 'names a proxy of the kind constructor, which is not supported'],
    ['u:s3cret://127.0.0.1', 'names a proxy of an unknown kind, which is not supported'],
    ['://x', 'names a proxy of an unknown kind, which is not supported'],
    ['http://', 'is not a proxy URL'],
    ['socks5://', 'is not a proxy URL'],
    ['http://me:s3c#ret@127.0.0.1:3128', 'is not a proxy URL'],
    ['http://me:s3c%ret@127.0.0.1:3128', 'is not a proxy URL'],
    ['127.0.0.1:port', 'is not a proxy URL'],
    ['socks5://127.0.0.1:99999', 'is not a proxy URL'],
  ])('%j', async (value, what) => {
    const error = await failure(https, { env: { ALL_PROXY: value } });
    expect(error).toMatchObject({ name: 'TkaError', message: `ALL_PROXY ${what}` });
    expect(error.hints?.join(' ')).toContain('ALL_PROXY');
    expect(JSON.stringify([error.message, error.hints, error.stack, error.cause])).not.toMatch(/s3c/);
    await expect(openNetwork({ env: { ALL_PROXY: value } }).route(https)).rejects.toThrow(what);
  });

  it('is ignored if no proxy is used', async () => {
    const plain = await listen(echo());
    await ask(`http://127.0.0.1:${plain.port}`, { env: { ALL_PROXY: 'socks4://x', HTTPS_PROXY: '%' } });
  });
});
