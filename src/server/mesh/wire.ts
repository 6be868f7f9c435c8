// The wire format, described in README.md beside this file: what is written here is read here.
import { isHostPort } from '../../util/address.ts';
import { type CheckedRecord, isName, readRecord } from './member.ts';

/** The longest message, in bytes. */
export const messageLimit = 64 * 1024;

/** The most members that one answer reports as silent. */
export const silentLimit = 16;

/** What both sides of an exchange say of themselves. */
export interface Message {
  /** The sender's name. */
  readonly name: string;
  /** Random, made when the process starts: tells two processes of one name apart. */
  readonly process: string;
  /** Of the sender's record. */
  readonly version: string;
}

export interface GossipQuestion extends Message {
  /** Where the sender's record is read: `host:port`. A hint, like all addresses here: only reading there decides. */
  readonly at: string;
  /** The ETag of the receiver's record that the sender has; from a member of 0.1.0, its version. */
  readonly have?: string | undefined;
  /** How many addresses the sender has heard of, its own among them, and a digest of the members that live. */
  readonly count: number;
  readonly digest: string;
  /** The sender is about to end: its record should be read before this is answered. */
  readonly leaving: boolean;
}

export interface GossipAnswer extends Message {
  /** The sender's record, unless the question has its ETag. */
  readonly record?: CheckedRecord | undefined;
  /** Where members live, as the sender sees it: `host:port`. */
  readonly others: readonly string[];
  /** Addresses of members that do not answer the sender. */
  readonly silent: readonly string[];
}

const frame = ({ name, process, version }: Message) => ({ v: 2, name, process, version });

/** Returns a question as it crosses the wire. */
export function writeQuestion(question: GossipQuestion): Buffer {
  const { at, have, count, digest, leaving } = question;
  const members = [count, digest];
  return Buffer.from(JSON.stringify({ ...frame(question), at, have, members, ...(leaving && { leaving }) }));
}

/** Returns an answer as it crosses the wire, with as many of the others as fit into `limit` bytes. */
export function writeAnswer(
  answer: Omit<GossipAnswer, 'record'>,
  recordText: string | undefined,
  limit: number,
): Buffer {
  const { others, silent } = answer;
  let text = JSON.stringify(frame(answer)).slice(0, -1);
  if (recordText !== undefined) text += `,"record":${recordText}`;
  if (silent.length > 0) text += `,"silent":${JSON.stringify(silent)}`;
  let room = limit - Buffer.byteLength(text) - 20;
  const fitting = others.filter((address) => {
    room -= address.length + 3;
    return room >= 0;
  });
  return Buffer.from(`${text},"others":${JSON.stringify(fitting)}}`);
}

/** Reads a question, or returns what is wrong with it: one wrong part refuses the whole. Skips unknown keys. */
export function readQuestion(bytes: Buffer, limit = messageLimit): GossipQuestion | string {
  const object = readObject(bytes, limit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [at, have, members, leaving = false] = ['at', 'have', 'members', 'leaving'].map(object);
  if (!isHostPort(at)) return 'no address of the sender';
  if (have !== undefined && !isShort(have)) return 'a version of another shape';
  if (typeof leaving !== 'boolean') return 'leaving is not a boolean';
  const [count, digest] = Array.isArray(members) && members.length === 2 ? members : [];
  if (!Number.isSafeInteger(count) || count < 0 || !isShort(digest)) return 'members of another shape';
  return { ...message, at, have, count, digest, leaving };
}

/** Reads an answer, or returns what is wrong with it, as `readQuestion`. */
export function readAnswer(bytes: Buffer, limit = messageLimit): GossipAnswer | string {
  const object = readObject(bytes, limit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [given, others, silent = []] = ['record', 'others', 'silent'].map(object);
  const record = given === undefined ? undefined : readRecord(given);
  if (typeof record === 'string') return record;
  if (!areAddresses(others) || !areAddresses(silent)) return 'others or silent are not addresses';
  if (silent.length > silentLimit) return `more than ${silentLimit} silent members`;
  return { ...message, record, others, silent };
}

type Keys = (key: string) => unknown;

const utf8 = new TextDecoder('utf-8', { fatal: true });

function readObject(bytes: Buffer, limit: number): Keys | string {
  if (bytes.length > limit) return 'too long';
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch {
    return 'not JSON';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'not an object';
  return (key) => (Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined);
}

const isShort = (value: unknown): value is string => typeof value === 'string' && /^[\w-]{1,22}$/.test(value);

const areAddresses = (value: unknown): value is string[] => Array.isArray(value) && value.every(isHostPort);

function readFrame(object: Keys): Message | string {
  if (object('v') !== 2) return 'another version of the wire format';
  const [name, process, version] = ['name', 'process', 'version'].map(object);
  if (!isName(name)) return 'the sender has no name';
  if (!isShort(process) || !isShort(version)) return 'a process or version of another shape';
  return { name, process, version };
}
