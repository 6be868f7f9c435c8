// The messages of the handshake: JSON objects, one per line. Everything here comes from the network.
import { own, parseJson, texts } from '../../util/json.ts';
import { cleanText, isPlainName } from '../../util/text.ts';
import { canonicalApiServer } from '../../util/url.ts';
import { type ClusterStatement, type DialAnswer, type JoinAnswer, type RefusalCode, refusalCodes } from './contract.ts';
import { isPublicKey, keyLimit } from './keys.ts';

/** The first message: a replica of a cluster says what it wants. */
export interface Hello {
  readonly kind: 'join' | 'dial';
  readonly cluster: string;
  readonly replica: string;
  readonly nonce: string;
  /** Unix time in milliseconds. */
  readonly time: number;
  readonly publicKey: string;
  /** The ID of the tunnel that the connection becomes. */
  readonly tunnel: string;
  readonly statement: ClusterStatement;
  /** The name of the login server's own cluster, if it is known: with `dial`. */
  readonly primary?: string;
}

/** The second message: the login server introduces itself. The third one holds its signatures. */
export interface LoginHello {
  readonly cluster: string;
  readonly replica: string;
  /** How many replicas the login server has. */
  readonly replicas: number;
  readonly nonce: string;
  readonly time: number;
  /** Its public keys, the one that signs first. */
  readonly keys: readonly string[];
}

/** The fourth message: the other side proves its key. The fifth one is the login server's answer. */
export interface Proof {
  readonly signature: string;
  /** The join token, with `join`. */
  readonly token?: string;
}

const labelLimit = 64;
/** Maximum size of a join token, in bytes. */
export const tokenLimit = 4 * 1024;

/** Returns whether a value is the name of a joined cluster: a DNS label. */
export const isClusterName = (value: unknown): value is string =>
  isText(value, /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/);

const isReplica = (value: unknown): value is string =>
  isText(value, /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/);
const isRandom = (value: unknown): value is string => isText(value, /^[A-Za-z0-9_-]{22}$/);
const isTime = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) > 0;
const isName = (value: unknown): value is string => typeof value === 'string' && isPlainName(value);

function isText(value: unknown, shape: RegExp): value is string {
  return typeof value === 'string' && shape.test(value);
}

/** Reads the first message. Returns undefined if any part of it is invalid. Skips unknown keys. */
export function readHello(line: string): Hello | undefined {
  const object = parseJson(line);
  const [kind, cluster, replica, nonce, time, publicKey, tunnel, primary] = [
    'kind',
    'cluster',
    'replica',
    'nonce',
    'time',
    'publicKey',
    'tunnel',
    'primary',
  ].map((key) => own(object, key));
  const statement = readStatement(own(object, 'statement'));
  if (kind !== 'join' && kind !== 'dial') return undefined;
  if (!isClusterName(cluster) || !isReplica(replica) || !isRandom(nonce) || !isTime(time)) return undefined;
  if (!isPublicKey(publicKey) || !isRandom(tunnel) || statement === undefined) return undefined;
  if (primary !== undefined && !isName(primary)) return undefined;
  const hello = { kind, cluster, replica, nonce, time, publicKey, tunnel, statement } as const;
  return primary === undefined ? hello : { ...hello, primary };
}

/** Reads what a cluster says about itself. Returns undefined if any part of it is invalid. */
export function readStatement(value: unknown): ClusterStatement | undefined {
  const [version, apiEndpoint, given] = ['version', 'apiEndpoint', 'labels'].map((key) => own(value, key));
  if (!isLine(version, 64) || typeof apiEndpoint !== 'string' || typeof given !== 'object' || given === null) {
    return undefined;
  }
  try {
    if (canonicalApiServer(apiEndpoint) !== apiEndpoint) return undefined;
  } catch {
    return undefined;
  }
  const labels = Object.entries(given);
  if (labels.length > labelLimit) return undefined;
  if (!labels.every(([name, text]) => isLine(name, 317) && name !== '' && isLine(text, 256))) return undefined;
  return { version, apiEndpoint, labels: Object.fromEntries(labels) };
}

const isLine = (value: unknown, limit: number): value is string =>
  typeof value === 'string' && value.length <= limit && cleanText(value, limit) === value;

/** Reads the second message. Returns undefined if any part of it is invalid. */
export function readLoginHello(line: string): LoginHello | undefined {
  const object = parseJson(line);
  const [cluster, replica, replicas, nonce, time, keys] = [
    'cluster',
    'replica',
    'replicas',
    'nonce',
    'time',
    'keys',
  ].map((key) => own(object, key));
  if (!isName(cluster) || !isReplica(replica) || !isRandom(nonce) || !isTime(time)) return undefined;
  if (typeof replicas !== 'number' || !Number.isSafeInteger(replicas) || replicas < 1) return undefined;
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > keyLimit || !keys.every(isPublicKey)) return undefined;
  return { cluster, replica, replicas, nonce, time, keys };
}

/** Reads the third message: a signature for each of the `count` keys. */
export function readSignatures(line: string, count: number): readonly string[] | undefined {
  const given = own(parseJson(line), 'signatures');
  return Array.isArray(given) && given.length === count && texts(given, count).length === count ? given : undefined;
}

/** Reads the fourth message. Returns undefined if any part of it is invalid. */
export function readProof(line: string): Proof | undefined {
  const object = parseJson(line);
  const [signature, token] = [own(object, 'signature'), own(object, 'token')];
  if (typeof signature !== 'string') return undefined;
  if (token === undefined) return { signature };
  return isText(token, /^[!-~]+$/) && token.length <= tokenLimit ? { signature, token } : undefined;
}

/** Reads the last message: an answer to a dial. Returns undefined if any part of it is invalid. */
export function readDialAnswer(line: string): DialAnswer | undefined {
  const object = parseJson(line);
  return own(object, 'ok') === true ? { ok: true } : readRefusal(object);
}

/** Reads the last message: an answer to a request to join. Returns undefined if any part of it is invalid. */
export function readJoinAnswer(line: string): JoinAnswer | undefined {
  const object = parseJson(line);
  const [ok, primary, keys] = ['ok', 'primary', 'keys'].map((key) => own(object, key));
  if (ok !== true) return readRefusal(object);
  if (!isName(primary) || !Array.isArray(keys) || keys.length === 0 || keys.length > keyLimit) return undefined;
  return keys.every(isPublicKey) ? { ok, primary, keys } : undefined;
}

function readRefusal(object: unknown) {
  const [ok, code, message] = ['ok', 'code', 'message'].map((key) => own(object, key));
  if (ok !== false || typeof message !== 'string' || !isCode(code)) return undefined;
  return { ok, code, message: cleanText(message, 300) } as const;
}

const isCode = (value: unknown): value is RefusalCode => refusalCodes.some((code) => code === value);
