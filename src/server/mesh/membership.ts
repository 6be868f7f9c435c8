// One member's part in the mesh: it reads each other member's record from that member itself. Pure: the caller provides
// time, randomness and the network.
import type { MemberState } from '../../tka/types.ts';
import type { JoinedRow, PageAnswer, PageQuestion } from './joined.ts';
import { Lost } from './lost.ts';
import { type CheckedRecord, checkRecord, gossipAddress, isOtherRecord, type MemberRecord } from './member.ts';
import { News } from './news.ts';
import type { KnownMember, MembershipOptions } from './options.ts';
import { type PageAsk, Pages } from './pages.ts';
import { type Ask, callers, ourselves, Questions } from './questions.ts';
import {
  answered,
  type Entry,
  isAlive,
  isFirst,
  isSilent,
  leastFailures,
  markOf,
  newEntry,
  type Place,
  pick,
  type Read,
  Roster,
} from './roster.ts';
import {
  type GossipAnswer,
  type GossipQuestion,
  messageLimit,
  silentLimit,
  writeAnswer,
  writeQuestion,
} from './wire.ts';

export type { Ask } from './questions.ts';
export type { Entry } from './roster.ts';

const day = 24 * 60 * 60 * 1000;

const ranks: Readonly<Record<MemberState, number>> = { healthy: 0, suspected: 1, dead: 2 };

// Number of questions to an address without a known member before it is given up.
const strangerTries = 5;

// Number of rounds after a question until a report makes us ask the address again: if we consider its member alive, and
// if we consider it dead.
const reportRounds = { living: 3, dead: 6 };

// Number of rounds for which to remember an address that turned out to belong to no member.
const strangerRounds = 60;

// If the digests differ, an answer names random members: at least `fewOthers` living ones, and at most `fewSilent` dead
// ones.
const fewOthers = 8;

const fewSilent = 4;

export class Membership {
  readonly self: Entry;
  readonly #options: MembershipOptions;
  readonly #maxMembers: number;
  readonly #roster: Roster;
  readonly #questions: Questions;
  readonly #news: News;
  #selfText: string;
  readonly #lost = new Lost();
  readonly #pages: Pages;
  #lastNow: number;
  /** Monotonic time when this process last noticed that it had been suspended. */
  #wokeAt = Number.NEGATIVE_INFINITY;

  /** Throws UsageError if the name or the record is invalid. */
  constructor(options: MembershipOptions) {
    const { clock, name, random } = options;
    this.#options = options;
    this.#maxMembers = options.maxMembers ?? 10_000;
    this.#roster = new Roster(random);
    this.#news = new News(options.intervalMs);
    this.#pages = new Pages(options.intervalMs);
    // Room for all members, and for twice as many addresses that belong to no member.
    this.#questions = new Questions(3 * this.#maxMembers);
    this.#lastNow = clock.monotonic();
    const checked = checkRecord(name, { ...options.record, left: false });
    const process = Math.floor(random() * 2 ** 36).toString(36);
    const place = this.#questions.place(gossipAddress(checked.record));
    this.self = newEntry(name, checked, process, place, this.#lastNow, this.#lastNow);
    this.#selfText = checked.text;
    this.#roster.add(this.self);
    this.setSeeds(options.seeds ?? []);
  }

  get name(): string {
    return this.self.name;
  }

  /** This member, as the others see it. */
  get known(): KnownMember {
    return this.#known(this.self);
  }

  /**
   * Publishes a new record of this member, except for its page of joined clusters. Throws UsageError as the constructor
   * does.
   */
  update(record: Omit<MemberRecord, 'left' | 'joined'>): void {
    if (this.self.record.left) return;
    const before = this.#selfText;
    this.#publish(checkRecord(this.name, { ...record, joined: this.self.record.joined, left: false }));
    // Each question carries the new version, so the members that are asked read the record.
    if (this.#selfText !== before) for (const { place } of this.#others()) this.#questions.want(place);
  }

  /**
   * Publishes the clusters that joined this member. The others learn of it when they next read the record, each at its
   * own time: so they never fetch the page all at once. Throws UsageError if the record becomes too long.
   */
  publishJoined(rows: readonly JoinedRow[]): void {
    const { record } = this.self;
    const joined = this.#pages.setOwn(rows);
    if (!record.left && joined !== record.joined) this.#publish(checkRecord(this.name, { ...record, joined }));
  }

  /** Marks the record of this member as leaving. Returns the questions that make the other members read it. */
  leave(): Ask[] {
    this.#publish(checkRecord(this.name, { ...this.self.record, left: true }));
    const others = this.#others();
    return pick(others, others.length, this.#options.random).map(({ place }) => this.#ask(place, ourselves));
  }

  #publish({ record, text, etag, version }: CheckedRecord): void {
    const { self } = this;
    const place = this.#questions.place(gossipAddress(record));
    this.#roster.setState(self, 'dead');
    this.#selfText = text;
    Object.assign(self, { record, etag, version, place, mark: markOf(self.name, place.address) });
    if (!record.left) this.#roster.setState(self, 'healthy');
  }

  /** Sets the addresses where members may be before any is known: `host:port`. */
  setSeeds(addresses: readonly string[]): void {
    const given = addresses.slice(0, this.#maxMembers);
    // Resets the pace of the search, so that a new peer is asked soon.
    if (this.#lost.setSeeds(given, this.#questions, this.self.place)) this.#news.quiet = 0;
  }

  /** Number of living members, including this one. */
  get living(): number {
    return this.#roster.living;
  }

  get(name: string): Entry | undefined {
    return this.#roster.get(name);
  }

  /** Returns all members, including this one, sorted by name. */
  members(): KnownMember[] {
    return [...this.#roster].sort((a, b) => (a.name < b.name ? -1 : 1)).map((entry) => this.#known(entry));
  }

  /** Returns the clusters that joined other members, with the members, sorted by name. */
  joined(): { readonly owner: KnownMember; readonly rows: readonly JoinedRow[] }[] {
    const owners = [...this.#pages.owners()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return owners.map((entry) => ({ owner: this.#known(entry), rows: this.#pages.of(entry) }));
  }

  /** Returns the questions for pages to ask now. Each must end with a call of `settlePage` or `failedPage`. */
  pageAsks(): PageAsk[] {
    return this.#pages.asks(this.self, this.#now());
  }

  settlePage(ask: PageAsk, answer: PageAnswer, node?: string): void {
    const problem = this.#pages.settle(ask, answer, node);
    if (problem !== undefined) this.#options.onSkip?.(ask.entry.name, problem);
  }

  failedPage(ask: PageAsk): void {
    this.#pages.failed(ask);
  }

  /** Returns the answer to a question for the page of this member. */
  answerPage(question: PageQuestion): Buffer {
    return this.#pages.answer(this.self, question);
  }

  /** Runs a round: checks the members that do not answer, and chooses which members to ask. */
  tick(): void {
    const now = this.#now();
    const { factor, random } = this.#options;
    this.self.seenAt = now;
    for (const entry of this.#roster.dead) {
      if (now - entry.seenAt >= (this.#options.forgetAfterMs ?? 7 * day)) this.#forget(entry);
    }
    this.#news.tick(now);
    for (const place of this.#questions.watched) this.#lookAfter(place, now);
    const alive = this.#roster.living - 1;
    const turns = new Set([this.self]);
    while (turns.size <= Math.min(factor, alive)) turns.add(this.#roster.next());
    for (const { place } of turns) if (place !== this.self.place) this.#questions.want(place);
    const lost = this.#lost.choose(this.#roster, this.#news.quiet, factor, random);
    for (const place of lost) this.#questions.want(place);
  }

  /**
   * Updates the state of a member that does not answer, asks it again, and forgets addresses that belong to no member.
   */
  #lookAfter(place: Place, now: number): void {
    const { intervalMs } = this.#options;
    const { watched } = this.#questions;
    const entry = this.#at(place);
    // A silent member is asked in each round, even while an earlier question is still open.
    const isLate = place.open > 0 && now - place.askedAt >= intervalMs / 2;
    if (entry !== undefined && entry.state !== 'dead') {
      this.#judge(entry, now);
      if (place.failures > 0 || isLate) this.#questions.want(place);
      else if (place.open === 0) watched.delete(place);
    } else if ((place.failures > 0 || isLate) && place.failures + place.open < strangerTries) {
      this.#questions.want(place, place.source);
    } else if (place.open > 0 || place.waiting !== undefined) {
      return;
    } else if (entry !== undefined || place.isSeed || place === this.self.place) {
      watched.delete(place);
    } else if (now - place.askedAt > strangerRounds * intervalMs) {
      this.#questions.forget(place);
    }
  }

  #judge(entry: Entry, now: number): void {
    const { intervalMs, stalenessThreshold, deadThreshold } = this.#options;
    const { failingSince, failures } = entry.place;
    const rounds = failingSince === undefined ? 0 : (now - failingSince) / intervalMs;
    const isDead = rounds >= deadThreshold && failures >= leastFailures;
    const state = isDead ? 'dead' : rounds >= stalenessThreshold ? 'suspected' : 'healthy';
    // Only an answer improves a state.
    if (ranks[state] > ranks[entry.state]) this.#change(entry, state);
  }

  /** Returns the questions to ask now. Each must end with a call of `settle` or `failed`. */
  asks(): Ask[] {
    return this.#questions.due((place, source) => this.#ask(place, source));
  }

  #ask(place: Place, source: string): Ask {
    const { name, process, version, record, etag } = this.self;
    const isCovered = record.joined === undefined && record.federationKey === undefined;
    const body = writeQuestion({
      name,
      process,
      version,
      at: this.self.place.address,
      have: this.#at(place)?.etag,
      // Includes addresses that this member has only heard of, because it need not hear of them again.
      count: Math.max(this.#roster.living, this.#questions.size),
      digest: this.#roster.digest(),
      leaving: record.left,
      etag: isCovered ? undefined : etag,
    });
    const ask = { address: place.address, body, at: this.#now(), source, place, isDone: false };
    this.#questions.sent(ask);
    return ask;
  }

  /**
   * Processes the answer to a question. `node` is the name of the tailnet node that gave the answer, if it is known. A
   * record counts only if it comes from the node with the member's name.
   */
  settle(ask: Ask, answer: GossipAnswer, node?: string): void {
    if (!this.#questions.done(ask)) return;
    const { place } = ask;
    const problem = this.#take(ask, answer, node);
    if (problem === undefined) {
      for (const address of answer.others) this.#report(address, answer.name, false);
      for (const address of answer.silent) this.#report(address, answer.name, true);
      return;
    }
    this.#options.onSkip?.(answer.name, problem);
    // The address does answer, so another try would not help.
    place.failures = Math.max(place.failures, strangerTries - 1);
    this.#fails(ask);
  }

  /** Applies what a member states about itself. Returns the reason if it does not count. */
  #take(ask: Ask, answer: GossipAnswer, node: string | undefined): string | undefined {
    const { place } = ask;
    const { address } = place;
    const { name, process, version } = answer;
    const earlier = this.#at(place);
    if (process === this.self.process && name === this.name) {
      place.isSelf = earlier === undefined;
      if (earlier !== undefined) return `${earlier.name} identifies itself as this member (${address})`;
      answered(place, undefined);
      return undefined;
    }
    if (node !== undefined && node !== name) return `its node name on the tailnet is "${node}" (${address})`;
    if (name === this.name) {
      this.#options.onTwin?.();
      return `it has the name of this member (${address})`;
    }
    const entry = this.#roster.get(name);
    const known = entry?.place === place ? entry : undefined;
    const read = answer.record ?? known;
    if (read === undefined || read.version !== version) return `it does not return its record (${address})`;
    const { record, etag } = read;
    const home = gossipAddress(record);
    if (home !== address) {
      // A server may return a record with another address. Only what is read at that address counts.
      this.#introduce(home);
      if (earlier !== undefined) return `it moved from ${address} to ${home}`;
      answered(place, entry);
      return undefined;
    }
    if (entry !== undefined && entry.place !== place && entry.state !== 'dead') {
      this.#questions.want(entry.place);
      return `two processes have this name: ${entry.place.address} and ${address}`;
    }
    if (earlier !== undefined && earlier !== entry && earlier.state !== 'dead') this.#change(earlier, 'dead');
    if (entry === undefined) return this.#welcome(ask, read, answer);
    // A later question was already answered, so this answer is outdated.
    if (entry.place === place && ask.at < entry.askedAt) return undefined;
    answered(place, entry);
    const isNew = process !== entry.process || (etag !== entry.etag && isOtherRecord(record, entry.record));
    Object.assign(entry, { record, etag, version, process, askedAt: ask.at, seenAt: this.#now() });
    if (entry.place !== place) Object.assign(entry, { place, mark: markOf(name, address) });
    this.#pages.follow(entry);
    this.#change(entry, record.left ? 'dead' : 'healthy', isNew);
    return undefined;
  }

  #welcome({ place, at }: Ask, read: Read, { name, process }: GossipAnswer): string | undefined {
    if (read.record.left) {
      answered(place, undefined);
      return undefined;
    }
    if (this.#roster.size >= this.#maxMembers) {
      const oldest = this.#roster.longestDead();
      if (oldest === undefined) return `the limit of ${this.#maxMembers} members is reached`;
      this.#forget(oldest);
    }
    const entry = newEntry(name, read, process, place, this.#now(), at);
    answered(place, entry);
    this.#roster.add(entry);
    this.#pages.follow(entry);
    this.#news.add(entry, this.#now());
    this.#options.onChange?.(this.#known(entry), undefined);
    return undefined;
  }

  /**
   * Forgets a member if it is dead. Reports of other members cannot bring it back, only its own answer can. Returns the
   * state of the member, or undefined if there is no such member.
   */
  drop(name: string): MemberState | undefined {
    const entry = this.#roster.get(name);
    if (entry?.state === 'dead' && entry !== this.self) this.#forget(entry);
    return entry?.state;
  }

  #forget(entry: Entry): void {
    this.#roster.forget(entry);
    this.#news.delete(entry);
    this.#pages.forget(entry);
    const { place } = entry;
    if (place.member !== entry) return;
    place.member = undefined;
    this.#questions.watched.add(place);
  }

  /** Records that a question got no answer, or an unusable one. */
  failed(ask: Ask): void {
    if (this.#questions.done(ask)) this.#fails(ask);
  }

  #fails({ place, at }: Ask): void {
    const entry = this.#at(place);
    // Ignore the failure if a later question was already answered.
    if (entry !== undefined && at < entry.askedAt) return;
    place.failures++;
    if (entry === undefined || entry.state === 'dead') return;
    // Do not count time while this process was suspended.
    place.failingSince = Math.min(place.failingSince ?? this.#now(), Math.max(at, this.#wokeAt));
    if (place.failures === leastFailures) this.#news.add(entry, this.#now());
  }

  /**
   * Returns the answer to a question. What the question says about its sender only makes us read the sender's record.
   */
  answer(question: GossipQuestion): Buffer {
    const { name, at, process, version, have, count, digest, etag } = question;
    if (process !== this.self.process || name !== this.name) {
      if (name === this.name) this.#options.onTwin?.();
      const entry = this.#roster.get(name);
      const isKnown = entry?.place.address === at && entry.state === 'healthy' && entry.place.failures === 0;
      const isRead = isKnown && entry.version === version && (etag === undefined || entry.etag === etag);
      if (!isRead || entry.process !== process) this.#introduce(at);
    }
    const { random } = this.#options;
    const told = this.#news.some(silentLimit - fewSilent, random);
    if (digest !== this.#roster.digest()) {
      // A member that has just started learns about all members, as far as they fit.
      const most = Math.max(fewOthers, 4 * (this.#roster.living - count));
      told.push(...this.#roster.some(most), ...pick([...this.#roster.dead], fewSilent, random));
    }
    const [others, silent] = [new Set<string>(), new Set<string>()];
    for (const entry of told) (isSilent(entry) ? silent : others).add(entry.place.address);
    for (const address of [at, this.self.place.address]) others.delete(address);
    const answer = { ...this.self, others: [...others], silent: [...silent].slice(0, silentLimit) };
    const text = have === this.self.etag ? undefined : this.#selfText;
    return writeAnswer(answer, text, this.#options.maxMessage ?? messageLimit);
  }

  /** Queues an address that a member claims to have. */
  #introduce(address: string): void {
    const place = this.#questions.get(address);
    if (place === undefined) {
      if (!this.#questions.isFull) this.#questions.want(this.#questions.place(address), callers);
    } else if (place !== this.self.place) {
      // This address may no longer be ours.
      place.isSelf = false;
      if (!isAlive(place)) place.failures = 0;
      if (!isFirst(place)) this.#questions.want(place, callers);
    }
  }

  /**
   * Handles the report of another member that a member is alive at an address, or silent. If that is news, asks the
   * address.
   */
  #report(address: string, source: string, isSilent: boolean): void {
    const place = this.#questions.get(address);
    if (place === undefined) {
      if (!isSilent && !this.#questions.isFull) this.#questions.want(this.#questions.place(address), source);
      return;
    }
    const alive = isAlive(place);
    if (place === this.self.place || place.isSelf || alive !== isSilent || isFirst(place)) return;
    const rounds = alive ? reportRounds.living : reportRounds.dead;
    if (this.#now() - place.askedAt >= rounds * this.#options.intervalMs) this.#questions.want(place, source);
  }

  /** Returns the member whose record is read at this address. */
  #at(place: Place): Entry | undefined {
    return place.member?.place === place ? place.member : undefined;
  }

  #change(entry: Entry, state: MemberState, isNew = false): void {
    const before = entry.state;
    this.#roster.setState(entry, state);
    if ((before === 'dead') !== (state === 'dead')) this.#news.add(entry, this.#now());
    if (state !== before || isNew) this.#options.onChange?.(this.#known(entry), before);
  }

  #others(): Entry[] {
    return this.#roster.alive().filter((entry) => entry !== this.self);
  }

  /**
   * Returns the monotonic time. A long gap since the last call means that this process was suspended. That time does
   * not count as silence of other members.
   */
  #now(): number {
    const now = this.#options.clock.monotonic();
    const { intervalMs } = this.#options;
    const gap = now - this.#lastNow;
    if (gap > 3 * intervalMs) {
      this.#wokeAt = now;
      for (const place of this.#questions.watched) {
        if (place.failingSince !== undefined) place.failingSince = Math.min(now, place.failingSince + gap - intervalMs);
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
