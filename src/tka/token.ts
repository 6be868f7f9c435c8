import { isObject, parseJson } from '../util/json.ts';

/** The claims of a token. Times are in milliseconds since the epoch. */
export interface TokenClaims {
  readonly expires: number;
  readonly issued: number | undefined;
  /** The name of the ServiceAccount; undefined if the token names none. */
  readonly account: string | undefined;
}

const latest = Date.UTC(9999, 11, 31);

/**
 * Returns the claims of a ServiceAccount token (a JWT, RFC 7519), or a phrase that says why it is not valid at `now`
 * (milliseconds since the epoch). Does not verify the signature; the API server does.
 */
export function checkToken(token: string, now: number): TokenClaims | string {
  if (token.length > 16 * 1024) return 'the token is too long';
  const parts = token.split('.');
  if (parts.length !== 3 || !parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))) return 'the token is not a JWT';
  const payload = parseJson(Buffer.from(parts[1] ?? '', 'base64url').toString('utf8'));
  if (!isObject(payload)) return 'the token is not a JWT';
  const { exp, iat, sub } = payload;
  if (typeof exp !== 'number' || !Number.isFinite(exp)) return 'the token has no expiry';
  const expires = Math.min(Math.floor(exp) * 1000, latest);
  if (expires <= now) return 'the token has already expired';
  const issued = typeof iat === 'number' && Number.isFinite(iat) ? iat * 1000 : undefined;
  const account = typeof sub === 'string' ? /^system:serviceaccount:[^:]+:([^:]+)$/.exec(sub)?.[1] : undefined;
  return { expires, issued, account };
}
