// The wire format: writes and reads the messages that README.md in this folder describes.
import { isHostPort } from '../../util/address.ts';
import { isObject, own } from '../../util/json.ts';
import { type CheckedRecord, isName, isShort, readRecord } from './member.ts';

/** Maximum size of a message, in bytes. */
export const messageLimit = 64 * 1024;

/** Maximum number of members that one answer reports as silent. */
export const silentLimit = 16;

/** What both sides of an exchange state about themselves. */
export interface Message {
  /** The sender's name. */
  readonly name: string;
  /** Random ID, made when the process starts. It tells two processes with the same name apart. */
  readonly process: string;
  /** Version (digest) of the sender's record. */
  readonly version: string;
}

export interface GossipQuestion extends Message {
  /**
   * Address where the sender's record can be read: `host:port`. Like all addresses here it is only a hint: what counts
   * is the record that is read there.
   */
  readonly at: string;
  /** ETag of the receiver's record that the sender has. Members of 0.1.0 send the version of that record instead. */
  readonly have?: string | undefined;
  /** Number of addresses that the sender has heard of, including its own, and a digest of the living members. */
  readonly count: number;
  readonly digest: string;
  /** True if the sender is about to stop: read its record before you answer. */
  readonly leaving: boolean;
  /**
   * ETag of the sender's record, if the version does not cover all of it (`joined`, `federationKey`). Absent otherwise.
   */
  readonly etag?: string | undefined;
}

export interface GossipAnswer extends Message {
  /** The sender's record. Absent if the question already has its ETag. */
  readonly record?: CheckedRecord | undefined;
  /** Addresses where members are alive, as far as the sender knows: `host:port`. */
  readonly others: readonly string[];
  /** Addresses of members that do not answer the sender. */
  readonly silent: readonly string[];
}

/** Returns the part that all messages have. */
export const frame = ({ name, process, version }: Message) => ({ v: 2, name, process, version });

/** Returns a question in its wire format. */
export function writeQuestion(question: GossipQuestion): Buffer {
  const { at, have, count, digest, leaving, etag } = question;
  const members = [count, digest];
  return Buffer.from(JSON.stringify({ ...frame(question), at, have, members, ...(leaving && { leaving }), etag }));
}

/** Returns an answer in its wire format, with as many of the `others` as fit into `limit` bytes. */
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

/**
 * Reads a question, or returns what is wrong with it. One invalid part rejects the whole message. Skips unknown keys.
 */
export function readQuestion(bytes: Buffer, limit = messageLimit): GossipQuestion | string {
  const object = readObject(bytes, limit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [at, have, members, leaving = false, etag] = ['at', 'have', 'members', 'leaving', 'etag'].map(object);
  if (!isHostPort(at)) return 'the address of the sender is missing';
  if (have !== undefined && !isShort(have)) return 'invalid version';
  if (etag !== undefined && !isShort(etag)) return 'invalid ETag';
  if (typeof leaving !== 'boolean') return 'leaving is not a boolean';
  const [count, digest] = Array.isArray(members) && members.length === 2 ? members : [];
  if (!Number.isSafeInteger(count) || count < 0 || !isShort(digest)) return 'invalid members';
  return { ...message, at, have, count, digest, leaving, etag };
}

/** Reads an answer, or returns what is wrong with it. Follows the rules of `readQuestion`. */
export function readAnswer(bytes: Buffer, limit = messageLimit): GossipAnswer | string {
  const object = readObject(bytes, limit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [given, others, silent = []] = ['record', 'others', 'silent'].map(object);
  const record = given === undefined ? undefined : readRecord(given);
  if (typeof record === 'string') return record;
  if (!areAddresses(others) || !areAddresses(silent)) return 'others or silent has invalid addresses';
  if (silent.length > silentLimit) return `more than ${silentLimit} silent members`;
  return { ...message, record, others, silent };
}

/** Returns the value of a key of a message. */
export type Keys = (key: string) => unknown;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Reads the JSON of a message. Returns its keys, or what is wrong with it. */
export function readObject(bytes: Buffer, limit: number): Keys | string {
  if (bytes.length > limit) return 'too long';
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch {
    return 'not JSON';
  }
  if (!isObject(value)) return 'not an object';
  return (key) => own(value, key);
}

const areAddresses = (value: unknown): value is string[] => Array.isArray(value) && value.every(isHostPort);

/** Reads the part that all messages have, or returns what is wrong with it. */
export function readFrame(object: Keys): Message | string {
  if (object('v') !== 2) return 'unknown version of the wire format';
  const [name, process, version] = ['name', 'process', 'version'].map(object);
  if (!isName(name)) return 'invalid name of the sender';
  if (!isShort(process) || !isShort(version)) return 'invalid process or version';
  return { name, process, version };
}
