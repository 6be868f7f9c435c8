// Real servers on loopback: a server that echoes requests, and proxies.
import { EventEmitter, once } from 'node:events';
import * as http from 'node:http';
import * as https from 'node:https';
import * as net from 'node:net';
import { afterAll } from 'vitest';

export interface Listening {
  readonly port: number;
  /** Settles as soon as `count` connections are open. */
  connections(count: number): Promise<void>;
}

/** Listens on a free loopback port until the tests of the file are over. */
export async function listen(server: net.Server, host = '127.0.0.1'): Promise<Listening> {
  const open = new Set<net.Socket>();
  const changes = new EventEmitter();
  server.on('connection', (socket: net.Socket) => {
    open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => {
      open.delete(socket);
      changes.emit('change');
    });
    changes.emit('change');
  });
  await new Promise<void>((done) => server.listen(0, host, done));
  afterAll(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  return {
    port: (server.address() as net.AddressInfo).port,
    async connections(count) {
      while (open.size !== count) await once(changes, 'change');
    },
  };
}

/** Returns a server that echoes what it was asked. */
export function echo(tls?: { key: string; cert: string }): net.Server {
  const answer: http.RequestListener = (request, response) => {
    const { method, url, headers, httpVersion, socket } = request;
    const sni = (socket as net.Socket & { servername?: string | false }).servername;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ method, url, httpVersion, host: headers.host, sni, headers }));
  };
  return tls === undefined ? http.createServer(answer) : https.createServer(tls, answer);
}

export interface HttpProxyOptions {
  readonly tls?: { key: string; cert: string };
  /** `user:password` that clients must send. */
  readonly login?: string;
  /** Maps `host:port` to a loopback port. Other targets are answered with `unknown`. */
  readonly knows: Readonly<Record<string, number>>;
  readonly unknown?: string;
  /** The answer of a proxy that opens no tunnels; undefined if it opens them. */
  readonly refuses?: string;
}

export interface HttpProxy extends Listening {
  /** `CONNECT host:port`, `GET http://…` in order. */
  readonly asked: string[];
}

/** Starts an HTTP proxy, over TLS if given a certificate. */
export async function httpProxy(options: HttpProxyOptions): Promise<HttpProxy> {
  const asked: string[] = [];
  const { knows, unknown = 'HTTP/1.1 502 Bad Gateway\r\n\r\n' } = options;
  const wanted = options.login && `Basic ${Buffer.from(options.login).toString('base64')}`;
  const answer: http.RequestListener = (request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(405).end();
  };
  const server = options.tls === undefined ? http.createServer(answer) : https.createServer(options.tls, answer);
  server.on('connect', (request: http.IncomingMessage, socket: net.Socket, rest: Buffer) => {
    asked.push(`CONNECT ${request.url}`);
    socket.on('error', () => {});
    if (wanted !== undefined && request.headers['proxy-authorization'] !== wanted) {
      return socket.resume().end('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n');
    }
    if (options.refuses !== undefined) return socket.resume().end(options.refuses);
    const to = knows[request.url ?? ''];
    if (to === undefined) return socket.resume().end(unknown);
    const onward = net.connect(to, '127.0.0.1', () => socket.write('HTTP/1.1 200 Connection established\r\n\r\n'));
    onward.write(rest);
    join(socket, onward);
    return undefined;
  });
  return { ...(await listen(server)), asked };
}

export interface SocksOptions {
  readonly login?: { user: string; password: string };
  readonly knows: Readonly<Record<string, number>>;
  /** The reply code for unknown targets; default 4. */
  readonly unknown?: number;
  /** The address type in its replies. */
  readonly bound?: 1 | 3 | 4;
  /** Sends each byte separately. */
  readonly drip?: boolean;
}

export interface Socks extends Listening {
  /** `type host:port`, type 1 (IPv4), 3 (name) or 4 (IPv6), in order. */
  readonly asked: string[];
}

/** Starts a SOCKS5 proxy (RFC 1928, 1929). */
export async function socksProxy(options: SocksOptions): Promise<Socks> {
  const asked: string[] = [];
  const server = net.createServer((socket) => {
    socket.setNoDelay(true);
    serve(socket, options, asked).catch(() => socket.destroy());
  });
  return { ...(await listen(server)), asked };
}

const boundAddress = { 1: [1, 127, 0, 0, 1], 3: [3, 2, 104, 105], 4: [4, ...new Array(15).fill(0), 1] };

async function serve(socket: net.Socket, options: SocksOptions, asked: string[]): Promise<void> {
  const { login, knows, unknown = 4, bound = 1 } = options;
  const send = (...bytes: number[]) => (options.drip ? drip(socket, bytes) : socket.write(Buffer.from(bytes)));
  const take = reader(socket);
  const [, count = 0] = await take(2);
  const methods = [...(await take(count))];
  const method = login === undefined ? 0 : 2;
  if (!methods.includes(method)) return void socket.end(Buffer.from([5, 0xff]));
  await send(5, method);
  if (login !== undefined) {
    const [, userLength = 0] = await take(2);
    const user = (await take(userLength)).toString();
    const password = (await take((await take(1))[0] ?? 0)).toString();
    const right = user === login.user && password === login.password;
    await send(1, right ? 0 : 1);
    if (!right) return void socket.end();
  }
  const [, , , type] = await take(4);
  let host: string;
  if (type === 1) host = [...(await take(4))].join('.');
  else if (type === 3) host = (await take((await take(1))[0] ?? 0)).toString();
  else host = (await take(16)).toString('hex').replace(/(....)(?!$)/g, '$1:');
  const port = (await take(2)).readUInt16BE();
  asked.push(`${type} ${host}:${port}`);
  const to = knows[`${host}:${port}`];
  if (to === undefined) {
    await send(5, unknown, 0, 1, 0, 0, 0, 0, 0, 0);
    return void socket.end();
  }
  const onward = net.connect(to, '127.0.0.1');
  await once(onward, 'connect');
  socket.pause().removeAllListeners('data');
  await send(5, 0, 0, ...boundAddress[bound], 4, 56);
  join(socket, onward);
}

async function drip(socket: net.Socket, bytes: readonly number[]): Promise<void> {
  for (const byte of bytes) {
    await new Promise<void>((sent) => socket.write(Buffer.from([byte]), () => setImmediate(sent)));
  }
}

// Reads a client's bytes in the units of the protocol. Bytes that arrive too early are a client error.
function reader(socket: net.Socket): (count: number) => Promise<Buffer> {
  let held: Buffer = Buffer.alloc(0);
  let wake = () => {};
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    wake();
  });
  socket.on('close', () => wake());
  return async (count) => {
    while (held.length < count) {
      if (socket.destroyed) throw new Error('gone');
      await new Promise<void>((more) => {
        wake = more;
      });
    }
    const bytes = held.subarray(0, count);
    held = held.subarray(count);
    return bytes;
  };
}

function join(a: net.Socket, b: net.Socket): void {
  a.pipe(b);
  b.pipe(a);
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    one.on('error', () => {});
    one.on('close', () => other.destroy());
  }
}

/**
 * Starts a server that sends `text` after the client connects or has sent something, and then does what `then` says.
 */
export async function oddServer(text: string | Buffer, then: 'end' | 'stay' = 'end'): Promise<Listening> {
  return listen(
    net.createServer((socket) => {
      if (text.length === 0 && then === 'end') return void socket.resume().end();
      socket.once('data', () => (then === 'end' ? socket.end(text) : socket.write(text)));
    }),
  );
}

/** Returns a port of 127.0.0.1 without a listener. */
export async function closedPort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
