// A TKA server over https, with a MagicDNS name that this machine's resolver does not know: the connection goes to its
// Tailscale address, and its certificate must still be for the name.
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as tls from 'node:tls';
import { describe, expect } from 'vitest';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { makeAuthority } from '../network/certificates.ts';
import { linux, list, test } from './tailnet.ts';

const name = 'tka-prod-us.example.ts.net';

/** Starts TLS in front of a cluster's TKA server, at its address. */
async function secured(cluster: SandboxCluster, certificate: { key: string; cert: string }) {
  const names: (string | false | null)[] = [];
  const server = tls.createServer(certificate, (socket) => {
    names.push(socket.servername);
    const inner = net.connect(Number(new URL(cluster.server).port), cluster.host);
    for (const end of [socket, inner]) {
      end.on('error', () => {});
      end.on('close', () => [socket, inner].map((each) => each.destroy()));
    }
    socket.pipe(inner).pipe(socket);
  });
  server.on('tlsClientError', () => {});
  server.listen(0, cluster.host);
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  return { url: `https://${name}:${port}`, names, [Symbol.dispose]: () => void server.close() };
}

/** Returns the requests over TLS; its tagged node may also be asked for a list over plain http. */
const throughTls = (cluster: SandboxCluster, url: string) =>
  cluster.requests.filter(({ headers }) => headers.host === new URL(url).host);

describe.skipIf(!linux)('https by a name that does not resolve (needs loopback addresses that only Linux has)', () => {
  test('every command finds it at its Tailscale address', async ({ net, user, env }) => {
    const [us] = net.clusters as [SandboxCluster];
    const authority = await makeAuthority();
    using server = await secured(us, await authority.issue(name));
    const trusting = {
      env: { ...env.env, NODE_EXTRA_CA_CERTS: authority.file, TKA_TAILSCALE_HOSTNAME: server.url },
    };
    const login = await user.run('login', trusting);
    expect(login).toMatchObject({ status: 0, stderr: '' });
    expect(login.stdout).toContain(`Signed in to tka-prod-us (${server.url}) as alice`);
    expect((await list(user, trusting)).rows).toHaveLength(3);
    fs.rmSync(user.entry({ server: server.url }));
    const credential = await user.credential({ server: server.url, apiServer: us.apiServer }, trusting);
    expect(credential).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(credential.stdout)).toMatchObject({ kind: 'ExecCredential' });
    expect(us.counts.login).toBe(2);
    expect(new Set(server.names)).toEqual(new Set([name]));
  });

  test.for(['tka-prod-eu.example.ts.net', 'example.ts.net'])(
    'with a certificate for %s it gets no request',
    async (other, { net, user, env }) => {
      const [us] = net.clusters as [SandboxCluster];
      const authority = await makeAuthority();
      using server = await secured(us, await authority.issue(other));
      const ran = await user.run(['login', '-s', server.url], {
        env: { ...env.env, NODE_EXTRA_CA_CERTS: authority.file },
      });
      expect(ran).toMatchObject({ status: 1, stdout: '' });
      expect(ran.stderr).toMatch(/^error: cannot reach https:\S+: .*certificate/m);
      expect(throughTls(us, server.url)).toEqual([]);
    },
  );

  test('with a certificate of an unknown CA it gets no request', async ({ net, user, env }) => {
    const [us] = net.clusters as [SandboxCluster];
    using server = await secured(us, await (await makeAuthority()).issue(name));
    const ran = await user.run(['login', '-s', server.url], env);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^hint: .*: kubectl tka config tls\.caFile FILE$/m);
    expect(ran.stderr).not.toMatch(/NODE_/);
    expect(throughTls(us, server.url)).toEqual([]);
  });

  test.for([
    ['an invalid value', 'port: many'],
    ['a line that is not YAML', 'hostname: [tka'],
    ['a duplicate key', 'port: 443\n  port: 443'],
  ])('under kubectl, tls.caFile still applies despite %s', async ([, mistake], { net, user, env }) => {
    const [us] = net.clusters as [SandboxCluster];
    const authority = await makeAuthority();
    using server = await secured(us, await authority.issue(name));
    const cluster = { server: server.url, apiServer: us.apiServer };
    user.write(user.config, `tls:\n  caFile: ${authority.file}\ntailscale:\n  ${mistake}\n`);
    const ran = await user.credential(cluster, env);
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(ran.stdout)).toMatchObject({ kind: 'ExecCredential' });
    // Other commands still report the problem.
    const status = await user.run('status', env);
    expect(status).toMatchObject({ status: 1, stdout: '' });
    expect(status.stderr).toMatch(
      /^error: bad configuration: .*\nhint: (?:kubectl tka config set tailscale\.port VALUE|edit \/)/m,
    );
  });
});
