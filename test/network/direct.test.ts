// What is reached without a proxy: names, addresses, certificates, and what is refused.
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
  it('is asked by its name over TLS, whatever address that is', async () => {
    const answer = await ask(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile: authority.file });
    expect(answer).toMatchObject({ sni: name, host: `${name}:${secure.port}`, httpVersion: '1.1', url: '/x' });
  });

  it.each(['ENOTFOUND', 'EAI_AGAIN'])(
    'the tailnet is asked once for a name where the resolver says %s',
    async (code) => {
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
    },
  );

  it('a resolver that answers late is heard where the tailnet knows nothing', async () => {
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
  ])('a name %s is asked of tailscaled, and the resolver never', async (_, host, suffix) => {
    const target = await listen(echo(await authority.issue(host)));
    const answer = await ask(`https://${host}:${target.port}`, {
      ...tailnetSays('127.0.0.1'),
      tailnetSuffix: async () => suffix,
      lookup: never,
      caFile: authority.file,
    });
    expect(answer.sni).toBe(host);
  });

  it('a name of a tailnet that tailscaled does not know is asked of the resolver', async () => {
    const known = { ...tailnetSays(), ...finds('127.0.0.1'), caFile: authority.file };
    expect((await ask(`https://${name}:${secure.port}`, known)).sni).toBe(name);
    const silent = { ...known, tailnetAddresses: async () => undefined };
    expect((await ask(`https://${name}:${secure.port}`, silent)).sni).toBe(name);
  });

  it.each([
    ['without a tailnet', async () => undefined],
    ['beside a tailnet of another name', async () => 'example.com'],
    ['whose tailscaled fails', async () => Promise.reject(new Error('no tailscaled'))],
  ])('another name that resolves is not asked of tailscaled (%s)', async (_, tailnetSuffix) => {
    const host = 'tka.otherexample.com';
    const target = await listen(echo(await authority.issue(host)));
    const options = { ...finds('127.0.0.1'), tailnetAddresses: never, tailnetSuffix, caFile: authority.file };
    const lines: string[] = [];
    await ask(`https://${host}:${target.port}`, { ...options, log: (line) => lines.push(line) });
    expect(lines).toEqual([]);
  });

  it('localhost is nobody else’s name', async () => {
    expect(await ask(`http://localhost:${plain.port}`, { tailnetAddresses: never })).toMatchObject({ url: '/x' });
  });

  it('another name that does not resolve is asked of tailscaled', async () => {
    const host = 'tka.otherexample.com';
    const target = await listen(echo(await authority.issue(host)));
    const options = { ...findsNothing(), ...tailnetSays('127.0.0.1'), caFile: authority.file };
    expect((await ask(`https://${host}:${target.port}`, options)).sni).toBe(host);
  });

  it.each([
    ['knows nothing', async () => undefined],
    ['knows no address', async () => []],
    ['talks nonsense', async () => ['tka', '']],
    ['fails', async () => Promise.reject(new Error('no tailscaled'))],
  ])('where the tailnet %s, the name does not resolve', async (_, tailnetAddresses) => {
    const error = await failure(`https://${name}`, { ...findsNothing(), tailnetAddresses });
    expect(error).toMatchObject({ code: 'ENOTFOUND' });
  });

  it('a resolver that finds nothing at all is a name that does not resolve', async () => {
    expect(await failure(`https://${name}`, finds())).toMatchObject({ code: 'ENOTFOUND' });
  });

  it('a trailing dot, an international name and IPv6 are what they are', async () => {
    const trust = { ...finds('127.0.0.1'), caFile: authority.file };
    expect(await ask(`https://${name}.:${secure.port}`, trust)).toMatchObject({ sni: name });
    const idn = await listen(echo(await authority.issue('xn--bcher-kva.example')));
    expect(await ask(`https://bücher.example:${idn.port}`, trust)).toMatchObject({ sni: 'xn--bcher-kva.example' });
    const answer = await ask(`http://[::1]:${plain6.port}`);
    expect(answer.host).toBe(`[::1]:${plain6.port}`);
  });
});

describe('certificates', () => {
  it('are shown to the caller', async () => {
    const seen: string[] = [];
    const onStep: OnStep = (done) => {
      if (done.step === 'open') seen.push((done.socket as TLSSocket).getPeerX509Certificate()?.subjectAltName ?? '');
    };
    const trust = { ...finds('127.0.0.1'), caFile: authority.file };
    await ask(`https://${name}:${secure.port}`, { ...trust, onStep });
    expect(seen).toEqual([expect.stringContaining(`DNS:${name}`)]);
  });

  it('of another name are refused, though the address is right', async () => {
    const origin = `https://other.example.ts.net:${secure.port}`;
    const error = await failure(origin, { ...findsNothing(), ...tailnetSays('127.0.0.1'), caFile: authority.file });
    expect(error).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('of a name are refused for a bare address', async () => {
    const error = await failure(`https://127.0.0.1:${secure.port}`, { caFile: authority.file });
    expect(error).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('of an authority that nobody named are refused', async () => {
    expect(await failure(`https://${name}:${secure.port}`, finds('127.0.0.1'))).toMatchObject({
      code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    });
  });

  it('are believed by the CA given for an API server, and by that alone', async () => {
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
    ['is not there', undefined, 'does not exist'],
    ['is no PEM', 'hello', 'contains no PEM certificate'],
    ['is a key', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', 'contains no PEM certificate'],
    [
      'is damaged',
      '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      'is damaged: certificate 1 cannot be read',
    ],
  ])('a caFile that %s is named', async (_, content, why) => {
    const file = path.join(path.dirname(authority.file), 'bad.pem');
    fs.rmSync(file, { force: true });
    if (content !== undefined) fs.writeFileSync(file, content);
    const error = await failure(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile: file });
    expect(error).toMatchObject({ name: 'TkaError', message: `tls.caFile ${file} ${why}` });
  });

  it('a caFile that is a folder is named', async () => {
    const caFile = path.dirname(authority.file);
    const error = await failure(`https://${name}:${secure.port}`, { ...finds('127.0.0.1'), caFile });
    expect(error.message).toBe(`tls.caFile ${caFile} cannot be read (EISDIR)`);
  });
});

describe('plain http', () => {
  const refusal = (origin: string) =>
    `${origin} is neither on this machine nor on the tailnet, so plain http is not allowed`;

  it('is spoken to this machine', async () => {
    expect(await ask(`http://127.0.0.1:${plain.port}`)).toMatchObject({ url: '/x' });
    expect(await ask(`http://localhost:${plain.port}`)).toMatchObject({ host: `localhost:${plain.port}` });
  });

  it.each(['http://8.8.8.8', 'http://10.0.0.1:8080', 'http://[2001:db8::1]', 'http://0.0.0.0'])(
    'is not spoken to %s',
    async (origin) => {
      const error = await failure(origin);
      expect(error.message).toBe(refusal(origin));
      expect(error.hints?.[0]).toBe(`use https: ${origin.replace('http:', 'https:')}`);
    },
  );

  it('is not spoken to a name whose addresses are public ones', async () => {
    const origin = `http://${name}:${plain.port}`;
    expect((await failure(origin, finds('203.0.113.7', '2001:db8::1'))).message).toBe(refusal(origin));
  });

  it('is spoken to the address that the tailnet knows, whatever a resolver answers', async () => {
    const origin = `http://${name}:${plain6.port}`;
    // The resolver's address would refuse.
    expect(await ask(origin, { ...finds('127.0.0.1'), ...tailnetSays('::1') })).toMatchObject({ url: '/x' });
    const unknown = await failure(`http://${name}:${plain.port}`, { ...finds('127.0.0.1'), ...tailnetSays() });
    expect(unknown).toMatchObject({ code: 'ENOTFOUND' });
    // A name that is not the tailnet's may be a name of this machine.
    const other = { ...finds('127.0.0.1'), tailnetAddresses: async () => undefined };
    expect(await ask(`http://tka.corp.example.com:${plain.port}`, other)).toMatchObject({ url: '/x' });
  });

  it('is spoken to those addresses of a name alone that are ours', async () => {
    const answer = await ask(`http://${name}:${plain.port}`, finds('203.0.113.7', '127.0.0.1'));
    expect(answer.host).toBe(`${name}:${plain.port}`);
  });

  it('is spoken to what the tailnet means by a name, where the resolver means somebody else', async () => {
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
  it('are tried in turn, the next at once where one is refused', async () => {
    // Nobody listens on ::1 at this port.
    const answer = await ask(`http://${name}:${plain.port}`, finds('::1', '127.0.0.1'));
    expect(answer.url).toBe('/x');
  });

  it('are tried side by side where one says nothing, and it is let go of', async () => {
    // TEST-NET and discard addresses, where packets go unanswered or have no way out.
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

describe('time', () => {
  it('is limited for a resolver that does not answer', async () => {
    const error = await failure(`https://${name}`, { lookup: () => new Promise(() => {}), connectTimeout: 50 });
    expect(error).toMatchObject({ code: 'ERR_CONNECT_TIMEOUT' });
  });

  it('is limited for a tailnet that does not answer', async () => {
    const tailnetAddresses = () => new Promise<undefined>(() => {});
    const error = await failure(`https://${name}`, { ...findsNothing(), tailnetAddresses, connectTimeout: 50 });
    expect(error).toMatchObject({ code: 'ERR_CONNECT_TIMEOUT' });
  });

  it('is limited for a TLS handshake, and the connection is gone then', async () => {
    const silent = await oddServer('', 'stay');
    const error = await failure(`https://127.0.0.1:${silent.port}`, { connectTimeout: 50 });
    expect(error).toMatchObject({ code: 'ERR_CONNECT_TIMEOUT' });
    await silent.connections(0);
  });

  it('is that of the signal, where a request has one, from the first moment', async () => {
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

  it('ends a connection under way when the client is destroyed', async () => {
    const silent = await oddServer('', 'stay');
    const client = openNetwork({ env: {} }).client(`https://127.0.0.1:${silent.port}`, { connectTimeout: 60_000 });
    const asked = client.request({ method: 'GET', path: '/' }).catch((error) => error);
    await silent.connections(1);
    await client.destroy();
    expect(await asked).toMatchObject({ code: 'ERR_CLIENT_DESTROYED' });
    await silent.connections(0);
  });
});
