// The page of joined clusters: what a login server states about the clusters that joined it. The other members fetch it
// from the login server itself. README.md in this folder describes the format.
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Labels, MemberRow, MemberState } from '../../tka/types.ts';
import { isObject, own } from '../../util/json.ts';
import { canonicalApiServer } from '../../util/url.ts';
import { digestOf, isClean, isShort, isUrl, readLabels, recordLimit } from './member.ts';
import { frame, type Message, readFrame, readObject } from './wire.ts';

/** A joined cluster, as its login server states it. */
export interface JoinedRow {
  /** The name by which it joined, a DNS label. */
  readonly cluster: string;
  /** Canonical URL of its Kubernetes API server. */
  readonly apiEndpoint: string;
  readonly labels: Labels;
  /** `healthy` while it is connected to this replica of the login server, otherwise `dead`. */
  readonly state: 'healthy' | 'dead';
  /** When it was connected last, RFC 3339. Absent while it is connected, or if it never was. */
  readonly lastSeen?: string;
  /** Version of its TKA server. Absent if it never connected. */
  readonly version?: string;
  /** True if a server of this cluster is a member of the mesh as well. */
  readonly direct?: true;
}

/** Maximum number of rows of a page, and its maximum size as a message in bytes, compressed or not. */
export const rowLimit = 1_000;
export const pageLimit = 1024 * 1024;

/** A page as it is sent. */
export interface WrittenPage {
  readonly etag: string;
  /** The rows as JSON. */
  readonly text: string;
}

/**
 * Returns a page in its wire format; undefined if it has no rows. Leaves out invalid rows, and rows beyond the limit.
 * Omits labels that do not fit.
 */
export function writePage(rows: readonly JoinedRow[]): WrittenPage | undefined {
  const sorted = [...rows].sort((a, b) => (a.cluster < b.cluster ? -1 : 1));
  const valid = sorted.flatMap((row) => readRow(row) ?? readRow({ ...row, labels: {} }) ?? []).slice(0, rowLimit);
  if (valid.length === 0) return undefined;
  const whole = JSON.stringify(valid);
  // The rest of the message is far below 1 KiB.
  const fits = Buffer.byteLength(whole) < pageLimit - 1024;
  const sent = fits ? valid : valid.map((row) => ({ ...row, labels: {} }));
  // The time changes while nothing else does, if the cluster is connected to another replica only.
  const etag = digestOf(JSON.stringify(sent.map((row) => ({ ...row, lastSeen: undefined }))));
  return { etag, text: fits ? whole : JSON.stringify(sent) };
}

export interface PageQuestion extends Message {
  /** ETag of the page that the sender has; empty if it has none. */
  readonly have: string;
}

export interface PageAnswer extends Message {
  /** Empty if the sender has no page. */
  readonly etag: string;
  /** Absent if the question has the ETag. */
  readonly rows: readonly JoinedRow[] | undefined;
  /** Number of invalid rows, which are left out. */
  readonly skipped: number;
}

export function writePageQuestion(question: PageQuestion): Buffer {
  return Buffer.from(JSON.stringify({ ...frame(question), page: question.have }));
}

/** Reads the question for a page, or returns what is wrong with it. */
export function readPageQuestion(bytes: Buffer): PageQuestion | string {
  const object = readObject(bytes, 1024);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const have = object('page');
  return have === '' || isShort(have) ? { ...message, have } : 'invalid ETag of the page';
}

/**
 * Returns the answer to the question for a page, without rows if the sender of the question has them. It is compressed:
 * most rows are alike, and one that has changed makes all members fetch the whole page.
 */
export function writePageAnswer(message: Message, page: WrittenPage | undefined, have: string): Buffer {
  const start = JSON.stringify({ ...frame(message), page: page?.etag ?? '' }).slice(0, -1);
  return gzipSync(page === undefined || page.etag === have ? `${start}}` : `${start},"rows":${page.text}}`);
}

/** Reads a page, or returns what is wrong with it. Leaves out invalid rows and further rows with the same name. */
export function readPageAnswer(bytes: Buffer): PageAnswer | string {
  const text = unzipped(bytes);
  const object = typeof text === 'string' ? text : readObject(text, pageLimit);
  if (typeof object === 'string') return object;
  const message = readFrame(object);
  if (typeof message === 'string') return message;
  const [etag, given] = ['page', 'rows'].map(object);
  if (etag !== '' && !isShort(etag)) return 'invalid ETag of the page';
  if (given === undefined) return { ...message, etag, rows: undefined, skipped: 0 };
  if (!Array.isArray(given)) return 'rows is not a list';
  if (given.length > rowLimit) return `more than ${rowLimit} joined clusters`;
  const rows = new Map<string, JoinedRow>();
  for (const value of given) {
    const row = readRow(value);
    if (row !== undefined && !rows.has(row.cluster)) rows.set(row.cluster, row);
  }
  return { ...message, etag, rows: [...rows.values()], skipped: given.length - rows.size };
}

/** Returns the content of gzip data, or what is wrong with it. Stops at the limit. */
function unzipped(bytes: Buffer): Buffer | string {
  try {
    return gunzipSync(bytes, { maxOutputLength: pageLimit });
  } catch (error) {
    return error instanceof RangeError ? 'longer than 1 MiB when it is unzipped' : 'not gzip';
  }
}

/** Returns whether a value is a DNS label in lower case, as names of joined clusters are. */
const isLabel = (value: unknown): value is string =>
  typeof value === 'string' && /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(value);

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/;

const isTime = (value: unknown): value is string =>
  typeof value === 'string' && rfc3339.test(value) && !Number.isNaN(Date.parse(value));

/** Reads a row; undefined if it is invalid. Skips unknown keys. */
function readRow(value: unknown): JoinedRow | undefined {
  if (!isObject(value)) return undefined;
  const [cluster, apiEndpoint, state] = ['cluster', 'apiEndpoint', 'state'].map((key) => own(value, key));
  const [lastSeen, version, direct] = ['lastSeen', 'version', 'direct'].map((key) => own(value, key));
  const labels = readLabels(own(value, 'labels'));
  if (!isLabel(cluster) || !isUrl(apiEndpoint, canonicalApiServer)) return undefined;
  if ((state !== 'healthy' && state !== 'dead') || typeof labels === 'string') return undefined;
  if (lastSeen !== undefined && !isTime(lastSeen)) return undefined;
  if (version !== undefined && !isClean(version, 64)) return undefined;
  if (direct !== undefined && typeof direct !== 'boolean') return undefined;
  const row: JoinedRow = {
    cluster,
    apiEndpoint,
    labels,
    state,
    ...(lastSeen !== undefined && { lastSeen }),
    ...(version !== undefined && { version }),
    ...(direct === true && { direct }),
  };
  return Buffer.byteLength(JSON.stringify(row)) > recordLimit ? undefined : row;
}

/** The login server whose page it is. */
export interface PageOwner {
  /** Canonical URL of its TKA server. */
  readonly server: string;
  /** The name of its cluster. */
  readonly cluster: string;
  readonly state: MemberState;
  /** RFC 3339. */
  readonly lastSeen: string;
}

const ranks: readonly MemberState[] = ['healthy', 'suspected', 'dead'];

/**
 * Returns the rows of a page as rows of the memberlist. They are below the URL of its owner, and in no better state
 * than it: a login server can only make statements about itself.
 */
export function memberRows(rows: readonly JoinedRow[], owner: PageOwner): MemberRow[] {
  const url = new URL(owner.server);
  const apiPort = Number(url.port || (url.protocol === 'https:' ? 443 : 80));
  return rows.map(({ cluster, apiEndpoint, labels, state, lastSeen, version, direct }) => {
    const seen = state === 'healthy' ? owner.lastSeen : lastSeen;
    return {
      apiEndpoint,
      apiPort,
      labels,
      cluster,
      server: `${owner.server}/clusters/${cluster}`,
      state: ranks.indexOf(state) > ranks.indexOf(owner.state) ? state : owner.state,
      ...(seen !== undefined && { lastSeen: seen }),
      ...(version !== undefined && { version }),
      through: owner.cluster,
      ...(direct === true && { direct }),
    };
  });
}
