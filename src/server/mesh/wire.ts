// The wire format, described in README.md beside this file: what is written here is read here.
import { isName, type MemberRecord, readRecord } from './member.ts';

/** The longest message, in bytes. */
export const messageLimit = 64 * 1024;

/** News of one member: the incarnation and heartbeat that the teller knows, and how long ago that heartbeat was. */
export interface Beat {
  readonly name: string;
  readonly incarnation: number;
  readonly heartbeat: number;
  readonly ageMs: number;
}

/** A beat with what the member says of itself. */
export interface Told extends Beat {
  readonly record: MemberRecord;
  readonly text: string;
}

/** What crosses the wire, in both directions. */
export interface Message {
  /** The teller's own name. */
  readonly teller: string;
  /** The beats are all that the teller knows with `first <= name < end`; an empty end is no end. Asks for what it lacks there. */
  readonly range?: { readonly first: string; readonly end: string } | undefined;
  readonly beats: readonly Beat[];
  readonly records: readonly Told[];
  /** Members whose records the teller wants. */
  readonly want: readonly string[];
}

// An age of three years; whoever names more has no idea.
const ageLimit = 1e11;

/** Writes one message, and says of each part whether it still fits. */
export class MessageWriter {
  readonly #teller: string;
  readonly #limit: number;
  #size: number;
  #beats = '';
  #records = '';
  #want = '';

  /** `limit`: the longest message, in bytes. */
  constructor(teller: string, limit: number) {
    this.#teller = teller;
    this.#limit = limit;
    // The frame with a range of the two longest names.
    this.#size = 70 + 3 * 64;
  }

  /** Bytes so far, at most. */
  get size(): number {
    return this.#size;
  }

  beat({ name, incarnation, heartbeat, ageMs }: Beat): boolean {
    const part = `,"${name}",${incarnation},${heartbeat},${ageMs}`;
    if (!this.#fits(part.length)) return false;
    this.#beats += part;
    return true;
  }

  record({ name, incarnation, heartbeat, ageMs, text }: Omit<Told, 'record'>): boolean {
    const part = `,["${name}",${incarnation},${heartbeat},${ageMs},${text}]`;
    if (!this.#fits(Buffer.byteLength(part))) return false;
    this.#records += part;
    return true;
  }

  want(name: string): boolean {
    const part = `,"${name}"`;
    if (!this.#fits(part.length)) return false;
    this.#want += part;
    return true;
  }

  #fits(more: number): boolean {
    if (this.#size + more > this.#limit) return false;
    this.#size += more;
    return true;
  }

  finish(range?: { readonly first: string; readonly end: string }): Buffer {
    const [beats, records, want] = [this.#beats.slice(1), this.#records.slice(1), this.#want.slice(1)];
    const asks = range === undefined ? '' : `"range":["${range.first}","${range.end}"],`;
    return Buffer.from(
      `{"v":1,"teller":"${this.#teller}",${asks}"beats":[${beats}],"records":[${records}],"want":[${want}]}`,
    );
  }
}

/** A message from the wire, or what is wrong with it: a single wrong part refuses the whole. Unknown keys are skipped. */
export function readMessage(bytes: Buffer, limit = messageLimit): Message | string {
  if (bytes.length > limit) return 'too long';
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch {
    return 'no JSON';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'no object';
  const own = (key: string): unknown =>
    Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined;
  if (own('v') !== 1) return 'another version of the wire format';
  const [teller, range, beats, records, want] = ['teller', 'range', 'beats', 'records', 'want'].map(own);
  if (!isName(teller)) return 'the teller is no name';
  if (!Array.isArray(beats) || !Array.isArray(records) || !Array.isArray(want)) return 'a list is missing';
  const asked = readRange(range);
  if (typeof asked === 'string') return asked;
  if (!want.every(isName)) return 'it wants what is no name';
  const known = readBeats(beats);
  if (typeof known === 'string') return known;
  const told: Told[] = [];
  for (const item of records) {
    if (!Array.isArray(item) || item.length !== 5) return 'a record of another shape';
    const beat = readBeats(item.slice(0, 4));
    if (typeof beat === 'string') return beat;
    const checked = readRecord(item[4]);
    if (typeof checked === 'string') return checked;
    told.push({ ...(beat[0] as Beat), ...checked });
  }
  return { teller, range: asked, beats: known, records: told, want };
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

function readRange(range: unknown): Message['range'] | string {
  if (range === undefined) return undefined;
  if (!Array.isArray(range) || range.length !== 2) return 'a range of another shape';
  const [first, end] = range;
  if ((first !== '' && !isName(first)) || (end !== '' && !isName(end))) return 'a range of no names';
  return { first, end };
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

function readBeats(flat: readonly unknown[]): Beat[] | string {
  if (flat.length % 4 !== 0) return 'beats of another shape';
  const beats: Beat[] = [];
  for (let i = 0; i < flat.length; i += 4) {
    const [name, incarnation, heartbeat, ageMs] = [flat[i], flat[i + 1], flat[i + 2], flat[i + 3]];
    if (!isName(name)) return 'a beat of no name';
    if (!isCount(incarnation) || !isCount(heartbeat) || !isCount(ageMs) || ageMs > ageLimit) {
      return 'a beat without its numbers';
    }
    beats.push({ name, incarnation, heartbeat, ageMs });
  }
  return beats;
}
