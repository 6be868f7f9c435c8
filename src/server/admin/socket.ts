// The administrator's socket. Everybody with access to this user's files can inspect the server and drop a dead member.
// The socket gives out no token, and nothing on the network offers the same.
import { once } from 'node:events';
import * as fs from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { systemCode, TkaError } from '../../util/errors.ts';
import { ensurePrivateFolder } from '../../util/files.ts';
import type { Config } from '../config/config.ts';
import type { Log } from '../log/log.ts';
import type { MemberOverview } from '../mesh/mesh.ts';
import type { MembersView, SignInsView, StatusView } from './views.ts';

/** What the socket reports. A function returns undefined while its value does not exist yet. */
export interface AdminSources {
  readonly status: () => StatusView;
  readonly signIns: () => SignInsView | undefined;
  readonly members: () => readonly MemberOverview[] | undefined;
  /** Forgets a member if it is dead. Returns the state of the member, or undefined if there is no such member. */
  readonly drop: (name: string) => string | undefined;
}

/** Answer to a refused request. */
export interface AdminProblem {
  readonly message: string;
  readonly hints: readonly string[];
}

// sockaddr_un holds 104 bytes on macOS and 108 on Linux, with a zero byte at the end.
const pathLimit = 103;

/** Returns the path of the socket. Default: `/tmp/tka-server-1000/admin.sock`. */
export const socketPath = (config: Config): string =>
  config.get('admin.socket') ?? path.join(os.tmpdir(), `tka-server-${process.getuid?.() ?? ''}`, 'admin.sock');

const statusHint = 'see what it waits for: tka-server status';

const noMesh: AdminProblem = {
  message: 'this server is not in a mesh',
  hints: ['set gossip.enabled: true to join one', statusHint],
};

/** Returns the request listener of the socket. */
export function adminListener({ status, signIns, members, drop }: AdminSources): RequestListener {
  const answerTo = (method: string, route: string): readonly [number, unknown] => {
    if (method === 'GET' && route === '/status') return [200, status()];
    if (method === 'GET' && route === '/sign-ins') {
      const view = signIns();
      return view === undefined ? [503, { message: 'the server is starting', hints: [statusHint] }] : [200, view];
    }
    const known = /^\/members(?:$|\/)/.test(route) ? members() : undefined;
    if (method === 'GET' && route === '/members') {
      return known === undefined ? [409, noMesh] : [200, { members: known } satisfies MembersView];
    }
    const [, escaped] = /^\/members\/([^/]+)$/.exec(route) ?? [];
    if (method === 'DELETE' && escaped !== undefined) {
      if (known === undefined) return [409, noMesh];
      return dropped(decodeURIComponent(escaped), known);
    }
    return [
      404,
      {
        message: 'unknown request: the server may have another version than this program',
        hints: ['tka-server version'],
      },
    ];
  };

  function dropped(name: string, known: readonly MemberOverview[]): readonly [number, unknown] {
    const list = 'tka-server members';
    const member = known.find((one) => one.name === name);
    if (member?.self) return [409, { message: `"${name}" is this server itself`, hints: [list] }];
    const state = drop(name);
    if (state === 'dead') return [200, { dropped: name }];
    if (state === undefined) return [404, { message: `member "${name}" not found`, hints: [list] }];
    const hints = ['only a dead member can be dropped: stop it first, then wait until it is dead', list];
    return [409, { message: `"${name}" is ${state}`, hints }];
  }

  return (request, response) => {
    let answer: readonly [number, unknown];
    try {
      answer = answerTo(request.method ?? '', (request.url ?? '/').split('?', 1)[0] ?? '/');
    } catch {
      answer = [400, { message: 'invalid request', hints: ['tka-server --help'] }];
    }
    const [code, body] = answer;
    response.writeHead(code, { 'Content-Type': 'application/json; charset=utf-8' });
    response.end(JSON.stringify(body));
  };
}

/**
 * Listens on the socket (mode 0600, in a folder with mode 0700). Replaces a socket that a killed server left, but not
 * one on which a process listens. Resolves with a function that closes it, or with undefined if there can be no socket.
 * The log says why then, and the server works without it.
 */
export async function openAdmin(
  file: string,
  listener: RequestListener,
  log: Log,
): Promise<(() => Promise<void>) | undefined> {
  if (process.platform === 'win32') {
    log.info(
      {},
      'the admin socket is not available on Windows: "tka-server status", "members" and "sign-ins" do not work here',
    );
    return undefined;
  }
  const server = createServer(
    { maxHeaderSize: 8 * 1024, requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 1 },
    listener,
  );
  server.maxConnections = 16;
  try {
    await bind(server, file);
    fs.chmodSync(file, 0o600);
    server.on('error', (error) => log.error({ err: error }, 'the admin socket failed'));
    return async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    };
  } catch (error) {
    server.close();
    const hints = [
      '"tka-server status", "members" and "sign-ins" do not work without it; set admin.socket to another path',
    ];
    log.warn({ err: error, socket: file, hints }, 'could not open the admin socket');
    return undefined;
  }
}

async function bind(server: Server, file: string): Promise<void> {
  if (Buffer.byteLength(file) > pathLimit) {
    throw new TkaError(`the path is longer than ${pathLimit} bytes: ${file}`);
  }
  const folder = path.dirname(file);
  ensurePrivateFolder(folder);
  if (fs.lstatSync(folder).isSymbolicLink()) throw new TkaError(`${folder} is a symbolic link`);
  try {
    await listening(server, file);
  } catch (error) {
    if (systemCode(error) !== 'EADDRINUSE') throw error;
    if (!fs.lstatSync(file).isSocket()) throw new TkaError(`${file} is not a socket`);
    if (await isAnswered(file)) throw new TkaError(`another tka-server uses ${file}`);
    fs.rmSync(file, { force: true });
    await listening(server, file);
  }
}

async function listening(server: Server, file: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path: file }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Returns whether a process listens there. */
async function isAnswered(file: string): Promise<boolean> {
  const socket = net.connect({ path: file });
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      // EAGAIN: the backlog is full, so a process listens.
      socket.once('error', (error) => resolve(systemCode(error) === 'EAGAIN'));
    });
  } finally {
    socket.destroy();
  }
}
