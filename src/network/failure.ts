import { systemCode } from '../errors.ts';
import { cleanText } from '../tka/text.ts';

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

/** A failure to connect in a person's words, its kind, and how many milliseconds it is worth to try again. */
export interface Failure {
  readonly kind: 'name' | 'route' | 'refused' | 'timeout' | 'tls' | 'broken';
  readonly what: string;
  readonly patience: number;
}

// OpenSSL's reasons as Node spells them: CERT_HAS_EXPIRED, INVALID_CA, CA_MD_TOO_WEAK, ERR_TLS_…, EPROTO's ERR_SSL_….
const tlsCode =
  /CERT|SSL|TLS|SELF_SIGNED|VERIFY|INVALID_(?:CA|PURPOSE)|TOO_(?:WEAK|SMALL)|HOSTNAME_MISMATCH|PATH_LENGTH/;

/** Tells what a failed connection means. */
export function failureOf(error: unknown): Failure {
  const code = systemCode(error) ?? '';
  if (code === 'ENOTFOUND' || code.startsWith('EAI_')) {
    return { kind: 'name', what: 'its name does not resolve', patience: 500 };
  }
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH')
    return { kind: 'route', what: 'no route to it', patience: 500 };
  if (code === 'ECONNREFUSED') return { kind: 'refused', what: 'connection refused', patience: 1000 };
  if (error instanceof ConnectTimeout) {
    return { kind: 'timeout', what: `no answer within ${seconds(error.timeout)}`, patience: 0 };
  }
  if (code === 'ETIMEDOUT') return { kind: 'timeout', what: 'no answer', patience: 0 };
  if (tlsCode.test(code)) {
    return { kind: 'tls', what: `its certificate or TLS is not in order: ${firstLine(error)}`, patience: 0 };
  }
  return { kind: 'broken', what: `the connection broke (${code || firstLine(error)})`, patience: 5000 };
}

/** Milliseconds as seconds, for a person. */
export function seconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 100) / 10} s`;
}

function firstLine(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const line = (inner instanceof Error ? inner.message : String(inner)).split('\n', 1)[0] ?? '';
  return cleanText(line.charAt(0).toLowerCase() + line.slice(1), 200);
}
