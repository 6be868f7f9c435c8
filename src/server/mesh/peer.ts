// Sends one message to a peer and reads its answer.
import { connect, type Socket } from 'node:net';
import { Client, type Dispatcher, errors } from 'undici';
import { hostOf } from '../../util/url.ts';
import { dispatcherOptions, send, untilAborted } from '../outgoing.ts';
import { gossipPath } from './face.ts';
import { checkTag, Denied, type Gate } from './gate.ts';
import { instanceHeader, sealHeader, sealText, whichProcess } from './seal.ts';
import { messageLimit } from './wire.ts';

/**
 * Opens a connection to a peer. `address` and `port` are what to ask whois about: the peer's own, even if a proxy is in
 * between.
 */
export type Dial = (
  host: string,
  port: number,
  signal: AbortSignal,
) => Promise<{ readonly socket: Socket; readonly address: string; readonly port: number }>;

/** Connects directly, without a proxy. */
export const dialDirectly: Dial = (host, port, signal) =>
  new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal });
    socket.once('error', reject).once('connect', () => {
      socket.off('error', reject);
      resolve({ socket, address: socket.remoteAddress ?? '', port: socket.remotePort ?? port });
    });
  });

// Peers can report any address, so limit how many instances we remember. All members must fit, even if all restart.
const addressLimit = 20_000;

export interface PostOptions {
  readonly gate: Gate;
  readonly dial: Dial;
  /** Default: `gossipPath`. */
  readonly path?: string;
  /** Maximum size of the answer, in bytes. Default: that of a message. */
  readonly limit?: number;
  /** Aborts the exchange at any stage. */
  readonly signal: AbortSignal;
}

/** An answer, and the name of the tailnet node that gave it. The name is undefined if only the shared key decides. */
export interface PeerAnswer {
  readonly body: Buffer;
  readonly node: string | undefined;
}

/**
 * Sends a message to the peer at `host:port` and returns its answer. Throws Denied if the peer is not in the mesh (it
 * learns nothing), and the system's error if the connection fails.
 */
export async function post(address: string, body: Buffer, options: PostOptions): Promise<PeerAnswer> {
  const { gate } = options;
  if (!('key' in gate)) return await postOnce(address, body, undefined, options);
  const known = gate.instances.get(address);
  try {
    // A seal is for one process. If we do not know the process there yet, an empty request asks for its ID.
    return await postOnce(address, known === undefined ? Buffer.alloc(0) : body, known, options);
  } catch (error) {
    // The process is new there, or has restarted. Its second answer is final.
    const instance = gate.instances.get(address);
    if (!(error instanceof Denied && error.status === 401) || instance === undefined || instance === known) throw error;
    return await postOnce(address, body, instance, options);
  }
}

/**
 * Uses a new connection for each exchange, because the tag is checked for the connection before anything is sent on it.
 */
async function postOnce(
  address: string,
  body: Buffer,
  instance: string | undefined,
  { gate, dial, path = gossipPath, limit = messageLimit, signal }: PostOptions,
): Promise<PeerAnswer> {
  const { origin, host, port } = originOf(address);
  const dialling = dial(host, port, signal);
  const to = await untilAborted(signal, dialling).catch((error) => {
    // Close a connection that opens too late.
    dialling.then(({ socket }) => socket.destroy()).catch(() => {});
    throw error;
  });
  // Without a listener, a socket error before the request would crash the process.
  to.socket.on('error', () => {});
  const client = new Client(origin, {
    ...dispatcherOptions,
    maxResponseSize: limit,
    connect: (_, callback) => {
      // Not synchronously: undici would not notice the connection until the next event. It never opens a second
      // connection.
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
    const request = { method: 'POST', path, headers, body, reset: true } as const;
    const response = await send(client, request, signal);
    if ('key' in gate && response.statusCode === 401) {
      const told = response.headers[instanceHeader];
      if (gate.instances.size >= addressLimit) gate.instances.clear();
      if (typeof told === 'string' && /^[\w-]{22}$/.test(told)) gate.instances.set(address, told);
    }
    const answer = await answerOf(response);
    if ('key' in gate && !(seal !== undefined && gate.key.isAnswer(seal, response.headers[sealHeader], answer))) {
      throw new Denied(401, 'its answer is not sealed with the shared key');
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
  // Without a listener, a body error would crash the process.
  body.on('error', () => {});
  // Explain these statuses. Do not show the peer's own text, because the peer may be a stranger.
  if (statusCode === 401)
    throw new Denied(401, 'it has a different gossip.key, or its clock differs by more than 5 minutes');
  if (statusCode === 403)
    throw new Denied(403, 'it does not accept this node as a member: check that all members have the same tag');
  if (statusCode === 404) throw new Denied(404, 'it uses another version of the gossip protocol: update all members');
  if (statusCode !== 200) throw new Error(`it answered HTTP ${statusCode}`);
  try {
    return Buffer.from(await body.arrayBuffer());
  } catch (error) {
    if (error instanceof errors.ResponseExceededMaxSizeError) throw new Error('its answer is too long');
    throw error;
  }
}
