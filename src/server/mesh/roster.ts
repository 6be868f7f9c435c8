// The members that one member knows, and a digest of the living ones, which two members compare.
import type { MemberState } from '../../tka/types.ts';
import { type CheckedRecord, digestOf, type MemberRecord } from './member.ts';

/** What this member remembers about a member. */
export interface Entry {
  readonly name: string;
  record: MemberRecord;
  version: string;
  etag: string;
  /** ID of the process that answered last. */
  process: string;
  /** Address where the record is read. */
  place: Place;
  state: MemberState;
  /** Monotonic time of the latest answer. */
  seenAt: number;
  /** Monotonic time of the question for that answer. */
  askedAt: number;
  /** Digest of its name and address. */
  mark: number;
}

/** An address that this member may ask, from any source. */
export interface Place {
  readonly address: string;
  /** The member that answered there last. Its record may be read elsewhere. */
  member: Entry | undefined;
  /** True if this member itself answers there. */
  isSelf: boolean;
  isSeed: boolean;
  /** Number of open questions, and the time of the latest one. */
  open: number;
  askedAt: number;
  /** Number of questions without an answer since the last answer, and the time of the first of them. */
  failures: number;
  failingSince: number | undefined;
  /** The source in whose queue the address waits. */
  waiting: string | undefined;
  /** The source that last asked for the address. */
  source: string;
}

/** Returns a digest of a member's name and address. */
export const markOf = (name: string, address: string): number =>
  Buffer.from(digestOf(`${name} ${address}`), 'base64url').readInt32LE();

// Fewer questions in a row without an answer may be chance.
export const leastFailures = 3;

export type Read = Pick<CheckedRecord, 'record' | 'etag' | 'version'>;
export function newEntry(
  name: string,
  { record, etag, version }: Read,
  process: string,
  place: Place,
  seenAt: number,
  askedAt: number,
): Entry {
  const mark = markOf(name, place.address);
  return { name, record, etag, version, process, place, state: 'healthy', seenAt, askedAt, mark };
}

/** Records that an address answered, with the member that is there, if any. */
export function answered(place: Place, member: Entry | undefined): void {
  Object.assign(place, { member, failures: 0, failingSince: undefined });
}

/** Returns whether a living member answered there. Its record may be read at another address. */
export const isAlive = ({ member }: Place): boolean => member !== undefined && member.state !== 'dead';

/** Returns whether the first question to an address is still open. */
export const isFirst = ({ open, member }: Place): boolean => open > 0 && member === undefined;

export const isSilent = ({ state, place }: Entry): boolean => state === 'dead' || place.failures >= leastFailures;

export class Roster {
  readonly #random: () => number;
  readonly #entries = new Map<string, Entry>();
  /** The same entries as an array, for random choices. */
  readonly #all: Entry[] = [];
  /** The XOR of the marks of the living members. So a change costs the same in a mesh of any size. */
  #marks = 0;
  readonly dead = new Set<Entry>();
  /** Members that are still to be read in this cycle. The next one is at the end. */
  #turns: Entry[] = [];

  constructor(random: () => number) {
    this.#random = random;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Number of living members. */
  get living(): number {
    return this.#entries.size - this.dead.size;
  }

  get(name: string): Entry | undefined {
    return this.#entries.get(name);
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#entries.values();
  }

  /** Adds a living member, at a random position in the current cycle. */
  add(entry: Entry): void {
    this.#entries.set(entry.name, entry);
    this.#all.push(entry);
    this.#marks ^= entry.mark;
    const turns = this.#turns;
    const turn = Math.floor(this.#random() * (turns.length + 1));
    turns.push(turns[turn] ?? entry);
    turns[turn] = entry;
  }

  /** Removes a dead member. */
  forget(entry: Entry): void {
    this.#entries.delete(entry.name);
    this.#all.splice(this.#all.indexOf(entry), 1);
    this.dead.delete(entry);
  }

  setState(entry: Entry, state: MemberState): void {
    const lived = entry.state !== 'dead';
    entry.state = state;
    if (lived === (state !== 'dead')) return;
    this.#marks ^= entry.mark;
    if (lived) this.dead.add(entry);
    else this.dead.delete(entry);
  }

  longestDead(): Entry | undefined {
    let oldest: Entry | undefined;
    for (const entry of this.dead) if (entry.seenAt < (oldest?.seenAt ?? Infinity)) oldest = entry;
    return oldest;
  }

  /** Returns the member whose turn it is. Each member has one turn in each cycle. At least one member must be alive. */
  next(): Entry {
    for (;;) {
      for (let entry = this.#turns.pop(); entry !== undefined; entry = this.#turns.pop()) {
        if (entry.state !== 'dead') return entry;
      }
      this.#turns = this.alive();
      pick(this.#turns, this.#turns.length, this.#random);
    }
  }

  alive(): Entry[] {
    return this.#all.filter(({ state }) => state !== 'dead');
  }

  /** Returns `count` living members at random, or all if there are fewer. */
  some(count: number): Entry[] {
    if (2 * count >= this.living) return pick(this.alive(), count, this.#random);
    const found = new Set<Entry>();
    while (found.size < count) {
      const entry = this.#all[Math.floor(this.#random() * this.#all.length)] as Entry;
      if (entry.state !== 'dead') found.add(entry);
    }
    return [...found];
  }

  /** Returns a digest of the names and addresses of the living members. */
  digest(): string {
    return (this.#marks >>> 0).toString(36);
  }
}

/** Returns `count` of the items at random. Moves them to the front of `items`. */
export function pick<T>(items: T[], count: number, random: () => number): T[] {
  for (let i = 0; i < Math.min(count, items.length); i++) {
    const j = i + Math.floor(random() * (items.length - i));
    [items[i], items[j]] = [items[j] as T, items[i] as T];
  }
  return items.slice(0, count);
}
