// A connection from a joined cluster's server to the login server, up to the handshake's end.
import { lookup } from 'node:dns/promises';
import { TLSSocket } from 'node:tls';
import { failureOf, seconds, Unavailable } from '../../network/failure.ts';
import { type Network, openNetwork } from '../../network/network.ts';
import { readAuthorities } from '../../network/tls.ts';
import { HandshakeError } from '../../network/wire.ts';
import { TkaError } from '../../util/errors.ts';
import { HandshakeFailure } from './handshake.ts';
import type { JoinOptions, KeepTunnelsOptions } from './options.ts';

/** Why a dial failed: a code for metrics, and a line for people. */
export interface DialFailure {
  readonly code: string;
  readonly message: string;
}

type Options = Pick<JoinOptions | KeepTunnelsOptions, 'endpoint' | 'caFile' | 'env' | 'log'>;

/** Connects to the login server, directly or through a proxy, with TLS 1.3. */
export class Dialer {
  readonly #options: Options;
  readonly #network: Network;
  /** The Host header: `login.example.com:7947`. */
  readonly host: string;

  constructor(options: Options) {
    const { endpoint, env, log } = options;
    this.#options = options;
    this.host = new URL(endpoint).host;
    this.#network = openNetwork({ env, lookup: inAnyOrder, log: (line) => log.debug({}, line) });
  }

  /** Connects, does the `work`, and closes the connection if that fails. All within `ms`, or until the signal aborts. */
  async dial<T>(ms: number, signal: AbortSignal, work: (socket: TLSSocket) => Promise<T>): Promise<T> {
    const { endpoint, caFile } = this.#options;
    const began = performance.now();
    // The file may be renewed, so it is read each time.
    const ca = caFile === undefined ? undefined : readAuthorities(caFile, 'federation.caFile').join('\n');
    const socket = await this.#network.connect(endpoint, { connectTimeout: ms, ca }, signal);
    // Without a listener the socket's error would end the process. What waits for the socket gets it too.
    socket.on('error', () => {});
    let why: HandshakeFailure | undefined;
    const stop = (failure: HandshakeFailure): void => {
      why ??= failure;
      socket.destroy();
    };
    const late = setTimeout(
      () => stop(new HandshakeFailure('timeout', `did not complete the handshake within ${seconds(ms)}`)),
      Math.max(0, ms - (performance.now() - began)),
    );
    const abort = (): void => stop(new HandshakeFailure('closed', 'is not needed any more'));
    signal.addEventListener('abort', abort, { once: true });
    try {
      if (signal.aborted) abort();
      if (!(socket instanceof TLSSocket) || socket.getProtocol() !== 'TLSv1.3') {
        throw new HandshakeFailure('tls', 'does not speak TLS 1.3');
      }
      return await work(socket);
    } catch (error) {
      socket.destroy();
      throw why ?? error;
    } finally {
      clearTimeout(late);
      signal.removeEventListener('abort', abort);
    }
  }

  /** Returns why a dial failed. */
  failureOf(error: unknown): DialFailure {
    const { host } = this;
    if (error instanceof HandshakeFailure) return { code: error.code, message: `${host} ${error.message}` };
    if (error instanceof HandshakeError) return { code: 'broken', message: `${host} ${error.what}` };
    if (error instanceof Unavailable) return { code: 'proxy', message: error.message };
    if (error instanceof TkaError) return { code: 'settings', message: error.message };
    const { kind, what } = failureOf(error);
    return { code: kind, message: `cannot reach ${host}: ${what}` };
  }
}

/** Resolves a name, with its addresses in random order, so that each of several login servers is reached. */
async function inAnyOrder(host: string) {
  const found = await lookup(host, { all: true });
  return found
    .map((address) => ({ address, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ address }) => address);
}
