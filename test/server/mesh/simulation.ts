// A mesh in virtual time over a virtual network, from one seed: the shipped core and its real messages, and nothing else.
import { Membership } from '../../../src/server/mesh/membership.ts';
import { readMessage } from '../../../src/server/mesh/wire.ts';
import type { MemberState } from '../../../src/tka/types.ts';
import { seeded } from '../../hostile/junk.ts';

export interface SimulationOptions {
  readonly seed: number;
  readonly size: number;
  /** Chance that a message is lost, and that it comes twice. */
  readonly loss?: number;
  readonly duplicate?: number;
  /** The longest way of a message, in milliseconds; the shortest is a tenth of it. */
  readonly delayMs?: number;
  /** How far wall clocks are apart, in milliseconds. */
  readonly skewMs?: number;
  /** How much faster or slower than real a clock may run: 0.02 is 2 %. */
  readonly drift?: number;
  readonly factor?: number;
  readonly maxMessage?: number;
  readonly maxMembers?: number;
  readonly forgetAfterMs?: number;
}

const interval = 1000;
/** The usual thresholds, in rounds. */
export const staleness = 5;
export const death = 10;

/** One machine: what runs on it comes and goes. */
export interface Machine {
  readonly index: number;
  readonly name: string;
  readonly address: string;
  readonly rate: number;
  wallOffset: number;
  core: Membership | undefined;
  /** Which part of a torn network it is in. */
  part: number;
  /** What runs there is stopped, and hears nothing. */
  paused: boolean;
  /** Virtual time since when nothing runs there; undefined while it runs. */
  goneAt: number | undefined;
}

const epoch = Date.UTC(2026, 10, 21);

export class Simulation {
  readonly machines: readonly Machine[];
  /** Virtual milliseconds. */
  now = 0;
  /** Of all messages that were sent. */
  bytes = 0;
  messages = 0;
  longest = 0;
  /** What must never happen. */
  readonly violations: string[] = [];
  /** How often a member that runs was taken for suspected, and for dead. */
  readonly doubts = { suspected: 0, dead: 0 };
  readonly random: () => number;
  readonly #options: Required<SimulationOptions>;
  readonly #byAddress = new Map<string, Machine>();
  readonly #byName = new Map<string, Machine>();
  readonly #queue = new Queue();

  constructor(options: SimulationOptions) {
    this.#options = {
      loss: 0,
      duplicate: 0,
      delayMs: 50,
      skewMs: 0,
      drift: 0,
      factor: 3,
      maxMessage: 64 * 1024,
      maxMembers: 2000,
      forgetAfterMs: 7 * 24 * 60 * 60 * 1000,
      ...options,
    };
    this.random = seeded(options.seed);
    const { skewMs, drift } = this.#options;
    this.machines = Array.from({ length: options.size }, (_, index) => {
      const name = `tka-cluster-${String(index).padStart(4, '0')}`;
      return {
        index,
        name,
        address: `${name}.example.ts.net:7946`,
        rate: 1 + (this.random() * 2 - 1) * drift,
        wallOffset: Math.round((this.random() * 2 - 1) * skewMs),
        core: undefined,
        part: 0,
        paused: false,
        goneAt: 0,
      };
    });
    for (const machine of this.machines) {
      this.#byAddress.set(machine.address, machine);
      this.#byName.set(machine.name, machine);
    }
  }

  /** Starts what runs on a machine, which knows some others by address. */
  start(machine: Machine, seeds: readonly Machine[] = this.machines.slice(0, 3)): void {
    const { factor, maxMessage, maxMembers, forgetAfterMs } = this.#options;
    const offset = this.random() * 1e6;
    const core = new Membership({
      name: machine.name,
      record: {
        server: `https://${machine.name}.example.ts.net`,
        gossipPort: 7946,
        apiEndpoint: `https://api.${machine.name}.example.com:6443`,
        labels: { environment: 'production', region: 'eu-central-1' },
        version: '1.4.0',
      },
      clock: {
        monotonic: () => offset + this.now * machine.rate,
        wall: () => epoch + this.now + machine.wallOffset,
      },
      random: this.random,
      intervalMs: interval,
      factor,
      stalenessThreshold: staleness,
      deadThreshold: death,
      seeds: seeds.map(({ address }) => address),
      maxMessage,
      maxMembers,
      forgetAfterMs,
      onChange: ({ name, state }, before) => this.#changed(machine, name, state, before),
    });
    machine.core = core;
    machine.paused = false;
    machine.goneAt = undefined;
    const round = () => {
      if (machine.core !== core) return;
      if (!machine.paused) {
        core.tick();
        for (const address of core.targets()) this.#exchange(machine, core, address);
      }
      this.#queue.add(this.now + interval / machine.rate, round);
    };
    this.#queue.add(this.now + this.random() * interval, round);
  }

  /** What runs there ends without a word. */
  kill(machine: Machine): void {
    machine.core = undefined;
    machine.goneAt ??= this.now;
  }

  /** What runs there tells some others that it goes, and ends. */
  leave(machine: Machine): void {
    const { core } = machine;
    if (core === undefined) return;
    core.leave();
    for (const address of core.targets()) this.#send(machine, this.#byAddress.get(address), core.farewell());
    this.kill(machine);
  }

  /** Runs for some rounds, or until something is so; the rounds that it took, undefined if it did not become so. */
  run(rounds: number, until?: () => boolean): number | undefined {
    for (let round = 1; round <= rounds; round++) {
      this.#queue.runTo(this.now + interval, (at) => {
        this.now = at;
      });
      if (until?.()) return round;
    }
    return until === undefined ? rounds : undefined;
  }

  /** Everybody who runs knows who runs and who does not; `among`: as far as these are concerned. */
  agreed(among: readonly Machine[] = this.machines): boolean {
    return among.every(({ core }) => core === undefined || this.disagreement(core, among) === undefined);
  }

  /** The first thing that a member has wrong. */
  disagreement(core: Membership, among: readonly Machine[] = this.machines): string | undefined {
    for (const { name, core: other } of among) {
      const entry = core.get(name);
      if (other === undefined) {
        if (entry !== undefined && entry.state !== 'dead') return `${core.name}: ${name} is gone, not ${entry.state}`;
      } else if (entry?.state !== 'healthy' || entry.incarnation !== other.self.incarnation) {
        return `${core.name}: ${name} runs, and is not ${entry?.state} in ${entry?.incarnation}`;
      }
    }
    return undefined;
  }

  #exchange(machine: Machine, core: Membership, address: string): void {
    const peer = this.#byAddress.get(address);
    this.#send(machine, peer, core.open(), (answer) => {
      if (machine.core !== core || machine.paused) return;
      const more = core.settle(this.#read(answer), address);
      if (more !== undefined) this.#send(machine, peer, more);
    });
  }

  #send(from: Machine, to: Machine | undefined, bytes: Buffer, answered?: (answer: Buffer) => void): void {
    this.#count(bytes);
    const { loss, duplicate, delayMs } = this.#options;
    const way = (): number => delayMs * (0.1 + 0.9 * this.random());
    const passes = () => to !== undefined && from.part === to.part && this.random() >= loss;
    const deliver = () => {
      const core = to?.core;
      if (core === undefined || from.part !== to?.part || to.paused) return;
      const answer = core.answer(this.#read(bytes));
      if (answered === undefined) return;
      this.#count(answer);
      if (passes()) this.#queue.add(this.now + way(), () => from.part === to.part && answered(answer));
    };
    if (!passes()) return;
    this.#queue.add(this.now + way(), deliver);
    if (this.random() < duplicate) this.#queue.add(this.now + way() * 20, deliver);
  }

  #count(bytes: Buffer): void {
    this.bytes += bytes.length;
    this.messages++;
    this.longest = Math.max(this.longest, bytes.length);
  }

  #read(bytes: Buffer) {
    const message = readMessage(bytes, this.#options.maxMessage);
    if (typeof message === 'string') throw new Error(`a message of our own is refused: ${message}\n${bytes}`);
    return message;
  }

  #changed(at: Machine, name: string, state: MemberState, before: MemberState | undefined): void {
    const goneAt = this.#byName.get(name)?.goneAt;
    if (goneAt === undefined) {
      if (state !== 'healthy' && state !== before) this.doubts[state]++;
      return;
    }
    // The README's bound: its last heartbeat is news for so long, and no longer. A message is on its way meanwhile.
    const { drift, delayMs } = this.#options;
    const limit = (death + staleness + 1) * interval * (1 + drift) + 20 * delayMs;
    const better = before === undefined || before === 'dead' || (before === 'suspected' && state === 'healthy');
    if (state !== 'dead' && better && this.now > goneAt + limit) {
      const ago = (this.now - goneAt) / interval;
      this.violations.push(`${at.name}: ${name}, gone for ${ago.toFixed(1)} rounds, ${before} → ${state}`);
    }
  }
}

/** Things to do, in the order of their time. */
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
