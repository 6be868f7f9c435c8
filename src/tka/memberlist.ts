// Parses a memberlist: the TKA servers of a mesh. It is untrusted: shapes are checked, texts are cleaned.

import { isObject, own } from '../util/json.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer, canonicalServer, joinedNameOf } from '../util/url.ts';
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

/** A TKA server as a memberlist states it. Null means not stated or not valid. */
export interface Member {
  /** The name of the TKA server. */
  readonly name: string | null;
  /** The name of its cluster; null if the server does not state it (Go). */
  readonly cluster: string | null;
  readonly server: string | null;
  /** Canonical URL of the cluster's API server. */
  readonly apiEndpoint: string;
  readonly state: MemberState | null;
  /** When the member was last seen, RFC 3339. */
  readonly lastSeen: string | null;
  /** The version of the TKA server. */
  readonly version: string | null;
  readonly labels: ReadonlyMap<string, string>;
  /** Of a joined cluster: the name of the login server's cluster. `server` then ends in `/clusters/NAME`. */
  readonly through?: string;
  /** True if the login server says that a member of the mesh serves the same cluster. */
  readonly direct?: boolean;
}

const memberLimit = 10_000;

/** `cut` counts the members beyond the limit of 10,000, `unread` the invalid rows. */
export interface Memberlist {
  readonly members: readonly Member[];
  readonly cut: number;
  readonly unread: number;
}

/**
 * Parses the answer of GET /memberlist as JSON; returns undefined if the server has no memberlist (404 without a body
 * of the protocol, or 503 "Gossip not enabled"). Throws Refused, NotSignedIn or Unavailable.
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

/** Reads the rows of a memberlist from an answer or from disk. */
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
  // A URL with another scheme or with credentials can be neither used nor shown.
  const apiEndpoint = usable(() => canonicalApiServer(endpoint));
  if (apiEndpoint === null) return undefined;
  const url = typeof server === 'string' ? usable(() => canonicalServer(server)) : null;
  const joined = url === null ? undefined : joinedNameOf(url);
  const through = nameIn(own(row, 'through'));
  // Without its path, the row would pass for a server of the cluster itself.
  if (joined === undefined && own(row, 'through') !== undefined) return undefined;
  const seen = typeof lastSeen === 'string' && rfc3339.test(lastSeen) && !Number.isNaN(Date.parse(lastSeen));
  return {
    apiEndpoint,
    server: url,
    name: nameIn(name),
    cluster: joined ?? nameIn(cluster),
    state: state === 'healthy' || state === 'suspected' || state === 'dead' ? state : null,
    lastSeen: seen ? lastSeen : null,
    version: (typeof version === 'string' && cleanText(version, 64)) || null,
    labels: labelsOf(own(row, 'labels')),
    ...(joined !== undefined && through !== null && { through }),
    ...(joined !== undefined && own(row, 'direct') === true && { direct: true }),
  };
}

function usable(read: () => string): string | null {
  try {
    return read();
  } catch {
    return null;
  }
}
