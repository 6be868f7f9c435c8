// The handshake over a TLS connection: an HTTP/1.1 upgrade, then five messages, a line each (messages.ts). Both sides
// sign the TLS exporter (RFC 8446, 7.5), so a signature is worth nothing on any other connection, and everything that
// follows on this connection comes from the holders of the two keys.
import { createHash, randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { readTo } from '../../network/wire.ts';
import type { Admission, ClusterStatement, DialAnswer, JoinAnswer, Refused } from './contract.ts';
import { type FederationKey, sign, verify } from './keys.ts';
import {
  type Hello,
  type LoginHello,
  type Proof,
  readDialAnswer,
  readHello,
  readJoinAnswer,
  readLoginHello,
  readProof,
  readSignatures,
} from './messages.ts';

/** The path of the upgrade, and the protocol with its version. */
export const handshakePath = '/tka-federation/v1';
const protocol = 'tka-federation/1';
/** Maximum difference between the two clocks, in milliseconds. */
export const clockLimitMs = 5 * 60_000;
const headLimit = 8 * 1024;
const lineLimit = 16 * 1024;

/** A handshake that failed. The code is one for metrics. */
export class HandshakeFailure extends Error {
  override readonly name = 'HandshakeFailure';
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Returns 16 random bytes as base64url: a nonce, or the ID of a tunnel. */
export const randomId = (): string => randomBytes(16).toString('base64url');

/** Signs for the login server, or for the joining side: neither signature can be used for the other. */
type Side = 'login' | 'joined';

/** What a side signs: a hash of its role, of the TLS connection, and of all messages so far. */
function transcript(side: Side, socket: TLSSocket, lines: readonly string[]): Buffer {
  // Node's function fails without a clear error on a closed connection.
  if (socket.destroyed) throw new HandshakeFailure('broken', 'closed the connection');
  const hash = createHash('sha256');
  hash.update(`tka-federation/1 ${side}\n`);
  hash.update(socket.exportKeyingMaterial(32, 'EXPORTER-tka-federation', Buffer.alloc(0)));
  // A line contains no line feed.
  for (const line of lines) hash.update(`${line}\n`);
  return hash.digest();
}

/**
 * Sends a message. Resolves with its line when it is written: node:http2 ends the process (an assertion) if it takes over
 * a connection with an unfinished write.
 */
async function send(socket: TLSSocket, message: unknown): Promise<string> {
  const line = JSON.stringify(message);
  await write(socket, `${line}\n`);
  return line;
}

function write(socket: TLSSocket, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Reads the next line. Throws HandshakeFailure if it is too long or is not UTF-8. */
async function receiveLine(socket: TLSSocket): Promise<string> {
  const bytes = await readTo(socket, (bytes) => {
    const end = bytes.indexOf(0x0a);
    if ((end < 0 ? bytes.length : end) > lineLimit) {
      throw new HandshakeFailure('protocol', `sent a message of more than ${lineLimit} bytes`);
    }
    return end < 0 ? undefined : end + 1;
  });
  try {
    return utf8.decode(bytes.subarray(0, -1));
  } catch {
    throw new HandshakeFailure('protocol', 'sent a message that is not UTF-8');
  }
}

/** Reads the head of an HTTP/1.1 message, without the empty line. */
async function receiveHead(socket: TLSSocket): Promise<string[]> {
  const bytes = await readTo(socket, (bytes) => {
    const end = bytes.indexOf('\r\n\r\n');
    if ((end < 0 ? bytes.length : end) > headLimit) {
      throw new HandshakeFailure('protocol', `sent a head of more than ${headLimit} bytes`);
    }
    return end < 0 ? undefined : end + 4;
  });
  return bytes.toString('latin1').slice(0, -4).split('\r\n');
}

const invalid = (what: string) => new HandshakeFailure('protocol', `sent an invalid ${what}`);

/** What the login server knows when a connection comes in. */
export interface Receiver {
  readonly cluster: string;
  readonly replica: string;
  readonly replicas: number;
  readonly keys: readonly FederationKey[];
  readonly admission: Admission;
  /** The address that the connection comes from. */
  readonly address: string;
}

/** A handshake that succeeded at the login server. */
export interface Received {
  readonly hello: Hello;
  /** The public keys that the other side knows now. */
  readonly keys: readonly string[];
}

/**
 * Does the login server's side of the handshake. Resolves when a cluster has joined, or when a tunnel can begin. Throws
 * HandshakeFailure otherwise, after the other side was told; and the socket's error. The signal aborts what the
 * admission does; destroy the socket to abort the rest.
 */
export async function receive(socket: TLSSocket, own: Receiver, signal: AbortSignal): Promise<Received> {
  const { cluster, replica, replicas, keys } = own;
  await acceptUpgrade(socket);
  const first = await receiveLine(socket);
  const receivedAt = Date.now();
  const hello = readHello(first);
  if (hello === undefined) throw invalid('first message');
  const publicKeys = keys.map(({ publicKey }) => publicKey);
  const about: LoginHello = { cluster, replica, replicas, nonce: randomId(), time: receivedAt, keys: publicKeys };
  const second = await send(socket, about);
  const signed = transcript('login', socket, [first, second]);
  const third = await send(socket, { signatures: keys.map((key) => sign(key, signed)) });
  const proof = readProof(await receiveLine(socket));
  if (proof === undefined) throw invalid('proof');
  if (!verify(hello.publicKey, transcript('joined', socket, [first, second, third]), proof.signature)) {
    throw new HandshakeFailure('signature', 'sent a signature that is not valid for its key');
  }
  const answer = refusalOf(hello, cluster, receivedAt) ?? (await decide(hello, proof, own, signal));
  await send(socket, answer);
  if (!answer.ok) throw new HandshakeFailure(answer.code, `was refused: ${answer.message}`);
  return { hello, keys: publicKeys };
}

/** Returns why a connection is refused whatever the admission says. */
function refusalOf({ time, primary }: Hello, cluster: string, receivedAt: number): Refused | undefined {
  const apartMs = Math.abs(time - receivedAt);
  if (apartMs > clockLimitMs) return { ok: false, code: 'clock', message: apart(apartMs) };
  if (primary === undefined || primary === cluster) return undefined;
  return { ok: false, code: 'unavailable', message: `this login server is that of "${cluster}"` };
}

async function decide(
  { kind, cluster, replica, publicKey, statement, tunnel }: Hello,
  { token }: Proof,
  { admission, address }: Receiver,
  signal: AbortSignal,
): Promise<JoinAnswer | DialAnswer> {
  const arrival = { cluster, replica, publicKey, statement, address };
  try {
    if (kind === 'dial') return await admission.dial({ ...arrival, tunnel }, signal);
    if (token === undefined) return { ok: false, code: 'rejected', message: 'there is no join token' };
    return await admission.join({ ...arrival, token }, signal);
  } catch {
    return { ok: false, code: 'unavailable', message: 'the login server cannot decide now' };
  }
}

/** Returns how far apart two clocks are, for a message. */
const apart = (ms: number): string => `the clocks of the two servers are ${Math.round(ms / 60_000)} minutes apart`;

/** Answers the upgrade. Throws HandshakeFailure after any other request has been answered. */
async function acceptUpgrade(socket: TLSSocket): Promise<void> {
  const [request, ...headers] = await receiveHead(socket);
  const has = (name: string, value: string): boolean =>
    headers.some((line) => {
      const colon = line.indexOf(':');
      const values = line.slice(colon + 1).split(',');
      return line.slice(0, colon).toLowerCase() === name && values.some((text) => text.trim().toLowerCase() === value);
    });
  if (request === `GET ${handshakePath} HTTP/1.1` && has('connection', 'upgrade')) {
    if (has('upgrade', protocol)) {
      return await write(
        socket,
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`,
      );
    }
    socket.end(
      `HTTP/1.1 426 Upgrade Required\r\nUpgrade: ${protocol}\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n`,
    );
    throw new HandshakeFailure('version', 'speaks another version of the protocol');
  }
  socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  throw new HandshakeFailure('request', 'sent a request that is not for a tunnel');
}

/** What a cluster's server says when it has connected to the login server. */
export interface Introduction {
  /** The Host header: `login.example.com:7947`. */
  readonly host: string;
  readonly cluster: string;
  readonly replica: string;
  readonly key: FederationKey;
  readonly statement: ClusterStatement;
  /** Returns whether a public key is one of the login server's. */
  readonly isKnown: (publicKey: string) => boolean;
  /** Called when the login server has proved its keys, before this side proves its own. May throw. */
  readonly onProved?: (hello: LoginHello) => void;
}

/** A handshake that succeeded at the joined side. */
export interface Introduced<Answer> {
  readonly hello: LoginHello;
  readonly answer: Answer;
  /** The ID of the tunnel. */
  readonly tunnel: string;
  /** The login server's clock minus this server's clock, in milliseconds. */
  readonly clockOffsetMs: number;
}

/** Does the handshake of a cluster that wants to join. Throws HandshakeFailure, or the socket's error. */
export function introduceToJoin(
  socket: TLSSocket,
  introduction: Introduction,
  token: string,
): Promise<Introduced<JoinAnswer>> {
  return introduce(socket, introduction, { kind: 'join' }, { token }, readJoinAnswer);
}

/** Does the handshake of a joined cluster for a tunnel. Throws HandshakeFailure, or the socket's error. */
export function introduceToDial(
  socket: TLSSocket,
  introduction: Introduction,
  primary: string,
): Promise<Introduced<DialAnswer>> {
  return introduce(socket, introduction, { kind: 'dial', primary }, {}, readDialAnswer);
}

async function introduce<Answer>(
  socket: TLSSocket,
  { host, cluster, replica, key, statement, isKnown, onProved }: Introduction,
  wish: { readonly kind: 'join' } | { readonly kind: 'dial'; readonly primary: string },
  secret: { readonly token?: string },
  readAnswer: (line: string) => Answer | undefined,
): Promise<Introduced<Answer>> {
  await requestUpgrade(socket, host);
  const tunnel = randomId();
  const sentAt = Date.now();
  const { publicKey } = key;
  const about = { cluster, replica, nonce: randomId(), time: sentAt, publicKey, tunnel, statement };
  const first = await send(socket, { ...wish, ...about } satisfies Hello);
  const second = await receiveLine(socket);
  const between = (sentAt + Date.now()) / 2;
  const hello = readLoginHello(second);
  if (hello === undefined) throw invalid('introduction');
  const third = await receiveLine(socket);
  const signatures = readSignatures(third, hello.keys.length);
  if (signatures === undefined) throw invalid('list of signatures');
  const signed = transcript('login', socket, [first, second]);
  if (!hello.keys.every((publicKey, i) => verify(publicKey, signed, signatures[i]))) {
    throw new HandshakeFailure('key', 'does not hold the keys that it names');
  }
  // The signature of a known key covers the list of all keys, so the others are trusted too.
  if (!hello.keys.some(isKnown)) throw new HandshakeFailure('key', 'has another key than this cluster knows');
  if (wish.kind === 'dial' && hello.cluster !== wish.primary) {
    throw new HandshakeFailure('primary', `is that of "${hello.cluster}", not of "${wish.primary}"`);
  }
  const clockOffsetMs = Math.round(hello.time - between);
  if (Math.abs(clockOffsetMs) > clockLimitMs) {
    throw new HandshakeFailure('clock', `cannot be used: ${apart(Math.abs(clockOffsetMs))}`);
  }
  onProved?.(hello);
  await send(socket, { signature: sign(key, transcript('joined', socket, [first, second, third])), ...secret });
  const answer = readAnswer(await receiveLine(socket));
  if (answer === undefined) throw invalid('answer');
  return { hello, answer, tunnel, clockOffsetMs };
}

async function requestUpgrade(socket: TLSSocket, host: string): Promise<void> {
  await write(
    socket,
    `GET ${handshakePath} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`,
  );
  const [status = ''] = await receiveHead(socket);
  const code = /^HTTP\/1\.1 (\d{3})(?: |$)/.exec(status)?.[1];
  if (code === '101') return;
  if (code === '426') throw new HandshakeFailure('version', 'speaks another version of the protocol');
  const what = code === undefined ? 'does not speak HTTP' : `answers HTTP ${code}, so it is not a login server`;
  throw new HandshakeFailure('protocol', what);
}
