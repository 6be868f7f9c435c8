// One message to a peer, and its answer.
import { type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { gossipPath } from './face.ts';
import { checkTag, Denied, type Gate } from './gate.ts';
import { instanceHeader, sealHeader, sealText, whichProcess } from './seal.ts';
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

// Peers tell addresses; a restart of all members must fit.
const addressLimit = 20_000;

export interface PostOptions {
  readonly gate: Gate;
  readonly dial: Dial;
  /** Ends the exchange, whatever it is at. */
  readonly signal: AbortSignal;
}

/** An answer, and the name of the tailnet's node that it comes from; undefined where the key alone decides. */
export interface Answered {
  readonly body: Buffer;
  readonly node: string | undefined;
}

/**
 * The answer of the peer at `host:port` to a message. Throws Denied for one that is not of the mesh (it is not told
 * anything), and the system's error.
 */
export async function post(address: string, body: Buffer, options: PostOptions): Promise<Answered> {
  const { gate } = options;
  if (!('key' in gate)) return await postOnce(address, body, undefined, options);
  const known = gate.instances.get(address);
  try {
    // Without knowing which process answers there, nothing can be sealed for it: an empty request asks for its name.
    return await postOnce(address, known === undefined ? Buffer.alloc(0) : body, known, options);
  } catch (error) {
    // It is new there, or has restarted. Its second answer is final.
    const instance = gate.instances.get(address);
    if (!(error instanceof Denied && error.status === 401) || instance === undefined || instance === known) throw error;
    return await postOnce(address, body, instance, options);
  }
}

async function postOnce(
  address: string,
  body: Buffer,
  instance: string | undefined,
  { gate, dial, signal }: PostOptions,
): Promise<Answered> {
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
    const node = 'key' in gate ? undefined : await until(signal, checkTag(gate.whois, gate.tag, to.address, to.port));
    const seal = 'key' in gate && instance !== undefined ? gate.key.seal(body, instance) : undefined;
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = {
        'Content-Type': 'application/json',
        'Content-Length': body.length,
        Connection: 'close',
        ...('key' in gate && { [sealHeader]: seal === undefined ? whichProcess : sealText(seal) }),
      };
      const options = { host, port: to.port, method: 'POST', path: url.pathname, headers, signal };
      request({ ...options, maxHeaderSize: 16 * 1024, createConnection: () => to.socket }, resolve)
        .on('error', reject)
        .end(body);
    });
    if ('key' in gate && response.statusCode === 401) {
      const told = response.headers[instanceHeader];
      if (gate.instances.size >= addressLimit) gate.instances.clear();
      if (typeof told === 'string' && /^[\w-]{22}$/.test(told)) gate.instances.set(address, told);
    }
    const answer = await answerOf(response);
    if ('key' in gate && !(seal !== undefined && gate.key.isAnswer(seal, response.headers[sealHeader], answer))) {
      throw new Denied(401, 'its answer does not carry the seal of the shared key');
    }
    return { body: answer, node: node?.name };
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
  if (statusCode === 404) throw new Denied(404, 'it speaks another version of the gossip: are all members up to date?');
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
