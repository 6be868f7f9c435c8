// Connections without a proxy: names, addresses, certificates and refusals.
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import type { TLSSocket } from 'node:tls';
import { beforeAll, describe, expect, it } from 'vitest';
import { openNetwork } from '../../src/network/network.ts';
import type { OnStep } from '../../src/network/steps.ts';
import { ask, failure } from './ask.ts';
import { type Authority, makeAuthority } from './certificates.ts';
import { closedPort, echo, type Listening, listen, oddServer } from './servers.ts';

const name = 'tka.example.ts.net';
let authority: Authority;
let secure: Listening;
let plain: Listening;
let plain6: Listening;

beforeAll(async () => {
  authority = await makeAuthority();
  secure = await listen(echo(await authority.issue(name, '*.wild.example.ts.net')));
  plain = await listen(echo());
  plain6 = await listen(echo(), '::1');
});

const finds = (...addresses: string[]) => ({
  lookup: async () => addresses.map((address) => ({ address, family: net.isIP(address) })),
});
const findsNothing = (code = 'ENOTFOUND') => ({
  lookup: async (host: string) => {
    throw Object.assign(new Error(`getaddrinfo ${code} ${host}`), { code });
  },
});
const tailnetSays = (...addresses: string[]) => ({ tailnetAddresses: async () => addresses });

describe('names', () => {
  it('connects by name over TLS, whatever address the name has', async () => {
    const answer = await ask(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile: authority.file });
    expect(answer).toMatchObject({ sni: name, host: `${name}:${secure.port}`, httpVersion: '1.1', url: '/x' });
  });

  it.each(['ENOTFOUND', 'EAI_AGAIN'])('asks the tailnet once for a name if the resolver returns %s', async (code) => {
    const asked: string[] = [];
    const answer = await ask(`https://${name}:${secure.port}`, {
      ...findsNothing(code),
      tailnetAddresses: async (host) => {
        asked.push(host);
        return ['127.0.0.1'];
      },
      caFile: authority.file,
    });
    expect(answer.sni).toBe(name);
    expect(asked).toEqual([name]);
  });

  it('waits for a slow resolver if the tailnet does not know the name', async () => {
    const asked = Promise.withResolvers<void>();
    const answer = await ask(`https://${name}:${secure.port}`, {
      lookup: async () => {
        await asked.promise;
        return [{ address: '127.0.0.1', family: 4 }];
      },
      tailnetAddresses: async () => {
        asked.resolve();
        return undefined;
      },
      caFile: authority.file,
    });
    expect(answer.sni).toBe(name);
  });

  const never = async () => {
    throw new Error('asked');
  };

  it.each([
    ['under ts.net', name, undefined],
    ['under the tailnet’s suffix', 'tka.tail.example.com', 'tail.example.com'],
  ])('asks tailscaled, not the resolver, for a name %s', async (_, host, suffix) => {
    const target = await listen(echo(await authority.issue(host)));
    const answer = await ask(`https://${host}:${target.port}`, {
      ...tailnetSays('127.0.0.1'),
      tailnetSuffix: async () => suffix,
      lookup: never,
      caFile: authority.file,
    });
    expect(answer.sni).toBe(host);
  });

  it('asks the resolver for a name of a tailnet that tailscaled does not know', async () => {
    const known = { ...tailnetSays(), ...finds('127.0.0.1'), caFile: authority.file };
    expect((await ask(`https://${name}:${secure.port}`, known)).sni).toBe(name);
    const silent = { ...known, tailnetAddresses: async () => undefined };
    expect((await ask(`https://${name}:${secure.port}`, silent)).sni).toBe(name);
  });

  it.each([
    ['without a tailnet', async () => undefined],
    ['with a tailnet of another name', async () => 'example.com'],
    ['with a failing tailscaled', async () => Promise.reject(new Error('no tailscaled'))],
  ])('does not ask tailscaled for another name that resolves (%s)', async (_, tailnetSuffix) => {
    const host = 'tka.otherexample.com';
    const target = await listen(echo(await authority.issue(host)));
    const options = { ...finds('127.0.0.1'), tailnetAddresses: never, tailnetSuffix, caFile: authority.file };
    const lines: string[] = [];
    await ask(`https://${host}:${target.port}`, { ...options, log: (line) => lines.push(line) });
    expect(lines).toEqual([]);
  });

  it('does not ask the tailnet for localhost', async () => {
    expect(await ask(`http://localhost:${plain.port}`, { tailnetAddresses: never })).toMatchObject({ url: '/x' });
  });

  it('asks tailscaled for another name that does not resolve', async () => {
    const host = 'tka.otherexample.com';
    const target = await listen(echo(await authority.issue(host)));
    const options = { ...findsNothing(), ...tailnetSays('127.0.0.1'), caFile: authority.file };
    expect((await ask(`https://${host}:${target.port}`, options)).sni).toBe(host);
  });

  it.each([
    ['does not know the name', async () => undefined],
    ['knows no address', async () => []],
    ['returns nonsense', async () => ['tka', '']],
    ['fails', async () => Promise.reject(new Error('no tailscaled'))],
  ])('reports a name that does not resolve if the tailnet %s', async (_, tailnetAddresses) => {
    const error = await failure(`https://${name}`, { ...findsNothing(), tailnetAddresses });
    expect(error).toMatchObject({ code: 'ENOTFOUND' });
  });

  it('reports a name that does not resolve if the resolver returns an empty list', async () => {
    expect(await failure(`https://${name}`, finds())).toMatchObject({ code: 'ENOTFOUND' });
  });

  it('accepts a trailing dot, an international name and IPv6', async () => {
    const trust = { ...finds('127.0.0.1'), caFile: authority.file };
    expect(await ask(`https://${name}.:${secure.port}`, trust)).toMatchObject({ sni: name });
    const idn = await listen(echo(await authority.issue('xn--bcher-kva.example')));
    expect(await ask(`https://bücher.example:${idn.port}`, trust)).toMatchObject({ sni: 'xn--bcher-kva.example' });
    const answer = await ask(`http://[::1]:${plain6.port}`);
    expect(answer.host).toBe(`[::1]:${plain6.port}`);
  });
});

describe('certificates', () => {
  it('are passed to the caller', async () => {
    const seen: string[] = [];
    const onStep: OnStep = (done) => {
      if (done.step === 'open') seen.push((done.socket as TLSSocket).getPeerX509Certificate()?.subjectAltName ?? '');
    };
    const trust = { ...finds('127.0.0.1'), caFile: authority.file };
    await ask(`https://${name}:${secure.port}`, { ...trust, onStep });
    expect(seen).toEqual([expect.stringContaining(`DNS:${name}`)]);
  });

  it('of another name are refused, even at the right address', async () => {
    const origin = `https://other.example.ts.net:${secure.port}`;
    const error = await failure(origin, { ...findsNothing(), ...tailnetSays('127.0.0.1'), caFile: authority.file });
    expect(error).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('of a name are refused for a bare address', async () => {
    const error = await failure(`https://127.0.0.1:${secure.port}`, { caFile: authority.file });
    expect(error).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('of an unknown authority are refused', async () => {
    expect(await failure(`https://${name}:${secure.port}`, finds('127.0.0.1'))).toMatchObject({
      code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    });
  });

  it('of an API server are verified by its CA only', async () => {
    const origin = `https://${name}:${secure.port}`;
    expect(await ask(origin, { ...finds('127.0.0.1'), ca: authority.ca })).toMatchObject({ sni: name });
    const other = await makeAuthority();
    const error = await failure(origin, { ...finds('127.0.0.1'), ca: other.ca, caFile: authority.file });
    expect(error).toMatchObject({ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    expect(await ask(origin, { ...finds('127.0.0.1'), insecure: true })).toMatchObject({ sni: name });
  });

  it('caFile adds to the default authorities', async () => {
    const other = await makeAuthority();
    const file = path.join(path.dirname(authority.file), 'two.pem');
    fs.writeFileSync(file, `# two of them\n${other.ca}\n${authority.ca}`);
    expect(await ask(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile: file })).toBeDefined();
  });

  it.each([
    ['is missing', undefined, 'does not exist'],
    ['is not PEM', 'hello', 'contains no PEM certificate'],
    ['is a key', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', 'contains no PEM certificate'],
    [
      'is damaged',
      '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      'is damaged: certificate 1 cannot be read',
    ],
  ])('a caFile that %s is an error', async (_, content, why) => {
    const file = path.join(path.dirname(authority.file), 'bad.pem');
    fs.rmSync(file, { force: true });
    if (content !== undefined) fs.writeFileSync(file, content);
    const error = await failure(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile: file });
    expect(error).toMatchObject({ name: 'TkaError', message: `tls.caFile ${file} ${why}` });
  });

  it('a caFile that is a folder is an error', async () => {
    const caFile = path.dirname(authority.file);
    const error = await failure(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile });
    expect(error.message).toBe(`tls.caFile ${caFile} cannot be read (EISDIR)`);
  });
});

describe('plain http', () => {
  const refusal = (origin: string) =>
    `${origin} is neither on this machine nor on the tailnet, so plain http is not allowed`;

  it('is allowed to this machine', async () => {
    expect(await ask(`http://127.0.0.1:${plain.port}`)).toMatchObject({ url: '/x' });
    expect(await ask(`http://localhost:${plain.port}`)).toMatchObject({ host: `localhost:${plain.port}` });
  });

  it.each(['http://8.8.8.8', 'http://10.0.0.1:8080', 'http://[2001:db8::1]', 'http://0.0.0.0'])(
    'is refused to %s',
    async (origin) => {
      const error = await failure(origin);
      expect(error.message).toBe(refusal(origin));
      expect(error.hints?.[0]).toBe(`use https: ${origin.replace('http:', 'https:')}`);
    },
  );

  it('is refused to a name with public addresses', async () => {
    const origin = `http://${name}:${plain.port}`;
    expect((await failure(origin, finds('203.0.113.7', '2001:db8::1'))).message).toBe(refusal(origin));
  });

  it('goes to the tailnet’s address, whatever a resolver returns', async () => {
    const origin = `http://${name}:${plain6.port}`;
    // The server at the resolver's address would refuse.
    expect(await ask(origin, { ...finds('127.0.0.1'), ...tailnetSays('::1') })).toMatchObject({ url: '/x' });
    const unknown = await failure(`http://${name}:${plain.port}`, { ...finds('127.0.0.1'), ...tailnetSays() });
    expect(unknown).toMatchObject({ code: 'ENOTFOUND' });
    // A name outside the tailnet may be a name of this machine.
    const other = { ...finds('127.0.0.1'), tailnetAddresses: async () => undefined };
    expect(await ask(`http://tka.corp.example.com:${plain.port}`, other)).toMatchObject({ url: '/x' });
  });

  it('goes only to those addresses of a name that are on this machine or the tailnet', async () => {
    const answer = await ask(`http://${name}:${plain.port}`, finds('203.0.113.7', '127.0.0.1'));
    expect(answer.host).toBe(`${name}:${plain.port}`);
  });

  it('goes to the tailnet’s address if the resolver returns a public one', async () => {
    const both = { ...finds('203.0.113.7'), ...tailnetSays('203.0.113.8', '127.0.0.1') };
    expect(await ask(`http://${name}:${plain.port}`, both)).toMatchObject({ host: `${name}:${plain.port}` });
    const origin = `http://${name}:${plain.port}`;
    const nowhere = await failure(origin, { ...findsNothing(), ...tailnetSays('203.0.113.8') });
    expect(nowhere).toMatchObject({ code: 'ENOTFOUND' });
    expect((await failure(origin, { ...finds('203.0.113.7'), ...tailnetSays('203.0.113.8') })).message).toBe(
      refusal(origin),
    );
  });
});

describe('addresses', () => {
  it('are tried in order, the next at once if one is refused', async () => {
    // Nothing listens on ::1 at this port.
    const answer = await ask(`http://${name}:${plain.port}`, finds('::1', '127.0.0.1'));
    expect(answer.url).toBe('/x');
  });

  it('are tried in parallel if one does not answer, whose connection is closed', async () => {
    // TEST-NET and discard addresses: packets get no answer or have no route.
    const started = performance.now();
    const answer = await ask(`https://${name}:${secure.port}`, {
      ...finds('192.0.2.1', '100::1', '127.0.0.1'),
      caFile: authority.file,
    });
    expect(answer.sni).toBe(name);
    expect(performance.now() - started).toBeLessThan(3000);
  });

  it('that all refuse are a refused connection', async () => {
    const port = await closedPort();
    expect(await failure(`http://${name}:${port}`, finds('127.0.0.1', '::1'))).toMatchObject({ code: 'ECONNREFUSED' });
  });
});

describe('the timeout', () => {
  it('limits a resolver that does not answer', async () => {
    const error = await failure(`https://${name}`, { lookup: () => new Promise(() => {}), connectTimeout: 50 });
    expect(error).toMatchObject({ code: 'ERR_CONNECT_TIMEOUT' });
  });

  it('limits a tailnet that does not answer', async () => {
    const tailnetAddresses = () => new Promise<undefined>(() => {});
    const error = await failure(`https://${name}`, { ...findsNothing(), tailnetAddresses, connectTimeout: 50 });
    expect(error).toMatchObject({ code: 'ERR_CONNECT_TIMEOUT' });
  });

  it('limits a TLS handshake and closes the connection', async () => {
    const silent = await oddServer('', 'stay');
    const error = await failure(`https://127.0.0.1:${silent.port}`, { connectTimeout: 50 });
    expect(error).toMatchObject({ code: 'ERR_CONNECT_TIMEOUT' });
    await silent.connections(0);
  });

  it('is that of the request’s signal, from the start', async () => {
    const silent = await oddServer('', 'stay');
    const client = openNetwork({ env: {} }).client(`https://127.0.0.1:${silent.port}`, { connectTimeout: 60_000 });
    const stop = new AbortController();
    const asked = client.request({ method: 'GET', path: '/', signal: stop.signal }).catch((error) => error);
    await silent.connections(1);
    stop.abort(new Error('enough'));
    expect(await asked).toMatchObject({ message: 'enough' });
    await client.destroy();
    await silent.connections(0);
  });

  it('does not delay the end of a pending connection when the client is destroyed', async () => {
    const silent = await oddServer('', 'stay');
    const client = openNetwork({ env: {} }).client(`https://127.0.0.1:${silent.port}`, { connectTimeout: 60_000 });
    const asked = client.request({ method: 'GET', path: '/' }).catch((error) => error);
    await silent.connections(1);
    await client.destroy();
    expect(await asked).toMatchObject({ code: 'ERR_CLIENT_DESTROYED' });
    await silent.connections(0);
  });
});
