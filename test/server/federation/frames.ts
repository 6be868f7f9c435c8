// HTTP/2 frames by hand (RFC 9113), for a peer that sends what no library would.
import type { TLSSocket } from 'node:tls';

export const type = {
  data: 0,
  headers: 1,
  priority: 2,
  rst: 3,
  settings: 4,
  push: 5,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
  altsvc: 10,
  origin: 12,
} as const;
export const endStream = 1;
export const endHeaders = 4;
const ack = 1;
const prefaceBytes = 24;

export function frame(kind: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = kind;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Returns a 32-bit number as bytes. */
export function uint32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, 4 * i);
  return bytes;
}

/** Returns a header block without compression (RFC 7541, 6.2.2). */
export function block(...headers: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(
    headers.flatMap(([name, value]) => [
      Buffer.of(0),
      ...[name, value].flatMap((text) => [size(text), Buffer.from(text)]),
    ]),
  );
}

function size(text: string): Buffer {
  const bytes = [];
  let rest = Buffer.byteLength(text);
  if (rest < 127) return Buffer.of(rest);
  bytes.push(127);
  for (rest -= 127; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.of(...bytes, rest);
}

/** The head of a good answer with this many bytes. */
export const headOf = (length: number, ...more: readonly (readonly [string, string])[]): Buffer =>
  block([':status', '200'], ['content-length', String(length)], ...more);

/** An HTTP/2 server on a connection. It answers settings and pings, unless it is mute. */
export class RawPeer {
  readonly socket: TLSSocket;
  readonly #onRequest: (peer: RawPeer, stream: number) => void;
  #bytes: Buffer = Buffer.alloc(0);
  #hasPreface = false;
  isMute = false;

  constructor(socket: TLSSocket, onRequest: (peer: RawPeer, stream: number) => void) {
    this.socket = socket;
    this.#onRequest = onRequest;
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => this.#read(bytes));
  }

  /** Begins as a good peer does: with its settings. */
  begin(): this {
    return this.send(type.settings, 0, 0);
  }

  send(kind: number, flags: number, stream: number, payload?: Uint8Array): this {
    this.socket.write(frame(kind, flags, stream, payload));
    return this;
  }

  /** Sends the same bytes again and again until the connection is closed. Waits whenever the other side does not read. */
  flood(...bytes: Buffer[]): void {
    const all = Buffer.concat(bytes);
    const chunk = Buffer.concat(Array.from({ length: Math.ceil(65_536 / all.length) }, () => all));
    const fill = (): void => {
      let isFull = false;
      for (let i = 0; i < 64 && !isFull && !this.socket.destroyed; i++) isFull = !this.socket.write(chunk);
      if (this.socket.destroyed) return;
      if (isFull) this.socket.once('drain', fill);
      else setImmediate(fill);
    };
    fill();
  }

  #read(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    if (!this.#hasPreface) {
      if (this.#bytes.length < prefaceBytes) return;
      this.#bytes = this.#bytes.subarray(prefaceBytes);
      this.#hasPreface = true;
    }
    for (;;) {
      if (this.#bytes.length < 9) return;
      const end = 9 + this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < end) return;
      const [kind, flags, stream] = [this.#bytes[3], this.#bytes[4] ?? 0, this.#bytes.readUInt32BE(5)];
      const payload = this.#bytes.subarray(9, end);
      this.#bytes = this.#bytes.subarray(end);
      if (this.isMute) continue;
      if (kind === type.settings && (flags & ack) === 0) this.send(type.settings, ack, 0);
      if (kind === type.ping && (flags & ack) === 0) this.send(type.ping, ack, 0, payload);
      if (kind === type.headers) this.#onRequest(this, stream);
    }
  }
}
