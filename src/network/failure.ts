import { systemCode, TkaError } from '../util/errors.ts';
import { cleanText } from '../util/text.ts';

/** An attempt to connect that took too long. */
export class ConnectTimeout extends Error {
  override readonly name = 'ConnectTimeout';
  readonly code = 'ERR_CONNECT_TIMEOUT';
  readonly timeout: number;

  constructor(timeout: number) {
    super(`no connection within ${timeout} ms`);
    this.timeout = timeout;
  }
}

/** No connection, a server error, or an answer that is not of the protocol. A retry may help. */
export class Unavailable extends TkaError {
  override readonly name = 'Unavailable';
  /** How long to retry while this is the answer, in milliseconds. */
  readonly patience: number;
  /** The server answered, but with an error or not in the protocol. */
  readonly answered: boolean;
  /** The server is down: no connection, no complete answer, or a gateway's 502, 503 or 504. */
  readonly away: boolean;
  /** The pause before the next try that the server asks for, in milliseconds; undefined if it asks for none. */
  readonly pause: number | undefined;

  constructor(
    message: string,
    patience: number,
    options: { hints?: readonly string[]; cause?: unknown; answered?: boolean; away?: boolean; pause?: number } = {},
  ) {
    super(message, options);
    this.patience = patience;
    this.pause = options.pause;
    this.answered = options.answered ?? false;
    this.away = options.away ?? false;
  }
}

/** Why a connection failed, in words for a person, and how long to retry (`patience`, in milliseconds). */
export interface ConnectFailure {
  /** `plain`: TLS was sent to a port for plain http; `authority`: the certificate's authority is not trusted. */
  readonly kind: 'name' | 'route' | 'refused' | 'timeout' | 'tls' | 'plain' | 'authority' | 'broken';
  readonly what: string;
  readonly patience: number;
}

// OpenSSL's error codes in Node's spelling: CERT_HAS_EXPIRED, INVALID_CA, CA_MD_TOO_WEAK, ERR_TLS_…, EPROTO's
// ERR_SSL_….
const tlsCode =
  /CERT|SSL|TLS|SELF_SIGNED|VERIFY|INVALID_(?:CA|PURPOSE)|TOO_(?:WEAK|SMALL)|HOSTNAME_MISMATCH|PATH_LENGTH/;

// OpenSSL's messages for an answer that is not TLS, such as `HTTP/1.1 400`.
const notTls = /wrong version number|packet length too long/i;

const unknownAuthority = new Set([
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** The hint for a certificate from an authority that is not trusted. */
export const authorityHint = 'for a private CA: kubectl tka config tls.caFile FILE';

/** Returns the reason for a failed connection. */
export function failureOf(error: unknown): ConnectFailure {
  const code = systemCode(error) ?? '';
  if (code === 'ENOTFOUND' || code.startsWith('EAI_')) {
    return { kind: 'name', what: 'the name does not resolve', patience: 500 };
  }
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH')
    return { kind: 'route', what: 'no route to host', patience: 500 };
  if (code === 'ECONNREFUSED') return { kind: 'refused', what: 'connection refused', patience: 1000 };
  if (error instanceof ConnectTimeout) {
    return { kind: 'timeout', what: `no answer within ${seconds(error.timeout)}`, patience: 0 };
  }
  if (code === 'ETIMEDOUT') return { kind: 'timeout', what: 'no answer', patience: 0 };
  if (tlsCode.test(code) || code === 'EPROTO') {
    if (notTls.test(messages(error))) return { kind: 'plain', what: 'this port serves plain http', patience: 0 };
    const kind = unknownAuthority.has(code) ? 'authority' : 'tls';
    return { kind, what: `TLS handshake failed: ${firstLine(error)}`, patience: 0 };
  }
  return { kind: 'broken', what: `the connection broke (${code || firstLine(error)})`, patience: 5000 };
}

/** Returns the messages of an error and of its causes. */
function messages(error: unknown): string {
  const all: string[] = [];
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = e.cause, depth++) {
    all.push(e.message);
    if (e instanceof AggregateError) all.push(...e.errors.map(String));
  }
  return all.join('\n');
}

/** Formats milliseconds as seconds: `1.5 s`. */
export function seconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 100) / 10} s`;
}

function firstLine(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const [first = ''] = (inner instanceof Error ? inner.message : String(inner)).split('\n', 1);
  // Node's advice names an option that kubectl's users cannot set.
  const line = first.replace(/; if the root CA is installed locally.*/, '');
  return cleanText(line.charAt(0).toLowerCase() + line.slice(1), 200);
}
