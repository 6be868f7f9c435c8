// What a login server states about a caller for one request: a signed JWT (RFC 7519, Ed25519). It is valid for one
// tunnel, one method and path, one time, for 30 s. The joined server believes it only as far as its own limits
// (joined-api.ts).
import { randomBytes } from 'node:crypto';
import { errors, type JWTPayload, type JWTVerifyResult, jwtVerify, SignJWT } from 'jose';
import { isObject } from '../../util/json.ts';
import { cleanText } from '../../util/text.ts';
import { messagesOf } from '../http/answers.ts';
import { type Caller, deviceLogin, Refusal } from '../http/contract.ts';
import { evictedPath, type OwnTunnel } from './contract.ts';
import { type FederationKey, keyHash, publicKeyOf } from './keys.ts';

/** What an assertion is about. */
export interface Assertion {
  /** The name of the login server's own cluster. */
  readonly issuer: string;
  /** The joined cluster, and the ID of the tunnel that the request goes through. */
  readonly cluster: string;
  readonly tunnel: string;
  readonly method: string;
  readonly path: string;
  /** With the grant for this cluster. Absent only for `evictedPath`, which concerns nobody in particular. */
  readonly caller?: Caller;
}

const algorithm = 'Ed25519';
const type = 'tka-assertion+jwt';
const lifetimeS = 30;
// The clocks drift apart after the handshake has measured their offset.
const toleranceS = 15;
/** Maximum size of an assertion in bytes. The headers of a request through a tunnel have 16 KiB. */
export const assertionLimit = 8 * 1024;
const mostTags = 32;
// In characters. The login server itself tells its caller the whole problem.
const problemLimit = 200;

/** Returns an assertion that is valid for 30 s from now (milliseconds of the epoch), signed with the key. */
export async function signAssertion(key: FederationKey, assertion: Assertion, now = Date.now()): Promise<string> {
  const { issuer, cluster, tunnel, method, path, caller } = assertion;
  const iat = Math.floor(now / 1000);
  const about = caller === undefined ? {} : claimsOf(caller);
  return await new SignJWT({ method, path, ...about })
    .setProtectedHeader({ alg: algorithm, typ: type, kid: keyHash(key.publicKey) })
    .setIssuer(issuer)
    .setAudience(`${cluster}/${tunnel}`)
    .setJti(randomBytes(16).toString('base64url'))
    .setIssuedAt(iat)
    .setExpirationTime(iat + lifetimeS)
    .sign(key.key);
}

const claimsOf = ({ login, device, tagged, role, periodMs, problem, revoked }: Caller): JWTPayload => ({
  sub: login,
  ...(device !== undefined && { device }),
  ...(tagged && { tagged: { node: tagged.node, tags: tagged.tags.slice(0, mostTags) } }),
  role,
  period_ms: Math.floor(periodMs),
  ...(problem && {
    refused: { message: cleanText(messagesOf(problem.body), problemLimit), revoked: revoked === true },
  }),
});

/**
 * Why an assertion is not accepted. `clock` and `key` can be cured by a new handshake, which measures the clocks and
 * learns the keys again.
 */
export type AssertionProblem = 'form' | 'key' | 'claims' | 'clock' | 'repeated' | 'busy';

/** Thrown for an assertion that is not accepted. The message says why, without any part of the assertion. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
  readonly problem: AssertionProblem;

  constructor(problem: AssertionProblem, message: string) {
    super(message);
    this.problem = problem;
  }
}

/** Verifies assertions. Each is accepted once. */
export class AssertionVerifier {
  readonly #used: UsedIds;

  /** Remembers at most `most` assertions of the last 60 s to 120 s, and refuses further ones in that time. */
  constructor(most = 50_000) {
    this.#used = new UsedIds(most);
  }

  /**
   * Returns the caller that an assertion is about, with the grant of the login server; undefined for an eviction. The
   * assertion must have come through this tunnel, for a request with this method and path. Throws AssertionError.
   */
  async verify(
    assertion: string,
    { method, path }: Pick<Assertion, 'method' | 'path'>,
    { id, cluster, primary, keys, clockOffsetMs }: Omit<OwnTunnel, 'replica' | 'since' | 'redial'>,
  ): Promise<Caller | undefined> {
    if (assertion.length > assertionLimit) throw new AssertionError('form', 'it is too large');
    const { payload, protectedHeader } = await verified(assertion, keys, {
      algorithms: [algorithm],
      typ: type,
      issuer: primary,
      clockTolerance: toleranceS,
      maxTokenAge: lifetimeS,
      requiredClaims: ['iss', 'aud', 'jti', 'iat', 'exp'],
      currentDate: new Date(Date.now() + clockOffsetMs),
    });
    const wrong = (what: string) => new AssertionError('claims', what);
    // An application type of JOSE may be written in other forms; only this one counts. No other header has a meaning.
    if (protectedHeader.typ !== type || Object.keys(protectedHeader).length !== 3) throw wrong('its header is unknown');
    // Not with jose's option, which accepts several audiences.
    if (payload.aud !== `${cluster}/${id}`) throw wrong('it is for another tunnel');
    if (payload.method !== method || payload.path !== path) throw wrong('it is for another request');
    const { jti, iat = 0, exp = 0 } = payload;
    if (exp <= iat || exp - iat > lifetimeS) throw wrong(`it is valid for longer than ${lifetimeS} s`);
    if (typeof jti !== 'string' || !/^[\w-]{16,64}$/.test(jti)) throw wrong('its ID is invalid');
    const caller = path === evictedPath ? undefined : callerOf(payload, primary);
    this.#used.use(jti);
    return caller;
  }
}

async function verified(
  assertion: string,
  keys: readonly string[],
  options: Parameters<typeof jwtVerify>[2],
): Promise<JWTVerifyResult> {
  try {
    return await jwtVerify(
      assertion,
      ({ kid }) => {
        const known = keys.find((publicKey) => keyHash(publicKey) === kid);
        if (known === undefined) throw new AssertionError('key', 'its key is not one of the login server');
        return publicKeyOf(known);
      },
      options,
    );
  } catch (error) {
    if (error instanceof AssertionError) throw error;
    if (error instanceof errors.JWTExpired) throw new AssertionError('clock', 'it has expired');
    if (error instanceof errors.JWTClaimValidationFailed) {
      const { claim, reason } = error;
      // With this reason it is only the time that is wrong.
      if (claim === 'iat' && reason === 'check_failed') throw new AssertionError('clock', 'it is from the future');
      throw new AssertionError('claims', `its claim "${claim}" is wrong`);
    }
    if (error instanceof errors.JWSSignatureVerificationFailed)
      throw new AssertionError('form', 'its signature is wrong');
    if (error instanceof errors.JOSEError) throw new AssertionError('form', 'it is not a valid JWT of this kind');
    throw error;
  }
}

/**
 * Returns the caller of an assertion. Throws AssertionError if it states anything that a login server cannot know about
 * a caller.
 */
function callerOf(payload: JWTPayload, through: string): Caller {
  const { sub: login, device, tagged, role, period_ms: periodMs, refused } = payload;
  const wrong = (claim: string) => new AssertionError('claims', `its claim "${claim}" is wrong`);
  if (!isText(login, 320)) throw wrong('sub');
  if (device !== undefined && !(isText(device, 128) && /^[\w-]+$/.test(device))) throw wrong('device');
  const isDevice = login.startsWith(deviceLogin(''));
  if (isDevice && (device === undefined || login !== deviceLogin(device))) throw wrong('device');
  const [username = ''] = isDevice ? [device] : login.split('@', 1);
  if (username === '') throw wrong('sub');
  if (isDevice !== (tagged !== undefined)) throw wrong('tagged');
  const base = { username, login, ...(device !== undefined && { device }), ...taggedBy(tagged, wrong), through };
  if (typeof periodMs !== 'number' || !Number.isSafeInteger(periodMs) || periodMs < 0) throw wrong('period_ms');
  if (role !== '' && !isText(role, 253)) throw wrong('role');
  if (refused === undefined) {
    if (role === '') throw wrong('role');
    return { ...base, role, periodMs };
  }
  if (!isObject(refused) || typeof refused.message !== 'string') throw wrong('refused');
  const message = cleanText(refused.message, 1_000);
  const problem = new Refusal(403, { message }, { reason: 'no_grant' });
  // A caller with a role is refused because of its period; without one, the policy grants nothing or cannot be read.
  if (refused.revoked === true && role !== '') throw wrong('role');
  return { ...base, role, periodMs, problem, revoked: refused.revoked === true };
}

function taggedBy(tagged: unknown, wrong: (claim: string) => AssertionError): Pick<Caller, 'tagged'> {
  if (tagged === undefined) return {};
  if (!isObject(tagged)) throw wrong('tagged');
  const { node, tags } = tagged;
  if (node !== '' && !isText(node, 253)) throw wrong('tagged');
  if (!Array.isArray(tags) || tags.length > mostTags) throw wrong('tagged');
  const known = tags.filter((tag): tag is string => isText(tag, 128) && /^tag:[^,]+$/.test(tag));
  if (known.length !== tags.length) throw wrong('tagged');
  return { tagged: { node, tags: known } };
}

/** Returns whether a claim is a text that is safe to store and to show: not empty, clean, not too long. */
const isText = (claim: unknown, limit: number): claim is string =>
  typeof claim === 'string' && claim !== '' && cleanText(claim, limit) === claim;

// Longer than an assertion can be valid: its lifetime, and the tolerance before and after it.
const rememberedMs = (lifetimeS + 2 * toleranceS) * 1000;

/** The IDs of assertions that were accepted. */
class UsedIds {
  readonly #most: number;
  // Two generations, each of them for 60 s. So an ID is kept for 60 s at least, and dropping needs no search.
  #young = new Set<string>();
  #old = new Set<string>();
  #since = performance.now();

  constructor(most: number) {
    this.#most = most;
  }

  /** Remembers an ID. Throws AssertionError if it was used before, or if there are too many to remember. */
  use(id: string): void {
    const age = performance.now() - this.#since;
    if (age >= rememberedMs) {
      this.#old = age < 2 * rememberedMs ? this.#young : new Set();
      this.#young = new Set();
      this.#since = performance.now();
    }
    if (this.#young.has(id) || this.#old.has(id)) throw new AssertionError('repeated', 'it was used before');
    // Forgetting one would allow its reuse.
    if (this.#young.size + this.#old.size >= this.#most) throw new AssertionError('busy', 'there are too many');
    this.#young.add(id);
  }
}
