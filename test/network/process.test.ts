// What only a whole process shows: its stderr, the modules it loads, and that it ends.
import { execFile } from 'node:child_process';
import * as path from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { makeAuthority } from './certificates.ts';
import { echo, httpProxy, type Listening, listen, oddServer, socksProxy } from './servers.ts';

const name = 'tka.example.ts.net';
let secure: Listening;
let extra: string;

beforeAll(async () => {
  const authority = await makeAuthority();
  extra = authority.file;
  secure = await listen(echo(await authority.issue(name, 'localhost')));
});

interface Ran {
  readonly said: unknown;
  readonly loaded: readonly string[];
  readonly stderr: string;
}

function run(args: readonly string[], env: Record<string, string>): Promise<Ran> {
  const script = path.join(import.meta.dirname, 'child.ts');
  return new Promise((resolve, reject) => {
    const full = { PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: extra, ...env };
    execFile(process.execPath, [script, ...args], { env: full, timeout: 20_000 }, (error, stdout, stderr) => {
      if (error) reject(error);
      else resolve({ ...JSON.parse(stdout), stderr });
    });
  });
}

it('trusts NODE_EXTRA_CA_CERTS, prints nothing, and loads no proxy code without a proxy', async () => {
  const ran = await run([`https://localhost:${secure.port}`], {});
  expect(ran).toMatchObject({ said: { sni: 'localhost', url: '/x' }, stderr: '' });
  expect(ran.loaded).toEqual(['dial.ts', 'failure.ts', 'http.ts', 'network.ts', 'plain.ts', 'tls.ts']);
});

it('prints nothing through a SOCKS5 proxy', async () => {
  const proxy = await socksProxy({ knows: { [`${name}:443`]: secure.port } });
  const ran = await run([`https://${name}`], { ALL_PROXY: `socks5h://127.0.0.1:${proxy.port}` });
  expect(ran).toMatchObject({ said: { sni: name }, stderr: '' });
});

it('prints nothing through an HTTP proxy over TLS', async () => {
  const tls = await (await makeAuthority()).issue('localhost');
  const unknown = await httpProxy({ knows: {}, tls });
  const refused = await run([`https://${name}`], { HTTPS_PROXY: `https://localhost:${unknown.port}` });
  expect(refused.said).toMatch(
    /cannot reach the proxy https:\/\/localhost:\d+: TLS handshake failed: unable to verify the first certificate$/,
  );
  expect(refused.stderr).toBe('');
  const proxy = await httpProxy({ knows: { [`${name}:443`]: secure.port } });
  const ran = await run([`https://${name}`], { HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` });
  expect(ran).toMatchObject({ said: { sni: name }, stderr: '' });
});

it.each(['http', 'https', 'socks5'])('ends while a %s proxy is still silent', async (scheme) => {
  const silent = await oddServer('', 'stay');
  const started = performance.now();
  const ran = await run([`https://${name}`, '300'], { ALL_PROXY: `${scheme}://127.0.0.1:${silent.port}` });
  expect(ran.said).toMatch(/TimeoutError/);
  expect(ran.stderr).toBe('');
  // Its own connection timeout is a minute.
  expect(performance.now() - started).toBeLessThan(15_000);
  await silent.connections(0);
});
