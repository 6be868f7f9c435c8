// Limits the connections that have not proved anything yet. When there are too many, a new one pushes out the oldest if
// that is slow, so that slow connections cannot keep others out. Else the new one has to come again.
import { isIPv6, type Socket } from 'node:net';
import { Buckets } from '../http/limits.ts';

export interface StrangerLimits {
  /** Maximum number at once: of all, and from one address. */
  readonly all: number;
  readonly perAddress: number;
  /** New connections from one address: per second in the long run, and in a burst. */
  readonly perSecond: number;
  readonly burst: number;
  /** Milliseconds until a connection must have proved itself. */
  readonly ms: number;
}

interface Stranger {
  readonly socket: Socket;
  readonly from: string;
  readonly since: number;
  readonly late: NodeJS.Timeout;
}

// A handshake takes a few round trips.
const slowMs = 1_000;

export type Pushed = 'rate' | 'crowd' | 'timeout';

/** The connections that have not proved anything yet, the oldest first. */
export class Strangers {
  readonly #limits: StrangerLimits;
  readonly #onPush: (why: Pushed) => void;
  readonly #buckets: Buckets;
  readonly #open = new Map<string, Stranger>();

  constructor(limits: StrangerLimits, onPush: (why: Pushed) => void) {
    this.#limits = limits;
    this.#onPush = onPush;
    this.#buckets = new Buckets(limits.perSecond, limits.burst);
  }

  /** Admits a TCP connection, or closes it. */
  add(socket: Socket): void {
    const from = networkOf(socket.remoteAddress ?? '');
    const { all, perAddress, ms } = this.#limits;
    if ('overMs' in this.#buckets.take(from, 0)) {
      this.#push(socket, 'rate');
      return;
    }
    const open = [...this.#open.values()];
    const same = open.filter((stranger) => stranger.from === from);
    const oldest = same.length >= perAddress ? same[0] : open.length >= all ? open[0] : undefined;
    if (oldest !== undefined) {
      const isSlow = performance.now() - oldest.since > slowMs;
      this.#push(isSlow ? oldest.socket : socket, 'crowd');
      if (!isSlow) return;
    }
    const late = setTimeout(() => this.#push(socket, 'timeout'), ms);
    const key = keyOf(socket);
    this.#open.set(key, { socket, from, late, since: performance.now() });
    socket.once('close', () => {
      clearTimeout(late);
      if (this.#open.get(key)?.socket === socket) this.#open.delete(key);
    });
  }

  /** Notes that a connection has proved itself. Also takes its TLS socket. */
  remove(socket: Socket): void {
    const key = keyOf(socket);
    clearTimeout(this.#open.get(key)?.late);
    this.#open.delete(key);
  }

  /** Closes all. */
  close(): void {
    for (const { socket } of this.#open.values()) socket.destroy();
  }

  #push(socket: Socket, why: Pushed): void {
    this.remove(socket);
    socket.destroy();
    this.#onPush(why);
  }
}

// By address and port, because a connection's TLS socket is another object.
const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;

/** Returns what counts as one address: an IPv4 address, or the /64 network of an IPv6 address (a subscriber's). */
export function networkOf(address: string): string {
  if (!isIPv6(address) || address.includes('.')) return address;
  const [head = '', tail] = address.split('%', 1)[0]?.split('::') ?? [];
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  return `${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}
