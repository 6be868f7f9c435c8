// A TCP relay on loopback: a load balancer that goes through its targets in turn, and a network that fails.
import { connect, createServer, type Server, type Socket } from 'node:net';
import { freePort } from '../../fixtures/ports.ts';
import { closeLater } from './fixture.ts';

export class Relay {
  readonly #targets: readonly number[];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #turn = 0;
  #isStalled = false;
  port = 0;

  constructor(targets: readonly number[]) {
    this.#targets = targets;
    this.#server = createServer((socket) => this.#pass(socket));
  }

  get endpoint(): string {
    return `https://localhost:${this.port}`;
  }

  /** Number of connections since the start. */
  get connections(): number {
    return this.#turn;
  }

  async listen(): Promise<this> {
    this.port = await freePort('127.0.0.1');
    await new Promise<void>((resolve) => this.#server.listen(this.port, '127.0.0.1', resolve));
    return this;
  }

  /** Drops all bytes in both directions. The connections stay open. */
  stall(): void {
    this.#isStalled = true;
    for (const socket of this.#sockets) socket.pause();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #pass(from: Socket): void {
    const to = connect(this.#targets[this.#turn++ % this.#targets.length] ?? 0, '127.0.0.1');
    for (const [a, b] of [
      [from, to],
      [to, from],
    ] as const) {
      this.#sockets.add(a);
      a.on('data', (bytes) => this.#isStalled || b.write(bytes));
      a.on('error', () => b.destroy());
      a.on('close', () => {
        this.#sockets.delete(a);
        if (!this.#isStalled) b.destroy();
      });
    }
  }
}

/** Starts a relay to these ports of loopback, until the end of the test. */
export const relay = (...targets: number[]): Promise<Relay> => closeLater(new Relay(targets)).listen();
