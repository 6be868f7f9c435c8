// The handshake by hand, apart from the code under test: it pins the wire format, and sends what no honest side would.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { type FederationKey, sign } from '../../../src/server/federation/keys.ts';
import { authority, ownKey, statement } from './fixture.ts';

export const upgrade =
  'GET /tka-federation/v1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tka-federation/1\r\n\r\n';

/** What is signed: SHA-256 of the role, the TLS exporter, and the lines so far. */
export function transcript(side: 'login' | 'joined', exporter: Buffer, lines: readonly string[]): Buffer {
  const text = Buffer.from(lines.map((line) => `${line}\n`).join(''));
  return createHash('sha256')
    .update(Buffer.concat([Buffer.from(`tka-federation/1 ${side}\n`), exporter, text]))
    .digest();
}

export const exporterOf = (socket: TLSSocket): Buffer =>
  socket.exportKeyingMaterial(32, 'EXPORTER-tka-federation', Buffer.alloc(0));

export const id = (letter: string): string => `${letter.repeat(21)}A`;

/** A good first message, with changes. */
export const helloOf = (more: Record<string, unknown> = {}): string =>
  JSON.stringify({
    kind: 'dial',
    cluster: 'alpha',
    replica: 'tka-0',
    nonce: id('n'),
    time: Date.now(),
    publicKey: ownKey.publicKey,
    tunnel: id('t'),
    statement,
    primary: 'primary',
    ...more,
  });

/** Resolves when a connection is closed. (`once` rejects if it ends with an error.) */
export function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once('close', () => resolve());
  });
}

/** Resolves when there is something to read, or nothing more will come. */
function changed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const over = (): void => {
      for (const event of ['data', 'end', 'close']) socket.off(event, over);
      resolve();
    };
    for (const event of ['data', 'end', 'close']) socket.on(event, over);
  });
}

/** A TLS connection to a listener, with reading by lines. */
export class RawClient {
  readonly socket: TLSSocket;
  #text = '';

  constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.setEncoding('latin1');
    socket.on('error', () => {});
    socket.on('data', (text) => {
      this.#text += text;
    });
  }

  /** Everything that has come and was not read as a line. */
  get rest(): string {
    return this.#text;
  }

  write(text: string): this {
    this.socket.write(text);
    return this;
  }

  /** Resolves with the text up to the end mark, or undefined if the connection ends before. */
  async until(end: string): Promise<string | undefined> {
    for (;;) {
      const at = this.#text.indexOf(end);
      if (at >= 0) {
        const found = this.#text.slice(0, at);
        this.#text = this.#text.slice(at + end.length);
        return found;
      }
      if (this.socket.destroyed || this.socket.readableEnded) return undefined;
      await changed(this.socket);
    }
  }

  line = (): Promise<string | undefined> => this.until('\n');

  /** Resolves when the connection is closed. */
  closed(): Promise<void> {
    return closed(this.socket);
  }

  /** Sends the first message. Resolves with the lines so far: the own one, and two of the login server. */
  async hello(text = helloOf()): Promise<string[]> {
    this.write(upgrade);
    await this.until('\r\n\r\n');
    this.write(`${text}\n`);
    return [text, (await this.line()) ?? '', (await this.line()) ?? ''];
  }

  /** Proves the key for these lines. */
  prove(lines: readonly string[], key: FederationKey = ownKey, more: Record<string, unknown> = {}): this {
    const signature = sign(key, transcript('joined', exporterOf(this.socket), lines));
    return this.write(`${JSON.stringify({ signature, ...more })}\n`);
  }
}

export async function rawClient(port: number, more: ConnectionOptions = {}): Promise<RawClient> {
  const socket = connect({ port, host: '127.0.0.1', ca: authority.ca, servername: 'localhost', ...more });
  await once(socket, 'secureConnect');
  return new RawClient(socket);
}
