// One message to a peer, and its answer.
import { type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { gossipPath } from './face.ts';
import { checkTag, Denied, type Gate } from './gate.ts';
import { sealHeader, sealText } from './seal.ts';
import { messageLimit } from './wire.ts';

/**
 * Opens a connection to a peer. `address` and `port` are what whois is asked for: where a proxy is between, the peer's
 * own, not the proxy's.
 */
export type Dial = (
  host: string,
  port: number,
  signal: AbortSignal,
) => Promise<{ readonly socket: Socket; readonly address: string; readonly port: number }>;

/** A connection without anything between. */
export const dialDirectly: Dial = (host, port, signal) =>
  new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal });
    socket.once('error', reject).once('connect', () => {
      socket.off('error', reject);
      resolve({ socket, address: socket.remoteAddress ?? '', port: socket.remotePort ?? port });
    });
  });

export interface PostOptions {
  readonly gate: Gate;
  readonly dial: Dial;
  /** Ends the exchange, whatever it is at. */
  readonly signal: AbortSignal;
}

/**
 * The answer of the peer at `host:port` to a message. Throws Denied for one who is not of the mesh (he is not told
 * anything), and the system's error.
 */
export async function post(address: string, body: Buffer, { gate, dial, signal }: PostOptions): Promise<Buffer> {
  const url = new URL(`http://${address}${gossipPath}`);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const dialling = dial(host, Number(url.port || 80), signal);
  const to = await until(signal, dialling).catch((error) => {
    // What comes after all is not used.
    dialling.then(({ socket }) => socket.destroy()).catch(() => {});
    throw error;
  });
  // Before there is a request, nobody else hears of what goes wrong.
  to.socket.on('error', () => {});
  const cut = () => to.socket.destroy();
  signal.addEventListener('abort', cut, { once: true });
  try {
    if (!('key' in gate)) await until(signal, checkTag(gate.whois, gate.tag, to.address, to.port));
    const seal = 'key' in gate ? gate.key.seal(body) : undefined;
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = {
        'Content-Type': 'application/json',
        'Content-Length': body.length,
        Connection: 'close',
        ...(seal !== undefined && { [sealHeader]: sealText(seal) }),
      };
      const options = { host, port: to.port, method: 'POST', path: url.pathname, headers, signal };
      request({ ...options, maxHeaderSize: 16 * 1024, createConnection: () => to.socket }, resolve)
        .on('error', reject)
        .end(body);
    });
    const answer = await answerOf(response);
    if (seal !== undefined && 'key' in gate && !gate.key.isAnswer(seal, response.headers[sealHeader], answer)) {
      throw new Denied(401, 'its answer does not carry the seal of the shared key');
    }
    return answer;
  } finally {
    signal.removeEventListener('abort', cut);
    to.socket.destroy();
  }
}

async function answerOf(response: IncomingMessage): Promise<Buffer> {
  const { statusCode } = response;
  // The two that tell a person something. Text from there is not shown: it might be anybody's.
  if (statusCode === 401) throw new Denied(401, 'it has another gossip.key, or a clock more than 5 minutes from ours');
  if (statusCode === 403)
    throw new Denied(403, 'it does not take us for a member: is this node tagged as the others are?');
  if (statusCode !== 200) throw new Error(`it answered HTTP ${statusCode}`);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += chunk.length;
    if (size > messageLimit) throw new Error('its answer is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function until<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = () => reject(signal.reason);
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}
