// The mesh as one member knows it: it reads each other member's record from that member itself. Pure: time, chance and
// the network are its caller's.
import type { MemberState } from '../../tka/types.ts';
import { type CheckedRecord, checkRecord, digestOf, gossipAddress, isAddress, type MemberRecord } from './member.ts';
import { type Answer, messageLimit, type Question, writeAnswer, writeQuestion } from './wire.ts';

export interface Clock {
  /** Milliseconds that only ever grow, from any start: all waiting is measured so. */
  monotonic(): number;
  /** Milliseconds of the epoch: for what people read. */
  wall(): number;
}

export interface MembershipOptions {
  readonly name: string;
  readonly record: Omit<MemberRecord, 'left'>;
  readonly clock: Clock;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
  readonly intervalMs: number;
  /** How many members are read each interval, at least. */
  readonly factor: number;
  /** Rounds without an answer until a member is suspected, and until it is dead. */
  readonly stalenessThreshold: number;
  readonly deadThreshold: number;
  /** Where members may be before any is known: `host:port`. */
  readonly seeds?: readonly string[];
  readonly forgetAfterMs?: number;
  readonly maxMembers?: number;
  /** Bytes. */
  readonly maxMessage?: number;
  /** A member is new to us (`before` is undefined), what it says of itself is new, or its state is. */
  readonly onChange?: (member: KnownMember, before: MemberState | undefined) => void;
  /** Another process has our name. */
  readonly onTwin?: () => void;
  /** What was read does not count. */
  readonly onSkip?: (name: string, why: string) => void;
}

/** A member, and how it is as far as we know. */
export interface KnownMember {
  readonly name: string;
  readonly record: MemberRecord;
  readonly state: MemberState;
  /** Milliseconds of the epoch. */
  readonly lastSeen: number;
}

/** What is kept of a member. Only its membership changes it. */
export interface Entry {
  readonly name: string;
  record: MemberRecord;
  text: string;
  etag: string;
  version: string;
  /** Which process answered last. */
  process: string;
  /** `host:port`. */
  address: string;
  state: MemberState;
  /** Monotonic time of the latest answer. */
  seenAt: number;
  /** When the question of that answer was asked. */
  askedAt: number;
  /** When the first question since then was asked that got no answer, and how many got none. */
  failingSince: number | undefined;
  failures: number;
  /** A digest of its name and address. */
  mark: number;
}

/** A question to one address, which is answered (`settle`) or not (`failed`). */
export interface Ask {
  readonly address: string;
  readonly body: Buffer;
  readonly at: number;
  /** Who made us ask. */
  readonly source: string;
}

/** An address that may be asked, whatever it was heard from. */
interface Place {
  readonly address: string;
  /** Its questions on the way, oldest first. */
  readonly asking: Set<Ask>;
  isSeed: boolean;
  /** It is ourselves. */
  isSelf: boolean;
  askedAt: number;
  /** The member that answered there last. */
  name: string | undefined;
  /** Questions without an answer since then. */
  failures: number;
  /** For which source it waits to be asked. */
  waiting: string | undefined;
  /** For which source it was asked last. */
  source: string;
}

const day = 24 * 60 * 60 * 1000;
const ranks: Readonly<Record<MemberState, number>> = { healthy: 0, suspected: 1, dead: 2 };
// Each member is read once in so many rounds, in however large a mesh.
const cycle = 60;
// Who made us ask an address: we ourselves, the member there, or, by its name, the member that told it. Each has room of
// its own, so that a member that tells addresses of nobody delays no other.
const ourselves = ' us';
const callers = ' callers';
// Questions on the way: for each of these, for all but our own, and to one address.
const sourceLimits: Readonly<Record<string, number>> = { [ourselves]: 128, [callers]: 32 };
const tellerLimit = 16;
const hintedLimit = 64;
const placeLimit = 4;
// Addresses that wait to be tried, for each source.
const waitingLimit = 2000;
// Fewer questions without an answer than this may be chance.
const leastFailures = 3;
// Rounds until another member's hint makes us ask the same address again.
const hintRounds = 3;
const fewOthers = 16;

/** One member's part in the mesh. */
export class Membership {
  readonly self: Entry;
  readonly #options: MembershipOptions;
  readonly #maxMembers: number;
  readonly #maxMessage: number;
  readonly #forgetAfter: number;
  readonly #entries = new Map<string, Entry>();
  readonly #places = new Map<string, Place>();
  /** What is to be asked as soon as there is room. */
  readonly #waiting = new Map<string, Set<Place>>();
  /** Questions on the way, by source. */
  readonly #asking = new Map<string, number>();
  #hinted = 0;
  /** How many live, this one too, and the digests of each by exclusive or: so a change costs the same in any mesh. */
  #count = 0;
  #digest = 0;
  #lastNow: number;
  /** When we were last found to have been stopped ourselves. */
  #wokeAt = Number.NEGATIVE_INFINITY;

  /** Throws UsageError for a name or record that no member may have. */
  constructor(options: MembershipOptions) {
    const { clock, name, random } = options;
    this.#options = options;
    this.#maxMembers = options.maxMembers ?? 10_000;
    this.#maxMessage = options.maxMessage ?? messageLimit;
    this.#forgetAfter = options.forgetAfterMs ?? 7 * day;
    this.#lastNow = clock.monotonic();
    const checked = checkRecord(name, { ...options.record, left: false });
    const process = Math.floor(random() * 2 ** 52).toString(36);
    this.self = newEntry(name, checked, process, this.#lastNow, this.#lastNow);
    this.#entries.set(name, this.self);
    this.#counts(this.self, 1);
    this.setSeeds(options.seeds ?? []);
  }

  get name(): string {
    return this.self.name;
  }

  /** What this member says of itself from now on. Throws UsageError as the constructor does. */
  update(record: Omit<MemberRecord, 'left'>): void {
    if (this.self.record.left) return;
    const { text } = this.self;
    this.#say(checkRecord(this.name, { ...record, left: false }));
    // A question names our version: the others come and read it.
    if (this.self.text !== text) for (const address of this.#living()) this.#want(this.#place(address));
  }

  /** From now on this member says that it goes. Returns the questions that make the others read that. */
  leave(): Ask[] {
    this.#say(checkRecord(this.name, { ...this.self.record, left: true }));
    this.self.state = 'dead';
    const living = this.#living();
    return shuffled(living, living.length, this.#options.random).map((address) => this.#ask(this.#place(address)));
  }

  #say(checked: CheckedRecord): void {
    Object.assign(this.self, checked, { address: gossipAddress(checked.record) });
  }

  /** Where members may be before any is known: `host:port`. */
  setSeeds(addresses: readonly string[]): void {
    for (const place of this.#places.values()) place.isSeed = false;
    for (const address of addresses.slice(0, this.#maxMembers)) {
      const plain = address.toLowerCase();
      if (isAddress(plain) && plain !== this.self.address) this.#place(plain).isSeed = true;
    }
  }

  /** True while no other member is known that lives. */
  get alone(): boolean {
    return this.#count === 1;
  }

  get(name: string): Entry | undefined {
    return this.#entries.get(name);
  }

  entries(): Iterable<Entry> {
    return this.#entries.values();
  }

  /** All members, this one too, sorted by name. */
  members(): KnownMember[] {
    return [...this.#entries.values()].sort(byName).map((entry) => this.#known(entry));
  }

  /** One interval has passed: judges the silence of others, and chooses whom to ask. */
  tick(): void {
    const now = this.#now();
    const { intervalMs, factor, random, stalenessThreshold, deadThreshold } = this.#options;
    this.self.seenAt = now;
    const due: Place[] = [];
    for (const entry of this.#entries.values()) {
      if (entry === this.self) continue;
      const place = this.#places.get(entry.address);
      if (now - entry.seenAt >= this.#forgetAfter) {
        if (entry.state !== 'dead') this.#counts(entry, -1);
        this.#entries.delete(entry.name);
        continue;
      }
      if (entry.state === 'dead') continue;
      const rounds = entry.failingSince === undefined ? 0 : (now - entry.failingSince) / intervalMs;
      const isDead = rounds >= deadThreshold && entry.failures >= leastFailures;
      const state = isDead ? 'dead' : rounds >= stalenessThreshold ? 'suspected' : 'healthy';
      // Only an answer makes a state better.
      if (ranks[state] > ranks[entry.state]) this.#change(entry, state, entry.state);
      if (place === undefined || isDead) continue;
      // One that does not answer is asked in each round, whether or not an earlier question is still on its way.
      if (entry.failures > 0 || (place.asking.size > 0 && now - place.askedAt >= intervalMs / 2)) this.#want(place);
      else due.push(place);
    }
    due.sort((a, b) => a.askedAt - b.askedAt);
    const alive = this.#count - 1;
    for (const place of due.slice(0, Math.max(factor, Math.ceil(alive / cycle)))) this.#want(place);
    // A mesh that fell apart must find itself again, and not spend its time on the dead: each of them is asked by about
    // one member a round.
    const lost: Place[] = [];
    for (const place of this.#places.values()) {
      const entry = this.#at(place);
      if (place.isSelf || this.#isAlive(place) || entry?.record.left === true) continue;
      if (place.isSeed || entry !== undefined) lost.push(place);
      else if (place.asking.size === 0 && place.waiting === undefined) {
        if (place.failures > 0 && place.failures < leastFailures) this.#want(place, place.source);
        else if (now - place.askedAt > cycle * intervalMs) this.#places.delete(place.address);
      }
    }
    const more = alive === 0 ? factor : random() < lost.length / (alive + 1) ? 1 : 0;
    for (const place of shuffled(lost, more, random)) this.#want(place);
  }

  /** The questions to ask now. Each must come to `settle` or `failed`. */
  asks(): Ask[] {
    const asks: Ask[] = [];
    // Those that still have something waiting come last the next time.
    for (const [source, places] of [...this.#waiting]) {
      this.#waiting.delete(source);
      for (const place of places) {
        const isOurs = source === ourselves;
        if ((this.#asking.get(source) ?? 0) >= (sourceLimits[source] ?? tellerLimit)) break;
        if (!isOurs && this.#hinted >= hintedLimit) break;
        if (place.asking.size >= placeLimit) continue;
        places.delete(place);
        asks.push(this.#ask(place, source));
      }
      if (places.size > 0) this.#waiting.set(source, places);
    }
    return asks;
  }

  #ask(place: Place, source = ourselves): Ask {
    const entry = this.#at(place);
    const { name, process, version, address: at, record } = this.self;
    const count = Math.max(this.#count, this.#places.size + 1);
    const members = { count, digest: this.#names() };
    const body = writeQuestion({
      name,
      process,
      version,
      at,
      have: entry?.etag,
      ...members,
      leaving: record.left,
    });
    const ask = { address: place.address, body, at: this.#now(), source };
    place.asking.add(ask);
    place.askedAt = ask.at;
    place.waiting = undefined;
    this.#counted(source, 1);
    return ask;
  }

  /**
   * Takes the answer to a question. `node`: the name of the tailnet's node that gave it, where that is known: a record
   * counts only from the node of the member's name.
   */
  settle(ask: Ask, answer: Answer, node?: string): void {
    const place = this.#done(ask);
    if (place === undefined) return;
    const { name } = answer;
    place.failures = 0;
    const problem = this.#take(ask, place, answer, node);
    if (problem !== undefined) {
      this.#options.onSkip?.(name, problem);
      this.#fails(ask, place);
      // It answers, so another try would be no better.
      place.failures = leastFailures;
      return;
    }
    for (const address of answer.others) this.#hint(address, name);
  }

  /** Takes what a member says of itself; returns why it does not count. */
  #take(ask: Ask, place: Place, answer: Answer, node: string | undefined): string | undefined {
    const { address } = place;
    const { name, process, version } = answer;
    const earlier = this.#at(place);
    if (process === this.self.process) {
      place.isSelf = earlier === undefined;
      return earlier && `${earlier.name} says that it is us (${address})`;
    }
    if (node !== undefined && node !== name) return `its node is "${node}" on the tailnet (${address})`;
    if (name === this.name) {
      this.#options.onTwin?.();
      return `it has our name (${address})`;
    }
    const entry = this.#entries.get(name);
    const had = entry?.address === address && entry.version === version ? entry : undefined;
    const checked = answer.record ?? had;
    if (checked === undefined || checked.version !== version) return `it does not give its record (${address})`;
    const home = gossipAddress(checked.record);
    if (home !== address) {
      // Anybody may point at another's server. Only what is read there counts.
      this.#hint(home, callers);
      if (earlier !== undefined) return `it is now at ${home}, no longer at ${address}`;
      place.name = name;
      return undefined;
    }
    if (entry !== undefined && entry.address !== address && entry.state !== 'dead') {
      this.#want(this.#place(entry.address));
      return `two processes have this name: ${entry.address} and ${address}`;
    }
    if (earlier !== undefined && earlier.name !== name && earlier.state !== 'dead') {
      this.#change(earlier, 'dead', earlier.state);
    }
    place.name = name;
    if (entry === undefined) return this.#welcome(ask, checked, answer);
    // An answer that was overtaken by a later one.
    if (ask.at < entry.askedAt) return undefined;
    const renewed = entry.text !== checked.text || entry.process !== process;
    const { record, text, etag } = checked;
    Object.assign(entry, { record, text, etag, version, process, address, askedAt: ask.at, seenAt: this.#now() });
    Object.assign(entry, { failingSince: undefined, failures: 0, mark: markOf(name, address) });
    this.#change(entry, record.left ? 'dead' : 'healthy', entry.state, renewed);
    return undefined;
  }

  #welcome(ask: Ask, checked: CheckedRecord, { name, process }: Answer): string | undefined {
    if (checked.record.left) return undefined;
    if (this.#entries.size >= this.#maxMembers) {
      const oldest = this.#longestDead();
      if (oldest === undefined) return `there are ${this.#maxMembers} members already`;
      this.#entries.delete(oldest.name);
    }
    const entry = newEntry(name, checked, process, this.#now(), ask.at);
    this.#entries.set(name, entry);
    this.#change(entry, 'healthy', undefined);
    return undefined;
  }

  #longestDead(): Entry | undefined {
    let oldest: Entry | undefined;
    for (const entry of this.#entries.values()) {
      if (entry !== this.self && entry.state === 'dead' && entry.seenAt < (oldest?.seenAt ?? Infinity)) oldest = entry;
    }
    return oldest;
  }

  /** A question got no answer, or none that could be used. */
  failed(ask: Ask): void {
    const place = this.#done(ask);
    if (place !== undefined) this.#fails(ask, place);
  }

  #fails(ask: Ask, place: Place): void {
    place.failures++;
    const entry = this.#at(place);
    const now = this.#now();
    // A later question may have been answered already.
    if (entry === undefined || entry.state === 'dead' || ask.at < entry.askedAt) return;
    entry.failures++;
    // While we were stopped ourselves nobody could answer us.
    entry.failingSince = Math.min(entry.failingSince ?? now, Math.max(ask.at, this.#wokeAt));
  }

  #done(ask: Ask): Place | undefined {
    const place = this.#places.get(ask.address);
    if (place === undefined || !place.asking.delete(ask)) return undefined;
    this.#counted(ask.source, -1);
    return place;
  }

  /** The answer to a question. What it says of its teller only makes us read that one's record. */
  answer(question: Question): Buffer {
    const { name, at, process, version, have, count, digest } = question;
    if (process !== this.self.process) {
      if (name === this.name) this.#options.onTwin?.();
      const entry = this.#entries.get(name);
      const known = entry !== undefined && entry.address === at && entry.state === 'healthy' && entry.failures === 0;
      if (!known || entry.version !== version || entry.process !== process) this.#hint(at, callers);
    }
    // One that has just started is told of all, as far as they fit.
    const most = digest === this.#names() ? 0 : Math.max(fewOthers, 4 * (this.#count - count));
    const others = most === 0 ? [] : shuffled(this.#living(), most, this.#options.random);
    const text = have === this.self.etag ? undefined : this.self.text;
    return writeAnswer(
      this.self,
      text,
      others.filter((address) => address !== at),
      this.#maxMessage,
    );
  }

  /** Somebody says that a member is at an address: that one itself, or another. */
  #hint(address: string, source: string): void {
    if (address === this.self.address) return;
    const place = this.#places.get(address);
    if (place === undefined) {
      // Room for the members, and for as many that are not.
      if (this.#places.size < 3 * this.#maxMembers) this.#want(this.#place(address), source);
      return;
    }
    // An address of ours may become another's.
    if (source === callers) place.isSelf = false;
    // Its first answer is on its way.
    if (place.isSelf || (place.asking.size > 0 && this.#at(place) === undefined)) return;
    const isRecent = this.#now() - place.askedAt < hintRounds * this.#options.intervalMs;
    if (source === callers || !(this.#isAlive(place) || isRecent)) this.#want(place, source);
  }

  #place(address: string): Place {
    const known = this.#places.get(address);
    if (known !== undefined) return known;
    const place: Place = {
      address,
      asking: new Set(),
      isSeed: false,
      isSelf: false,
      askedAt: Number.NEGATIVE_INFINITY,
      name: undefined,
      failures: 0,
      waiting: undefined,
      source: ourselves,
    };
    this.#places.set(address, place);
    return place;
  }

  /** Asks an address as soon as there is room for what its source wants. */
  #want(place: Place, source = ourselves): void {
    const places = this.#waiting.get(source) ?? new Set();
    if (place.waiting !== undefined) {
      // Nobody hides an address from us by having us wait for many others first.
      const earlier = this.#waiting.get(place.waiting);
      if (source !== ourselves && places.size >= (earlier?.size ?? 0)) return;
      earlier?.delete(place);
      place.waiting = undefined;
    }
    if (source !== ourselves && places.size >= waitingLimit) return;
    this.#waiting.set(source, places);
    places.add(place);
    place.waiting = source;
    place.source = source;
  }

  #counted(source: string, by: 1 | -1): void {
    const count = (this.#asking.get(source) ?? 0) + by;
    if (count > 0) this.#asking.set(source, count);
    else this.#asking.delete(source);
    if (source !== ourselves) this.#hinted += by;
  }

  /** The member whose record is read there. */
  #at({ name, address }: Place): Entry | undefined {
    const entry = name === undefined ? undefined : this.#entries.get(name);
    return entry?.address === address ? entry : undefined;
  }

  /** Whether a member that lives has answered there, though its record may be read elsewhere. */
  #isAlive({ name }: Place): boolean {
    const state = name === undefined ? undefined : this.#entries.get(name)?.state;
    return state !== undefined && state !== 'dead';
  }

  #change(entry: Entry, state: MemberState, before: MemberState | undefined, renewed = false): void {
    if (before !== undefined && before !== 'dead') this.#counts(entry, -1);
    if (state !== 'dead') this.#counts(entry, 1);
    entry.state = state;
    if (state !== before || renewed) this.#options.onChange?.(this.#known(entry), before);
  }

  #counts(entry: Entry, by: 1 | -1): void {
    this.#count += by;
    this.#digest ^= entry.mark;
  }

  /** Where the others are that live. */
  #living(): string[] {
    const living: string[] = [];
    for (const entry of this.#entries.values()) {
      if (entry !== this.self && entry.state !== 'dead') living.push(entry.address);
    }
    return living;
  }

  /** A digest of the names and addresses of all members that live. */
  #names(): string {
    return (this.#digest >>> 0).toString(36);
  }

  /** The time, and whether much of it has passed unseen: then that is no silence of others. */
  #now(): number {
    const now = this.#options.clock.monotonic();
    const { intervalMs } = this.#options;
    const gap = now - this.#lastNow;
    if (gap > 3 * intervalMs) {
      this.#wokeAt = now;
      for (const entry of this.#entries.values()) {
        if (entry.failingSince !== undefined) entry.failingSince = Math.min(now, entry.failingSince + gap - intervalMs);
      }
    }
    this.#lastNow = now;
    return now;
  }

  #known(entry: Entry): KnownMember {
    const { clock } = this.#options;
    const ago = entry === this.self ? 0 : clock.monotonic() - entry.seenAt;
    return { name: entry.name, record: entry.record, state: entry.state, lastSeen: clock.wall() - ago };
  }
}

function newEntry(name: string, checked: CheckedRecord, process: string, seenAt: number, askedAt: number): Entry {
  const life = { process, address: gossipAddress(checked.record), state: 'healthy' as const };
  return {
    name,
    ...checked,
    ...life,
    seenAt,
    askedAt,
    failingSince: undefined,
    failures: 0,
    mark: markOf(name, life.address),
  };
}

const markOf = (name: string, address: string): number =>
  Buffer.from(digestOf(`${name} ${address}`), 'base64url').readInt32LE();

const byName = (a: Entry, b: Entry): number => (a.name < b.name ? -1 : 1);

/** So many of the items, each by the same chance. */
function shuffled<T>(items: T[], count: number, random: () => number): T[] {
  for (let i = 0; i < Math.min(count, items.length); i++) {
    const j = i + Math.floor(random() * (items.length - i));
    [items[i], items[j]] = [items[j] as T, items[i] as T];
  }
  return items.slice(0, count);
}
