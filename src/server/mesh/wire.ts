// The wire format, described in README.md beside this file: what is written here is read here.
import { type CheckedRecord, isAddress, isName, readRecord } from './member.ts';

/** The longest message, in bytes. */
export const messageLimit = 64 * 1024;

/** What both sides of an exchange say of themselves. */
export interface Message {
  /** The teller's name. */
  readonly name: string;
  /** Made by chance at its start: tells two processes of one name apart. */
  readonly process: string;
  /** Of the teller's record. */
  readonly version: string;
}

export interface Question extends Message {
  /** Where the teller's record is read: `host:port`. A hint, like all addresses here: a look there decides. */
  readonly at: string;
  /** The ETag of the asked member's record that the teller has; from a member of 0.1.0, its version. */
  readonly have?: string | undefined;
  /** How many addresses the teller has heard of, its own among them, and a digest of all members that live. */
  readonly count: number;
  readonly digest: string;
  /** The teller is about to end: what it says of itself should be read before it is answered. */
  readonly leaving: boolean;
}

export interface Answer extends Message {
  /** The teller's record, unless the question names its version. */
  readonly record?: CheckedRecord | undefined;
  /** Where other members may be: `host:port`. */
  readonly others: readonly string[];
}

const frame = ({ name, process, version }: Message) => ({ v: 2, name, process, version });

/** A question as it crosses the wire. */
export function writeQuestion(question: Question): Buffer {
  const { at, have, count, digest, leaving } = question;
  const members = [count, digest];
  return Buffer.from(JSON.stringify({ ...frame(question), at, have, members, ...(leaving && { leaving }) }));
}

/** An answer as it crosses the wire, with as many of the others as fit into `limit` bytes. */
export function writeAnswer(
  answer: Message,
  text: string | undefined,
  others: readonly string[],
  limit: number,
): Buffer {
  let head = JSON.stringify(frame(answer)).slice(0, -1);
  if (text !== undefined) head += `,"record":${text}`;
  let room = limit - Buffer.byteLength(head) - 20;
  const fitting = others.filter((address) => {
    room -= address.length + 3;
    return room >= 0;
  });
  return Buffer.from(`${head},"others":${JSON.stringify(fitting)}}`);
}

/** A question from the wire, or what is wrong with it: a single wrong part refuses the whole. Unknown keys are skipped. */
export function readQuestion(bytes: Buffer, limit = messageLimit): Question | string {
  const object = readObject(bytes, limit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [at, have, members, leaving = false] = ['at', 'have', 'members', 'leaving'].map(object);
  if (!isAddress(at)) return 'no address of the teller';
  if (have !== undefined && !isShort(have)) return 'a version of another shape';
  const [count, digest] = Array.isArray(members) && members.length === 2 ? members : [];
  if (!Number.isSafeInteger(count) || count < 0 || !isShort(digest)) return 'members of another shape';
  if (typeof leaving !== 'boolean') return 'leaving is no boolean';
  return { ...message, at, have, count, digest, leaving };
}

/** An answer from the wire, or what is wrong with it, as `readQuestion`. */
export function readAnswer(bytes: Buffer, limit = messageLimit): Answer | string {
  const object = readObject(bytes, limit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [given, others] = ['record', 'others'].map(object);
  const record = given === undefined ? undefined : readRecord(given);
  if (typeof record === 'string') return record;
  if (!Array.isArray(others) || !others.every(isAddress)) return 'others are no addresses';
  return { ...message, record, others };
}

type Keys = (key: string) => unknown;

const utf8 = new TextDecoder('utf-8', { fatal: true });

function readObject(bytes: Buffer, limit: number): Keys | string {
  if (bytes.length > limit) return 'too long';
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch {
    return 'no JSON';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'no object';
  return (key) => (Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined);
}

const isShort = (value: unknown): value is string => typeof value === 'string' && /^[\w-]{1,22}$/.test(value);

function readFrame(object: Keys): Message | string {
  if (object('v') !== 2) return 'another version of the wire format';
  const [name, process, version] = ['name', 'process', 'version'].map(object);
  if (!isName(name)) return 'the teller has no name';
  if (!isShort(process) || !isShort(version)) return 'a process or version of another shape';
  return { name, process, version };
}
