// Pure readers of what a TKA server answers. Everything in an answer is untrusted: shapes are checked, text is cleaned.

import { Unavailable } from '../network/failure.ts';
import { TkaError } from '../util/errors.ts';
import { isObject, type Json, own, parseJson } from '../util/json.ts';
import { certificatesIn } from '../util/pem.ts';
import { cleanText, isDnsLike } from '../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../util/url.ts';
import { NotSignedIn, Refused } from './errors.ts';
import { checkToken, type TokenClaims } from './token.ts';
import type { MemberState } from './types.ts';

/** An HTTP answer as it arrived; header names in lower case. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: string;
}

// What a server says about itself is mostly over in seconds, or not at all.
const answeredPatience = 5_000;

// A text can need a hundred times its length in memory: `[{},{},{}`. None of the protocol's has so many values.
const valueLimit = 1_000_000;

function parseAnswer(text: string): unknown {
  return text.length > valueLimit && countValues(text) > valueLimit ? undefined : parseJson(text);
}

// About as many as there are; those that stand in strings are counted too.
function countValues(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x2c || c === 0x5b || c === 0x7b) count++;
  }
  return count;
}

/** The time between polls that the server asks for, in milliseconds; undefined if it names none. */
export function retryAfter(answer: RawAnswer): number | undefined {
  const seconds = answer.headers['retry-after']?.trim() ?? '';
  return /^[0-9]{1,6}$/.test(seconds) ? Number(seconds) * 1000 : undefined;
}

/** The server's clock at the time of its answer, in milliseconds of the epoch; undefined without a usable Date. */
export function serverTime(answer: RawAnswer): number | undefined {
  const date = answer.headers.date ?? '';
  // RFC 9110. Date.parse alone takes much else, years of six digits too.
  if (!/^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/.test(date)) return undefined;
  const time = Date.parse(date);
  return Number.isNaN(time) ? undefined : time;
}

const adviceLimit = 64;

/** What an error body says: the outermost and the innermost message, and its advice. Undefined if it is not one. */
export function errorWords(body: string): { message: string; advice: string[] } | undefined {
  const top = parseAnswer(body);
  if (!isObject(top)) return undefined;
  const messages: string[] = [];
  const advice: string[] = [];
  for (let at: unknown = top, depth = 0; isObject(at) && depth < 16; at = own(at, 'cause'), depth++) {
    const message = [own(at, 'message'), own(at, 'error')].find(isText);
    if (message !== undefined) messages.push(cleanText(message, 600));
    const lines = own(at, 'advice');
    for (const line of Array.isArray(lines) ? lines : []) if (isText(line)) advice.push(line);
  }
  if (messages.length === 0) return undefined;
  const told = advice.slice(0, adviceLimit).map((line) => cleanText(line, 1000));
  if (advice.length > told.length) told.push(`and ${advice.length - told.length} more`);
  return { message: [...new Set([messages[0], messages.at(-1)])].join(': '), advice: told };
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && cleanText(value) !== '';
}

// The name is the default of the server's `tailscale.capName`, which the client is not told.
const grantHint =
  'ask those who maintain your tailnet’s policy for a grant of the capability specht-labs.de/cap/tka to you';

/** The error that an answer without success stands for. `who` names the server. */
export function refusal(answer: RawAnswer, who: string, doing: string): TkaError {
  const words = errorWords(answer.body);
  const { status } = answer;
  if (words !== undefined) {
    const noGrant = status === 403 && words.advice.length === 0;
    const options = { hints: noGrant ? [grantHint] : words.advice };
    if (status === 401) return new NotSignedIn(`${who} knows no sign-in: ${words.message}`, options);
    if ([400, 403, 404, 422].includes(status)) {
      return new Refused(`${who} refused ${doing}: ${words.message} (HTTP ${status})`, status, options);
    }
    if (status === 500 && isAboutPeriod(words.message)) {
      return new Refused(`${who} refused ${doing}: ${words.message} (HTTP 500)`, status, options);
    }
    if (status === 429) return tooMany(answer, who, doing, `: ${words.message}`, words.advice);
    if (status === 500 && isConflict(words.message)) {
      return new Unavailable(`${who} failed at ${doing}: ${words.message} (HTTP 500)`, answeredPatience, {
        ...options,
        pause: 0,
      });
    }
    return new Unavailable(`${who} failed at ${doing}: ${words.message} (HTTP ${status})`, answeredPatience, {
      ...options,
      answered: true,
      away: isGateways(status),
    });
  }
  if (status === 401) return new NotSignedIn(`${who} knows no sign-in (HTTP 401)`);
  if (status === 429) return tooMany(answer, who, doing, '', []);
  return notProtocol(who, doing, `HTTP ${status}`, isGateways(status));
}

/** True for what a proxy or a load balancer answers while the server behind it is away. */
function isGateways(status: number): boolean {
  return status === 502 || status === 503 || status === 504;
}

// The Go server's words for a period in the policy that is too short or unreadable: every answer would be the same.
function isAboutPeriod(message: string): boolean {
  return /`period`|parsing duration/i.test(message);
}

// Kubernetes' words: another request changed the same sign-in at the same time.
function isConflict(message: string): boolean {
  return message.includes('the object has been modified');
}

// Worth waiting for as long as the server asks, for all of the caller's budget.
function tooMany(answer: RawAnswer, who: string, doing: string, why: string, advice: readonly string[]): Unavailable {
  const pause = retryAfter(answer) ?? 1000;
  return new Unavailable(
    `${who} is asked too often and did not answer ${doing}${why} (HTTP 429)`,
    Number.POSITIVE_INFINITY,
    {
      hints: [...advice, `try again in ${Math.ceil(pause / 1000)} s`],
      pause,
    },
  );
}

function notProtocol(who: string, doing: string, what: string, away = false): Unavailable {
  return new Unavailable(
    `${who} answered ${doing} with something that is not the TKA protocol (${what})`,
    answeredPatience,
    {
      answered: true,
      away,
      hints: ['is this address a TKA server, and no proxy or other service? check it with `kubectl tka config`'],
    },
  );
}

/** A sign-in as a server states it. */
export interface SignIn {
  readonly username: string;
  readonly role: string;
  /** Milliseconds of the epoch. */
  readonly until: number;
}

const rfc3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/;

/** Answer of POST /login, GET /login and POST /logout. Throws Refused, NotSignedIn or Unavailable. */
export function parseSignIn(answer: RawAnswer, who: string, doing = 'the sign-in'): SignIn {
  if (answer.status !== 200 && answer.status !== 202) throw refusal(answer, who, doing);
  const body = parseAnswer(answer.body);
  if (!isObject(body)) throw notProtocol(who, doing, 'no JSON object');
  const [username, role, until] = ['username', 'role', 'until'].map((key) => own(body, key));
  if (typeof username !== 'string' || typeof role !== 'string' || typeof until !== 'string') {
    throw notProtocol(who, doing, 'no username, role and until');
  }
  const time = rfc3339.test(until) ? Date.parse(until) : Number.NaN;
  if (Number.isNaN(time)) throw notProtocol(who, doing, 'until is no RFC 3339 time');
  if (cleanText(username) === '') throw notProtocol(who, doing, 'an empty username');
  return { username: cleanText(username), role: cleanText(role), until: time };
}

/** Where and how a cluster's API server is reached. */
export interface ClusterAccess {
  /** Canonical URL. */
  readonly apiServer: string;
  /** Base64 of PEM; empty: the system's CAs. */
  readonly caData: string;
  readonly insecureSkipTlsVerify: boolean;
}

/** Answer of GET /kubeconfig: a token and where it is good. */
export interface TokenAccess extends ClusterAccess {
  readonly token: string;
  readonly claims: TokenClaims;
}

/** The largest CA that is taken, in bytes of PEM: some forty certificates. */
export const caLimit = 64 * 1024;

function clusterAccess(
  server: unknown,
  ca: unknown,
  insecure: unknown,
  fail: (what: string) => TkaError,
): ClusterAccess {
  if (typeof server !== 'string') throw fail('no API server');
  const apiServer = checked(() => canonicalApiServer(server), fail);
  if (ca !== undefined && ca !== null && typeof ca !== 'string') throw fail('its CA is no text');
  if (insecure !== undefined && insecure !== null && typeof insecure !== 'boolean')
    throw fail('insecure is no boolean');
  const caData = (ca ?? '').replace(/\s+/g, '');
  // A base64 text is a third longer than its bytes.
  if (caData.length > (caLimit / 3) * 4 + 4) throw fail('its CA is larger than 64 KiB');
  if (caData !== '') {
    const pem = /^[A-Za-z0-9+/]+={0,2}$/.test(caData) ? Buffer.from(caData, 'base64').toString('latin1') : '';
    if (pem.length > caLimit) throw fail('its CA is larger than 64 KiB');
    if (certificatesIn(pem).length === 0) throw fail('its CA is no base64 PEM');
  }
  return { apiServer, caData, insecureSkipTlsVerify: insecure === true };
}

function checked<T>(read: () => T, fail: (what: string) => TkaError): T {
  try {
    return read();
  } catch (error) {
    throw fail(error instanceof Error ? cleanText(error.message) : 'unreadable');
  }
}

/**
 * Answer of GET /kubeconfig as JSON: the access, or 'pending' while it is not provisioned. The token's expiry is
 * judged by the server's own clock where it tells it, else by `now` (milliseconds of the epoch).
 * Throws Refused, NotSignedIn, Unavailable, or TkaError for an answer that can never become a credential.
 */
export function parseKubeconfig(answer: RawAnswer, who: string, now: number): TokenAccess | 'pending' {
  const doing = 'the request for a token';
  if (answer.status === 202) return 'pending';
  if (answer.status !== 200) throw refusal(answer, who, doing);
  const fail = (what: string) => notProtocol(who, doing, what);
  const config = parseAnswer(answer.body);
  if (!isObject(config)) throw fail('no JSON object');
  const entry = (section: string, name: unknown, what: string): Json => {
    const entries = own(config, section);
    const found = isObject(entries) && typeof name === 'string' ? own(entries, name) : undefined;
    if (!isObject(found)) throw fail(`no ${what} in it`);
    return found;
  };
  const context = entry('contexts', own(config, 'current-context'), 'current context');
  const cluster = entry('clusters', own(context, 'cluster'), 'cluster');
  const user = entry('users', own(context, 'user'), 'user');
  const access = clusterAccess(
    own(cluster, 'server'),
    own(cluster, 'certificate-authority-data'),
    own(cluster, 'insecure-skip-tls-verify'),
    fail,
  );
  const token = own(user, 'token');
  if (token === undefined || token === null || token === '') {
    throw new TkaError(`${who} gave an empty token`, {
      hints: ['its cluster is probably older than Kubernetes 1.30: ask its operator to upgrade it'],
    });
  }
  if (typeof token !== 'string') throw fail('the token is no text');
  const claims = checkToken(token, serverTime(answer) ?? now);
  if (typeof claims === 'string') throw fail(claims);
  return { ...access, token, claims };
}

export interface ClusterDescription extends ClusterAccess {
  readonly labels: ReadonlyMap<string, string>;
  /** The name of the cluster; null from servers that state none (Go). */
  readonly cluster: string | null;
  /** Where its sign-ins are kept: two servers with the same store serve the same sign-ins. Null if it states none. */
  readonly signInStore: string | null;
}

/** Answer of GET /cluster-info. Throws Refused, NotSignedIn or Unavailable. */
export function parseClusterInfo(answer: RawAnswer, who: string): ClusterDescription {
  const doing = 'the question about its cluster';
  if (answer.status !== 200) throw refusal(answer, who, doing);
  const fail = (what: string) => notProtocol(who, doing, what);
  const info = parseAnswer(answer.body);
  if (!isObject(info)) throw fail('no JSON object');
  const access = clusterAccess(
    own(info, 'server_url'),
    own(info, 'ca_data'),
    own(info, 'insecure_skip_tls_verify'),
    fail,
  );
  const [cluster, store] = [own(info, 'cluster'), own(info, 'sign_in_store')];
  return {
    ...access,
    labels: labelsOf(own(info, 'labels')),
    cluster: nameIn(cluster),
    signInStore: typeof store === 'string' && /^[!-~]{1,200}$/.test(store) ? store : null,
  };
}

/** A member of the mesh as a memberlist states it; what is null was not stated, or not in a usable form. */
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

/** A memberlist; `cut` counts the members beyond the 10,000 that are read, `unread` the rows that made no sense. */
export interface Memberlist {
  readonly members: readonly Member[];
  readonly cut: number;
  readonly unread: number;
}

/**
 * Answer of GET /memberlist as JSON; undefined from a server that keeps none (404 without a body of the protocol's,
 * or 503 "Gossip not enabled"). Throws Refused, NotSignedIn or Unavailable.
 */
export function parseMemberlist(answer: RawAnswer, who: string): Memberlist | undefined {
  const doing = 'the question for its memberlist';
  if (answer.status === 404 && answer.body.trim() === '404 page not found') return undefined;
  if (answer.status === 503 && /gossip/i.test(errorWords(answer.body)?.message ?? '')) return undefined;
  if (answer.status !== 200) throw refusal(answer, who, doing);
  const rows = parseAnswer(answer.body);
  // Go marshals an empty list that was never made as null.
  if (rows === null) return { members: [], cut: 0, unread: 0 };
  if (!Array.isArray(rows)) throw notProtocol(who, doing, 'no JSON array');
  return readMembers(rows);
}

/** Reads the rows of a memberlist, wherever they come from. */
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
  // A URL of another scheme, with credentials, or none at all: nothing that could be used or shown.
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

const nameIn = (value: unknown): string | null => (typeof value === 'string' && isDnsLike(value) ? value : null);

function labelsOf(value: unknown): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  if (!isObject(value)) return labels;
  for (const [key, label] of Object.entries(value).slice(0, 64)) {
    // Kubernetes allows 253 + 1 + 63 characters for a key and 63 for a value.
    if (typeof label === 'string' && cleanText(key, 317) !== '') labels.set(cleanText(key, 317), cleanText(label));
  }
  return labels;
}
