// A network in virtual time, from one seed: messages are lost, delayed and duplicated.
import { seeded } from '../../hostile/junk.ts';

export interface NetworkOptions {
  readonly seed: number;
  /** Probability that a message is lost, and that it is duplicated. */
  readonly loss?: number;
  readonly duplicate?: number;
  /** The longest delay of a message, in milliseconds; the shortest is a tenth of it. */
  readonly delayMs?: number;
}

/** One end of a connection. */
export interface Host {
  /** Its part of a split network. */
  part: number;
}

export class Network {
  /** Virtual milliseconds. */
  now = 0;
  /** Total of all messages sent. */
  bytes = 0;
  messages = 0;
  longest = 0;
  readonly random: () => number;
  readonly #options: Required<NetworkOptions>;
  readonly #queue = new Queue();

  constructor(options: NetworkOptions) {
    this.#options = { loss: 0, duplicate: 0, delayMs: 50, ...options };
    this.random = seeded(options.seed);
  }

  after(ms: number, run: () => void): void {
    this.#queue.add(this.now + ms, run);
  }

  /** Runs for `ms` virtual milliseconds. */
  run(ms: number): void {
    this.#queue.runTo(this.now + ms, (at) => {
      this.now = at;
    });
  }

  /** Sends a message from one host to another; it may be lost or duplicated. */
  send(from: Host, to: Host | undefined, length: number, arrived: () => void): void {
    this.bytes += length;
    this.messages++;
    this.longest = Math.max(this.longest, length);
    const { loss, duplicate, delayMs } = this.#options;
    const way = (): number => delayMs * (0.1 + 0.9 * this.random());
    if (to === undefined || from.part !== to.part || this.random() < loss) return;
    const deliver = () => from.part === to.part && arrived();
    this.after(way(), deliver);
    if (this.random() < duplicate) this.after(way() * 20, deliver);
  }
}

/** Actions in the order of their time. */
class Queue {
  readonly #heap: { readonly at: number; readonly order: number; readonly run: () => void }[] = [];
  #order = 0;

  add(at: number, run: () => void): void {
    const heap = this.#heap;
    heap.push({ at, order: this.#order++, run });
    for (let i = heap.length - 1; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (!this.#before(i, parent)) break;
      this.#swap(i, parent);
      i = parent;
    }
  }

  runTo(end: number, reached: (at: number) => void): void {
    for (let first = this.#heap[0]; first !== undefined && first.at <= end; first = this.#heap[0]) {
      this.#shift();
      reached(first.at);
      first.run();
    }
    reached(end);
  }

  #shift(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (heap.length === 0 || last === undefined) return;
    heap[0] = last;
    for (let i = 0; ; ) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2]) if (child < heap.length && this.#before(child, least)) least = child;
      if (least === i) return;
      this.#swap(i, least);
      i = least;
    }
  }

  #before(i: number, j: number): boolean {
    const [a, b] = [this.#heap[i], this.#heap[j]];
    if (a === undefined || b === undefined) return false;
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  }

  #swap(i: number, j: number): void {
    const heap = this.#heap;
    const a = heap[i];
    const b = heap[j];
    if (a === undefined || b === undefined) return;
    heap[i] = b;
    heap[j] = a;
  }
}
