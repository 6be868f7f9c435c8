// One message to a peer, and its answer.
import { connect, type Socket } from 'node:net';
import { Client, type Dispatcher, errors } from 'undici';
import { hostOf } from '../../util/url.ts';
import { dispatcherOptions, send, untilAborted } from '../outgoing.ts';
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

// Peers report addresses; a restart of all members must fit.
const addressLimit = 20_000;

export interface PostOptions {
  readonly gate: Gate;
  readonly dial: Dial;
  /** Ends the exchange, whatever it is at. */
  readonly signal: AbortSignal;
}

/** An answer, and the name of the tailnet's node that it comes from; undefined where the key alone decides. */
export interface PeerAnswer {
  readonly body: Buffer;
  readonly node: string | undefined;
}

/**
 * Returns the answer of the peer at `host:port` to a message. Throws Denied for one that is not of the mesh (it is not told
 * anything), and the system's error.
 */
export async function post(address: string, body: Buffer, options: PostOptions): Promise<PeerAnswer> {
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

/** Each exchange has a connection of its own: the tag is checked for the connection before anything is sent on it. */
async function postOnce(
  address: string,
  body: Buffer,
  instance: string | undefined,
  { gate, dial, signal }: PostOptions,
): Promise<PeerAnswer> {
  const { origin, host, port } = originOf(address);
  const dialling = dial(host, port, signal);
  const to = await untilAborted(signal, dialling).catch((error) => {
    // A connection that comes too late is not used.
    dialling.then(({ socket }) => socket.destroy()).catch(() => {});
    throw error;
  });
  // Without a listener, an error of the socket before the request would crash the process.
  to.socket.on('error', () => {});
  const client = new Client(origin, {
    ...dispatcherOptions,
    maxResponseSize: messageLimit,
    connect: (_, callback) => {
      // Not at once: undici would not notice the connection until something else happens. A second connection is never made.
      queueMicrotask(() => {
        if (to.socket.destroyed) callback(new Error('the connection was closed'), null);
        else callback(null, to.socket);
      });
    },
  });
  try {
    const checking = 'key' in gate ? undefined : checkTag(gate.whois, gate.tag, to.address, to.port);
    const node = checking && (await untilAborted(signal, checking));
    const seal = 'key' in gate && instance !== undefined ? gate.key.seal(body, instance) : undefined;
    const headers = {
      'Content-Type': 'application/json',
      ...('key' in gate && { [sealHeader]: seal === undefined ? whichProcess : sealText(seal) }),
    };
    const request = { method: 'POST', path: gossipPath, headers, body, reset: true } as const;
    const response = await send(client, request, signal);
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
    to.socket.destroy();
    client.destroy().catch(() => {});
  }
}

function originOf(address: string) {
  const url = new URL(`http://${address}`);
  return { origin: url.origin, host: hostOf(url), port: Number(url.port || 80) };
}

async function answerOf({ statusCode, body }: Dispatcher.ResponseData): Promise<Buffer> {
  // Without a reader, an error of the body would crash the process.
  body.on('error', () => {});
  // The two that tell a person something. Text from there is not shown: it might be anybody's.
  if (statusCode === 401) throw new Denied(401, 'it has another gossip.key, or a clock more than 5 minutes from ours');
  if (statusCode === 403)
    throw new Denied(403, 'it does not take us for a member: is this node tagged as the others are?');
  if (statusCode === 404) throw new Denied(404, 'it speaks another version of the gossip: are all members up to date?');
  if (statusCode !== 200) throw new Error(`it answered HTTP ${statusCode}`);
  try {
    return Buffer.from(await body.arrayBuffer());
  } catch (error) {
    if (error instanceof errors.ResponseExceededMaxSizeError) throw new Error('its answer is too long');
    throw error;
  }
}
