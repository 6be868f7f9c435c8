// The record: what one member states about itself.
import { createHash } from 'node:crypto';
import type { Labels } from '../../tka/types.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { isObject, own } from '../../util/json.ts';
import { cleanText, isPlainName, quoted } from '../../util/text.ts';
import { canonicalApiServer, canonicalOrigin } from '../../util/url.ts';

/** What a member states about itself. Its name is not part of it: records are stored by name. */
export interface MemberRecord {
  /** Canonical URL of its TKA server. The record is read from the same host. */
  readonly server: string;
  readonly gossipPort: number;
  /** Canonical URL of its Kubernetes API server. */
  readonly apiEndpoint: string;
  readonly labels: Labels;
  /** Name of its cluster. Absent in records of members of 0.1.0. */
  readonly cluster?: string | undefined;
  readonly version: string;
  /** True if the member announced that it leaves. */
  readonly left: boolean;
  /** ETag of its page of joined clusters (joined.ts). Absent if no cluster has joined it. */
  readonly joined?: string | undefined;
  /**
   * Hash of the key with which its own cluster has joined a login server (`keyHash`). So that login server knows that
   * the member and the joined cluster are the same cluster.
   */
  readonly federationKey?: string | undefined;
}

/** Maximum size of a record, in bytes of its JSON. */
export const recordLimit = 4096;

const labelLimit = 64;

/** Returns whether a value is a valid member name: like the first part of a host name, in lower case. */
export function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/.test(value);
}

/** A record in canonical form, with its JSON and its digests. */
export interface CheckedRecord {
  readonly record: MemberRecord;
  /** Canonical JSON: equal records have equal texts. */
  readonly text: string;
  /** Digest of the whole record. */
  readonly etag: string;
  /** Digest of the record with the keys of 0.1.0 only: its members drop the others, and check the rest against this. */
  readonly version: string;
}

/** Returns a record as canonical JSON, as it is sent. */
function recordText(record: MemberRecord): string {
  const { server, gossipPort, apiEndpoint, version, left } = record;
  const labels = Object.fromEntries(Object.entries(record.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  const { cluster, joined, federationKey } = record;
  return JSON.stringify({
    server,
    gossipPort,
    apiEndpoint,
    labels,
    ...(cluster !== undefined && { cluster }),
    version,
    ...(left && { left }),
    ...(joined !== undefined && { joined }),
    ...(federationKey !== undefined && { federationKey }),
  });
}

const versionOf = (record: MemberRecord): string =>
  digestOf(recordText({ ...record, cluster: undefined, joined: undefined, federationKey: undefined }));

/** Returns whether two records differ in more than the ETag of the page of joined clusters. */
export const isOtherRecord = (a: MemberRecord, b: MemberRecord): boolean =>
  recordText({ ...a, joined: undefined }) !== recordText({ ...b, joined: undefined });

/** Returns a member's record in canonical form. Throws UsageError if the name or the record is invalid. */
export function checkRecord(name: string, record: MemberRecord): CheckedRecord {
  const bad = (what: string, cause?: unknown) =>
    new UsageError(`invalid mesh record of this server: ${what}`, { cause });
  if (!isName(name)) throw bad(`the name ${quoted(name, 80)} is not a lower-case host name`);
  let urls: Pick<MemberRecord, 'server' | 'apiEndpoint'>;
  try {
    urls = { server: canonicalOrigin(record.server), apiEndpoint: canonicalApiServer(record.apiEndpoint) };
  } catch (error) {
    throw bad(error instanceof TkaError ? error.message : 'invalid URL', error);
  }
  const text = recordText({ ...record, ...urls });
  const checked = readRecord(JSON.parse(text));
  if (typeof checked === 'string') throw bad(checked);
  return checked;
}

/** Reads a record from the wire. Returns it in canonical form, or returns what is wrong with it. */
export function readRecord(value: unknown): CheckedRecord | string {
  if (!isObject(value)) return 'the record is not an object';
  const [server, gossipPort, apiEndpoint] = ['server', 'gossipPort', 'apiEndpoint'].map((key) => own(value, key));
  const [labels, version, left = false] = ['labels', 'version', 'left'].map((key) => own(value, key));
  const [cluster, joined, federationKey] = ['cluster', 'joined', 'federationKey'].map((key) => own(value, key));
  if (!isUrl(server, canonicalOrigin)) return 'server is not a canonical URL';
  if (!isUrl(apiEndpoint, canonicalApiServer)) return 'the API endpoint is not a canonical https URL';
  if (!isPort(gossipPort)) return 'the gossip port is not a port';
  if (!isClean(version, 64)) return 'version is not plain text of at most 64 characters';
  if (typeof left !== 'boolean') return 'left is not a boolean';
  if (!isCluster(cluster)) return 'cluster is not a DNS-like name';
  if (joined !== undefined && !isShort(joined)) return 'joined is not an ETag';
  if (federationKey !== undefined && !isKeyHash(federationKey)) return 'the federation key is not a SHA-256';
  const read = readLabels(labels);
  if (typeof read === 'string') return read;
  const named = { ...(joined !== undefined && { joined }), ...(federationKey !== undefined && { federationKey }) };
  const record = { server, gossipPort, apiEndpoint, labels: read, cluster, version, left, ...named };
  const text = recordText(record);
  if (Buffer.byteLength(text) > recordLimit) return `URLs and labels are longer than ${recordLimit} bytes`;
  return { record, text, etag: digestOf(text), version: versionOf(record) };
}

/** Reads labels from the wire, or returns what is wrong with them. */
export function readLabels(labels: unknown): Labels | string {
  if (!isObject(labels)) return 'labels is not an object';
  const pairs = Object.entries(labels);
  if (pairs.length > labelLimit) return `more than ${labelLimit} labels`;
  // Kubernetes allows 253 + 1 + 63 characters for the key of a label: prefix, slash, name.
  const read: [string, string][] = [];
  for (const [key, label] of pairs) {
    if (key === '' || !isClean(key, 317)) return 'the key of a label is not plain text of at most 317 characters';
    if (!isClean(label, 256)) return `the label ${cleanText(key, 60)} is not plain text of at most 256 characters`;
    read.push([key, label]);
  }
  return Object.fromEntries(read);
}

const isPort = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) > 0 && Number(value) < 65536;

/** Returns whether a value can be an ETag, a digest or the ID of a process. */
export const isShort = (value: unknown): value is string => typeof value === 'string' && /^[\w-]{1,22}$/.test(value);

const isKeyHash = (value: unknown): value is string => typeof value === 'string' && /^[\w-]{43}$/.test(value);

const isCluster = (value: unknown): value is string | undefined =>
  value === undefined || (typeof value === 'string' && isPlainName(value));

/** Returns whether a value is plain text of at most `limit` characters that cleaning leaves unchanged. */
export const isClean = (value: unknown, limit: number): value is string =>
  typeof value === 'string' && value.length <= limit && cleanText(value, limit) === value;

/** Returns whether a value is a URL in canonical form. */
export function isUrl(value: unknown, canonical: (text: string) => string): value is string {
  if (typeof value !== 'string' || value.length > 512) return false;
  try {
    return canonical(value) === value;
  } catch {
    return false;
  }
}

/** Returns the address where a member's record is read: `host:port`. */
export function gossipAddress({ server, gossipPort }: MemberRecord): string {
  return `${new URL(server).hostname}:${gossipPort}`;
}

/** Returns a digest of a text: the first 16 characters of its SHA-256 in base64url. */
export const digestOf = (text: string): string => createHash('sha256').update(text).digest('base64url').slice(0, 16);
