// Parses a memberlist: the TKA servers of a mesh. It is untrusted: shapes are checked, text is cleaned.

import { isObject, own } from '../util/json.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../util/url.ts';
import {
  errorWords,
  labelsOf,
  nameIn,
  notProtocol,
  parseAnswer,
  type RawAnswer,
  refusal,
  rfc3339,
} from './raw-answer.ts';
import type { MemberState } from './types.ts';

/** A TKA server as a memberlist states it; null stands for what is not stated or not valid. */
export interface Member {
  /** Of the server. */
  readonly name: string | null;
  /** The name of its cluster; null from servers that state none (Go). */
  readonly cluster: string | null;
  readonly server: string | null;
  /** Canonical URL where it is one. */
  readonly apiEndpoint: string;
  readonly state: MemberState | null;
  /** RFC 3339. */
  readonly lastSeen: string | null;
  /** Of its TKA server. */
  readonly version: string | null;
  readonly labels: ReadonlyMap<string, string>;
}

const memberLimit = 10_000;

/** `cut` counts the members beyond the 10,000 that are read, `unread` the invalid rows. */
export interface Memberlist {
  readonly members: readonly Member[];
  readonly cut: number;
  readonly unread: number;
}

/**
 * Parses the answer of GET /memberlist as JSON; undefined if the server keeps none (404 without a body of the protocol,
 * or 503 "Gossip not enabled"). Throws Refused, NotSignedIn or Unavailable.
 */
export function parseMemberlist(answer: RawAnswer, who: string): Memberlist | undefined {
  const doing = 'the memberlist';
  if (answer.status === 404 && answer.body.trim() === '404 page not found') return undefined;
  if (answer.status === 503 && /gossip/i.test(errorWords(answer.body)?.message ?? '')) return undefined;
  if (answer.status !== 200) throw refusal(answer, who, doing);
  const rows = parseAnswer(answer.body);
  // Go marshals a nil slice as null.
  if (rows === null) return { members: [], cut: 0, unread: 0 };
  if (!Array.isArray(rows)) throw notProtocol(who, doing, 'not a JSON array');
  return readMembers(rows);
}

/** Reads the rows of a memberlist, from an answer or from the disk. */
export function readMembers(rows: readonly unknown[]): Memberlist {
  const members: Member[] = [];
  let unread = 0;
  for (const row of rows.slice(0, memberLimit)) {
    const member = memberOf(row);
    if (member === undefined) unread++;
    else members.push(member);
  }
  return { members, cut: Math.max(0, rows.length - memberLimit), unread };
}

function memberOf(row: unknown): Member | undefined {
  if (!isObject(row)) return undefined;
  const endpoint = own(row, 'apiEndpoint');
  if (typeof endpoint !== 'string') return undefined;
  const server = own(row, 'server');
  const name = own(row, 'name');
  const cluster = own(row, 'cluster');
  const state = own(row, 'state');
  const lastSeen = own(row, 'lastSeen');
  const version = own(row, 'version');
  // A URL of another scheme or with credentials can neither be used nor shown.
  const apiEndpoint = usable(() => canonicalApiServer(endpoint));
  if (apiEndpoint === null) return undefined;
  const seen = typeof lastSeen === 'string' && rfc3339.test(lastSeen) && !Number.isNaN(Date.parse(lastSeen));
  return {
    apiEndpoint,
    server: typeof server === 'string' ? usable(() => canonicalServer(server)) : null,
    name: nameIn(name),
    cluster: nameIn(cluster),
    state: state === 'healthy' || state === 'suspected' || state === 'dead' ? state : null,
    lastSeen: seen ? lastSeen : null,
    version: (typeof version === 'string' && cleanText(version, 64)) || null,
    labels: labelsOf(own(row, 'labels')),
  };
}

function usable(read: () => string): string | null {
  try {
    return read();
  } catch {
    return null;
  }
}
