// A mesh in virtual time on a virtual network, from one seed: the shipped core and its real messages only.
import { readPageAnswer, readPageQuestion } from '../../../src/server/mesh/joined.ts';
import { checkRecord, type MemberRecord } from '../../../src/server/mesh/member.ts';
import { type Ask, Membership } from '../../../src/server/mesh/membership.ts';
import type { KnownMember } from '../../../src/server/mesh/options.ts';
import type { PageAsk } from '../../../src/server/mesh/pages.ts';
import { type GossipAnswer, readAnswer, readQuestion } from '../../../src/server/mesh/wire.ts';
import type { MemberState } from '../../../src/tka/types.ts';
import { type Host, Network, type NetworkOptions } from './network.ts';

export interface SimulationOptions extends NetworkOptions {
  readonly size: number;
  /** Maximum difference of wall clocks, in milliseconds. */
  readonly skewMs?: number;
  /** Maximum drift of a clock: 0.02 is 2 %. */
  readonly drift?: number;
  readonly factor?: number;
  readonly maxMessage?: number;
  readonly maxMembers?: number;
  readonly forgetAfterMs?: number;
  /** Whether the members state a cluster. */
  readonly named?: boolean;
  /** Whether the node of an answer is known, as in a tailnet. */
  readonly tailnet?: boolean;
}

const interval = 1000;
/** A request without an answer for this long has failed. */
const patience = 3 * interval;
/** The default thresholds, in rounds. */
export const staleness = 5;
export const death = 10;

/** One machine, on which members start and stop. */
export interface Machine extends Host {
  readonly index: number;
  readonly name: string;
  readonly address: string;
  readonly rate: number;
  wallOffset: number;
  core: Membership | undefined;
  /** Changes each message that it sends. */
  lie: ((bytes: Buffer) => Buffer) | undefined;
  /** The member is stopped, and receives nothing. */
  paused: boolean;
  /** Virtual time since no member runs there; undefined while one runs. */
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

export class Simulation extends Network {
  readonly machines: readonly Machine[];
  /** Descriptions of what must never happen. */
  readonly violations: string[] = [];
  /** How often a running member was considered suspected or dead. */
  readonly doubts = { suspected: 0, dead: 0 };
  /** The pages of joined clusters that arrived, and the bytes sent for them; `bytes` contains these too. */
  readonly pages = { count: 0, bytes: 0 };
  readonly #options: Required<Omit<SimulationOptions, keyof NetworkOptions>>;
  readonly #byAddress = new Map<string, Machine>();
  readonly #byName = new Map<string, Machine>();
  readonly #late: number;

  constructor(options: SimulationOptions) {
    super(options);
    // How long an answer takes; a duplicate takes twenty times that.
    this.#late = 20 * (options.delayMs ?? 50);
    this.#options = {
      skewMs: 0,
      drift: 0,
      factor: 3,
      maxMessage: 64 * 1024,
      maxMembers: 10_000,
      tailnet: false,
      named: false,
      forgetAfterMs: 7 * 24 * 60 * 60 * 1000,
      ...options,
    };
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

  /** Starts a member on a machine; it knows some others by address. */
  start(machine: Machine, seeds: readonly Machine[] = this.machines.slice(0, 3)): void {
    const { factor, maxMessage, maxMembers, forgetAfterMs } = this.#options;
    const offset = this.random() * 1e6;
    const core = new Membership({
      name: machine.name,
      record: { ...recordOf(machine.name), ...(this.#options.named && { cluster: machine.name }) },
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
      this.after(interval / machine.rate, round);
    };
    this.after(this.random() * interval, round);
  }

  /** Starts all members, each of which knows all others: a mesh that has run for a long time. */
  startKnown(): void {
    for (const machine of this.machines) this.start(machine, this.machines.slice(0, 2));
    // All members share one record, since each of them knows thousands.
    const answers = new Map<string, GossipAnswer>();
    for (const { name, address, core } of this.machines) {
      if (core === undefined) continue;
      const { process, version, record: own } = core.self;
      const record = checkRecord(name, own);
      answers.set(address, { name, process, version, record, others: [], silent: [] });
    }
    for (const { core, address } of this.machines) {
      const others = [...answers.keys()].filter((other) => other !== address);
      core?.tick();
      for (let asks = core?.asks() ?? []; asks.length > 0; asks = core?.asks() ?? []) {
        for (const ask of asks) {
          core?.settle(ask, { ...(answers.get(ask.address) as GossipAnswer), others: others.splice(0, 2000) });
        }
      }
    }
  }

  /** Kills a member. */
  kill(machine: Machine): void {
    machine.core = undefined;
    machine.goneAt ??= this.now;
  }

  /** Makes a member tell some others that it leaves, and end. */
  leave(machine: Machine): void {
    const { core } = machine;
    if (core === undefined) return;
    for (const ask of core.leave()) this.#exchange(machine, core, ask);
    // It answers until the message is delivered, and sends no more requests.
    machine.goneAt ??= this.now;
    this.after(2000, () => machine.core === core && this.kill(machine));
  }

  /**
   * Runs for some rounds, or until `until` returns true. Returns the rounds that it took, or undefined if it did not
   * become true.
   */
  rounds(rounds: number, until?: () => boolean): number | undefined {
    for (let round = 1; round <= rounds; round++) {
      this.run(interval);
      if (until?.()) return round;
    }
    return until === undefined ? rounds : undefined;
  }

  /** Returns whether all running members agree on which members run; `among`: only these are considered. */
  agreed(among: readonly Machine[] = this.machines): boolean {
    return among.every(({ core }) => core === undefined || this.disagreement(core, among) === undefined);
  }

  /** Returns the first thing that a member has wrong. */
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
    if (machine.core !== core || machine.paused) return;
    for (const ask of core.asks()) this.#exchange(machine, core, ask);
    for (const ask of core.pageAsks()) this.#fetch(machine, core, ask);
  }

  #fetch(machine: Machine, core: Membership, ask: PageAsk): void {
    let open = true;
    const end = (how: () => void) => {
      if (!open || machine.core !== core) return;
      if (machine.paused) return this.after(interval, () => end(how));
      open = false;
      how();
      this.#run(machine, core);
    };
    this.after(patience, () => end(() => core.failedPage(ask)));
    const peer = this.#byAddress.get(ask.address);
    this.pages.bytes += ask.body.length;
    this.send(machine, peer, ask.body.length, () => {
      const other = peer?.core;
      if (peer === undefined || other === undefined || peer.paused) return;
      const question = readPageQuestion(ask.body);
      if (typeof question === 'string') throw new Error(`a question of our own is refused: ${question}`);
      const given = other.answerPage(question);
      this.pages.bytes += given.length;
      this.send(peer, machine, given.length, () => {
        const answer = readPageAnswer(given);
        if (typeof answer === 'string') throw new Error(`a page of our own is refused: ${answer}`);
        this.pages.count++;
        end(() => core.settlePage(ask, answer, this.#options.tailnet ? peer.name : undefined));
      });
    });
  }

  #exchange(machine: Machine, core: Membership, ask: Ask): void {
    let open = true;
    /** A stopped process receives its messages when it continues; nothing happens in between. */
    const end = (how: () => void) => {
      if (!open || machine.core !== core) return;
      if (machine.paused) return this.after(interval, () => end(how));
      open = false;
      how();
      this.#run(machine, core);
    };
    this.after(patience, () => end(() => core.failed(ask)));
    const peer = this.#byAddress.get(ask.address);
    const asked = machine.lie?.(ask.body) ?? ask.body;
    this.send(machine, peer, asked.length, () => {
      const other = peer?.core;
      if (peer === undefined || peer.paused) return;
      // Nothing listens there, which is known at once.
      if (other === undefined) return this.send(peer, machine, 0, () => end(() => core.failed(ask)));
      const question = readQuestion(asked, this.#options.maxMessage);
      if (typeof question === 'string') throw new Error(`a question of our own is refused: ${question}\n${asked}`);
      const given = other.answer(question);
      this.#run(peer, other);
      const answered = peer.lie?.(given) ?? given;
      this.send(peer, machine, answered.length, () => {
        const answer = readAnswer(answered, this.#options.maxMessage);
        if (typeof answer === 'string') throw new Error(`an answer of our own is refused: ${answer}\n${answered}`);
        end(() => core.settle(ask, answer, this.#options.tailnet ? peer.name : undefined));
      });
    });
  }

  #changed(at: Machine, { name, state, record }: KnownMember, before: MemberState | undefined): void {
    const { left, joined: _, cluster: __, ...rest } = record;
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
    const better = before === undefined || before === 'dead' || (before === 'suspected' && state === 'healthy');
    if (state !== 'dead' && better && this.now > goneAt + this.#late) {
      const ago = (this.now - goneAt) / interval;
      this.violations.push(`${at.name}: ${name}, gone for ${ago.toFixed(1)} rounds, ${before} → ${state}`);
    }
  }
}
