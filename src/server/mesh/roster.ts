// The members that one member knows, and a digest of those that live, which two members compare.
import type { MemberState } from '../../tka/types.ts';
import { type CheckedRecord, digestOf, type MemberRecord } from './member.ts';

/** What is kept of a member. */
export interface Entry {
  readonly name: string;
  record: MemberRecord;
  version: string;
  etag: string;
  /** The process that answered last. */
  process: string;
  /** Where the record is read. */
  place: Place;
  state: MemberState;
  /** Monotonic time of the latest answer. */
  seenAt: number;
  /** When the question of that answer was asked. */
  askedAt: number;
  /** A digest of its name and address. */
  mark: number;
}

/** An address that may be asked, from whatever source. */
export interface Place {
  readonly address: string;
  /** The member that answered there last. Its record may be read elsewhere. */
  member: Entry | undefined;
  /** It is this member itself. */
  isSelf: boolean;
  isSeed: boolean;
  /** How many questions are on the way, and when the latest was sent. */
  open: number;
  askedAt: number;
  /** Questions without an answer since the last answer, and when the first of them was sent. */
  failures: number;
  failingSince: number | undefined;
  /** The source for which it waits to be asked. */
  waiting: string | undefined;
  /** The source for which it was asked last. */
  source: string;
}

/** Returns a digest of a member's name and address. */
export const markOf = (name: string, address: string): number =>
  Buffer.from(digestOf(`${name} ${address}`), 'base64url').readInt32LE();

// Fewer questions in a row without an answer than this may be chance.
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

/** Somebody answered at an address, a member or not. */
export function answered(place: Place, member: Entry | undefined): void {
  Object.assign(place, { member, failures: 0, failingSince: undefined });
}

/** True if a living member has answered there, though its record may be read elsewhere. */
export const isAlive = ({ member }: Place): boolean => member !== undefined && member.state !== 'dead';

/** True while the first question to an address is on its way. */
export const isFirst = ({ open, member }: Place): boolean => open > 0 && member === undefined;

export const isSilent = ({ state, place }: Entry): boolean => state === 'dead' || place.failures >= leastFailures;

export class Roster {
  readonly #random: () => number;
  readonly #entries = new Map<string, Entry>();
  /** The same, to choose from. */
  readonly #all: Entry[] = [];
  /** The marks of those that live, by exclusive or: a change costs the same in any mesh. */
  #marks = 0;
  readonly dead = new Set<Entry>();
  /** Those that are still to be read before all are read again, the next one last. */
  #turns: Entry[] = [];

  constructor(random: () => number) {
    this.#random = random;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** How many live. */
  get living(): number {
    return this.#entries.size - this.dead.size;
  }

  get(name: string): Entry | undefined {
    return this.#entries.get(name);
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#entries.values();
  }

  /** Adds a member that lives. */
  add(entry: Entry): void {
    this.#entries.set(entry.name, entry);
    this.#all.push(entry);
    this.#marks ^= entry.mark;
    const turns = this.#turns;
    const turn = Math.floor(this.#random() * (turns.length + 1));
    turns.push(turns[turn] ?? entry);
    turns[turn] = entry;
  }

  /** Removes a member that is dead. */
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

  /** Returns the member whose turn it is. Each comes once before any comes again. Some member must live. */
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

  /** Returns so many of those that live, at random. */
  some(count: number): Entry[] {
    if (2 * count >= this.living) return pick(this.alive(), count, this.#random);
    const found = new Set<Entry>();
    while (found.size < count) {
      const entry = this.#all[Math.floor(this.#random() * this.#all.length)] as Entry;
      if (entry.state !== 'dead') found.add(entry);
    }
    return [...found];
  }

  /** Returns a digest of the names and addresses of those that live. */
  digest(): string {
    return (this.#marks >>> 0).toString(36);
  }
}

/** Returns so many of the items at random. Moves them to the front of `items`. */
export function pick<T>(items: T[], count: number, random: () => number): T[] {
  for (let i = 0; i < Math.min(count, items.length); i++) {
    const j = i + Math.floor(random() * (items.length - i));
    [items[i], items[j]] = [items[j] as T, items[i] as T];
  }
  return items.slice(0, count);
}
