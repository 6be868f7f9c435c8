import * as fs from 'node:fs/promises';
import { createServer as createNetServer } from 'node:net';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startTailscaled, type Tailscaled, type TailscaledOptions } from '../../src/sandbox/tailscaled.ts';
import {
  localRequest,
  type StatusOptions,
  TailscaleError,
  type TailscaleProblem,
  tailnetStatus,
} from '../../src/tailscale/localapi.ts';
import { testFolder } from '../fixtures/temporary.ts';

let root: string;
const closing: (() => Promise<unknown>)[] = [];
beforeEach(() => {
  // Short, since a socket's path has at most 107 bytes.
  root = testFolder('r-');
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function daemon(options: TailscaledOptions = {}): Promise<Tailscaled> {
  if (options.socketPath !== undefined) await fs.mkdir(path.dirname(options.socketPath), { recursive: true });
  const started = await startTailscaled(options);
  closing.push(() => started.close());
  return started;
}

const logged: string[] = [];
const options = (more: Partial<StatusOptions> = {}): StatusOptions => ({
  env: { PATH: '' },
  platform: 'linux',
  timeout: 5000,
  log: (line) => logged.push(line),
  root,
  ...more,
});
const at = ({ socketPath }: Tailscaled) => ({ env: { PATH: '', TS_SOCKET: socketPath } });
const ask = (more: Partial<StatusOptions> = {}) => tailnetStatus(options(more));

async function problemOf(promise: Promise<unknown>): Promise<TailscaleError> {
  const error = await promise.then(
    () => new Error('it answered'),
    (cause) => cause,
  );
  expect(error).toBeInstanceOf(TailscaleError);
  // One lower-case line without a full stop, and a hint.
  expect(error.message).toMatch(/^[a-z][^\n]*[^.\n]$/);
  expect(error.hints.length).toBeGreaterThan(0);
  return error;
}

/** Puts a program named tailscale into a folder of PATH. */
async function program(script: string, name = 'bin/tailscale'): Promise<string> {
  const file = path.join(root, name);
  await fs.mkdir(path.dirname(file), { recursive: true });
  await fs.writeFile(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path.dirname(file);
}

/** Runs as a user to whom file modes apply, even if the tests run as root. */
async function unprivileged(work: () => Promise<void>): Promise<void> {
  const byRoot = process.getuid?.() === 0;
  await fs.chmod(root, 0o755);
  if (byRoot) process.seteuid?.(65_534);
  try {
    await work();
  } finally {
    if (byRoot) process.seteuid?.(0);
  }
}

const linuxSocket = 'var/run/tailscale/tailscaled.sock';

describe('tailscaled is found', () => {
  test('at the socket in TS_SOCKET, with the header that tailscaled requires', async () => {
    const tailscaled = await daemon({ peers: [{ hostName: 'tka', addresses: ['100.64.0.2'], tags: ['tag:tka'] }] });
    const status = await ask(at(tailscaled));
    expect(status.suffix).toBe('example.ts.net');
    expect(status.self.hostName).toBe('laptop');
    expect(status.peers.map(({ dnsName, tags }) => [dnsName, tags])).toEqual([
      ['laptop.example.ts.net', []],
      ['tka.example.ts.net', ['tag:tka']],
    ]);
    expect(tailscaled.counts).toMatchObject({ status: 1, refused: 0, other: 0 });
  });

  test.each([
    ['linux', linuxSocket],
    ['linux', 'run/tailscale/tailscaled.sock'],
    ['darwin', 'var/run/tailscaled.socket'],
  ] as const)('on %s at %s', async (platform, socket) => {
    await daemon({ socketPath: path.join(root, socket) });
    expect((await ask({ platform })).self.hostName).toBe('laptop');
  });

  test('only at the socket in TS_SOCKET, if set', async () => {
    await daemon({ socketPath: path.join(root, linuxSocket) });
    const bin = await program(`: > ${root}/ran`);
    const error = await problemOf(ask({ env: { PATH: bin, TS_SOCKET: path.join(root, 'none') } }));
    expect(error.problem).toBe('not-running');
    expect(error.message).toContain('in TS_SOCKET (ENOENT)');
    await expect(fs.access(path.join(root, 'ran'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('at the default place if TS_SOCKET is empty', async () => {
    await daemon({ socketPath: path.join(root, linuxSocket) });
    expect((await ask({ env: { TS_SOCKET: '' } })).self.hostName).toBe('laptop');
  });

  test.each(['symlink', 'file'])('in the macOS app, at its port with its password (%s)', async (kind) => {
    const app = await daemon({ password: 'same-user' });
    const folder = path.join(root, 'Library/Tailscale');
    await fs.mkdir(folder, { recursive: true });
    if (kind === 'symlink') await fs.symlink(String(app.port), path.join(folder, 'ipnport'));
    else await fs.writeFile(path.join(folder, 'ipnport'), `${app.port}\n`);
    await fs.writeFile(path.join(folder, `sameuserproof-${app.port}`), 'same-user\n');
    expect((await ask({ platform: 'darwin' })).self.hostName).toBe('laptop');
    expect(app.counts).toMatchObject({ status: 1, refused: 0 });

    await fs.writeFile(path.join(folder, `sameuserproof-${app.port}`), 'another');
    const error = await problemOf(ask({ platform: 'darwin' }));
    expect(error).toMatchObject({ problem: 'denied', message: 'tailscaled refuses to answer: bad password' });
  });

  test.each(['0', '65536', '-1', 'x', '80/../x', '', '1e3', ' 80'])('not at the invalid port %j', async (port) => {
    const folder = path.join(root, 'Library/Tailscale');
    await fs.mkdir(folder, { recursive: true });
    await fs.writeFile(path.join(folder, 'ipnport'), port);
    expect((await problemOf(ask({ platform: 'darwin' }))).problem).toBe('absent');
  });

  test('not in a file that never ends', async () => {
    const folder = path.join(root, 'Library/Tailscale');
    await fs.mkdir(folder, { recursive: true });
    await fs.symlink('/dev/zero', path.join(folder, 'ipnport'));
    expect((await problemOf(ask({ platform: 'darwin' }))).problem).toBe('absent');
  });
});

describe('a missing tailscaled is explained', () => {
  test.each<[NodeJS.Platform, string]>([
    ['linux', 'sudo systemctl start tailscaled'],
    ['darwin', 'open the Tailscale app'],
    ['win32', 'open the Tailscale app'],
  ])('on %s', async (platform, start) => {
    const error = await problemOf(ask({ platform }));
    expect(error).toMatchObject({ problem: 'absent', message: 'tailscale is not installed, or not running' });
    expect(error.hints.join()).toContain(start);
    expect(error.hints.join()).toContain('tailscale up');
  });

  test('for a file in place of the socket', async () => {
    await fs.writeFile(path.join(root, 'file'), '');
    const error = await problemOf(ask({ env: { TS_SOCKET: path.join(root, 'file') } }));
    expect(error.problem).toBe('not-running');
  });

  test('for a socket without a listener, and for one whose path is too long', async () => {
    const dead = path.join(root, linuxSocket);
    const tailscaled = await daemon({ socketPath: dead });
    // The file that a killed tailscaled leaves, without a listener.
    await fs.link(dead, `${dead}.kept`);
    await tailscaled.stop();
    expect((await problemOf(ask({ env: { TS_SOCKET: `${dead}.kept` } }))).message).toContain('ECONNREFUSED');
    expect((await problemOf(ask({ env: { TS_SOCKET: `/${'x'.repeat(500)}` } }))).problem).toBe('not-running');
    expect((await problemOf(ask())).problem).toBe('absent');
  });

  test('for a stopped daemon, until it starts again', async () => {
    const tailscaled = await daemon();
    await tailscaled.stop();
    expect((await problemOf(ask(at(tailscaled)))).problem).toBe('not-running');
    await tailscaled.start();
    expect((await ask(at(tailscaled))).self.hostName).toBe('laptop');
  });

  test('for a socket without permission', async () => {
    const socketPath = path.join(root, linuxSocket);
    await daemon({ socketPath });
    await fs.chmod(socketPath, 0);
    await unprivileged(async () => {
      const error = await problemOf(ask());
      expect(error).toMatchObject({
        problem: 'denied',
        message: `permission denied on tailscaled's socket ${socketPath}`,
      });
      expect(error.hints).toEqual([`check its permissions: ls -l ${socketPath}`]);
      expect((await problemOf(ask({ env: { TS_SOCKET: socketPath } }))).problem).toBe('denied');
    });
  });

  test('for a socket without permission, to the tailscale command too', async () => {
    const socketPath = path.join(root, linuxSocket);
    await daemon({ socketPath });
    await fs.chmod(socketPath, 0);
    const bin = await program('exit 1');
    await unprivileged(async () => {
      expect((await problemOf(ask({ env: { PATH: bin } }))).problem).toBe('denied');
    });
  });
});

describe('an answer of tailscaled', () => {
  test.each<[string, TailscaleProblem]>([
    ['Stopped', 'stopped'],
    ['NeedsLogin', 'needs-login'],
    ['NeedsMachineAuth', 'needs-approval'],
    ['Starting', 'starting'],
    ['NoState', 'starting'],
  ])('%s', async (backendState, problem) => {
    const tailscaled = await daemon({ backendState });
    expect((await problemOf(ask(at(tailscaled)))).problem).toBe(problem);
    tailscaled.backendState = 'Running';
    expect((await ask(at(tailscaled))).self.online).toBe(true);
  });

  test('that never comes ends at the timeout', async () => {
    const tailscaled = await daemon();
    tailscaled.fault = { silent: true };
    const error = await problemOf(ask({ ...at(tailscaled), timeout: 100 }));
    expect(error.problem).toBe('no-answer');
    expect(error.message).toMatch(/within 0\.1 s\)$/);
  });

  test('that trickles in ends at the timeout', async () => {
    const tailscaled = await daemon();
    tailscaled.fault = { trickleMs: 20 };
    expect((await problemOf(ask({ ...at(tailscaled), timeout: 150 }))).problem).toBe('no-answer');
  });

  test('that stops halfway ends at the timeout', async () => {
    const tailscaled = await daemon();
    for (const fault of [{ truncate: true }, { reset: 'before' }, { reset: 'middle' }] as const) {
      tailscaled.fault = fault;
      expect((await problemOf(ask(at(tailscaled)))).problem).toBe('no-answer');
    }
  });

  test('that is not a status is unreadable', async () => {
    const tailscaled = await daemon();
    tailscaled.fault = { notJson: true };
    expect((await problemOf(ask(at(tailscaled)))).message).toBe("tailscaled's status cannot be read (not JSON)");
    tailscaled.fault = { change: () => [] };
    expect((await problemOf(ask(at(tailscaled)))).problem).toBe('unreadable');
    for (const [status, problem] of [
      [500, 'unreadable'],
      [404, 'unreadable'],
      [302, 'unreadable'],
      [403, 'denied'],
    ] as const) {
      tailscaled.fault = { answer: { status, body: 'no \u001b[31mstatus\n' } };
      const error = await problemOf(ask(at(tailscaled)));
      expect(error.problem).toBe(problem);
      expect(error.message).not.toContain('\u001b');
    }
  });

  test('that is too large is refused', async () => {
    const tailscaled = await daemon();
    tailscaled.fault = { oversizeMiB: 70 };
    const error = await problemOf(ask({ ...at(tailscaled), timeout: 20_000 }));
    expect(error).toMatchObject({ problem: 'unreadable', message: 'tailscaled sent more than 64 MiB' });
  });

  test('that is not HTTP ends at the timeout', async () => {
    const server = createNetServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end('SSH-2.0-x\r\n'),
    );
    const socket = path.join(root, 's');
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    closing.push(() => new Promise((resolve) => server.close(resolve)));
    expect((await problemOf(ask({ env: { TS_SOCKET: socket } }))).problem).toBe('no-answer');
  });

  test('with a loopback address is trusted from a named socket only', async () => {
    const tailscaled = await daemon({
      socketPath: path.join(root, linuxSocket),
      peers: [{ hostName: 'tka', addresses: ['127.0.0.11', '100.64.0.2', '10.0.0.1'] }],
    });
    const addresses = async (more: Partial<StatusOptions>) =>
      (await ask(more)).peers.find(({ hostName }) => hostName === 'tka')?.addresses;
    expect(await addresses({})).toEqual(['100.64.0.2']);
    expect(await addresses(at(tailscaled))).toEqual(['127.0.0.11', '100.64.0.2']);
  });

  test('may list 20,000 devices', async () => {
    const tailscaled = await daemon();
    tailscaled.peers = Array.from({ length: 20_000 }, (_, i) => ({
      hostName: `host-${i}`,
      addresses: [`100.${64 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`, `fd7a:115c:a1e0::${i.toString(16)}`],
      tags: ['tag:x'],
    }));
    expect((await ask({ ...at(tailscaled), timeout: 20_000 })).peers).toHaveLength(20_001);
  });
});

describe('the tailscale command as the last resort', () => {
  const document = JSON.stringify({ BackendState: 'Running', Self: { DNSName: 'by-command.ts.net.' } });

  test('is used if no socket answers', async () => {
    const bin = await program(`[ "$*" = "status --json" ] && [ "$TAILSCALE_BE_CLI" = 1 ] && echo '${document}'`);
    expect((await ask({ env: { PATH: `/nonexistent:${bin}` } })).self.hostName).toBe('by-command');
  });

  test('is not used if a socket answers, whatever the answer', async () => {
    const bin = await program(`echo '${document}'`);
    const tailscaled = await daemon({ socketPath: path.join(root, linuxSocket), backendState: 'Stopped' });
    expect((await problemOf(ask({ env: { PATH: bin } }))).problem).toBe('stopped');
    tailscaled.fault = { silent: true };
    expect((await problemOf(ask({ env: { PATH: bin }, timeout: 100 }))).problem).toBe('no-answer');
  });

  test('is the app itself on macOS', async () => {
    await program(`echo '${document}'`, 'Applications/Tailscale.app/Contents/MacOS/Tailscale');
    expect((await ask({ platform: 'darwin' })).self.hostName).toBe('by-command');
    expect((await problemOf(ask({ platform: 'linux' }))).problem).toBe('absent');
  });

  test('is searched in absolute folders only', async () => {
    const bin = await program(`echo '${document}'`);
    const relative = path.relative(process.cwd(), bin);
    expect((await problemOf(ask({ env: { PATH: `.:${relative}::` } }))).problem).toBe('absent');
    await fs.chmod(path.join(bin, 'tailscale'), 0o644);
    expect((await problemOf(ask({ env: { PATH: bin } }))).problem).toBe('absent');
    await fs.rm(path.join(bin, 'tailscale'));
    await fs.mkdir(path.join(bin, 'tailscale'));
    expect((await problemOf(ask({ env: { PATH: bin } }))).problem).toBe('absent');
  });

  test('reports that Tailscale is installed but not running', async () => {
    const bin = await program('echo "failed to connect to local tailscaled" >&2; exit 1');
    const error = await problemOf(ask({ env: { PATH: bin } }));
    expect(error).toMatchObject({ problem: 'not-running', message: 'tailscale is installed, but not running' });
    expect(error.hints).toEqual(['start it: sudo systemctl start tailscaled']);
  });

  test('reports its own states and unreadable output', async () => {
    const stopped = await program(`echo '{"BackendState":"Stopped"}'`);
    expect((await problemOf(ask({ env: { PATH: stopped } }))).problem).toBe('stopped');
    const nonsense = await program('echo usage: tailscale');
    expect((await problemOf(ask({ env: { PATH: nonsense } }))).problem).toBe('unreadable');
  });

  test('is stopped if it takes too long or prints too much', async () => {
    const slow = await program('sleep 60');
    expect(await problemOf(ask({ env: { PATH: `${slow}:/usr/bin:/bin` }, timeout: 300 }))).toMatchObject({
      problem: 'no-answer',
      message: expect.stringMatching(/^tailscale status did not end within 0\.\d s$/),
    });
    const endless = await program('yes', 'endless/tailscale');
    expect((await problemOf(ask({ env: { PATH: `${endless}:/usr/bin:/bin` }, timeout: 20_000 }))).problem).toBe(
      'unreadable',
    );
  });

  test('drops addresses of this machine', async () => {
    const own = { BackendState: 'Running', Self: { DNSName: 'a.ts.net', TailscaleIPs: ['127.0.0.1', '100.64.0.1'] } };
    const bin = await program(`echo '${JSON.stringify(own)}'`);
    expect((await ask({ env: { PATH: bin } })).self.addresses).toEqual(['100.64.0.1']);
  });
});

describe('any other request', () => {
  test('returns its status and text', async () => {
    const tailscaled = await daemon();
    const answer = await localRequest('/localapi/v0/prefs', options(at(tailscaled)));
    expect(answer).toEqual({ status: 404, body: '404 page not found\n' });
    expect(tailscaled.counts.other).toBe(1);
  });

  test('is logged without its answer', async () => {
    logged.length = 0;
    const tailscaled = await daemon();
    await ask(at(tailscaled));
    expect(logged).toEqual([
      expect.stringMatching(/^GET \/localapi\/v0\/status at \S+: 200, \d+ characters, [\d.]+ ms$/),
    ]);
  });
});

test('the stand-in refuses what tailscaled refuses', async () => {
  const { request } = await import('node:http');
  const tailscaled = await daemon();
  const status = (headers: Record<string, string>) =>
    new Promise((resolve, reject) => {
      request({ socketPath: tailscaled.socketPath, path: '/localapi/v0/status', headers, agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on('error', reject)
        .end();
    });
  expect(await status({ host: 'local-tailscaled.sock' })).toBe(200);
  expect(await status({ host: 'localhost' })).toBe(403);
  expect(await status({ host: 'local-tailscaled.sock', origin: 'http://x' })).toBe(403);
  expect(await status({ host: 'local-tailscaled.sock', referer: 'http://x/' })).toBe(403);
  expect(tailscaled.counts).toMatchObject({ status: 4, refused: 3, other: 0 });
});
