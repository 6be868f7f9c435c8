// What one member says of itself.
import { createHash } from 'node:crypto';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, isDnsLike, quoted } from '../../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../../util/url.ts';

/** What a member says of itself. Its name is the key under which this is kept. */
export interface MemberRecord {
  /** Its TKA server, canonical URL. Its host is where the record is read, too. */
  readonly server: string;
  readonly gossipPort: number;
  /** Its Kubernetes API server, canonical URL. */
  readonly apiEndpoint: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The name of its cluster; absent from a member of 0.1.0. */
  readonly cluster?: string | undefined;
  readonly version: string;
  /** It has told us that it goes. */
  readonly left: boolean;
}

/** The longest record, in bytes of its JSON. */
export const recordLimit = 4096;

const labelLimit = 64;

/** True for what may name a member: the first part of a host name, in lower case. */
export function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/.test(value);
}

/** A record in its one form, with what crosses the wire. */
export interface CheckedRecord {
  readonly record: MemberRecord;
  /** One text for one record. */
  readonly text: string;
  /** A digest of all of it. */
  readonly etag: string;
  /** A digest of what 0.1.0 reads of it, which drops `cluster` and compares the rest with this. */
  readonly version: string;
}

/** The record as it crosses the wire. */
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

/** The record of a member in its one form. Throws UsageError for a name or record that no member may have. */
export function checkRecord(name: string, record: MemberRecord): CheckedRecord {
  const bad = (what: string, cause?: unknown) =>
    new UsageError(`this server cannot be told to the mesh: ${what}`, { cause });
  if (!isName(name)) throw bad(`its name ${quoted(name, 80)} is no host name in lower case`);
  let urls: Pick<MemberRecord, 'server' | 'apiEndpoint'>;
  try {
    urls = { server: canonicalServer(record.server), apiEndpoint: canonicalApiServer(record.apiEndpoint) };
  } catch (error) {
    throw bad(error instanceof TkaError ? error.message : 'a wrong URL', error);
  }
  const text = recordText({ ...record, ...urls });
  const checked = readRecord(JSON.parse(text));
  if (typeof checked === 'string') throw bad(checked);
  return checked;
}

/** A record from the wire in its one form, or what is wrong with it. */
export function readRecord(value: unknown): CheckedRecord | string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'a record is no object';
  const own = (key: string): unknown =>
    Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined;
  const [server, gossipPort, apiEndpoint] = [own('server'), own('gossipPort'), own('apiEndpoint')];
  const [labels, version, left] = [own('labels'), own('version'), own('left') ?? false];
  const cluster = own('cluster');
  if (!isUrl(server, canonicalServer)) return 'server is no canonical URL';
  if (!isUrl(apiEndpoint, canonicalApiServer)) return 'the API endpoint is no canonical https URL';
  if (!isPort(gossipPort)) return 'the gossip port is no port';
  if (!isClean(version, 64)) return 'version is no plain text of at most 64 characters';
  if (typeof left !== 'boolean') return 'left is no boolean';
  if (!isCluster(cluster)) return 'cluster is not a DNS-like name';
  if (typeof labels !== 'object' || labels === null || Array.isArray(labels)) return 'labels are no object';
  const pairs = Object.entries(labels);
  if (pairs.length > labelLimit) return `more than ${labelLimit} labels`;
  // Kubernetes allows 253 + 1 + 63 characters for a key.
  for (const [key, label] of pairs) {
    if (key === '' || !isClean(key, 317)) return 'the key of a label is no plain text of at most 317 characters';
    if (!isClean(label, 256)) return `the label ${cleanText(key, 60)} is no plain text of at most 256 characters`;
  }
  const record = { server, gossipPort, apiEndpoint, labels: Object.fromEntries(pairs), cluster, version, left };
  const text = recordText(record);
  if (Buffer.byteLength(text) > recordLimit) return `its URLs and labels are more than ${recordLimit} bytes`;
  return { record, text, etag: digestOf(text), version: versionOf(record) };
}

const isPort = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) > 0 && Number(value) < 65536;

const isCluster = (value: unknown): value is string | undefined =>
  value === undefined || (typeof value === 'string' && isDnsLike(value));

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

/** Where a member is read: `host:port`. */
export function gossipAddress({ server, gossipPort }: MemberRecord): string {
  return `${new URL(server).hostname}:${gossipPort}`;
}

/** A short name for a text: equal texts have equal ones. */
export const digestOf = (text: string): string => createHash('sha256').update(text).digest('base64url').slice(0, 16);
