// The record: what one member states about itself.
import { createHash } from 'node:crypto';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, isPlainName, quoted } from '../../util/text.ts';
import { canonicalApiServer, canonicalOrigin } from '../../util/url.ts';

/** What a member states about itself. Its name is not part of it: records are stored by name. */
export interface MemberRecord {
  /** Canonical URL of its TKA server. The record is read from the same host. */
  readonly server: string;
  readonly gossipPort: number;
  /** Canonical URL of its Kubernetes API server. */
  readonly apiEndpoint: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Name of its cluster. Absent in records of members of 0.1.0. */
  readonly cluster?: string | undefined;
  readonly version: string;
  /** True if the member announced that it leaves. */
  readonly left: boolean;
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
  /** Digest of the record without `cluster`. Members of 0.1.0 drop `cluster` and compare the rest with this digest. */
  readonly version: string;
}

/** Returns a record as canonical JSON, as it is sent. */
function recordText(record: MemberRecord): string {
  const { server, gossipPort, apiEndpoint, version, left } = record;
  const labels = Object.fromEntries(Object.entries(record.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  const { cluster } = record;
  return JSON.stringify({
    server,
    gossipPort,
    apiEndpoint,
    labels,
    ...(cluster !== undefined && { cluster }),
    version,
    ...(left && { left }),
  });
}

const versionOf = (record: MemberRecord): string => digestOf(recordText({ ...record, cluster: undefined }));

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
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'the record is not an object';
  const own = (key: string): unknown =>
    Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined;
  const [server, gossipPort, apiEndpoint] = [own('server'), own('gossipPort'), own('apiEndpoint')];
  const [labels, version, left] = [own('labels'), own('version'), own('left') ?? false];
  const cluster = own('cluster');
  if (!isUrl(server, canonicalOrigin)) return 'server is not a canonical URL';
  if (!isUrl(apiEndpoint, canonicalApiServer)) return 'the API endpoint is not a canonical https URL';
  if (!isPort(gossipPort)) return 'the gossip port is not a port';
  if (!isClean(version, 64)) return 'version is not plain text of at most 64 characters';
  if (typeof left !== 'boolean') return 'left is not a boolean';
  if (!isCluster(cluster)) return 'cluster is not a DNS-like name';
  if (typeof labels !== 'object' || labels === null || Array.isArray(labels)) return 'labels is not an object';
  const pairs = Object.entries(labels);
  if (pairs.length > labelLimit) return `more than ${labelLimit} labels`;
  // Kubernetes allows 253 + 1 + 63 characters for the key of a label: prefix, slash, name.
  for (const [key, label] of pairs) {
    if (key === '' || !isClean(key, 317)) return 'the key of a label is not plain text of at most 317 characters';
    if (!isClean(label, 256)) return `the label ${cleanText(key, 60)} is not plain text of at most 256 characters`;
  }
  const record = { server, gossipPort, apiEndpoint, labels: Object.fromEntries(pairs), cluster, version, left };
  const text = recordText(record);
  if (Buffer.byteLength(text) > recordLimit) return `URLs and labels are longer than ${recordLimit} bytes`;
  return { record, text, etag: digestOf(text), version: versionOf(record) };
}

const isPort = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) > 0 && Number(value) < 65536;

const isCluster = (value: unknown): value is string | undefined =>
  value === undefined || (typeof value === 'string' && isPlainName(value));

const isClean = (value: unknown, limit: number): value is string =>
  typeof value === 'string' && value.length <= limit && cleanText(value, limit) === value;

function isUrl(value: unknown, canonical: (text: string) => string): value is string {
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
