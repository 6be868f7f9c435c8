// The exchanges that keep all members' maps alike. Pure: time, chance and the network are its caller's.
import { type Entry, type MapOptions, MemberMap } from './map.ts';
import { type Message, MessageWriter, messageLimit } from './wire.ts';

export interface MembershipOptions extends MapOptions {
  /** How many peers are asked each interval. */
  readonly factor: number;
  /** Where peers may be before any member is known there: `host:port`. */
  readonly seeds?: readonly string[];
  /** Bytes. */
  readonly maxMessage?: number;
}

/** One member's part in the mesh. An exchange is `open`, at the peer `answer`, here `settle`, and at the peer `answer` again. */
export class Membership extends MemberMap {
  readonly name: string;
  readonly #factor: number;
  readonly #random: () => number;
  readonly #maxMessage: number;
  /** Seeds, and the name of who answered there. */
  readonly #seeds = new Map<string, string | undefined>();
  #cursor = 0;

  /** Throws UsageError for a name or record that no member may have. */
  constructor(options: MembershipOptions) {
    super(options);
    this.name = options.name;
    this.#factor = options.factor;
    this.#random = options.random;
    this.#maxMessage = options.maxMessage ?? messageLimit;
    this.setSeeds(options.seeds ?? []);
  }

  /** Where peers may be before any member is known there: `host:port`. */
  setSeeds(addresses: readonly string[]): void {
    const names = new Map(this.#seeds);
    this.#seeds.clear();
    for (const address of addresses.slice(0, this.maxMembers)) this.#seeds.set(address, names.get(address));
  }

  /** True while no other member is known that might answer. */
  get alone(): boolean {
    for (const entry of this.entries()) if (entry !== this.self && entry.state !== 'dead') return false;
    return true;
  }

  /** Whom to ask this round: `host:port`, each once, `count` of those who live. */
  targets(count = this.#factor): string[] {
    const live: string[] = [];
    const lost = new Set<string>();
    for (const entry of this.entries()) {
      if (entry === this.self) continue;
      if (entry.state !== 'dead') live.push(entry.address);
      else if (!entry.record.left) lost.add(entry.address);
    }
    for (const [address, name] of this.#seeds) {
      const entry = name === undefined ? undefined : this.get(name);
      const answered = entry === this.self || (entry !== undefined && entry.state !== 'dead');
      if (!answered || live.length === 0) lost.add(address);
    }
    lost.delete(this.self.address);
    const chosen = new Set(this.#some(live, count));
    // A mesh that fell apart must find itself again, and not spend its time on the dead: each of them is asked by about
    // one member a round.
    const more = live.length === 0 ? this.#factor : this.#random() < lost.size / (live.length + 1) ? 1 : 0;
    for (const address of this.#some([...lost], more)) chosen.add(address);
    return [...chosen];
  }

  /** The first message of an exchange: what we know, or a slice of it, the next one each time. */
  open(): Buffer {
    const now = this.now();
    const writer = new MessageWriter(this.name, this.#maxMessage);
    writer.beat(this.beatOf(this.self, now));
    const names = this.names();
    const start = this.#cursor < names.length ? this.#cursor : 0;
    let at = start;
    for (; at < names.length; at++) {
      const entry = this.get(names[at] as string) as Entry;
      if (entry !== this.self && !writer.beat(this.beatOf(entry, now))) break;
    }
    this.#cursor = at < names.length ? at : 0;
    return writer.finish({ first: start === 0 ? '' : (names[start] as string), end: names[at] ?? '' });
  }

  /** Takes what a peer tells, and answers with what it lacks and what we want of it. */
  answer(message: Message): Buffer {
    const now = this.now();
    const { want } = this.take(message);
    const writer = new MessageWriter(this.name, this.#maxMessage);
    const told: Entry[] = [];
    const asked = message.range;
    if (asked !== undefined) {
      const theirs = new Map(message.beats.map((beat) => [beat.name, beat]));
      for (const entry of this.#turned()) {
        const { name, incarnation, heartbeat } = entry;
        if (name < asked.first || (asked.end !== '' && name >= asked.end)) continue;
        const beat = theirs.get(name);
        if (beat === undefined || beat.incarnation < incarnation) {
          if (beat !== undefined || now - entry.seenAt < this.tellAfter) told.push(entry);
        } else if (beat.incarnation === incarnation && beat.heartbeat < heartbeat) {
          // The rest is for those who join.
          if (writer.size < this.#maxMessage * 0.75) writer.beat(this.beatOf(entry, now));
        }
      }
    }
    this.#fill(writer, want, told, now);
    return writer.finish();
  }

  /** Takes the answer of an exchange; the message with what the peer wants of us, undefined when it wants nothing. */
  settle(message: Message, address?: string): Buffer | undefined {
    const now = this.now();
    if (address !== undefined && this.#seeds.has(address)) this.#seeds.set(address, message.teller);
    const { want, rumour } = this.take(message);
    const wanted = new Set(message.want);
    // It believes something wrong of us: the sooner it knows better.
    if (rumour) wanted.add(this.name);
    const told = [...wanted].flatMap((name) => this.get(name) ?? []);
    if (told.length === 0 && want.length === 0) return undefined;
    const writer = new MessageWriter(this.name, this.#maxMessage);
    this.#fill(writer, want, told, now);
    return writer.finish();
  }

  /** The message that tells a peer of ourselves alone: that we go. */
  farewell(): Buffer {
    const writer = new MessageWriter(this.name, this.#maxMessage);
    this.#fill(writer, [], [this.self], this.now());
    return writer.finish();
  }

  #fill(writer: MessageWriter, want: readonly string[], told: readonly Entry[], now: number): void {
    for (const name of want) if (!writer.want(name)) break;
    for (const entry of told) {
      if (!writer.record({ ...this.beatOf(entry, now), text: entry.text })) break;
    }
  }

  // All entries from a place of chance on: where a message cannot hold all, each gets its turn.
  *#turned(): Iterable<Entry> {
    const names = this.names();
    const start = Math.floor(this.#random() * names.length);
    for (let i = 0; i < names.length; i++) yield this.get(names[(start + i) % names.length] as string) as Entry;
  }

  #some<T>(items: T[], count: number): T[] {
    for (let i = 0; i < Math.min(count, items.length); i++) {
      const j = i + Math.floor(this.#random() * (items.length - i));
      [items[i], items[j]] = [items[j] as T, items[i] as T];
    }
    return items.slice(0, count);
  }
}
