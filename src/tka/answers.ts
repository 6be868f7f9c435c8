// Parses a TKA server's answers. They are untrusted: shapes are checked, texts are cleaned.

import { TkaError } from '../util/errors.ts';
import { isObject, type Json, own } from '../util/json.ts';
import { certificatesIn } from '../util/pem.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer, placeOf } from '../util/url.ts';
import {
  labelsOf,
  nameIn,
  notProtocol,
  parseAnswer,
  type RawAnswer,
  refusal,
  rfc3339,
  serverTime,
} from './raw-answer.ts';
import { checkToken, type TokenClaims } from './token.ts';

/** A sign-in as a server states it. */
export interface SignIn {
  /** Of a tagged device, its name on the tailnet. */
  readonly username: string;
  readonly role: string;
  /** End of the sign-in, in milliseconds since the epoch. */
  readonly until: number;
}

/** Parses the answer of POST /login, GET /login and POST /logout. Throws Refused, NotSignedIn or Unavailable. */
export function parseSignIn(answer: RawAnswer, who: string, doing = 'the sign-in'): SignIn {
  if (answer.status !== 200 && answer.status !== 202) throw refusal(answer, who, doing);
  const body = parseAnswer(answer.body);
  if (!isObject(body)) throw notProtocol(who, doing, 'not a JSON object');
  const [username, role, until] = ['username', 'role', 'until'].map((key) => own(body, key));
  if (typeof username !== 'string' || typeof role !== 'string' || typeof until !== 'string') {
    throw notProtocol(who, doing, 'no username, role and until');
  }
  const time = rfc3339.test(until) ? Date.parse(until) : Number.NaN;
  if (Number.isNaN(time)) throw notProtocol(who, doing, 'until is not an RFC 3339 time');
  if (cleanText(username) === '') throw notProtocol(who, doing, 'an empty username');
  return { username: nameIn(own(body, 'node')) ?? cleanText(username), role: cleanText(role), until: time };
}

/** How to connect to a cluster's API server. */
export interface ClusterAccess {
  /** Canonical URL. */
  readonly apiServer: string;
  /** Base64 of PEM; empty for the system's CAs. */
  readonly caData: string;
  readonly insecureSkipTlsVerify: boolean;
}

/** A token and its API server. */
export interface TokenAccess extends ClusterAccess {
  readonly token: string;
  readonly claims: TokenClaims;
}

/** Maximum size of a CA, in bytes of PEM: about forty certificates. */
export const caLimit = 64 * 1024;

function clusterAccess(
  server: unknown,
  ca: unknown,
  insecure: unknown,
  fail: (what: string) => TkaError,
): ClusterAccess {
  if (typeof server !== 'string') throw fail('no API server');
  const apiServer = checked(() => canonicalApiServer(server), fail);
  if (ca !== undefined && ca !== null && typeof ca !== 'string') throw fail('the CA is not a string');
  if (insecure !== undefined && insecure !== null && typeof insecure !== 'boolean')
    throw fail('insecure is not a boolean');
  const caData = (ca ?? '').replace(/\s+/g, '');
  // Base64 is a third longer than its bytes.
  if (caData.length > (caLimit / 3) * 4 + 4) throw fail('the CA is larger than 64 KiB');
  if (caData !== '') {
    const pem = /^[A-Za-z0-9+/]+={0,2}$/.test(caData) ? Buffer.from(caData, 'base64').toString('latin1') : '';
    if (pem.length > caLimit) throw fail('the CA is larger than 64 KiB');
    if (certificatesIn(pem).length === 0) throw fail('the CA is not base64 PEM');
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
 * Parses the answer of GET /kubeconfig as JSON. Returns 'pending' while the sign-in is not provisioned. Judges the
 * token's expiry by the server's clock if the answer states it, else by `now` (milliseconds since the epoch). Throws
 * Refused, NotSignedIn, Unavailable, or TkaError for an answer that can never become a credential.
 */
export function parseKubeconfig(answer: RawAnswer, who: string, now: number): TokenAccess | 'pending' {
  const doing = 'the request for a token';
  if (answer.status === 202) return 'pending';
  if (answer.status !== 200) throw refusal(answer, who, doing);
  const fail = (what: string) => notProtocol(who, doing, what);
  const config = parseAnswer(answer.body);
  if (!isObject(config)) throw fail('not a JSON object');
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
    throw new TkaError(`${placeOf(who)} returned an empty token`, {
      hints: ['its cluster is probably older than Kubernetes 1.30; ask its administrator to upgrade'],
    });
  }
  if (typeof token !== 'string') throw fail('the token is not a string');
  const claims = checkToken(token, serverTime(answer) ?? now);
  if (typeof claims === 'string') throw fail(claims);
  return { ...access, token, claims };
}

/** A cluster as its TKA server describes it. */
export interface ClusterDescription extends ClusterAccess {
  readonly labels: ReadonlyMap<string, string>;
  /** The name of the cluster; null if the server does not state it (Go). */
  readonly cluster: string | null;
  /**
   * Where the cluster's sign-ins are stored; servers with the same store serve the same sign-ins. Null if not stated.
   */
  readonly signInStore: string | null;
}

/** Parses the answer of GET /cluster-info. Throws Refused, NotSignedIn or Unavailable. */
export function parseClusterInfo(answer: RawAnswer, who: string): ClusterDescription {
  const doing = 'the cluster description';
  if (answer.status !== 200) throw refusal(answer, who, doing);
  const fail = (what: string) => notProtocol(who, doing, what);
  const info = parseAnswer(answer.body);
  if (!isObject(info)) throw fail('not a JSON object');
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
    signInStore: typeof store === 'string' && /^[!-~](?:[ -~]{0,198}[!-~])?$/.test(store) ? store : null,
  };
}
