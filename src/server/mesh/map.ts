// Who is in the mesh, as one member knows it. Pure: time is its caller's.
import type { MemberState } from '../../tka/types.ts';
import { checkRecord, gossipAddress, join, type Life, type MemberRecord } from './member.ts';
import type { Beat, Message, Told } from './wire.ts';

export interface Clock {
  /** Milliseconds that only ever grow, from any start: all waiting is measured so. */
  monotonic(): number;
  /** Milliseconds of the epoch: for incarnations and for what people read. */
  wall(): number;
}

export interface MapOptions {
  readonly name: string;
  readonly record: Omit<MemberRecord, 'left'>;
  readonly clock: Clock;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
  readonly intervalMs: number;
  /** Rounds without news until a member is suspected, and until it is dead. */
  readonly stalenessThreshold: number;
  readonly deadThreshold: number;
  readonly forgetAfterMs?: number;
  readonly maxMembers?: number;
  /** A member is new to us (`before` is undefined), what it says of itself is new, or its state is. */
  readonly onChange?: (member: KnownMember, before: MemberState | undefined) => void;
  /** Somebody says of us what is not so; called each time that it had to be contradicted. */
  readonly onRumour?: (incarnation: number) => void;
  /** A member is not taken, for a reason that is ours to judge. */
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

/** What is kept of a member. Only its map changes it. */
export interface Entry {
  readonly name: string;
  incarnation: number;
  heartbeat: number;
  record: MemberRecord;
  text: string;
  /** `host:port`. */
  address: string;
  state: MemberState;
  /** Monotonic time of the latest heartbeat that we know of. */
  seenAt: number;
  /** From when its silence counts. */
  quietFrom: number;
}

const day = 24 * 60 * 60 * 1000;
const ranks: Readonly<Record<MemberState, number>> = { healthy: 0, suspected: 1, dead: 2 };

/** The map of members by name, this one among them. */
export class MemberMap {
  readonly self: Entry;
  readonly maxMembers: number;
  readonly #options: MapOptions;
  readonly #clock: Clock;
  readonly #forgetAfter: number;
  readonly #entries = new Map<string, Entry>();
  #sorted: readonly string[] | undefined;
  #lastTick: number;

  /** Throws UsageError for a name or record that no member may have. */
  constructor(options: MapOptions) {
    const { clock, name } = options;
    this.#options = options;
    this.#clock = clock;
    this.#forgetAfter = options.forgetAfterMs ?? 7 * day;
    this.maxMembers = options.maxMembers ?? 2000;
    this.#lastTick = clock.monotonic();
    const checked = checkRecord(name, { ...options.record, left: false });
    // The start of a process is later than that of the one before. Where a clock was set back, the others know better.
    const life = { incarnation: Math.max(1, Math.floor(clock.wall())), heartbeat: this.#firstHeartbeat(), ...checked };
    this.self = newEntry(name, life, this.#lastTick, this.#lastTick);
    this.#entries.set(name, this.self);
  }

  /** What this member says of itself now: a new incarnation, if that is new. Throws UsageError as the constructor does. */
  update(record: Omit<MemberRecord, 'left'>): void {
    const checked = checkRecord(this.self.name, { ...record, left: false });
    if (checked.text !== this.self.text && !this.self.record.left) this.#renew(checked);
  }

  /** From now on this member says that it goes. */
  leave(): void {
    const { name, record } = this.self;
    if (record.left) return;
    this.#renew(checkRecord(name, { ...record, left: true }));
    // Nothing follows in this incarnation. A later start that happens to have the same number sees that it is not its own.
    this.self.heartbeat = Number.MAX_SAFE_INTEGER;
    this.self.state = 'dead';
  }

  #renew(checked: Pick<Life, 'record' | 'text'>): void {
    const { self } = this;
    Object.assign(self, checked, { incarnation: self.incarnation + 1, heartbeat: this.#firstHeartbeat() });
    self.address = gossipAddress(self.record);
  }

  // Two processes of one name that come to the same incarnation and count in step would never notice each other.
  #firstHeartbeat(): number {
    return Math.floor(this.#options.random() * 10_000);
  }

  get(name: string): Entry | undefined {
    return this.#entries.get(name);
  }

  entries(): Iterable<Entry> {
    return this.#entries.values();
  }

  /** All names, sorted. */
  names(): readonly string[] {
    this.#sorted ??= [...this.#entries.keys()].sort();
    return this.#sorted;
  }

  /** All members, this one too, sorted by name. */
  members(): KnownMember[] {
    return this.names().map((name) => this.#known(this.#entries.get(name) as Entry));
  }

  /** One interval has passed: this member lives, and the silence of others is judged. */
  tick(): void {
    const now = this.#clock.monotonic();
    const gap = now - this.#lastTick;
    this.#lastTick = now;
    const { intervalMs } = this.#options;
    // Whoever was stopped himself could hear nobody: that time is no silence of theirs.
    const slept = gap > 3 * intervalMs ? gap - intervalMs : 0;
    if (!this.self.record.left) this.self.heartbeat++;
    this.self.seenAt = now;
    for (const entry of this.#entries.values()) {
      if (entry === this.self) continue;
      if (now - entry.seenAt >= this.#forgetAfter) {
        this.#entries.delete(entry.name);
        this.#sorted = undefined;
        continue;
      }
      if (slept > 0 && entry.state !== 'dead') entry.quietFrom = Math.min(now, entry.quietFrom + slept);
      const state = this.#judge(entry, now);
      // Only news makes a state better.
      if (ranks[state] > ranks[entry.state]) this.#change(entry, state, entry.state);
    }
  }

  /** Takes what a peer tells: whose records we lack, and whether it had something wrong about us. */
  take(message: Message): { readonly want: string[]; readonly rumour: boolean } {
    const now = this.now();
    const { incarnation: before } = this.self;
    const want: string[] = [];
    for (const told of message.records) this.#learn(told, now);
    for (const beat of message.beats) {
      const { name, incarnation, heartbeat } = beat;
      if (name === this.self.name) {
        this.#contradict(beat);
        continue;
      }
      const entry = this.#entries.get(name);
      if (entry === undefined || incarnation > entry.incarnation) {
        if (this.#welcome(beat, entry)) want.push(name);
      } else if (incarnation === entry.incarnation && heartbeat > entry.heartbeat) {
        entry.heartbeat = heartbeat;
        this.#heard(entry, beat.ageMs, now);
      }
    }
    return { want, rumour: this.self.incarnation > before };
  }

  #learn(told: Told, now: number): void {
    const { name, incarnation, heartbeat, ageMs, record, text } = told;
    if (name === this.self.name) {
      this.#contradict(told);
      return;
    }
    const entry = this.#entries.get(name);
    const life = { incarnation, heartbeat, record, text };
    if ((entry === undefined || incarnation > entry.incarnation) && !this.#welcome(told, entry)) return;
    if (entry === undefined) {
      if (this.#entries.size >= this.maxMembers) this.#entries.delete(this.#longestDead()?.name ?? '');
      const fresh = newEntry(name, life, now - ageMs, this.#quietFrom(ageMs, now));
      this.#entries.set(name, fresh);
      this.#sorted = undefined;
      this.#change(fresh, this.#judge(fresh, now), undefined);
      return;
    }
    const joined = join(entry, life);
    const newer = joined.incarnation > entry.incarnation || joined.text !== entry.text;
    if (!newer && joined.heartbeat === entry.heartbeat) return;
    if (newer) entry.address = gossipAddress(record);
    entry.incarnation = joined.incarnation;
    entry.heartbeat = joined.heartbeat;
    entry.record = joined.record;
    entry.text = joined.text;
    this.#heard(entry, ageMs, now, newer);
  }

  // Whether a version that is new to us is one to take.
  #welcome({ name, incarnation, ageMs }: Beat, entry: Entry | undefined): boolean {
    // A number too high to be passed by would keep its owner out for ever, and no clock is right that is a day ahead.
    if (incarnation > this.#clock.wall() + day) return this.#skip(name, 'its clock is more than a day ahead of ours');
    if (entry !== undefined) return true;
    // Others forget it soon, as we may just have done.
    if (ageMs >= this.tellAfter) return false;
    if (this.#entries.size < this.maxMembers) return true;
    // Somebody who lives is worth more than the longest dead.
    const { intervalMs, deadThreshold } = this.#options;
    if (ageMs < intervalMs * deadThreshold && this.#longestDead() !== undefined) return true;
    return this.#skip(name, `there are ${this.maxMembers} members already`);
  }

  #skip(name: string, why: string): false {
    this.#options.onSkip?.(name, why);
    return false;
  }

  #longestDead(): Entry | undefined {
    let oldest: Entry | undefined;
    for (const entry of this.#entries.values()) {
      if (entry !== this.self && entry.state === 'dead' && entry.seenAt < (oldest?.seenAt ?? Infinity)) oldest = entry;
    }
    return oldest;
  }

  #heard(entry: Entry, ageMs: number, now: number, renewed = false): void {
    entry.seenAt = Math.max(entry.seenAt, now - ageMs);
    entry.quietFrom = Math.max(entry.quietFrom, this.#quietFrom(ageMs, now));
    this.#change(entry, this.#judge(entry, now), entry.state, renewed);
  }

  // News is some rounds on its way in a large mesh. Up to the staleness threshold that is no silence; what is older is an
  // old story, and its age counts: so nobody comes back to life by it.
  #quietFrom(ageMs: number, now: number): number {
    const { intervalMs, stalenessThreshold } = this.#options;
    return now - Math.max(0, ageMs - intervalMs * stalenessThreshold);
  }

  #judge(entry: Entry, now: number): MemberState {
    const { intervalMs, stalenessThreshold, deadThreshold } = this.#options;
    const rounds = (now - entry.quietFrom) / intervalMs;
    if (entry.record.left || rounds >= deadThreshold) return 'dead';
    return rounds >= stalenessThreshold ? 'suspected' : 'healthy';
  }

  #change(entry: Entry, state: MemberState, before: MemberState | undefined, renewed = false): void {
    entry.state = state;
    if (state !== before || renewed) this.#options.onChange?.(this.#known(entry), before);
  }

  // What others say of us, and is not so, gets an answer that wins.
  #contradict({ incarnation, heartbeat }: Beat): void {
    const { self } = this;
    const older = incarnation < self.incarnation || (incarnation === self.incarnation && heartbeat <= self.heartbeat);
    if (older || incarnation > this.#clock.wall() + day) return;
    self.incarnation = incarnation + 1;
    self.heartbeat = this.#firstHeartbeat();
    this.#options.onRumour?.(incarnation);
  }

  /** The age from which on a member is not told to those who do not know it, in milliseconds. */
  get tellAfter(): number {
    return (this.#forgetAfter / 7) * 6;
  }

  now(): number {
    return this.#clock.monotonic();
  }

  /** The newest that we know of a member. */
  beatOf({ name, incarnation, heartbeat, seenAt }: Entry, now: number): Beat {
    const ageMs = name === this.self.name ? 0 : Math.max(0, Math.round(now - seenAt));
    return { name, incarnation, heartbeat, ageMs };
  }

  #known(entry: Entry): KnownMember {
    const ago = entry === this.self ? 0 : this.now() - entry.seenAt;
    return { name: entry.name, record: entry.record, state: entry.state, lastSeen: this.#clock.wall() - ago };
  }
}

function newEntry(name: string, life: Life, seenAt: number, quietFrom: number): Entry {
  const { incarnation, heartbeat, record, text } = life;
  const address = gossipAddress(record);
  return { name, incarnation, heartbeat, record, text, address, state: 'healthy', seenAt, quietFrom };
}
