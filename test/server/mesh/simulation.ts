// A mesh in virtual time over a virtual network, from one seed: the shipped core and its real messages, and nothing else.
import type { MemberRecord } from '../../../src/server/mesh/member.ts';
import { type Ask, type KnownMember, Membership } from '../../../src/server/mesh/membership.ts';
import { readAnswer, readQuestion } from '../../../src/server/mesh/wire.ts';
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
  /** Whether it is known which node an answer comes from, as in a tailnet. */
  readonly tailnet?: boolean;
}

const interval = 1000;
/** A question without an answer for so long has failed. */
const patience = 3 * interval;
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
  /** Makes something else of each message that it sends. */
  lie: ((bytes: Buffer) => Buffer) | undefined;
  /** What runs there is stopped, and hears nothing. */
  paused: boolean;
  /** Virtual time since when nothing runs there; undefined while it runs. */
  goneAt: number | undefined;
}

const epoch = Date.UTC(2026, 10, 21);

export const recordOf = (name: string): Omit<MemberRecord, 'left'> => ({
  server: `https://${name}.example.ts.net`,
  gossipPort: 7946,
  apiEndpoint: `https://api.${name}.example.com:6443`,
  labels: { environment: 'production', owner: name },
  version: '1.4.0',
});

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
      maxMembers: 10_000,
      tailnet: false,
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
        lie: undefined,
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
      record: recordOf(machine.name),
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
      onChange: (known, before) => this.#changed(machine, known, before),
    });
    machine.core = core;
    machine.paused = false;
    machine.goneAt = undefined;
    const round = () => {
      if (machine.core !== core) return;
      if (!machine.paused) {
        core.tick();
        this.#run(machine, core);
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
    for (const ask of core.leave()) this.#exchange(machine, core, ask);
    // It answers for as long as it is told to others, and asks nobody any more.
    machine.goneAt ??= this.now;
    this.#queue.add(this.now + 2000, () => machine.core === core && this.kill(machine));
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
      if (other === undefined || other.self.record.left) {
        if (entry !== undefined && entry.state !== 'dead') return `${core.name}: ${name} is gone, not ${entry.state}`;
      } else if (entry === undefined || entry.state === 'dead' || entry.process !== other.self.process) {
        return `${core.name}: ${name} runs, and is not ${entry?.state} as ${entry?.process}`;
      }
    }
    return undefined;
  }

  #run(machine: Machine, core: Membership): void {
    if (machine.core === core && !machine.paused) for (const ask of core.asks()) this.#exchange(machine, core, ask);
  }

  #exchange(machine: Machine, core: Membership, ask: Ask): void {
    let open = true;
    /** What a stopped process would hear of, it hears of when it goes on: nothing happens in between. */
    const end = (how: () => void) => {
      if (!open || machine.core !== core) return;
      if (machine.paused) return this.#queue.add(this.now + interval, () => end(how));
      open = false;
      how();
      this.#run(machine, core);
    };
    this.#queue.add(this.now + patience, () => end(() => core.failed(ask)));
    const peer = this.#byAddress.get(ask.address);
    this.#way(machine, peer, machine.lie?.(ask.body) ?? ask.body, (bytes) => {
      const other = peer?.core;
      if (peer === undefined || peer.paused) return;
      // Nothing listens there: that is known at once.
      if (other === undefined) return this.#way(peer, machine, Buffer.alloc(0), () => end(() => core.failed(ask)));
      const question = readQuestion(bytes, this.#options.maxMessage);
      if (typeof question === 'string') throw new Error(`a question of our own is refused: ${question}\n${bytes}`);
      const answer = other.answer(question);
      this.#run(peer, other);
      this.#way(peer, machine, peer.lie?.(answer) ?? answer, (bytes) => {
        const answer = readAnswer(bytes, this.#options.maxMessage);
        if (typeof answer === 'string') throw new Error(`an answer of our own is refused: ${answer}\n${bytes}`);
        end(() => core.settle(ask, answer, this.#options.tailnet ? peer.name : undefined));
      });
    });
  }

  /** A message goes from one machine to another, or is lost, or comes twice. */
  #way(from: Machine, to: Machine | undefined, bytes: Buffer, arrived: (bytes: Buffer) => void): void {
    this.#count(bytes);
    const { loss, duplicate, delayMs } = this.#options;
    const way = (): number => delayMs * (0.1 + 0.9 * this.random());
    if (to === undefined || from.part !== to.part || this.random() < loss) return;
    const deliver = () => from.part === to.part && arrived(bytes);
    this.#queue.add(this.now + way(), deliver);
    if (this.random() < duplicate) this.#queue.add(this.now + way() * 20, deliver);
  }

  #count(bytes: Buffer): void {
    this.bytes += bytes.length;
    this.messages++;
    this.longest = Math.max(this.longest, bytes.length);
  }

  #changed(at: Machine, { name, state, record }: KnownMember, before: MemberState | undefined): void {
    const { left, ...rest } = record;
    const own = JSON.stringify(rest) === JSON.stringify(recordOf(name));
    const hasLeft = this.#byName.get(name)?.core?.self.record.left !== false;
    if (at.lie === undefined && (!own || (left && !hasLeft))) {
      this.violations.push(`${at.name}: ${name} as it never was: ${JSON.stringify(record)}`);
    }
    const goneAt = this.#byName.get(name)?.goneAt;
    if (goneAt === undefined) {
      if (state !== 'healthy' && state !== before) this.doubts[state]++;
      return;
    }
    // An answer is on its way for so long, and a duplicate twenty times that.
    const limit = 20 * this.#options.delayMs;
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
