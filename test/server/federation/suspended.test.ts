// A joined server that is suspended or killed, and one behind a proxy.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { writeKeys } from '../../../src/server/federation/keys.ts';
import { testFolder } from '../../fixtures/temporary.ts';
import { httpProxy, socksProxy } from '../../network/servers.ts';
import { ask, authority, dialOptions, joined, login, loginKey, ownKey } from './fixture.ts';

const times = { pingMs: 100, silenceMs: 2_000, redialMs: [10, 100], handshakeMs: 5_000 } as const;

function start(endpoint: string): ChildProcess {
  const { caFile, cluster, replica } = dialOptions(endpoint);
  const keys = [loginKey.publicKey];
  const options = { endpoint, caFile, cluster, replica, primary: 'primary', keys, pem: writeKeys([ownKey]), times };
  const child = spawn(
    process.execPath,
    [path.join(import.meta.dirname, 'joined-process.ts'), JSON.stringify(options)],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return child;
}

test.skipIf(process.platform === 'win32')(
  'a suspended server loses its tunnel, and has a new one when it goes on',
  async () => {
    const { endpoint, next, closed } = await login({ times });
    const child = start(endpoint);
    const tunnel = await next();
    expect((await ask(tunnel)).body).toBe(String(child.pid));
    child.kill('SIGSTOP');
    const request = ask(tunnel);
    await expect(request).rejects.toThrow('the joined server ended the request without a complete answer');
    expect(await closed(tunnel)).toBe('no answer to a ping for 2 s');
    child.kill('SIGCONT');
    const again = await next();
    expect((await ask(again)).body).toBe(String(child.pid));
  },
);

test('the tunnel of a killed server is closed at once', async () => {
  const { endpoint, next, closed, listener } = await login();
  const child = start(endpoint);
  const tunnel = await next();
  child.kill('SIGKILL');
  expect(await closed(tunnel)).toMatch(/^the connection was closed$|ECONNRESET/);
  expect(listener.counts().closed).toEqual({ broken: 1 });
});

test.each(['http', 'socks5'] as const)('a tunnel passes a proxy (%s)', async (kind) => {
  const name = 'login.example.com';
  const folder = testFolder();
  const { cert, key } = await authority.issue(name);
  const certFiles = { certFile: path.join(folder, 'tls.crt'), keyFile: path.join(folder, 'tls.key') };
  fs.writeFileSync(certFiles.certFile, cert);
  fs.writeFileSync(certFiles.keyFile, key);
  const { listener, next } = await login(certFiles);
  const knows = { [`${name}:7947`]: listener.port };
  const proxy = kind === 'http' ? await httpProxy({ knows }) : await socksProxy({ knows });
  joined(`https://${name}:7947`, { env: { HTTPS_PROXY: `${kind}://127.0.0.1:${proxy.port}` } });
  expect(await ask(await next())).toMatchObject({ status: 200 });
  expect(proxy.asked).toEqual([kind === 'http' ? `CONNECT ${name}:7947` : `3 ${name}:7947`]);
});
