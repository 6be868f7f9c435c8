// Hostile HTTP, below the protocol: statuses, headers, framing, pace. A call ends with a token or with an error in
// time. It never follows a redirect.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import * as net from 'node:net';
import { describe } from 'vitest';
import type { RouteFault } from '../../src/sandbox/mesh.ts';
import { checkFailure } from './checks.ts';
import { type Fixture, hostileTest } from './fixture.ts';
import { evilTexts, randomCases } from './junk.ts';

const test = hostileTest();

test.concurrent('control: normal HTTP', async ({ fixture }) => {
  await fixture.freshCredential();
});

/** Runs `act` with the URL of a server that must get no request. */
async function trapped(act: (url: string) => Promise<void>): Promise<void> {
  const seen: string[] = [];
  const trap = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    response.end('{"username":"trapped","role":"x","until":"2099-01-01T00:00:00Z"}');
  });
  trap.on('connection', () => seen.push('a connection'));
  await new Promise<void>((done) => trap.listen(0, '127.0.0.1', done));
  try {
    await act(`http://127.0.0.1:${(trap.address() as net.AddressInfo).port}`);
    assert.deepEqual(seen, [], 'the target of a redirect was asked');
  } finally {
    trap.close();
    trap.closeAllConnections();
  }
}

describe('a redirect is never followed', () => {
  const routes = ['login', 'kubeconfig'] as const;
  for (const [i, status] of [300, 301, 302, 303, 305, 307, 308].entries()) {
    const route = routes[i % 2] as 'login' | 'kubeconfig';
    test.concurrent(`HTTP ${status} to ${route}`, ({ fixture }) =>
      trapped(async (url) => {
        fixture.cluster.faults.routes[route] = {
          answer: { status, headers: { Location: `${url}/api/v1alpha1/${route}` }, body: '' },
        };
        await fixture.noCredential({ told: new RegExp(`\\(HTTP ${status}\\)`) });
      }));
  }
  for (const [route, args] of [
    ['memberlist', 'clusters'],
    ['clusterInfo', 'login --all-contexts'],
    ['logout', 'logout'],
  ] as const) {
    test.concurrent(`HTTP 307 to ${route}`, ({ fixture }) =>
      trapped(async (url) => {
        fixture.cluster.faults.routes[route] = {
          answer: { status: 307, headers: { Location: `${url}/x` }, body: '' },
        };
        const ran = await fixture.run(args, {
          timeout: '1s',
          may: [...fixture.remembered, ...fixture.ownCache, /^\.kube\/config$/, /signed-out/],
        });
        assert.equal(ran.status, 1);
        assert.ok(fixture.cluster.counts[route] >= 1);
      }));
  }
  test.concurrent('headers that name other hosts', ({ fixture }) =>
    trapped(async (url) => {
      fixture.cluster.faults.routes.all = {
        headers: {
          Refresh: `0; url=${url}`,
          Link: `<${url}>; rel=preload`,
          'Alt-Svc': `h2="${url.slice(7)}"`,
          'Content-Location': url,
          Location: url,
          'Set-Cookie': `a=b; Domain=evil.example`,
        },
      };
      await fixture.freshCredential();
    }));
  test.concurrent('invalid locations', async ({ fixture }) => {
    const locations = [
      'file:///etc/passwd',
      'javascript:alert(1)',
      '//evil.example',
      'https://127.0.0.1:1/',
      '',
      'x'.repeat(8000),
    ];
    fixture.cluster.faults.routes.login = locations.map((location, i) => ({
      answer: { status: 302, headers: { Location: location } },
      ...(i < locations.length - 1 && { times: 1 }),
    }));
    await fixture.noCredential({ timeout: '1s' });
  });
});

const faults: Readonly<Record<string, [RouteFault, RouteFault?]>> = {
  'HTTP 200 and nothing else': [{ answer: { status: 200, body: '' } }],
  'HTTP 201': [{ answer: { status: 201, body: { username: 'a' } } }],
  'HTTP 203': [{ answer: { status: 203, body: 'x' } }],
  'HTTP 204': [{ answer: { status: 204 } }],
  'HTTP 205': [{ answer: { status: 205 } }],
  'HTTP 206': [{ answer: { status: 206, body: '{', headers: { 'Content-Range': 'bytes 0-0/100' } } }],
  'HTTP 304': [{ answer: { status: 304 } }],
  'HTTP 407': [{ answer: { status: 407, headers: { 'Proxy-Authenticate': 'Basic realm="\u00ab"' } } }],
  'HTTP 418': [{ answer: { status: 418, body: 'short and stout' } }],
  'HTTP 429 with a Retry-After of a year': [{ answer: { status: 429, headers: { 'Retry-After': '31536000' } } }],
  'HTTP 451 with HTML': [{ answer: { status: 451, body: '<h1>\u001b[31m', contentType: 'text/html' } }],
  'HTTP 999': [{ answer: { status: 999, body: 'x' } }],
  'HTTP 404 of a proxy': [{ answer: { status: 404, body: '<html>nginx', contentType: 'text/html' } }],
  silence: [{ silent: true }],
  'a reset before the work': [{ reset: 'before' }],
  'a reset after the work': [{ reset: 'after' }],
  'a reset in the middle': [{ reset: 'middle' }],
  'an end in the middle': [{ truncate: true }],
  'an end at once': [{ truncate: 0 }],
  'a trickle': [{ trickleMs: 200 }],
  'a trickle of a long body': [{ answer: { status: 202, body: ' '.repeat(10_000) }, trickleMs: 50 }],
  '40 MiB': [{ oversizeMiB: 40 }],
  'a content encoding of gzip': [{ headers: { 'Content-Encoding': 'gzip' }, change: () => '\u001f\u008b' }],
  'headers of 40 KiB': [{ headers: { 'X-Huge': 'x'.repeat(40_000) } }],
  '1,500 headers': [
    { headers: Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`X-${i}`, 'x'.repeat(20)])) },
  ],
};

describe('an invalid answer is an error in time', () => {
  for (const [i, [name, [fault]]] of Object.entries(faults).entries()) {
    const route = i % 2 === 0 ? 'login' : 'kubeconfig';
    test.concurrent(`${name} (${route})`, async ({ fixture }) => {
      fixture.cluster.faults.routes[route] = fault;
      await fixture.noCredential({ reached: () => fixture.cluster.counts[route] >= 1 });
    });
  }

  test.concurrent('control: the program survives each of the same faults once', async ({ fixture }) => {
    fixture.cluster.faults.routes.login = [
      { times: 1, reset: 'before' },
      { times: 1, answer: { status: 502 } },
      { times: 1, truncate: true },
    ];
    fixture.cluster.faults.routes.kubeconfig = [
      { times: 1, answer: { status: 204 } },
      { times: 1, reset: 'middle' },
      { times: 1, notJson: true },
    ];
    await fixture.freshCredential();
  });
});

/** A TCP server that answers every request with these bytes, and then does `after`. */
async function saying(
  bytes: string | Buffer | ((socket: net.Socket) => void),
  act: (server: string) => Promise<void>,
): Promise<void> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    socket.once('data', () => {
      if (typeof bytes === 'function') bytes(socket);
      else socket.end(bytes);
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  try {
    await act(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
  } finally {
    server.close();
    for (const socket of sockets) socket.destroy();
  }
}

const flood =
  (first: string, piece: string): ((socket: net.Socket) => void) =>
  (socket) => {
    socket.write(first);
    const more = () => {
      while (!socket.destroyed && socket.write(piece));
    };
    socket.on('drain', more);
    more();
  };

const raw: Readonly<Record<string, string | Buffer | ((socket: net.Socket) => void)>> = {
  nothing: '',
  'an SSH banner': 'SSH-2.0-OpenSSH_9.9\r\n',
  'an SMTP banner': '220 mail.evil.example ESMTP\r\n',
  'a TLS alert': Buffer.from([0x15, 3, 1, 0, 2, 2, 0x46]),
  'HTTP/0.9': '<html>hello</html>',
  'HTTP/2': Buffer.from('000006040000000000000400000000', 'hex'),
  'HTTP/3.7': 'HTTP/3.7 200 OK\r\n\r\n',
  'a status that is text': 'HTTP/1.1 twohundred OK\r\n\r\n',
  'a status of two digits': 'HTTP/1.1 20 OK\r\n\r\n',
  'a reason with escapes': 'HTTP/1.1 500 \u001b]52;c;eA==\u0007\r\nContent-Length: 0\r\n\r\n',
  'an upgrade': 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\nhello',
  'early hints, then nothing': 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n',
  'early hints, then an invalid answer':
    'HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}',
  'a flood of early hints': flood('', 'HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n'.repeat(1000)),
  'a flood of 100 Continue': flood('', 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(1000)),
  'a flood of headers': flood('HTTP/1.1 200 OK\r\n', 'X: y\r\n'.repeat(1000)),
  'a header that never ends': flood('HTTP/1.1 200 OK\r\nX: ', 'y'.repeat(10_000)),
  'a status line that never ends': flood('HTTP/1.1 200 ', 'O'.repeat(10_000)),
  'a body that never ends': flood('HTTP/1.1 200 OK\r\n\r\n', 'x'.repeat(10_000)),
  'chunks that never end': flood('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', '1\r\nx\r\n'.repeat(1000)),
  'trailers that never end': flood(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n',
    'X: y\r\n'.repeat(1000),
  ),
  'chunk extensions that never end': flood(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;',
    'x=y;'.repeat(1000),
  ),
  'a chunk size that is text': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nevil\r\nx\r\n',
  'a negative chunk size': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n',
  'a chunk size that is too large': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n',
  'a truncated chunk': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{"username":',
  'a transfer encoding of gzip': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n\u001f\u008b',
  'a length as well as chunks': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!',
  'a negative length': 'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello',
  'a length that is too large': 'HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello',
  'a length that is longer than the body': 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}',
  'a body longer than its length':
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n{"username":"second"}',
  'a header with a NUL': 'HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n{}',
  'a folded header': 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}',
  'a header with a space before its colon': 'HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}',
  'bare line feeds': 'HTTP/1.1 200 OK\nContent-Length: 2\n\n{}',
  garbage: Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167) % 256)),
};

describe('invalid HTTP is an error in time', () => {
  test.concurrent.for(Object.entries(raw))('%s', ([, bytes], { fixture }) =>
    saying(bytes, (server) => failsAt(fixture, server)),
  );

  test.concurrent.for(randomCases(10, 8))('%s', ([, chance], { fixture }) => {
    const good = `HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`;
    const bytes = Buffer.from(good, 'latin1');
    for (let i = 0; i < 4; i++) bytes[Math.floor(chance() * bytes.length)] = Math.floor(chance() * 256);
    return saying(bytes, async (server) => {
      await failsAt(fixture, server).catch((error) => {
        if (error instanceof Error) error.message += `\nbytes: ${JSON.stringify(bytes.toString('latin1'))}`;
        throw error;
      });
    });
  });
});

async function failsAt(fixture: Fixture, server: string): Promise<void> {
  const ran = await fixture.run(['credential', '--server', server, '--api-server', 'https://127.0.0.1:1'], {
    timeout: '500ms',
    may: fixture.cacheOf(server),
  });
  checkFailure(ran);
}

describe('logout of a hostile server', () => {
  const answers: Readonly<Record<string, RouteFault>> = {
    'a message with escapes': {
      answer: {
        status: 500,
        body: { message: evilTexts['an OSC 52 clipboard'], advice: [evilTexts['a forged error']] },
      },
    },
    'a refusal': { answer: { status: 403, body: { message: 'no\nerror: forged' } } },
    'an invalid sign-in': { change: () => ({ username: 7 }) },
    silence: { silent: true },
    '20 MiB': { oversizeMiB: 20 },
  };
  test.concurrent.for(Object.entries(answers))(
    '%s: signed out on this machine all the same',
    async ([, fault], { fixture }) => {
      await fixture.freshCredential();
      fixture.cluster.faults.routes.logout = fault;
      const may = [...fixture.ownCache, /signed-out/];
      const ran = await fixture.run(['logout', fixture.cluster.server], { timeout: '1s', may });
      checkFailure(ran);
      assert.match(ran.stderr, /^error: signed out on this machine, but not on the server: \S/);
      checkFailure(await fixture.run(fixture.credentialArgs()));
      assert.equal(fixture.cluster.counts.login, 1);
    },
  );
});
