// Breaks one link to the TKA server at a time: only that check reports it, with a hint.
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import * as net from 'node:net';
import * as path from 'node:path';
import { generate } from 'selfsigned';
import { describe, expect } from 'vitest';
import { peerOf, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { test as base } from '../fixtures/mesh.ts';
import { behindName, depend, Patient, type Status, test } from './doctor-patient.ts';

describe.concurrent('one link is broken', () => {
  test('tailscaled: a warning if the server is reachable anyway', async ({ patient, us, tailscaled }) => {
    for (const [state, hint] of [
      ['Stopped', 'start it: tailscale up'],
      ['NeedsLogin', 'log in: tailscale login'],
    ] as const) {
      tailscaled.backendState = state;
      const found = await patient.look();
      found.differs({ tailscaled: 'warning' });
      expect(found.of('tailscaled').hint).toBe(hint);
      expect(found.of('tailscaled').detail).toContain(`${us.server} is reached without it`);
    }
    await tailscaled.stop();
    const gone = await patient.look();
    gone.differs({ tailscaled: 'warning' });
    expect(gone.of('tailscaled').detail).toMatch(/^no tailscaled at .*, the socket in TS_SOCKET/);
  });

  test('TCP: nothing listens; checks that need no TKA server still run', async ({ patient, us }) => {
    await us.stop();
    const found = await patient.look();
    found.differs({ tcp: 'failed', 'tka-api': 'skipped', tls: 'skipped' }, 'depends on tcp');
    expect(found.of('tcp').detail).toMatch(/connection refused$/);
    expect(found.of('tcp').hint).toMatch(/kubectl tka config tailscale\.port PORT$/);
  });

  test('TKA API: silent, not a TKA server, failing', async ({ patient, us }) => {
    us.faults.routes.clusterInfo = { silent: true };
    const silent = await patient.look([], { TKA_TIMEOUT: '2s' });
    silent.differs({ 'tka-api': 'failed', clock: 'ok' });
    expect(silent.of('tka-api').detail).toMatch(/no answer within 2 s/);
    us.faults.routes.clusterInfo = { answer: { status: 200, body: '<html>hello', contentType: 'text/html' } };
    const other = await patient.look();
    other.differs({ 'tka-api': 'failed' });
    expect(other.of('tka-api').hint).toMatch(/^check that this address is a TKA server/);
    us.faults.routes.clusterInfo = { answer: { status: 500, body: { message: 'etcd is away', advice: ['call Bob'] } } };
    const broken = await patient.look();
    broken.differs({ 'tka-api': 'failed' });
    expect(broken.of('tka-api')).toMatchObject({ hint: 'call Bob' });
    expect(broken.of('tka-api').detail).toMatch(/etcd is away \(HTTP 500\)$/);
  });

  test('TKA API: without a grant, shows the login, the capability and a grant to paste', async ({ patient, us }) => {
    us.user = null;
    const found = await patient.look();
    found.differs({ 'tka-api': 'failed', grant: 'skipped' }, 'depends on tka-api');
    expect(found.of('tka-api').detail).toMatch(
      /^no grant for alice@example\.com on prod-us .* specht-labs\.de\/cap\/tka there \(HTTP 403\)$/,
    );
    expect(found.of('tka-api').hint).toMatch(
      /^ask a maintainer of the tailnet policy to add this grant .*: \{ "src": \["alice@example\.com"\], .*\}$/,
    );
  });

  test('TKA API: it serves another cluster', async ({ patient, us, eu }) => {
    eu.faults.clusterInfo = { server_url: us.apiServer };
    const found = await patient.look(['prod-eu']);
    expect(found.of('tka-api').status).toBe('failed');
    expect(found.of('tka-api').detail).toMatch(/is not the TKA server of prod-eu: it serves/);
    expect(found.of('api-server').status).toBe('skipped');
  });

  test('texts of a server are cleaned, and contain no token', async ({ patient, us, home }) => {
    const message = `no\u001b[31m way\n\u202e Bearer ${home.token(us)}`;
    us.faults.routes.clusterInfo = { answer: { status: 403, body: { message, advice: [`type ${home.token(us)}`] } } };
    const found = await patient.look();
    found.differs({ 'tka-api': 'failed', grant: 'skipped' });
    expect(found.of('tka-api').detail).toMatch(/no ?\[31m way Bearer \[redacted token\]/);
    expect(found.of('tka-api').hint).toMatch(/^type \[redacted token\]…?$/);
    expect((await patient.run([])).stdout).not.toMatch(/[\u001b\u202e]/);
  });
});

describe.concurrent('an unknown name', () => {
  const unknown: Record<string, Status> = { name: 'failed', ...behindName };
  test('neither a cluster nor a host: that check fails, and not tailscaled', async ({ patient, tailscaled }) => {
    const found = await patient.look(['nosuch']);
    expect(found.of('name')).toMatchObject({ status: 'failed', hint: 'kubectl tka clusters' });
    expect(found.of('name').detail).toBe('no cluster named "nosuch"');
    for (const name of Object.keys(behindName)) expect(found.of(name).detail).toBe('depends on name');
    expect(Object.keys(unknown).map((name) => found.of(name).status)).toEqual(Object.values(unknown));
    tailscaled.backendState = 'Stopped';
    expect((await patient.look(['nosuch'])).of('name').hint).toBe('kubectl tka clusters');
  });

  test('fails too if there is no list', async ({ patient, mesh }) => {
    await Promise.all(mesh.clusters.map((cluster) => cluster.stop()));
    const found = await patient.look(['nosuch']);
    expect(found.of('name').status).toBe('failed');
    expect(found.of('name').detail).toMatch(/; nosuch\S* is not a known host either$/);
  });
});

describe.concurrent('a name that only the tailnet knows', () => {
  const named = base.extend<{ tailscaled: Tailscaled; patient: Patient }>({
    tailscaled: async ({ us }, use) => {
      await using tailscaled = await startTailscaled({ peers: [peerOf(us)] });
      await use(tailscaled);
    },
    patient: async ({ us, home, tailscaled }, use) => {
      const env = {
        TS_SOCKET: tailscaled.socketPath,
        TKA_TAILSCALE_PORT: new URL(us.server).port,
        TKA_TAILSCALE_HOSTNAME: 'prod-us',
      };
      expect(await home.run('login', { env })).toMatchObject({ status: 0 });
      await use(new Patient(home, us, env));
    },
  });

  named(
    'resolves through tailscaled; if that does not know it, the name check fails',
    async ({ patient, tailscaled }) => {
      const found = await patient.look();
      found.differs({});
      expect(found.cluster).toBe('prod-us');
      expect(found.of('name').detail).toBe('tailscaled knows prod-us.example.ts.net as 127.0.0.1');
      tailscaled.peers = [];
      const lost = await patient.look();
      lost.differs({ name: 'failed', ...behindName }, depend('name'));
      expect(lost.of('name')).toMatchObject({
        detail: 'prod-us.example.ts.net: the name does not resolve',
        hint: 'list the devices: tailscale status',
      });
    },
  );

  named('with tailscaled stopped: that check fails, and the others depend on it', async ({ patient, tailscaled }) => {
    tailscaled.backendState = 'Stopped';
    const found = await patient.look();
    found.differs({ tailscaled: 'failed', name: 'skipped', ...behindName }, depend('tailscaled'));
    expect(found.of('tailscaled')).toMatchObject({ detail: 'tailscale is stopped', hint: 'start it: tailscale up' });
    const address = await patient.look(['http://[fd7a:115c:a1e0::dead]:8123'], { TKA_TIMEOUT: '1s' });
    expect(address.of('name').status).toBe('ok');
    expect(address.of('tcp')).toMatchObject({ status: 'skipped', detail: 'depends on tailscaled' });
  });

  named('an offline device', async ({ patient, us, tailscaled }) => {
    await us.stop();
    tailscaled.peers = [peerOf(us, { online: false })];
    const found = await patient.look();
    found.differs({ tcp: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('tcp'));
    expect(found.of('tcp').detail).toMatch(/connection refused; it is offline, says tailscaled$/);
  });

  named('names a proxy on the way; a broken proxy, or an invalid one, fails TCP', async ({ patient }) => {
    const sockets: net.Socket[] = [];
    const proxy = http.createServer().on('connect', ({ url = '' }, socket: net.Socket) => {
      const { hostname, port } = new URL(`http://${url}`);
      const way = net.connect(Number(port), hostname, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        socket.pipe(way).pipe(socket);
      });
      for (const one of [way, socket]) sockets.push(one.on('error', () => {}));
    });
    await new Promise<void>((listening) => proxy.listen(0, '127.0.0.1', listening));
    const { port } = proxy.address() as net.AddressInfo;
    const env = { NO_PROXY: '', no_proxy: '', HTTP_PROXY: `http://alice:sesame@127.0.0.1:${port}` };
    try {
      const found = await patient.look([], env);
      found.differs({});
      expect(found.of('name').detail).toBe('tailscaled knows prod-us.example.ts.net as 127.0.0.1');
      expect(found.of('tcp').detail).toContain(`through the proxy http://127.0.0.1:${port} (HTTP_PROXY)`);
      expect(found.ran.stdout).not.toContain('sesame');
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => proxy.close(closed));
    }
    const down = await patient.look([], env);
    down.differs({ tcp: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('tcp'));
    expect(down.of('tcp').detail).toContain(`cannot reach the proxy http://127.0.0.1:${port}: connection refused`);
    expect(down.of('tcp').hint).toMatch(/^check the proxy in HTTP_PROXY/);
    const wrong = await patient.look([], { ...env, HTTP_PROXY: 'ftp://127.0.0.1' });
    wrong.differs({ tcp: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('tcp'));
    expect(wrong.of('tcp').hint).toMatch(/^HTTP_PROXY may be http:/);
  });

  named('refuses plain http outside the tailnet', async ({ patient }) => {
    const found = await patient.look(['http://192.0.2.1:8123']);
    expect(found.of('name')).toMatchObject({ status: 'failed', hint: 'use https: https://192.0.2.1:8123' });
    expect(found.of('tcp').detail).toBe('depends on name');
  });
});

describe('TLS', () => {
  const day = 86_400_000;
  /** An authority that issues certificates for a host. */
  async function authority() {
    const about = (from: number, to: number) =>
      ({
        keyType: 'ec',
        algorithm: 'sha256',
        notBeforeDate: new Date(Date.now() + from * day),
        notAfterDate: new Date(Date.now() + to * day),
      }) as const;
    const ca = await generate([{ name: 'commonName', value: 'tka-doctor-ca' }], {
      ...about(-90, 90),
      extensions: [
        { name: 'basicConstraints', cA: true, critical: true },
        { name: 'keyUsage', keyCertSign: true, digitalSignature: true, critical: true },
      ],
    });
    const issue = async (from: number, to: number, name: { type: 2; value: string } | { type: 7; ip: string }) => {
      const made = await generate([{ name: 'commonName', value: 'tka-doctor' }], {
        ...about(from, to),
        ca: { key: ca.private, cert: ca.cert },
        extensions: [{ name: 'subjectAltName', altNames: [name] }],
      });
      return { key: made.private, cert: made.cert };
    };
    return { ca: ca.cert, issue };
  }

  test('valid, expiring, expired, not yet valid, for another host, of an unknown CA, none at all', async ({
    us,
    home,
    tailscaled,
  }) => {
    const { ca, issue } = await authority();
    const here = { type: 7, ip: '127.0.0.1' } as const;
    const good = await issue(-1, 60.5, here);
    const front = https.createServer(good, (request, response) => {
      const { method, url, headers } = request;
      const back = http.request(new URL(url ?? '/', us.server), { method, headers, agent: false }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      });
      request.pipe(back).on('error', () => response.destroy());
    });
    front.on('tlsClientError', () => {});
    await new Promise<void>((listening) => front.listen(0, '127.0.0.1', listening));
    const { port } = front.address() as net.AddressInfo;
    const server = `https://127.0.0.1:${port}`;
    const file = path.join(home.root, 'ca.pem');
    fs.writeFileSync(file, ca);
    home.write(home.config, `tailscale:\n  hostname: "${server}"\ntls:\n  caFile: "${file}"\n`);
    const patient = new Patient(home, us, { TS_SOCKET: tailscaled.socketPath });
    try {
      expect(await home.run('login', { env: patient.env })).toMatchObject({ status: 0 });
      const found = await patient.look();
      found.differs({ tls: 'ok' });
      expect(found.of('tls').detail).toMatch(/^its certificate is valid for 127\.0\.0\.1 until .*, for 60 days more$/);

      front.setSecureContext(await issue(-80, 5.5, here));
      const soon = await patient.look();
      soon.differs({ tls: 'warning' });
      expect(soon.of('tls').detail).toMatch(/for 5 days more$/);
      expect(soon.of('tls').hint).toBe('on the server: tailscale cert 127.0.0.1');

      const other = { type: 2, value: 'tka.example.com' } as const;
      const stranger = (await authority()).issue;
      for (const [certificate, detail, hint] of [
        [await issue(-80, -1, here), /has expired on/, /^on the server: tailscale cert/],
        [await issue(1, 80, here), /is not valid before .*: check the clock$/, /timedatectl|sntp|w32tm/],
        [
          await issue(-1, 80, other),
          /is for DNS:tka\.example\.com, not for 127\.0\.0\.1/,
          new RegExp(`kubectl tka login https://tka.example.com:${port}$`),
        ],
        [
          await stranger(-1, 80, here),
          /not signed by a trusted authority \(CN=tka-doctor-ca;/,
          /kubectl tka config tls\.caFile FILE$/,
        ],
      ] as const) {
        front.setSecureContext(certificate);
        const bad = await patient.look();
        bad.differs({ tls: 'failed', 'tka-api': 'skipped' }, depend('tls'));
        expect(bad.of('tls').detail).toMatch(detail);
        expect(bad.of('tls').hint).toMatch(hint);
      }
      const none = await patient.look([us.server.replace('http:', 'https:')]);
      expect(none.of('tls').status).toBe('failed');
      expect(none.of('tls').detail).toMatch(/does not speak TLS there/);
      expect(none.of('tka-api').detail).toBe('depends on tls');
      home.write(home.config, `tailscale:\n  hostname: "${server}"\ntls:\n  caFile: "${file}.gone"\n`);
      const untold = await patient.look();
      untold.differs({ configuration: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('configuration'));
    } finally {
      front.closeAllConnections();
      await new Promise((closed) => front.close(closed));
    }
  });
});
